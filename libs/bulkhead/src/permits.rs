//! Counting places: one atomic word while there is no queue, a lock while there is one.

use std::collections::VecDeque;
use std::sync::PoisonError;
use std::sync::atomic::Ordering;
use std::task::Waker;

use crate::sync::{AtomicU64, Mutex, MutexGuard};

/// Set while somebody waits, or while places have to be taken away that are in use. Then the word is changed with the
/// lock held only, and whoever sees the bit goes there.
const CONTENDED: u64 = 1;
/// One free place.
const PLACE: u64 = 2;

/// Free places and who waits for one, first come, first served.
#[derive(Debug)]
pub(crate) struct Permits {
    word: AtomicU64,
    line: Mutex<Line>,
}

#[derive(Debug, Default)]
struct Line {
    waiting: VecDeque<(Ticket, Waker)>,
    /// They have been given a place and have not come for it yet.
    granted: Vec<Ticket>,
    /// So many places vanish when they come back.
    surplus: u32,
    next: Ticket,
}

/// A number in the line.
pub(crate) type Ticket = u64;

/// What became of somebody in the line.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Turn {
    Granted,
    Waiting,
}

impl Permits {
    pub(crate) fn new(places: u32) -> Self {
        Self { word: AtomicU64::new(u64::from(places) * PLACE), line: Mutex::new(Line::default()) }
    }

    /// Takes a place if one is free and nobody waits.
    pub(crate) fn try_take(&self) -> bool {
        let mut word = self.word.load(Ordering::Relaxed);
        while word >= PLACE && word & CONTENDED == 0 {
            match self.word.compare_exchange_weak(word, word - PLACE, Ordering::Acquire, Ordering::Relaxed) {
                Ok(_) => return true,
                Err(current) => word = current,
            }
        }
        false
    }

    /// Gives a place back: to whoever has waited the longest.
    pub(crate) fn give_back(&self) {
        let mut word = self.word.load(Ordering::Relaxed);
        while word & CONTENDED == 0 {
            match self.word.compare_exchange_weak(word, word + PLACE, Ordering::Release, Ordering::Relaxed) {
                Ok(_) => return,
                Err(current) => word = current,
            }
        }
        let next = self.give_to_the_line(&mut self.line());
        if let Some(next) = next {
            next.wake();
        }
    }

    /// Joins the line, unless so many wait already. `Ok(None)`: a place became free meanwhile, and is taken.
    pub(crate) fn join(&self, waiting_max: usize, waker: &Waker) -> Result<Option<Ticket>, ()> {
        let mut line = self.line();
        // From here on nobody changes the word without the lock.
        let before = self.word.fetch_or(CONTENDED, Ordering::Acquire);
        if before >= PLACE && line.waiting.is_empty() {
            self.word.fetch_sub(PLACE, Ordering::Acquire);
            self.settle(&line);
            return Ok(None);
        }
        if line.waiting.len() >= waiting_max {
            self.settle(&line);
            return Err(());
        }
        line.next += 1;
        let ticket = line.next;
        line.waiting.push_back((ticket, waker.clone()));
        Ok(Some(ticket))
    }

    /// Whether it is their turn. Granted, the place is theirs and the ticket void.
    pub(crate) fn turn(&self, ticket: Ticket, waker: &Waker) -> Turn {
        let mut line = self.line();
        if let Some(index) = line.granted.iter().position(|granted| *granted == ticket) {
            line.granted.swap_remove(index);
            return Turn::Granted;
        }
        if let Some((_, known)) = line.waiting.iter_mut().find(|(waiting, _)| *waiting == ticket) {
            known.clone_from(waker);
        }
        Turn::Waiting
    }

    /// Leaves the line; a place that was granted and not taken goes to the next.
    pub(crate) fn leave(&self, ticket: Ticket) {
        let mut line = self.line();
        if let Some(index) = line.granted.iter().position(|granted| *granted == ticket) {
            line.granted.swap_remove(index);
            self.word.fetch_or(CONTENDED, Ordering::Acquire);
            let next = self.give_to_the_line(&mut line);
            drop(line);
            if let Some(next) = next {
                next.wake();
            }
            return;
        }
        line.waiting.retain(|(waiting, _)| *waiting != ticket);
        self.settle(&line);
    }

