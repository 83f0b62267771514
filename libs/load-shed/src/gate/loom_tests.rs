//! Every order in which two or three threads can meet at the gate. The channel that carries an answer to its waiter
//! is tokio's, which has models of its own; here it is one step.

use std::future::poll_fn;
use std::time::Duration;

use loom::future::block_on;
use loom::sync::atomic::AtomicUsize;
use loom::thread;

use super::*;
use crate::{Limits, Waiting};

/// So that a slot may lie in the lane of somebody else.
const LANES: usize = 2;

fn other(gate: &Arc<Handle>) -> Arc<Handle> {
    Arc::new(gate.apart())
}

/// Time plays no part: everybody may wait longer than the model runs.
fn gate(limit: u32) -> Arc<Handle> {
    let limits = Limits { min: limit, initial: limit, max: limit };
    let waiting = Waiting { interval: Duration::from_secs(10), ..Waiting::default() };
    let settings = Settings::try_new(limits, waiting).expect("the settings are right");
    Arc::new(Handle::new(settings, Clock::tokio(), LANES))
}

fn check(model: impl Fn() + Sync + Send + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(3);
    builder.check(model);
}

fn permit(gate: &Arc<Handle>, class: Priority) -> Permit {
    match Handle::admit(gate, class) {
        Admission::Granted(permit) => permit,
        Admission::Refused(shed) => panic!("{shed}"),
        Admission::Waits(place) => wait(place),
    }
}

fn wait(mut place: Place) -> Permit {
    block_on(poll_fn(|cx| place.poll_answer(cx))).expect("nobody is shed")
}

fn place(gate: &Arc<Handle>) -> Place {
    match Handle::admit(gate, Priority::MOST_URGENT) {
        Admission::Waits(place) => place,
        Admission::Granted(_) | Admission::Refused(_) => panic!("the only slot is taken"),
    }
}

fn is_empty(gate: &Arc<Handle>) {
    let snapshot = gate.gate.snapshot();
    assert_eq!((snapshot.in_flight, snapshot.queued), (0, [0; crate::CLASSES]));
}

#[test]
fn loom_one_slot_serves_everybody_one_at_a_time() {
    check(|| {
        let (gate, inside) = (gate(1), Arc::new(AtomicUsize::new(0)));
        let call = |gate: Arc<Handle>| {
            let inside = Arc::clone(&inside);
            move |class| {
                let held = permit(&gate, class);
                assert_eq!(inside.fetch_add(1, Ordering::SeqCst), 0, "somebody else is inside");
                inside.fetch_sub(1, Ordering::SeqCst);
                held.ignored();
            }
        };
        let theirs = call(other(&gate));
        let thread = thread::spawn(move || theirs(Priority::LEAST_URGENT));
        call(Arc::clone(&gate))(Priority::MOST_URGENT);
        thread.join().expect("served");
        is_empty(&gate);
    });
}

#[test]
fn loom_a_slot_for_a_waiter_that_goes_is_given_to_the_next() {
    check(|| {
        let gate = gate(1);
        let held = permit(&gate, Priority::MOST_URGENT);
        let (goes, stays) = (place(&gate), place(&other(&gate)));
        let leaving = thread::spawn(move || drop(goes));
        let giving = thread::spawn(move || drop(held));
        drop(wait(stays));
        leaving.join().expect("gone");
        giving.join().expect("given back");
        is_empty(&gate);
    });
}

#[test]
fn loom_nobody_overtakes_who_waits() {
    check(|| {
        let gate = gate(1);
        let held = permit(&gate, Priority::MOST_URGENT);
        let first = place(&gate);
        let giving = thread::spawn(move || drop(held));
        // The slot is free for a moment, and belongs to the first one already.
        let second = place(&other(&gate));
        giving.join().expect("given back");
        drop(wait(first));
        drop(wait(second));
        is_empty(&gate);
    });
}

#[test]
fn loom_a_waiter_whose_time_is_up_is_answered_once() {
    check(|| {
        let gate = gate(1);
        let held = permit(&gate, Priority::MOST_URGENT);
        let mut waiter = place(&gate);
        let giving = thread::spawn(move || drop(held));
        gate.gate.expire(waiter.ticket());
        let answer = block_on(poll_fn(|cx| waiter.poll_answer(cx)));
        let shed = answer.is_err();
        drop((answer, waiter));
        giving.join().expect("given back");
        is_empty(&gate);
        assert_eq!(gate.gate.snapshot().shed_total(), u64::from(shed));
    });
}

#[test]
fn loom_a_higher_limit_lets_the_waiter_in() {
    check(|| {
        let gate = gate(1);
        let held = permit(&gate, Priority::MOST_URGENT);
        let operator = {
            let gate = other(&gate);
            thread::spawn(move || {
                let limits = Limits { min: 2, initial: 2, max: 2 };
                Handle::set_settings(&gate, Settings::try_new(limits, Waiting::default()).expect("right"));
            })
        };
        drop(permit(&gate, Priority::MOST_URGENT));
        operator.join().expect("set");
        drop(held);
        is_empty(&gate);
        assert_eq!(gate.gate.snapshot().limit, 2);
    });
}

#[test]
fn loom_a_lower_limit_holds_for_those_who_come() {
    check(|| {
        let gate = gate(2);
        let held = [permit(&gate, Priority::MOST_URGENT), permit(&gate, Priority::MOST_URGENT)];
        let operator = {
            let gate = other(&gate);
            thread::spawn(move || {
                let limits = Limits { min: 1, initial: 1, max: 1 };
                Handle::set_settings(&gate, Settings::try_new(limits, Waiting::default()).expect("right"));
            })
        };
        held.into_iter().for_each(drop);
        operator.join().expect("set");
        is_empty(&gate);
        let held = permit(&gate, Priority::MOST_URGENT);
        let waits = place(&other(&gate));
        drop(held);
        drop(wait(waits));
        is_empty(&gate);
    });
}
