//! The atomics and the lock, real or modelled.

#[cfg(stampede_loom)]
pub(crate) use loom::sync::atomic::{AtomicU32, AtomicU64};
#[cfg(stampede_loom)]
pub(crate) use loom::sync::{Mutex, MutexGuard};
#[cfg(not(stampede_loom))]
pub(crate) use std::sync::atomic::{AtomicU32, AtomicU64};
#[cfg(not(stampede_loom))]
pub(crate) use std::sync::{Mutex, MutexGuard};
