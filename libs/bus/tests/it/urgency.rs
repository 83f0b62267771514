//! Who is served first when all workers are taken.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use async_nats::{HeaderMap, Subscriber};
use futures::StreamExt;
use stampede_bus::{Bus, CallError};
use stampede_contracts::function::{Answer, Idempotent};
use stampede_contracts::{Class, Code, Function, Problem};
use stampede_testkit::{Nats, eventually};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use crate::calls::{Run, responder, serve};
use crate::support::{Echo, PATIENCE, connect};

/// More urgent than [`Echo`].
enum Buy {}

impl Function for Buy {
    const SERVICE: &'static str = "test";
    const NAME: &'static str = "buy";
    const CLASS: Class = Class::Pay;
    const DEADLINE: Duration = Duration::from_secs(10);
    type Guarantee = Idempotent;
    type Request = String;
    type Reply = String;
}

/// A responder with one worker, which `first` has taken until the scene opens.
struct Scene {
    bus: Bus,
    inbox: String,
    answers: Subscriber,
    door: Arc<Semaphore>,
    started: Arc<AtomicU32>,
    shutdown: CancellationToken,
    run: Run,
    _nats: Nats,
}

impl Scene {
    async fn with_capacity(capacity: usize) -> Self {
        let nats = Nats::start().await;
        let bus = connect(&nats).await;
        let (door, started) = (Arc::new(Semaphore::new(0)), Arc::new(AtomicU32::new(0)));
        let (wait, count) = (Arc::clone(&door), Arc::clone(&started));
        let work = move |text: String| {
            count.fetch_add(1, Ordering::SeqCst);
            let wait = Arc::clone(&wait);
            async move {
                let _open = wait.acquire().await.unwrap();
                Ok(text)
            }
        };
        let buy = work.clone();
        let responder = responder(&bus, capacity, 1)
            .on::<Echo, _, _>(move |text, _| work(text))
            .on::<Buy, _, _>(move |text, _| buy(text));
        let (shutdown, run) = serve(&bus, responder).await;
        let inbox = bus.client().new_inbox();
        let answers = bus.client().subscribe(format!("{inbox}.*")).await.unwrap();
        let scene = Self { bus, inbox, answers, door, started, shutdown, run, _nats: nats };
        scene.ask("echo", "first", &[]).await;
        eventually(PATIENCE, async || scene.started() == 1).await;
        scene
    }

    fn started(&self) -> u32 {
        self.started.load(Ordering::SeqCst)
    }

    /// Asks, and does not wait for the answer.
    async fn ask(&self, function: &str, text: &str, headers: &[(&str, &str)]) {
        let mut all = HeaderMap::new();
        headers.iter().for_each(|(name, value)| all.insert(*name, *value));
        let (subject, reply) = (format!("rpc.test.17.{function}"), format!("{}.{text}", self.inbox));
        let payload = serde_json::to_vec(text).unwrap();
        self.bus.client().publish_with_reply_and_headers(subject, reply, all, payload.into()).await.unwrap();
    }

    /// Asks, and is gone before the worker is free.
    async fn ask_and_go(&self, text: &str) {
        self.ask("echo", text, &[("deadline-ms", "20")]).await;
        self.all_came_in().await;
        let came_in = Instant::now();
        eventually(PATIENCE, async || came_in.elapsed() > Duration::from_millis(20)).await;
    }

    /// Waits until what was asked before has come in: requests arrive in order, and this one is refused at once.
    async fn all_came_in(&self) {
        // A function that is unknown is a fault in a program.
        assert_eq!(self.ask_for_nothing().await, Code::Internal);
    }

    async fn ask_for_nothing(&self) -> Code {
        let nothing = self.bus.call::<Echo>("rpc.test.17.nothing".into(), &String::new()).await;
        nothing.map_err(Problem::from).unwrap_err().code
    }

    /// The worker is free, and every next one at once.
    fn open(&self) {
        self.door.add_permits(1);
    }

    /// Who is answered next, and how.
    async fn next(&mut self) -> (String, Answer<String>) {
        let answer = tokio::time::timeout(PATIENCE, self.answers.next()).await.unwrap().unwrap();
        let whose = answer.subject.rsplit('.').next().unwrap().to_owned();
        (whose, serde_json::from_slice(&answer.payload).unwrap())
    }

