//! The machine beside a model that keeps every call and recounts them all for every answer.

use std::sync::Arc;
use std::time::Duration;

use proptest::collection::vec;
use proptest::prelude::{Just, Strategy, any, prop_assert_eq, prop_oneof, proptest};
use proptest::test_runner::TestCaseError;

use super::*;
use crate::Trip;

const MS: Duration = Duration::from_millis(1);

#[derive(Clone, Copy, Debug)]
enum Op {
    Wait(Duration),
    Call,
    /// The outcome of one of the calls that are on their way.
    End(usize, Outcome),
    Force(Option<Forced>),
    SetPolicy(usize),
}

#[derive(Clone, Copy)]
struct Plan {
    /// Consecutive failures, or percent, calls and window.
    trip: Result<u32, (u32, u32, Duration)>,
    open: (Duration, Duration),
    probes: (u32, u32),
}

const PLANS: [Plan; 4] = [
    Plan { trip: Ok(3), open: (Duration::from_millis(100), Duration::from_millis(700)), probes: (1, 1) },
    Plan {
        trip: Err((50, 4, Duration::from_millis(800))),
        open: (Duration::from_millis(300), Duration::from_millis(300)),
        probes: (3, 2),
    },
    // Its buckets are as wide as those of the one before.
    Plan {
        trip: Err((30, 6, Duration::from_millis(900))),
        open: (Duration::from_millis(200), Duration::from_millis(400)),
        probes: (1, 1),
    },
    Plan {
        trip: Err((20, 2, Duration::from_millis(130))),
        open: (Duration::from_millis(1), Duration::from_secs(1)),
        probes: (2, 3),
    },
];

impl Plan {
    fn policy(&self) -> Policy {
        let trip = match self.trip {
            Ok(failures) => Trip::consecutive(failures),
            Err((percent, calls, window)) => Trip::rate(percent, calls, window),
        };
        let policy = Policy::new(trip.unwrap()).open_for(self.open.0, self.open.1).unwrap();
        policy.probes(self.probes.0, self.probes.1).unwrap()
    }

    fn opening(&self, failed_rounds: u32) -> Duration {
        (0..failed_rounds).fold(self.open.0, |opening, _| (opening * 2).min(self.open.1))
    }

    /// How wide a bucket is: a power of two, of which eight fit into the window. None for failures in a row.
    fn bucket_nanos(&self) -> Option<u128> {
        let (.., window) = self.trip.err()?;
        let mut width = 1;
        while width * 2 * 8 <= window.as_nanos() {
            width *= 2;
        }
        Some(width)
    }
}

struct Model {
    plan: Plan,
    state: State,
    forced: Option<Forced>,
    generation: u64,
    /// Every call that was counted: in which generation, when, and whether it succeeded.
    calls: Vec<(u64, Duration, bool)>,
    retry_at: Duration,
    failed_rounds: u32,
    probes: u32,
    successes: u32,
    opened: u64,
    changes: Vec<Change>,
}

impl Model {
    fn new(plan: Plan) -> Self {
        Self {
            plan,
            state: State::Closed,
            forced: None,
            generation: 0,
            calls: Vec::new(),
            retry_at: Duration::ZERO,
            failed_rounds: 0,
            probes: 0,
            successes: 0,
            opened: 0,
            changes: Vec::new(),
        }
    }

    fn counts(&self, now: Duration) -> Counts {
        let mut counts = Counts::default();
        if self.state != State::Closed || self.forced.is_some() {
            return counts;
        }
        for &(_, at, well) in self.calls.iter().filter(|(generation, ..)| *generation == self.generation) {
            match self.plan.trip {
                Ok(_) if well => counts = Counts::default(),
                Err((.., window)) if !in_window(at, now, window, self.plan.bucket_nanos().unwrap()) => {}
                _ => {
                    counts.calls += 1;
                    counts.failures += u32::from(!well);
                }
            }
        }
        counts
    }

    fn refusal(&self, now: Duration) -> Option<Duration> {
        match (self.state, self.forced) {
            (State::Closed, _) => None,
            (_, Some(_)) => Some(self.plan.open.1),
            (State::Open, None) => (now < self.retry_at).then(|| self.retry_at - now),
            (State::HalfOpen, None) => (self.probes >= self.plan.probes.0).then_some(self.plan.open.0),
        }
    }

