//! The layers together: their order is what these tests see.
#![expect(clippy::unwrap_used, reason = "helpers of tests are tests")]

mod gate;
mod set;
mod trace;

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use stampede_circuit_breaker::State;
use stampede_contracts::function::{Keyed, Once, Safe};
use stampede_deadline::{Clock, Deadline, current, scope};
use stampede_resilience::{
    Destination, DestinationPolicy, Destinations, Error, InvalidPolicy, Meaning, Stack, Totals,
};
use stampede_testkit::layer::{Ask, Failed, Probe, ask, keeps_the_contract, shares_its_state};
use tokio::time::{Instant, advance, sleep};
use tower::{Layer, Service, ServiceExt, service_fn};

const MS: Duration = Duration::from_millis(1);

const POLICY: &str = "
    deadline_ms = 1000
    attempt_ms = 100
    retry = { attempts_max = 4, pause_ms = 10, pause_max_ms = 40 }
    hedge = { attempts_max = 2, per_mille = 900, delay_min_ms = 5, delay_max_ms = 50 }
    budget = { per_mille = 100, reserve = 20, min_per_second = 0 }
    breaker = { percent = 50, min_calls = 10, window_ms = 10000, open_ms = 200, open_max_ms = 2000, probes = 1 }
    bulkhead = { places = 2, waiting_max = 2, wait_ms = 50 }
";

fn policy() -> DestinationPolicy {
    toml::from_str(POLICY).unwrap()
}

fn changed(change: impl FnOnce(&mut DestinationPolicy)) -> DestinationPolicy {
    let mut policy = policy();
    change(&mut policy);
    policy
}

fn destination<G>(policy: &DestinationPolicy) -> Destination<G> {
    Destination::try_new("inventory", policy, Clock::tokio()).unwrap()
}

/// The probe fails for a moment.
fn means<T>(answer: Result<&T, &Failed>) -> Meaning {
    if answer.is_ok() { Meaning::Answer } else { Meaning::Unavailable(None) }
}

#[tokio::test(start_paused = true)]
async fn the_stacks_keep_the_contract_of_layers() {
    // A panic inside is a failure of the callee, and the contract is full of them.
    let policy = changed(|policy| policy.breaker.min_calls = 10_000);
    keeps_the_contract(|| destination::<Once>(&policy).single(means::<()>)).await;
    keeps_the_contract(|| destination::<Keyed>(&policy).repeating(means::<()>)).await;
    keeps_the_contract(|| destination::<Safe>(&policy).hedging(means::<()>)).await;
}

#[tokio::test(start_paused = true)]
async fn an_open_circuit_is_open_for_all_services_of_a_destination() {
    let destination = destination::<Once>(&policy());
    shares_its_state(&destination.single(means::<()>), async |service| {
        for _ in 0..10 {
            let _ = ask(service, Ask::Fail).await;
        }
    })
    .await;
    assert_eq!(destination.health().breaker.state, State::Open);
}

#[tokio::test(start_paused = true)]
async fn what_may_not_be_repeated_is_asked_once() {
    let probe = Probe::default();
    let mut service = destination::<Once>(&policy()).single(means::<()>).layer(probe.clone());
    assert_eq!(ask(&mut service, Ask::Fail).await, Err(Error::Inner(Failed)));
    assert_eq!(probe.calls(), 1);
}

#[tokio::test(start_paused = true)]
async fn every_attempt_counts_for_the_circuit_and_none_is_made_once_it_is_open() {
    let destination = destination::<Keyed>(&changed(|policy| policy.breaker.min_calls = 6));
    let probe = Probe::default();
    let mut service = destination.repeating(means::<()>).layer(probe.clone());
    assert_eq!(ask(&mut service, Ask::Fail).await, Err(Error::Inner(Failed)));
    assert_eq!(probe.calls(), 4);
    // The sixth failure opens it. The pause before the next attempt lasts until it may probe.
    let started = Instant::now();
    assert_eq!(ask(&mut service, Ask::Fail).await, Err(Error::Inner(Failed)));
    assert!(started.elapsed() >= 200 * MS, "{:?}", started.elapsed());
    assert!(probe.calls() < 8, "{}", probe.calls());
}

