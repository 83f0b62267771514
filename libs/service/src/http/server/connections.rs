//! The open connections of a listener. When there is no room, the one that has been silent longest makes some: silent
//! are those that no request is being answered on, whether nothing came yet, or part of a head, or the last answer is
//! gone.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use opentelemetry::KeyValue;
use opentelemetry::metrics::{Counter, UpDownCounter};
use tokio_util::sync::{CancellationToken, WaitForCancellationFuture};

use crate::http::AddressKey;

/// The turn of a connection on which a request is being answered; true turns begin at 1.
const BUSY: u64 = 0;

/// Counts open connections, in all and by address.
#[derive(Debug)]
pub(super) struct Connections {
    max: usize,
    max_per_address: usize,
    open: Mutex<Open>,
    opened: UpDownCounter<i64>,
    turned_away: Counter<u64>,
    listener: KeyValue,
}

#[derive(Debug, Default)]
struct Open {
    all: usize,
    /// Addresses with open connections only, so at most as many as there are connections.
    by_address: HashMap<AddressKey, OfAddress>,
    /// The silent ones, in the order in which they fell silent.
    silent: BTreeMap<u64, Silent>,
    last_turn: u64,
}

#[derive(Debug, Default)]
struct OfAddress {
    open: usize,
    silent: BTreeSet<u64>,
}

#[derive(Debug)]
struct Silent {
    address: Option<AddressKey>,
    evict: CancellationToken,
}

/// Room for one connection; given back when this is dropped.
#[derive(Debug)]
pub(super) struct Slot {
    connections: Arc<Connections>,
    address: Option<AddressKey>,
    evict: CancellationToken,
    /// Changes under the lock only.
    turn: AtomicU64,
}

impl Connections {
    pub(super) fn new(listener: &'static str, max: usize, max_per_address: usize) -> Arc<Self> {
        let meter = stampede_telemetry::meter();
        Arc::new(Self {
            max,
            max_per_address,
            open: Mutex::default(),
            opened: meter
                .i64_up_down_counter("stampede.http.connections")
                .with_description("Open connections of clients.")
                .with_unit("{connection}")
                .build(),
            turned_away: meter
                .u64_counter("stampede.http.connections.turned_away")
                .with_description(
                    "Connections closed for want of room: evicted when silent, refused when all are busy.",
                )
                .with_unit("{connection}")
                .build(),
            listener: KeyValue::new("listener", listener),
        })
    }

    /// Room for one more, for which a silent one is evicted if need be: one of the same address when that has as many
    /// as it may have. Nothing when all of them are busy. Without an address only the sum counts.
    pub(super) fn admit(self: &Arc<Self>, address: Option<AddressKey>) -> Option<Slot> {
        let mut open = self.lock();
        let of_address = address.and_then(|address| open.by_address.get(&address));
        let evicted = match of_address {
            Some(of_address) if of_address.open >= self.max_per_address => {
                Some(of_address.silent.first().copied())
            }
            _ if open.all >= self.max => Some(open.longest_silent()),
            _ => None,
        };
        match evicted {
            Some(Some(turn)) => self.evict(&mut open, turn),
            Some(None) => {
                self.count_turned_away("refused");
                return None;
            }
            None => {}
        }
        open.all += 1;
        if let Some(address) = address {
            open.by_address.entry(address).or_default().open += 1;
        }
        let evict = CancellationToken::new();
        let turn = open.fall_silent(address, evict.clone());
        self.opened.add(1, std::slice::from_ref(&self.listener));
        Some(Slot { connections: Arc::clone(self), address, evict, turn: AtomicU64::new(turn) })
    }

    /// Evicts the longest silent connection when the system is out of descriptors. Returns whether there was one.
    pub(super) fn evict_one(&self) -> bool {
        let mut open = self.lock();
        let longest = open.longest_silent();
        if let Some(turn) = longest {
            self.evict(&mut open, turn);
        }
        longest.is_some()
    }

    /// It no longer counts from here on, whenever its task comes to close it.
    fn evict(&self, open: &mut Open, turn: u64) {
        if let Some(Silent { address, evict }) = open.speak(turn) {
            evict.cancel();
            self.leave(open, address);
            self.count_turned_away("evicted");
        }
    }

