//! How much memory a process holds.

use std::fs;

/// Proportional set size (PSS) in bytes of a process and all below it: shared pages count for each process by its
/// share, so the figures of many processes may be added up. `None` where the system does not tell.
pub(crate) fn tree_pss(pid: u32) -> Option<u64> {
    let own = pss(pid)?;
    let below: u64 = children(pid).into_iter().filter_map(tree_pss).sum();
    Some(own + below)
}

fn pss(pid: u32) -> Option<u64> {
    parse_pss(&fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).ok()?)
}

fn parse_pss(rollup: &str) -> Option<u64> {
    let line = rollup.lines().find_map(|line| line.strip_prefix("Pss:"))?;
    let kibibytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kibibytes * 1024)
}

/// The direct children of a process.
pub(crate) fn children(pid: u32) -> Vec<u32> {
    // Each thread lists the children it made.
    let Ok(threads) = fs::read_dir(format!("/proc/{pid}/task")) else { return Vec::new() };
    threads
        .flatten()
        .filter_map(|thread| fs::read_to_string(thread.path().join("children")).ok())
        .flat_map(|list| list.split_ascii_whitespace().filter_map(|pid| pid.parse().ok()).collect::<Vec<_>>())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_table_is_read() {
        let rollup =
            "aaaa-bbbb ---p 00000000 00:00 0 [rollup]\nRss:  9000 kB\nPss:    4321 kB\nPss_Anon: 1 kB\n";
        assert_eq!(parse_pss(rollup), Some(4321 * 1024));
        assert_eq!(parse_pss("Rss: 1 kB"), None);
    }
}
