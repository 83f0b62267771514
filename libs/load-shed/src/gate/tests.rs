//! The whole decision on a paused clock, without a service.

use std::collections::VecDeque;
use std::time::Duration;

use futures::FutureExt;
use proptest::collection::vec;
use proptest::prelude::{ProptestConfig, Strategy, prop_oneof, proptest};
use tokio::time::{Instant, advance};

use super::*;
use crate::{Acquire, CLASSES, Limits, LoadShed, Waiting};

const PAY: Priority = Priority::new(0);
const HOLD: Priority = Priority::new(1);
const BROWSE: Priority = Priority::new(3);

const WAITING: Waiting =
    Waiting { target: Duration::from_millis(4), interval: Duration::from_millis(100), queue_max: 4 };

fn fixed(limit: u32) -> LoadShed {
    let limits = Limits { min: limit, initial: limit, max: limit };
    LoadShed::new(Settings::try_new(limits, WAITING).unwrap(), Clock::tokio())
}

async fn permit(shed: &LoadShed, class: Priority) -> Permit {
    shed.acquire(class).await.unwrap()
}

fn now_or_never(acquire: &mut Acquire) -> Option<Answer> {
    acquire.now_or_never()
}

#[tokio::test(start_paused = true)]
async fn slots_go_to_the_most_urgent_and_there_to_the_first() {
    let shed = fixed(1);
    let held = permit(&shed, BROWSE).await;
    let order = [BROWSE, HOLD, HOLD, PAY];
    let mut waiting = order.map(|class| shed.acquire(class));
    assert_eq!(shed.snapshot().queued, [1, 2, 0, 1]);
    assert!(waiting.iter_mut().all(|acquire| now_or_never(acquire).is_none()));

    drop(held);
    for next in [3, 1, 2, 0] {
        let permit = now_or_never(&mut waiting[next]).expect("its turn").unwrap();
        assert!(waiting.iter_mut().all(|acquire| now_or_never(acquire).is_none()), "one at a time");
        drop(permit);
    }
    assert_eq!(shed.snapshot().in_flight, 0);
    assert_eq!(shed.snapshot().admitted, 5);
    assert!(!shed.handle.gate.slots.is_guarded(), "back on the fast path");
}

#[tokio::test(start_paused = true)]
async fn a_burst_waits_for_an_interval_and_a_standing_queue_for_the_target() {
    let shed = fixed(1);
    let _held = permit(&shed, HOLD).await;
    let started = Instant::now();
    let (first, second) = (shed.acquire(HOLD), shed.acquire(HOLD));
    assert_eq!(first.await.unwrap_err().reason, Reason::Late);
    assert_eq!(second.await.unwrap_err().reason, Reason::Late);
    assert_eq!(started.elapsed(), Duration::from_millis(100));

    let _alone = shed.acquire(HOLD);
    let started = Instant::now();
    let refused = shed.acquire(HOLD).await.unwrap_err();
    assert_eq!(started.elapsed(), Duration::from_millis(4));
    assert_eq!((refused.class, refused.reason), (HOLD, Reason::Late));
    assert!(refused.retry_after >= Duration::from_secs(1));
    assert_eq!(shed.snapshot().shed(HOLD, Reason::Late), 3);
}

#[tokio::test(start_paused = true)]
async fn a_full_queue_makes_room_for_the_more_urgent_only() {
    let shed = fixed(1);
    let _held = permit(&shed, PAY).await;
    let [mut hold, mut older, mut newer, mut pay] =
        [HOLD, BROWSE, BROWSE, PAY].map(|class| shed.acquire(class));
    assert_eq!(shed.acquire(BROWSE).await.unwrap_err().reason, Reason::Full);

    let _second_pay = shed.acquire(PAY);
    assert_eq!(now_or_never(&mut newer).unwrap().unwrap_err().reason, Reason::Full);
    assert!(now_or_never(&mut older).is_none(), "of the least urgent, the newest goes");

    let _third_pay = shed.acquire(PAY);
    assert_eq!(now_or_never(&mut older).unwrap().unwrap_err().reason, Reason::Full);
    assert!(now_or_never(&mut hold).is_none() && now_or_never(&mut pay).is_none());
    assert_eq!(shed.snapshot().queued, [3, 1, 0, 0]);
}

