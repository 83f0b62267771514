use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use futures::StreamExt;
use stampede_bus::{Bus, CallError, Context, Responder, ResponderSettings};
use stampede_contracts::{Class, Code, Problem};
use stampede_deadline::Deadline;
use stampede_testkit::{Nats, eventually};
use tokio::sync::{Notify, Semaphore};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::support::{Echo, PATIENCE, Shout, connect};

pub type Run = JoinHandle<Result<(), stampede_bus::BoxError>>;

pub fn responder(bus: &Bus, capacity: usize, workers: usize) -> Responder {
    let settings =
        ResponderSettings { subject: "rpc.test.*.*".into(), queue: "test".into(), capacity, workers };
    Responder::new(bus.clone(), settings)
}

/// Runs it, and returns when the server knows about it.
pub async fn serve(bus: &Bus, responder: Responder) -> (CancellationToken, Run) {
    let shutdown = CancellationToken::new();
    let run = tokio::spawn(responder.on::<Ready, _, _>(async |(), _| Ok(())).run(shutdown.clone()));
    eventually(PATIENCE, async || bus.call::<Ready>("rpc.test.0.ready".into(), &()).await.is_ok()).await;
    (shutdown, run)
}

pub enum Ready {}

impl stampede_contracts::Function for Ready {
    const SERVICE: &'static str = "test";
    const NAME: &'static str = "ready";
    const CLASS: Class = Class::Browse;
    const DEADLINE: Duration = Duration::from_secs(1);
    type Guarantee = stampede_contracts::function::Safe;
    type Request = ();
    type Reply = ();
}

async fn echo(bus: &Bus, text: &str) -> Result<String, CallError> {
    bus.call::<Echo>("rpc.test.17.echo".into(), &text.to_owned()).await
}

fn after_ms(millis: u64) -> Deadline {
    Deadline::after(Duration::from_millis(millis))
}

#[tokio::test]
async fn a_request_is_answered_and_the_handler_knows_its_context() {
    let nats = Nats::start().await;
    let bus = connect(&nats).await;
    let responder = responder(&bus, 8, 2).on::<Echo, _, _>(async |text, context: Context| {
        assert_eq!(stampede_deadline::current(), Some(context.deadline));
        let Context { subject, shard, class, deadline } = context;
        Ok(format!(
            "{text} {subject} {shard:?} {class} {}",
            deadline.remaining() <= Duration::from_millis(5_000)
        ))
    });
    let _running = serve(&bus, responder).await;

    let answer = stampede_deadline::scope(after_ms(5_000), echo(&bus, "hello")).await;
    assert_eq!(answer.unwrap(), "hello rpc.test.17.echo Some(\"17\") hold true");
    assert_eq!(bus.violations(), 0);
}

#[tokio::test]
async fn a_refusal_arrives_as_it_was_given() {
    let nats = Nats::start().await;
    let bus = connect(&nats).await;
    let refusal = Problem::new(Code::SeatsTaken).detail("A7");
    let given = refusal.clone();
    let responder = responder(&bus, 8, 2).on::<Echo, _, _>(move |_, _| {
        let given = given.clone();
        async move { Err(given) }
    });
    let _running = serve(&bus, responder).await;

    let error = echo(&bus, "hello").await.unwrap_err();
    assert_eq!(error, CallError::Refused(refusal.clone().try_into().unwrap()));
    assert_eq!(Problem::from(error), refusal);
}

#[tokio::test]
async fn only_business_is_a_refusal_whatever_the_other_side_says() {
    let nats = Nats::start().await;
    let bus = connect(&nats).await;
    let responder = responder(&bus, 8, 2)
        .on::<Echo, _, _>(async |code: String, _| Err(Problem::new(code.parse::<Code>().unwrap())));
    let _running = serve(&bus, responder).await;
    for code in Code::ALL {
        let error = echo(&bus, code.as_str()).await.unwrap_err();
        assert_eq!(matches!(error, CallError::Refused(_)), code.is_refusal(), "{code}: {error:?}");
        let failed = matches!(error, CallError::Failed(_));
        assert_eq!(failed, code.status() >= 500 && *code != Code::Busy, "{code}: {error:?}");
    }
}

#[tokio::test]
async fn where_nobody_listens_the_caller_knows_at_once() {
    let nats = Nats::start().await;
    let bus = connect(&nats).await;
    let error = tokio::time::timeout(Duration::from_secs(5), echo(&bus, "hello")).await.unwrap().unwrap_err();
    assert!(matches!(error, CallError::Unavailable(_)), "{error}");
    assert_eq!(Problem::from(error).code, Code::Unavailable);
}

