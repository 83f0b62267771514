//! How badly the provider behaves, changed while it runs.

use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use rand::RngExt;
use serde::{Deserialize, Serialize};

/// The longest latency, jitter and delay, in milliseconds.
const MILLIS_MAX: u32 = 600_000;

/// The settings. As JSON on the admin listener; what is left out is as in [`Knobs::default`].
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Knobs {
    /// How long every call takes at least.
    pub latency_ms: u32,
    /// How much longer at most; evenly spread.
    pub latency_jitter_ms: u32,
    /// The share of calls that fail with 500. Of those that change something, every other one has done it.
    pub error_rate: f64,
    /// The share of changing calls that are done and whose reply is lost: the connection breaks, or nothing comes.
    pub lost_reply_rate: f64,
    /// How long after the fact the merchant is told.
    pub webhook_delay_ms: u32,
    /// The share of webhooks that are sent twice.
    pub webhook_duplicate_rate: f64,
    /// The share of webhooks that are overtaken by later ones.
    pub webhook_shuffle_rate: f64,
    /// Every connection of the merchant breaks and nothing is done or told.
    pub down: bool,
}

impl Default for Knobs {
    /// A provider on a good day.
    fn default() -> Self {
        Self {
            latency_ms: 0,
            latency_jitter_ms: 0,
            error_rate: 0.0,
            lost_reply_rate: 0.0,
            webhook_delay_ms: 200,
            webhook_duplicate_rate: 0.0,
            webhook_shuffle_rate: 0.0,
            down: false,
        }
    }
}

/// A setting that makes no sense.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidKnobs {
    /// A share outside of 0 to 1.
    #[error("{0} must be between 0 and 1")]
    Rate(&'static str),
    /// A time that is too long.
    #[error("{0} must be at most {MILLIS_MAX}")]
    Millis(&'static str),
}

impl Knobs {
    /// Names the first setting that makes no sense.
    ///
    /// # Errors
    /// [`InvalidKnobs`].
    pub fn check(&self) -> Result<(), InvalidKnobs> {
        let rates = [
            ("error_rate", self.error_rate),
            ("lost_reply_rate", self.lost_reply_rate),
            ("webhook_duplicate_rate", self.webhook_duplicate_rate),
            ("webhook_shuffle_rate", self.webhook_shuffle_rate),
        ];
        let millis = [
            ("latency_ms", self.latency_ms),
            ("latency_jitter_ms", self.latency_jitter_ms),
            ("webhook_delay_ms", self.webhook_delay_ms),
        ];
        if let Some((name, _)) = rates.into_iter().find(|(_, rate)| !(0.0..=1.0).contains(rate)) {
            return Err(InvalidKnobs::Rate(name));
        }
        match millis.into_iter().find(|(_, millis)| *millis > MILLIS_MAX) {
            Some((name, _)) => Err(InvalidKnobs::Millis(name)),
            None => Ok(()),
        }
    }

    /// How long this call takes.
    pub fn latency(&self, rng: &mut impl RngExt) -> Duration {
        let jitter = rng.random_range(0..=self.latency_jitter_ms);
        Duration::from_millis(u64::from(self.latency_ms) + u64::from(jitter))
    }

    /// When the merchant is told of what happens now.
    pub fn webhook_delay(&self) -> Duration {
        Duration::from_millis(self.webhook_delay_ms.into())
    }
}

/// The settings as they are now. A handle: clones show the same.
#[derive(Debug, Clone, Default)]
pub struct Panel(Arc<RwLock<Knobs>>);

impl Panel {
    /// A copy of the settings.
    pub fn read(&self) -> Knobs {
        *self.0.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Replaces all settings.
    ///
    /// # Errors
    /// [`InvalidKnobs`]; then nothing changes.
    pub fn set(&self, knobs: Knobs) -> Result<(), InvalidKnobs> {
        knobs.check()?;
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = knobs;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_makes_no_sense_is_named_and_changes_nothing() {
        let panel = Panel::default();
        let wrong = Knobs { lost_reply_rate: 1.5, ..Knobs::default() };
        assert_eq!(panel.set(wrong), Err(InvalidKnobs::Rate("lost_reply_rate")));
        let wrong = Knobs { error_rate: f64::NAN, ..Knobs::default() };
        assert_eq!(panel.set(wrong), Err(InvalidKnobs::Rate("error_rate")));
        let wrong = Knobs { latency_ms: MILLIS_MAX + 1, ..Knobs::default() };
        assert_eq!(panel.set(wrong), Err(InvalidKnobs::Millis("latency_ms")));
        assert_eq!(panel.read(), Knobs::default());
    }

    #[test]
    fn what_is_left_out_is_as_on_a_good_day() {
        let knobs: Knobs = serde_json::from_str(r#"{"down":true}"#).unwrap();
        assert_eq!(knobs, Knobs { down: true, ..Knobs::default() });
        assert!(serde_json::from_str::<Knobs>(r#"{"latency":1}"#).is_err());
    }
}
