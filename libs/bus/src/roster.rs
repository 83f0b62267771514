//! Who lives, decided from heartbeats alone. Without clock, without connection: both are told.

use std::collections::{BTreeMap, HashMap};
use std::time::{Duration, Instant};

use stampede_contracts::Heartbeat;

/// A member lives this long after its last heartbeat.
pub(crate) const LIFETIME: Duration = Duration::from_secs(3);
/// More silence than this between any two heartbeats is not the members' silence but NATS being away.
const SILENCE_MAX: Duration = Duration::from_millis(1_500);
/// Bound on what strangers with the right to send heartbeats can make us keep.
const MEMBERS_MAX: usize = 4_096;

/// The members, and a clock that stands still while nobody is heard.
///
/// If nobody at all is heard, that says something about the way and nothing about the members: then no time passes for
/// them. So the last known set stays while NATS is away, and nobody is buried for it in the moment it returns.
#[derive(Debug, Default)]
pub(crate) struct Roster {
    /// Time that passed while heartbeats were heard.
    clock: Duration,
    heard_at: Option<Instant>,
    services: HashMap<String, BTreeMap<String, Member>>,
    /// Changes whenever somebody comes, goes, moves, or begins or ends to take work.
    version: u64,
}

#[derive(Debug)]
struct Member {
    heartbeat: Heartbeat,
    seen: Duration,
}

impl Roster {
    /// A heartbeat arrived.
    pub(crate) fn hear(&mut self, heartbeat: Heartbeat, now: Instant) {
        let silence =
            self.heard_at.map_or(Duration::ZERO, |heard_at| now.saturating_duration_since(heard_at));
        self.heard_at = Some(now);
        self.clock += silence.min(SILENCE_MAX);
        self.forget_the_dead();

        let full = self.services.values().map(BTreeMap::len).sum::<usize>() >= MEMBERS_MAX;
        let members = self.services.entry(heartbeat.service.clone()).or_default();
        if !full || members.contains_key(&heartbeat.instance) {
            let before = members.get(&heartbeat.instance).map(|member| &member.heartbeat);
            let is_the_same = before
                .is_some_and(|before| before.ready == heartbeat.ready && before.address == heartbeat.address);
            self.version += u64::from(!is_the_same);
            members.insert(heartbeat.instance.clone(), Member { heartbeat, seen: self.clock });
        }
    }

    fn forget_the_dead(&mut self) {
        let clock = self.clock;
        let version = &mut self.version;
        self.services.retain(|_, members| {
            let before = members.len();
            members.retain(|_, member| clock.saturating_sub(member.seen) <= LIFETIME);
            *version += u64::from(members.len() < before);
            !members.is_empty()
        });
    }

    /// All members of a service that live, by name.
    pub(crate) fn all(&self, service: &str) -> Vec<Heartbeat> {
        self.living(service).cloned().collect()
    }

    /// The addresses of the members that take work.
    pub(crate) fn takers(&self, service: &str) -> impl Iterator<Item = &str> {
        let ready = self.living(service).filter(|heartbeat| heartbeat.ready);
        ready.filter_map(|heartbeat| heartbeat.address.as_deref())
    }

    /// Another one than before: somebody came or went, or takes work now or no more.
    pub(crate) fn version(&self) -> u64 {
        self.version
    }

    fn living(&self, service: &str) -> impl Iterator<Item = &Heartbeat> {
        self.services.get(service).into_iter().flat_map(BTreeMap::values).map(|member| &member.heartbeat)
    }
}

#[cfg(test)]
mod tests {
    use stampede_contracts::Timestamp;

    use super::*;

    fn beat(service: &str, instance: &str) -> Heartbeat {
        Heartbeat {
            service: service.into(),
            instance: instance.into(),
            version: "1".into(),
            address: Some(format!("{instance}:80")),
            admin: format!("{instance}:81"),
            ready: true,
            started_at: Timestamp::now(),
        }
    }

    fn names(roster: &Roster, service: &str) -> Vec<String> {
        roster.all(service).into_iter().map(|heartbeat| heartbeat.instance).collect()
    }

    #[test]
    fn those_that_take_work_have_addresses() {
        let (mut roster, now) = (Roster::default(), Instant::now());
        roster.hear(beat("orders", "a"), now);
        roster.hear(beat("orders", "b"), now);
        roster.hear(Heartbeat { ready: false, ..beat("orders", "c") }, now);
        let takers = |roster: &Roster| roster.takers("orders").map(str::to_owned).collect::<Vec<_>>();
        assert_eq!(takers(&roster), ["a:80", "b:80"]);
        assert_eq!(names(&roster, "orders"), ["a", "b", "c"]);
        assert_eq!(roster.takers("lobby").next(), None);

        let before = roster.version();
        roster.hear(beat("orders", "a"), now);
        assert_eq!(roster.version(), before, "nothing new");
        roster.hear(beat("orders", "c"), now);
        assert_eq!(takers(&roster), ["a:80", "b:80", "c:80"]);
        assert_eq!(roster.version(), before + 1);
        for second in 1..=4 {
            roster.hear(beat("orders", "a"), now + Duration::from_secs(second));
        }
        assert_eq!(takers(&roster), ["a:80"]);
        assert_eq!(roster.version(), before + 2, "two died together");
    }

    #[test]
    fn a_member_that_falls_silent_while_others_speak_is_dead_after_three_seconds() {
        let (mut roster, start) = (Roster::default(), Instant::now());
        roster.hear(beat("orders", "a"), start);
        for second in 0..=3 {
            roster.hear(beat("orders", "b"), start + Duration::from_secs(second));
        }
        assert_eq!(names(&roster, "orders"), ["a", "b"]);
        roster.hear(beat("orders", "b"), start + Duration::from_secs(4));
        assert_eq!(names(&roster, "orders"), ["b"]);
    }

    #[test]
    fn while_nobody_is_heard_nobody_dies_and_afterwards_there_is_time_to_speak() {
        let (mut roster, start) = (Roster::default(), Instant::now());
        roster.hear(beat("orders", "a"), start);
        roster.hear(beat("orders", "b"), start);
        roster.hear(beat("orders", "c"), start);

        let back = start + Duration::from_secs(600);
        roster.hear(beat("orders", "a"), back);
        assert_eq!(names(&roster, "orders"), ["a", "b", "c"]);
        roster.hear(beat("orders", "b"), back + Duration::from_millis(900));
        roster.hear(beat("orders", "a"), back + Duration::from_millis(1_000));
        roster.hear(beat("orders", "b"), back + Duration::from_millis(1_900));
        assert_eq!(names(&roster, "orders"), ["a", "b"]);
    }

    #[test]
    fn strangers_cannot_fill_the_memory() {
        let (mut roster, now) = (Roster::default(), Instant::now());
        for number in 0..2 * MEMBERS_MAX {
            roster.hear(beat("orders", &number.to_string()), now);
        }
        assert_eq!(roster.all("orders").len(), MEMBERS_MAX);
    }
}
