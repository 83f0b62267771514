//! `policies`: how services call each other, while they do.

use std::collections::BTreeMap;
use std::process::ExitCode;

use anyhow::{Context, Result, bail, ensure};
use async_nats::jetstream::kv::Store;
use clap::{Args, Subcommand};
use futures::TryStreamExt;
use serde_json::{Map, Value};
use stampede_blueprint::Call;
use stampede_bus::Bus;
use stampede_contracts::topology::POLICIES;

use crate::blueprint::{System, calls};
use crate::cli::Operated;
use crate::commands::kind::forward::Forward;
use crate::{progress, state};

/// What to do with policies.
#[derive(Debug, Subcommand)]
pub(crate) enum Policies {
    /// Show all that are in force, and what was replaced.
    List(Operated),
    /// Replace numbers of one, for example: set gateway.orders bulkhead.places=8 attempt_ms=2000
    ///
    /// Running replicas follow within a moment, later ones when they start. `stack=off` leaves all layers out.
    Set(Set),
    /// Put the blueprint's policy in force again.
    Reset(Reset),
}

#[derive(Debug, Args)]
pub(crate) struct Set {
    #[command(flatten)]
    operated: Operated,
    /// Whose policy, as `list` shows it
    #[arg(value_name = "SERVICE.DESTINATION")]
    which: String,
    /// What to replace
    #[arg(value_name = "FIELD=VALUE", required = true, value_parser = field)]
    fields: Vec<Field>,
}

#[derive(Debug, Args)]
pub(crate) struct Reset {
    #[command(flatten)]
    operated: Operated,
    /// Whose policy, as `list` shows it
    #[arg(value_name = "SERVICE.DESTINATION")]
    which: String,
}

/// A field of a policy, by its path, and its new value.
#[derive(Debug, Clone, PartialEq)]
struct Field {
    path: Vec<String>,
    value: Value,
}

impl Policies {
    pub(crate) async fn run(&self) -> Result<ExitCode> {
        let workspace = state::workspace().context("not inside a checkout of Stampede")?;
        let system = System::read(&workspace)?;
        match self {
            Self::List(operated) => {
                let (bus, _forward) = connect(operated).await?;
                list(system, &open(&bus).await?).await?;
            }
            Self::Set(Set { operated, which, fields }) => {
                let call = settable(&system, which, fields)?;
                let (bus, _forward) = connect(operated).await?;
                set(call, &open(&bus).await?, which, fields).await?;
            }
            Self::Reset(Reset { operated, which }) => {
                call(&system, which)?;
                let (bus, _forward) = connect(operated).await?;
                open(&bus).await?.delete(which).await.context("the bucket does not take it")?;
                progress::say(format_args!("{which}: as in the blueprint"));
            }
        }
        Ok(ExitCode::SUCCESS)
    }
}

async fn list(mut system: System, store: &Store) -> Result<()> {
    let mut replaced = BTreeMap::new();
    let keys: Vec<String> = store.keys().await?.try_collect().await?;
    for key in keys {
        let Some(value) = store.get(&key).await? else { continue };
        let patch = serde_json::from_slice(&value).with_context(|| format!("{key} holds no JSON"))?;
        replaced.insert(key, patch);
    }
    for (name, service) in &mut system.services {
        for (destination, call) in &mut service.blueprint.calls {
            if let Some(patch) = replaced.get(&format!("{name}.{destination}")) {
                call.policy = call.patched(patch).with_context(|| {
                    format!("{name}.{destination} is not followed by the service: {patch}")
                })?;
            }
        }
    }
    progress::say(calls(&system).trim_end());
    for (key, patch) in &replaced {
        progress::say(format_args!("replaced: {key} {patch}"));
    }
    Ok(())
}

async fn set(call: &Call, store: &Store, which: &str, fields: &[Field]) -> Result<()> {
    // What was replaced before stays so.
    let before = store.get(which).await?.map(|value| serde_json::from_slice(&value)).transpose();
    let mut patch = before.ok().flatten().unwrap_or_else(|| Value::Object(Map::new()));
    for Field { path, value } in fields {
        let mut at = &mut patch;
        for name in path {
            if !at.is_object() {
                *at = Value::Object(Map::new());
            }
            let Value::Object(object) = at else {
                bail!("{which}: its replacements cannot be changed; reset them")
            };
            at = object.entry(name.clone()).or_insert(Value::Null);
        }
        *at = value.clone();
    }
    call.patched(&patch).with_context(|| format!("{which}: this makes no policy"))?;
    store.put(which, patch.to_string().into()).await.context("the bucket does not take it")?;
    progress::say(format_args!("{which}: {patch}"));
    Ok(())
}

/// The entry of a blueprint that a policy belongs to.
fn call<'a>(system: &'a System, which: &str) -> Result<&'a Call> {
    let found = which
        .split_once('.')
        .and_then(|(service, destination)| system.services.get(service)?.blueprint.calls.get(destination));
    let all = system.services.iter().flat_map(|(name, service)| {
        service.blueprint.calls.keys().map(move |destination| format!("{name}.{destination}"))
    });
    found.with_context(|| format!("there is no {which}; there are {}", all.collect::<Vec<_>>().join(", ")))
}

/// The same, for these fields.
fn settable<'a>(system: &'a System, which: &str, fields: &[Field]) -> Result<&'a Call> {
    let call = call(system, which)?;
    let (_, destination) = which.split_once('.').unwrap_or_default();
    ensure!(
        fields.iter().all(|field| field.path[0] != "hedge") || system.is_hedged(destination, call),
        "{which}: hedge has no effect, because only reads are hedged and no function called there is one"
    );
    Ok(call)
}

async fn connect(operated: &Operated) -> Result<(Bus, Option<Forward>)> {
    operated.bus("policies").await.context("policies are in NATS")
}

pub(crate) async fn open(bus: &Bus) -> Result<Store> {
    bus.jetstream()
        .get_key_value(POLICIES)
        .await
        .context("there is no bucket `policies`: `cargo stampede provision` makes it")
}

/// `bulkhead.places=8`.
fn field(text: &str) -> Result<Field> {
    let (path, value) =
        text.split_once('=').context("expected FIELD=VALUE, for example bulkhead.places=8")?;
    let path: Vec<String> = path.split('.').map(str::to_owned).collect();
    ensure!(path.iter().all(|name| !name.is_empty()), "{text:?} names no field");
    // A number or true is one; whatever else is a word.
    let value = serde_json::from_str(value).unwrap_or_else(|_| Value::String(value.to_owned()));
    Ok(Field { path, value })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn hedges_are_set_only_where_something_is_read() {
        let system = System::read(&state::workspace().unwrap()).unwrap();
        let set = |which, text| settable(&system, which, &[field(text).unwrap()]).map(|_| ());
        for keyed in ["orders.inventory", "lobby.inventory", "payments.provider"] {
            let error = set(keyed, "hedge.delay_min_ms=50").unwrap_err().to_string();
            assert!(error.contains("hedge has no effect"), "{error}");
            set(keyed, "attempt_ms=50").unwrap();
        }
        for read in ["gateway.catalog", "gateway.inventory", "notify.orders"] {
            set(read, "hedge.delay_min_ms=50").unwrap();
        }
    }

    #[test]
    fn fields_are_read() {
        let read = |text| field(text).unwrap();
        assert_eq!(read("a.b=8"), Field { path: vec!["a".into(), "b".into()], value: json!(8) });
        assert_eq!(read("stack=off").value, json!("off"));
        for wrong in ["a", "=1", "a..b=1", ".=1"] {
            assert!(field(wrong).is_err(), "{wrong}");
        }
    }
}
