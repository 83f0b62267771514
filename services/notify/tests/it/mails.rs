//! Mails that arrive in the end.

use time::OffsetDateTime;

use stampede_contracts::Code;
use stampede_testkit::eventually;

use crate::smtp::Turn;
use crate::world::{PATIENCE, World};

#[tokio::test]
async fn the_tickets_arrive_as_text_and_as_html_with_code_and_secret() {
    let (world, _process) = World::start(&[]).await;
    let (command, buyer) = world.orders.place();
    world.orders.send(&command).await;

    let results = world.results_become(command.step_id, 1).await;
    assert_eq!(results, [(format!("mail.{}.sent", command.step_id), true)]);
    let [mail] = world.mail.arrived().try_into().unwrap();
    assert_eq!(mail.to, buyer.email);
    let id = format!("<{}@stampede.example>", command.step_id);
    assert_eq!(mail.header("Message-ID"), Some(id.as_str()));
    assert_eq!(mail.header("Subject"), Some("Your tickets for Night of the Crates"));
    assert!(mail.header("Content-Type").unwrap().starts_with("multipart/alternative"));
    for part in [mail.part("text/plain"), mail.part("text/html")] {
        for word in [&buyer.name, &buyer.tickets[0].code, &buyer.order_secret] {
            assert!(part.contains(word.as_str()), "{word} in {part}");
        }
    }
    assert_eq!(world.row(command.step_id).await.as_deref(), Some("sent 1"));
    world.check().await;
}

#[tokio::test]
async fn what_the_mail_server_does_not_take_now_it_gets_again() {
    let (world, _process) = World::start(&[]).await;
    world.mail.play(&[Turn::Refuse("451 4.2.1"), Turn::Refuse("421 4.3.2")], Turn::Take);
    let (command, _) = world.orders.place();
    world.orders.send(&command).await;

    let results = world.results_become(command.step_id, 1).await;
    assert!(results[0].1);
    assert_eq!(world.mail.arrived().len(), 1);
    assert_eq!(world.row(command.step_id).await.as_deref(), Some("sent 2"));
    world.check().await;
}

#[tokio::test]
async fn no_outage_uses_up_attempts_be_it_of_orders_or_of_the_mail_server() {
    let (world, _process) = World::start(&[("MAIL_ATTEMPTS_MAX", "1")]).await;
    world.orders.fail([Code::Unavailable, Code::Internal, Code::DeadlineExceeded]);
    world.mail.play(&[Turn::Refuse("421 4.3.2"), Turn::LoseAnswer], Turn::Take);
    let (command, _) = world.orders.place();
    world.orders.send(&command).await;

    let results = world.results_become(command.step_id, 1).await;
    assert_eq!(results, [(format!("mail.{}.sent", command.step_id), true)]);
    assert_eq!(world.row(command.step_id).await.as_deref(), Some("sent 1"));
    world.letters_become(0).await;
    world.check().await;
}

#[tokio::test]
async fn a_mail_whose_answer_was_lost_arrives_twice_and_is_marked_as_the_same() {
    let (world, _process) = World::start(&[]).await;
    world.mail.play(&[Turn::LoseAnswer], Turn::Take);
    let (command, _) = world.orders.place();
    world.orders.send(&command).await;

    assert!(world.results_become(command.step_id, 1).await[0].1);
    let [first, second] = world.mail.arrived().try_into().unwrap();
    assert!(first.header("Message-ID").is_some());
    assert_eq!(first.header("Message-ID"), second.header("Message-ID"));
    world.check().await;
}

#[tokio::test]
async fn after_a_crash_in_the_middle_it_is_sent_when_the_lease_is_over() {
    let settings = [("MAIL_TIMEOUT_MS", "1000")];
    let (world, process) = World::start(&settings).await;
    world.mail.play(&[], Turn::Hang);
    let (command, _) = world.orders.place();
    world.orders.send(&command).await;
    eventually(PATIENCE, async || !world.mail.arrived().is_empty()).await;
    process.crash().await;
    let tried = world.mail.arrived().len();
    let lease = sqlx::query_scalar("SELECT next_at FROM mail WHERE state = 'open'");
    let lease: OffsetDateTime = lease.fetch_one(world.database.pool()).await.unwrap();

    world.mail.play(&[], Turn::Take);
    let _next = world.process(&settings);
    assert!(world.results_become(command.step_id, 1).await[0].1);
    assert!(OffsetDateTime::now_utc() >= lease, "somebody else may still have been at it");
    let mails = world.mail.arrived();
    assert_eq!(mails.len(), tried + 1);
    assert_eq!(mails[0].header("Message-ID"), mails[tried].header("Message-ID"));
    world.check().await;
}

#[tokio::test]
async fn after_a_crash_a_process_of_the_same_name_sends_it_without_waiting_for_the_lease() {
    // So that the lease lasts for five minutes.
    let settings = [("MAIL_TIMEOUT_MS", "30000"), ("INSTANCE", "notify-1")];
    let (world, process) = World::start(&settings).await;
    world.mail.play(&[], Turn::Hang);
    let (command, _) = world.orders.place();
    world.orders.send(&command).await;
    eventually(PATIENCE, async || !world.mail.arrived().is_empty()).await;
    process.crash().await;

    world.mail.play(&[], Turn::Take);
    let _next = world.process(&settings);
    assert!(world.results_become(command.step_id, 1).await[0].1);
    world.check().await;
}

#[tokio::test]
async fn a_command_that_comes_again_sends_nothing_and_hears_the_result_again() {
    let (world, _process) = World::start(&[]).await;
    let (command, _) = world.orders.place();
    world.orders.send(&command).await;
    world.results_become(command.step_id, 1).await;
    world.orders.send_again(&command, 1).await;

    let results = world.results_become(command.step_id, 2).await;
    assert_eq!(results[0], results[1], "the same event: its readers know it");
    assert_eq!(world.mail.arrived().len(), 1);
    world.check().await;
}

#[tokio::test]
async fn an_outage_of_the_database_ends_no_process_and_the_mail_is_sent_after_it() {
    let (world, mut process) = World::start(&[]).await;
    let (before, _) = world.orders.place();
    world.orders.send(&before).await;
    world.results_become(before.step_id, 1).await;

    world.database.shut().await;
    // One failure more than a defect may have.
    eventually(PATIENCE, async || world.failures() > 5).await;
    assert!(process.is_alive());
    let (command, _) = world.orders.place();
    world.orders.send(&command).await;
    world.database.open().await;
    assert!(world.results_become(command.step_id, 1).await[0].1);
    world.check().await;
}
