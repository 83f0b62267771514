//! From which commit an image is, and when that was made. Not when the image was: the same binaries make the same image.

use std::ffi::OsStr;
use std::path::Path;
use std::process::Command;

/// The time of an image of no commit.
const NO_TIME: &str = "1970-01-01T00:00:00Z";

/// See the module.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Stamp {
    /// RFC 3339.
    pub(crate) created: String,
    /// The commit; ends in `-dirty` when something was changed after it.
    pub(crate) revision: Option<String>,
}

impl Stamp {
    /// Of the checkout that we are in, if it is one of git.
    pub(crate) fn of(workspace: Option<&Path>) -> Self {
        let git = |args: &[&str]| git(workspace?, args);
        let revision = git(&["describe", "--always", "--abbrev=40", "--dirty", "--exclude=*"]);
        let created = git(&["log", "-1", "--date=iso-strict-local", "--format=%cd"]);
        Self { created: created.unwrap_or_else(|| NO_TIME.to_owned()), revision }
    }
}

fn git(workspace: &Path, args: &[impl AsRef<OsStr>]) -> Option<String> {
    let output = Command::new("git").args(args).current_dir(workspace).env("TZ", "UTC0").output().ok()?;
    let said = String::from_utf8(output.stdout).ok()?.trim().to_owned();
    (output.status.success() && !said.is_empty()).then_some(said)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scratch::Scratch;

    #[test]
    fn outside_of_a_checkout_there_is_no_commit() {
        let scratch = Scratch::new("stamp").unwrap();
        let none = Stamp { created: NO_TIME.to_owned(), revision: None };
        assert_eq!(Stamp::of(None), none);
        assert_eq!(Stamp::of(Some(scratch.path())), none);
    }

    #[test]
    fn a_commit_is_named_with_its_time_and_whether_it_is_all() {
        let scratch = Scratch::new("stamp").unwrap();
        let run = |args: &[&str]| {
            let mut command = Command::new("git");
            command.args(["-c", "user.name=x", "-c", "user.email=x@example.org"]).args(args);
            command.env("GIT_COMMITTER_DATE", "2030-01-31T21:00:00+01:00").current_dir(scratch.path());
            assert!(command.output().unwrap().status.success(), "{args:?}");
        };
        let file = scratch.path().join("file");
        run(&["init"]);
        std::fs::write(&file, "one").unwrap();
        run(&["add", "."]);
        run(&["commit", "--message", "one"]);
        let stamp = Stamp::of(Some(scratch.path()));
        // Newer ones of git write `Z`.
        assert_eq!(stamp.created.replace("+00:00", "Z"), "2030-01-31T20:00:00Z");
        let revision = stamp.revision.unwrap();
        assert_eq!(revision.len(), 40);
        std::fs::write(&file, "two").unwrap();
        assert_eq!(Stamp::of(Some(scratch.path())).revision, Some(format!("{revision}-dirty")));
    }
}
