//! Mails that are given up, and what a person can do then.

use stampede_bus::{Message, Replayed};
use stampede_contracts::command::MailCommand;
use stampede_notify::config::OUTBOX_PARTITIONS;
use stampede_notify::store::{End, Store, Taken};
use stampede_outbox::Outbox;
use stampede_testkit::eventually;

use crate::orders::message;
use crate::smtp::Turn;
use crate::world::{PATIENCE, World};

const NO_SUCH_USER: Turn = Turn::Refuse("550 5.1.1");

fn given_up(command: &MailCommand) -> (String, bool) {
    (format!("mail.{}.given_up", command.step_id), false)
}

fn sent(command: &MailCommand) -> (String, bool) {
    (format!("mail.{}.sent", command.step_id), true)
}

/// Sends the only dead letter again, as the operator's command does.
async fn replay(world: &World) {
    let letter = world.letters_become(1).await.remove(0);
    assert_eq!(world.operator.replay_dead_letter(&letter).await, Ok(Replayed::Sent));
}

#[tokio::test]
async fn an_address_that_the_mail_server_refuses_is_a_dead_letter_that_does_not_repeat_it() {
    let (world, _process) = World::start(&[]).await;
    world.mail.play(&[], NO_SUCH_USER);
    let (command, _) = world.orders.place();
    world.orders.send(&command).await;

    assert_eq!(world.results_become(command.step_id, 1).await, [given_up(&command)]);
    let letter = world.letters_become(1).await.remove(0);
    assert_eq!(letter.reason, "the mail server says 550 5.1.1");
    assert_eq!((letter.subject.as_str(), letter.deliveries), ("dlq.notify.notify", 1));
    assert_eq!(letter.origin_subject, "cmd.notify.tickets");
    assert_eq!(letter.event_id, command.step_id.to_string());

    // The sweeper's repeat hears what became of it, and opens nothing.
    world.mail.play(&[], Turn::Take);
    world.orders.send_again(&command, 1).await;
    assert_eq!(world.results_become(command.step_id, 2).await[1], given_up(&command));
    assert_eq!(world.row(command.step_id).await.as_deref(), Some("dead 1"));
    assert!(world.mail.arrived().is_empty());
    world.check().await;
}

#[tokio::test]
async fn tickets_that_were_revoked_before_they_were_sent_are_not_sent_and_need_no_person() {
    let (world, _process) = World::start(&[]).await;
    world.mail.play(&[], Turn::Refuse("451 4.2.1"));
    let (command, _) = world.orders.place();
    world.orders.send(&command).await;
    eventually(PATIENCE, async || {
        world.row(command.step_id).await.is_some_and(|row| row.starts_with("open") && row != "open 0")
    })
    .await;
    // The mail server still rejects: an attempt that read the tickets before this may reach it.
    world.orders.revoke(command.order_id);

    assert_eq!(world.results_become(command.step_id, 1).await, [given_up(&command)]);
    assert!(world.row(command.step_id).await.unwrap().starts_with("withdrawn "));
    world.letters_become(0).await;
    world.check().await;
}

#[tokio::test]
async fn what_is_no_address_is_a_dead_letter_and_no_mail_server_is_asked() {
    let (world, _process) = World::start(&[]).await;
    let (command, _) = world.orders.place_for("ada at nowhere, 4f1c");
    world.orders.send(&command).await;

    assert_eq!(world.results_become(command.step_id, 1).await, [given_up(&command)]);
    assert_eq!(world.letters_become(1).await[0].reason, "not a mail address");
    assert!(world.mail.arrived().is_empty());
    world.check().await;
}

#[tokio::test]
async fn when_the_attempts_are_used_up_it_is_a_dead_letter() {
    let (world, _process) = World::start(&[("MAIL_ATTEMPTS_MAX", "2")]).await;
    world.mail.play(&[], Turn::Refuse("452 4.2.2"));
    let (command, _) = world.orders.place();
    world.orders.send(&command).await;

    assert_eq!(world.results_become(command.step_id, 1).await, [given_up(&command)]);
    let letter = world.letters_become(1).await.remove(0);
    assert_eq!((letter.reason.as_str(), letter.deliveries), ("the mail server says 452 4.2.2", 2));
    assert_eq!(world.row(command.step_id).await.as_deref(), Some("dead 2"));
    world.check().await;
}

#[tokio::test]
async fn a_command_that_cannot_be_read_is_a_dead_letter_and_holds_up_nobody() {
    let (world, _process) = World::start(&[]).await;
    let (unreadable, _) = world.orders.place();
    world.orders.publish(&Message { payload: b"{}".to_vec(), ..message(&unreadable) }).await;
    let (command, _) = world.orders.place();
    world.orders.send(&command).await;

    let letter = world.letters_become(1).await.remove(0);
    assert!(letter.reason.contains("stampede.notify.command.v1"), "{}", letter.reason);
    assert_eq!(world.results_become(command.step_id, 1).await, [sent(&command)]);
    assert_eq!(world.row(unreadable.step_id).await, None);
    world.check().await;
}

#[tokio::test]
async fn the_replay_of_a_mail_that_was_given_up_sends_it() {
    let (world, _process) = World::start(&[]).await;
    world.mail.play(&[NO_SUCH_USER, NO_SUCH_USER], Turn::Take);
    let (command, buyer) = world.orders.place();
    world.orders.send(&command).await;
    world.results_become(command.step_id, 1).await;

    // Once more in vain: it is another letter, and the result has been told.
    replay(&world).await;
    eventually(PATIENCE, async || world.operator.newest_dead_letter().await == Ok(2)).await;
    let told = world.results_become(command.step_id, 2).await;
    assert_eq!(told, [given_up(&command), given_up(&command)]);

    replay(&world).await;
    let told = world.results_become(command.step_id, 3).await;
    assert_eq!(told[2], sent(&command), "news for orders, under an id of its own");
    assert_eq!(world.row(command.step_id).await.as_deref(), Some("sent 1"));
    assert_eq!(world.mail.arrived()[0].to, buyer.email);
    world.letters_become(0).await;

    // What has been sent stays sent, whoever asks.
    world.orders.send_again(&command, 1).await;
    assert_eq!(world.results_become(command.step_id, 4).await[3], sent(&command));
    assert_eq!(world.mail.arrived().len(), 1);
    world.check().await;
}

#[tokio::test]
async fn a_replay_that_is_delivered_twice_opens_a_mail_once() {
    let world = World::new().await;
    let pool = world.database.pool().clone();
    let store = Store::new(pool.clone(), Outbox::new(pool, OUTBOX_PARTITIONS), "notify-1");
    let (command, _) = world.orders.place();
    let first = Taken { command: command.clone(), message: message(&command), replay_of: None };
    let replay = Taken { message: message(&command).attempt(7), replay_of: Some(1), ..first.clone() };
    let die = async || {
        let due = store.lease(1, PATIENCE).await.unwrap().remove(0);
        store.end(&due, End::Dead, Some("in vain")).await.unwrap();
        due
    };

    assert!(store.take(std::slice::from_ref(&first)).await.unwrap().is_empty());
    assert!(store.take(std::slice::from_ref(&replay)).await.unwrap().is_empty(), "it is open already");
    die().await;
    assert!(store.take(&[first]).await.unwrap().is_empty());
    assert_eq!(store.take(std::slice::from_ref(&replay)).await.unwrap(), [command.order_id]);
    let again = die().await;
    assert_eq!((again.attempts, again.message.msg_id), (1, replay.message.msg_id.clone()));
    assert!(store.take(&[replay]).await.unwrap().is_empty());
}
