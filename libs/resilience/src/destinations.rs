//! All destinations of a process, by name.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};

use stampede_deadline::Clock;

use crate::{Destination, DestinationPolicy, InvalidPolicy};

/// The destinations that a process calls. A handle: clones share them, and so one circuit, one budget and one set of
/// places for each.
#[derive(Clone, Debug, Default)]
pub struct Destinations(Arc<Known>);

#[derive(Debug, Default)]
struct Known {
    /// Those with a policy of their own. Nobody comes later, so looking one up takes no lock.
    named: BTreeMap<Box<str>, Destination<()>>,
    /// Those of programs without policies: tests and tools. Their number is that of the names in the program.
    others: Mutex<HashMap<&'static str, Destination<()>>>,
}

/// A policy that cannot be kept.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{destination}: {source}")]
pub struct InvalidDestination {
    /// Whose.
    pub destination: String,
    /// The rule that it breaks.
    pub source: InvalidPolicy,
}

impl Destinations {
    /// One for each policy.
    ///
    /// # Errors
    /// [`InvalidDestination`] names the first that cannot be made.
    pub fn try_new<'a>(
        policies: impl IntoIterator<Item = (&'a str, &'a DestinationPolicy)>,
        clock: &Clock,
    ) -> Result<Self, InvalidDestination> {
        let mut named = BTreeMap::new();
        for (name, policy) in policies {
            let destination = Destination::try_new(name, policy, clock.clone())
                .map_err(|source| InvalidDestination { destination: name.to_owned(), source })?;
            named.insert(name.into(), destination);
        }
        Ok(Self(Arc::new(Known { named, others: Mutex::default() })))
    }

    /// The destination of this name, if it has a policy.
    pub fn get(&self, name: &str) -> Option<Destination<()>> {
        self.0.named.get(name).cloned()
    }

    /// The destination of this name; one without a policy gets this one at its first call.
    ///
    /// # Errors
    /// [`InvalidPolicy`] of `policy`.
    pub fn get_or(
        &self,
        name: &'static str,
        policy: &DestinationPolicy,
    ) -> Result<Destination<()>, InvalidPolicy> {
        if let Some(named) = self.0.named.get(name) {
            return Ok(named.clone());
        }
        let mut others = self.0.others.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = others.get(name) {
            return Ok(known.clone());
        }
        let made = Destination::try_new(name, policy, Clock::system())?;
        others.insert(name, made.clone());
        Ok(made)
    }
}