#[tokio::test]
async fn who_never_answers_costs_no_more_than_the_deadline() {
    let nats = Nats::start().await;
    let bus = connect(&nats).await;
    let _silent = bus.client().subscribe("rpc.test.>").await.unwrap();
    bus.client().flush().await.unwrap();

    let asked = tokio::time::Instant::now();
    let error = stampede_deadline::scope(after_ms(200), echo(&bus, "hello")).await.unwrap_err();
    assert_eq!(error, CallError::TimedOut);
    assert!(asked.elapsed() >= Duration::from_millis(200) && asked.elapsed() < Duration::from_secs(5));

    let error = bus.call::<Shout>("rpc.test.17.shout".into(), &String::new()).await.unwrap_err();
    assert_eq!(Problem::from(error).code, Code::DeadlineExceeded);
}

#[tokio::test]
async fn a_full_responder_says_so_at_once_and_who_may_repeat_gets_through() {
    let nats = Nats::start().await;
    let bus = connect(&nats).await;
    let gate = Arc::new(Semaphore::new(0));
    let started = Arc::new(AtomicU32::new(0));
    let (opens, count) = (Arc::clone(&gate), Arc::clone(&started));
    let responder = responder(&bus, 1, 1).on::<Echo, _, _>(move |text: String, _| {
        let (opens, count) = (Arc::clone(&opens), Arc::clone(&count));
        async move {
            count.fetch_add(1, Ordering::SeqCst);
            let _permit = opens.acquire().await.unwrap();
            Ok(text)
        }
    });
    let _running = serve(&bus, responder).await;

    // One is worked on, one waits although its caller has given up, and the next is refused.
    let first = tokio::spawn(spawnable(bus.clone(), "first"));
    eventually(PATIENCE, async || started.load(Ordering::SeqCst) == 1).await;
    eventually(PATIENCE, async || {
        match stampede_deadline::scope(after_ms(200), echo(&bus, "second")).await {
            Err(error) => error == CallError::Busy,
            Ok(_) => false,
        }
    })
    .await;

    let patient = tokio::spawn({
        let bus = bus.clone();
        let call =
            async move { bus.call_repeatedly::<Echo>("rpc.test.17.echo".into(), &"third".to_owned()).await };
        stampede_deadline::scope(after_ms(15_000), call)
    });
    gate.add_permits(100);
    assert_eq!(first.await.unwrap().unwrap(), "first");
    assert_eq!(patient.await.unwrap().unwrap(), "third");
    assert_eq!(started.load(Ordering::SeqCst), 2, "nobody waited for the second any more");
}

async fn spawnable(bus: Bus, text: &'static str) -> Result<String, CallError> {
    echo(&bus, text).await
}