    /// The next ones who are answered, each with what they asked for.
    async fn served<const N: usize>(&mut self) -> [String; N] {
        let mut served = [const { String::new() }; N];
        for place in &mut served {
            let (whose, answer) = self.next().await;
            assert_eq!(answer, Answer::Ok(whose.clone()));
            *place = whose;
        }
        served
    }

    /// The next one who is answered, with `busy` and when to come back.
    async fn refused(&mut self) -> String {
        let (whose, answer) = self.next().await;
        let told = matches!(&answer, Answer::Problem(problem) if problem.code == Code::Busy && problem.retry_after > Some(0));
        assert!(told, "{whose} got {answer:?}");
        whose
    }
}

#[tokio::test]
async fn the_more_urgent_is_answered_first_and_the_first_of_its_class() {
    let mut scene = Scene::with_capacity(8).await;
    for (function, text) in [("echo", "e1"), ("buy", "b1"), ("echo", "e2"), ("buy", "b2")] {
        scene.ask(function, text, &[]).await;
    }
    scene.all_came_in().await;
    scene.open();
    assert_eq!(scene.served().await, ["first", "b1", "b2", "e1", "e2"]);
}

#[tokio::test]
async fn whoever_lowered_its_class_waits_behind_the_others() {
    let mut scene = Scene::with_capacity(8).await;
    scene.ask("buy", "humble", &[("stampede-class", "browse")]).await;
    scene.ask("echo", "proud", &[("stampede-class", "pay")]).await;
    scene.ask("buy", "plain", &[]).await;
    scene.all_came_in().await;
    scene.open();
    assert_eq!(scene.served().await, ["first", "plain", "proud", "humble"]);
}

#[tokio::test]
async fn a_full_queue_gives_way_to_the_more_urgent_and_says_so_at_once() {
    let mut scene = Scene::with_capacity(1).await;
    scene.ask("echo", "pushed", &[]).await;
    scene.ask("buy", "urgent", &[]).await;
    assert_eq!(scene.refused().await, "pushed");
    scene.ask("buy", "late", &[]).await;
    assert_eq!(scene.refused().await, "late", "as urgent as who is there already");
    assert_eq!(scene.started(), 1);

    scene.open();
    assert_eq!(scene.served().await, ["first", "urgent"]);
}

#[tokio::test]
async fn who_waits_for_a_second_in_vain_is_told_so() {
    let mut scene = Scene::with_capacity(8).await;
    let asked = Instant::now();
    scene.ask("echo", "patient", &[]).await;
    assert_eq!(scene.refused().await, "patient");
    assert!(asked.elapsed() >= Duration::from_secs(1), "a burst may wait: {:?}", asked.elapsed());
    scene.open();
    assert_eq!(scene.served().await, ["first"]);
}

#[tokio::test]
async fn whose_caller_went_while_it_waited_is_not_served() {
    let mut scene = Scene::with_capacity(8).await;
    scene.ask_and_go("gone").await;
    scene.ask("echo", "second", &[]).await;
    scene.open();
    assert_eq!(scene.served().await, ["first", "second"]);
    assert_eq!(scene.started(), 2);
}

#[tokio::test]
async fn whose_caller_went_while_it_waited_is_not_refused() {
    let mut scene = Scene::with_capacity(1).await;
    scene.ask_and_go("gone").await;
    scene.ask("buy", "urgent", &[]).await;
    scene.all_came_in().await;
    scene.open();
    assert_eq!(scene.served().await, ["first", "urgent"], "the other was pushed out, and nobody was told");
}

#[tokio::test]
async fn who_waits_when_a_responder_stops_is_served() {
    let mut scene = Scene::with_capacity(8).await;
    scene.ask("echo", "second", &[]).await;
    scene.all_came_in().await;
    scene.shutdown.cancel();
    eventually(PATIENCE, async || scene.ask_for_nothing().await == Code::Unavailable).await;
    scene.open();
    assert_eq!(scene.served().await, ["first", "second"]);
    (&mut scene.run).await.unwrap().unwrap();
}

#[tokio::test]
async fn without_a_worker_nobody_listens() {
    let nats = Nats::start().await;
    let bus = connect(&nats).await;
    let responder = responder(&bus, 8, 0).on::<Echo, _, _>(async |text, _| Ok(text));
    responder.run(CancellationToken::new()).await.unwrap_err();
    let error = bus.call::<Echo>("rpc.test.17.echo".into(), &String::new()).await.unwrap_err();
    assert!(matches!(error, CallError::Unavailable(_)), "{error}");
}
