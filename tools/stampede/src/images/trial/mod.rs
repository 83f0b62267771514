//! Each binary in its own root file system, as in a container: what it says, and what it does while nobody is there.

mod inside;
mod jail;
mod names;
mod run;
mod service;
mod tool;

use std::time::Instant;

use anyhow::{Result, ensure};

use self::jail::{Jail, Namespaces};
use self::names::Names;
use crate::cargo::Binaries;
use crate::progress;
use crate::scratch::Scratch;
use crate::services::SERVICES;

/// Starts them one after the other; a line a binary and a check.
///
/// # Errors
/// When any of them did something else than it should, after all have been tried.
pub(crate) async fn run(binaries: &Binaries) -> Result<()> {
    let namespaces = Namespaces::check().await?;
    let names = Names::serve().await?;
    progress::say("\neach in its own root, where it finds nobody:");
    let mut wrong = 0;
    for image in super::all() {
        let scratch = Scratch::new("try")?;
        let jail = Jail::make(scratch.path(), &image, binaries, namespaces)?;
        let mut report = Report { who: image.name, wrong: 0 };
        match SERVICES.iter().find(|service| service.name == image.name) {
            Some(service) => service::checks(service, &jail, &names, &mut report).await?,
            None => tool::checks(&jail, &names, &mut report).await,
        }
        wrong += report.wrong;
    }
    ensure!(wrong == 0, "{wrong} checks failed; each has a line with `!`");
    Ok(())
}

/// What is told of one binary.
struct Report {
    who: &'static str,
    wrong: u32,
}

impl Report {
    /// Tells how a check ended that began then.
    fn tell(&mut self, began: Instant, outcome: Result<String>) {
        match outcome {
            Ok(seen) => progress::done(self.who, seen, began),
            Err(error) => {
                self.wrong += 1;
                progress::note(&format!("{}: {error:#}", self.who));
            }
        }
    }
}
