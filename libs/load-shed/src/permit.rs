//! The right to a call that runs.

use std::fmt;

use stampede_deadline::Moment;

use crate::gate::Handle;
use crate::sync::Arc;

/// What a finished call says about the load.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Sample {
    /// It was answered: its latency counts.
    Success,
    /// It failed because there was too much to do, a time-out or a 503 from further in: the limit shrinks.
    Overload,
    /// It says nothing: an error of the application may be quicker or slower than real work.
    Ignore,
}

/// A slot. Dropping it gives the slot back and counts as [`Sample::Ignore`]: a call that was cancelled, or panicked,
/// says nothing about the load.
#[must_use = "dropping the permit gives the slot back"]
pub struct Permit {
    handle: Arc<Handle>,
    admitted_at: Moment,
    sample: Sample,
}

impl Permit {
    pub(crate) fn new(handle: Arc<Handle>, admitted_at: Moment) -> Self {
        Self { handle, admitted_at, sample: Sample::Ignore }
    }

    /// The call was answered.
    pub fn succeeded(self) {
        self.record(Sample::Success);
    }

    /// There was too much to do.
    pub fn overloaded(self) {
        self.record(Sample::Overload);
    }

    /// The call says nothing about the load.
    pub fn ignored(self) {
        self.record(Sample::Ignore);
    }

    /// The call is over, and this is what it says about the load.
    pub fn record(mut self, sample: Sample) {
        self.sample = sample;
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        Handle::finish(&self.handle, self.admitted_at, self.sample);
    }
}

impl fmt::Debug for Permit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Permit").field("admitted_at", &self.admitted_at).finish_non_exhaustive()
    }
}
