//! Policies that are replaced while the service runs: the bucket `policies`, in which an operator writes.

use stampede_blueprint::{Blueprint, InvalidPatch};
use stampede_bus::Bus;
use stampede_contracts::topology::POLICIES;
use stampede_resilience::{Destinations, InvalidPolicy};

use crate::Node;

/// A value that is not followed; the policy stays as it was.
#[derive(Debug, thiserror::Error)]
enum Ignored {
    #[error("the blueprint knows no such destination")]
    Unknown,
    #[error(transparent)]
    Unreadable(#[from] serde_json::Error),
    #[error(transparent)]
    Patch(#[from] InvalidPatch),
    #[error(transparent)]
    Policy(#[from] InvalidPolicy),
}

impl Node {
    /// Follows what is written under `<service>.<destination>`. While NATS is away the last known policies stay.
    pub(crate) fn follow_policies(&self, bus: &Bus) {
        if self.blueprint.calls.is_empty() {
            return;
        }
        let (bus, shutdown) = (bus.clone(), self.shutdown());
        let (blueprint, destinations) = (self.blueprint.clone(), self.destinations.clone());
        self.supervise("policies", move || {
            let (bus, shutdown) = (bus.clone(), shutdown.clone());
            let (blueprint, destinations) = (blueprint.clone(), destinations.clone());
            async move {
                bus.watch_bucket(POLICIES, shutdown, move |key, value| {
                    if let Some(name) = key.strip_prefix(&format!("{}.", blueprint.service)) {
                        tell(name, replace(&blueprint, &destinations, name, value.as_deref()));
                    }
                })
                .await
            }
        });
    }
}

/// Puts the blueprint's policy with this patch in force; without a patch the blueprint's own.
fn replace(
    blueprint: &Blueprint,
    destinations: &Destinations,
    name: &str,
    patch: Option<&[u8]>,
) -> Result<(), Ignored> {
    let call = blueprint.calls.get(name).ok_or(Ignored::Unknown)?;
    let destination = destinations.get(name).ok_or(Ignored::Unknown)?;
    let policy = match patch {
        Some(patch) => call.patched(&serde_json::from_slice(patch)?)?,
        None => call.policy,
    };
    Ok(destination.set_policy(&policy)?)
}

fn tell(destination: &str, replaced: Result<(), Ignored>) {
    match replaced {
        Ok(()) => tracing::info!(destination, "another policy is in force"),
        Err(error) => tracing::warn!(
            destination,
            error = &error as &dyn std::error::Error,
            "a policy is not followed; the one before stays"
        ),
    }
}

#[cfg(test)]
mod tests {
    use stampede_deadline::Clock;

    use super::*;

    const TEXT: &str = r#"
        service = "orders"
        kind = "logic"
        [calls.inventory]
        via = "rpc"
        functions = {}
        [calls.inventory.policy]
        deadline_ms = 1_000
        attempt_ms = 500
        breaker = { percent = 50, min_calls = 20, window_ms = 10_000, open_ms = 200, open_max_ms = 5_000, probes = 4 }
        bulkhead = { places = 7, waiting_max = 64, wait_ms = 100 }
    "#;

    #[test]
    fn a_patch_is_followed_and_what_makes_no_policy_leaves_the_last_one() {
        let blueprint = Blueprint::parse(TEXT).unwrap();
        let destinations = Destinations::try_new(blueprint.policies(), &Clock::system()).unwrap();
        let replace = |name, patch: Option<&[u8]>| replace(&blueprint, &destinations, name, patch);
        let places = || destinations.get("inventory").unwrap().policy().bulkhead.places;

        replace("inventory", Some(br#"{"bulkhead":{"places":3}}"#)).unwrap();
        assert_eq!(places(), 3);
        for wrong in [&b"no json"[..], br#"{"places":1}"#, br#"{"attempt_ms":2000}"#, b"null", b""] {
            assert!(replace("inventory", Some(wrong)).is_err(), "{wrong:?}");
            assert_eq!(places(), 3);
        }
        assert!(matches!(replace("catalog", Some(b"{}")), Err(Ignored::Unknown)));
        // The patch lies over the blueprint, not over the patch before it.
        replace("inventory", Some(br#"{"attempt_ms":400}"#)).unwrap();
        assert_eq!(places(), 7);
        replace("inventory", None).unwrap();
        assert_eq!(destinations.get("inventory").unwrap().policy(), blueprint.calls["inventory"].policy);
    }
}
