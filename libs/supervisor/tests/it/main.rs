//! Children that end in every way there is, on a paused clock.
#![expect(clippy::unwrap_used, reason = "a helper of tests fails the test")]

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use futures::FutureExt;
use stampede_supervisor::{RestartPolicy, Supervisor};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

const SECOND: Duration = Duration::from_secs(1);

/// Three restarts a minute, after 1, 2 and 4 seconds.
fn policy() -> RestartPolicy {
    RestartPolicy::try_new(3, 60 * SECOND, SECOND, 8 * SECOND).unwrap()
}

/// Runs a child that ends each time like `fail` does, until it is given up. Says how often it was started.
async fn starts_until_given_up<T>(fail: fn() -> T) -> u32
where
    T: Into<Result<(), stampede_supervisor::BoxError>> + 'static,
{
    let supervisor = Supervisor::new(CancellationToken::new());
    let starts = Arc::new(AtomicU32::new(0));
    let counted = starts.clone();
    supervisor.spawn("child", policy(), move || {
        counted.fetch_add(1, Ordering::Relaxed);
        async move { fail().into() }
    });
    let began = Instant::now();
    assert_eq!(supervisor.failed().await, "child");
    assert_eq!(began.elapsed(), 7 * SECOND, "one, two and four seconds of delay");
    supervisor.join().await;
    starts.load(Ordering::Relaxed)
}

#[tokio::test(start_paused = true)]
async fn errors_panics_and_early_ends_are_restarted_until_the_limit() {
    assert_eq!(starts_until_given_up(|| Err("broken".into())).await, 4);
    assert_eq!(starts_until_given_up::<Result<(), _>>(|| panic!("on purpose")).await, 4);
    assert_eq!(starts_until_given_up(|| Ok(())).await, 4);
}

#[tokio::test(start_paused = true)]
async fn a_panic_of_the_factory_is_caught_too() {
    let supervisor = Supervisor::new(CancellationToken::new());
    supervisor.spawn("child", policy(), || -> std::future::Ready<_> { panic!("on purpose") });
    assert_eq!(supervisor.failed().await, "child");
}

#[tokio::test(start_paused = true)]
async fn a_child_that_fails_now_and_then_is_kept_alive() {
    let shutdown = CancellationToken::new();
    let supervisor = Supervisor::new(shutdown.clone());
    let starts = Arc::new(AtomicU32::new(0));
    let counted = starts.clone();
    supervisor.spawn("child", policy(), move || {
        counted.fetch_add(1, Ordering::Relaxed);
        async {
            tokio::time::sleep(40 * SECOND).await;
            Err("from time to time".into())
        }
    });
    tokio::time::sleep(4_000 * SECOND).await;

    assert!(supervisor.failed().now_or_never().is_none());
    assert!(starts.load(Ordering::Relaxed) > 90);
}

#[tokio::test(start_paused = true)]
async fn a_child_that_waits_for_an_outage_to_end_is_never_given_up() {
    let is_outage = |error: &(dyn std::error::Error + 'static)| error.to_string() == "away";
    let supervisor = Supervisor::new(CancellationToken::new()).waiting_out(is_outage);
    supervisor.spawn("waiting", policy(), || async { Err("away".into()) });
    tokio::time::sleep(4_000 * SECOND).await;
    assert!(supervisor.failed().now_or_never().is_none());

    supervisor.spawn("broken", policy(), || async { Err("broken".into()) });
    assert_eq!(supervisor.failed().await, "broken");
}

#[tokio::test(start_paused = true)]
async fn the_others_go_on_when_one_is_given_up_and_the_first_name_stays() {
    let shutdown = CancellationToken::new();
    let supervisor = Supervisor::new(shutdown.clone());
    let early = supervisor.failed();
    let stop = shutdown.clone();
    supervisor.spawn("good", policy(), move || stop.clone().cancelled_owned().map(Ok));
    supervisor.spawn("bad", policy(), || async { Err("broken".into()) });
    supervisor.spawn("worse", policy(), || async {
        tokio::time::sleep(Duration::from_millis(1)).await;
        Err("broken later".into())
    });
    assert_eq!(supervisor.running(), ["bad", "good", "worse"]);

    assert_eq!(early.await, "bad");
    tokio::time::sleep(60 * SECOND).await;
    assert_eq!(supervisor.failed().await, "bad", "who asks late hears the same");
    assert_eq!(supervisor.running(), ["good"]);

    shutdown.cancel();
    supervisor.join().await;
}

#[tokio::test(start_paused = true)]
async fn join_waits_for_children_that_finish_their_work() {
    let shutdown = CancellationToken::new();
    let supervisor = Supervisor::new(shutdown.clone());
    let stop = shutdown.clone();
    supervisor.spawn("slow", policy(), move || {
        let stop = stop.clone();
        async move {
            stop.cancelled().await;
            tokio::time::sleep(3 * SECOND).await;
            Ok(())
        }
    });
    tokio::task::yield_now().await;
    let mut joined = pin!(supervisor.join());
    assert!((&mut joined).now_or_never().is_none(), "nobody asked it to stop");

    let began = Instant::now();
    shutdown.cancel();
    joined.await;
    assert_eq!(began.elapsed(), 3 * SECOND);
}

#[tokio::test(start_paused = true)]
async fn shutdown_ends_the_wait_for_a_restart() {
    let shutdown = CancellationToken::new();
    let supervisor = Supervisor::new(shutdown.clone());
    supervisor.spawn("child", policy(), || async { Err("broken".into()) });
    tokio::time::sleep(SECOND / 2).await;

    let began = Instant::now();
    shutdown.cancel();
    supervisor.join().await;
    assert_eq!(began.elapsed(), Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn children_do_not_outlive_a_join_that_was_cut_off() {
    let shutdown = CancellationToken::new();
    let supervisor = Supervisor::new(shutdown.clone());
    let (held_by_child, mut gone) = tokio::sync::mpsc::channel::<()>(1);
    supervisor.spawn("deaf", policy(), move || {
        let held = held_by_child.clone();
        async move {
            std::future::pending::<()>().await;
            drop(held);
            Ok(())
        }
    });
    tokio::task::yield_now().await;
    shutdown.cancel();
    assert!(tokio::time::timeout(SECOND, supervisor.join()).await.is_err());

    let senders_are_dropped = tokio::time::timeout(SECOND, gone.recv()).await;
    assert_eq!(senders_are_dropped, Ok(None));
}
