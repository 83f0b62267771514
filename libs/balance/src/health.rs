//! The decision about one replica: what counts against it, and for how long it is ejected.

use stampede_deadline::Moment;

use crate::{Event, Outcome, Settings};

/// What is known of a replica that is one of the set.
#[derive(Debug, Default)]
pub(crate) struct Health {
    is_ejected: bool,
    /// In a row, since the last success or ejection.
    failures: u32,
    /// When the last ejection ends or has ended.
    until: Moment,
    /// Ejections that are not forgiven yet.
    number: u32,
    /// Ejections and returns. A call that comes back and finds another generation than it left with is too late: it
    /// is about a replica that was judged without it.
    generation: u64,
}

impl Health {
    /// Counts an outcome, and says whether it is the one too many.
    pub fn record(&mut self, generation: u64, outcome: Outcome, failures_max: u32) -> bool {
        if self.is_ejected || generation != self.generation {
            return false;
        }
        match outcome {
            Outcome::Neutral => return false,
            Outcome::Success => self.failures = 0,
            Outcome::Failure => self.failures = self.failures.saturating_add(1),
        }
        self.failures >= failures_max
    }

    /// Takes the replica out of rotation, for as many times the first time as it was ejected of late.
    pub fn eject(&mut self, settings: &Settings, now: Moment) -> Event {
        let Settings { ejection_first, ejection_max, .. } = *settings;
        let forgiven = now.since(self.until).as_nanos() / ejection_first.as_nanos();
        self.number = self.number.saturating_sub(u32::try_from(forgiven).unwrap_or(u32::MAX));
        // It stops at the longest time: what no ejection grew by takes no time to be forgiven either.
        if ejection_first.saturating_mul(self.number) < ejection_max {
            self.number += 1;
        }
        let time = ejection_first.saturating_mul(self.number).min(ejection_max);
        self.is_ejected = true;
        self.until = now + time;
        self.failures = 0;
        self.generation += 1;
        Event::Ejected(time)
    }

    /// Puts the replica back into rotation; since it was ejected nothing was counted.
    pub fn readmit(&mut self) -> Event {
        self.is_ejected = false;
        self.generation += 1;
        Event::Returned
    }

    /// When it returns, if it is ejected.
    pub fn ejected_until(&self) -> Option<Moment> {
        self.is_ejected.then_some(self.until)
    }

    /// In a row.
    pub fn failures(&self) -> u32 {
        self.failures
    }

    /// Ejections so far: every odd generation is one.
    pub fn ejections(&self) -> u64 {
        self.generation.div_ceil(2)
    }

    pub fn generation(&self) -> u64 {
        self.generation
    }
}
