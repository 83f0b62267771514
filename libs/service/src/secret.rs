//! A value that must not be shown.

use std::fmt;
use std::iter::once;
use std::str::FromStr;

/// A secret: printing it, on purpose or inside of something else, shows stars.
#[derive(Clone, Default)]
pub struct Secret(String);

impl Secret {
    /// Wraps a value.
    pub fn new(value: impl Into<String>) -> Self {
        Self(value.into())
    }

    /// The value. Every call is a place to look at in a review.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

impl fmt::Display for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

/// An empty text is no secret: anybody knows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("it is empty, or one of several is")]
pub struct EmptySecret;

impl FromStr for Secret {
    type Err = EmptySecret;

    fn from_str(text: &str) -> Result<Self, EmptySecret> {
        if text.is_empty() { Err(EmptySecret) } else { Ok(Self::new(text)) }
    }
}

/// A key that can be replaced while processes run: what is made is made with the current one, and what was made with any
/// of them is accepted. In the environment they are separated by commas, the current one first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rotating<T> {
    /// The key in use.
    pub current: T,
    /// Its successor or its predecessors.
    pub others: Vec<T>,
}

impl<T> Rotating<T> {
    /// All that are accepted, the current one first.
    pub fn iter(&self) -> impl Iterator<Item = &T> {
        once(&self.current).chain(&self.others)
    }

    /// What is made of each.
    pub fn map<U>(&self, make: impl Fn(&T) -> U) -> Rotating<U> {
        Rotating { current: make(&self.current), others: self.others.iter().map(&make).collect() }
    }
}

impl<T> From<T> for Rotating<T> {
    fn from(current: T) -> Self {
        Self { current, others: Vec::new() }
    }
}

impl<T: FromStr> FromStr for Rotating<T> {
    type Err = T::Err;

    fn from_str(text: &str) -> Result<Self, T::Err> {
        let (current, others) =
            text.split_once(',').map_or((text, None), |(first, rest)| (first, Some(rest)));
        let others = others.into_iter().flat_map(|others| others.split(','));
        Ok(Self {
            current: current.trim().parse()?,
            others: others.map(|key| key.trim().parse()).collect::<Result<_, _>>()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_comma_too_many_is_no_key_that_anybody_knows() {
        assert_eq!("k,".parse::<Rotating<Secret>>().unwrap_err(), EmptySecret);
        assert_eq!("k".parse::<Rotating<Secret>>().unwrap().current.expose(), "k");
    }

    #[test]
    fn a_key_is_replaced_in_three_steps_and_nobody_is_refused_in_between() {
        let read = |text: &str| text.parse::<Rotating<u8>>();
        // Each step is a restart, one process after the other: neighbours are at most a step apart.
        let steps = ["1", "1,2", "2, 1", "2"].map(|text| read(text).unwrap());
        for [one, other] in steps.array_windows() {
            assert!(other.iter().any(|key| *key == one.current), "{one:?} {other:?}");
            assert!(one.iter().any(|key| *key == other.current), "{one:?} {other:?}");
        }
        for wrong in ["", ",", "1,", ",1", "1,,2", "1 2", "1,x"] {
            assert!(read(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn it_is_never_printed() {
        let secret = Secret::new("hunter2");
        assert_eq!(format!("{secret} {secret:?} {:?}", Some(&secret)), "*** *** Some(***)");
        assert_eq!(secret.expose(), "hunter2");
    }
}
