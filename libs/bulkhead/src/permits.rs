//! Counting places: atomic words while there is no queue, a lock while there is one.
//!
//! There is a word for every core, each with its share of the free places, because cores that write one word in turn
//! spend more time on handing it over than a place costs. Everybody has one of them as a home: there they look for a
//! place first, and there they give it back, wherever they found it.

use std::collections::VecDeque;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};
use std::task::Waker;

use crossbeam_utils::CachePadded;

use crate::sync::{AtomicU64, Mutex, MutexGuard};

/// Set in every word while somebody waits, or while places have to be taken away that are in use. Then the words are
/// changed with the lock held only, and whoever sees the bit goes there.
const CONTENDED: u64 = 1;
/// One free place.
const PLACE: u64 = 2;

/// Free places and who waits for one, first come, first served.
#[derive(Debug)]
pub(crate) struct Permits {
    words: Box<[Home]>,
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

/// Where somebody looks for a place first: one of the words.
#[derive(Clone, Debug)]
pub(crate) struct Home(Arc<CachePadded<AtomicU64>>);

impl Home {
    /// Takes a place, unless there is none here or they are left to whoever holds the lock.
    #[inline]
    fn take(&self) -> bool {
        let mut word = self.0.load(Ordering::Relaxed);
        while word >= PLACE && word & CONTENDED == 0 {
            match self.0.compare_exchange_weak(word, word - PLACE, Ordering::Acquire, Ordering::Relaxed) {
                Ok(_) => return true,
                Err(current) => word = current,
            }
        }
        false
    }

