//! The user that Postgres runs as when we are root, which it refuses to be.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use anyhow::bail;

use crate::process::Account;

/// The first of these that the system knows: one made for us, the one that comes with Postgres' packages, and the
/// one everybody has.
const CANDIDATES: [&str; 4] = ["stampede", "postgres", "_postgres", "nobody"];

/// Whom to run Postgres as: `None` means as ourselves.
pub(crate) fn for_postgres() -> anyhow::Result<Option<Account>> {
    if !rustix::process::geteuid().is_root() {
        return Ok(None);
    }
    let passwd = fs::read_to_string("/etc/passwd").unwrap_or_default();
    match CANDIDATES.iter().find_map(|name| find(&passwd, name)) {
        Some(account) => Ok(Some(account)),
        None => bail!(
            "Postgres refuses to run as root, and there is none of the users {}; add one: useradd --system stampede",
            CANDIDATES.join(", ")
        ),
    }
}

/// One line of `passwd(5)`.
fn find(passwd: &str, name: &str) -> Option<Account> {
    let line = passwd.lines().find(|line| line.split(':').next() == Some(name))?;
    let mut fields = line.split(':').skip(2);
    let account = Account { uid: fields.next()?.parse().ok()?, gid: fields.next()?.parse().ok()? };
    (account.uid != 0).then_some(account)
}

impl Account {
    /// Whether this user may pass through the folder and all above it (by mode bits alone).
    pub(crate) fn reaches(self, folder: &Path) -> bool {
        folder.ancestors().all(|folder| {
            folder.metadata().is_ok_and(|meta| {
                let bit = if meta.uid() == self.uid {
                    0o100
                } else if meta.gid() == self.gid {
                    0o010
                } else {
                    0o001
                };
                meta.mode() & bit != 0
            })
        })
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use crate::scratch::Scratch;

    #[test]
    fn a_user_is_found_by_its_whole_name_and_root_is_no_answer() {
        let passwd =
            "root:x:0:0::/root:/bin/sh\nnobody2:x:7:7::/:/x\nnobody:x:65534:65533::/:/x\ntoor:x:0:0::/:/x\n";
        assert_eq!(find(passwd, "nobody"), Some(Account { uid: 65534, gid: 65533 }));
        assert_eq!(find(passwd, "postgres"), None);
        assert_eq!(find(passwd, "toor"), None);
    }

    #[test]
    fn a_closed_folder_on_the_way_keeps_a_stranger_out() {
        let scratch = Scratch::new("account").unwrap();
        let inner = scratch.path().join("inner");
        fs::create_dir(&inner).unwrap();
        let stranger = Account { uid: 4_000_000, gid: 4_000_000 };
        fs::set_permissions(scratch.path(), fs::Permissions::from_mode(0o711)).unwrap();
        assert!(stranger.reaches(&inner));
        fs::set_permissions(scratch.path(), fs::Permissions::from_mode(0o700)).unwrap();
        assert!(!stranger.reaches(&inner));
    }
}
