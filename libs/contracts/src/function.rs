//! Functions: what one node may ask of another, each declared once with its guarantee.
//!
//! In the words of the literature `Once` is at most once, `Safe` and `Idempotent` are at least once, and
//! `Keyed` is an effect that happens exactly once however often it is asked for.

use std::{fmt, str::FromStr, time::Duration};

use serde::{Deserialize, Serialize, de::DeserializeOwned};

use self::sealed::Carries;
use crate::HasKey;

/// What nobody outside of this module can implement.
mod sealed {
    pub trait Sealed {}

    /// A request has what a function with the guarantee `G` needs of it.
    #[diagnostic::on_unimplemented(
        message = "`{Self}` lacks what a function that is `{G}` needs of its requests",
        note = "a request of a `Keyed` function implements `HasKey`"
    )]
    pub trait Carries<G> {}
}

/// One of the four kinds; implemented by [`Safe`], [`Idempotent`], [`Keyed`] and [`Once`] only.
pub trait Guarantee: sealed::Sealed + 'static {
    /// The name of the kind.
    const NAME: &'static str;
}

/// The kinds whose functions may be asked again after an unknown outcome.
pub trait Repeatable: Guarantee {}

/// A read: asked again and hedged at will.
#[derive(Debug)]
pub enum Safe {}
/// The second time changes nothing more: asked again.
#[derive(Debug)]
pub enum Idempotent {}
/// A key in the request makes the effect happen once: asked again with the same key. Its requests implement [`HasKey`].
#[derive(Debug)]
pub enum Keyed {}
/// A feed or heartbeat: never asked again.
#[derive(Debug)]
pub enum Once {}

impl sealed::Sealed for Safe {}
impl sealed::Sealed for Idempotent {}
impl sealed::Sealed for Keyed {}
impl sealed::Sealed for Once {}
impl Guarantee for Safe {
    const NAME: &'static str = "safe";
}
impl Guarantee for Idempotent {
    const NAME: &'static str = "idempotent";
}
impl Guarantee for Keyed {
    const NAME: &'static str = "keyed";
}
impl Guarantee for Once {
    const NAME: &'static str = "once";
}
impl Repeatable for Safe {}
impl Repeatable for Idempotent {}
impl Repeatable for Keyed {}

impl<R> Carries<Safe> for R {}
impl<R> Carries<Idempotent> for R {}
impl<R: HasKey> Carries<Keyed> for R {}
impl<R> Carries<Once> for R {}

/// Priority class, most urgent first: who is nearer to a ticket is served first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Class {
    /// Placing and reading an order.
    Pay,
    /// Holding seats.
    Hold,
    /// Waiting in the lobby.
    Join,
    /// Everything else.
    Browse,
}

impl Class {
    /// All of them, the most urgent first.
    pub const ALL: [Self; 4] = [Self::Pay, Self::Hold, Self::Join, Self::Browse];

    /// The word on the wire.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Pay => "pay",
            Self::Hold => "hold",
            Self::Join => "join",
            Self::Browse => "browse",
        }
    }
}

impl fmt::Display for Class {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The text is not a class.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("expected pay, hold, join or browse")]
pub struct InvalidClass;

impl FromStr for Class {
    type Err = InvalidClass;

    fn from_str(text: &str) -> Result<Self, InvalidClass> {
        match text {
            "pay" => Ok(Self::Pay),
            "hold" => Ok(Self::Hold),
            "join" => Ok(Self::Join),
            "browse" => Ok(Self::Browse),
            _ => Err(InvalidClass),
        }
    }
}

/// A function over request-reply.
pub trait Function: 'static {
    /// The service that offers it.
    const SERVICE: &'static str;
    /// The last token of its subject.
    const NAME: &'static str;
    /// Its priority.
    const CLASS: Class;
    /// How long a caller waits who has no deadline of its own.
    const DEADLINE: Duration;
    /// Its kind.
    type Guarantee: Guarantee;
    /// What is asked. Where the guarantee is [`Keyed`], it [has a key](HasKey).
    type Request: Serialize + DeserializeOwned + Send + Sync + Carries<Self::Guarantee>;
    /// What is answered.
    type Reply: Serialize + DeserializeOwned + Send + Sync;
}

/// What travels back over request-reply.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Answer<T> {
    /// The function's reply.
    Ok(T),
    /// Why there is none.
    Problem(crate::Problem),
}

/// Declares a function: `function!(/// doc Name, "service", "name", Kind, Class, millis, Request => Reply);`
macro_rules! function {
    ($(#[$doc:meta])* $name:ident, $service:literal, $word:literal, $kind:ident, $class:ident, $millis:literal, $request:ty => $reply:ty) => {
        $(#[$doc])*
        #[derive(Debug)]
        pub enum $name {}

        impl $crate::function::Function for $name {
            const SERVICE: &'static str = $service;
            const NAME: &'static str = $word;
            const CLASS: $crate::function::Class = $crate::function::Class::$class;
            const DEADLINE: std::time::Duration = std::time::Duration::from_millis($millis);
            type Guarantee = $crate::function::$kind;
            type Request = $request;
            type Reply = $reply;
        }
    };
}
pub(crate) use function;
