//! What can be wrong with a file.

use stampede_resilience::InvalidPolicy;

/// A blueprint that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Invalid {
    /// It is not of the shape, or has an entry that nobody knows.
    #[error(transparent)]
    Shape(#[from] toml::de::Error),
    /// A command of another service.
    #[error("offers.{offer}: a service takes only commands of its own, cmd.<service>.<command>")]
    OthersCommand {
        /// The function.
        offer: String,
    },
    /// A request without a deadline, or a command with one.
    #[error("offers.{offer}: what somebody waits for needs deadline_ms, and a command has none")]
    Deadline {
        /// The function.
        offer: String,
    },
    /// A destination's policy.
    #[error("calls.{destination}.policy: {source}")]
    Policy {
        /// The destination.
        destination: String,
        /// The rule that it breaks.
        source: InvalidPolicy,
    },
}
