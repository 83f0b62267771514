//! Building what goes into images.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, bail, ensure};

use super::Architecture;
use crate::cargo::{self, Binaries};
use crate::infra::packages::Missing;
use crate::state;

/// The C library is linked in. With GNU's own, because musl's allocator is slow with many threads.
const STATIC: &str = "-C target-feature=+crt-static";

/// The first GNU C library that has its resolver for DNS within.
const LIBRARY_MIN: (u32, u32) = (2, 34);

const NO_COMPILER: Missing = Missing {
    what: "cc, the linker",
    debian: &["build-essential"],
    fedora: "sudo dnf install gcc",
    macos: "use deploy/Dockerfile",
};
const NO_LIBRARY: Missing = Missing {
    what: "libc.a, the C library for static programs",
    debian: &["libc6-dev"],
    fedora: "sudo dnf install glibc-static",
    macos: "use deploy/Dockerfile",
};

/// Builds all programs for release, linked statically; cargo shows its progress on standard error.
pub(crate) async fn build() -> anyhow::Result<Binaries> {
    let workspace = state::workspace().context("not inside a checkout, so there is nothing to build")?;
    let target = architecture(std::env::consts::OS, std::env::consts::ARCH)?.target();
    let cc = Command::new("cc").arg("-print-file-name=libc.a").output();
    library(&cc.with_context(|| NO_COMPILER.instructions())?.stdout)?;
    let version = Command::new("getconf").arg("GNU_LIBC_VERSION").output();
    resolves(&version.context("getconf cannot be started")?.stdout)?;
    let mut command = cargo::cargo();
    command.args(["build", "--locked", "--release", "--workspace", "--bins", "--target", target]);
    command.current_dir(workspace);
    // The target is named, so that the flag is not for procedural macros: the compiler loads them, and cannot if static.
    let flags = std::env::var("RUSTFLAGS").unwrap_or_default();
    command.env("RUSTFLAGS", format!("{flags} {STATIC}").trim()).env_remove("CARGO_ENCODED_RUSTFLAGS");
    // Without line tables and symbols: an image is for running, and small.
    command.envs([("CARGO_PROFILE_RELEASE_DEBUG", "false"), ("CARGO_PROFILE_RELEASE_STRIP", "symbols")]);
    cargo::programs(command).await
}

/// What containers on this machine run.
fn architecture(os: &str, arch: &str) -> anyhow::Result<Architecture> {
    match (os, arch) {
        ("linux", "x86_64") => Ok(Architecture::Amd64),
        ("linux", "aarch64") => Ok(Architecture::Arm64),
        _ => {
            bail!("images are built on Linux, x86_64 or aarch64; this is {os}, {arch}: use deploy/Dockerfile")
        }
    }
}

/// What `cc -print-file-name` says of a file: its path, or its bare name when there is none.
fn library(said: &[u8]) -> anyhow::Result<()> {
    let said = String::from_utf8_lossy(said);
    ensure!(Path::new(said.trim()).is_absolute(), NO_LIBRARY.instructions());
    Ok(())
}

/// What `getconf GNU_LIBC_VERSION` says. An older one loads its resolver when it is asked for a name, and an image has none.
fn resolves(said: &[u8]) -> anyhow::Result<()> {
    let said = String::from_utf8_lossy(said);
    let version = said.trim().strip_prefix("glibc ").and_then(|version| version.split_once('.'));
    let version = version.and_then(|(major, minor)| Some((major.parse().ok()?, minor.parse().ok()?)));
    ensure!(
        version.is_some_and(|version: (u32, u32)| version >= LIBRARY_MIN),
        "this C library is {:?}; static programs that look up names need GNU's, 2.34 or newer: use deploy/Dockerfile",
        said.trim()
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_library_that_would_look_for_a_resolver_is_refused() {
        resolves(b"glibc 2.36\n").unwrap();
        resolves(b"glibc 2.34\n").unwrap();
        for old in [&b"glibc 2.31\n"[..], b"", b"musl"] {
            assert!(resolves(old).unwrap_err().to_string().contains("deploy/Dockerfile"));
        }
    }

    #[test]
    fn a_missing_library_is_named_with_its_package() {
        library(b"/usr/lib/gcc/x86_64-linux-gnu/12/../../../x86_64-linux-gnu/libc.a\n").unwrap();
        let missing = library(b"libc.a\n").unwrap_err().to_string();
        assert!(missing.contains("apt-get install libc6-dev"), "{missing}");
    }

    #[test]
    fn elsewhere_there_is_the_dockerfile() {
        assert_eq!(architecture("linux", "aarch64").unwrap(), Architecture::Arm64);
        assert!(architecture("macos", "aarch64").unwrap_err().to_string().contains("deploy/Dockerfile"));
    }
}
