//! The environment as configuration. Each service reads it in its `config.rs` and nowhere else.

use std::any::type_name;
use std::collections::BTreeMap;
use std::fmt;
use std::num::NonZeroU16;
use std::str::FromStr;
use std::time::Duration;

use crate::Secret;

/// A key that is missing or cannot be read. It never shows a value: it may be a secret in the wrong place.
#[derive(Clone, PartialEq, Eq, thiserror::Error)]
pub enum EnvError {
    /// The key has no default and is not set, or is empty.
    #[error("{key} is not set; expected {expected}")]
    Missing {
        /// The key.
        key: String,
        /// What it should be.
        expected: String,
    },
    /// The key's value does not fit.
    #[error("{key} is not valid: {reason}; expected {expected}")]
    Invalid {
        /// The key.
        key: String,
        /// What it should be.
        expected: String,
        /// What is wrong with it.
        reason: String,
    },
}

/// A sentence, because `main` prints the error it returns with `Debug`.
impl fmt::Debug for EnvError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The variables of the environment as they were when it was made. An empty value counts as absent, because that is
/// what `KEY=` in a compose file or a manifest means.
#[derive(Clone, Default)]
pub struct Env(BTreeMap<String, String>);

impl Env {
    /// This process's environment; what is not UTF-8 is left out.
    pub fn from_process() -> Self {
        let readable = |(key, value): (std::ffi::OsString, std::ffi::OsString)| {
            Some((key.into_string().ok()?, value.into_string().ok()?))
        };
        Self(std::env::vars_os().filter_map(readable).collect())
    }

    /// An environment for a test.
    pub fn from_pairs<K: Into<String>, V: Into<String>>(pairs: impl IntoIterator<Item = (K, V)>) -> Self {
        Self(pairs.into_iter().map(|(key, value)| (key.into(), value.into())).collect())
    }

    fn get(&self, key: &str) -> Option<&str> {
        self.0.get(key).map(String::as_str).filter(|value| !value.is_empty())
    }

    /// A text.
    ///
    /// # Errors
    /// [`EnvError::Missing`].
    pub fn string(&self, key: &str) -> Result<String, EnvError> {
        self.get(key).map(str::to_owned).ok_or_else(|| missing(key, "a text"))
    }

    /// A text, or what is said here.
    pub fn string_or(&self, key: &str, default: impl Into<String>) -> String {
        self.get(key).map_or_else(|| default.into(), str::to_owned)
    }

    /// A text, or nothing.
    pub fn optional(&self, key: &str) -> Option<String> {
        self.get(key).map(str::to_owned)
    }

    /// A secret text.
    ///
    /// # Errors
    /// [`EnvError::Missing`].
    pub fn secret(&self, key: &str) -> Result<Secret, EnvError> {
        self.get(key).map(Secret::new).ok_or_else(|| missing(key, "a secret"))
    }

    /// A secret text, or nothing.
    pub fn optional_secret(&self, key: &str) -> Option<Secret> {
        self.get(key).map(Secret::new)
    }

    /// A value of type `T`.
    ///
    /// # Errors
    /// [`EnvError`] when it is not set or cannot be read.
    pub fn parse<T>(&self, key: &str) -> Result<T, EnvError>
    where
        T: FromStr,
        T::Err: fmt::Display,
    {
        self.parse_optional(key)?.ok_or_else(|| missing(key, short_name::<T>()))
    }

    /// A value of type `T`, or what is said here.
    ///
    /// # Errors
    /// [`EnvError::Invalid`].
    pub fn parse_or<T>(&self, key: &str, default: T) -> Result<T, EnvError>
    where
        T: FromStr,
        T::Err: fmt::Display,
    {
        Ok(self.parse_optional(key)?.unwrap_or(default))
    }

    /// A value of type `T`, or nothing.
    ///
    /// # Errors
    /// [`EnvError::Invalid`].
    pub fn parse_optional<T>(&self, key: &str) -> Result<Option<T>, EnvError>
    where
        T: FromStr,
        T::Err: fmt::Display,
    {
        let parse = |text: &str| {
            text.parse().map_err(|error: T::Err| EnvError::Invalid {
                key: key.to_owned(),
                expected: short_name::<T>().to_owned(),
                reason: error.to_string(),
            })
        };
        self.get(key).map(parse).transpose()
    }

