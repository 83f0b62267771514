//! Whether silence says something of whoever was asked.

use std::time::Duration;

use crate::Deadline;

/// What an attempt was given to answer, compared with what it may need. One that had too little, because its caller had no
/// more, says nothing of the callee when there is no answer: it must open no circuit.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    caller: Option<Deadline>,
    had_enough: bool,
}

impl Patience {
    /// For an attempt that begins now, on behalf of a caller with this deadline, and may take as long as `needed`. Nearly
    /// all of it is enough.
    pub fn of(caller: Option<Deadline>, needed: Duration) -> Self {
        let nearly = needed - needed / 10;
        Self { caller, had_enough: caller.is_none_or(|caller| caller.remaining() >= nearly) }
    }

    /// Whether the attempt, which has had no answer until now, was ended by its caller's deadline before it had enough time.
    pub fn was_too_short(&self) -> bool {
        !self.had_enough && self.caller.is_some_and(Deadline::is_expired)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn only_a_caller_in_a_hurry_is_too_short() {
        let second = Duration::from_secs(1);
        let patience = |left: Option<Duration>| Patience::of(left.map(Deadline::after), second);
        let (without, enough, hurry) =
            (patience(None), patience(Some(second * 9 / 10)), patience(Some(second / 2)));
        assert!(!hurry.was_too_short(), "it still has time, so something else ended the attempt");
        tokio::time::advance(second).await;
        assert!(hurry.was_too_short());
        assert!(!without.was_too_short() && !enough.was_too_short());
    }
}