#[tokio::test(start_paused = true)]
async fn a_call_waits_for_a_circuit_that_closes_within_its_deadline() {
    let destination = destination::<Keyed>(&policy());
    let fails = destination.single(means::<()>).layer(Probe::default());
    for _ in 0..10 {
        let _ = fails.clone().oneshot(Ask::Fail).await;
    }
    let mut service = destination.repeating(means::<()>).layer(Probe::default());
    let hurried = scope(Deadline::after(100 * MS), ask(&mut service, Ask::Answer)).await;
    assert!(matches!(hurried, Err(Error::Open(after)) if after > 100 * MS), "{hurried:?}");
    assert_eq!(ask(&mut service, Ask::Answer).await, Ok(()));
    assert_eq!(destination.health().breaker.state, State::Closed);
}

#[tokio::test(start_paused = true)]
async fn a_callee_that_hangs_opens_the_circuit() {
    let destination = destination::<Once>(&policy());
    let mut service = destination.single(means::<()>).layer(Probe::default());
    for _ in 0..10 {
        assert_eq!(ask(&mut service, Ask::Hang).await, Err(Error::TimedOut));
    }
    assert!(matches!(ask(&mut service, Ask::Answer).await, Err(Error::Open(_))));
}

#[tokio::test(start_paused = true)]
async fn that_our_places_are_taken_says_nothing_of_the_callee() {
    let destination = destination::<Once>(&changed(|policy| policy.bulkhead.wait_ms = 2));
    let mut service = destination.single(means::<()>).layer(Probe::default());
    let mut hanging = Vec::new();
    for _ in 0..2 {
        let mut call = Box::pin(service.ready().await.unwrap().call(Ask::Hang));
        assert!(futures::FutureExt::now_or_never(call.as_mut()).is_none());
        hanging.push(call);
    }
    for _ in 0..30 {
        let crowded = ask(&mut service, Ask::Answer).await;
        assert!(matches!(crowded, Err(Error::Crowded(_))), "{crowded:?}");
        // Their time-outs do not come, because nobody polls them.
    }
    assert_eq!(destination.health().breaker.state, State::Closed);
    assert_eq!(destination.health().totals.crowded, 30);
}

#[tokio::test(start_paused = true)]
async fn a_pause_keeps_no_place() {
    let destination =
        destination::<Keyed>(&changed(|policy| (policy.bulkhead.places, policy.retry.pause_ms) = (1, 40)));
    let fails = destination.repeating(means::<()>).layer(Probe::default());
    let pausing = tokio::spawn(fails.clone().oneshot(Ask::Fail));
    tokio::task::yield_now().await;
    assert_eq!(destination.health().bulkhead.taken, 0, "between two attempts");
    assert_eq!(fails.oneshot(Ask::Answer).await, Ok(()));
    assert_eq!(pausing.await.unwrap(), Err(Error::Inner(Failed)));
}

#[tokio::test(start_paused = true)]
async fn one_deadline_bounds_all_attempts_and_each_sees_the_shorter_time() {
    let destination = destination::<Keyed>(&policy());
    let slow = service_fn(async |(): ()| {
        let left = current().unwrap().remaining();
        assert!(left <= 100 * MS, "an attempt has 100 ms: {left:?}");
        sleep(Duration::from_secs(60)).await;
        Ok::<_, Failed>(())
    });
    let started = Instant::now();
    let mut service = destination.repeating(means::<()>).layer(slow);
    let answer = scope(Deadline::after(250 * MS), service.call(())).await;
    assert_eq!(answer, Err(Error::TimedOut));
    assert!((200 * MS..=251 * MS).contains(&started.elapsed()), "{:?}", started.elapsed());
}

