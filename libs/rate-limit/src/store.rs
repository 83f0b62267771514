//! A bounded place for the one number each key has.

use std::hash::{BuildHasher, Hash, RandomState};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crossbeam_utils::CachePadded;
use governor::nanos::Nanos;
use governor::state::StateStore;
use hashbrown::HashTable;

/// So many locks, that requests of different keys seldom wait for each other.
const SHARDS_MAX: usize = 16;
/// Below this many keys a shard of its own is not worth it: what is forgotten would be a matter of luck.
const KEYS_PER_SHARD_MIN: usize = 256;

/// Keys and the moment when each one's bucket is full again (in GCRA: the theoretical arrival time).
///
/// A lock is held for a look-up and an addition. The hash is seeded, so that nobody can choose keys that collide.
#[derive(Debug)]
pub(crate) struct BoundedStore<K> {
    shards: Box<[Shard<K>]>,
    keys_per_shard: usize,
    hasher: RandomState,
}

/// On a cache line of its own: whoever takes one lock would else slow down those who take its neighbours.
type Shard<K> = CachePadded<Mutex<HashTable<Entry<K>>>>;

#[derive(Debug)]
struct Entry<K> {
    key: K,
    hash: u64,
    full_again_at: u64,
}

impl<K: Hash + Eq + Clone> BoundedStore<K> {
    pub(crate) fn new(max_keys: usize) -> Self {
        let shards = (max_keys / KEYS_PER_SHARD_MIN).clamp(1, SHARDS_MAX);
        Self {
            shards: (0..shards).map(|_| CachePadded::new(Mutex::new(HashTable::new()))).collect(),
            keys_per_shard: max_keys / shards,
            hasher: RandomState::new(),
        }
    }

    fn shard(&self, hash: u64) -> Option<MutexGuard<'_, HashTable<Entry<K>>>> {
        // The table itself uses the low bits.
        let index = usize::try_from(hash >> 32).unwrap_or_default() % self.shards.len();
        // A number per key has no state in between that a panic could leave behind.
        self.shards.get(index).map(|shard| shard.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl<K: Hash + Eq + Clone> StateStore for BoundedStore<K> {
    type Key = K;

    fn measure_and_replace<T, F, E>(&self, key: &K, f: F) -> Result<T, E>
    where
        F: Fn(Option<Nanos>) -> Result<(T, Nanos), E>,
    {
        let hash = self.hasher.hash_one(key);
        // There always is one: the index is taken modulo their number.
        let Some(mut keys) = self.shard(hash) else { return f(None).map(|(outcome, _)| outcome) };
        if let Some(entry) = keys.find_mut(hash, |entry| entry.key == *key) {
            let (outcome, new) = f(Some(Nanos::from(entry.full_again_at)))?;
            entry.full_again_at = new.as_u64();
            return Ok(outcome);
        }
        let (outcome, new) = f(None)?;
        if keys.len() >= self.keys_per_shard {
            forget_the_longest_idle(&mut keys);
        }
        let entry = Entry { key: key.clone(), hash, full_again_at: new.as_u64() };
        keys.insert_unique(hash, entry, |entry| entry.hash);
        Ok(outcome)
    }
}

/// Drops an eighth of the keys, at least one. Doing it for many at once makes the search cheap for each.
fn forget_the_longest_idle<K>(keys: &mut HashTable<Entry<K>>) {
    let mut moments: Vec<u64> = keys.iter().map(|entry| entry.full_again_at).collect();
    if moments.is_empty() {
        return;
    }
    let (_, last_to_go, _) = moments.select_nth_unstable(keys.len() / 8);
    let last_to_go = *last_to_go;
    keys.retain(|entry| entry.full_again_at > last_to_go);
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use super::*;

    fn put(store: &BoundedStore<u32>, key: u32, moment: u64) {
        let Ok(()) = store.measure_and_replace(&key, |_| Ok::<_, Infallible>(((), Nanos::from(moment))));
    }

    fn keys(store: &BoundedStore<u32>) -> impl Iterator<Item = u32> {
        let keys =
            |shard: &Shard<u32>| shard.lock().unwrap().iter().map(|entry| entry.key).collect::<Vec<_>>();
        store.shards.iter().flat_map(keys)
    }

    fn knows(store: &BoundedStore<u32>, key: u32) -> bool {
        keys(store).any(|known| known == key)
    }

    #[test]
    fn the_longest_idle_are_forgotten_first() {
        let store = BoundedStore::new(16);
        for key in 0..16 {
            put(&store, key, u64::from(1_000 - key));
        }
        put(&store, 99, 5_000);
        assert_eq!(keys(&store).count(), 14, "an eighth and the one at the border went, one came");
        assert!([13, 14, 15].iter().all(|key| !knows(&store, *key)));
        assert!((0..13).all(|key| knows(&store, key)) && knows(&store, 99));
    }

    #[test]
    fn the_bound_holds_however_the_keys_are_spread() {
        let store = BoundedStore::new(4_096);
        for key in 0..50_000 {
            put(&store, key, u64::from(key));
            assert!(key % 1_000 != 0 || keys(&store).count() <= 4_096);
        }
        assert!(keys(&store).count() > 3_000, "places are used");
    }

    #[test]
    fn one_place_is_enough() {
        let store = BoundedStore::new(1);
        put(&store, 1, 10);
        put(&store, 2, 20);
        assert!(!knows(&store, 1) && knows(&store, 2));
    }

    #[test]
    fn a_refusal_takes_no_place() {
        let store = BoundedStore::new(4);
        let refused: Result<(), _> = store.measure_and_replace(&7, |_| Err("no"));
        assert_eq!(refused, Err("no"));
        assert_eq!(keys(&store).count(), 0);
    }
}
