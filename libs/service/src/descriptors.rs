//! File descriptors: as many as the system grants, and how they are shared out.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// More than any process of this system needs; where the hard limit is higher or absent, this is the limit.
const DESCRIPTORS_MAX: u64 = 65_536;

/// Below this a process logs a warning: its pools alone need about half.
const DESCRIPTORS_FEW: u64 = 256;

/// A listener gets a quarter, and no process has more than two besides the admin listener. The gateway has one, and may
/// open two connections for each that it serves: an attempt and its hedge.
const SHARE_OF_A_LISTENER: u64 = 4;

/// The admin listener gets an eighth. What is left is for pools, messaging, and files.
const SHARE_OF_THE_ADMIN: u64 = 8;

/// How many descriptors this process may have open.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Descriptors(u64);

impl Descriptors {
    /// Raises the soft limit, which container engines and shells set to 1,024, towards the hard one.
    pub(crate) fn raised() -> Self {
        let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
        let current = current.unwrap_or(u64::MAX);
        let wanted = maximum.unwrap_or(u64::MAX).min(DESCRIPTORS_MAX);
        if wanted <= current {
            return Self(current);
        }
        match setrlimit(Resource::Nofile, Rlimit { current: Some(wanted), maximum }) {
            Ok(()) => Self(wanted),
            Err(error) => {
                tracing::warn!(%error, current, wanted, "the limit of open files could not be raised");
                Self(current)
            }
        }
    }

    /// How many connections a listener may have open.
    pub(crate) fn of_a_listener(self) -> usize {
        self.share(SHARE_OF_A_LISTENER)
    }

    /// How many connections the admin listener may have open.
    pub(crate) fn of_the_admin(self) -> usize {
        self.share(SHARE_OF_THE_ADMIN)
    }

    fn share(self, of: u64) -> usize {
        if self.0 < DESCRIPTORS_FEW {
            tracing::warn!(limit = self.0, "few files may be open; raise RLIMIT_NOFILE");
        }
        usize::try_from(self.0 / of).unwrap_or(usize::MAX).max(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_listeners_get_leaves_room_for_the_rest() {
        for limit in [64, 256, 1_024, DESCRIPTORS_MAX] {
            let descriptors = Descriptors(limit);
            let listeners = 2 * descriptors.of_a_listener() + descriptors.of_the_admin();
            assert!(listeners as u64 <= limit * 3 / 4, "{limit}");
        }
    }
}
