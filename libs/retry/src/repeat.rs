//! Retries without a service: an async closure that is called again.

use std::future::Future;

use stampede_deadline::{Deadline, scope};
use tracing::Instrument;

use crate::Backoff;

/// Runs `op` until it succeeds, fails for good, or the deadline leaves no room for another attempt.
///
/// `op` is given the number of the attempt, from 0, and runs in the scope of the deadline; it bounds itself, because
/// only it can say what an attempt that ran out of time means. The first attempt always runs.
///
/// `op` is an async closure that shares what it captures. It is not bounded by `AsyncFnMut`, because the compiler
/// cannot see yet that such a future is `Send` for every borrow, and then no handler could use this.
///
/// # Errors
/// The error of the last attempt.
pub async fn retry<T, E, Fut>(
    deadline: Deadline,
    backoff: &Backoff,
    is_transient: impl Fn(&E) -> bool,
    mut op: impl FnMut(u32) -> Fut,
) -> Result<T, E>
where
    Fut: Future<Output = Result<T, E>>,
{
    let mut attempt = 0_u32;
    loop {
        let error = match scope(deadline, op(attempt)).await {
            Err(error) if is_transient(&error) => error,
            settled => return settled,
        };
        let delay = backoff.delay(attempt, &mut rand::rng());
        if delay >= deadline.remaining() {
            return Err(error);
        }
        attempt = attempt.saturating_add(1);
        tokio::time::sleep(delay).instrument(tracing::info_span!("retry pause", attempt)).await;
        // Timers are late by up to a millisecond, and by more on a busy machine.
        if deadline.is_expired() {
            return Err(error);
        }
    }
}

#[cfg(test)]
#[cfg(not(stampede_loom))]
mod tests {
    use std::cell::Cell;
    use std::time::Duration;

    use tokio::time::Instant;

    use super::*;

    #[derive(Debug, PartialEq, Eq)]
    enum Failure {
        Transient(u32),
        Final,
    }

    fn is_transient(failure: &Failure) -> bool {
        matches!(failure, Failure::Transient(_))
    }

    fn backoff(base_ms: u64, max_ms: u64) -> Backoff {
        Backoff::try_new(Duration::from_millis(base_ms), Duration::from_millis(max_ms)).unwrap()
    }

    fn after_ms(millis: u64) -> Deadline {
        Deadline::after(Duration::from_millis(millis))
    }

    #[tokio::test(start_paused = true)]
    async fn it_goes_on_until_the_first_success() {
        let op = async |attempt| if attempt < 5 { Err(Failure::Transient(attempt)) } else { Ok(attempt) };
        assert_eq!(retry(after_ms(10_000), &backoff(10, 100), is_transient, op).await, Ok(5));
    }

    #[tokio::test(start_paused = true)]
    async fn a_final_error_is_not_tried_again() {
        let calls = Cell::new(0);
        let result: Result<(), _> = retry(after_ms(10_000), &backoff(10, 100), is_transient, async |_| {
            calls.set(calls.get() + 1);
            Err(Failure::Final)
        })
        .await;
        assert_eq!(result, Err(Failure::Final));
        assert_eq!(calls.get(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn it_never_waits_past_the_deadline_and_returns_the_last_error() {
        for _ in 0..200 {
            let deadline = after_ms(500);
            let last = Cell::new(0);
            let result: Result<(), _> = retry(deadline, &backoff(10, 400), is_transient, async |attempt| {
                assert!(!deadline.is_expired(), "no attempt starts after the deadline");
                last.set(attempt);
                Err(Failure::Transient(attempt))
            })
            .await;
            assert_eq!(result, Err(Failure::Transient(last.get())));
            assert!(
                Instant::now() <= deadline.instant() + Duration::from_millis(1),
                "within a timer's precision"
            );
        }
    }

    #[tokio::test(start_paused = true)]
    async fn the_first_attempt_runs_even_when_there_is_no_time() {
        let result =
            retry(after_ms(0), &backoff(10, 100), is_transient, async |_| Ok::<_, Failure>("at once")).await;
        assert_eq!(result, Ok("at once"));
    }

    #[tokio::test(start_paused = true)]
    async fn an_attempt_sees_the_deadline() {
        let deadline = after_ms(100);
        let seen =
            retry(deadline, &backoff(1, 1), |(): &()| true, async |_| Ok(stampede_deadline::current())).await;
        assert_eq!(seen, Ok(Some(deadline)));
    }

    #[tokio::test(start_paused = true)]
    async fn it_can_run_in_a_task() {
        let task = tokio::spawn(async {
            let name = String::from("inventory");
            let call = async |attempt| {
                tokio::time::sleep(Duration::from_millis(1)).await;
                if attempt == 0 { Err(Failure::Transient(0)) } else { Ok(name.len()) }
            };
            retry(after_ms(1_000), &backoff(1, 1), is_transient, call).await
        });
        assert_eq!(task.await.unwrap(), Ok(9));
    }
}
