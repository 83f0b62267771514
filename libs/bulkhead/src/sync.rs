//! Atomics and locks, real or modelled.

#[cfg(stampede_loom)]
pub(crate) use loom::sync::{Mutex, MutexGuard, atomic::AtomicU64};
#[cfg(not(stampede_loom))]
pub(crate) use std::sync::{Mutex, MutexGuard, atomic::AtomicU64};
