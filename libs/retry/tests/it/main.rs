//! The layer: it keeps the contract of layers, and its promises.

#![expect(clippy::expect_used, reason = "helpers of tests are tests")]

use std::cell::Cell;
use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use stampede_deadline::{Clock, Deadline, scope};
use stampede_retry::{Backoff, Budget, BudgetSettings, RetryLayer, RetryPolicy, Rules, Verdict};
use stampede_testkit::Spans;
use stampede_testkit::layer::{Ask, Failed, Probe, ask, keeps_the_contract};
use tokio::time::Instant;
use tower::{Layer, Service, ServiceBuilder, ServiceExt, service_fn};

const MS: Duration = Duration::from_millis(1);

fn policy(attempts_max: u32) -> RetryPolicy {
    let backoff = Backoff::try_new(10 * MS, 100 * MS).expect("10 ms are less than 100 ms");
    RetryPolicy::try_new(backoff, attempts_max).expect("more than none").with_seed(7)
}

fn budget(per_mille: u32, reserve: u32) -> Budget {
    let settings = BudgetSettings { per_mille, reserve, min_per_second: 0 };
    Budget::try_new(settings, Clock::tokio()).expect("a fraction")
}

/// Every error is worth another attempt.
fn always<T, E>(result: &Result<T, E>) -> Verdict {
    if result.is_err() { Verdict::Again } else { Verdict::Final }
}

#[tokio::test(start_paused = true)]
async fn it_keeps_the_contract_of_layers() {
    keeps_the_contract(|| RetryLayer::new(policy(3), always::<(), Failed>)).await;
    keeps_the_contract(|| RetryLayer::new(policy(3).with_budget(budget(100, 10)), always::<(), Failed>))
        .await;
}

#[tokio::test(start_paused = true)]
async fn a_budget_is_one_for_all_services_of_a_layer() {
    let budget = budget(0, 4);
    let layer = RetryLayer::new(policy(3).with_budget(budget.clone()), always::<(), Failed>);
    let probe = Probe::default();
    for _ in 0..2 {
        let mut service = layer.layer(probe.clone());
        for _ in 0..5 {
            assert_eq!(ask(&mut service, Ask::Fail).await, Err(Failed));
        }
    }
    assert_eq!(probe.calls(), 10 + 4, "ten calls, and the four that were granted");
    assert_eq!(budget.remaining(), 0);
}

#[tokio::test(start_paused = true)]
async fn the_first_success_ends_it_and_attempts_are_numbered() {
    #[derive(Clone)]
    struct Numbered;
    impl Rules<u32, u32, u32> for Numbered {
        fn verdict(&self, result: &Result<u32, u32>) -> Verdict {
            always(result)
        }
        fn copy(&self, request: &u32) -> Option<u32> {
            Some(*request)
        }
        fn number(&self, request: &mut u32, attempt: u32) {
            *request = attempt;
        }
    }
    let service = service_fn(async |attempt: u32| if attempt < 3 { Err(attempt) } else { Ok(attempt) });
    let mut retrying = RetryLayer::new(policy(9), Numbered).layer(service);
    assert_eq!(retrying.ready().await.unwrap().call(0).await, Ok(3));
    let mut twice = RetryLayer::new(policy(3), Numbered).layer(service);
    assert_eq!(twice.ready().await.unwrap().call(0).await, Err(2), "the last error is the answer");
}

#[tokio::test(start_paused = true)]
async fn a_final_error_and_a_request_that_cannot_be_copied_are_tried_once() {
    #[derive(Clone)]
    struct Once;
    impl Rules<Ask, (), Failed> for Once {
        fn verdict(&self, _: &Result<(), Failed>) -> Verdict {
            Verdict::Again
        }
        fn copy(&self, _: &Ask) -> Option<Ask> {
            None
        }
    }
    let probe = Probe::default();
    assert_eq!(ask(&mut RetryLayer::new(policy(9), Once).layer(probe.clone()), Ask::Fail).await, Err(Failed));
    let mut settled =
        RetryLayer::new(policy(9), |_: &Result<(), Failed>| Verdict::Final).layer(probe.clone());
    assert_eq!(ask(&mut settled, Ask::Fail).await, Err(Failed));
    assert_eq!(probe.calls(), 2);
}

#[tokio::test(start_paused = true)]
async fn it_never_sleeps_past_the_deadline_of_the_call() {
    for seed in 0..200 {
        let deadline = Deadline::after(300 * MS);
        let last_began = Cell::new(Instant::now());
        let service = service_fn(|(): ()| {
            last_began.set(Instant::now());
            async { Err::<(), _>(Failed) }
        });
        let mut retrying =
            RetryLayer::new(policy(u32::MAX).with_seed(seed), always::<(), Failed>).layer(service);
        assert_eq!(scope(deadline, retrying.call(())).await, Err(Failed));
        assert!(last_began.get() < deadline.instant(), "no attempt begins after it");
        assert!(Instant::now() <= deadline.instant() + MS, "and nobody waits for one");
    }
}

