//! What the models under `--cfg stampede_loom` replace, and what keeps threads apart.

use std::ops::Deref;

#[cfg(stampede_loom)]
pub(crate) use loom::sync::{Arc, Mutex, MutexGuard, atomic};
#[cfg(not(stampede_loom))]
pub(crate) use std::sync::{Arc, Mutex, MutexGuard, atomic};

/// A value on a cache line of its own: every call writes it, and would slow down whoever reads what lies beside it.
/// With two threads this is the difference between seven times and less than three times the price of one.
#[derive(Debug)]
#[repr(align(64))]
pub(crate) struct OwnLine<T>(pub T);

impl<T> Deref for OwnLine<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0
    }
}
