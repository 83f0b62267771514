//! What `init` has to be told.

use std::fmt;
use std::io::IsTerminal;
use std::str::FromStr;

/// How a process shows itself. Plain values: who builds it decides where they come from.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The resource's `service.name`.
    pub service: String,
    /// The resource's `service.version`.
    pub version: String,
    /// The resource's `service.instance.id`: which of several replicas.
    pub instance: String,
    /// The shape of log lines.
    pub log_format: LogFormat,
    /// Which log lines are written, in the syntax of `tracing_subscriber::EnvFilter`. Spans are not concerned.
    pub log_filter: String,
    /// The base URL of an OTLP collector (HTTP, protobuf), `/v1/traces` is added. Without it nothing is exported, and
    /// traces that begin here are not recorded, only named.
    pub otlp_endpoint: Option<String>,
    /// The share of new traces that is sampled, 0 to 1. A trace that was begun elsewhere keeps its own decision.
    pub sample_ratio: f64,
}

impl Settings {
    /// INFO and above, every trace sampled once there is an endpoint, nothing exported.
    pub fn new(service: impl Into<String>, version: impl Into<String>, instance: impl Into<String>) -> Self {
        Self {
            service: service.into(),
            version: version.into(),
            instance: instance.into(),
            log_format: LogFormat::Auto,
            log_filter: "info".to_owned(),
            otlp_endpoint: None,
            sample_ratio: 1.0,
        }
    }
}

/// The shape of log lines, on stderr.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum LogFormat {
    /// Text when stderr is a terminal, else JSON.
    #[default]
    Auto,
    /// One JSON object a line.
    Json,
    /// One readable line.
    Text,
}

impl LogFormat {
    /// Replaces `Auto` by what fits this process.
    pub(crate) fn resolved(self) -> Self {
        match self {
            Self::Auto if std::io::stderr().is_terminal() => Self::Text,
            Self::Auto => Self::Json,
            decided => decided,
        }
    }
}

impl fmt::Display for LogFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Auto => "auto",
            Self::Json => "json",
            Self::Text => "text",
        })
    }
}

impl FromStr for LogFormat {
    type Err = UnknownLogFormat;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "auto" => Ok(Self::Auto),
            "json" => Ok(Self::Json),
            "text" => Ok(Self::Text),
            _ => Err(UnknownLogFormat),
        }
    }
}

/// A word that names no log format.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("it must be auto, json or text")]
pub struct UnknownLogFormat;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn formats_survive_their_words() {
        for format in [LogFormat::Auto, LogFormat::Json, LogFormat::Text] {
            assert_eq!(format.to_string().parse(), Ok(format));
        }
        assert_eq!("JSON".parse::<LogFormat>(), Err(UnknownLogFormat));
    }
}
