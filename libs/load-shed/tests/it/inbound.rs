//! A real router that speaks HTTP on real connections, with two to three times as much to do as it can. The connections are
//! in memory and the clock is paused: a busy machine changes nothing.

use std::convert::Infallible;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::error_handling::HandleErrorLayer;
use axum::extract::{Request, State};
use axum::http::{StatusCode, header::RETRY_AFTER};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::serve::Listener;
use stampede_deadline::Clock;
use stampede_load_shed::{Error, Limits, LoadShed, LoadShedLayer, Priority, Sample, Settings, Waiting};
use tokio::io::{self, AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until};
use tower::ServiceBuilder;

const PAY: Priority = Priority::MOST_URGENT;
const BROWSE: Priority = Priority::LEAST_URGENT;
const INTERVAL: Duration = Duration::from_millis(100);
/// Calls the handler works on at a time, and how long it takes: 500 a second.
const WORKERS: usize = 4;
const SERVICE_TIME: Duration = Duration::from_millis(8);
/// Long enough for twice as many requests a second as the handler can serve to be on their way for 100 ms.
const CONNECTIONS: u32 = 150;
/// What a connection holds in each direction.
const BUFFER_BYTES: usize = 64 * 1024;

#[derive(Clone)]
struct Server {
    workers: Arc<Semaphore>,
    log: Arc<Log>,
}

/// Who was shed and who was admitted, and when.
#[derive(Default)]
struct Log {
    shed: Mutex<Vec<(Priority, Instant)>>,
    admitted: Mutex<Vec<(Priority, Instant)>>,
}

fn class(path: &str) -> Priority {
    if path == "/pay" { PAY } else { BROWSE }
}

async fn work(State(server): State<Server>, request: Request) -> &'static str {
    server.log.admitted.lock().unwrap().push((class(request.uri().path()), Instant::now()));
    let _worker = server.workers.acquire().await;
    sleep(SERVICE_TIME).await;
    "done"
}

/// Where connections are taken.
struct Connections(mpsc::Receiver<DuplexStream>);

impl Listener for Connections {
    type Io = DuplexStream;
    type Addr = ();

    async fn accept(&mut self) -> (DuplexStream, ()) {
        match self.0.recv().await {
            Some(connection) => (connection, ()),
            None => std::future::pending().await,
        }
    }

    fn local_addr(&self) -> io::Result<()> {
        Ok(())
    }
}

/// Starts the server.
fn serve() -> (mpsc::Sender<DuplexStream>, LoadShed, Arc<Log>) {
    let waiting = Waiting { queue_max: 16, interval: INTERVAL, ..Waiting::default() };
    let settings = Settings::try_new(Limits { min: 2, initial: 8, max: 64 }, waiting).unwrap();
    let shed = LoadShed::new(settings, Clock::tokio());
    let layer = LoadShedLayer::new(
        shed.clone(),
        |request: &Request| class(request.uri().path()),
        |_: &Result<Response, Infallible>| Sample::Success,
    );
    let log = Arc::new(Log::default());
    let seen = Arc::clone(&log);
    let refuse = HandleErrorLayer::new(move |error: Error<Infallible>| {
        let Error::Shed(shed) = error;
        seen.shed.lock().unwrap().push((shed.class, Instant::now()));
        let headers = [(RETRY_AFTER, shed.retry_after.as_secs().to_string())];
        std::future::ready((StatusCode::SERVICE_UNAVAILABLE, headers).into_response())
    });
    let server = Server { workers: Arc::new(Semaphore::new(WORKERS)), log: Arc::clone(&log) };
    let router = Router::new()
        .route("/pay", get(work))
        .route("/browse", get(work))
        .layer(ServiceBuilder::new().layer(refuse).layer(layer))
        .with_state(server);
    let (server, connections) = mpsc::channel(1);
    tokio::spawn(async move { axum::serve(Connections(connections), router).await });
    (server, shed, log)
}

#[derive(Clone, Copy)]
struct Answer {
    served: bool,
    sent: Instant,
    took: Duration,
}