    fn call(&mut self, now: Duration) -> Result<u64, Duration> {
        if let Some(retry_after) = self.refusal(now) {
            return Err(retry_after);
        }
        if self.state == State::Open {
            self.change(State::HalfOpen, None, Why::TimeToProbe, now);
        }
        if self.state == State::HalfOpen {
            self.probes += 1;
        }
        Ok(self.generation)
    }

    fn end(&mut self, generation: u64, outcome: Outcome, now: Duration) {
        if generation != self.generation || self.forced.is_some() {
            return;
        }
        if self.state == State::HalfOpen {
            self.probes -= 1;
            self.successes += u32::from(outcome == Outcome::Success);
            if outcome == Outcome::Failure {
                self.failed_rounds += 1;
                self.change(State::Open, None, Why::ProbeFailed, now);
            } else if outcome == Outcome::Success && self.successes >= self.plan.probes.1 {
                self.change(State::Closed, None, Why::ProbesSucceeded, now);
            }
        } else if outcome != Outcome::Neutral {
            self.calls.push((generation, now, outcome == Outcome::Success));
            let counts = self.counts(now);
            let due = match self.plan.trip {
                Ok(failures) => counts.failures >= failures,
                Err((percent, calls, _)) => {
                    counts.calls >= calls
                        && f64::from(counts.failures) / f64::from(counts.calls) >= f64::from(percent) / 100.0
                }
            };
            if outcome == Outcome::Failure && due {
                self.change(State::Open, None, Why::Failures(counts), now);
            }
        }
    }

    fn force(&mut self, forced: Option<Forced>, now: Duration) {
        match (forced, self.forced) {
            (wanted, present) if wanted == present => {}
            (Some(Forced::Open), _) => self.change(State::Open, forced, Why::Forced, now),
            (Some(Forced::Closed), _) => self.change(State::Closed, forced, Why::Forced, now),
            (None, Some(Forced::Open)) => self.change(State::HalfOpen, None, Why::Released, now),
            (None, _) => self.change(State::Closed, None, Why::Released, now),
        }
    }

    fn change(&mut self, to: State, forced: Option<Forced>, why: Why, now: Duration) {
        let from = std::mem::replace(&mut self.state, to);
        self.generation += 1;
        self.forced = forced;
        match to {
            State::Open => {
                self.retry_at = now + self.plan.opening(self.failed_rounds);
                self.opened += u64::from(from != State::Open);
            }
            State::HalfOpen => (self.probes, self.successes) = (0, 0),
            State::Closed => self.failed_rounds = 0,
        }
        if from != to {
            self.changes.push(Change { from, to, why, generation: self.generation });
        }
    }

    fn set_plan(&mut self, plan: Plan) {
        let before = std::mem::replace(&mut self.plan, plan);
        let is_counting = self.state == State::Closed && self.forced.is_none();
        self.generation += u64::from(is_counting && before.bucket_nanos() != plan.bucket_nanos());
        self.retry_at = (self.retry_at + plan.opening(self.failed_rounds))
            .saturating_sub(before.opening(self.failed_rounds));
    }

    fn snapshot(&self, now: Duration) -> Snapshot {
        Snapshot {
            state: self.state,
            generation: self.generation,
            forced: self.forced,
            counts: self.counts(now),
            probes: if self.state == State::HalfOpen { self.probes } else { 0 },
            opened: self.opened,
            retry_after: self.refusal(now),
        }
    }
}

fn in_window(at: Duration, now: Duration, window: Duration, width: u128) -> bool {
    now.as_nanos() / width - at.as_nanos() / width < window.as_nanos().div_ceil(width)
}

fn ops() -> impl Strategy<Value = Op> {
    let outcome = prop_oneof![
        3 => Just(Outcome::Success),
        5 => Just(Outcome::Failure),
        1 => Just(Outcome::Neutral),
    ];
    let forced = prop_oneof![
        2 => Just(None),
        1 => Just(Some(Forced::Open)),
        1 => Just(Some(Forced::Closed)),
    ];
    prop_oneof![
        6 => (0_u64..250_000).prop_map(|micros| Op::Wait(Duration::from_micros(micros))),
        10 => Just(Op::Call),
        12 => (any::<usize>(), outcome).prop_map(|(which, outcome)| Op::End(which, outcome)),
        1 => forced.prop_map(Op::Force),
        1 => (0..PLANS.len()).prop_map(Op::SetPolicy),
    ]
}