#[tokio::test(start_paused = true)]
async fn nobody_less_urgent_is_admitted_for_an_interval_after_a_shed() {
    let shed = fixed(1);
    let held = permit(&shed, HOLD).await;
    let mut browse = shed.acquire(BROWSE);
    let waiting: Vec<_> = (0..3).map(|_| shed.acquire(HOLD)).collect();
    let _pushed_out_browse = shed.acquire(HOLD);
    assert_eq!(now_or_never(&mut browse).unwrap().unwrap_err().reason, Reason::Full);
    assert_eq!(shed.acquire(HOLD).await.unwrap_err().reason, Reason::Full);

    // All slots are free and nobody waits.
    drop((held, waiting, _pushed_out_browse));
    assert_eq!(shed.acquire(BROWSE).await.unwrap_err().reason, Reason::Outranked);
    drop(permit(&shed, HOLD).await);
    advance(Duration::from_millis(99)).await;
    assert_eq!(shed.acquire(BROWSE).await.unwrap_err().reason, Reason::Outranked);
    advance(Duration::from_millis(1)).await;
    let _held = permit(&shed, BROWSE).await;
    assert!(!shed.handle.gate.slots.is_guarded(), "back on the fast path");
}

#[tokio::test(start_paused = true)]
async fn a_waiter_that_goes_leaves_no_trace() {
    let shed = fixed(1);
    let held = permit(&shed, HOLD).await;
    let (first, mut second) = (shed.acquire(HOLD), shed.acquire(HOLD));
    drop(first);
    assert_eq!(shed.snapshot().queued, [0, 1, 0, 0]);
    drop(held);
    drop(now_or_never(&mut second).expect("the first one is gone"));

    let held = permit(&shed, HOLD).await;
    let (first, mut second) = (shed.acquire(HOLD), shed.acquire(HOLD));
    drop(held);
    // It was given the slot and never looked.
    drop(first);
    drop(now_or_never(&mut second).expect("the slot went on"));
    let snapshot = shed.snapshot();
    assert_eq!((snapshot.in_flight, snapshot.queued, snapshot.shed_total()), (0, [0; CLASSES], 0));
}

#[tokio::test(start_paused = true)]
async fn an_operator_lets_more_in() {
    let shed = fixed(1);
    let _held = permit(&shed, HOLD).await;
    let mut waiting = [shed.acquire(HOLD), shed.acquire(HOLD)];
    let limits = Limits { min: 3, initial: 3, max: 3 };
    shed.set_settings(Settings::try_new(limits, Waiting { queue_max: 0, ..WAITING }).unwrap());
    let _admitted = waiting.each_mut().map(|acquire| now_or_never(acquire).expect("at once").unwrap());
    assert_eq!(shed.acquire(HOLD).await.unwrap_err().reason, Reason::Full);
}

/// So many windows, in each of which as many calls as may run take `latency` and end as `sample`. Answers how many
/// calls that were.
async fn serve(shed: &LoadShed, windows: u32, latency: Duration, sample: Sample) -> u64 {
    let mut calls = 0;
    for _ in 0..windows {
        let mut permits = Vec::new();
        for _ in 0..shed.snapshot().limit {
            permits.push(permit(shed, HOLD).await);
        }
        calls += permits.len() as u64;
        advance(Duration::from_millis(100) + latency).await;
        permits.into_iter().for_each(|permit| permit.record(sample));
    }
    calls
}

