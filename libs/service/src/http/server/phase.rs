//! Where a connection stands: between requests, in the head of one, or at the answer.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::task::{Context, Poll};

use axum::body::Body;
use bytes::Bytes;
use hyper::body::{Frame, SizeHint};
use tokio::sync::OwnedSemaphorePermit;
use tokio_util::sync::WaitForCancellationFuture;

use super::connections::Slot;

/// Shared by the two sides of hyper: the bytes below it and the requests above it. Both run in the same task.
#[derive(Debug)]
pub(super) struct Phase {
    answering: AtomicBool,
    /// Refusals of ours without a body, which are not on the wire yet. Their bodies are gone before that, and without this
    /// they would be taken for hyper's own.
    empty_refusals: AtomicU32,
    slot: Slot,
}

impl Phase {
    pub(super) fn new(slot: Slot) -> Self {
        Self { answering: AtomicBool::new(false), empty_refusals: AtomicU32::new(0), slot }
    }

    /// A head was complete. False when the connection was evicted before: the request must not begin.
    pub(super) fn answering(&self) -> bool {
        self.answering.store(true, Ordering::Relaxed);
        self.slot.busy()
    }

    /// A response of ours looks like one of hyper's own refusals.
    pub(super) fn refuses_without_a_body(&self) {
        self.empty_refusals.fetch_add(1, Ordering::Relaxed);
    }

    /// Whether what looks like a refusal of hyper's own is one of ours.
    pub(super) fn is_own_refusal(&self) -> bool {
        self.empty_refusals
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |count| count.checked_sub(1))
            .is_ok()
    }

    /// Ends when the connection has to make room for another.
    pub(super) fn evicted(&self) -> WaitForCancellationFuture<'_> {
        self.slot.evicted()
    }

    /// Whether what comes in now belongs to a request whose head was complete.
    pub(super) fn is_answering(&self) -> bool {
        self.answering.load(Ordering::Relaxed)
    }
}

/// The body of an answer; when it is gone, the next head may come.
#[derive(Debug)]
pub(super) struct Tracked {
    body: Body,
    phase: Arc<Phase>,
    _stream: Option<OwnedSemaphorePermit>,
}

impl Tracked {
    /// `stream` is given back when the body is gone.
    pub(super) fn new(body: Body, phase: Arc<Phase>, stream: Option<OwnedSemaphorePermit>) -> Self {
        Self { body, phase, _stream: stream }
    }
}

impl Drop for Tracked {
    fn drop(&mut self) {
        self.phase.answering.store(false, Ordering::Relaxed);
        self.phase.slot.silent();
    }
}

impl hyper::body::Body for Tracked {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
