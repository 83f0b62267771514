//! Finding programs, and telling their versions.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::LazyLock;

/// The program of that name on PATH.
pub(crate) fn on_path(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|folder| folder.join(name)).find(|program| is_program(program))
}

/// `setpriv` of util-linux, if it can tie a child's life to ours.
pub(crate) fn setpriv() -> Option<&'static Path> {
    static FOUND: LazyLock<Option<PathBuf>> = LazyLock::new(|| {
        let program = on_path("setpriv")?;
        let help = Command::new(&program).arg("--help").output().ok()?;
        String::from_utf8_lossy(&help.stdout).contains("--pdeathsig").then_some(program)
    });
    FOUND.as_deref()
}

/// What a program says to `--version`, as numbers: `[15, 14]` for "postgres (PostgreSQL) 15.14 (Debian …)".
pub(crate) fn version(program: &Path) -> Option<Vec<u32>> {
    let output = Command::new(program).arg("--version").output().ok()?;
    first_version(&String::from_utf8_lossy(&output.stdout))
}

/// Numbers joined by points.
pub(crate) fn dotted(version: &[u32]) -> String {
    version.iter().map(u32::to_string).collect::<Vec<_>>().join(".")
}

fn first_version(text: &str) -> Option<Vec<u32>> {
    text.split_ascii_whitespace()
        .map(|word| word.trim_start_matches('v'))
        .find(|word| word.starts_with(|first: char| first.is_ascii_digit()))
        .map(|word| {
            let end = word.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(word.len());
            word[..end].split('.').filter_map(|number| number.parse().ok()).collect()
        })
}

fn is_program(path: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt;
    path.metadata().is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read_from_what_programs_really_say() {
        for (said, expected) in [
            ("postgres (PostgreSQL) 15.14 (Debian 15.14-0+deb12u1)", vec![15, 14]),
            ("postgres (PostgreSQL) 18beta2", vec![18]),
            ("nats-server: v2.15.1", vec![2, 15, 1]),
            ("nats-server: v2.14.0-RC.3", vec![2, 14, 0]),
            ("Python 3.11.7", vec![3, 11, 7]),
        ] {
            assert_eq!(first_version(said), Some(expected), "{said}");
        }
        assert_eq!(first_version("no number here"), None);
        assert!(vec![2, 9, 9] < vec![2, 12]);
    }

    #[test]
    fn a_program_is_a_file_that_can_be_run() {
        assert!(on_path("sh").is_some());
        assert!(on_path("no-such-program-anywhere").is_none());
        assert!(!is_program(Path::new("/etc/passwd")));
        assert!(!is_program(Path::new("/")));
    }
}
