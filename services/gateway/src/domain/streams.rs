//! How many streams may be open: in all, and for each client, so that nobody takes all places.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Counts open streams by client. A handle: clones share the count.
#[derive(Debug)]
pub struct OpenStreams<K> {
    shared: Arc<Shared<K>>,
}

#[derive(Debug)]
struct Shared<K> {
    max: usize,
    max_per_client: usize,
    // Holds clients with open streams only, so it has at most `max` entries.
    open: Mutex<Count<K>>,
}

#[derive(Debug)]
struct Count<K> {
    all: usize,
    by_client: HashMap<K, usize>,
}

/// A place for one stream; free again when this is dropped.
#[derive(Debug)]
pub struct Place<K: Hash + Eq> {
    client: K,
    shared: Arc<Shared<K>>,
}

impl<K: Hash + Eq + Clone> OpenStreams<K> {
    /// At most `max` streams, of them at most `max_per_client` of one client.
    pub fn new(max: usize, max_per_client: usize) -> Self {
        let open = Mutex::new(Count { all: 0, by_client: HashMap::new() });
        Self { shared: Arc::new(Shared { max, max_per_client, open }) }
    }

    /// A place for a stream of `client`, if there is one.
    pub fn open(&self, client: K) -> Option<Place<K>> {
        let mut open = self.shared.lock();
        let of_client = open.by_client.get(&client).copied().unwrap_or(0);
        if open.all >= self.shared.max || of_client >= self.shared.max_per_client {
            return None;
        }
        open.all += 1;
        open.by_client.insert(client.clone(), of_client + 1);
        Some(Place { client, shared: Arc::clone(&self.shared) })
    }
}

impl<K> Shared<K> {
    // The count is whole after every statement that panics, none of them can.
    fn lock(&self) -> MutexGuard<'_, Count<K>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<K: Hash + Eq> Drop for Place<K> {
    fn drop(&mut self) {
        let mut open = self.shared.lock();
        open.all -= 1;
        if let Some(of_client) = open.by_client.get_mut(&self.client) {
            *of_client -= 1;
            if *of_client == 0 {
                open.by_client.remove(&self.client);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_takes_all_places_and_all_is_given_back() {
        let streams = OpenStreams::new(3, 2);
        let first = streams.open("a").unwrap();
        let _second = streams.open("a").unwrap();
        assert!(streams.open("a").is_none(), "two are enough for one");
        let third = streams.open("b").unwrap();
        assert!(streams.open("c").is_none(), "three are enough for all");
        drop(third);
        assert!(!streams.shared.lock().by_client.contains_key("b"), "who has none is forgotten");
        drop(first);
        assert!(streams.open("a").is_some() && streams.open("c").is_some());
    }
}
