//! What an answer means: said once, understood by every layer.

use std::time::Duration;

use stampede_bulkhead as bulkhead;
use stampede_circuit_breaker as breaker;
use stampede_circuit_breaker::{Classify, Outcome};
use stampede_deadline::TimedOut;
use stampede_hedge as hedge;
use stampede_retry::{Rules, Verdict};

/// What an answer, or an error in its place, means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Meaning {
    /// The callee did what it was asked, or refused for a reason of the caller's: it is well, and asking again changes
    /// nothing. A 2xx, a 4xx.
    Answer,
    /// The callee is well and has too much to do: asking again may help, after this time at the earliest.
    Busy(Option<Duration>),
    /// The callee is not well or not there: asking again may help, after this time at the earliest.
    Unavailable(Option<Duration>),
    /// The callee is not well, and asking again would not help.
    Broken,
    /// The caller gave it too little time, and a retry would not help. No evidence about the callee, unless this is an error
    /// (there was no response) and it has answered no call for as long as a whole attempt may take.
    Unknown,
}

/// Tells what answers mean. A closure `Fn(Result<&Res, &E>) -> Meaning` does.
pub trait Means<Res, E> {
    /// What this one means.
    fn meaning(&self, answer: Result<&Res, &E>) -> Meaning;
}

impl<F, Res, E> Means<Res, E> for F
where
    F: Fn(Result<&Res, &E>) -> Meaning,
{
    fn meaning(&self, answer: Result<&Res, &E>) -> Meaning {
        self(answer)
    }
}

/// What comes back from a place in the bulkhead.
pub(crate) type Placed<E> = bulkhead::Error<TimedOut<E>>;
/// What comes back through the circuit.
pub(crate) type Guarded<E> = breaker::Error<Placed<E>>;

/// A meaning as the breaker and the retries see it. Their own layers' errors have a meaning as well.
#[derive(Clone, Copy, Debug)]
pub struct Sees<M>(pub(crate) M);

impl<M> Sees<M> {
    /// `None`: there was no place for it here, which is no evidence about the callee.
    fn placed<Res, E>(&self, answer: Result<&Res, &Placed<E>>) -> Option<Meaning>
    where
        M: Means<Res, E>,
    {
        match answer {
            Ok(answer) => Some(self.0.meaning(Ok(answer))),
            Err(bulkhead::Error::Inner(TimedOut::Inner(error))) => Some(self.0.meaning(Err(error))),
            Err(bulkhead::Error::Inner(TimedOut::Elapsed)) if caller_is_out_of_time() => {
                Some(Meaning::Unknown)
            }
            Err(bulkhead::Error::Inner(TimedOut::Elapsed)) => Some(Meaning::Unavailable(None)),
            Err(bulkhead::Error::Refused(_)) => None,
        }
    }
}

/// Whether it was the caller's deadline that ended an attempt, and not its own time. The breaker counts such attempts only
/// where the callee has answered no call for long: otherwise one client with short deadlines, on purpose or not, would open
/// the circuit for all.
fn caller_is_out_of_time() -> bool {
    stampede_deadline::current().is_some_and(|deadline| deadline.is_expired())
}

impl<M: Means<Res, E>, Res, E> Classify<Res, Placed<E>> for Sees<M> {
    fn classify(&self, answer: &Result<Res, Placed<E>>) -> Outcome {
        match self.placed(answer.as_ref()) {
            Some(Meaning::Answer) => Outcome::Success,
            Some(Meaning::Unavailable(_) | Meaning::Broken) => Outcome::Failure,
            // A response that there was too little time, such as a 504, is one from a callee that does not hang.
            Some(Meaning::Unknown) if answer.is_ok() => Outcome::Neutral,
            Some(Meaning::Unknown) | None => Outcome::Unanswered,
            Some(Meaning::Busy(_)) => Outcome::Neutral,
        }
    }
}

impl<M: Means<Res, E>, Res, E> hedge::Classify<Res, Guarded<E>> for Sees<M> {
    fn classify(&self, answer: &Result<Res, Guarded<E>>) -> hedge::Verdict {
        let meaning = match answer {
            Ok(answer) => self.placed(Ok(answer)),
            Err(breaker::Error::Inner(error)) => self.placed(Err(error)),
            Err(breaker::Error::Open(_)) => None,
        };
        match meaning {
            Some(Meaning::Answer) => hedge::Verdict::Done,
            Some(Meaning::Busy(_) | Meaning::Unavailable(_)) => hedge::Verdict::Another,
            // The same would happen to the next one.
            Some(Meaning::Broken) => hedge::Verdict::Fatal,
            // Not given the time, or refused by our own layers.
            Some(Meaning::Unknown) | None => hedge::Verdict::Refused,
        }
    }
}

impl<M, Req, Res, E> Rules<Req, Res, Guarded<E>> for Sees<M>
where
    M: Means<Res, E>,
    Req: Clone,
{
    fn verdict(&self, answer: &Result<Res, Guarded<E>>) -> Verdict {
        let meaning = match answer {
            // While the circuit is open nobody is called, so waiting for it costs nobody anything.
            Err(breaker::Error::Open(refused)) => Some(Meaning::Busy(Some(refused.retry_after))),
            Err(breaker::Error::Inner(error)) => self.placed(Err(error)),
            Ok(answer) => self.placed(Ok(answer)),
        };
        match meaning {
            Some(Meaning::Busy(after) | Meaning::Unavailable(after)) => {
                after.map_or(Verdict::Again, Verdict::AgainAfter)
            }
            Some(Meaning::Answer | Meaning::Broken | Meaning::Unknown) | None => Verdict::Final,
        }
    }

    fn copy(&self, request: &Req) -> Option<Req> {
        Some(request.clone())
    }
}
