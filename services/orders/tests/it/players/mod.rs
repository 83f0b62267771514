//! Inventory, payments and notify, played: they keep the rules of the house and misbehave on demand.

mod inventory;
mod notify;
mod payments;

use std::sync::{Mutex, MutexGuard};

pub use inventory::Inventory;
pub use notify::Notify;
pub use payments::{Balance, Payments};

/// How a player treats what it is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Manner {
    /// As it should.
    #[default]
    Good,
    /// It does nothing and says nothing.
    Silent,
    /// It does it and says nothing.
    Mute,
    /// It declines (payments only).
    Declines,
    /// It refuses for good (payments only).
    Refuses,
}

/// Players have no state that a panic could leave half-changed.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap()
}
