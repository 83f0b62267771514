//! What the models under `--cfg stampede_loom` replace.

#[cfg(stampede_loom)]
pub(crate) use loom::sync::{Arc, Mutex, MutexGuard, atomic};
#[cfg(not(stampede_loom))]
pub(crate) use std::sync::{Arc, Mutex, MutexGuard, atomic};