/// One request on a connection that is kept.
async fn request(connection: &mut DuplexStream, path: &str) -> Answer {
    let sent = Instant::now();
    let request = format!("GET {path} HTTP/1.1\r\nHost: here\r\n\r\n");
    connection.write_all(request.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    loop {
        connection.read_buf(&mut answer).await.unwrap();
        let text = std::str::from_utf8(&answer).unwrap();
        if text.ends_with("\r\n\r\ndone") {
            return Answer { served: true, sent, took: sent.elapsed() };
        }
        if text.ends_with("\r\n\r\n") && text.starts_with("HTTP/1.1 503") {
            assert!(text.contains("\r\nretry-after: "), "{text}");
            return Answer { served: false, sent, took: sent.elapsed() };
        }
    }
}

/// Sends so many requests a second of a kind for some time, whatever becomes of them.
async fn storm(
    server: &mpsc::Sender<DuplexStream>,
    path: &'static str,
    per_second: u32,
    lasts: Duration,
) -> Vec<Answer> {
    let (mut connections, started) = (JoinSet::new(), Instant::now() + Duration::from_millis(50));
    for number in 0..CONNECTIONS {
        let server = server.clone();
        connections.spawn(async move {
            let (mut connection, other_end) = duplex(BUFFER_BYTES);
            server.send(other_end).await.unwrap();
            let (mut due, mut answers) = (started + number * Duration::from_secs(1) / per_second, Vec::new());
            while due < started + lasts {
                sleep_until(due).await;
                answers.push(request(&mut connection, path).await);
                due += CONNECTIONS * Duration::from_secs(1) / per_second;
            }
            answers
        });
    }
    connections.join_all().await.concat()
}

/// Of those sent after the first two intervals, when the queue is known to stand. The few that were taken for a burst
/// before wait longer by design.
fn p99_of_refusals(answers: &[Answer]) -> Duration {
    let Some(first) = answers.iter().map(|answer| answer.sent).min() else { return Duration::ZERO };
    let late = answers.iter().filter(|answer| !answer.served && answer.sent > first + 2 * INTERVAL);
    let mut refusals: Vec<_> = late.map(|answer| answer.took).collect();
    refusals.sort_unstable();
    let [p50, p99] = [50, 99].map(|percent| refusals[refusals.len() * percent / 100]);
    println!("{} refusals: p50 {p50:?}, p99 {p99:?}", refusals.len());
    p99
}

fn served_percent(answers: &[Answer]) -> usize {
    answers.iter().filter(|answer| answer.served).count() * 100 / answers.len()
}

#[tokio::test(start_paused = true)]
async fn the_urgent_are_served_and_the_others_refused_quickly() {
    let (server, shed, log) = serve();

    // Half the capacity in payments, twice the capacity in browsing.
    let lasts = Duration::from_millis(1_500);
    let (pay, browse) =
        tokio::join!(storm(&server, "/pay", 250, lasts), storm(&server, "/browse", 1_000, lasts));
    println!(
        "pay {}% of {}, browse {}% of {}",
        served_percent(&pay),
        pay.len(),
        served_percent(&browse),
        browse.len()
    );
    // Not all: the limit is halved now and then.
    assert!(served_percent(&pay) >= 50, "the urgent are served");
    assert!((3..50).contains(&served_percent(&browse)), "the others get what is left");
    assert!(served_percent(&pay) >= 2 * served_percent(&browse));
    println!("{:?}", shed.snapshot());
    assert!(p99_of_refusals(&browse) < Duration::from_millis(50));

    // Two and a half times the capacity in payments alone: nothing is left.
    let lasts = Duration::from_millis(600);
    let (pay, browse) =
        tokio::join!(storm(&server, "/pay", 1_250, lasts), storm(&server, "/browse", 250, lasts));
    println!(
        "pay {}% of {}, browse {}% of {}",
        served_percent(&pay),
        pay.len(),
        served_percent(&browse),
        browse.len()
    );
    assert!(served_percent(&pay) >= 15, "what can be served is served");
    no_browser_while_payers_are_shed(&log);
}

fn no_browser_while_payers_are_shed(log: &Log) {
    // Both are written down a little after they were decided.
    let lag = Duration::from_millis(40);
    let (shed, admitted) = (log.shed.lock().unwrap(), log.admitted.lock().unwrap());
    let payers_shed: Vec<_> = shed.iter().filter(|(class, _)| *class == PAY).map(|(_, at)| *at).collect();
    assert!(payers_shed.len() > 10, "{} payers were shed", payers_shed.len());
    for (_, at) in admitted.iter().filter(|(class, _)| *class == BROWSE) {
        let meanwhile = payers_shed.iter().find(|&&shed| *at > shed + lag && *at < shed + INTERVAL);
        assert_eq!(meanwhile, None, "a browser was admitted at {at:?}");
    }
}
