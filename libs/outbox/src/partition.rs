//! Which partition an aggregate belongs to, and which partitions this process holds.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// A share of all aggregates; one relay at a time publishes it.
pub(crate) type Partition = i16;

/// FNV-1a, 64 bits (G. Fowler, L. C. Noll, K.-P. Vo). It is written into rows, so it must be the same in every
/// process and version, which the standard library's hash does not promise. Nobody gains by making aggregates collide:
/// they would only wait for each other.
pub(crate) fn hash(aggregate: &str) -> u64 {
    let fold = |hash: u64, byte: u8| (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
    aggregate.bytes().fold(0xcbf2_9ce4_8422_2325, fold)
}

/// The partitions of an outbox, and which of them the relay of this process holds.
#[derive(Debug, Clone)]
pub(crate) struct Partitions(Arc<[AtomicBool]>);

impl Partitions {
    pub(crate) fn new(count: u16) -> Self {
        Self((0..count).map(|_| AtomicBool::new(false)).collect())
    }

    pub(crate) fn of(&self, hash: u64) -> Partition {
        // There are at most as many as a `smallint` can number.
        Partition::try_from(hash % self.0.len() as u64).unwrap_or(Partition::MAX)
    }

    pub(crate) fn contains(&self, partition: Partition) -> bool {
        usize::try_from(partition).is_ok_and(|index| index < self.0.len())
    }

    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    pub(crate) fn holds(&self, partition: Partition) -> bool {
        usize::try_from(partition)
            .ok()
            .and_then(|index| self.0.get(index))
            .is_some_and(|held| held.load(Ordering::Acquire))
    }

    pub(crate) fn take(&self, partition: Partition) {
        if let Some(held) = usize::try_from(partition).ok().and_then(|index| self.0.get(index)) {
            held.store(true, Ordering::Release);
        }
    }

    pub(crate) fn drop_all(&self) {
        self.0.iter().for_each(|held| held.store(false, Ordering::Release));
    }

    pub(crate) fn held(&self) -> Vec<Partition> {
        self.all().filter(|partition| self.holds(*partition)).collect()
    }

    pub(crate) fn free(&self) -> Vec<Partition> {
        self.all().filter(|partition| !self.holds(*partition)).collect()
    }

    pub(crate) fn all(&self) -> impl Iterator<Item = Partition> {
        (0..Partition::MAX).take(self.0.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hash_is_the_published_one_and_must_never_change() {
        // Test vectors from the authors' `test_fnv.c`.
        assert_eq!(hash(""), 0xcbf2_9ce4_8422_2325);
        assert_eq!(hash("a"), 0xaf63_dc4c_8601_ec8c);
        assert_eq!(hash("foobar"), 0x8594_4171_f739_67e8);
    }

    #[test]
    fn aggregates_spread_over_the_partitions() {
        let partitions = Partitions::new(8);
        let mut counts = [0_u32; 8];
        for n in 0..8_000 {
            let partition = partitions.of(hash(&format!("ord_{n:032x}")));
            assert!(partitions.contains(partition));
            counts[usize::try_from(partition).unwrap()] += 1;
        }
        assert!(counts.iter().all(|count| (800..1_200).contains(count)), "{counts:?}");
    }

    #[test]
    fn what_is_held_is_not_free() {
        let partitions = Partitions::new(3);
        assert_eq!(partitions.free(), [0, 1, 2]);
        partitions.take(1);
        assert_eq!((partitions.held(), partitions.free()), (vec![1], vec![0, 2]));
        assert!(!partitions.holds(-1) && !partitions.holds(3) && !partitions.contains(3));
        partitions.drop_all();
        assert!(partitions.held().is_empty());
    }
}