fn play(plan: Plan, ops: Vec<Op>) -> Result<(), TestCaseError> {
    let told = Arc::new(Mutex::new(Vec::new()));
    let teller = Arc::clone(&told);
    let machine = Machine::new(plan.policy(), 2, Box::new(move |change| teller.lock().unwrap().push(change)));
    let mut model = Model::new(plan);
    let (mut now, mut calls) = (Duration::ZERO, Vec::new());
    for op in ops {
        let moment = Moment::default() + now;
        match op {
            Op::Wait(pause) => now += pause,
            Op::Call => {
                let answer = machine.admit(|| moment);
                prop_assert_eq!(answer.map_err(|refused| refused.retry_after), model.call(now));
                calls.extend(answer);
            }
            Op::End(which, outcome) if !calls.is_empty() => {
                let generation = calls.swap_remove(which % calls.len());
                let lane = (which >> 8) % 2;
                machine.settle(lane, generation, outcome, || moment);
                model.end(generation, outcome, now);
            }
            Op::End(..) => {}
            Op::Force(forced) => {
                machine.force(forced, moment);
                model.force(forced, now);
            }
            Op::SetPolicy(which) => {
                machine.set_policy(PLANS[which].policy());
                model.set_plan(PLANS[which]);
            }
        }
        let moment = Moment::default() + now;
        prop_assert_eq!(machine.snapshot(moment), model.snapshot(now));
        prop_assert_eq!(machine.refusal(|| moment).map(|refused| refused.retry_after), model.refusal(now));
    }
    prop_assert_eq!(&*told.lock().unwrap(), &model.changes);
    Ok(())
}

proptest! {
    #[test]
    fn it_answers_as_the_model_does(which in 0..PLANS.len(), ops in vec(ops(), 1..300)) {
        play(PLANS[which], ops)?;
    }
}

fn rate(window: Duration) -> Machine {
    Machine::new(Policy::new(Trip::rate(50, 4, window).unwrap()), 2, Box::new(|_| {}))
}

fn fail_at(machine: &Machine, now: Duration) {
    let generation = machine.admit(Moment::default).unwrap();
    machine.settle(0, generation, Outcome::Failure, || Moment::default() + now);
}

#[test]
fn failures_that_lie_further_apart_than_the_window_never_open() {
    let machine = rate(100 * MS);
    for n in 0..1_000 {
        fail_at(&machine, n * 40 * MS);
    }
    assert_eq!(machine.snapshot(Moment::default() + 1_000 * 40 * MS).state, State::Closed);
    fail_at(&machine, 1_000 * 40 * MS);
    fail_at(&machine, 1_000 * 40 * MS);
    assert_eq!(machine.snapshot(Moment::default() + 1_000 * 40 * MS).state, State::Open);
}

#[test]
fn a_circuit_that_was_idle_for_hours_counts_again() {
    // Slots come round after 4.7 hours here; in the second half of that, an old bucket looks later than now.
    for minutes in (0..600).step_by(7) {
        let machine = rate(10 * MS);
        fail_at(&machine, Duration::ZERO);
        let later = Duration::from_secs(60 * minutes + 1);
        (0..4).for_each(|_| fail_at(&machine, later));
        assert_eq!(machine.snapshot(Moment::default() + later).state, State::Open, "after {minutes} min");
    }
}

#[test]
fn a_thread_that_slept_empties_no_bucket() {
    let machine = rate(100 * MS);
    // 16 buckets of 8.4 ms: both fall into the same one.
    (0..3).for_each(|_| fail_at(&machine, 16 * Duration::from_nanos(1 << 23)));
    fail_at(&machine, Duration::ZERO);
    fail_at(&machine, 16 * Duration::from_nanos(1 << 23));
    assert_eq!(machine.snapshot(Moment::default()).state, State::Open);
}

#[test]
fn what_an_earlier_generation_counted_never_comes_back() {
    // The last eight bits of the generation come round after 256 of them.
    let machine = rate(Duration::from_secs(3_600));
    for round in 0..300 {
        fail_at(&machine, Duration::ZERO);
        assert_eq!(machine.snapshot(Moment::default()).counts, Counts { calls: 1, failures: 1 }, "{round}");
        machine.force(Some(Forced::Closed), Moment::default());
        machine.force(None, Moment::default());
        assert_eq!(machine.snapshot(Moment::default()).counts, Counts::default(), "{round}");
    }
    for _ in 0..128 {
        machine.force(Some(Forced::Closed), Moment::default());
        machine.force(None, Moment::default());
        assert_eq!(machine.snapshot(Moment::default()).counts, Counts::default());
    }
}
