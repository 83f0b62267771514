//! The gate in front of what is served here; a destination is what is called elsewhere.

mod metrics;

use std::fmt;
use std::sync::Arc;

use stampede_contracts::{Class, Code, Problem};
use stampede_deadline::Clock;
use stampede_load_shed::{Acquire, LoadShed, Priority, Settings, Shed, Snapshot};

/// Admits requests by the class of their function, and shows for as long as it lives how many are admitted, wait and
/// are shed. A handle: clones share it.
#[derive(Clone)]
pub struct Gate {
    shared: Arc<Shared>,
}

struct Shared {
    name: Box<str>,
    shed: LoadShed,
}

impl Gate {
    /// A gate that nobody came to yet. Its metrics carry `name`; make it after telemetry began.
    pub fn new(name: impl Into<Box<str>>, settings: Settings, clock: Clock) -> Self {
        let shared = Arc::new(Shared { name: name.into(), shed: LoadShed::new(settings, clock) });
        metrics::show(&shared);
        Self { shared }
    }

    /// A slot for a request of this class, now or when one is free. The place in the queue is taken at once; who drops
    /// the future leaves it.
    ///
    /// # Panics
    /// Outside of a tokio runtime, when there is need to wait.
    pub fn acquire(&self, class: Class) -> Acquire {
        self.shared.shed.acquire(priority(class))
    }

    /// How things are.
    pub fn snapshot(&self) -> Snapshot {
        self.shared.shed.snapshot()
    }
}

/// What is said to whoever was not admitted.
pub fn busy(refusal: &Shed) -> Problem {
    Problem::new(Code::Busy).retry_after(u32::try_from(refusal.retry_after.as_secs()).unwrap_or(u32::MAX))
}

const fn priority(class: Class) -> Priority {
    Priority::new(match class {
        Class::Pay => 0,
        Class::Hold => 1,
        Class::Join => 2,
        Class::Browse => 3,
    })
}

impl fmt::Debug for Gate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Gate").field("name", &self.shared.name).field("shed", &self.shared.shed).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_two_classes_wait_in_one_line_and_the_first_is_the_most_urgent() {
        assert!(Class::ALL.is_sorted_by(|one, next| priority(*one) < priority(*next)));
        assert_eq!(priority(Class::ALL[0]), Priority::MOST_URGENT);
        assert_eq!(Class::ALL.len(), stampede_load_shed::CLASSES);
    }
}
