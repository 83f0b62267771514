//! Slots taken, the limit, and whether the queue has to be asked: one word, so that a call that meets no queue needs
//! a single compare-and-swap.

use crate::sync::atomic::{AtomicU64, Ordering};

const LIMIT_SHIFT: u32 = 32;
const IN_FLIGHT: u64 = u32::MAX as u64;
const GUARDED: u64 = 1 << 63;

/// What the word said at one moment.
#[derive(Clone, Copy)]
pub(crate) struct State(u64);

impl State {
    pub(crate) fn in_flight(self) -> u32 {
        (self.0 & IN_FLIGHT) as u32
    }

    pub(crate) fn limit(self) -> u32 {
        ((self.0 & !GUARDED) >> LIMIT_SHIFT) as u32
    }

    /// Whether the queue decides: somebody waits, or a class is kept out.
    pub(crate) fn is_guarded(self) -> bool {
        self.0 & GUARDED != 0
    }

    pub(crate) fn has_room(self) -> bool {
        self.in_flight() < self.limit()
    }
}

/// Whatever is called "under the lock" here means the lock of the queue. While the word is guarded, slots are taken
/// under the lock only, so room that was seen there stays.
#[derive(Debug)]
pub(crate) struct Word(AtomicU64);

impl Word {
    pub(crate) fn new(limit: u32) -> Self {
        Self(AtomicU64::new(u64::from(limit) << LIMIT_SHIFT))
    }

    pub(crate) fn state(&self) -> State {
        State(self.0.load(Ordering::Relaxed))
    }

    /// Takes a slot past the queue. Acquire and release, so that a slot carries along what was done in it.
    pub(crate) fn try_take(&self) -> bool {
        let mut seen = self.0.load(Ordering::Relaxed);
        while State(seen).has_room() && !State(seen).is_guarded() {
            match self.0.compare_exchange_weak(seen, seen + 1, Ordering::Acquire, Ordering::Relaxed) {
                Ok(_) => return true,
                Err(now) => seen = now,
            }
        }
        false
    }

    /// Takes a slot, or guards the word in the same step in which it saw that there is none: whoever gives a slot back
    /// after that meets the guard. Under the lock.
    pub(crate) fn take_or_guard(&self) -> bool {
        let mut seen = self.0.load(Ordering::Relaxed);
        loop {
            let room = State(seen).has_room();
            let next = if room { seen + 1 } else { seen | GUARDED };
            match self.0.compare_exchange_weak(seen, next, Ordering::AcqRel, Ordering::Relaxed) {
                Ok(_) => return room,
                Err(now) => seen = now,
            }
        }
    }

    /// Takes a slot where room was seen while the word was guarded. Under the lock.
    pub(crate) fn take(&self) {
        self.0.fetch_add(1, Ordering::Acquire);
    }

    /// Gives a slot back, and says what was before.
    pub(crate) fn give_back(&self) -> State {
        State(self.0.fetch_sub(1, Ordering::AcqRel))
    }

    /// Opens the way past the queue. Under the lock.
    pub(crate) fn unguard(&self) {
        self.0.fetch_and(!GUARDED, Ordering::AcqRel);
    }

    /// Under the lock.
    pub(crate) fn set_limit(&self, limit: u32) {
        // The lock keeps other limits out, so the difference can be added beside calls that come and go.
        let difference = u64::from(limit).wrapping_sub(u64::from(self.state().limit())) << LIMIT_SHIFT;
        if difference != 0 {
            self.0.fetch_add(difference, Ordering::AcqRel);
        }
    }
}
