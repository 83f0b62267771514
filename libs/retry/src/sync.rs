//! The atomics, real or modelled.

#[cfg(stampede_loom)]
pub(crate) use loom::sync::atomic::AtomicU64;
#[cfg(not(stampede_loom))]
pub(crate) use std::sync::atomic::AtomicU64;
