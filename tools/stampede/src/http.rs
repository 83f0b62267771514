//! The HTTP clients of this program, and the URLs they are given.

use std::sync::LazyLock;
use std::time::Duration;

use anyhow::{Context, ensure};
use reqwest::{ClientBuilder, Url};

/// Everything we talk to is on this machine; what does not accept at once is not there.
const CONNECT_LIMIT: Duration = Duration::from_secs(2);

/// A clone of the client; all of them share its connections.
pub(crate) fn client() -> reqwest::Client {
    static CLIENT: LazyLock<reqwest::Client> =
        LazyLock::new(|| builder().connect_timeout(CONNECT_LIMIT).build().unwrap_or_default());
    CLIENT.clone()
}

/// What every client starts from: it goes straight to the address that it was given. A proxy that is meant for a browser or
/// for curl (`http_proxy`) cannot reach a loopback address, and would be sent the load that is not for it.
pub(crate) fn builder() -> ClientBuilder {
    // reqwest comes without a TLS provider; whichever was installed first serves.
    let _ = rustls::crypto::ring::default_provider().install_default();
    reqwest::Client::builder().no_proxy()
}

/// A base URL as a person types it, without the slash at its end.
pub(crate) fn base_url(text: &str) -> anyhow::Result<String> {
    let url =
        Url::parse(text).context("a URL begins with http:// or https://, as in http://127.0.0.1:8080")?;
    ensure!(matches!(url.scheme(), "http" | "https"), "{}:// is neither http:// nor https://", url.scheme());
    ensure!(url.username().is_empty() && url.password().is_none(), "a user or password does not belong here");
    ensure!(url.query().is_none() && url.fragment().is_none(), "what follows ? or # does not belong here");
    Ok(url.as_str().trim_end_matches('/').to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_base_url_has_no_slash_at_its_end() {
        for (typed, read) in [
            ("http://127.0.0.1:8080", "http://127.0.0.1:8080"),
            ("http://127.0.0.1:8080/", "http://127.0.0.1:8080"),
            ("HTTP://LocalHost:8080//", "http://localhost:8080"),
            ("https://tickets.example/shop/", "https://tickets.example/shop"),
            ("http://[::1]:8080/", "http://[::1]:8080"),
        ] {
            assert_eq!(base_url(typed).unwrap(), read, "{typed}");
        }
        for wrong in [
            "",
            "localhost",
            "localhost:8080",
            "127.0.0.1:8080",
            "ftp://x",
            "http://",
            "http://a:b@x",
            "http://x/?a=b",
            "http://x/#a",
        ] {
            assert!(base_url(wrong).is_err(), "{wrong}");
        }
    }
}
