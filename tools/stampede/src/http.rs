//! The one HTTP client of this program.

use std::sync::LazyLock;
use std::time::Duration;

/// Everything we talk to is on this machine; what does not accept at once is not there.
const CONNECT_LIMIT: Duration = Duration::from_secs(2);

/// A clone of the client; all of them share its connections.
pub(crate) fn client() -> reqwest::Client {
    static CLIENT: LazyLock<reqwest::Client> = LazyLock::new(|| {
        // Fails only if somebody installed one before, which is as good.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let builder = reqwest::Client::builder().connect_timeout(CONNECT_LIMIT).no_proxy();
        builder.build().unwrap_or_default()
    });
    CLIENT.clone()
}