#[tokio::test(start_paused = true)]
async fn retry_after_is_waited_for_or_not_at_all() {
    let started = Instant::now();
    let calls = AtomicU32::new(0);
    let service = service_fn(|(): ()| {
        let first = calls.fetch_add(1, Ordering::SeqCst) == 0;
        async move { if first { Err(Failed) } else { Ok(()) } }
    });
    let rules = |result: &Result<(), Failed>| {
        result.as_ref().map_or(Verdict::AgainAfter(Duration::from_secs(2)), |()| Verdict::Final)
    };
    let mut retrying = RetryLayer::new(policy(3), rules).layer(service);
    assert_eq!(retrying.call(()).await, Ok(()));
    assert!(started.elapsed() >= Duration::from_secs(2));

    calls.store(0, Ordering::SeqCst);
    let started = Instant::now();
    assert_eq!(scope(Deadline::after(Duration::from_secs(1)), retrying.call(())).await, Err(Failed));
    assert_eq!(
        started.elapsed(),
        Duration::ZERO,
        "there is no time for it, so the refusal is the answer at once"
    );
}

#[tokio::test(start_paused = true)]
async fn every_attempt_asks_for_readiness() {
    let probe = Probe::default();
    let mut retrying = RetryLayer::new(policy(3), always::<(), Failed>).layer(probe.clone());
    assert_eq!(ask(&mut retrying, Ask::Fail).await, Err(Failed));
    assert_eq!((probe.calls(), probe.called_unready()), (3, 0));
}

/// Three tiers, each with its own retries, over something that is down: without budgets a call becomes 27, with them
/// the load at the bottom stays within the product of the fractions and the reserves.
#[tokio::test(start_paused = true)]
async fn a_storm_over_three_tiers_stays_within_the_budgets() {
    let storm = async |tiers: [Option<Budget>; 3]| {
        let reached = Arc::new(AtomicU32::new(0));
        let bottom = Arc::clone(&reached);
        let down = service_fn(move |(): ()| {
            bottom.fetch_add(1, Ordering::SeqCst);
            async { Err::<(), _>(Failed) }
        });
        let tier = |budget: Option<Budget>| {
            let policy = match budget {
                Some(budget) => policy(3).with_budget(budget),
                None => policy(3),
            };
            RetryLayer::new(policy, always::<(), Failed>)
        };
        let [front, middle, back] = tiers;
        let mut service =
            ServiceBuilder::new().layer(tier(front)).layer(tier(middle)).layer(tier(back)).service(down);
        for _ in 0..1_000 {
            assert_eq!(service.call(()).await, Err(Failed));
        }
        reached.load(Ordering::SeqCst)
    };
    assert_eq!(storm([None, None, None]).await, 27_000);
    let with_budgets = storm([Some(budget(100, 10)), Some(budget(100, 10)), Some(budget(100, 10))]).await;
    // 1000 calls, and at every tier 10 in reserve and a tenth of what came in: (1110 · 1.1 + 10) · 1.1 + 10.
    assert!((1_000..=1_364).contains(&with_budgets), "{with_budgets}");
    assert!(with_budgets > 1_300, "what the budgets allow is used: {with_budgets}");
}

#[tokio::test]
async fn it_can_run_in_a_task_and_holds_its_errors_type() {
    let service = service_fn(async |n: u32| Ok::<_, Infallible>(n + 1));
    let mut retrying = RetryLayer::new(policy(2), always::<u32, Infallible>).layer(service);
    let task = tokio::spawn(async move { retrying.ready().await.unwrap().call(1).await });
    assert_eq!(task.await.unwrap(), Ok(2));
}

#[tokio::test(start_paused = true)]
async fn a_layer_with_an_empty_budget_still_makes_first_attempts() {
    let layer = RetryLayer::new(policy(3).with_budget(budget(0, 0)), always::<(), Failed>);
    let probe = Probe::default();
    let mut service = layer.layer(probe.clone());
    assert_eq!(ask(&mut service, Ask::Answer).await, Ok(()));
    assert_eq!(ask(&mut service, Ask::Fail).await, Err(Failed));
    assert_eq!(probe.calls(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_trace_shows_the_pauses_and_nothing_where_there_are_none() {
    let spans = Spans::record();
    let mut service = RetryLayer::new(policy(3), always::<(), Failed>).layer(Probe::default());
    assert_eq!(ask(&mut service, Ask::Answer).await, Ok(()));
    assert_eq!(spans.seen(), []);

    let started = Instant::now();
    assert_eq!(ask(&mut service, Ask::Fail).await, Err(Failed));
    let seen = spans.seen();
    assert_eq!(spans.names(), [("retry pause", None); 2]);
    assert_eq!((&*seen[0].fields["attempt"], &*seen[1].fields["attempt"]), ("1", "2"));
    assert_eq!(seen[0].lasted + seen[1].lasted, started.elapsed(), "attempts took no time");
}
