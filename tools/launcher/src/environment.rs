//! What cargo tells the programs that it runs about their package is nothing for the cargo that they start.
//!
//! A build script may name such a variable in `rerun-if-env-changed` (the one of `ring` does), and then it and every crate
//! above it would be compiled again whenever another program starts the build. What a user sets for cargo has other names.

/// <https://doc.rust-lang.org/cargo/reference/environment-variables.html>: what is set for crates, for `cargo run` and for
/// tests.
const OF_A_PACKAGE: [&str; 9] = [
    "CARGO_BIN_",
    "CARGO_CFG_",
    "CARGO_CRATE_NAME",
    "CARGO_FEATURE_",
    "CARGO_MANIFEST_",
    "CARGO_PKG_",
    "CARGO_PRIMARY_PACKAGE",
    "CARGO_TARGET_TMPDIR",
    "OUT_DIR",
];

/// The variables of this process that describe a package.
pub(crate) fn of_a_package() -> impl Iterator<Item = String> {
    let names = std::env::vars_os().filter_map(|(name, _)| name.into_string().ok());
    names.filter(|name| OF_A_PACKAGE.iter().any(|prefix| name.starts_with(prefix)))
}
