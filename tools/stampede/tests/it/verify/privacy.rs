//! What is personal or secret, planted in logs and streams.

use async_nats::HeaderMap;
use async_nats::jetstream;
use stampede::verify::Rule;
use stampede_testkit::{Nats, provision};

use super::world::World;

const CARD: &str = "tok_works_0123456789abcdef0123456789abcdef";

#[tokio::test]
async fn an_address_a_name_or_a_card_in_a_log_is_found_and_not_repeated() {
    for (secret, words) in [
        ("grace-2@example.org", "the e-mail address of order ord_"),
        ("Grace Hopper 2", "the buyer's name of order ord_"),
        (CARD, "a card token"),
    ] {
        let mut world = World::new().await;
        let harmless = "{\"level\":\"INFO\",\"message\":\"an order was placed\"}\n";
        let line = format!("{{\"message\":\"cannot send to {secret}, trying again\"}}\n");
        world.sources.logs = vec![
            world.file("logs/notify-1.log", harmless),
            world.file("logs/orders-1.log", &format!("{harmless}{line}")),
        ];
        world.breaks(Rule::Private, words).await;
        let report = world.verify().await;
        let listed = &report.of(Rule::Private).unwrap().listed;
        assert!(listed.len() == 1 && listed[0].contains("orders-1.log:2"), "{report}");
        assert!(!report.to_string().contains(secret), "{report}");
    }
}

#[tokio::test]
async fn a_secret_in_a_stream_or_a_dead_letter_is_found() {
    let nats = Nats::start().await;
    let client = nats.client().await;
    let context = jetstream::new(client.clone());
    provision(&context).await;
    let secret: String = "1".repeat(64);

    let mut world = World::new().await;
    world.sources.nats = Some(client);
    for number in 0..1_200 {
        let subject = format!("evt.orders.order.v1.{number}");
        context.publish(subject, "{\"state\":\"confirmed\"}".into()).await.unwrap().await.unwrap();
    }
    let report = world.verify().await;
    assert!(report.holds(), "{report}");
    assert!(report.of(Rule::Private).unwrap().checked.contains(&(1_200, "messages")), "{report}");

    let mut headers = HeaderMap::new();
    headers.insert("reason", format!("the link #{secret} is broken").as_str());
    let sent = context.publish_with_headers("dlq.notify.notify", headers, "".into()).await.unwrap();
    sent.await.unwrap();
    // A work queue is read without taking anything from it.
    let command = format!("{{\"order_secret\":\"{secret}\"}}");
    context.publish("cmd.notify.tickets", command.into()).await.unwrap().await.unwrap();

    world.breaks(Rule::Private, "stream DLQ, message 1 (dlq.notify.notify): the secret of order ord_").await;
    world
        .breaks(Rule::Private, "stream CMD_NOTIFY, message 1 (cmd.notify.tickets): the secret of order")
        .await;
    let queue = context.get_stream("CMD_NOTIFY").await.unwrap();
    assert_eq!(queue.cached_info().state.messages, 1);
}
