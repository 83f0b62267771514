//! The root file system of an image, as a folder.

use std::fs::{self, DirBuilder, Permissions};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, ensure};

use crate::infra::packages::Missing;

/// The program, in every image.
pub(crate) const PROGRAM: &str = "app";
/// Where rustls looks for the authorities that it trusts.
const AUTHORITIES: &str = "etc/ssl/certs/ca-certificates.crt";
/// Where a machine has them: Debian and most others, Fedora.
const MACHINES: [&str; 2] = ["/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt"];

const NO_AUTHORITIES: Missing = Missing {
    what: "the list of certificate authorities",
    debian: &["ca-certificates"],
    fedora: "sudo dnf install ca-certificates",
    macos: "build in Linux, or with deploy/Dockerfile",
};

/// Makes it. There is neither `/etc/passwd` nor time zone data: nothing asks for a user's name, and all times are UTC.
///
/// # Errors
/// When the folder is there already: what else lies in it would get into the image.
pub(crate) fn make(root: &Path, program: &Path) -> anyhow::Result<()> {
    ensure!(!root.exists(), "{0} is there already; delete it first: rm -r {0}", root.display());
    let machine = MACHINES.map(Path::new).into_iter().find(|path| path.is_file());
    let machine = machine.with_context(|| NO_AUTHORITIES.instructions())?;
    for (inside, from, mode) in [(PROGRAM, program, 0o755), (AUTHORITIES, machine, 0o644)] {
        let to = root.join(inside);
        folders(&to)?;
        fs::copy(from, &to).with_context(|| format!("cannot copy {} to {}", from.display(), to.display()))?;
        fs::set_permissions(&to, Permissions::from_mode(mode))?;
    }
    Ok(())
}

/// All folders above a path, open to everybody whatever our umask is.
fn folders(path: &Path) -> anyhow::Result<()> {
    let missing: Vec<&Path> = path.ancestors().skip(1).take_while(|folder| !folder.exists()).collect();
    for folder in missing.into_iter().rev() {
        DirBuilder::new()
            .mode(0o755)
            .create(folder)
            .with_context(|| format!("cannot make {}", folder.display()))?;
        fs::set_permissions(folder, Permissions::from_mode(0o755))?;
    }
    Ok(())
}

/// Everything below a folder, in the order of names, a folder before what lies in it.
pub(crate) fn entries(folder: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let found = fs::read_dir(folder).with_context(|| format!("cannot read {}", folder.display()))?;
    let mut found = found.map(|entry| Ok(entry?.path())).collect::<anyhow::Result<Vec<_>>>()?;
    found.sort_unstable();
    let mut all = Vec::new();
    for path in found {
        let below = if path.is_dir() { entries(&path)? } else { Vec::new() };
        all.push(path);
        all.extend(below);
    }
    Ok(all)
}

/// What the files hold together, in bytes.
pub(crate) fn size(root: &Path) -> anyhow::Result<u64> {
    let files = entries(root)?.into_iter().filter(|path| path.is_file());
    files.map(|path| Ok(path.metadata()?.len())).sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scratch::Scratch;

    #[test]
    #[cfg(target_os = "linux")]
    fn it_holds_the_program_and_whom_it_trusts_open_to_everybody() {
        let scratch = Scratch::new("root").unwrap();
        let program = scratch.path().join("program");
        fs::write(&program, "text").unwrap();
        fs::set_permissions(&program, Permissions::from_mode(0o600)).unwrap();
        let root = scratch.path().join("roots/name");
        make(&root, &program).unwrap();
        let entries = entries(&root).unwrap();
        let shown: Vec<_> = entries
            .iter()
            .map(|path| {
                let mode = path.metadata().unwrap().permissions().mode() & 0o7777;
                (path.strip_prefix(&root).unwrap().to_str().unwrap(), mode)
            })
            .collect();
        assert_eq!(
            shown,
            [
                ("app", 0o755),
                ("etc", 0o755),
                ("etc/ssl", 0o755),
                ("etc/ssl/certs", 0o755),
                (AUTHORITIES, 0o644)
            ]
        );
        assert_eq!(size(&root).unwrap(), 4 + root.join(AUTHORITIES).metadata().unwrap().len());
        let again = make(&root, &program).unwrap_err().to_string();
        assert!(again.contains("rm -r"), "{again}");
    }
}
