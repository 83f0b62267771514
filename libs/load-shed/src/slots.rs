//! Slots, free and taken: atomic words while there is no queue, the lock of the queue while there is one.
//!
//! There is a word for every lane, each with its share of the free slots, because threads that write one word in turn
//! spend more time on handing it over than a slot costs. Every handle has a lane: there it looks for a slot first, and
//! there it gives it back, wherever it found it.

use crossbeam_utils::CachePadded;

use crate::sync::atomic::{AtomicU32, AtomicU64, Ordering};

/// Set in every word while the queue decides: somebody waits, a class is kept out, or more slots are in use than there
/// should be.
const GUARDED: u64 = 1;
/// One free slot.
const SLOT: u64 = 2;

/// Whatever is called "under the lock" here means the lock of the queue. While the words are guarded, they are changed
/// under it only, so a slot that was seen there stays.
#[derive(Debug)]
pub(crate) struct Slots {
    words: Box<[CachePadded<AtomicU64>]>,
    limit: AtomicU32,
    /// So many slots vanish when they come back.
    surplus: AtomicU32,
}

impl Slots {
    /// As many as `limit`, dealt out to so many lanes, at least one.
    pub(crate) fn new(limit: u32, lanes: usize) -> Self {
        Self {
            words: shares(limit, lanes.max(1)).map(|share| CachePadded::new(AtomicU64::new(share))).collect(),
            limit: AtomicU32::new(limit),
            surplus: AtomicU32::new(0),
        }
    }

    pub(crate) fn lanes(&self) -> usize {
        self.words.len()
    }

    pub(crate) fn limit(&self) -> u32 {
        self.limit.load(Ordering::Relaxed)
    }

    /// How many are taken. It reads what all others write, so it is nothing for every call.
    pub(crate) fn in_flight(&self) -> u32 {
        let free: u64 = self.words.iter().map(|word| word.load(Ordering::Relaxed) / SLOT).sum();
        let all = self.limit().saturating_add(self.surplus.load(Ordering::Relaxed));
        all.saturating_sub(u32::try_from(free).unwrap_or(u32::MAX))
    }

    /// Takes a slot past the queue. While others come and go it may overlook one; under the lock none is overlooked.
    #[inline]
    pub(crate) fn try_take(&self, lane: usize) -> bool {
        take(&self.words[lane]) || self.try_take_elsewhere()
    }

    #[cold]
    fn try_take_elsewhere(&self) -> bool {
        self.words.iter().any(|word| take(word))
    }

    /// Gives a slot back, unless that is left to whoever holds the lock.
    #[inline]
    pub(crate) fn try_give_back(&self, lane: usize) -> bool {
        let word = &self.words[lane];
        let mut seen = word.load(Ordering::Relaxed);
        while seen & GUARDED == 0 {
            // What was done in the slot goes along with it.
            match word.compare_exchange_weak(seen, seen + SLOT, Ordering::Release, Ordering::Relaxed) {
                Ok(_) => return true,
                Err(now) => seen = now,
            }
        }
        false
    }

    /// Guards the words; whoever gives a slot back after that comes to the lock. Whether a slot is free. Under the lock.
    pub(crate) fn guard(&self) -> bool {
        self.guarded().is_some()
    }

    /// Guards the words, and takes a slot if one is free. Under the lock.
    pub(crate) fn guard_and_take(&self) -> bool {
        self.guarded().map(|word| word.fetch_sub(SLOT, Ordering::Acquire)).is_some()
    }

    /// Guards the words, and gives a slot back. Under the lock.
    pub(crate) fn guard_and_give_back(&self, lane: usize) {
        self.guard();
        match self.surplus.load(Ordering::Relaxed).checked_sub(1) {
            Some(surplus) => self.surplus.store(surplus, Ordering::Relaxed),
            None => {
                self.words[lane].fetch_add(SLOT, Ordering::Release);
            }
        }
    }

    /// Opens the way past the queue, unless slots have to vanish yet. Under the lock.
    pub(crate) fn unguard(&self) {
        if self.surplus.load(Ordering::Relaxed) == 0 {
            for word in &self.words {
                word.fetch_and(!GUARDED, Ordering::Release);
            }
        }
    }

