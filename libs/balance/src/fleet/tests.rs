//! The fleet beside a model that keeps every call and every ejection, and recounts them all for every answer.

use std::time::Duration;

use proptest::collection::vec;
use proptest::prelude::{Just, Strategy, any, prop_assert, prop_assert_eq, prop_oneof, proptest};
use proptest::test_runner::TestCaseError;
use rand::SeedableRng;
use rand::rngs::SmallRng;

use super::*;

const MS: Duration = Duration::from_millis(1);

const SETTINGS: [Settings; 4] = [
    Settings { failures_max: 1, ejection_first: MS, ejection_max: MS, ejected_percent_max: 100 },
    Settings {
        failures_max: 1,
        ejection_first: Duration::from_millis(20),
        ejection_max: Duration::from_millis(70),
        ejected_percent_max: 50,
    },
    Settings {
        failures_max: 3,
        ejection_first: Duration::from_millis(5),
        ejection_max: Duration::from_millis(15),
        ejected_percent_max: 34,
    },
    Settings {
        failures_max: 2,
        ejection_first: Duration::from_millis(50),
        ejection_max: Duration::from_secs(3_600),
        ejected_percent_max: 80,
    },
];

#[derive(Clone, Debug)]
enum Op {
    Wait(Duration),
    /// A call, after these were tried.
    Pick(Vec<u8>),
    /// One of the calls that are on their way ends.
    End(usize, Outcome),
    SetReplicas(Vec<u8>),
}

/// A call as the model knows it: to which replica, and how many changes that had seen.
struct Call {
    to: usize,
    generation: u64,
}

/// A replica from its coming to its leaving.
struct Stay {
    address: u8,
    has_left: bool,
    in_flight: u32,
    /// In which generation they began, and how they went.
    ended: Vec<(u64, Outcome)>,
    /// From when until when; the last one is not over yet if its end has not come.
    ejections: Vec<(Duration, Duration)>,
    changes: Vec<Event>,
}

struct Model {
    settings: Settings,
    /// Also of those who have left.
    stays: Vec<Stay>,
}

impl Stay {
    fn new(address: u8) -> Self {
        Self {
            address,
            has_left: false,
            in_flight: 0,
            ended: Vec::new(),
            ejections: Vec::new(),
            changes: Vec::new(),
        }
    }

    fn generation(&self) -> u64 {
        self.changes.len() as u64
    }

    fn is_ejected(&self) -> bool {
        matches!(self.changes.last(), Some(Event::Ejected(_)))
    }

    fn failures(&self) -> u32 {
        let of_today = self.ended.iter().filter(|(generation, _)| *generation == self.generation());
        let said = of_today.map(|(_, outcome)| *outcome).filter(|outcome| *outcome != Outcome::Neutral);
        let mut failures = 0;
        for outcome in said {
            failures = if outcome == Outcome::Failure { failures + 1 } else { 0 };
        }
        failures
    }

    /// How long the next ejection would last, told from all that were.
    fn next_ejection(&self, settings: &Settings, now: Duration) -> Duration {
        let (mut number, mut last_end) = (0_u32, Duration::ZERO);
        for begin in self.ejections.iter().map(|(begin, _)| *begin).chain([now]) {
            let mut rested = begin.saturating_sub(last_end);
            while rested >= settings.ejection_first && number > 0 {
                rested -= settings.ejection_first;
                number -= 1;
            }
            if number * settings.ejection_first < settings.ejection_max {
                number += 1;
            }
            last_end = begin + (number * settings.ejection_first).min(settings.ejection_max);
        }
        last_end - now
    }

    fn readmit_until(&mut self, moment: Duration) {
        if self.is_ejected() && self.ejections.last().unwrap().1 <= moment {
            self.changes.push(Event::Returned);
        }
    }
}

impl Model {
    fn present(&self) -> impl Iterator<Item = &Stay> {
        self.stays.iter().filter(|stay| !stay.has_left)
    }

    fn ejected(&self) -> usize {
        self.present().filter(|stay| stay.is_ejected()).count()
    }

    /// Counted with fingers.
    fn ejected_max(&self) -> usize {
        let replicas = self.present().count();
        let percent = self.settings.ejected_percent_max as usize;
        (0..replicas)
            .filter(|&ejected| ejected <= 1 || ejected * 100 <= percent * replicas)
            .max()
            .unwrap_or(0)
    }

    fn readmit_until(&mut self, moment: Duration) {
        for stay in self.stays.iter_mut().filter(|stay| !stay.has_left) {
            stay.readmit_until(moment);
        }
    }

    fn set_replicas(&mut self, addresses: &[u8]) {
        for stay in &mut self.stays {
            stay.has_left |= !addresses.contains(&stay.address);
        }
        for address in addresses {
            if !self.present().any(|stay| stay.address == *address) {
                self.stays.push(Stay::new(*address));
            }
        }
        while self.ejected() > self.ejected_max() {
            let ends = self.present().filter(|stay| stay.is_ejected());
            let soonest = ends.map(|stay| stay.ejections.last().unwrap().1).min().unwrap();
            self.readmit_until(soonest);
        }
    }

