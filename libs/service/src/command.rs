//! The one word a service binary takes.

use std::fmt;

/// What the process was started for.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Command {
    /// Serve until told to stop: no word, or `serve`.
    #[default]
    Serve,
    /// Bring the database's schema up to date and end: `migrate`.
    Migrate,
    /// A word that only this service knows.
    Other(String),
}

impl Command {
    /// Reads the arguments without the program's name; what follows the first word belongs to the service.
    pub fn from_args(args: impl IntoIterator<Item = String>) -> Self {
        match args.into_iter().next() {
            None => Self::Serve,
            Some(word) => match word.as_str() {
                "serve" => Self::Serve,
                "migrate" => Self::Migrate,
                _ => Self::Other(word),
            },
        }
    }
}

impl fmt::Display for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Serve => "serve",
            Self::Migrate => "migrate",
            Self::Other(word) => word,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_a_word_it_serves() {
        let command = |words: &[&str]| Command::from_args(words.iter().map(ToString::to_string));
        assert_eq!(command(&[]), Command::Serve);
        assert_eq!(command(&["serve"]), Command::Serve);
        assert_eq!(command(&["migrate"]), Command::Migrate);
        assert_eq!(command(&["reconcile", "--all"]), Command::Other("reconcile".to_owned()));
    }
}
