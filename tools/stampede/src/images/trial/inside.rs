//! What a process is, seen through `/proc`: what it says itself would be only its word.

use std::fs;

use anyhow::{Context, Result, ensure};

use crate::images::USER;

/// Sees to it that the process is the user of images, has no power of root, and that its root file system is read-only.
pub(super) fn check(pid: u32) -> Result<()> {
    let read = |file: &str| {
        let path = format!("/proc/{pid}/{file}");
        fs::read_to_string(&path).with_context(|| format!("cannot read {path}"))
    };
    let status = read("status")?;
    let user = user(&status, &read("uid_map")?).context("it has no user")?;
    ensure!(user == USER, "it is user {user}, not {USER}");
    let powers = field(&status, "CapEff:").context("its capabilities are not known")?;
    ensure!(powers.chars().all(|digit| digit == '0'), "it has capabilities: {powers}");
    ensure!(is_read_only(&read("mountinfo")?), "its root file system can be written to");
    Ok(())
}

/// The user as the process sees it: the kernel shows us our own view.
fn user(status: &str, map: &str) -> Option<u32> {
    let outside: u32 = field(status, "Uid:")?.parse().ok()?;
    map.lines().find_map(|line| {
        let numbers: Vec<u32> = line.split_whitespace().filter_map(|number| number.parse().ok()).collect();
        let &[inside, first, count] = &numbers[..] else { return None };
        let offset = outside.checked_sub(first).filter(|offset| *offset < count)?;
        inside.checked_add(offset)
    })
}

/// The first word of a line of `status`.
fn field<'a>(status: &'a str, name: &str) -> Option<&'a str> {
    status.lines().find_map(|line| line.strip_prefix(name))?.split_whitespace().next()
}

/// Whether the last mount at `/` is read-only, as in proc(5).
fn is_read_only(mounts: &str) -> bool {
    let mut at_root = mounts.lines().filter_map(|line| {
        let fields: Vec<&str> = line.split(' ').collect();
        (*fields.get(4)? == "/").then(|| fields.get(5).copied())?
    });
    at_root.next_back().is_some_and(|options| options.split(',').any(|option| option == "ro"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_is_seen_from_inside_whether_root_started_it_or_not() {
        let status = |uid: u32| format!("Name:\tapp\nUid:\t{uid}\t0\t0\t0\n");
        assert_eq!(user(&status(65_532), "         0          0 4294967295\n"), Some(65_532));
        assert_eq!(user(&status(1_000), "     65532       1000          1\n"), Some(65_532));
        assert_eq!(user(&status(1_001), "     65532       1000          1\n"), None);
        assert_eq!(user(&status(0), "         0          0 4294967295\n"), Some(0));
    }

    #[test]
    fn the_root_is_read_only_when_its_last_mount_is() {
        let line = |place: &str, options: &str| {
            format!("36 35 98:0 / {place} {options} shared:1 - ext4 /dev/a rw\n")
        };
        assert!(is_read_only(&(line("/", "rw,noatime") + &line("/", "ro,noatime"))));
        assert!(!is_read_only(&line("/", "rw,errors=ro")));
        assert!(!is_read_only(&line("/dev", "ro")));
    }

    #[test]
    fn we_are_not_such_a_process() {
        assert!(check(std::process::id()).is_err());
    }
}