    /// Gives a place back, unless that is left to whoever holds the lock.
    #[inline]
    fn give_back(&self) -> bool {
        let mut word = self.0.load(Ordering::Relaxed);
        while word & CONTENDED == 0 {
            match self.0.compare_exchange_weak(word, word + PLACE, Ordering::Release, Ordering::Relaxed) {
                Ok(_) => return true,
                Err(current) => word = current,
            }
        }
        false
    }
}

/// How `places` are distributed over the words.
fn shares(places: u32, words: usize) -> impl Iterator<Item = u64> {
    let (places, words) = (u64::from(places), words as u64);
    (0..words).map(move |nth| (places / words + u64::from(nth < places % words)) * PLACE)
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
    /// `words` of them, at least one, between which the places are dealt out.
    pub(crate) fn new(places: u32, words: usize) -> Self {
        let word = |share| Home(Arc::new(CachePadded::new(AtomicU64::new(share))));
        let words = shares(places, words.max(1)).map(word).collect();
        Self { words, line: Mutex::new(Line::default()) }
    }

    /// A home for whoever comes as the `nth`.
    pub(crate) fn home(&self, nth: usize) -> Home {
        self.words[nth % self.words.len()].clone()
    }

    /// Takes a place if one is free and nobody waits. While others come and go it may overlook one; whoever joins the
    /// line does not.
    #[inline]
    pub(crate) fn try_take(&self, home: &Home) -> bool {
        home.take() || self.try_take_elsewhere()
    }

    #[cold]
    fn try_take_elsewhere(&self) -> bool {
        self.words.iter().any(Home::take)
    }

    /// Gives a place back: to whoever has waited the longest.
    #[inline]
    pub(crate) fn give_back(&self, home: &Home) {
        if !home.give_back() {
            self.give_to_others(home);
        }
    }

    #[cold]
    fn give_to_others(&self, home: &Home) {
        let next = self.give_to_the_line(home, &mut self.line());
        if let Some(next) = next {
            next.wake();
        }
    }

    /// Joins the line, unless so many wait already. `Ok(None)`: a place became free meanwhile, and is taken.
    pub(crate) fn join(&self, waiting_max: usize, waker: &Waker) -> Result<Option<Ticket>, ()> {
        let mut line = self.line();
        let free = self.contend();
        if let (Some(word), true) = (free, line.waiting.is_empty()) {
            word.fetch_sub(PLACE, Ordering::Acquire);
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
    pub(crate) fn leave(&self, home: &Home, ticket: Ticket) {
        let mut line = self.line();
        if let Some(index) = line.granted.iter().position(|granted| *granted == ticket) {
            line.granted.swap_remove(index);
            self.contend();
            let next = self.give_to_the_line(home, &mut line);
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
        self.contend();
        let vanished = places.min(line.surplus);
        line.surplus -= vanished;
        let mut left = places - vanished;
        while left > 0 && !line.waiting.is_empty() {
            woken.extend(self.give_to_the_line(&self.home(0), &mut line));
            left -= 1;
        }
        for (home, share) in self.words.iter().zip(shares(left, self.words.len())) {
            home.0.fetch_add(share, Ordering::Release);
        }
        self.settle(&line);
        drop(line);
        woken.into_iter().for_each(Waker::wake);
    }

    /// Takes places away: the free ones at once, the others when they come back.
    pub(crate) fn remove(&self, places: u32) {
        let mut line = self.line();
        self.contend();
        let mut left = places;
        for Home(word) in &self.words {
            let free = u32::try_from(word.load(Ordering::Relaxed) / PLACE).unwrap_or(u32::MAX).min(left);
            word.fetch_sub(u64::from(free) * PLACE, Ordering::Relaxed);
            left -= free;
        }
        line.surplus += left;
        self.settle(&line);
    }

    pub(crate) fn free(&self) -> u32 {
        let free: u64 = self.words.iter().map(|home| home.0.load(Ordering::Relaxed) / PLACE).sum();
        u32::try_from(free).unwrap_or(u32::MAX)
    }

    pub(crate) fn waiting(&self) -> usize {
        self.line().waiting.len()
    }

    /// How many places more are in use than there should be.
    pub(crate) fn surplus(&self) -> u32 {
        self.line().surplus
    }

    /// With the lock held: from here on nobody changes a word without it. A word that has a free place.
    fn contend(&self) -> Option<&AtomicU64> {
        let mut free = None;
        // Every word is marked, wherever a place is.
        for Home(word) in &self.words {
            if word.fetch_or(CONTENDED, Ordering::Acquire) >= PLACE {
                free = Some(&***word);
            }
        }
        free
    }

    /// With the lock held and the words contended: a place finds its next holder, who has to be woken.
    fn give_to_the_line(&self, home: &Home, line: &mut Line) -> Option<Waker> {
        let next = if line.surplus > 0 {
            line.surplus -= 1;
            None
        } else if let Some((ticket, waker)) = line.waiting.pop_front() {
            line.granted.push(ticket);
            Some(waker)
        } else {
            home.0.fetch_add(PLACE, Ordering::Release);
            None
        };
        self.settle(line);
        next
    }

    /// Opens the short way again when there is nothing left to do with the lock.
    fn settle(&self, line: &Line) {
        if line.waiting.is_empty() && line.surplus == 0 {
            for home in &self.words {
                home.0.fetch_and(!CONTENDED, Ordering::Release);
            }
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
    use loom::thread;

    use super::*;

    fn take_or_wait(permits: &Permits, home: &Home) {
        let mut ticket = None;
        block_on(poll_fn(|cx| {
            let Some(waiting) = ticket else {
                if permits.try_take(home) {
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
            let permits = Arc::new(Permits::new(1, 2));
            let (mine, theirs) = (permits.home(0), permits.home(1));
            let (twin, elsewhere) = (Arc::clone(&permits), theirs.clone());
            let thread = thread::spawn(move || {
                take_or_wait(&twin, &elsewhere);
                twin.give_back(&elsewhere);
            });
            take_or_wait(&permits, &mine);
            permits.give_back(&mine);
            thread.join().unwrap();
            assert_eq!((permits.free(), permits.waiting()), (1, 0));
            assert!(permits.try_take(&mine), "the short way is open again");
            assert!(!permits.try_take(&mine) && !permits.try_take(&theirs));
        });
    }

    /// A place that is granted in the moment its receiver leaves is not lost.
    #[test]
    fn loom_a_place_for_somebody_who_leaves_is_not_lost() {
        loom::model(|| {
            let permits = Arc::new(Permits::new(1, 2));
            let (mine, theirs) = (permits.home(0), permits.home(1));
            assert!(permits.try_take(&mine));
            let ticket = permits.join(9, &Waker::noop().clone()).unwrap().unwrap();
            let twin = Arc::clone(&permits);
            let thread = thread::spawn(move || twin.leave(&theirs, ticket));
            permits.give_back(&mine);
            thread.join().unwrap();
            assert!(permits.try_take(&mine));
            assert!(!permits.try_take(&mine));
        });
    }

    /// Places are taken away while others come back.
    #[test]
    fn loom_places_that_are_taken_away_stay_away() {
        loom::model(|| {
            let permits = Arc::new(Permits::new(2, 2));
            let home = permits.home(1);
            assert!(permits.try_take(&home));
            let twin = Arc::clone(&permits);
            let thread = thread::spawn(move || twin.remove(2));
            permits.give_back(&home);
            thread.join().unwrap();
            assert_eq!((permits.free(), permits.surplus()), (0, 0));
        });
    }
}
