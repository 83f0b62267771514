//! Policies that are replaced while the service runs: the bucket `policies`, in which an operator writes.

use stampede_blueprint::{Blueprint, InvalidPatch, patched};
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
        Some(patch) => patched(&call.policy, &serde_json::from_slice(patch)?)?,
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