    /// More slots are there at once; of fewer, the free ones vanish at once and the others when they come back. The
    /// words may be guarded after it. Under the lock.
    pub(crate) fn set_limit(&self, limit: u32) {
        let before = self.limit();
        let surplus = self.surplus.load(Ordering::Relaxed);
        if limit > before {
            let stay = surplus.min(limit - before);
            self.surplus.store(surplus - stay, Ordering::Relaxed);
            for (word, share) in self.words.iter().zip(shares(limit - before - stay, self.lanes())) {
                word.fetch_add(share, Ordering::Release);
            }
            // Not before its slots are there, or they would be taken for calls in flight.
            self.limit.store(limit, Ordering::Relaxed);
        } else if limit < before {
            self.limit.store(limit, Ordering::Relaxed);
            self.guard();
            let mut too_many = u64::from(before - limit) * SLOT;
            for word in &self.words {
                let free = word.load(Ordering::Relaxed) & !GUARDED;
                word.fetch_sub(free.min(too_many), Ordering::Acquire);
                too_many -= free.min(too_many);
            }
            self.surplus.store(surplus + (too_many / SLOT) as u32, Ordering::Relaxed);
        }
    }

    /// Guards the words. One with a free slot.
    fn guarded(&self) -> Option<&AtomicU64> {
        let mut free = None;
        // Every word is guarded, wherever a slot is.
        for word in &self.words {
            let seen = word.load(Ordering::Relaxed);
            // Those that are already are not written: a queue stands for a while.
            let seen = if seen & GUARDED == 0 { word.fetch_or(GUARDED, Ordering::Acquire) } else { seen };
            if seen >= SLOT {
                free = Some(&**word);
            }
        }
        free
    }

    #[cfg(test)]
    #[cfg(not(stampede_loom))]
    pub(crate) fn is_guarded(&self) -> bool {
        self.words.iter().any(|word| word.load(Ordering::Relaxed) & GUARDED != 0)
    }
}

/// So many slots, dealt out.
fn shares(slots: u32, lanes: usize) -> impl Iterator<Item = u64> {
    let (slots, lanes) = (u64::from(slots), lanes as u64);
    (0..lanes).map(move |nth| (slots / lanes + u64::from(nth < slots % lanes)) * SLOT)
}

#[inline]
fn take(word: &AtomicU64) -> bool {
    let mut seen = word.load(Ordering::Relaxed);
    while seen >= SLOT && seen & GUARDED == 0 {
        match word.compare_exchange_weak(seen, seen - SLOT, Ordering::Acquire, Ordering::Relaxed) {
            Ok(_) => return true,
            Err(now) => seen = now,
        }
    }
    false
}

#[cfg(test)]
#[cfg(not(stampede_loom))]
mod tests {
    use super::*;

    #[test]
    fn every_lane_has_its_share_and_takes_from_the_others_as_well() {
        let slots = Slots::new(5, 2);
        for taken in 1..=5 {
            assert!(slots.try_take(1));
            assert_eq!(slots.in_flight(), taken);
        }
        assert!(!slots.try_take(0) && !slots.try_take(1));
        assert!(slots.try_give_back(0) && slots.try_take(1), "a slot that came back is there for everybody");
    }

    #[test]
    fn guarded_slots_are_not_there_for_who_passes_the_queue() {
        let slots = Slots::new(4, 2);
        assert!(slots.guard_and_take() && slots.is_guarded());
        for lane in 0..2 {
            assert!(!slots.try_take(lane) && !slots.try_give_back(lane), "every lane is guarded: {lane}");
        }
        slots.guard_and_give_back(0);
        assert_eq!(slots.in_flight(), 0);
        slots.unguard();
        assert!((0..4).all(|_| slots.try_take(1)));
    }

    #[test]
    fn of_fewer_slots_the_free_ones_vanish_at_once_from_every_lane() {
        let slots = Slots::new(4, 2);
        slots.set_limit(1);
        slots.unguard();
        assert_eq!((slots.limit(), slots.in_flight()), (1, 0));
        assert!(slots.try_take(0) && !slots.try_take(0) && !slots.try_take(1));
    }

    #[test]
    fn of_fewer_slots_those_in_use_vanish_when_they_come_back() {
        let slots = Slots::new(4, 2);
        assert!((0..3).all(|_| slots.try_take(0)));
        slots.set_limit(1);
        assert_eq!((slots.limit(), slots.in_flight()), (1, 3));
        slots.unguard();
        assert!(!slots.try_give_back(0), "left to the lock as long as there are too many");
        slots.guard_and_give_back(0);
        assert_eq!(slots.in_flight(), 2);
        slots.set_limit(0);
        slots.set_limit(3);
        assert_eq!((slots.limit(), slots.in_flight()), (3, 2), "what was to vanish stays");
        slots.guard_and_give_back(1);
        slots.guard_and_give_back(1);
        slots.unguard();
        assert!((0..3).all(|_| slots.try_take(0)) && !slots.try_take(0));
    }
}
