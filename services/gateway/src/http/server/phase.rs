//! Where a connection stands: between requests, in the head of one, or at the answer.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};

use axum::body::Body;
use bytes::Bytes;
use hyper::body::{Frame, SizeHint};

/// Shared by the two sides of hyper: the bytes below it and the requests above it. Both run in the same task.
#[derive(Debug, Default)]
pub(super) struct Phase {
    answering: AtomicBool,
}

impl Phase {
    /// A head was complete.
    pub(super) fn answering(&self) {
        self.answering.store(true, Ordering::Relaxed);
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
}

impl Tracked {
    pub(super) fn new(body: Body, phase: Arc<Phase>) -> Self {
        Self { body, phase }
    }
}

impl Drop for Tracked {
    fn drop(&mut self) {
        self.phase.answering.store(false, Ordering::Relaxed);
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
