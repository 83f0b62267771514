//! The key of a request: what makes its effect happen once.

use std::{fmt::Debug, hash::Hash};

/// A request that has its effect once, however often it comes: it says which of its fields decide that.
///
/// A function that is [`Keyed`](crate::function::Keyed) takes no other requests. Whoever asks again after a time-out
/// relies on the key, so a request that does not name one does not compile:
///
/// ```compile_fail,E0277
/// use stampede_contracts::{Class, Function, StepId, function::Keyed};
/// # use std::time::Duration;
///
/// #[derive(serde::Serialize, serde::Deserialize)]
/// pub struct Refund {
///     step: StepId,
/// }
///
/// pub enum GiveBack {}
///
/// impl Function for GiveBack {
///     type Guarantee = Keyed;
///     type Request = Refund;
///     // And the rest.
///     # const SERVICE: &'static str = "payments";
///     # const NAME: &'static str = "give_back";
///     # const CLASS: Class = Class::Pay;
///     # const DEADLINE: Duration = Duration::from_secs(1);
///     # type Reply = ();
/// }
/// ```
///
/// The same one with a name for its key does:
///
/// ```
/// use stampede_contracts::{Class, Function, HasKey, StepId, function::Keyed};
/// # use std::time::Duration;
///
/// #[derive(serde::Serialize, serde::Deserialize)]
/// pub struct Refund {
///     step: StepId,
/// }
///
/// impl HasKey for Refund {
///     type Key<'a> = StepId;
///
///     fn key(&self) -> StepId {
///         self.step
///     }
/// }
///
/// pub enum GiveBack {}
///
/// impl Function for GiveBack {
///     type Guarantee = Keyed;
///     type Request = Refund;
///     // And the rest.
///     # const SERVICE: &'static str = "payments";
///     # const NAME: &'static str = "give_back";
///     # const CLASS: Class = Class::Pay;
///     # const DEADLINE: Duration = Duration::from_secs(1);
///     # type Reply = ();
/// }
/// ```
///
/// It is not shown in traces or logs: part of it may be a text of the client's, who may write there what he likes.
pub trait HasKey {
    /// What it consists of.
    type Key<'a>: Eq + Hash + Debug
    where
        Self: 'a;

    /// The key. Two requests of a function with the same one are the same request, and have one effect.
    fn key(&self) -> Self::Key<'_>;
}
