//! Who gets a place, and when.

use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicU32, Ordering};
use std::task::{Context, Poll, Waker};

use futures::FutureExt;
use proptest::prelude::{Strategy, any, prop, prop_assert_eq, prop_oneof, proptest};
use stampede_bulkhead::{Acquire, Bulkhead, InvalidBulkhead, Permit, Refused};
use tokio::time::Instant;

use crate::{MS, bulkhead, settings};

#[test]
fn there_is_at_least_one_place() {
    assert_eq!(Bulkhead::try_new(settings(0, 1)).err(), Some(InvalidBulkhead));
}

#[tokio::test(start_paused = true)]
async fn first_come_first_served() {
    let bulkhead = bulkhead(1, 8);
    let first = bulkhead.acquire().await.unwrap();
    let (mut second, mut third) = (Box::pin(bulkhead.acquire()), Box::pin(bulkhead.acquire()));
    assert!(second.as_mut().now_or_never().is_none());
    assert!(third.as_mut().now_or_never().is_none());
    drop(first);
    assert!(bulkhead.try_acquire().is_none(), "nobody overtakes");
    assert!(third.as_mut().now_or_never().is_none());
    let second = second.await.unwrap();
    drop(second);
    third.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn the_queue_is_bounded_in_length_and_in_time() {
    let bulkhead = bulkhead(1, 1);
    let _held = bulkhead.try_acquire().unwrap();
    let mut waits = Box::pin(bulkhead.acquire());
    assert!(waits.as_mut().now_or_never().is_none());
    assert_eq!(bulkhead.acquire().await.err(), Some(Refused::Full));

    let started = Instant::now();
    assert_eq!(waits.await.err(), Some(Refused::TimedOut));
    assert_eq!(started.elapsed(), 100 * MS);
    let snapshot = bulkhead.snapshot();
    assert_eq!((snapshot.waiting, snapshot.refused_full, snapshot.refused_timed_out), (0, 1, 1));
}

#[tokio::test(start_paused = true)]
async fn a_place_that_was_granted_to_somebody_who_left_goes_to_the_next() {
    let bulkhead = bulkhead(1, 8);
    let held = bulkhead.try_acquire().unwrap();
    let (mut leaves, mut stays) = (Box::pin(bulkhead.acquire()), Box::pin(bulkhead.acquire()));
    assert!(leaves.as_mut().now_or_never().is_none());
    assert!(stays.as_mut().now_or_never().is_none());
    drop(held);
    drop(leaves);
    assert!(stays.now_or_never().unwrap().is_ok());
}

#[tokio::test(start_paused = true)]
async fn whoever_waits_is_woken() {
    let bulkhead = bulkhead(2, 64);
    let tasks: Vec<_> = (0..50)
        .map(|_| {
            let bulkhead = bulkhead.clone();
            tokio::spawn(async move {
                let _permit = bulkhead.acquire().await?;
                tokio::time::sleep(MS).await;
                Ok::<_, Refused>(())
            })
        })
        .collect();
    for task in tasks {
        assert_eq!(task.await.unwrap(), Ok(()));
    }
    assert_eq!(bulkhead.snapshot().taken, 0);
}

#[tokio::test(start_paused = true)]
async fn the_number_of_places_changes_while_calls_run() {
    let bulkhead = bulkhead(3, 8);
    let mut held: Vec<_> = (0..3).filter_map(|_| bulkhead.try_acquire()).collect();
    let mut waits = Box::pin(bulkhead.acquire());
    assert!(waits.as_mut().now_or_never().is_none());

    bulkhead.set_settings(settings(4, 8)).unwrap();
    held.push(waits.now_or_never().unwrap().unwrap());
    bulkhead.set_settings(settings(1, 8)).unwrap();
    assert_eq!((bulkhead.snapshot().places, bulkhead.snapshot().taken), (1, 4));
    held.truncate(1);
    assert!(bulkhead.try_acquire().is_none(), "the three that came back are gone");
    held.clear();
    let only = bulkhead.try_acquire().unwrap();
    assert!(bulkhead.try_acquire().is_none());
    assert_eq!(bulkhead.set_settings(settings(0, 8)), Err(InvalidBulkhead));
    drop(only);
    assert!(bulkhead.try_acquire().is_some(), "nothing changed");
}

#[tokio::test(start_paused = true)]
async fn as_many_places_as_there_are_numbers_cost_no_more_than_one() {
    let bulkhead = bulkhead(1, 8);
    let held = bulkhead.try_acquire().unwrap();
    let mut waits = Box::pin(bulkhead.acquire());
    assert!(waits.as_mut().now_or_never().is_none());
    bulkhead.set_settings(settings(u32::MAX, 8)).unwrap();
    let second = waits.now_or_never().unwrap().unwrap();
    assert_eq!((bulkhead.snapshot().places, bulkhead.snapshot().taken), (u32::MAX, 2));
    bulkhead.set_settings(settings(1, 8)).unwrap();
    drop((held, second));
    assert_eq!((bulkhead.snapshot().places, bulkhead.snapshot().taken), (1, 0));
    let _only = bulkhead.try_acquire().unwrap();
    assert!(bulkhead.try_acquire().is_none());
}

/// Threads that take and give places, wait, and go away: never more inside than there are places, none lost.
#[test]
fn threads_lose_no_place() {
    let bulkhead = bulkhead(3, 64);
    let (inside, most) = (AtomicU32::new(0), AtomicU32::new(0));
    let work = |thread: usize| {
        for round in 0..3_000 {
            let permit = if (round + thread).is_multiple_of(3) {
                // Joins the line and leaves it again, granted or not.
                let mut waits = Box::pin(no_timer(&bulkhead));
                waits.as_mut().now_or_never()
            } else {
                bulkhead.try_acquire()
            };
            if permit.is_some() {
                let now = inside.fetch_add(1, Ordering::SeqCst) + 1;
                most.fetch_max(now, Ordering::SeqCst);
                inside.fetch_sub(1, Ordering::SeqCst);
            }
        }
    };
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_time().build().unwrap();
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let (work, handle) = (&work, runtime.handle().clone());
            scope.spawn(move || {
                let _guard = handle.enter();
                work(thread);
            });
        }
    });
    assert!(most.load(Ordering::SeqCst) <= 3);
    assert_eq!((bulkhead.snapshot().taken, bulkhead.snapshot().waiting), (0, 0));
    let all: Vec<_> = (0..3).filter_map(|_| bulkhead.try_acquire()).collect();
    assert_eq!(all.len(), 3);
}

