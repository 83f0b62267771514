use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::{Duration, Instant};

use async_nats::jetstream::consumer::pull;
use stampede_bus::{BoxError, Bus, Consumer, ConsumerSettings, Delivery, Failure, Verdict};
use stampede_testkit::{Nats, eventually};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::support::{
    Note, PATIENCE, WORK, WORKER, command, connect, make_work, messages_in, publish, worker,
};

pub fn settings() -> ConsumerSettings {
    ConsumerSettings {
        batch: 64,
        wait: Duration::from_millis(500),
        gather: Duration::ZERO,
        retry_min: Duration::from_millis(20),
        retry_max: Duration::from_millis(200),
    }
}

/// Tells of every delivery, and does with it what `verdict` says.
pub fn work(
    bus: &Bus,
    verdict: impl Fn(&Delivery) -> Verdict + Send + Sync + 'static,
) -> (mpsc::Receiver<Delivery>, CancellationToken, JoinHandle<Result<(), BoxError>>) {
    let (sender, receiver) = mpsc::channel(4_096);
    let shutdown = CancellationToken::new();
    let verdict = Arc::new(verdict);
    let run = Consumer::new(bus.clone(), WORK, WORKER, settings()).run(shutdown.clone(), move |batch| {
        let verdicts = batch.iter().map(|delivery| verdict(delivery)).collect();
        batch.into_iter().for_each(|delivery| sender.try_send(delivery).unwrap());
        async { Ok(verdicts) }
    });
    (receiver, shutdown, tokio::spawn(run))
}

async fn next(deliveries: &mut mpsc::Receiver<Delivery>) -> Delivery {
    tokio::time::timeout(PATIENCE, deliveries.recv()).await.unwrap().unwrap()
}

fn text(delivery: &Delivery) -> String {
    delivery.decode::<Note>().unwrap().text
}

#[tokio::test]
async fn what_was_handled_leaves_the_queue() {
    let nats = Nats::start().await;
    let bus = connect(&nats).await;
    make_work(&bus, worker()).await;
    let messages: Vec<_> = (0..200).map(command).collect();
    publish(&bus, &messages).await;

    let (mut deliveries, shutdown, run) = work(&bus, |_| Verdict::Done);
    for message in &messages {
        let delivery = next(&mut deliveries).await;
        assert_eq!(delivery.message, *message);
        assert_eq!(delivery.delivered, 1);
    }
    eventually(PATIENCE, async || messages_in(&bus, WORK).await == 0).await;
    shutdown.cancel();
    run.await.unwrap().unwrap();
    assert_eq!(bus.violations(), 0);
}

/// How often messages of the worker were delivered.
async fn deliveries(bus: &Bus) -> u64 {
    let stream = bus.jetstream().get_stream(WORK).await.unwrap();
    stream.consumer_info(WORKER).await.unwrap().delivered.consumer_sequence
}

