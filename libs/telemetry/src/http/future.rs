//! The future of an observed request.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use http::Response;
use pin_project_lite::pin_project;
use tracing::instrument::Instrumented;

use super::instruments::Observation;

pin_project! {
    /// The answer of the inner service, whose end is written down.
    pub struct ResponseFuture<F> {
        #[pin]
        answer: Instrumented<F>,
        observation: Option<Observation>,
    }
}

impl<F> ResponseFuture<F> {
    pub(super) fn new(answer: Instrumented<F>, observation: Observation) -> Self {
        Self { answer, observation: Some(observation) }
    }
}

impl<F, B, E> Future for ResponseFuture<F>
where
    F: Future<Output = Result<Response<B>, E>>,
{
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let result = ready!(this.answer.poll(cx));
        if let Some(mut observation) = this.observation.take() {
            match &result {
                Ok(response) => observation.answered(response.status()),
                Err(_unanswered) => observation.failed(),
            }
        }
        Poll::Ready(result)
    }
}

impl<F> fmt::Debug for ResponseFuture<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResponseFuture").finish_non_exhaustive()
    }
}