#[tokio::test(start_paused = true)]
async fn samples_move_the_limit_and_errors_do_not() {
    let limits = Limits { min: 5, initial: 50, max: 100 };
    let shed = LoadShed::new(Settings::try_new(limits, WAITING).unwrap(), Clock::tokio());
    let mut calls = serve(&shed, 8, Duration::from_millis(10), Sample::Success).await;
    let grown = shed.snapshot();
    assert!(grown.limit > 50, "{grown:?}");
    assert_eq!(grown.baseline, Some(Duration::from_millis(110)));

    calls += serve(&shed, 5, Duration::from_millis(10), Sample::Ignore).await;
    assert_eq!(shed.snapshot().limit, grown.limit);
    calls += serve(&shed, 3, Duration::from_millis(10), Sample::Overload).await;
    let shrunk = shed.snapshot();
    assert!(shrunk.limit <= grown.limit / 2, "{shrunk:?}");
    assert!(shrunk.overloads > 0 && shrunk.ignored > 0 && shrunk.in_flight == 0);
    assert_eq!(shrunk.admitted, calls);
}

#[derive(Clone, Debug)]
enum Step {
    Arrive(Priority),
    Finish,
    GiveUp(usize),
    Pass(u64),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        6 => (0_u8..CLASSES as u8).prop_map(|level| Step::Arrive(Priority::new(level))),
        3 => proptest::prelude::Just(Step::Finish),
        1 => (0_usize..4).prop_map(Step::GiveUp),
        3 => prop_oneof![0_u64..6, 90_u64..110].prop_map(Step::Pass),
    ];
    vec(step, 1..100)
}

/// What a crowd sees of the gate from outside.
struct Crowd {
    shed: LoadShed,
    waiting: Vec<(Priority, Instant, Acquire)>,
    permits: VecDeque<Permit>,
    last_shed: [Option<Instant>; CLASSES],
}

impl Crowd {
    fn settle(&mut self, answer: Answer, class: Priority) {
        let now = Instant::now();
        match answer {
            Ok(permit) => {
                let outranked = self.last_shed[..class.index()].iter().flatten();
                assert!(outranked.clone().all(|&at| now >= at + WAITING.interval), "{class:?} was admitted");
                self.permits.push_back(permit);
            }
            Err(shed) => {
                assert_eq!(shed.class, class);
                self.last_shed[class.index()] = Some(now);
            }
        }
    }

    fn look(&mut self) {
        // Those who were decided about together are told the most urgent first.
        self.waiting.sort_by_key(|(class, _, _)| *class);
        for (class, since, mut acquire) in std::mem::take(&mut self.waiting) {
            match now_or_never(&mut acquire) {
                Some(answer) => self.settle(answer, class),
                None => {
                    assert!(since.elapsed() <= WAITING.interval, "nobody waits longer");
                    self.waiting.push((class, since, acquire));
                }
            }
        }
        let snapshot = self.shed.snapshot();
        assert!(snapshot.in_flight <= 2);
        assert_eq!(snapshot.in_flight as usize, self.permits.len());
        assert_eq!(snapshot.queued.iter().sum::<usize>(), self.waiting.len());
        assert!(self.waiting.is_empty() || snapshot.in_flight == 2, "somebody waits beside a free slot");
    }

    async fn step(&mut self, step: Step) {
        match step {
            Step::Arrive(class) => {
                let acquire = self.shed.acquire(class);
                self.waiting.push((class, Instant::now(), acquire));
            }
            Step::Finish => drop(self.permits.pop_front()),
            Step::GiveUp(which) if which < self.waiting.len() => drop(self.waiting.remove(which)),
            Step::GiveUp(_) => {}
            // By the millisecond, so that timers fire where they should.
            Step::Pass(millis) => {
                for _ in 0..millis {
                    advance(Duration::from_millis(1)).await;
                    self.look();
                }
            }
        }
        self.look();
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn a_crowd_is_served_by_the_rules(steps in steps()) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        runtime.block_on(async {
            let mut crowd = Crowd { shed: fixed(2), waiting: Vec::new(), permits: VecDeque::new(), last_shed: [None; CLASSES] };
            for step in steps {
                crowd.step(step).await;
            }
            crowd.permits.clear();
            crowd.look();
            drop(std::mem::take(&mut crowd.waiting));
            crowd.permits.clear();
            let snapshot = crowd.shed.snapshot();
            assert_eq!((snapshot.in_flight, snapshot.queued), (0, [0; CLASSES]));
        });
    }
}
