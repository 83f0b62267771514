use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};

use stampede_bus::{Bus, Delivery, Reached, Replay};
use stampede_testkit::{Nats, eventually};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::support::{FACTS, Note, PATIENCE, connect, make_facts, publish, state};

/// What a reader saw.
#[derive(Clone, Default)]
struct Copy {
    seen: Arc<Mutex<Vec<String>>>,
    caught_up: Arc<AtomicU32>,
}

impl Copy {
    fn follow(bus: &Bus) -> (Self, CancellationToken) {
        let (copy, shutdown) = (Self::default(), CancellationToken::new());
        let (seen, caught_up) = (Arc::clone(&copy.seen), Arc::clone(&copy.caught_up));
        let take = move |delivery: Delivery| {
            seen.lock().unwrap().push(delivery.decode::<Note>().unwrap().text);
            async { Ok(()) }
        };
        let run = Replay::new(bus.clone(), FACTS, "evt.test.>").run(shutdown.clone(), take, move |place| {
            if place == Reached::Present {
                caught_up.fetch_add(1, Ordering::SeqCst);
            }
        });
        tokio::spawn(run);
        (copy, shutdown)
    }

    fn seen(&self) -> Vec<String> {
        self.seen.lock().unwrap().clone()
    }

    fn caught_up(&self) -> u32 {
        self.caught_up.load(Ordering::SeqCst)
    }
}

#[tokio::test]
async fn an_empty_stream_is_caught_up_with_at_once() {
    let nats = Nats::start().await;
    let bus = connect(&nats).await;
    let (copy, _) = Copy::follow(&bus);
    make_facts(&bus).await;
    eventually(PATIENCE, async || copy.caught_up() == 1).await;
    assert!(copy.seen().is_empty());
}

#[tokio::test]
async fn everything_is_seen_in_order_and_then_what_is_added() {
    let nats = Nats::start().await;
    let bus = connect(&nats).await;
    make_facts(&bus).await;
    let messages: Vec<_> = (0..1_000).map(|number| state(number, number)).collect();
    publish(&bus, &messages).await;

    let (copy, _) = Copy::follow(&bus);
    eventually(PATIENCE, async || copy.caught_up() == 1).await;
    let mut expected: Vec<_> = (0..1_000).map(|number: u32| number.to_string()).collect();
    assert_eq!(copy.seen(), expected);

    publish(&bus, &[state(7, "newer")]).await;
    expected.push("newer".into());
    eventually(PATIENCE, async || copy.seen() == expected).await;
    assert_eq!(copy.caught_up(), 1);
}

#[tokio::test]
async fn a_reader_that_never_sees_the_end_has_caught_up_with_what_was_there_at_the_beginning() {
    let nats = Nats::start().await;
    let bus = connect(&nats).await;
    make_facts(&bus).await;
    let messages: Vec<_> = (0..600).map(|number| state(number, number)).collect();
    publish(&bus, &messages).await;

    // For every message that is taken another one is added.
    let taken = Arc::new(AtomicU32::new(0));
    let (count, writer) = (Arc::clone(&taken), bus.clone());
    let take = move |_| {
        let (number, writer) = (count.fetch_add(1, Ordering::SeqCst), writer.clone());
        async move { Ok(writer.publish(&state(1_000 + number, "more")).await?) }
    };
    let (caught_up, shutdown) = (Arc::new(AtomicU32::new(0)), CancellationToken::new());
    let (when, count) = (Arc::clone(&caught_up), Arc::clone(&taken));
    let run = Replay::new(bus, FACTS, "evt.test.>").run(shutdown.clone(), take, move |place| {
        if place == Reached::Present {
            when.store(count.load(Ordering::SeqCst), Ordering::SeqCst);
        }
    });
    let run = tokio::spawn(run);
    eventually(PATIENCE, async || caught_up.load(Ordering::SeqCst) > 0).await;
    shutdown.cancel();
    run.await.unwrap().unwrap();
    assert!((600..900).contains(&caught_up.load(Ordering::SeqCst)), "{caught_up:?}");
}

#[tokio::test]
async fn after_the_loss_of_the_store_it_reads_from_the_beginning() {
    let mut nats = Nats::start().await;
    let bus = connect(&nats).await;
    make_facts(&bus).await;
    publish(&bus, &[state(1, "a"), state(2, "b"), state(3, "c")]).await;
    let (copy, _) = Copy::follow(&bus);
    eventually(PATIENCE, async || copy.caught_up() == 1).await;
    let generation = bus.generation(FACTS).await.unwrap();

    nats.lose_store().await;
    eventually(PATIENCE, async || bus.is_connected()).await;
    assert_eq!(bus.generation(FACTS).await.unwrap(), None);
    make_facts(&bus).await;
    assert_ne!(bus.generation(FACTS).await.unwrap(), generation);
    publish(&bus, &[state(1, "d")]).await;
    eventually(PATIENCE, async || copy.seen() == ["a", "b", "c", "d"]).await;
    eventually(PATIENCE, async || copy.caught_up() == 2).await;
}

