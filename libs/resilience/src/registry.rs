//! All destinations of this process, for whoever shows them.

use std::sync::{Arc, Mutex, PoisonError, Weak};

use crate::Health;
use crate::destination::Shared;

/// Their number is that of the callees in the program. Those that are gone are swept out when another one comes.
static ALL: Mutex<Vec<Weak<Shared>>> = Mutex::new(Vec::new());

pub(crate) fn enter(shared: &Arc<Shared>) {
    let mut all = ALL.lock().unwrap_or_else(PoisonError::into_inner);
    all.retain(|known| known.strong_count() > 0);
    all.push(Arc::downgrade(shared));
}

/// How all destinations of this process are, in the order in which they were made.
pub fn destinations() -> Vec<Health> {
    let all = ALL.lock().unwrap_or_else(PoisonError::into_inner);
    all.iter().filter_map(Weak::upgrade).map(|shared| shared.health()).collect()
}
