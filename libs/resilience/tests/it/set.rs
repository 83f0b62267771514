//! Policies that are set while calls are made: every field of them, one by one.

use std::collections::BTreeSet;

use futures::FutureExt;
use futures::future::BoxFuture;
use serde_json::{Value, json};
use stampede_circuit_breaker::Forced;

use super::*;

/// What is seen of a destination that one field decides about.
type Look = fn(Destination<()>) -> BoxFuture<'static, f64>;
type Change = fn(&mut DestinationPolicy);
/// Whether an error names a rule.
type Names = fn(&InvalidPolicy) -> bool;

/// A field by its path, another value for it, what else the policy needs so that its effect can be seen, and how.
type Field = (&'static str, fn() -> Value, Change, Look);

const FIELDS: [Field; 22] = [
    ("/stack", || json!("off"), |_| {}, |it| async move { f64::from(u8::from(it.is_on())) }.boxed()),
    ("/deadline_ms", || json!(300), often, |it| elapsed(it, Ask::Hang).boxed()),
    ("/attempt_ms", || json!(30), once, |it| elapsed(it, Ask::Hang).boxed()),
    ("/retry/attempts_max", || json!(2), |_| {}, |it| attempts(it, 1).boxed()),
    ("/retry/pause_ms", || json!(30), |it| paused(it, 2, 2_000), |it| elapsed(it, Ask::Fail).boxed()),
    ("/retry/pause_max_ms", || json!(1_000), |it| paused(it, 8, 10), |it| elapsed(it, Ask::Fail).boxed()),
    ("/hedge/attempts_max", || json!(4), hedged, |it| async move { reads(&it, 1, 70).await.0 }.boxed()),
    ("/hedge/per_mille", || json!(100), |_| {}, |it| async move { reads(&it, 99, 0).await.1 }.boxed()),
    ("/hedge/delay_min_ms", || json!(40), |_| {}, |it| async move { reads(&it, 99, 0).await.1 }.boxed()),
    ("/hedge/delay_max_ms", || json!(30), |_| {}, |it| async move { reads(&it, 0, 0).await.1 }.boxed()),
    ("/budget/per_mille", || json!(900), many, |it| attempts(it, 200).boxed()),
    ("/budget/reserve", || json!(2), many, |it| attempts(it, 20).boxed()),
    ("/budget/min_per_second", || json!(90), many, |it| attempts(it, 200).boxed()),
    ("/breaker/percent", || json!(10), |_| {}, |it| opened(it, 40, 5).boxed()),
    ("/breaker/min_calls", || json!(3), |_| {}, |it| opened(it, 4, 1).boxed()),
    ("/breaker/window_ms", || json!(50), |_| {}, |it| opened(it, 40, 1).boxed()),
    (
        "/breaker/open_ms",
        || json!(700),
        |_| {},
        |it| {
            async move {
                opened(it.clone(), 10, 1).await;
                it.health().breaker.retry_after.unwrap_or_default().as_secs_f64()
            }
            .boxed()
        },
    ),
    (
        "/breaker/open_max_ms",
        || json!(900),
        |_| {},
        |it| {
            async move {
                it.breaker().force(Some(Forced::Open));
                it.health().breaker.retry_after.unwrap_or_default().as_secs_f64()
            }
            .boxed()
        },
    ),
    (
        "/breaker/probes",
        || json!(2),
        |_| {},
        |it| {
            async move {
                it.breaker().force(Some(Forced::Open));
                it.breaker().force(None);
                crowd(it).await.0
            }
            .boxed()
        },
    ),
    ("/bulkhead/places", || json!(5), |_| {}, |it| async move { crowd(it).await.0 }.boxed()),
    ("/bulkhead/waiting_max", || json!(4), |_| {}, |it| async move { crowd(it).await.1 }.boxed()),
    (
        "/bulkhead/wait_ms",
        || json!(20),
        |it| it.attempt_ms = 900,
        |it| async move { crowd(it).await.2 }.boxed(),
    ),
];

fn once(policy: &mut DestinationPolicy) {
    policy.retry.attempts_max = 1;
}

fn often(policy: &mut DestinationPolicy) {
    (policy.retry.attempts_max, policy.budget.reserve, policy.breaker.min_calls) = (1_000, 100_000, 10_000);
}

fn many(policy: &mut DestinationPolicy) {
    (policy.retry.attempts_max, policy.breaker.min_calls) = (2, 10_000);
}

fn hedged(policy: &mut DestinationPolicy) {
    once(policy);
    (policy.hedge.delay_min_ms, policy.hedge.delay_max_ms, policy.bulkhead.places) = (10, 10, 9);
}

fn paused(policy: &mut DestinationPolicy, attempts_max: u32, pause_max_ms: u64) {
    often(policy);
    (policy.retry.attempts_max, policy.retry.pause_max_ms) = (attempts_max, pause_max_ms);
    policy.deadline_ms = 600_000;
}

/// How long a call takes, on average: pauses are random.
async fn elapsed(destination: Destination<()>, what: Ask) -> f64 {
    const CALLS: u32 = 1_000;
    let service = destination.promising::<Keyed>().repeating(means::<()>).layer(Probe::default());
    let started = Instant::now();
    for _ in 0..CALLS {
        let _ = service.clone().oneshot(what).await;
    }
    (started.elapsed() / CALLS).as_secs_f64()
}

/// How many attempts `calls` make that fail, ten milliseconds apart.
async fn attempts(destination: Destination<()>, calls: u32) -> f64 {
    let probe = Probe::default();
    let service = destination.promising::<Keyed>().repeating(means::<()>).layer(probe.clone());
    for _ in 0..calls {
        let _ = service.clone().oneshot(Ask::Fail).await;
        sleep(10 * MS).await;
    }
    f64::from(u32::try_from(probe.calls()).unwrap())
}

/// Reads, of which every other one takes long, and how many attempts they made; then the delay of hedges.
async fn reads(destination: &Destination<()>, calls: u32, millis: u64) -> (f64, f64) {
    let made = Arc::new(AtomicU32::new(0));
    let counter = Arc::clone(&made);
    let service = service_fn(move |nth: u32| {
        counter.fetch_add(1, Ordering::SeqCst);
        async move {
            sleep(Duration::from_millis(millis + if nth.is_multiple_of(2) { 1 } else { 8 })).await;
            Ok::<_, Failed>(())
        }
    });
    let service = destination.promising::<Safe>().hedging(means::<()>).layer(service);
    for nth in 0..calls {
        let _ = service.clone().oneshot(nth).await;
    }
    let made = made.load(Ordering::SeqCst);
    (f64::from(made), destination.health().hedge.delay.as_secs_f64())
}

/// Whether the circuit opens when every `one_of`th call fails, ten milliseconds apart.
async fn opened(destination: Destination<()>, calls: u32, one_of: u32) -> f64 {
    let service = destination.promising::<Once>().single(means::<()>).layer(Probe::default());
    for nth in 1..=calls {
        let what = if nth.is_multiple_of(one_of) { Ask::Fail } else { Ask::Answer };
        let _ = service.clone().oneshot(what).await;
        if destination.health().breaker.opened > 0 {
            return 1.0;
        }
        sleep(10 * MS).await;
    }
    0.0
}

/// Of ten calls that hang, how many are made, how many wait, and for how long the last one of them does.
async fn crowd(destination: Destination<()>) -> (f64, f64, f64) {
    let service = destination.promising::<Once>().single(means::<()>).layer(Probe::default());
    let started = Instant::now();
    let mut calls = tokio::task::JoinSet::new();
    for _ in 0..10 {
        let call = service.clone().oneshot(Ask::Hang);
        calls.spawn(async move {
            let answer = call.await;
            (matches!(answer, Err(Error::Crowded(_))), Instant::now())
        });
    }
    tokio::task::yield_now().await;
    let health = destination.health();
    let ended = calls.join_all().await;
    let refused = ended.iter().filter(|(is_refused, _)| *is_refused).map(|(_, at)| *at).max();
    let waited = refused.map_or(Duration::ZERO, |at| at - started);
    (f64::from(health.bulkhead.taken), health.bulkhead.waiting as f64, waited.as_secs_f64())
}

/// The policy with one field replaced.
fn with(policy: &DestinationPolicy, path: &str, value: Value) -> DestinationPolicy {
    let mut all = serde_json::to_value(policy).unwrap();
    *all.pointer_mut(path).unwrap() = value;
    serde_json::from_value(all).unwrap()
}

/// The paths of all fields.
fn paths(value: &Value, at: &str) -> BTreeSet<String> {
    match value.as_object() {
        Some(fields) => {
            fields.iter().flat_map(|(name, value)| paths(value, &format!("{at}/{name}"))).collect()
        }
        None => BTreeSet::from([at.to_owned()]),
    }
}

#[tokio::test(start_paused = true)]
async fn every_field_of_a_policy_that_is_set_is_in_force() {
    let looked_at: BTreeSet<_> = FIELDS.iter().map(|(path, ..)| (*path).to_owned()).collect();
    assert_eq!(looked_at, paths(&serde_json::to_value(policy()).unwrap(), ""), "no field is left out");
    for (path, value, change, look) in FIELDS {
        let before = changed(change);
        let after = with(&before, path, value());
        let set = destination::<()>(&before);
        set.set_policy(&after).unwrap();
        assert_eq!(set.policy(), after);
        let (unset, set, fresh) =
            (look(destination(&before)).await, look(set).await, look(destination(&after)).await);
        let is_near = |one: f64, other: f64| (one - other).abs() <= other.abs() / 5.0;
        assert!(is_near(set, fresh), "{path}: {set} where a fresh destination has {fresh}");
        assert!(!is_near(set, unset), "{path}: {set}, as before");
    }
}

#[tokio::test(start_paused = true)]
async fn a_policy_that_is_set_keeps_what_was_learned_and_spent() {
    for (path, value, ..) in FIELDS {
        let destination = destination::<()>(&policy());
        reads(&destination, 99, 0).await;
        attempts(destination.clone(), 2).await;
        let mut service = destination.promising::<Once>().single(means::<()>).layer(Probe::default());
        let mut running = Box::pin(service.ready().await.unwrap().call(Ask::Hang));
        assert!(running.as_mut().now_or_never().is_none());

        let before = destination.health();
        assert!(before.breaker.counts.failures == 8 && before.hedge.delay < 50 * MS && before.budget < 20);
        destination.set_policy(&with(&policy(), path, value())).unwrap();
        let after = destination.health();
        let kept = if path == "/budget/reserve" { 2 } else { before.budget };
        assert_eq!(after.budget, kept, "{path}");
        if path != "/breaker/window_ms" {
            assert_eq!(after.breaker, before.breaker, "{path}");
        }
        if !path.starts_with("/hedge/") {
            assert_eq!(after.hedge, before.hedge, "{path}");
        }
        assert_eq!((after.bulkhead.taken, after.totals), (before.bulkhead.taken, before.totals), "{path}");
    }
}

/// The opening of a circuit is as long as the policy defines, also where it began before.
#[tokio::test(start_paused = true)]
async fn an_open_circuit_follows_its_policy() {
    let destination = destination::<()>(&policy());
    opened(destination.clone(), 10, 1).await;
    advance(50 * MS).await;
    for open_ms in [100, 1_000, 120] {
        destination.set_policy(&changed(|policy| policy.breaker.open_ms = open_ms)).unwrap();
        let left = Duration::from_millis(open_ms) - 50 * MS;
        assert_eq!(destination.health().breaker.retry_after, Some(left), "of {open_ms} ms");
    }
}

#[tokio::test(start_paused = true)]
async fn a_policy_that_breaks_a_rule_changes_nothing() {
    let destination = destination::<()>(&policy());
    let wrong: [(Change, Names); 5] = [
        (|it| it.breaker.percent = 0, |why| matches!(why, InvalidPolicy::Breaker(_))),
        (|it| it.bulkhead.places = 0, |why| matches!(why, InvalidPolicy::Bulkhead(_))),
        (|it| it.budget.per_mille = 1_001, |why| matches!(why, InvalidPolicy::Budget(_))),
        (|it| it.hedge.attempts_max = 1, |why| matches!(why, InvalidPolicy::Hedge(_))),
        (|it| it.attempt_ms = 9_999, |why| matches!(why, InvalidPolicy::AttemptAboveDeadline)),
    ];
    for (change, is_named) in wrong {
        let policy = changed(|policy| {
            (policy.bulkhead.waiting_max, policy.budget.reserve, policy.hedge.delay_max_ms) = (9, 1, 9);
            policy.stack = Stack::Off;
            change(policy);
        });
        assert!(is_named(&destination.set_policy(&policy).unwrap_err()));
        assert_eq!(destination.policy(), self::policy());
        assert!(destination.is_on() && destination.health().budget == 20);
    }
    assert_eq!(crowd(destination).await.1, 2.0, "as many wait as before");
}
