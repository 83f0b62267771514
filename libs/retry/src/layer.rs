//! Retries around a service.

use std::fmt;
use std::task::{Context, Poll};

use tower::{Layer, Service};

use crate::{ResponseFuture, RetryPolicy, Rules};

/// Repeats calls as a policy and rules say. All services it makes share the policy's budget.
#[derive(Clone)]
pub struct RetryLayer<R> {
    policy: RetryPolicy,
    rules: R,
}

impl<R> RetryLayer<R> {
    /// `rules` tell what an answer means and whether a request can be sent twice.
    pub fn new(policy: RetryPolicy, rules: R) -> Self {
        Self { policy, rules }
    }
}

impl<S, R: Clone> Layer<S> for RetryLayer<R> {
    type Service = Retry<S, R>;

    fn layer(&self, inner: S) -> Self::Service {
        Retry { inner, policy: self.policy.clone(), rules: self.rules.clone(), calls: 0 }
    }
}

impl<R> fmt::Debug for RetryLayer<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RetryLayer").field("policy", &self.policy).finish_non_exhaustive()
    }
}

/// Made by [`RetryLayer`].
pub struct Retry<S, R> {
    inner: S,
    policy: RetryPolicy,
    rules: R,
    calls: u32,
}

impl<S, R, Req> Service<Req> for Retry<S, R>
where
    S: Service<Req> + Clone,
    R: Rules<Req, S::Response, S::Error> + Clone,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = ResponseFuture<S, R, Req>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Req) -> Self::Future {
        if let Some(budget) = self.policy.budget() {
            budget.deposit();
            self.calls = self.calls.saturating_add(1);
            // Not before the second call, because many a service is made for a single one.
            if self.calls == 2 {
                self.policy.set_apart();
            }
        }
        let copy = if self.policy.has_more(0) { self.rules.copy(&request) } else { None };
        // The service that said it is ready takes the first attempt; a clone waits for the others.
        let first = self.inner.call(request);
        ResponseFuture::new(first, copy, self.inner.clone(), self.policy.clone(), self.rules.clone())
    }
}

impl<S: Clone, R: Clone> Clone for Retry<S, R> {
    fn clone(&self) -> Self {
        let Self { inner, policy, rules, calls: _ } = self;
        Self { inner: inner.clone(), policy: policy.clone(), rules: rules.clone(), calls: 0 }
    }
}

impl<S: fmt::Debug, R> fmt::Debug for Retry<S, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Retry")
            .field("inner", &self.inner)
            .field("policy", &self.policy)
            .finish_non_exhaustive()
    }
}
