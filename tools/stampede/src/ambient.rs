//! Variables of other programs that would change what ours do, dropped before anything happens.
//!
//! sqlx takes from libpq's variables whatever a URL leaves out; pip, Python and git (which sets its own for a hook) read theirs.
//! Proxies are not here: what installs packages may need them, and our own clients never use one (`http::builder`).
//! And the limit of open files, which a shell sets low.

use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};
use std::io;
use std::os::unix::process::CommandExt;
use std::process::Command;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// As many as `load` needs for its buyers in flight, several times over.
const DESCRIPTORS_MAX: u64 = 65_536;
/// Beginnings of names.
const DROPPED: [&str; 6] = ["PG", "PIP_", "PYTHON", "GIT_DIR", "GIT_INDEX_FILE", "GIT_WORK_TREE"];
/// Where packages come from, and how they are reached, is the machine's to say.
const KEPT: [&str; 14] = [
    "PIP_CACHE_DIR",
    "PIP_CERT",
    "PIP_CLIENT_CERT",
    "PIP_CONFIG_FILE",
    "PIP_DEFAULT_TIMEOUT",
    "PIP_EXTRA_INDEX_URL",
    "PIP_FIND_LINKS",
    "PIP_INDEX_URL",
    "PIP_KEYRING_PROVIDER",
    "PIP_NO_INDEX",
    "PIP_PROXY",
    "PIP_RETRIES",
    "PIP_TIMEOUT",
    "PIP_TRUSTED_HOST",
];

/// Starts this program again without those variables, if there are any; otherwise returns.
///
/// # Errors
/// When the program cannot be started again.
pub fn drop_variables() -> io::Result<()> {
    let dropped = dropped(std::env::vars_os().map(|(name, _)| name));
    if dropped.is_empty() {
        return Ok(());
    }
    let mut again = Command::new(std::env::current_exe()?);
    again.args(std::env::args_os().skip(1));
    for name in &dropped {
        again.env_remove(name);
    }
    // Returns only if it failed.
    Err(again.exec())
}

/// Raises the soft limit of open files towards the hard one. It is often 1,024, and `load` has a connection for each buyer.
pub fn raise_descriptors() {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    let wanted = maximum.unwrap_or(u64::MAX).min(DESCRIPTORS_MAX);
    if current.is_some_and(|current| current < wanted) {
        // Refused, everything works but a large `load`, whose report names the error.
        let _ = setrlimit(Resource::Nofile, Rlimit { current: Some(wanted), maximum });
    }
}

fn dropped(names: impl Iterator<Item = OsString>) -> BTreeSet<OsString> {
    let begins =
        |name: &OsStr| DROPPED.iter().any(|start| name.as_encoded_bytes().starts_with(start.as_bytes()));
    names.filter(|name| begins(name) && KEPT.iter().all(|kept| name != kept)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_steers_other_programs_is_dropped_and_the_way_to_packages_is_kept() {
        let set = [
            "PATH",
            "PGOPTIONS",
            "PGSSLMODE",
            "PIP_USER",
            "PIP_INDEX_URL",
            "PYTHONHOME",
            "GIT_DIR",
            "http_proxy",
            "HOME",
        ];
        let dropped = dropped(set.iter().map(OsString::from));
        let expected = ["GIT_DIR", "PGOPTIONS", "PGSSLMODE", "PIP_USER", "PYTHONHOME"];
        assert_eq!(dropped.into_iter().collect::<Vec<_>>(), expected.map(OsString::from));
    }
}
