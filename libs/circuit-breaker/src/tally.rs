//! Counting the calls of a closed circuit, without a lock.

use std::sync::atomic::Ordering;
use std::time::Duration;

use crossbeam_utils::CachePadded;
use stampede_deadline::{Moment, nanos};

use crate::Outcome;
use crate::sync::{AtomicU32, AtomicU64};

/// The most calls a policy may ask for; any bucket alone can hold as many, even right after it was halved.
pub(crate) const COUNT_MAX: u32 = 10_000;

/// One bucket for all times, emptied by every success.
pub(crate) const CONSECUTIVE: Scale = Scale { shift: u32::MAX, buckets: 1 };

const BUCKETS: usize = 16;

/// Calls that were counted. With a policy of consecutive failures, the failures in a row and nothing else.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Counts {
    /// All of them, the failures too.
    pub calls: u32,
    /// Those that failed.
    pub failures: u32,
}

/// How time is cut into buckets. Their width is a power of two of nanoseconds, because a shift costs nothing and a
/// division would be the dearest instruction of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Scale {
    /// The width of a bucket is 2 to the power of this.
    shift: u32,
    /// So many buckets make the window.
    buckets: i32,
}

impl Scale {
    /// The widest buckets of which at least 8 make the window; then it takes no more than 16.
    pub fn of(window: Duration) -> Self {
        let nanos = nanos(window).max(8);
        let shift = (nanos / 8).ilog2();
        Self { shift, buckets: nanos.div_ceil(1 << shift) as i32 }
    }

    pub fn window(&self) -> Duration {
        Duration::from_nanos(u64::from(self.buckets.unsigned_abs()) << self.shift)
    }

    /// Whether what was counted with one can be read with the other: the buckets are as wide, and of a longer window there
    /// are more.
    pub fn counts_like(self, other: Self) -> bool {
        self.shift == other.shift
    }

    /// The number of the bucket that is filled at a moment; wraps.
    fn slot(shift: u32, now: impl FnOnce() -> Moment) -> u32 {
        if shift == CONSECUTIVE.shift { 0 } else { (now().as_nanos() >> shift) as u32 & SLOT_MASK }
    }
}

const SLOT_BITS: u32 = 24;
const SLOT_MASK: u32 = (1 << SLOT_BITS) - 1;

/// How much later than a call its bucket may be before that is taken for a wrap: no thread sleeps for four windows.
const LATE_MAX: i32 = 64;

/// A bucket, packed into one word so that it is emptied and filled in one step. It says whose it is: a bucket of
/// another generation of the circuit, or of an earlier turn of the window, counts as empty.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Bucket {
    /// The last 8 bits of the generation; what is left of the others is cleared before they come round.
    generation: u8,
    /// The last 24 bits of the slot. They come round after a million windows; only a circuit that was idle for exactly
    /// that long would count what it finds.
    slot: u32,
    successes: u16,
    failures: u16,
}

impl Bucket {
    /// An empty one, of the generation before.
    fn of_nobody(generation: u64) -> Self {
        Self { generation: (generation as u8).wrapping_sub(1), slot: 0, successes: 0, failures: 0 }
    }

    fn unpack(word: u64) -> Self {
        Self {
            generation: (word >> 56) as u8,
            slot: (word >> 32) as u32 & SLOT_MASK,
            successes: (word >> 16) as u16,
            failures: word as u16,
        }
    }

    fn pack(self) -> u64 {
        u64::from(self.generation) << 56
            | u64::from(self.slot) << 32
            | u64::from(self.successes) << 16
            | u64::from(self.failures)
    }

    /// A full bucket is halved: its share of failures stays, and what comes next weighs more, not nothing.
    #[inline]
    fn with_room(self) -> Self {
        if self.successes.max(self.failures) < u16::MAX {
            return self;
        }
        Self { successes: self.successes / 2, failures: self.failures / 2, ..self }
    }
}

/// How many slots lie between two, across the wrap; negative if `slot` is the later one.
#[inline]
fn slots_since(slot: u32, now: u32) -> i32 {
    const UNUSED: u32 = u32::BITS - SLOT_BITS;
    (now.wrapping_sub(slot) << UNUSED).cast_signed() >> UNUSED
}

/// The counts of a closed circuit.
pub(crate) struct Tally {
    shift: AtomicU32,
    /// A row for every lane: threads that write one bucket in turn spend more time on handing it over than a call costs.
    /// A failure adds them up.
    rows: Box<[Row]>,
}

/// On cache lines of its own: every call reads the state of the circuit, and none may wait for a count to do so.
type Row = CachePadded<[AtomicU64; BUCKETS]>;

impl Tally {
    /// For the calls of generation 0, in so many lanes, at least one.
    pub fn new(scale: Scale, lanes: usize) -> Self {
        let empty = || AtomicU64::new(Bucket::of_nobody(0).pack());
        let row = |_| CachePadded::new(std::array::from_fn(|_| empty()));
        Self { shift: AtomicU32::new(scale.shift), rows: (0..lanes.max(1)).map(row).collect() }
    }

    pub fn lanes(&self) -> usize {
        self.rows.len()
    }

    /// Empties everything; to be called before a generation begins.
    pub fn prepare(&self, generation: u64, scale: Scale) {
        self.shift.store(scale.shift, Ordering::Relaxed);
        for cell in self.cells() {
            // A swap, not a store: then all writes to a bucket are links of one chain.
            cell.swap(Bucket::of_nobody(generation).pack(), Ordering::AcqRel);
        }
    }