#[tokio::test(start_paused = true)]
async fn without_a_deadline_of_the_caller_the_policys_own_bounds_all_attempts() {
    let policy = changed(|policy| policy.deadline_ms = 250);
    let started = Instant::now();
    let mut once = destination::<Once>(&policy).single(means::<()>).layer(Probe::default());
    assert_eq!(ask(&mut once, Ask::Hang).await, Err(Error::TimedOut));
    assert_eq!(started.elapsed(), 100 * MS, "one attempt");

    let started = Instant::now();
    let mut repeating = destination::<Keyed>(&policy).repeating(means::<()>).layer(Probe::default());
    assert_eq!(ask(&mut repeating, Ask::Hang).await, Err(Error::TimedOut));
    // Two attempts with their pause, and the third or the pause before it does not fit in any more.
    assert!((200 * MS..=251 * MS).contains(&started.elapsed()), "{:?}", started.elapsed());
}

#[tokio::test(start_paused = true)]
async fn what_would_not_change_is_not_hedged() {
    let (destination, probe) = (destination::<Safe>(&policy()), Probe::default());
    let broken = |_: Result<&(), &Failed>| Meaning::Broken;
    let mut service = destination.hedging(broken).layer(probe.clone());
    assert_eq!(ask(&mut service, Ask::Fail).await, Err(Error::Inner(Failed)));
    assert_eq!((probe.calls(), destination.health().hedge.hedged), (1, 0));
}