/// Hands batches to `handler` until the test is over.
pub fn run<Fut>(bus: &Bus, handler: impl FnMut(Vec<Delivery>) -> Fut + Send + 'static)
where
    Fut: Future<Output = Result<Vec<Verdict>, Failure>> + Send + 'static,
{
    tokio::spawn(Consumer::new(bus.clone(), WORK, WORKER, settings()).run(CancellationToken::new(), handler));
}

#[tokio::test]
async fn an_outage_uses_up_no_deliveries_however_long_it_lasts() {
    let nats = Nats::start().await;
    let bus = connect(&nats).await;
    // A second without a word and the server delivers again, and the second delivery is the last.
    let ack_wait = Duration::from_secs(1);
    make_work(&bus, pull::Config { max_deliver: 2, ack_wait, ..worker() }).await;
    publish(&bus, &(0..5).map(command).collect::<Vec<_>>()).await;

    let is_over = CancellationToken::new();
    let over = is_over.clone();
    let attempts = Arc::new(AtomicU32::new(0));
    let count = Arc::clone(&attempts);
    run(&bus, move |batch| {
        let is_over = over.is_cancelled();
        count.fetch_add(1, Ordering::SeqCst);
        async move {
            if !is_over {
                return Err("the database is away".into());
            }
            Ok(vec![Verdict::Done; batch.len()])
        }
    });
    // The pauses grow to a quarter of the server's patience: it is long over after so many.
    eventually(PATIENCE, async || attempts.load(Ordering::SeqCst) > 20).await;
    is_over.cancel();
    eventually(PATIENCE, async || messages_in(&bus, WORK).await == 0).await;
    assert_eq!((deliveries(&bus).await, messages_in(&bus, "DLQ").await), (5, 0));
}

#[tokio::test]
async fn a_batch_that_takes_too_long_is_halved_until_it_fits_and_buries_nobody() {
    let nats = Nats::start().await;
    let bus = connect(&nats).await;
    make_work(&bus, pull::Config { max_deliver: 1, ack_wait: Duration::from_secs(1), ..worker() }).await;
    publish(&bus, &(0..8).map(command).collect::<Vec<_>>()).await;

    let (sizes, mut tried) = mpsc::channel(4_096);
    run(&bus, move |batch| {
        sizes.try_send(batch.len()).unwrap();
        async move {
            if batch.len() > 2 {
                std::future::pending::<()>().await;
            }
            Ok(vec![Verdict::Done; batch.len()])
        }
    });
    eventually(PATIENCE, async || messages_in(&bus, WORK).await == 0).await;
    assert_eq!((deliveries(&bus).await, messages_in(&bus, "DLQ").await), (8, 0));
    let mut seen = Vec::new();
    while let Ok(size) = tried.try_recv() {
        seen.push(size);
    }
    assert_eq!(seen[..5], [8, 4, 2, 4, 2], "halved by a failure, doubled by a success");
}

/// Work that is done once an attempt was given longer than the server waits without a word.
struct Attempt {
    began: Instant,
    had_time: Arc<AtomicBool>,
}

impl Drop for Attempt {
    fn drop(&mut self) {
        self.had_time.fetch_or(self.began.elapsed() > Duration::from_secs(1), Ordering::SeqCst);
    }
}

#[tokio::test]
async fn a_message_that_alone_takes_too_long_gets_more_time() {
    let nats = Nats::start().await;
    let bus = connect(&nats).await;
    make_work(&bus, pull::Config { max_deliver: 1, ack_wait: Duration::from_secs(1), ..worker() }).await;
    publish(&bus, &[command("slow")]).await;

    let had_time = Arc::new(AtomicBool::new(false));
    run(&bus, move |batch| {
        let attempt = Attempt { began: Instant::now(), had_time: Arc::clone(&had_time) };
        async move {
            if !attempt.had_time.load(Ordering::SeqCst) {
                std::future::pending::<()>().await;
            }
            Ok(vec![Verdict::Done; batch.len()])
        }
    });
    eventually(PATIENCE, async || messages_in(&bus, WORK).await == 0).await;
    assert_eq!((deliveries(&bus).await, messages_in(&bus, "DLQ").await), (1, 0));
}

/// As many as need minutes if each of them waits once for the message that cannot be handled.
#[tokio::test]
async fn a_message_that_cannot_be_handled_holds_up_no_other_and_is_not_buried() {
    for hangs in [false, true] {
        let nats = Nats::start().await;
        let bus = connect(&nats).await;
        make_work(&bus, pull::Config { max_deliver: 1, ack_wait: Duration::from_secs(2), ..worker() }).await;
        publish(&bus, &[command("stuck")]).await;
        run(&bus, move |batch| async move {
            let is_stuck = batch.iter().any(|delivery| text(delivery) == "stuck");
            if is_stuck && hangs {
                std::future::pending::<()>().await;
            }
            if is_stuck { Err("what it needs is away".into()) } else { Ok(vec![Verdict::Done; batch.len()]) }
        });
        for number in 0..2_000 {
            publish(&bus, &[command(number)]).await;
        }
        eventually(PATIENCE, async || messages_in(&bus, WORK).await == 1).await;
        assert_eq!((deliveries(&bus).await, messages_in(&bus, "DLQ").await), (2_001, 0), "hangs: {hangs}");
    }
}

#[tokio::test]
async fn what_is_in_hand_at_a_stop_is_given_back_at_once() {
    let nats = Nats::start().await;
    let bus = connect(&nats).await;
    make_work(&bus, pull::Config { ack_wait: Duration::from_secs(600), ..worker() }).await;
    publish(&bus, &[command(1), command(2)]).await;
    let (shutdown, attempts) = (CancellationToken::new(), Arc::new(AtomicU32::new(0)));
    let count = Arc::clone(&attempts);
    let stopping = Consumer::new(bus.clone(), WORK, WORKER, settings()).run(shutdown.clone(), move |_| {
        count.fetch_add(1, Ordering::SeqCst);
        async { Err("the database is away".into()) }
    });
    let stopping = tokio::spawn(stopping);
    eventually(PATIENCE, async || attempts.load(Ordering::SeqCst) > 2).await;
    shutdown.cancel();
    stopping.await.unwrap().unwrap();

    let (mut taken, ..) = work(&bus, |_| Verdict::Done);
    let mut texts = [text(&next(&mut taken).await), text(&next(&mut taken).await)];
    texts.sort();
    assert_eq!(texts, ["1", "2"]);
}

#[tokio::test]
async fn what_fails_comes_again() {
    let nats = Nats::start().await;
    let bus = connect(&nats).await;
    make_work(&bus, worker()).await;
    publish(&bus, &[command(1)]).await;

    let calls = Arc::new(AtomicU32::new(0));
    let count = Arc::clone(&calls);
    let run =
        Consumer::new(bus.clone(), WORK, WORKER, settings()).run(CancellationToken::new(), move |batch| {
            let call = count.fetch_add(1, Ordering::SeqCst);
            async move {
                match call {
                    0 => Err("the database is away".into()),
                    1 => Ok(vec![]),
                    2 => panic!("as intended"),
                    _ => Ok(vec![Verdict::Done; batch.len()]),
                }
            }
        });
    let run = tokio::spawn(run);
    eventually(PATIENCE, async || messages_in(&bus, WORK).await == 0).await;
    assert_eq!(calls.load(Ordering::SeqCst), 4);
    assert!(!run.is_finished());
    assert_eq!(messages_in(&bus, "DLQ").await, 0);
}

#[tokio::test]
async fn a_message_over_which_the_handler_fails_takes_no_other_along() {
    let nats = Nats::start().await;
    let bus = connect(&nats).await;
    make_work(&bus, pull::Config { max_deliver: 3, ..worker() }).await;
    let word = |number: u32| if number == 7 { "poison".to_owned() } else { number.to_string() };
    let commands: Vec<_> = (0..30).map(|number| command(word(number))).collect();
    publish(&bus, &commands).await;

    run(&bus, |batch| async move {
        if batch.iter().any(|delivery| text(delivery) == "poison") {
            return Err(Failure::Fault("a rule is broken".into()));
        }
        Ok(vec![Verdict::Done; batch.len()])
    });
    eventually(PATIENCE, async || messages_in(&bus, WORK).await == 0).await;
    assert_eq!(deliveries(&bus).await, 29 + 3, "the others need no second delivery");
    let letters = bus.jetstream().get_stream("DLQ").await.unwrap();
    assert_eq!(letters.cached_info().state.messages, 1);
    let letter = letters.get_raw_message(1).await.unwrap();
    assert_eq!(letter.payload, commands[7].payload);
    let reason = letter.headers.get(stampede_bus::dead_letter_header::REASON).unwrap();
    assert_eq!(reason.as_str(), "not%20handled%20in%203%20deliveries:%20a%20rule%20is%20broken");
}

#[tokio::test]
async fn a_handler_that_hangs_is_cut_off_before_the_server_loses_patience() {
    let nats = Nats::start().await;
    let bus = connect(&nats).await;
    make_work(&bus, pull::Config { ack_wait: Duration::from_secs(2), ..worker() }).await;
    publish(&bus, &[command(1)]).await;

    let calls = Arc::new(AtomicU32::new(0));
    let count = Arc::clone(&calls);
    let run =
        Consumer::new(bus.clone(), WORK, WORKER, settings()).run(CancellationToken::new(), move |batch| {
            let call = count.fetch_add(1, Ordering::SeqCst);
            async move {
                if call == 0 {
                    std::future::pending::<()>().await;
                }
                Ok(vec![Verdict::Done; batch.len()])
            }
        });
    let _run = tokio::spawn(run);
    eventually(PATIENCE, async || messages_in(&bus, WORK).await == 0).await;
    assert_eq!(calls.load(Ordering::SeqCst), 2);
}

#[tokio::test]
async fn a_stream_that_is_not_there_yet_is_waited_for() {
    let nats = Nats::start().await;
    let bus = connect(&nats).await;
    let (mut deliveries, shutdown, run) = work(&bus, |_| Verdict::Done);
    make_work(&bus, worker()).await;
    publish(&bus, &[command("at last")]).await;
    assert_eq!(text(&next(&mut deliveries).await), "at last");
    shutdown.cancel();
    run.await.unwrap().unwrap();
}

#[tokio::test]
async fn a_stream_that_is_made_anew_is_found_again() {
    let nats = Nats::start().await;
    let bus = connect(&nats).await;
    make_work(&bus, worker()).await;
    let (mut deliveries, ..) = work(&bus, |_| Verdict::Done);
    publish(&bus, &[command("before")]).await;
    assert_eq!(text(&next(&mut deliveries).await), "before");

    bus.jetstream().delete_stream(WORK).await.unwrap();
    bus.jetstream().delete_stream("DLQ").await.unwrap();
    make_work(&bus, worker()).await;
    publish(&bus, &[command("after")]).await;
    assert_eq!(text(&next(&mut deliveries).await), "after");
}

#[tokio::test]
async fn work_goes_on_after_a_crash_of_the_server_and_after_the_loss_of_its_store() {
    let mut nats = Nats::start().await;
    let bus = connect(&nats).await;
    make_work(&bus, worker()).await;
    let (mut deliveries, ..) = work(&bus, |_| Verdict::Done);
    publish(&bus, &[command(1)]).await;
    assert_eq!(text(&next(&mut deliveries).await), "1");

    nats.restart().await;
    eventually(PATIENCE, async || bus.publish(&command(2)).await.is_ok()).await;
    eventually(PATIENCE, async || text(&next(&mut deliveries).await) == "2").await;

    nats.lose_store().await;
    let operator = connect(&nats).await;
    make_work(&operator, worker()).await;
    eventually(PATIENCE, async || bus.publish(&command(3)).await.is_ok()).await;
    eventually(PATIENCE, async || text(&next(&mut deliveries).await) == "3").await;
}

#[tokio::test]
async fn a_consumer_that_stops_finishes_its_batch_and_leaves_the_rest_untouched() {
    let nats = Nats::start().await;
    let bus = connect(&nats).await;
    make_work(&bus, worker()).await;
    let messages: Vec<_> = (0..10).map(command).collect();
    publish(&bus, &messages).await;

    let (started, finish) = (Arc::new(tokio::sync::Notify::new()), Arc::new(tokio::sync::Notify::new()));
    let (starts, finishes) = (Arc::clone(&started), Arc::clone(&finish));
    let shutdown = CancellationToken::new();
    let few = ConsumerSettings { batch: 4, ..settings() };
    let run = Consumer::new(bus.clone(), WORK, WORKER, few).run(shutdown.clone(), move |batch| {
        let (starts, finishes) = (Arc::clone(&starts), Arc::clone(&finishes));
        async move {
            starts.notify_one();
            finishes.notified().await;
            Ok(vec![Verdict::Done; batch.len()])
        }
    });
    let run = tokio::spawn(run);
    started.notified().await;
    shutdown.cancel();
    finish.notify_one();
    run.await.unwrap().unwrap();
    eventually(PATIENCE, async || messages_in(&bus, WORK).await == 6).await;

    let (mut deliveries, ..) = work(&bus, |_| Verdict::Done);
    for number in 4..10 {
        let delivery = next(&mut deliveries).await;
        assert_eq!((text(&delivery), delivery.delivered), (number.to_string(), 1));
    }
}

#[tokio::test]
async fn an_idle_consumer_stops_without_losing_what_is_on_its_way() {
    let nats = Nats::start().await;
    let bus = connect(&nats).await;
    make_work(&bus, worker()).await;

    // While messages pour in, workers come and go in the middle of their pulls.
    let pouring = tokio::spawn({
        let bus = bus.clone();
        async move {
            for number in 0..200 {
                publish(&bus, &[command(number)]).await;
            }
        }
    });
    let mut seen = Vec::new();
    while seen.len() < 200 {
        let (mut deliveries, shutdown, run) = work(&bus, |_| Verdict::Done);
        seen.push(next(&mut deliveries).await);
        shutdown.cancel();
        run.await.unwrap().unwrap();
        while let Some(delivery) = deliveries.recv().await {
            seen.push(delivery);
        }
    }
    pouring.await.unwrap();
    assert!(seen.iter().all(|delivery| delivery.delivered == 1), "some came again");
    eventually(PATIENCE, async || messages_in(&bus, WORK).await == 0).await;
}

#[tokio::test]
async fn what_comes_during_a_rest_is_taken_together() {
    let nats = Nats::start().await;
    let bus = connect(&nats).await;
    make_work(&bus, worker()).await;
    let (sizes, mut taken) = mpsc::channel(64);
    let shutdown = CancellationToken::new();
    let settings = ConsumerSettings { gather: Duration::from_secs(2), ..settings() };
    let run = Consumer::new(bus.clone(), WORK, WORKER, settings).run(shutdown.clone(), move |batch| {
        sizes.try_send(batch.len()).unwrap();
        let verdicts = vec![Verdict::Done; batch.len()];
        async { Ok(verdicts) }
    });
    let run = tokio::spawn(run);
    let mut next = async || tokio::time::timeout(PATIENCE, taken.recv()).await.unwrap().unwrap();
    publish(&bus, &[command("first")]).await;
    assert_eq!(next().await, 1);

    // Without a rest they would be taken one by one, as they come.
    let (began, mut taken_together) = (tokio::time::Instant::now(), Vec::new());
    for number in 0..30 {
        publish(&bus, &[command(number)]).await;
    }
    while taken_together.iter().sum::<usize>() < 30 {
        taken_together.push(next().await);
    }
    let rests = began.elapsed().as_secs_f64() / 2.0;
    assert!(taken_together.len() as f64 <= rests + 1.0, "{taken_together:?} in {rests} rests");
    shutdown.cancel();
    run.await.unwrap().unwrap();
}
