//! Container images: one static program, the authorities it trusts, and nothing else.

pub(crate) mod archive;
pub(crate) mod build;
mod elf;
pub(crate) mod engine;
pub(crate) mod root;
pub(crate) mod stamp;
pub(crate) mod trial;

use std::fmt;
use std::path::Path;

use anyhow::ensure;

pub(crate) use self::elf::{Architecture, inspect};
use crate::cargo::Binaries;
use crate::services::SERVICES;

/// Every image has the workspace's version.
pub(crate) const VERSION: &str = env!("CARGO_PKG_VERSION");
/// The user of every image: nobody's on any machine, so that a way out of a container leads to no account.
pub(crate) const USER: u32 = 65_532;
/// What the files of an image may hold together, in bytes.
const SIZE_MAX: u64 = 30_000_000;

/// What an image is made of.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Image {
    pub(crate) name: &'static str,
    /// Cargo's package, and its binary's name.
    pub(crate) package: &'static str,
}

/// The services, and this program: `provision`, `load` and `verify` run in a cluster too.
pub(crate) fn all() -> impl Iterator<Item = Image> {
    let services = SERVICES.iter().map(|service| Image { name: service.name, package: service.package });
    services.chain([Image { name: "stampede", package: "stampede" }])
}

impl Image {
    /// Makes its root file system, a folder that must not be there, and says for which processor it is.
    pub(crate) fn make_root(&self, binaries: &Binaries, root: &Path) -> anyhow::Result<Architecture> {
        let program = binaries.program(self.package);
        let architecture = inspect(&program)?;
        root::make(root, &program)?;
        Ok(architecture)
    }

    /// The size of its root file system, in bytes.
    ///
    /// # Errors
    /// When that is more than an image may hold.
    pub(crate) fn size(&self, root: &Path) -> anyhow::Result<u64> {
        let size = root::size(root)?;
        ensure!(
            size < SIZE_MAX,
            "{self} has {size} bytes, and {SIZE_MAX} is too many; a release build without line tables has fewer: leave --no-build out"
        );
        Ok(size)
    }
}

/// Its full name. `localhost` is nobody's registry, so a node that lacks the image asks no stranger for it.
impl fmt::Display for Image {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "localhost/stampede/{}:{VERSION}", self.name)
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::scratch::Scratch;

    #[test]
    fn an_image_may_not_be_large() {
        let scratch = Scratch::new("size").unwrap();
        let image = all().last().unwrap();
        let file = fs::File::create(scratch.path().join("app")).unwrap();
        file.set_len(SIZE_MAX - 1).unwrap();
        assert_eq!(image.size(scratch.path()).unwrap(), SIZE_MAX - 1);
        file.set_len(SIZE_MAX).unwrap();
        let refused = image.size(scratch.path()).unwrap_err().to_string();
        assert!(refused.starts_with("localhost/stampede/stampede:"), "{refused}");
    }
}
