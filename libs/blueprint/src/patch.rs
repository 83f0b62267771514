//! A policy with some of its numbers replaced while the service runs.

use serde_json::Value;
use stampede_resilience::{DestinationPolicy, InvalidPolicy};

/// The patch makes no policy.
#[derive(Debug, thiserror::Error)]
pub enum InvalidPatch {
    /// It has fields that no policy has, or of another type.
    #[error(transparent)]
    Shape(#[from] serde_json::Error),
    /// The policy that it would make breaks a rule.
    #[error(transparent)]
    Policy(#[from] InvalidPolicy),
    /// It would have no effect.
    #[error("calls of this destination are made once: retry, hedge and budget have no effect")]
    Once,
}

/// `policy` with the fields that `patch` names replaced.
pub(crate) fn patched(policy: &DestinationPolicy, patch: &Value) -> Result<DestinationPolicy, InvalidPatch> {
    let mut merged = serde_json::to_value(policy)?;
    merge(&mut merged, patch);
    let policy: DestinationPolicy = serde_json::from_value(merged)?;
    policy.check()?;
    Ok(policy)
}

/// The algorithm of RFC 7396, section 2. Its depth is that of the patch, which serde bounds.
fn merge(target: &mut Value, patch: &Value) {
    let Value::Object(patch) = patch else {
        *target = patch.clone();
        return;
    };
    if !target.is_object() {
        *target = Value::Object(serde_json::Map::new());
    }
    if let Value::Object(target) = target {
        for (key, value) in patch {
            if value.is_null() {
                target.remove(key);
            } else {
                merge(target.entry(key.clone()).or_insert(Value::Null), value);
            }
        }
    }
}
