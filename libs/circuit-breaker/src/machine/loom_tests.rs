//! Every interleaving of a few threads. Run with `RUSTFLAGS="--cfg stampede_loom" cargo test --release --lib loom_`.

use std::time::Duration;

use loom::sync::Arc;
use loom::thread;

use super::*;
use crate::Trip;

const START: Moment = Moment::from_nanos(0);

fn model(check: impl Fn() + Sync + Send + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(3);
    builder.check(check);
}

type Told = std::sync::Arc<std::sync::Mutex<Vec<(State, State)>>>;

fn machine(policy: Policy) -> (Arc<Machine>, Told) {
    let told = Told::default();
    let teller = std::sync::Arc::clone(&told);
    let on_change = move |change: Change| teller.lock().unwrap().push((change.from, change.to));
    (Arc::new(Machine::new(policy, 2, Box::new(on_change))), told)
}

fn consecutive(failures: u32) -> Policy {
    Policy::new(Trip::consecutive(failures).unwrap())
}

fn settle(machine: &Machine, generation: u64, outcome: Outcome) {
    machine.settle(0, generation, outcome, || START);
}

/// Runs both at once.
fn race(machine: &Arc<Machine>, other: impl FnOnce(&Machine) + Send + 'static, this: impl FnOnce(&Machine)) {
    let theirs = Arc::clone(machine);
    let thread = thread::spawn(move || other(&theirs));
    this(machine);
    thread.join().unwrap();
}

#[test]
fn loom_two_failures_at_once_open_the_circuit_once() {
    model(|| {
        let (machine, told) = machine(consecutive(2));
        let fail = |machine: &Machine| settle(machine, 0, Outcome::Failure);
        race(&machine, fail, fail);
        assert_eq!(*told.lock().unwrap(), [(State::Closed, State::Open)]);
        assert_eq!(machine.word(), Word::new(Mode::Open, 1));
    });
}

#[test]
fn loom_a_failure_sees_the_other_lane_too() {
    model(|| {
        let (machine, told) = machine(Policy::new(Trip::rate(100, 2, Duration::from_millis(10)).unwrap()));
        let fail = |lane| move |machine: &Machine| machine.settle(lane, 0, Outcome::Failure, || START);
        race(&machine, fail(1), fail(0));
        assert_eq!(*told.lock().unwrap(), [(State::Closed, State::Open)]);
    });
}

#[test]
fn loom_a_late_result_leaves_no_trace() {
    model(|| {
        let (machine, _) = machine(consecutive(9));
        let late = |machine: &Machine| settle(machine, 0, Outcome::Failure);
        race(&machine, late, |machine| {
            machine.force(Some(Forced::Closed), START);
            machine.force(None, START);
            settle(machine, 2, Outcome::Failure);
        });
        assert_eq!(machine.snapshot(START).counts, Counts { calls: 1, failures: 1 });
    });
}

#[test]
fn loom_no_call_is_lost_when_a_bucket_is_turned_over() {
    model(|| {
        let (machine, _) = machine(Policy::new(Trip::rate(100, 9, Duration::from_millis(10)).unwrap()));
        settle(&machine, 0, Outcome::Success);
        // A whole turn later, in the same bucket.
        let later = START + Duration::from_nanos(16 << 20);
        race(
            &machine,
            move |machine| machine.settle(0, 0, Outcome::Success, || later),
            |machine| machine.settle(0, 0, Outcome::Failure, || later),
        );
        assert_eq!(machine.snapshot(later).counts, Counts { calls: 2, failures: 1 });
    });
}

#[test]
fn loom_one_probe_passes() {
    model(|| {
        let (machine, told) = machine(consecutive(1));
        settle(&machine, 0, Outcome::Failure);
        let due = START + Duration::from_secs(1);
        let passed = std::sync::Arc::new(std::sync::atomic::AtomicU32::new(0));
        let also = std::sync::Arc::clone(&passed);
        let probe = move |machine: &Machine, passed: &std::sync::atomic::AtomicU32| {
            if machine.admit(|| due) == Ok(2) {
                passed.fetch_add(1, Ordering::SeqCst);
            }
        };
        race(&machine, move |machine| probe(machine, &also), |machine| probe(machine, &passed));
        assert_eq!(passed.load(Ordering::SeqCst), 1);
        assert_eq!(told.lock().unwrap()[1..], [(State::Open, State::HalfOpen)]);
    });
}

#[test]
fn loom_two_probes_that_disagree_change_the_state_once() {
    model(|| {
        let (machine, told) = machine(consecutive(1).probes(2, 1).unwrap());
        machine.force(Some(Forced::Open), START);
        machine.force(None, START);
        let probes = [machine.admit(|| START).unwrap(), machine.admit(|| START).unwrap()];
        race(
            &machine,
            move |machine| settle(machine, probes[0], Outcome::Success),
            |machine| settle(machine, probes[1], Outcome::Failure),
        );
        let told = told.lock().unwrap();
        assert_eq!(told.len(), 3, "{told:?}");
        assert_eq!(machine.word().generation(), 3);
        assert_eq!(machine.word().mode().state(), told[2].1);
    });
}

#[test]
fn loom_a_result_of_the_old_policy_is_not_counted_by_the_new_one() {
    model(|| {
        let (machine, _) = machine(consecutive(9));
        let late = |machine: &Machine| settle(machine, 0, Outcome::Failure);
        race(&machine, late, |machine| {
            machine.set_policy(Policy::new(Trip::rate(100, 9, Duration::from_millis(10)).unwrap()));
            if let Ok(generation) = machine.admit(|| START) {
                settle(machine, generation, Outcome::Success);
            }
        });
        assert_eq!(machine.snapshot(START).counts, Counts { calls: 1, failures: 0 });
    });
}
