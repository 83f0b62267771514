//! Waiting for a state.

use std::panic::Location;
use std::time::Duration;

use tokio::time::{Instant, sleep, timeout_at};

const POLL_FIRST: Duration = Duration::from_millis(2);
const POLL_MAX: Duration = Duration::from_millis(50);

/// Asks `condition` again and again until it says yes.
///
/// # Panics
/// When it has not done so after `timeout`; the message names the line of the call.
#[track_caller]
pub fn eventually(timeout: Duration, condition: impl AsyncFnMut() -> bool) -> impl Future<Output = ()> {
    // An async function would know only its own line.
    poll(Location::caller(), timeout, condition)
}

async fn poll(caller: &Location<'_>, timeout: Duration, mut condition: impl AsyncFnMut() -> bool) {
    let deadline = Instant::now() + timeout;
    let mut pause = POLL_FIRST;
    // Asked once more after the deadline, because the last pause may have ended behind it.
    loop {
        let last = Instant::now() >= deadline;
        match timeout_at(deadline + POLL_MAX, condition()).await {
            // The first yes counts: it need not stay true.
            Ok(true) => return,
            Ok(false) if !last => {}
            _ => break,
        }
        sleep(pause).await;
        pause = (pause * 2).min(POLL_MAX);
    }
    super::fail(&format!("{caller}: waited {timeout:?} in vain"));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn it_returns_as_soon_as_the_condition_holds() {
        let mut asked = 0;
        eventually(Duration::from_secs(5), async || {
            asked += 1;
            asked >= 3
        })
        .await;
        assert_eq!(asked, 3);
    }

    #[tokio::test(start_paused = true)]
    async fn a_condition_that_held_for_a_moment_has_held() {
        let mut asked = 0;
        eventually(Duration::from_secs(5), async || {
            asked += 1;
            asked == 2
        })
        .await;
        assert_eq!(asked, 2);
    }

    #[tokio::test(start_paused = true)]
    #[should_panic(expected = "in vain")]
    async fn it_gives_up_when_the_time_is_over() {
        eventually(Duration::from_millis(100), async || false).await;
    }

    #[tokio::test(start_paused = true)]
    #[should_panic(expected = "in vain")]
    async fn a_condition_that_never_answers_does_not_hold_it_for_ever() {
        eventually(Duration::from_millis(100), async || std::future::pending().await).await;
    }
}
