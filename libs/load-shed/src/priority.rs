//! Who is served first.

/// How many classes there are. Few on purpose: each has to mean something to whoever assigns it.
pub const CLASSES: usize = 4;

/// The class of a request: 0 is the most urgent, [`CLASSES`] − 1 the least. The smaller one is the more urgent one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Priority(u8);

impl Priority {
    /// Served before all others, shed last.
    pub const MOST_URGENT: Self = Self(0);
    /// Served last, shed first.
    pub const LEAST_URGENT: Self = Self(CLASSES as u8 - 1);

    /// The class of this level. What lies beyond the last class is in the last class, so that a number from outside
    /// can never make a request more urgent.
    pub const fn new(level: u8) -> Self {
        if level < Self::LEAST_URGENT.0 { Self(level) } else { Self::LEAST_URGENT }
    }

    /// 0 to [`CLASSES`] − 1.
    pub const fn level(self) -> u8 {
        self.0
    }

    /// The less urgent of the two: a client may lower the priority of its own request, never raise it.
    #[must_use]
    pub fn lowered_to(self, asked: Self) -> Self {
        self.max(asked)
    }

    pub(crate) fn index(self) -> usize {
        usize::from(self.0)
    }

    /// This class and all that are less urgent.
    pub(crate) fn and_below(self) -> impl Iterator<Item = Self> {
        (self.0..CLASSES as u8).map(Self)
    }
}

#[cfg(test)]
#[cfg(not(stampede_loom))]
mod tests {
    use super::*;

    #[test]
    fn nobody_raises_a_priority() {
        assert_eq!(Priority::new(200), Priority::LEAST_URGENT);
        assert_eq!(Priority::new(1).lowered_to(Priority::new(0)), Priority::new(1));
        assert_eq!(Priority::new(1).lowered_to(Priority::new(2)), Priority::new(2));
    }
}