#[tokio::test]
async fn a_stream_made_anew_is_recognised_also_when_it_is_longer_than_the_old_one() {
    let nats = Nats::start().await;
    let bus = connect(&nats).await;
    make_facts(&bus).await;
    publish(&bus, &[state(1, "a"), state(2, "b")]).await;
    let (seen, go_on) = (Arc::new(Mutex::new(Vec::new())), Arc::new(Notify::new()));
    let (sees, goes_on) = (Arc::clone(&seen), Arc::clone(&go_on));
    let take = move |delivery: Delivery| {
        let text = delivery.decode::<Note>().unwrap().text;
        sees.lock().unwrap().push(text.clone());
        let goes_on = Arc::clone(&goes_on);
        async move {
            if text == "b" {
                goes_on.notified().await;
            }
            Ok(())
        }
    };
    tokio::spawn(Replay::new(bus.clone(), FACTS, "evt.test.>").run(CancellationToken::new(), take, |_| ()));
    eventually(PATIENCE, async || *seen.lock().unwrap() == ["a", "b"]).await;

    bus.jetstream().delete_stream(FACTS).await.unwrap();
    make_facts(&bus).await;
    publish(&bus, &[state(1, "c"), state(2, "d"), state(3, "e")]).await;
    go_on.notify_one();
    eventually(PATIENCE, async || *seen.lock().unwrap() == ["a", "b", "c", "d", "e"]).await;
}

#[tokio::test]
async fn after_a_crash_of_the_server_it_goes_on_where_it_was() {
    let mut nats = Nats::start().await;
    let bus = connect(&nats).await;
    make_facts(&bus).await;
    publish(&bus, &[state(1, "a")]).await;
    let (copy, _) = Copy::follow(&bus);
    eventually(PATIENCE, async || copy.caught_up() == 1).await;

    nats.restart().await;
    eventually(PATIENCE, async || bus.publish(&state(2, "b")).await.is_ok()).await;
    eventually(PATIENCE, async || copy.seen().contains(&"b".to_owned())).await;
    assert_eq!(copy.seen()[0], "a");
    assert!(!copy.seen()[1..].contains(&"a".to_owned()));
    assert_eq!(copy.caught_up(), 1);
}

#[tokio::test]
async fn what_could_not_be_taken_comes_again_before_the_next() {
    let nats = Nats::start().await;
    let bus = connect(&nats).await;
    make_facts(&bus).await;
    publish(&bus, &[state(1, "a"), state(2, "b")]).await;
    let attempts = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&attempts);
    let take = move |delivery: Delivery| {
        let mut seen = seen.lock().unwrap();
        seen.push(delivery.decode::<Note>().unwrap().text);
        let result = if seen.len() < 3 { Err("not now".into()) } else { Ok(()) };
        async { result }
    };
    tokio::spawn(Replay::new(bus, FACTS, "evt.test.>").run(CancellationToken::new(), take, |_| ()));
    eventually(PATIENCE, async || *attempts.lock().unwrap() == ["a", "a", "a", "b"]).await;
}

#[tokio::test]
async fn it_stops_when_told() {
    let nats = Nats::start().await;
    let bus = connect(&nats).await;
    make_facts(&bus).await;
    let shutdown = CancellationToken::new();
    let replay = Replay::new(bus, FACTS, "evt.test.>");
    let run = tokio::spawn(replay.run(shutdown.clone(), async |_| Ok(()), |_| ()));
    shutdown.cancel();
    tokio::time::timeout(PATIENCE, run).await.unwrap().unwrap().unwrap();
}

#[tokio::test]
async fn it_is_at_the_end_again_and_again_but_not_while_the_stream_is_missing() {
    let nats = Nats::start().await;
    let bus = connect(&nats).await;
    make_facts(&bus).await;
    publish(&bus, &[state(1, "a")]).await;
    let (sender, mut places) = tokio::sync::mpsc::channel(1_024);
    let replay = Replay::new(bus.clone(), FACTS, "evt.test.>");
    tokio::spawn(replay.run(
        CancellationToken::new(),
        async |_| Ok(()),
        move |place| {
            sender.try_send(place).unwrap();
        },
    ));
    let mut next = async || tokio::time::timeout(PATIENCE, places.recv()).await.unwrap().unwrap();
    let mut seen = Vec::new();
    while seen.len() < 5 {
        seen.push(next().await);
    }
    let [beginning, present, end] = [Reached::Beginning, Reached::Present, Reached::End];
    assert_eq!(seen, [beginning, present, end, end, end]);

    bus.jetstream().delete_stream(FACTS).await.unwrap();
    make_facts(&bus).await;
    let mut place = next().await;
    while place == end {
        place = next().await;
    }
    assert_eq!([place, next().await], [beginning, present], "the new stream is another one");
}
