//! The future of a request that was counted, or refused.

use std::fmt;
use std::future::Future;
use std::hash::Hash;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use http::Response;
use pin_project_lite::pin_project;

use crate::{Decision, RATELIMIT, RateLimiter};

pin_project! {
    /// The answer, with how the quota stands.
    pub struct ResponseFuture<F, K, B>
    where
        K: Hash,
        K: Eq,
        K: Clone,
    {
        #[pin]
        answer: Answer<F, B>,
        counted: Option<(RateLimiter<K>, Decision)>,
    }
}

pin_project! {
    #[project = AnswerProjection]
    enum Answer<F, B> {
        Inner { #[pin] handler: F },
        Refused { response: Option<Response<B>> },
    }
}

impl<F, K: Hash + Eq + Clone, B> ResponseFuture<F, K, B> {
    pub(crate) fn free(handler: F) -> Self {
        Self { answer: Answer::Inner { handler }, counted: None }
    }

    pub(crate) fn counted(handler: F, limiter: RateLimiter<K>, decision: Decision) -> Self {
        Self { answer: Answer::Inner { handler }, counted: Some((limiter, decision)) }
    }

    pub(crate) fn refused(response: Response<B>, limiter: RateLimiter<K>, decision: Decision) -> Self {
        Self { answer: Answer::Refused { response: Some(response) }, counted: Some((limiter, decision)) }
    }
}

impl<F, K, B, E> Future for ResponseFuture<F, K, B>
where
    F: Future<Output = Result<Response<B>, E>>,
    K: Hash + Eq + Clone,
{
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let mut response = match this.answer.project() {
            AnswerProjection::Inner { handler } => ready!(handler.poll(cx))?,
            AnswerProjection::Refused { response } => match response.take() {
                Some(response) => response,
                // Polled again after it was ready, which no future is bound to bear.
                None => return Poll::Pending,
            },
        };
        if let Some((limiter, decision)) = this.counted
            && !response.headers().contains_key(RATELIMIT)
        {
            limiter.insert_headers(decision, response.headers_mut());
        }
        Poll::Ready(Ok(response))
    }
}

impl<F, K: Hash + Eq + Clone, B> fmt::Debug for ResponseFuture<F, K, B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResponseFuture").finish_non_exhaustive()
    }
}
