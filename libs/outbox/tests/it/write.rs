//! What is written, and what is not.

use stampede_bus::Message;
use stampede_outbox::{Outbox, Relay, RelaySettings};
use tokio_util::sync::CancellationToken;

use crate::stage::{NEVER, Stage, message};

#[tokio::test]
async fn a_message_arrives_as_it_was_written_and_its_row_is_gone() {
    let stage = Stage::set().await;
    let outbox = stage.outbox();
    let relay = stage.relay_at_work(&outbox, NEVER).await;
    let full = Message {
        correlation_id: Some("ord_1".into()),
        causation_id: Some("stp_1".into()),
        traceparent: Some("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01".into()),
        msg_id: "evt_1.2".into(),
        payload: "{\"name\":\"Zoë\"}".into(),
        ..message("evt_1")
    };
    stage.write(&outbox, "ord_1", std::slice::from_ref(&full)).await;

    stage.until_empty().await;
    assert_eq!(stage.messages().await, [full]);
    relay.stop().await;
}

#[tokio::test]
async fn what_was_rolled_back_is_not_published() {
    let stage = Stage::set().await;
    let outbox = stage.outbox();
    let relay = stage.relay_at_work(&outbox, NEVER).await;
    let mut transaction = stage.database.begin().await.unwrap();
    outbox.add(&mut transaction, "a", &[message("rolled-back")]).await.unwrap();
    transaction.rollback().await.unwrap();
    stage.write(&outbox, "a", &[message("committed")]).await;

    stage.until_empty().await;
    assert_eq!(stage.published().await, ["committed"]);
    relay.stop().await;
}

#[tokio::test]
async fn one_statement_writes_many_messages_of_many_aggregates_in_order() {
    let stage = Stage::set().await;
    let outbox = stage.outbox();
    let messages: Vec<_> =
        (0..500).map(|n| (format!("aggregate-{}", n % 7), message(format!("{n:03}")))).collect();
    let mut transaction = stage.database.begin().await.unwrap();
    assert_eq!(outbox.add_all(&mut transaction, &messages).await.unwrap().rows(), 500);
    assert_eq!(outbox.add(&mut transaction, "a", &[]).await.unwrap().rows(), 0);
    transaction.commit().await.unwrap();

    let ids: Vec<String> = sqlx::query_scalar("SELECT ce_id FROM outbox ORDER BY id")
        .fetch_all(stage.database.pool())
        .await
        .unwrap();
    assert!(ids.iter().eq(messages.iter().map(|(_, message)| &message.ce_id)));
}

#[tokio::test]
async fn a_message_nats_would_never_take_fails_its_own_transaction() {
    let stage = Stage::set().await;
    let outbox = stage.outbox();
    let too_large = Message { payload: vec![b' '; 512 * 1024 + 1], ..message("large") };
    let no_subject = Message { subject: "evt.test thing".into(), ..message("blank") };
    for wrong in [too_large, no_subject] {
        let mut transaction = stage.database.begin().await.unwrap();
        let error = outbox.add(&mut transaction, "a", &[wrong]).await.unwrap_err();
        assert!(error.as_database_error().unwrap().is_check_violation());
    }
}

#[tokio::test]
async fn a_partition_that_nobody_would_publish_is_a_fault_and_not_a_silence() {
    let stage = Stage::set().await;
    let more = Outbox::new(stage.database.pool().clone(), 64);
    for n in 0..64 {
        stage.write(&more, &format!("aggregate-{n}"), &[message(n.to_string())]).await;
    }
    let fewer = Relay::new(stage.outbox(), stage.bus.clone(), RelaySettings::default());
    let error = fewer.run(CancellationToken::new()).await.unwrap_err();
    assert!(error.to_string().contains("there are only 4"), "{error}");
}