#[tokio::test(start_paused = true)]
async fn an_answer_is_not_repeated_and_a_broken_callee_neither() {
    for meaning in [Meaning::Answer, Meaning::Broken] {
        let probe = Probe::default();
        let says = move |_: Result<&(), &Failed>| meaning;
        let mut service = destination::<Keyed>(&policy()).repeating(says).layer(probe.clone());
        assert_eq!(ask(&mut service, Ask::Fail).await, Err(Error::Inner(Failed)));
        assert_eq!(probe.calls(), 1, "{meaning:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_busy_callee_is_waited_for_and_is_no_failure() {
    let destination = destination::<Keyed>(&policy());
    let busy = |answer: Result<&(), &Failed>| match answer {
        Ok(()) => Meaning::Answer,
        Err(Failed) => Meaning::Busy(Some(150 * MS)),
    };
    let calls = Arc::new(AtomicU32::new(0));
    let counter = Arc::clone(&calls);
    let service = service_fn(move |(): ()| {
        let first = counter.fetch_add(1, Ordering::SeqCst) == 0;
        async move { if first { Err(Failed) } else { Ok(()) } }
    });
    let started = Instant::now();
    assert_eq!(destination.repeating(busy).layer(service).oneshot(()).await, Ok(()));
    assert!(started.elapsed() >= 150 * MS);
    assert_eq!(destination.health().breaker.counts.failures, 0);
}

#[tokio::test(start_paused = true)]
async fn a_read_that_is_slow_is_made_once_more_and_paid_for() {
    let destination = destination::<Safe>(&policy());
    let calls = Arc::new(AtomicU32::new(0));
    let counter = Arc::clone(&calls);
    let first_hangs = service_fn(move |(): ()| {
        let first = counter.fetch_add(1, Ordering::SeqCst) == 0;
        async move {
            if first {
                sleep(Duration::from_secs(60)).await;
            }
            Ok::<_, Failed>(())
        }
    });
    let started = Instant::now();
    assert_eq!(destination.hedging(means::<()>).layer(first_hangs).oneshot(()).await, Ok(()));
    assert_eq!(started.elapsed(), 50 * MS, "half of the time of an attempt");
    let health = destination.health();
    assert_eq!((health.hedge.hedged, health.hedge.won, health.budget), (1, 1, 19));
    assert_eq!((health.bulkhead.taken, health.totals.answered), (0, 1));
}

/// A hedge is the second call of a destination; whatever becomes of it, the first one is answered.
#[tokio::test(start_paused = true)]
async fn a_hedge_that_is_refused_or_fails_fast_leaves_the_first_attempt_alone() {
    let policy = policy();
    let full = changed(|policy| (policy.bulkhead.places, policy.bulkhead.waiting_max) = (1, 0));
    let queued = changed(|policy| (policy.bulkhead.places, policy.bulkhead.wait_ms) = (1, 20));
    let opens = changed(|policy| policy.breaker.min_calls = 1);
    for (what, policy, meaning) in [
        ("it finds no place", full, Meaning::Answer),
        ("it waits for a place in vain", queued, Meaning::Answer),
        ("the circuit has opened", opens, Meaning::Answer),
        ("the callee cannot", policy, Meaning::Broken),
        ("the callee is not there", policy, Meaning::Unavailable(None)),
        ("there was too little time", policy, Meaning::Unknown),
    ] {
        let destination = destination::<Safe>(&policy);
        let calls = Arc::new(AtomicU32::new(0));
        let counter = Arc::clone(&calls);
        let service = service_fn(move |(): ()| {
            let first = counter.fetch_add(1, Ordering::SeqCst) == 0;
            async move {
                sleep(if first { 80 * MS } else { MS }).await;
                if first { Ok(()) } else { Err(Failed) }
            }
        });
        let means =
            move |answer: Result<&(), &Failed>| if answer.is_ok() { Meaning::Answer } else { meaning };
        let call = tokio::spawn(destination.hedging(means).layer(service).oneshot(()));
        sleep(10 * MS).await;
        if policy == opens {
            let fails = destination.promising::<Once>().single(self::means::<()>).layer(Probe::default());
            assert_eq!(fails.oneshot(Ask::Fail).await, Err(Error::Inner(Failed)));
            assert_eq!(destination.health().breaker.state, State::Open);
        }
        assert_eq!(call.await.unwrap(), Ok(()), "{what}");
        assert_eq!(destination.health().hedge.hedged, 1, "{what}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_empty_budget_leaves_the_first_attempt_alone() {
    let destination = destination::<Safe>(&changed(|policy| policy.budget.reserve = 0));
    let slow = service_fn(async |(): ()| {
        sleep(80 * MS).await;
        Ok::<_, Failed>(())
    });
    assert_eq!(destination.hedging(means::<()>).layer(slow).oneshot(()).await, Ok(()));
    assert_eq!(destination.health().hedge.hedged, 0);
}

#[tokio::test(start_paused = true)]
async fn calls_are_counted_by_how_they_end() {
    let destination = destination::<Once>(&policy());
    let mut service = destination.single(means::<()>).layer(Probe::default());
    let _ = ask(&mut service, Ask::Answer).await;
    let _ = ask(&mut service, Ask::Fail).await;
    let _ = ask(&mut service, Ask::Hang).await;
    let expected = Totals { answered: 1, failed: 1, timed_out: 1, open: 0, crowded: 0 };
    assert_eq!(destination.health().totals, expected);
}

#[test]
fn the_broken_rule_is_named() {
    let refused = |change: fn(&mut DestinationPolicy)| {
        Destination::<Once>::try_new("x", &changed(change), Clock::system())
            .err()
            .map(|error| error.to_string())
    };
    let says = |text: &str| Some(text.to_owned());
    assert_eq!(refused(|_| {}), None);
    assert_eq!(refused(|policy| policy.attempt_ms = 1_001), says("attempt_ms must not be above deadline_ms"));
    assert_eq!(
        refused(|policy| policy.bulkhead.places = 0),
        says("bulkhead: a bulkhead has at least one place")
    );
    assert!(refused(|policy| policy.deadline_ms = 0).is_some());
    assert!(refused(|policy| policy.retry.attempts_max = 0).is_some());
    assert!(refused(|policy| policy.retry.pause_ms = 0).is_some());
    assert!(refused(|policy| policy.budget.per_mille = 1_001).is_some());
    assert!(toml::from_str::<DestinationPolicy>(&format!("{POLICY}\nunknown = 1")).is_err());
}

/// A caller with too little time, on purpose or not, does not open the circuit for the others.
#[tokio::test(start_paused = true)]
async fn what_the_caller_cuts_short_says_nothing_of_the_callee() {
    let destination = destination::<Once>(&policy());
    let mut service = destination.single(means::<()>).layer(Probe::default());
    for _ in 0..100 {
        let soon = Deadline::after(20 * MS);
        assert_eq!(scope(soon, ask(&mut service, Ask::Hang)).await, Err(Error::TimedOut));
    }
    assert_eq!(destination.health().breaker.state, State::Closed, "in so little time");
    let slow = service_fn(async |(): ()| {
        sleep(50 * MS).await;
        Ok::<_, Failed>(())
    });
    let slow = destination.single(means::<()>).layer(slow);
    for _ in 0..100 {
        let hurried = scope(Deadline::after(49 * MS), slow.clone().oneshot(()));
        let answers = tokio::join!(hurried, slow.clone().oneshot(()));
        assert_eq!(answers, (Err(Error::TimedOut), Ok(())));
    }
    assert_eq!(destination.health().breaker.counts.failures, 0, "others are answered");
    // Its own time is another matter.
    for _ in 0..100 {
        let _ = ask(&mut service, Ask::Hang).await;
    }
    assert!(destination.health().breaker.opened > 0);
}

/// How a caller stops waiting.
#[derive(Clone, Copy, Debug)]
enum Leaves {
    /// When the time of an attempt is over.
    WithTheAttempt,
    /// When a deadline comes that arrived with its request.
    AtADeadline(Duration),
    /// The caller drops the call.
    Dropped(Duration),
}

#[tokio::test(start_paused = true)]
async fn a_callee_that_hangs_opens_the_circuit_however_callers_stop_waiting() {
    use Leaves::{AtADeadline, Dropped, WithTheAttempt};
    // With two places, so few attempts of half a minute end in a window that they could not be judged.
    let figures = [(100, 1_000), (100, 100), (990, 1_000), (30_000, 30_000), (30_000, 600_000)];
    let callers = |attempt: Duration| {
        [
            WithTheAttempt,
            AtADeadline(attempt / 4),
            AtADeadline(attempt - MS),
            Dropped(attempt / 2),
            AtADeadline(2 * attempt),
        ]
    };
    for (attempt_ms, deadline_ms, leaves) in figures.into_iter().flat_map(|(attempt_ms, deadline_ms)| {
        callers(Duration::from_millis(attempt_ms)).map(|leaves| (attempt_ms, deadline_ms, leaves))
    }) {
        let policy = changed(|policy| (policy.attempt_ms, policy.deadline_ms) = (attempt_ms, deadline_ms));
        let destination = destination::<Once>(&policy);
        let mut service = destination.single(means::<()>).layer(Probe::default());
        assert_eq!(ask(&mut service, Ask::Answer).await, Ok(()));
        let mut calls = Vec::new();
        // One every ten milliseconds for as long as an attempt may take, and then for a window.
        for _ in 0..attempt_ms / 10 + 1_200 {
            let call = service.ready().await.unwrap().call(Ask::Hang);
            calls.push(tokio::spawn(async move {
                match leaves {
                    WithTheAttempt => drop(call.await),
                    AtADeadline(length) => drop(scope(Deadline::after(length), call).await),
                    Dropped(length) => drop(tokio::time::timeout(length, call).await),
                }
            }));
            sleep(10 * MS).await;
        }
        let opened = destination.health().breaker.opened;
        assert!(opened > 0, "{leaves:?}, {attempt_ms} ms of {deadline_ms} ms");
        for call in calls {
            call.await.unwrap();
        }
    }
}

/// Every call of the clients ends with their deadline, but now and then there is a response.
#[tokio::test(start_paused = true)]
async fn a_callee_that_responds_does_not_hang() {
    for meaning in [Meaning::Unknown, Meaning::Busy(None), Meaning::Answer] {
        let destination = destination::<Once>(&policy());
        let means =
            move |answer: Result<&(), &Failed>| if answer.is_ok() { meaning } else { Meaning::Unknown };
        let mut service = destination.single(means).layer(Probe::default());
        for _ in 0..40 {
            let hurried = scope(Deadline::after(50 * MS), ask(&mut service, Ask::Hang)).await;
            assert_eq!(hurried, Err(Error::TimedOut));
            assert_eq!(ask(&mut service, Ask::Answer).await, Ok(()));
        }
        assert_eq!(destination.health().breaker.opened, 0, "{meaning:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_says_nothing_is_neither_failure_nor_asked_for_again() {
    let unknown = |_: Result<&(), &Failed>| Meaning::Unknown;
    let (destination, probe) = (destination::<Safe>(&policy()), Probe::default());
    let mut service = destination.hedging(unknown).layer(probe.clone());
    for _ in 0..20 {
        assert_eq!(ask(&mut service, Ask::Fail).await, Err(Error::Inner(Failed)));
    }
    assert_eq!((probe.calls(), destination.health().breaker.state), (20, State::Closed));
}

#[tokio::test]
async fn destinations_are_found_by_name_and_their_stacks_switched_off_and_on() {
    let off = changed(|policy| policy.stack = Stack::Off);
    let destinations =
        Destinations::try_new([("orders", &policy()), ("shops", &off)], &Clock::tokio()).unwrap();
    let (orders, shops) = (destinations.get("orders").unwrap(), destinations.get("shops").unwrap());
    assert!(orders.is_on() && !shops.is_on() && destinations.get("nobody").is_none());
    orders.set_policy(&off).unwrap();
    assert!(!destinations.get("orders").unwrap().is_on(), "one and the same for everybody");
    assert_eq!(orders.policy(), off);
    assert!(destinations.get_or("orders", &policy()).unwrap().policy() == off, "it has a policy of its own");
    let (first, second) =
        (destinations.get_or("tool", &policy()).unwrap(), destinations.get_or("tool", &off).unwrap());
    first.set_policy(&off).unwrap();
    assert!(!second.is_on(), "the first call made it");
    let invalid = changed(|policy| policy.bulkhead.places = 0);
    let error = Destinations::try_new([("orders", &invalid)], &Clock::tokio()).unwrap_err();
    assert_eq!(error.to_string(), "orders: bulkhead: a bulkhead has at least one place");
}

/// Three tiers of whole stacks over something that is down: the load at the bottom stays within the budgets, and then
/// the circuits open.
#[tokio::test(start_paused = true)]
async fn a_storm_over_three_tiers_stays_within_the_budgets() {
    #[derive(Clone, Copy, Debug, PartialEq)]
    struct Down;
    let down = |_: Result<&(), &Down>| Meaning::Unavailable(None);
    let tier = || destination::<Keyed>(&changed(|policy| policy.breaker.min_calls = 10_000));
    let reached = Arc::new(AtomicU32::new(0));
    let bottom = Arc::clone(&reached);
    let callee = service_fn(move |(): ()| {
        bottom.fetch_add(1, Ordering::SeqCst);
        async { Err::<(), _>(Down) }
    });
    let flat = |error: Error<Down>| match error {
        Error::Inner(down) => down,
        _ => Down,
    };
    let back = tower::util::MapErr::new(tier().repeating(down).layer(callee), flat);
    let middle = tower::util::MapErr::new(tier().repeating(down).layer(back), flat);
    let front = tier().repeating(down).layer(middle);
    for _ in 0..1_000 {
        assert_eq!(front.clone().oneshot(()).await, Err(Error::Inner(Down)));
        advance(MS).await;
    }
    // At every tier a tenth of what comes in, and the reserve of 20.
    let bound = ((1_000.0_f64 * 1.1 + 20.0) * 1.1 + 20.0) * 1.1 + 20.0;
    let reached = f64::from(reached.load(Ordering::SeqCst));
    assert!((1_001.0..=bound).contains(&reached), "{reached} of at most {bound}");
}
