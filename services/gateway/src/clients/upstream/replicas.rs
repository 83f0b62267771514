//! The replicas of one service: who they are is heard in heartbeats, which of them is asked is decided by how much each
//! has to do and how it answered.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use stampede_balance::{Balancer, InvalidSettings, Pick, Settings, Snapshot};
use stampede_bus::Members;
use stampede_deadline::Clock;

/// A replica that fails so often in a row is left alone for a while, …
const FAILURES_MAX: u32 = 5;
/// … at first for so long; a heartbeat that stops is noticed within three seconds anyway, …
const EJECTION_FIRST: Duration = Duration::from_secs(1);
/// … and at most for so long …
const EJECTION_MAX: Duration = Duration::from_secs(30);
/// … as long as this share of them still answers: when most fail, it is not they.
const EJECTED_PERCENT_MAX: u32 = 50;

/// Picks replicas.
#[derive(Debug)]
pub(super) struct Replicas {
    service: &'static str,
    members: Members,
    /// The version of the members that the balancer knows.
    known: Mutex<Option<u64>>,
    balancer: Balancer<Arc<str>>,
}

impl Replicas {
    pub(super) fn new(service: &'static str, members: Members) -> Result<Self, InvalidSettings> {
        let settings = Settings {
            failures_max: FAILURES_MAX,
            ejection_first: EJECTION_FIRST,
            ejection_max: EJECTION_MAX,
            ejected_percent_max: EJECTED_PERCENT_MAX,
        };
        let balancer = Balancer::observed(settings, Clock::system(), move |change| {
            tracing::warn!(service, ?change, "a replica was ejected, or is back");
        })?;
        Ok(Self { service, members, known: Mutex::default(), balancer })
    }

    /// Whether anybody takes work.
    pub(super) fn is_there(&self) -> bool {
        !self.members.takers(self.service).is_empty()
    }

    /// One that takes work and was not tried; where all were, one of them.
    pub(super) fn pick(&self, tried: &[Arc<str>]) -> Option<Pick<Arc<str>>> {
        self.hear();
        self.balancer.pick(tried).or_else(|| self.balancer.pick(&[]))
    }

    /// How each of them stands.
    pub(super) fn snapshot(&self) -> Vec<Snapshot<Arc<str>>> {
        self.balancer.snapshot()
    }

    /// Looks whether somebody came or went. Under the lock, so that nobody puts an older set in the place of a newer one;
    /// and the version first, so that a set which is newer than its version is only read twice.
    fn hear(&self) {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let version = Some(self.members.version());
        if *known != version {
            self.balancer.set_replicas(self.members.takers(self.service).into_iter().map(Arc::from));
            *known = version;
        }
    }
}