#[tokio::test]
async fn an_expired_request_is_neither_handled_nor_answered() {
    let nats = Nats::start().await;
    let bus = connect(&nats).await;
    let handled = Arc::new(AtomicU32::new(0));
    let count = Arc::clone(&handled);
    let responder = responder(&bus, 8, 2).on::<Echo, _, _>(move |text: String, _| {
        count.fetch_add(1, Ordering::SeqCst);
        async move { Ok(text) }
    });
    let _running = serve(&bus, responder).await;

    let inbox = bus.client().new_inbox();
    let mut answers = bus.client().subscribe(inbox.clone()).await.unwrap();
    for (at, text) in [("1", "\"late\""), ("99999999999999", "\"in time\"")] {
        let mut headers = async_nats::HeaderMap::new();
        headers.insert("deadline-ms", "5000");
        headers.insert("deadline-at", at);
        bus.client()
            .publish_with_reply_and_headers("rpc.test.17.echo", inbox.clone(), headers, text.into())
            .await
            .unwrap();
    }
    assert_eq!(answers.next().await.unwrap().payload, "{\"ok\":\"in time\"}");
    assert_eq!(handled.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn at_the_deadline_the_handler_is_dropped() {
    struct Dropped(Arc<AtomicBool>);
    impl Drop for Dropped {
        fn drop(&mut self) {
            self.0.store(true, Ordering::SeqCst);
        }
    }

    let nats = Nats::start().await;
    let bus = connect(&nats).await;
    let dropped = Arc::new(AtomicBool::new(false));
    let flag = Arc::clone(&dropped);
    let responder = responder(&bus, 8, 2).on::<Echo, _, _>(move |_, _| {
        let guard = Dropped(Arc::clone(&flag));
        async move {
            let _guard = guard;
            std::future::pending().await
        }
    });
    let _running = serve(&bus, responder).await;

    let result = stampede_deadline::scope(after_ms(300), echo(&bus, "hello")).await;
    assert_eq!(result, Err(CallError::TimedOut));
    eventually(PATIENCE, async || dropped.load(Ordering::SeqCst)).await;
}

#[tokio::test]
async fn faults_of_either_side_are_answered_and_the_next_request_is_served() {
    let nats = Nats::start().await;
    let bus = connect(&nats).await;
    let responder = responder(&bus, 8, 2).on::<Echo, _, _>(async |text: String, _| {
        assert_ne!(text, "panic", "as asked");
        Ok(text)
    });
    let _running = serve(&bus, responder).await;

    let code = |result: Result<String, CallError>| Problem::from(result.unwrap_err()).code;
    assert_eq!(code(echo(&bus, "panic").await), Code::Internal);
    assert_eq!(code(bus.call::<Echo>("rpc.test.17.nothing".into(), &String::new()).await), Code::Internal);

    let not_json = bus.client().request("rpc.test.17.echo", "{".into()).await.unwrap();
    assert!(String::from_utf8_lossy(&not_json.payload).contains("malformed_request"));
    let mut headers = async_nats::HeaderMap::new();
    headers.insert("deadline-ms", "soon");
    let no_deadline =
        bus.client().request_with_headers("rpc.test.17.echo", headers, "\"\"".into()).await.unwrap();
    assert!(String::from_utf8_lossy(&no_deadline.payload).contains("deadline_malformed"));

    assert_eq!(echo(&bus, "still here").await.unwrap(), "still here");
}

#[tokio::test]
async fn a_request_can_lower_its_class_and_not_raise_it() {
    let nats = Nats::start().await;
    let bus = connect(&nats).await;
    let responder =
        responder(&bus, 8, 2).on::<Echo, _, _>(async |_, context: Context| Ok(context.class.to_string()));
    let _running = serve(&bus, responder).await;

    for (asked, got) in [("browse", "browse"), ("pay", "hold"), ("nonsense", "hold")] {
        let mut headers = async_nats::HeaderMap::new();
        headers.insert("stampede-class", asked);
        let answer =
            bus.client().request_with_headers("rpc.test.17.echo", headers, "\"\"".into()).await.unwrap();
        assert_eq!(answer.payload, format!("{{\"ok\":\"{got}\"}}"));
    }
}

#[tokio::test]
async fn a_responder_that_stops_finishes_what_it_has_and_takes_no_more() {
    let nats = Nats::start().await;
    let bus = connect(&nats).await;
    let (started, finish) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let (starts, finishes) = (Arc::clone(&started), Arc::clone(&finish));
    let responder = responder(&bus, 8, 2).on::<Echo, _, _>(move |text: String, _| {
        let (starts, finishes) = (Arc::clone(&starts), Arc::clone(&finishes));
        async move {
            starts.notify_one();
            finishes.notified().await;
            Ok(text)
        }
    });
    let (shutdown, run) = serve(&bus, responder).await;

    let call = tokio::spawn(spawnable(bus.clone(), "in hand"));
    started.notified().await;
    shutdown.cancel();
    eventually(PATIENCE, async || {
        let refused =
            stampede_deadline::scope(after_ms(1_000), bus.call::<Ready>("rpc.test.0.ready".into(), &()));
        matches!(refused.await, Err(CallError::Unavailable(_)))
    })
    .await;
    finish.notify_one();
    assert_eq!(call.await.unwrap().unwrap(), "in hand");
    run.await.unwrap().unwrap();
}

#[tokio::test]
async fn without_a_server_calls_fail_at_once_and_repeated_ones_outlive_its_restart() {
    let mut nats = Nats::start().await;
    let bus = connect(&nats).await;
    let responder = responder(&bus, 8, 2).on::<Echo, _, _>(async |text, _| Ok(text));
    let _running = serve(&bus, responder).await;

    nats.stop();
    eventually(PATIENCE, async || !bus.is_connected()).await;
    let error = tokio::time::timeout(Duration::from_secs(5), echo(&bus, "hello")).await.unwrap().unwrap_err();
    assert!(matches!(error, CallError::Unavailable(_)), "{error}");

    let patient = tokio::spawn({
        let bus = bus.clone();
        let call =
            async move { bus.call_repeatedly::<Echo>("rpc.test.17.echo".into(), &"hello".to_owned()).await };
        stampede_deadline::scope(Deadline::after(PATIENCE), call)
    });
    nats.restart().await;
    assert_eq!(patient.await.unwrap().unwrap(), "hello");
}
