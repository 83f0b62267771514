//! The rules of the limit, one by one and over random windows.

use proptest::prelude::{Strategy, any, prop_assert, prop_assert_eq, proptest};

use super::*;

const BOUNDS: Limits = Limits { min: 2, initial: 20, max: 200 };
const MILLI: f64 = 1e6;

fn busy(mean_ns: f64, peak: u32) -> Samples {
    Samples { mean_ns: Some(mean_ns), count: 1_000, overloads: 0, peak }
}

/// A limit that knows its baseline of one millisecond.
fn settled() -> Limit {
    let mut limit = Limit::new(BOUNDS);
    assert_eq!(limit.current(), BOUNDS.initial, "no call is refused before anything was measured");
    limit.learn(&busy(MILLI, 19));
    assert_eq!((limit.current(), limit.baseline_ns()), (20, Some(MILLI)));
    limit
}

#[test]
fn it_grows_only_while_it_is_used() {
    let (mut used, mut unused, mut idle) = (settled(), settled(), settled());
    for _ in 0..8 {
        used.learn(&busy(MILLI, used.current()));
        unused.learn(&busy(MILLI, 15));
        idle.learn(&busy(MILLI, 1));
    }
    assert!((26..=30).contains(&used.current()), "{used:?}");
    assert_eq!((unused.current(), idle.current()), (20, 20));
}

#[test]
fn it_shrinks_when_calls_take_longer_and_not_within_the_tolerance() {
    let (mut slow, mut noisy) = (settled(), settled());
    slow.learn(&busy(4.0 * MILLI, 20));
    noisy.learn(&busy(1.15 * MILLI, 20));
    assert_eq!(slow.current(), 18);
    assert_eq!(noisy.current(), 20);
    assert!(noisy.aim > 20.0, "{noisy:?}");
}

#[test]
fn overloads_shrink_it_by_their_share_and_at_most_by_half() {
    for (count, overloads, left) in [(0, 10, 10), (10, 10, 10), (90, 10, 18), (9_999, 1, 19)] {
        let mut limit = settled();
        limit.learn(&Samples { mean_ns: None, count, overloads, peak: 15 });
        assert_eq!(limit.current(), left, "{overloads} beside {count}");
    }
}

#[test]
fn a_quiet_window_is_a_probe_that_costs_nothing() {
    let mut limit = settled();
    for _ in 0..200 {
        limit.learn(&busy(3.0 * MILLI, 10));
        assert_eq!(limit.current(), 20, "no need to halve it");
    }
    assert!((limit.baseline_ns().unwrap() / (3.0 * MILLI) - 1.0).abs() < 0.01, "{limit:?}");
}

/// In which of 200 windows the limit was halved, if calls take `mean_ns` and all but `free` of its slots are in use.
fn probes(mut limit: Limit, mean_ns: f64, free: u32) -> Vec<u32> {
    let mut halved = Vec::new();
    for window in 0..200 {
        let before = limit.current();
        limit.learn(&busy(mean_ns, before - free));
        if limit.current() < before / 2 + 2 {
            halved.push(window);
            // Nothing that is measured while older calls drain away counts.
            limit.learn(&busy(9.0 * MILLI, before));
            limit.learn(&busy(MILLI, before / 2));
            assert_eq!(limit.baseline_ns(), Some(MILLI));
        }
    }
    halved
}

#[test]
fn only_a_limit_that_is_reached_while_calls_take_long_is_probed_at_half() {
    assert_eq!(probes(settled(), 1.5 * MILLI, 0), [10, 61, 112, 163], "not in every window");
    assert_eq!(probes(settled(), 1.2 * MILLI, 0), [], "calls are as quick as ever");
    assert_eq!(probes(settled(), 1.5 * MILLI, 1), [], "it delays no call");
    let mut unknown = Limit::new(BOUNDS);
    unknown.learn(&busy(MILLI, 20));
    assert_eq!(unknown.current(), 10, "the very first calls may have waited for each other");
}

#[test]
fn a_limit_that_is_not_reached_does_not_shrink_and_its_baseline_follows_slowly() {
    let mut limit = settled();
    for window in 0..100 {
        limit.learn(&busy(4.0 * MILLI, limit.current() - 1));
        assert!(limit.current() >= 20, "{window}: {limit:?}");
    }
    assert!((1.5..3.5).contains(&(limit.baseline_ns().unwrap() / MILLI)), "{limit:?}");
}

#[test]
fn timeouts_that_half_the_limit_does_not_prevent_are_normal() {
    let mut limit = settled();
    let failing = |overloads| Samples { overloads, ..busy(MILLI, 200) };
    (0..20).for_each(|_| limit.learn(&failing(250)));
    assert_eq!(limit.normal.map(|normal| normal.overload_share), Some(0.2));
    let before = limit.aim;
    limit.learn(&failing(400));
    assert!(limit.aim >= before, "less than twice as many");
    limit.learn(&failing(1_000));
    assert!(limit.aim < before, "more");
}

#[test]
fn new_bounds_hold_at_once() {
    let mut limit = settled();
    limit.set_bounds(Limits { min: 1, initial: 1, max: 5 });
    assert_eq!(limit.current(), 5);
    limit.set_bounds(Limits { min: 50, initial: 60, max: 70 });
    assert_eq!(limit.current(), 50);
}

fn samples() -> impl Strategy<Value = Samples> {
    (0_u32..200, 1.0e3..1.0e9, 0_u32..50, 0_u32..300).prop_map(|(count, mean, overloads, peak)| Samples {
        mean_ns: (count > 0).then_some(mean),
        count,
        overloads,
        peak,
    })
}

proptest! {
    #[test]
    fn it_stays_within_its_bounds_and_never_jumps(
        windows in proptest::collection::vec(samples(), 1..200),
    ) {
        let mut limit = Limit::new(BOUNDS);
        for window in &windows {
            let before = limit.aim;
            limit.learn(window);
            prop_assert!((BOUNDS.min..=BOUNDS.max).contains(&limit.current()));
            prop_assert!(limit.aim <= before + SMOOTHING * before.sqrt() + 1e-9);
            prop_assert!(limit.aim >= before * (1.0 - SMOOTHING * SHRINK_MIN) * SHRINK_MIN - 1e-9 || limit.aim <= 2.0);
            prop_assert!(limit.baseline_ns().is_none_or(|baseline| baseline.is_finite() && baseline > 0.0));
        }
    }

    #[test]
    fn more_overloads_never_mean_a_larger_limit(
        windows in proptest::collection::vec(samples(), 0..50), last in samples(), more in 1_u32..100,
    ) {
        let (mut fewer, mut many) = (Limit::new(BOUNDS), Limit::new(BOUNDS));
        for window in &windows {
            fewer.learn(window);
            many.learn(window);
        }
        fewer.learn(&last);
        many.learn(&Samples { overloads: last.overloads + more, ..last });
        prop_assert!(many.aim <= fewer.aim);
    }

    #[test]
    fn errors_of_the_application_are_no_samples(
        windows in proptest::collection::vec(samples(), 1..50), quiet in any::<bool>(),
    ) {
        // What is ignored reaches the limit as a window with nothing in it, at most.
        let nothing = Samples { peak: if quiet { 0 } else { 200 }, ..Samples::default() };
        let mut limit = Limit::new(BOUNDS);
        windows.iter().for_each(|window| limit.learn(window));
        let aim = limit.aim;
        limit.learn(&nothing);
        prop_assert_eq!(limit.aim, aim);
    }
}
