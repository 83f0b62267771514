//! All blueprints of a checkout.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, ensure};
use stampede_blueprint::{Blueprint, Call, Guarantee, Offer};

/// Where services lie, and what plays third parties.
const SHELVES: [&str; 2] = ["services", "tools"];

/// The system: every service with its blueprint, by name.
#[derive(Debug, Default)]
pub(crate) struct System {
    pub(crate) services: BTreeMap<String, Service>,
}

/// A service.
#[derive(Debug)]
pub(crate) struct Service {
    /// Its folder.
    pub(crate) folder: PathBuf,
    pub(crate) blueprint: Blueprint,
}

impl System {
    /// Reads every `blueprint.toml`; a folder of services without one is a mistake.
    pub(crate) fn read(workspace: &Path) -> anyhow::Result<Self> {
        let mut services = BTreeMap::new();
        for shelf in SHELVES {
            for folder in folders(&workspace.join(shelf))? {
                let path = folder.join("blueprint.toml");
                if !path.exists() && shelf != "services" {
                    continue;
                }
                let text = fs::read_to_string(&path).with_context(|| {
                    format!("{} cannot be read; every service has one, see libs/blueprint", path.display())
                })?;
                let blueprint = Blueprint::parse(&text).with_context(|| path.display().to_string())?;
                let name = folder.file_name().unwrap_or_default().to_string_lossy().into_owned();
                ensure!(blueprint.service == name, "{} is that of {}", path.display(), blueprint.service);
                services.insert(name, Service { folder, blueprint });
            }
        }
        Ok(Self { services })
    }

    /// The service behind a destination, if it is one of ours.
    pub(crate) fn callee<'a>(&'a self, destination: &'a str, named: Option<&'a str>) -> Option<&'a Service> {
        self.services.get(named.unwrap_or(destination))
    }

    /// The functions that are called there, where it is one of ours.
    pub(crate) fn called<'a>(
        &'a self,
        destination: &'a str,
        call: &'a Call,
    ) -> impl Iterator<Item = &'a Offer> {
        let callee = self.callee(destination, call.service.as_deref());
        let offers = callee.map(|callee| &callee.blueprint.offers);
        call.functions.keys().filter_map(move |function| offers?.get(function))
    }

    /// Whether calls there may be hedged: only those that read are.
    pub(crate) fn is_hedged(&self, destination: &str, call: &Call) -> bool {
        call.is_repeated() && self.called(destination, call).any(|offer| offer.guarantee == Guarantee::Safe)
    }
}

fn folders(shelf: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let entries = fs::read_dir(shelf).with_context(|| format!("{} cannot be read", shelf.display()))?;
    let mut folders: Vec<PathBuf> =
        entries.filter_map(|entry| entry.ok().map(|entry| entry.path())).collect();
    folders.retain(|path| path.join("Cargo.toml").exists());
    folders.sort();
    Ok(folders)
}
