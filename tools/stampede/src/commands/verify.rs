//! `stampede verify`: whether what must always hold does hold.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use clap::Args;

use crate::commands::kind::forward::Forward;
use crate::commands::kind::reach::Cluster;
use crate::progress;
use crate::provision::OPERATOR;
use crate::state::StateDir;
use crate::verify::{self, Elsewhere, Options, Restless, Sources};

/// Hold databases, ledgers, streams, logs and what buyers were told against what must always hold.
#[derive(Debug, Default, Args)]
#[group(skip)]
pub struct Verify {
    /// What buyers were told: a file that `load` wrote; may be given several times [default: all in the state folder]
    #[arg(long, value_name = "FILE")]
    pub history: Vec<PathBuf>,
    /// How long to wait until everything has come to rest, such as 90s or 5m [default: 2m, or 0 with --younger-than]
    #[arg(long, value_name = "TIME", value_parser = duration)]
    pub settle_within: Option<Duration>,
    /// Leave out what is younger, such as 30s or 15m, instead of waiting for it.
    #[arg(long, value_name = "TIME", value_parser = duration)]
    pub younger_than: Option<Duration>,
    /// A platform in a cluster, by the name of its context in kubectl, which forwards ports and reads passwords meanwhile.
    #[arg(long, value_name = "NAME", conflicts_with = "database_url")]
    pub context: Option<String>,
    /// A platform that `up` does not run: its Postgres, as a role that may read every database, whose names are put in.
    #[arg(long, value_name = "URL", env = "VERIFIER_DATABASE_URL", hide_env_values = true, requires_all = ["nats_url", "nats_password"])]
    pub database_url: Option<String>,
    /// Its NATS.
    #[arg(long, value_name = "URL", env = "STAMPEDE_NATS_URL")]
    pub nats_url: Option<String>,
    /// The user there that may read every stream.
    #[arg(long, env = "STAMPEDE_NATS_USER", default_value = OPERATOR)]
    pub nats_user: String,
    /// That user's password; better in the environment than on the command line.
    #[arg(long, env = "NATS_PASSWORD", hide_env_values = true)]
    pub nats_password: Option<String>,
}

impl Verify {
    /// Verifies a platform: the one that was named, or else the one that runs in the state folder. The exit code is 1 when a
    /// rule is broken.
    ///
    /// # Errors
    /// When nothing runs there, or something cannot be read.
    pub async fn run(self, state: &StateDir) -> Result<ExitCode> {
        let began = Instant::now();
        let forwards = match &self.context {
            Some(context) => Some((Cluster(context).postgres().await?, Cluster(context).nats().await?)),
            None => None,
        };
        let place = forwards.as_ref().map(in_cluster).or_else(|| self.elsewhere());
        let mut sources = match place {
            Some(place) => Sources::elsewhere(&place, state).await?,
            None => Sources::of(state).await?,
        };
        let options = self.options();
        if !self.history.is_empty() {
            sources.histories = self.history;
        }
        let report = verify::verify(&sources, &options, waiting).await?;
        progress::say(format_args!("{report}, in {:.1} s", began.elapsed().as_secs_f64()));
        Ok(if report.holds() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }

    fn elsewhere(&self) -> Option<Elsewhere> {
        Some(Elsewhere {
            database_url: self.database_url.clone()?,
            nats_url: self.nats_url.clone()?,
            nats_user: self.nats_user.clone(),
            nats_password: self.nats_password.clone()?,
        })
    }

    fn options(&self) -> Options {
        let default = Options::default();
        let settle_within = match self.younger_than {
            Some(_) => Duration::ZERO,
            None => default.settle_within,
        };
        Options {
            settle_within: self.settle_within.unwrap_or(settle_within),
            younger_than: self.younger_than.unwrap_or(default.younger_than),
        }
    }
}

/// By a URL of its databases, and a port that leads to NATS.
fn in_cluster(((_, database_url), (nats, password)): &((Forward, String), (Forward, String))) -> Elsewhere {
    Elsewhere {
        database_url: database_url.clone(),
        nats_url: format!("nats://127.0.0.1:{}", nats.port),
        nats_user: OPERATOR.to_owned(),
        nats_password: password.clone(),
    }
}

fn waiting(restless: &Restless) {
    let left: Vec<String> = restless.iter().map(|(number, what)| format!("{number} {what}")).collect();
    let left = if left.is_empty() { "everything has come to rest".to_owned() } else { left.join(", ") };
    progress::say(format_args!("  {left}"));
}

/// `90s`, `5m`, `1h`, `500ms`; a number alone means seconds.
fn duration(text: &str) -> Result<Duration> {
    let number = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let seconds = match &text[number.len()..] {
        "ms" => 0.001,
        "s" | "" => 1.0,
        "m" => 60.0,
        "h" => 3_600.0,
        unit => anyhow::bail!("{unit:?} is none of ms, s, m and h"),
    };
    let number: f64 = number.parse().with_context(|| format!("{text:?} is no time such as 90s or 5m"))?;
    Duration::try_from_secs_f64(number * seconds).with_context(|| format!("{text:?} is no time"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_units() {
        for (text, millis) in
            [("90s", 90_000), ("90", 90_000), ("1.5m", 90_000), ("1h", 3_600_000), ("5ms", 5)]
        {
            assert_eq!(duration(text).unwrap(), Duration::from_millis(millis), "{text}");
        }
        for wrong in ["", "s", "-1s", "5d", "1s2", "infs"] {
            assert!(duration(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn who_leaves_out_the_young_does_not_wait() {
        let verify = |younger_than: Option<Duration>| Verify {
            history: Vec::new(),
            settle_within: None,
            younger_than,
            context: None,
            database_url: None,
            nats_url: None,
            nats_user: OPERATOR.to_owned(),
            nats_password: None,
        };
        assert_eq!(verify(None).options(), Options::default());
        let leaving_out = verify(Some(Duration::from_secs(30))).options();
        assert_eq!(leaving_out.settle_within, Duration::ZERO);
    }
}