async fn no_timer(bulkhead: &Bulkhead) -> Permit {
    match bulkhead.acquire().await {
        Ok(permit) => permit,
        Err(_) => std::future::pending().await,
    }
}

#[derive(Clone, Debug)]
enum Operation {
    /// Somebody comes.
    Come,
    /// The `n`th who is inside goes.
    Finish(usize),
    /// The `n`th who waits goes away.
    GiveUp(usize),
    /// The number of places changes.
    Resize(u32),
}

fn operation() -> impl Strategy<Value = Operation> {
    prop_oneof![
        4 => prop::strategy::Just(Operation::Come),
        3 => any::<usize>().prop_map(Operation::Finish),
        1 => any::<usize>().prop_map(Operation::GiveUp),
        1 => (1_u32..6).prop_map(Operation::Resize),
    ]
}

/// A waiting room, counted with fingers.
#[derive(Default)]
struct Model {
    places: usize,
    inside: Vec<u32>,
    waiting: VecDeque<u32>,
}

impl Model {
    fn fill(&mut self) {
        while self.inside.len() < self.places
            && let Some(next) = self.waiting.pop_front()
        {
            self.inside.push(next);
        }
    }
}

enum Guest {
    Inside(#[expect(dead_code, reason = "kept until it is dropped")] Permit),
    Waiting(Pin<Box<Acquire>>),
}

proptest! {
    #[test]
    fn it_agrees_with_a_waiting_room(operations in prop::collection::vec(operation(), 1..80)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        let _guard = runtime.enter();
        let bulkhead = bulkhead(2, 3);
        let mut model = Model { places: 2, ..Model::default() };
        let mut guests: Vec<(u32, Guest)> = Vec::new();
        let mut cx = Context::from_waker(Waker::noop());
        for (name, operation) in (0..).zip(operations) {
            match operation {
                Operation::Come => {
                    let mut acquire = Box::pin(bulkhead.acquire());
                    let refused = match acquire.as_mut().poll(&mut cx) {
                        Poll::Ready(Ok(permit)) => { guests.push((name, Guest::Inside(permit))); false }
                        Poll::Ready(Err(_)) => true,
                        Poll::Pending => { guests.push((name, Guest::Waiting(acquire))); false }
                    };
                    let full = model.inside.len() >= model.places && model.waiting.len() >= 3;
                    prop_assert_eq!(refused, full);
                    if !full { model.waiting.push_back(name); }
                }
                Operation::Finish(index) => {
                    if let Some(index) = index.checked_rem(model.inside.len()) {
                        let name = model.inside.remove(index);
                        guests.retain(|(guest, _)| *guest != name);
                    }
                }
                Operation::GiveUp(index) => {
                    if let Some(index) = index.checked_rem(model.waiting.len()) {
                        let name = model.waiting.remove(index).unwrap();
                        guests.retain(|(guest, _)| *guest != name);
                    }
                }
                Operation::Resize(places) => {
                    bulkhead.set_settings(settings(places, 3)).unwrap();
                    model.places = usize::try_from(places).unwrap();
                }
            }
            model.fill();
            for (_, guest) in &mut guests {
                if let Guest::Waiting(acquire) = guest && let Poll::Ready(got) = acquire.as_mut().poll(&mut cx) {
                    *guest = Guest::Inside(got.unwrap());
                }
            }
            let inside: Vec<u32> = guests.iter().filter(|(_, guest)| matches!(guest, Guest::Inside(_))).map(|(name, _)| *name).collect();
            let mut expected = model.inside.clone();
            expected.sort_unstable();
            prop_assert_eq!(inside, expected);
            let snapshot = bulkhead.snapshot();
            prop_assert_eq!(usize::try_from(snapshot.taken).unwrap(), model.inside.len());
            prop_assert_eq!(snapshot.waiting, model.waiting.len());
        }
    }
}
