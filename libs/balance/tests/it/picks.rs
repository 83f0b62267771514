//! Who gets a call.

use std::cell::Cell;
use std::hash::{Hash, Hasher};

use stampede_balance::{Balancer, Outcome};
use stampede_deadline::Clock;

use crate::{SETTINGS, balancer, call, fail, shown};

/// How many of so many picks went to each of the replicas; none of them lasts.
fn spread(balancer: &Balancer<u8>, tried: &[u8], picks: u32) -> [u32; 5] {
    let mut to = [0; 5];
    for _ in 0..picks {
        to[usize::from(*balancer.pick(tried).unwrap().replica())] += 1;
    }
    to
}

fn near(counted: [u32; 5], expected: [u32; 5]) -> bool {
    counted.iter().zip(expected).all(|(&counted, expected)| counted.abs_diff(expected) <= expected / 20)
}

#[test]
fn of_two_different_ones_the_one_with_fewer_calls_is_picked() {
    let balancer = balancer(5);
    let mut held = Vec::new();
    for replica in 0..5 {
        held.extend((0..replica).map(|_| call(&balancer, replica)));
    }
    // Of the ten pairs, four have replica 0 in them, three more have 1, and none is left for the busiest.
    let counted = spread(&balancer, &[], 100_000);
    assert!(near(counted, [40_000, 30_000, 20_000, 10_000, 0]), "{counted:?}");
    // The three pairs of 1, 3 and 4.
    let counted = spread(&balancer, &[0, 2], 90_000);
    assert!(near(counted, [0, 60_000, 0, 30_000, 0]), "{counted:?}");
}

#[test]
fn between_equals_it_is_chance() {
    let balancer = balancer(5);
    let counted = spread(&balancer, &[], 100_000);
    assert!(near(counted, [20_000; 5]), "{counted:?}");
    let counted = spread(&balancer, &[4], 100_000);
    assert!(near(counted, [25_000, 25_000, 25_000, 25_000, 0]), "{counted:?}");
    fail(&balancer, 1, 3);
    let counted = spread(&balancer, &[], 100_000);
    assert!(near(counted, [25_000, 0, 25_000, 25_000, 25_000]), "{counted:?}");
    let counted = spread(&balancer, &[0], 100_000);
    assert!(near(counted, [0, 0, 33_333, 33_333, 33_333]), "{counted:?}");
}

#[test]
fn whoever_was_tried_is_not_picked_again() {
    let balancer = balancer(3);
    for _ in 0..100 {
        let mut tried = Vec::new();
        while let Some(pick) = balancer.pick(&tried) {
            assert!(!tried.contains(pick.replica()));
            tried.push(*pick.replica());
        }
        tried.sort_unstable();
        assert_eq!(tried, [0, 1, 2]);
    }
    balancer.set_replicas([]);
    assert!(balancer.pick(&[]).is_none());
}

#[test]
fn a_call_is_in_flight_until_it_is_dropped_or_told_of() {
    let balancer = balancer(1);
    let picks: Vec<_> = (0..4).filter_map(|_| balancer.pick(&[])).collect();
    for (pick, outcome) in
        picks.into_iter().zip([Some(Outcome::Success), Some(Outcome::Failure), Some(Outcome::Neutral), None])
    {
        let before = shown(&balancer, 0).in_flight;
        match outcome {
            Some(outcome) => pick.record(outcome),
            None => drop(pick),
        }
        assert_eq!(shown(&balancer, 0).in_flight, before - 1, "{outcome:?}");
    }
    assert_eq!(shown(&balancer, 0).in_flight, 0);
}

#[test]
fn who_stays_keeps_its_calls_and_who_left_is_forgotten() {
    let balancer = balancer(3);
    let (stays, leaves) = (call(&balancer, 1), call(&balancer, 2));
    fail(&balancer, 1, 1);
    balancer.set_replicas([1, 3]);
    assert_eq!((shown(&balancer, 1).in_flight, shown(&balancer, 1).failures), (1, 1));
    assert_eq!(balancer.snapshot().iter().map(|snapshot| snapshot.replica).collect::<Vec<_>>(), [1, 3]);

    // It comes back as somebody new: what the old one still has to do is none of its business.
    balancer.set_replicas([3, 2, 1, 2]);
    let fresh = call(&balancer, 2);
    leaves.record(Outcome::Failure);
    assert_eq!((shown(&balancer, 2).in_flight, shown(&balancer, 2).failures), (1, 0));
    drop(fresh);
    stays.record(Outcome::Success);
    assert_eq!((shown(&balancer, 1).in_flight, shown(&balancer, 1).failures), (0, 0));
    assert_eq!(balancer.snapshot().len(), 3, "each once");
}

#[test]
fn the_same_seed_makes_the_same_choices() {
    let picks = |seed| {
        let balancer = balancer(5).with_seed(seed);
        balancer.set_replicas(3..40);
        (0..100).map(|_| *balancer.pick(&[]).unwrap().replica()).collect::<Vec<_>>()
    };
    assert_eq!(picks(1), picks(1));
    assert_ne!(picks(1), picks(2));
}

/// An address that may not be copied while this is forbidden.
#[derive(PartialEq, Eq)]
struct Precious(u8);

thread_local!(static FORBIDDEN: Cell<bool> = const { Cell::new(false) });

impl Clone for Precious {
    fn clone(&self) -> Self {
        assert!(!FORBIDDEN.get(), "a copy of an address");
        Self(self.0)
    }
}

impl Hash for Precious {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.hash(state);
    }
}

#[test]
fn a_call_copies_no_address() {
    let balancer = Balancer::try_new(SETTINGS, Clock::system()).unwrap();
    balancer.set_replicas([Precious(0), Precious(1)]);
    FORBIDDEN.set(true);
    for outcome in [Outcome::Success, Outcome::Failure, Outcome::Neutral] {
        balancer.pick(&[]).unwrap().record(outcome);
        balancer.pick(&[Precious(0)]).unwrap().record(outcome);
    }
}