    fn leave(&self, open: &mut Open, address: Option<AddressKey>) {
        open.all -= 1;
        self.opened.add(-1, std::slice::from_ref(&self.listener));
        let Some(address) = address else { return };
        if let Some(of_address) = open.by_address.get_mut(&address) {
            of_address.open -= 1;
            if of_address.open == 0 {
                open.by_address.remove(&address);
            }
        }
    }

    fn count_turned_away(&self, why: &'static str) {
        self.turned_away.add(1, &[self.listener.clone(), KeyValue::new("reason", why)]);
    }

    // The counts are whole after every statement that panics: none of them can.
    fn lock(&self) -> MutexGuard<'_, Open> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Open {
    fn longest_silent(&self) -> Option<u64> {
        self.silent.keys().next().copied()
    }

    fn fall_silent(&mut self, address: Option<AddressKey>, evict: CancellationToken) -> u64 {
        self.last_turn += 1;
        self.silent.insert(self.last_turn, Silent { address, evict });
        if let Some(of_address) = address.and_then(|address| self.by_address.get_mut(&address)) {
            of_address.silent.insert(self.last_turn);
        }
        self.last_turn
    }

    fn speak(&mut self, turn: u64) -> Option<Silent> {
        let silent = self.silent.remove(&turn)?;
        if let Some(of_address) = silent.address.and_then(|address| self.by_address.get_mut(&address)) {
            of_address.silent.remove(&turn);
        }
        Some(silent)
    }
}

impl Slot {
    /// A request is being answered from now on. False when the connection was evicted: the request must not begin.
    pub(super) fn busy(&self) -> bool {
        let mut open = self.connections.lock();
        if self.evict.is_cancelled() {
            return false;
        }
        open.speak(self.turn.swap(BUSY, Ordering::Relaxed));
        true
    }

    /// Its answer is gone.
    pub(super) fn silent(&self) {
        let mut open = self.connections.lock();
        if !self.evict.is_cancelled() && self.turn.load(Ordering::Relaxed) == BUSY {
            self.turn.store(open.fall_silent(self.address, self.evict.clone()), Ordering::Relaxed);
        }
    }

    /// Ends when the connection has to be closed.
    pub(super) fn evicted(&self) -> WaitForCancellationFuture<'_> {
        self.evict.cancelled()
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        let mut open = self.connections.lock();
        if !self.evict.is_cancelled() {
            open.speak(self.turn.load(Ordering::Relaxed));
            self.connections.leave(&mut open, self.address);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use super::*;

    fn address(last: u8) -> Option<AddressKey> {
        Some(IpAddr::from([192, 0, 2, last]).into())
    }

    #[test]
    fn the_longest_silent_makes_room_and_a_busy_one_never() {
        let connections = Connections::new("test", 2, 2);
        let [first, second] = [1, 2].map(|last| connections.admit(address(last)).unwrap());
        assert!(first.busy());
        let third = connections.admit(address(3)).unwrap();
        assert!(second.evict.is_cancelled(), "of the two the silent one");
        assert!(!second.busy(), "what comes on it does not begin");
        first.silent();
        let fourth = connections.admit(address(4)).unwrap();
        assert!(third.evict.is_cancelled() && !first.evict.is_cancelled(), "silent for longer");
        assert!(first.busy() && fourth.busy());
        assert!(connections.admit(address(5)).is_none() && !connections.evict_one());
        drop((first, second, third));
        let fifth = connections.admit(address(5)).unwrap();
        assert!(connections.evict_one() && fifth.evict.is_cancelled());
        drop((fourth, fifth));
        let open = connections.lock();
        assert_eq!((open.all, open.by_address.len(), open.silent.len()), (0, 0, 0));
    }

    #[test]
    fn an_address_makes_room_for_itself() {
        let connections = Connections::new("test", 4, 2);
        let other = connections.admit(address(1)).unwrap();
        let mine = [(); 2].map(|()| connections.admit(address(2)).unwrap());
        let another = connections.admit(address(2)).unwrap();
        assert!(
            mine[0].evict.is_cancelled() && !other.evict.is_cancelled(),
            "its own, though not the oldest"
        );
        assert!(mine[1].busy() && another.busy());
        assert!(connections.admit(address(2)).is_none(), "both are busy");
        assert!(connections.admit(address(3)).is_some(), "which is no affair of others");
        let behind_a_proxy = [(); 2].map(|()| connections.admit(None).unwrap());
        assert!(behind_a_proxy.iter().all(|slot| !slot.evict.is_cancelled()));
    }
}
