//! `check`: the blueprints, held against each other, the contracts and the code.

use std::collections::BTreeMap;
use std::fs;
use std::process::ExitCode;

use anyhow::Context;

use super::blueprint::made;
use crate::blueprint::{Code, Contracts, System, locks, violations};
use crate::{progress, state};

pub(crate) fn run() -> anyhow::Result<ExitCode> {
    let workspace = state::workspace().context("not inside a checkout of Stampede")?;
    let (system, contracts) = (System::read(&workspace)?, Contracts::read(&workspace)?);
    let code = system.services.iter().map(|(name, service)| Ok((name.clone(), Code::read(&service.folder)?)));
    let code = code.collect::<anyhow::Result<BTreeMap<_, _>>>()?;
    let mut broken = violations(&system, &contracts, &code);
    for (name, service) in &system.services {
        broken.extend(locks(name, &service.folder)?);
    }
    for (path, meant) in made(&system) {
        if fs::read_to_string(workspace.join(path)).unwrap_or_default() != meant {
            broken.push(format!(
                "{path} is not that of blueprints and contracts: `cargo stampede blueprint --write` makes it anew"
            ));
        }
    }
    if broken.is_empty() {
        let functions: usize = system.services.values().map(|service| service.blueprint.offers.len()).sum();
        progress::say(format_args!(
            "blueprints: {} services, {functions} functions; code, contracts and rights agree with them",
            system.services.len()
        ));
        return Ok(ExitCode::SUCCESS);
    }
    for sentence in &broken {
        progress::say(sentence);
    }
    progress::say(format_args!("\n{} differences; see libs/blueprint", broken.len()));
    Ok(ExitCode::FAILURE)
}