    /// Adds places; those who wait get them first.
    pub(crate) fn add(&self, places: u32) {
        let mut woken = Vec::new();
        let mut line = self.line();
        self.word.fetch_or(CONTENDED, Ordering::Acquire);
        for _ in 0..places {
            woken.extend(self.give_to_the_line(&mut line));
        }
        drop(line);
        woken.into_iter().for_each(Waker::wake);
    }

    /// Takes places away: the free ones at once, the others when they come back.
    pub(crate) fn remove(&self, places: u32) {
        let mut line = self.line();
        let word = self.word.fetch_or(CONTENDED, Ordering::Acquire);
        let free = u32::try_from(word / PLACE).unwrap_or(u32::MAX).min(places);
        self.word.fetch_sub(u64::from(free) * PLACE, Ordering::Relaxed);
        line.surplus += places - free;
        self.settle(&line);
    }

    pub(crate) fn free(&self) -> u32 {
        u32::try_from(self.word.load(Ordering::Relaxed) / PLACE).unwrap_or(u32::MAX)
    }

    pub(crate) fn waiting(&self) -> usize {
        self.line().waiting.len()
    }

    /// How many places more are in use than there should be.
    pub(crate) fn surplus(&self) -> u32 {
        self.line().surplus
    }

    /// With the lock held and the word contended: a place finds its next holder, who has to be woken.
    fn give_to_the_line(&self, line: &mut Line) -> Option<Waker> {
        let next = if line.surplus > 0 {
            line.surplus -= 1;
            None
        } else if let Some((ticket, waker)) = line.waiting.pop_front() {
            line.granted.push(ticket);
            Some(waker)
        } else {
            self.word.fetch_add(PLACE, Ordering::Release);
            None
        };
        self.settle(line);
        next
    }

    /// Opens the short way again when there is nothing left to do with the lock.
    fn settle(&self, line: &Line) {
        if line.waiting.is_empty() && line.surplus == 0 {
            self.word.fetch_and(!CONTENDED, Ordering::Release);
        }
    }

    fn line(&self) -> MutexGuard<'_, Line> {
        // Every statement leaves the line whole.
        self.line.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
#[cfg(stampede_loom)]
mod loom_tests {
    use std::future::poll_fn;
    use std::task::Poll;

    use loom::future::block_on;
    use loom::sync::Arc;
    use loom::thread;

    use super::*;

    fn take(permits: &Permits) {
        let mut ticket = None;
        block_on(poll_fn(|cx| {
            let Some(waiting) = ticket else {
                if permits.try_take() {
                    return Poll::Ready(());
                }
                ticket = permits.join(9, cx.waker()).unwrap();
                return if ticket.is_some() { Poll::Pending } else { Poll::Ready(()) };
            };
            match permits.turn(waiting, cx.waker()) {
                Turn::Granted => Poll::Ready(()),
                Turn::Waiting => Poll::Pending,
            }
        }));
    }

    /// Whoever waits is woken in every order of two threads, and no place is lost or made.
    #[test]
    fn loom_nobody_sleeps_beside_a_free_place() {
        loom::model(|| {
            let permits = Arc::new(Permits::new(1));
            let twin = Arc::clone(&permits);
            let thread = thread::spawn(move || {
                take(&twin);
                twin.give_back();
                if twin.try_take() {
                    twin.give_back();
                }
            });
            take(&permits);
            permits.give_back();
            thread.join().unwrap();
            assert_eq!((permits.free(), permits.waiting()), (1, 0));
            assert!(permits.try_take(), "the short way is open again");
        });
    }

    /// A place that is granted in the moment its receiver leaves is not lost.
    #[test]
    fn loom_a_place_for_somebody_who_leaves_is_not_lost() {
        loom::model(|| {
            let permits = Arc::new(Permits::new(1));
            assert!(permits.try_take());
            let ticket = permits.join(9, &Waker::noop().clone()).unwrap().unwrap();
            let twin = Arc::clone(&permits);
            let thread = thread::spawn(move || twin.leave(ticket));
            permits.give_back();
            thread.join().unwrap();
            assert!(permits.try_take());
            assert!(!permits.try_take());
        });
    }

    /// Places are taken away while others come back.
    #[test]
    fn loom_places_that_are_taken_away_stay_away() {
        loom::model(|| {
            let permits = Arc::new(Permits::new(2));
            assert!(permits.try_take());
            let twin = Arc::clone(&permits);
            let thread = thread::spawn(move || twin.remove(2));
            permits.give_back();
            thread.join().unwrap();
            assert_eq!((permits.free(), permits.surplus()), (0, 0));
        });
    }
}
