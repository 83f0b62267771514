//! A bound on one wait of a connection.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::time::{Instant, Sleep, sleep_until};

/// Rings some time after it was set, unless it is cleared before.
#[derive(Debug, Default)]
pub(super) struct Alarm(Option<Pin<Box<Sleep>>>);

impl Alarm {
    /// Begins to wait; setting it again does not lengthen the wait.
    pub(super) fn set(&mut self, within: Duration) {
        self.0.get_or_insert_with(|| Box::pin(sleep_until(Instant::now() + within)));
    }

    pub(super) fn clear(&mut self) {
        self.0 = None;
    }

    /// Ready when it rings; wakes the task then.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        match &mut self.0 {
            Some(end) => end.as_mut().poll(cx),
            None => Poll::Pending,
        }
    }
}