    /// A duration in whole milliseconds, or what is said here. By convention the key ends in `_MS`.
    ///
    /// # Errors
    /// [`EnvError::Invalid`].
    pub fn millis_or(&self, key: &str, default: Duration) -> Result<Duration, EnvError> {
        match self.get(key).map(str::parse) {
            None => Ok(default),
            Some(Ok(millis)) => Ok(Duration::from_millis(millis)),
            Some(Err(error)) => Err(EnvError::Invalid {
                key: key.to_owned(),
                expected: "milliseconds".to_owned(),
                reason: std::num::ParseIntError::to_string(&error),
            }),
        }
    }

    /// A duration in whole days, at least one, or so many as are said here. By convention the key ends in `_DAYS`.
    ///
    /// # Errors
    /// [`EnvError::Invalid`].
    pub fn days_or(&self, key: &str, default: u16) -> Result<Duration, EnvError> {
        let days =
            self.parse_or::<NonZeroU16>(key, NonZeroU16::MIN.saturating_add(default.saturating_sub(1)))?;
        Ok(Duration::from_secs(24 * 60 * 60) * u32::from(days.get()))
    }
}

/// Names only: some of the values are secrets.
impl fmt::Debug for Env {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

fn missing(key: &str, expected: &str) -> EnvError {
    EnvError::Missing { key: key.to_owned(), expected: expected.to_owned() }
}

fn short_name<T>() -> &'static str {
    let name = type_name::<T>();
    // Of keys that can be replaced, one is expected.
    match name.rsplit("::").next().unwrap_or(name).trim_end_matches('>') {
        "Secret" => "a secret",
        name => name,
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use super::*;

    fn env() -> Env {
        Env::from_pairs([
            ("LISTEN", "127.0.0.1:80"),
            ("WRONG", "x"),
            ("EMPTY", ""),
            ("WAIT_MS", "1500"),
            ("TWO_DAYS", "2"),
            ("NO_DAYS", "0"),
        ])
    }

    #[test]
    fn values_are_read_or_replaced_by_their_defaults() {
        let env = env();
        assert_eq!(env.parse::<SocketAddr>("LISTEN"), Ok(SocketAddr::from(([127, 0, 0, 1], 80))));
        assert_eq!(env.parse_or("ABSENT", 7_u16), Ok(7));
        assert_eq!(env.string_or("EMPTY", "default"), "default");
        assert_eq!(env.millis_or("WAIT_MS", Duration::ZERO), Ok(Duration::from_millis(1500)));
        assert_eq!(env.millis_or("ABSENT", Duration::from_secs(1)), Ok(Duration::from_secs(1)));
        assert_eq!(env.days_or("TWO_DAYS", 90), Ok(Duration::from_secs(172_800)));
        assert_eq!(env.days_or("ABSENT", 1), Ok(Duration::from_secs(86_400)));
        assert!(env.days_or("NO_DAYS", 90).is_err());
    }

    #[test]
    fn errors_name_the_key_and_what_was_expected() {
        let env = env();
        let missing = env.parse::<SocketAddr>("ABSENT").unwrap_err();
        assert_eq!(missing.to_string(), "ABSENT is not set; expected SocketAddr");
        assert_eq!(env.secret("EMPTY").unwrap_err().to_string(), "EMPTY is not set; expected a secret");
        let invalid = env.parse_or("WRONG", 1_u16).unwrap_err();
        assert_eq!(invalid.to_string(), "WRONG is not valid: invalid digit found in string; expected u16");
        let invalid = env.millis_or("WRONG", Duration::ZERO).unwrap_err();
        assert!(invalid.to_string().ends_with("expected milliseconds"), "{invalid}");
    }

    #[test]
    fn printing_it_shows_no_value() {
        assert_eq!(format!("{:?}", Env::from_pairs([("PASSWORD", "hunter2")])), r#"{"PASSWORD"}"#);
    }
}