    /// Of whom it may choose, and the most calls that the chosen one may have in flight.
    fn candidates(&self, tried: &[u8]) -> (Vec<u8>, u32) {
        let untried = || self.present().filter(|stay| !tried.contains(&stay.address));
        let mut candidates: Vec<_> = untried().filter(|stay| !stay.is_ejected()).collect();
        if candidates.is_empty() {
            candidates = untried().collect();
        }
        // Whoever is chosen was compared with another one: that cannot be the one and only busiest.
        let mut loads: Vec<_> = candidates.iter().map(|stay| stay.in_flight).collect();
        loads.sort_unstable();
        let bound = if loads.len() > 1 { loads.len() - 2 } else { 0 };
        (candidates.iter().map(|stay| stay.address).collect(), loads.get(bound).copied().unwrap_or(0))
    }

    fn begin(&mut self, address: u8) -> Call {
        let to = self.stays.iter().position(|stay| !stay.has_left && stay.address == address).unwrap();
        self.stays[to].in_flight += 1;
        Call { to, generation: self.stays[to].generation() }
    }

    fn end(&mut self, call: &Call, outcome: Outcome, now: Duration) {
        let may_eject = self.ejected() < self.ejected_max();
        let (settings, stay) = (self.settings, &mut self.stays[call.to]);
        stay.in_flight -= 1;
        if stay.has_left || stay.is_ejected() || call.generation != stay.generation() {
            return;
        }
        stay.ended.push((call.generation, outcome));
        if outcome == Outcome::Failure && stay.failures() >= settings.failures_max && may_eject {
            let time = stay.next_ejection(&settings, now);
            stay.ejections.push((now, now + time));
            stay.changes.push(Event::Ejected(time));
        }
    }

    fn snapshot(&self, now: Duration) -> Vec<Snapshot<u8>> {
        let show = |stay: &Stay| Snapshot {
            replica: stay.address,
            in_flight: stay.in_flight,
            failures: stay.failures(),
            returns_in: stay.is_ejected().then(|| stay.ejections.last().unwrap().1 - now),
            ejections: stay.ejections.len() as u64,
        };
        self.present().map(show).collect()
    }
}

fn ops() -> impl Strategy<Value = Op> {
    let outcome = prop_oneof![
        2 => Just(Outcome::Success),
        6 => Just(Outcome::Failure),
        1 => Just(Outcome::Neutral),
    ];
    let pause = prop_oneof![
        4 => (0_u64..30).prop_map(Duration::from_millis),
        1 => (0_u64..400_000).prop_map(Duration::from_micros),
    ];
    prop_oneof![
        5 => pause.prop_map(Op::Wait),
        6 => Just(Op::Pick(Vec::new())),
        4 => vec(0_u8..7, 0..6).prop_map(Op::Pick),
        12 => (any::<usize>(), outcome).prop_map(|(which, outcome)| Op::End(which, outcome)),
        2 => vec(0_u8..6, 0..9).prop_map(Op::SetReplicas),
    ]
}

fn play(settings: Settings, seed: u64, ops: Vec<Op>) -> Result<(), TestCaseError> {
    let mut fleet = Fleet::new(settings);
    let mut model = Model { settings, stays: Vec::new() };
    let mut rng = SmallRng::seed_from_u64(seed);
    let (mut now, mut calls, mut told) = (Duration::ZERO, Vec::new(), Vec::new());
    for op in [Op::SetReplicas(vec![0, 1, 2, 3])].into_iter().chain(ops) {
        let moment = Moment::default() + now;
        match op {
            Op::Wait(pause) => {
                now += pause;
                model.readmit_until(now);
            }
            Op::Pick(tried) => {
                let picked = fleet.pick(&tried, &mut rng, || moment);
                let (candidates, load_max) = model.candidates(&tried);
                prop_assert_eq!(picked.is_some(), !candidates.is_empty());
                if let Some((replica, generation)) = picked {
                    prop_assert!(candidates.contains(&replica.address));
                    prop_assert!(replica.in_flight() <= load_max);
                    replica.begin();
                    calls.push((Arc::clone(replica), generation, model.begin(replica.address)));
                }
            }
            Op::End(which, outcome) if !calls.is_empty() => {
                let (replica, generation, call) = calls.swap_remove(which % calls.len());
                fleet.record(&replica, generation, outcome, || moment);
                replica.end();
                model.end(&call, outcome, now);
            }
            Op::End(..) => {}
            Op::SetReplicas(addresses) => {
                fleet.set_replicas(addresses.iter().copied().zip(0..).collect(), moment);
                model.set_replicas(&addresses);
            }
        }
        let moment = Moment::default() + now;
        let mut shown = fleet.snapshot(moment);
        let mut expected = model.snapshot(now);
        // Of an address that is named twice the last place counts.
        shown.sort_unstable_by_key(|snapshot| snapshot.replica);
        expected.sort_unstable_by_key(|snapshot| snapshot.replica);
        prop_assert_eq!(shown, expected);
        prop_assert!(model.ejected() <= model.ejected_max());
        told.extend(fleet.take_changes());
    }
    // Who is due is told of when the next call comes.
    fleet.pick(&[], &mut rng, || Moment::default() + now);
    told.extend(fleet.take_changes());
    for address in 0..6 {
        let told = told.iter().filter(|change| change.replica == address);
        let numbered = told.map(|change| (change.generation, change.event));
        let stays = model.stays.iter().filter(|stay| stay.address == address);
        let happened = stays.flat_map(|stay| (1..).zip(stay.changes.iter().copied()));
        prop_assert_eq!(numbered.collect::<Vec<_>>(), happened.collect::<Vec<_>>());
    }
    Ok(())
}

proptest! {
    #[test]
    fn it_answers_as_the_model_does(which in 0..SETTINGS.len(), seed in any::<u64>(), ops in vec(ops(), 1..300)) {
        play(SETTINGS[which], seed, ops)?;
    }
}