    /// Counts a call of `generation` in its lane, unless `is_current` says that the generation has ended.
    ///
    /// It is asked *after* the bucket was read. Who finds a bucket of a later generation has therefore also been
    /// told that its own has ended, and who is told that it has not can at worst refill a bucket that the later
    /// generation will take for empty.
    #[inline]
    pub fn record(
        &self,
        lane: usize,
        generation: u64,
        outcome: Outcome,
        now: impl FnOnce() -> Moment,
        is_current: impl Fn() -> bool,
    ) {
        let shift = self.shift.load(Ordering::Relaxed);
        let slot = Scale::slot(shift, now);
        // Failures in a row are a row of everybody's, which a success after a success does not write.
        let lane = if shift == CONSECUTIVE.shift { 0 } else { lane };
        let cell = &self.rows[lane][slot as usize % BUCKETS];
        let mut seen = cell.load(Ordering::Acquire);
        loop {
            let Some(next) = after(Bucket::unpack(seen), generation as u8, slot, shift, outcome) else {
                return;
            };
            if !is_current() {
                return;
            }
            match cell.compare_exchange_weak(seen, next.pack(), Ordering::AcqRel, Ordering::Acquire) {
                Ok(_) => return,
                Err(changed) => seen = changed,
            }
        }
    }

    /// What the window that ends now holds. Read bucket by bucket: calls that end meanwhile may be missing.
    pub fn counts(&self, generation: u64, scale: Scale, now: Moment) -> Counts {
        let slot = Scale::slot(scale.shift, || now);
        let mut counts = Counts::default();
        for cell in self.cells() {
            let bucket = Bucket::unpack(cell.load(Ordering::Acquire));
            // Another thread may have read a later time than this one.
            let in_window = (-LATE_MAX..scale.buckets).contains(&slots_since(bucket.slot, slot));
            if bucket.generation == generation as u8 && in_window {
                counts.failures += u32::from(bucket.failures);
                counts.calls += u32::from(bucket.failures) + u32::from(bucket.successes);
            }
        }
        counts
    }

    fn cells(&self) -> impl Iterator<Item = &AtomicU64> {
        self.rows.iter().flat_map(|row| row.iter())
    }
}

/// The bucket with one more call in it; `None` where nothing has to be written: the call is older than the window, or
/// a success where no failure was.
#[inline]
fn after(bucket: Bucket, generation: u8, slot: u32, shift: u32, outcome: Outcome) -> Option<Bucket> {
    let is_mine = bucket.generation == generation;
    if is_mine && (-LATE_MAX..0).contains(&slots_since(bucket.slot, slot)) {
        return None;
    }
    let filled = if is_mine && bucket.slot == slot {
        bucket.with_room()
    } else {
        Bucket { generation, slot, successes: 0, failures: 0 }
    };
    match outcome {
        Outcome::Failure => Some(Bucket { failures: filled.failures + 1, ..filled }),
        Outcome::Success if shift != CONSECUTIVE.shift => {
            Some(Bucket { successes: filled.successes + 1, ..filled })
        }
        Outcome::Success if filled.failures > 0 => Some(Bucket { failures: 0, ..filled }),
        Outcome::Success | Outcome::Neutral | Outcome::Unanswered => None,
    }
}

#[cfg(test)]
#[cfg(not(stampede_loom))]
mod tests {
    use super::*;

    #[test]
    fn eight_to_sixteen_buckets_make_a_window() {
        for millis in 10..3_000 {
            let window = Duration::from_millis(millis);
            let Scale { shift, buckets } = Scale::of(window);
            assert!((8..=16).contains(&buckets), "{buckets} for {window:?}");
            let covered = u128::from(buckets.unsigned_abs()) << shift;
            assert!(covered >= window.as_nanos() && covered - (1 << shift) < window.as_nanos(), "{window:?}");
        }
    }

    #[test]
    fn slots_are_compared_across_the_wrap() {
        assert_eq!(slots_since(5, 7), 2);
        assert_eq!(slots_since(7, 5), -2);
        assert_eq!(slots_since(SLOT_MASK, 1), 2);
        assert_eq!(slots_since(1, SLOT_MASK), -2);
    }

    #[test]
    fn a_full_bucket_keeps_its_share_of_failures() {
        let scale = Scale::of(Duration::from_secs(1));
        let tally = Tally::new(scale, 2);
        for n in 0..200_000_u32 {
            let outcome = if n % 4 == 0 { Outcome::Failure } else { Outcome::Success };
            tally.record(0, 0, outcome, Moment::default, || true);
            let counts = tally.counts(0, scale, Moment::default());
            assert!(counts.calls > n.min(2 * COUNT_MAX), "{counts:?} after {n}");
            assert!((counts.failures * 4).abs_diff(counts.calls) <= 4, "{counts:?} after {n}");
        }
    }

    #[test]
    fn another_generation_counts_as_empty() {
        let tally = Tally::new(CONSECUTIVE, 2);
        tally.record(0, 1, Outcome::Failure, Moment::default, || true);
        assert_eq!(tally.counts(1, CONSECUTIVE, Moment::default()).failures, 1);
        assert_eq!(tally.counts(2, CONSECUTIVE, Moment::default()), Counts::default());
        tally.record(1, 2, Outcome::Failure, Moment::default, || true);
        assert_eq!(tally.counts(2, CONSECUTIVE, Moment::default()).failures, 1);
        tally.record(0, 1, Outcome::Failure, Moment::default, || false);
        assert_eq!(tally.counts(2, CONSECUTIVE, Moment::default()).failures, 1);
    }
}
