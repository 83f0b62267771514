//! One service as its file describes it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use stampede_resilience::DestinationPolicy;

use crate::{Bucket, Call, Database, Invalid, Offer, Stream, Way};

/// What a service offers, whom it calls and how, and what it keeps.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Blueprint {
    /// Its name: that of its folder, its database, its user.
    pub service: String,
    /// Where it stands.
    pub kind: Kind,
    /// What others may ask of it, by the name of the function.
    #[serde(default)]
    pub offers: BTreeMap<String, Offer>,
    /// Whom it calls, by the name of the destination.
    #[serde(default)]
    pub calls: BTreeMap<String, Call>,
    /// Its database, if it has one.
    #[serde(default)]
    pub database: Option<Database>,
    /// The streams it publishes to or reads, by name.
    #[serde(default)]
    pub streams: BTreeMap<String, Stream>,
    /// The key-value buckets it writes or reads, by name.
    #[serde(default)]
    pub buckets: BTreeMap<String, Bucket>,
}

/// The kind of a node. Front-ends talk to logic only, and third parties are talked to by services only.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// Talks to clients, keeps nothing.
    FrontEnd,
    /// Decides.
    Logic,
    /// Does one thing for those that decide, such as talking to a third party.
    Service,
    /// A third party.
    Outside,
}

impl Kind {
    /// The word in the file.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::FrontEnd => "front-end",
            Self::Logic => "logic",
            Self::Service => "service",
            Self::Outside => "outside",
        }
    }
}

impl Blueprint {
    /// Reads and checks the text of a `blueprint.toml`.
    ///
    /// # Errors
    /// [`Invalid`] names the entry and the rule that it breaks.
    pub fn parse(text: &str) -> Result<Self, Invalid> {
        let blueprint: Self = toml::from_str(text)?;
        for (name, offer) in &blueprint.offers {
            let known = match &offer.by {
                Way::Command(subject) => subject.starts_with(&format!("cmd.{}.", blueprint.service)),
                Way::Rpc(_) | Way::Http { .. } => true,
            };
            if !known {
                return Err(Invalid::OthersCommand { offer: name.clone() });
            }
            if offer.deadline_ms.is_some() == matches!(offer.by, Way::Command(_)) {
                return Err(Invalid::Deadline { offer: name.clone() });
            }
        }
        for (name, call) in &blueprint.calls {
            call.policy.check().map_err(|source| Invalid::Policy { destination: name.clone(), source })?;
        }
        Ok(blueprint)
    }

    /// The policies of all destinations.
    pub fn policies(&self) -> impl Iterator<Item = (&str, &DestinationPolicy)> {
        self.calls.iter().map(|(name, call)| (name.as_str(), &call.policy))
    }

    /// The function behind a route of HTTP; `path` is its template, such as `/v1/shows/{show_id}`.
    pub fn route(&self, method: &str, path: &str) -> Option<(&str, &Offer)> {
        let asked =
            |offer: &Offer| matches!(&offer.by, Way::Http { method: m, path: p } if m == method && p == path);
        self.offers.iter().find(|(_, offer)| asked(offer)).map(|(name, offer)| (name.as_str(), offer))
    }
}
