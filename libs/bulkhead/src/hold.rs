//! How long a call keeps its place.

use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll};

use http::Response;
use http_body::{Body, Frame, SizeHint};
use pin_project_lite::pin_project;

use crate::Permit;

/// What happens to the place when there is an answer.
pub trait Hold<Res> {
    /// The answer as it goes on, with the place inside where it is kept.
    type Answer;

    /// Keeps the place in the answer, or gives it back.
    fn hold(permit: Permit, answer: Res) -> Self::Answer;
}

/// The place is free as soon as there is an answer.
#[derive(Clone, Copy, Debug, Default)]
pub struct UntilAnswer;

impl<Res> Hold<Res> for UntilAnswer {
    type Answer = Res;

    fn hold(permit: Permit, answer: Res) -> Res {
        drop(permit);
        answer
    }
}

/// The place of an HTTP call is free when the last byte of its body was read, or the body dropped: for answers that
/// take longer to send than to begin.
#[derive(Clone, Copy, Debug, Default)]
pub struct UntilBodyEnds;

impl<B: Body> Hold<Response<B>> for UntilBodyEnds {
    type Answer = Response<Held<B>>;

    fn hold(permit: Permit, answer: Response<B>) -> Self::Answer {
        answer.map(|body| Held { permit: (!body.is_end_stream()).then_some(permit), body })
    }
}

pin_project! {
    /// A body that keeps a place.
    pub struct Held<B> {
        #[pin]
        body: B,
        permit: Option<Permit>,
    }
}

impl<B: Body> Body for Held<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<B::Data>, B::Error>>> {
        let mut this = self.project();
        let frame = this.body.as_mut().poll_frame(cx);
        // Most readers do not ask again after the last frame.
        if matches!(frame, Poll::Ready(None | Some(Err(_)))) || this.body.is_end_stream() {
            *this.permit = None;
        }
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl<B: fmt::Debug> fmt::Debug for Held<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Held").field("body", &self.body).field("permit", &self.permit).finish()
    }
}
