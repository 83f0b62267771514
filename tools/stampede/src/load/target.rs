//! Which hosts load may be sent to.

use std::net::ToSocketAddrs;

use anyhow::{Context, Result, bail, ensure};

/// Refuses a gateway or a provider that is not on this machine, unless the caller said twice that it is meant.
///
/// # Errors
/// When the address cannot be resolved, or is not a loopback address and was not allowed.
pub(super) fn check_loopback(url: &str, allowed: u8) -> Result<()> {
    let url = reqwest::Url::parse(url).with_context(|| format!("{url:?} is not a URL"))?;
    let host = url.host_str().context("the URL has no host")?.trim_matches(['[', ']']);
    let port = url.port_or_known_default().context("the URL has no port")?;
    let addresses: Vec<_> =
        (host, port).to_socket_addrs().with_context(|| format!("{host} is unknown"))?.collect();
    ensure!(!addresses.is_empty(), "{host} has no address");
    if addresses.iter().all(|address| address.ip().is_loopback()) {
        return Ok(());
    }
    match allowed {
        0 => bail!(
            "{host} is not this machine. A stampede hurts; if it is yours and you mean it, say --allow-remote twice"
        ),
        1 => bail!("{host} is not this machine; say --allow-remote once more if you really mean it"),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_this_machine_unless_told_twice() {
        for here in
            ["http://127.0.0.1:8080", "http://localhost:8080", "http://[::1]:8080", "http://127.8.8.8:1"]
        {
            assert!(check_loopback(here, 0).is_ok(), "{here}");
        }
        for elsewhere in ["http://192.0.2.1:8080", "http://0.0.0.0:8080", "https://192.0.2.1"] {
            assert!(check_loopback(elsewhere, 0).is_err(), "{elsewhere}");
            assert!(check_loopback(elsewhere, 1).is_err(), "{elsewhere}");
            assert!(check_loopback(elsewhere, 2).is_ok(), "{elsewhere}");
        }
        assert!(check_loopback("nonsense", 2).is_err());
    }
}
