//! The limiter in front of an HTTP service.

use std::fmt;
use std::hash::Hash;
use std::num::NonZeroU32;
use std::task::{Context, Poll};

use http::{Request, Response};
use tower::{Layer, Service};

use crate::{Decision, RateLimiter, ResponseFuture};

/// Whose quota a request uses, and how much of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Charge<K> {
    /// Whose.
    pub key: K,
    /// How much; most requests weigh 1.
    pub weight: NonZeroU32,
}

impl<K> Charge<K> {
    /// A request like most others.
    pub const fn one(key: K) -> Self {
        Self { key, weight: NonZeroU32::MIN }
    }
}

/// Refuses whoever has used up their quota, and tells everybody how theirs stands.
///
/// `charge` says of a request whose quota it uses; `None` is for those who have none. `refuse` makes the answer, so that
/// this crate knows nothing of the shape of errors; the header fields are added to it. An answer that has a `RateLimit`
/// already keeps it: a tighter quota further in has spoken.
#[derive(Clone)]
pub struct RateLimitLayer<K: Hash + Eq + Clone, C, R> {
    limiter: RateLimiter<K>,
    charge: C,
    refuse: R,
}

impl<K: Hash + Eq + Clone, C, R> RateLimitLayer<K, C, R> {
    /// All services this layer makes count in `limiter`.
    pub fn new(limiter: RateLimiter<K>, charge: C, refuse: R) -> Self {
        Self { limiter, charge, refuse }
    }
}

impl<S, K: Hash + Eq + Clone, C: Clone, R: Clone> Layer<S> for RateLimitLayer<K, C, R> {
    type Service = RateLimit<S, K, C, R>;

    fn layer(&self, inner: S) -> Self::Service {
        RateLimit { inner, layer: self.clone() }
    }
}

impl<K: Hash + Eq + Clone, C, R> fmt::Debug for RateLimitLayer<K, C, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RateLimitLayer").field("limiter", &self.limiter).finish_non_exhaustive()
    }
}

/// Made by [`RateLimitLayer`].
#[derive(Clone)]
pub struct RateLimit<S, K: Hash + Eq + Clone, C, R> {
    inner: S,
    layer: RateLimitLayer<K, C, R>,
}

impl<S, K, C, R, In, Out> Service<Request<In>> for RateLimit<S, K, C, R>
where
    S: Service<Request<In>, Response = Response<Out>>,
    K: Hash + Eq + Clone,
    C: Fn(&Request<In>) -> Option<Charge<K>>,
    R: Fn(&Decision) -> Response<Out>,
{
    type Response = Response<Out>;
    type Error = S::Error;
    type Future = ResponseFuture<S::Future, K, Out>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<In>) -> Self::Future {
        let RateLimitLayer { limiter, charge, refuse } = &self.layer;
        let Some(Charge { key, weight }) = charge(&request) else {
            return ResponseFuture::free(self.inner.call(request));
        };
        let decision = limiter.check_weight(&key, weight);
        match decision {
            Decision::Allowed { .. } => {
                ResponseFuture::counted(self.inner.call(request), limiter.clone(), decision)
            }
            Decision::Refused { .. } => {
                drop(tracing::info_span!("rate limited", weight = weight.get()));
                ResponseFuture::refused(refuse(&decision), limiter.clone(), decision)
            }
        }
    }
}

impl<S: fmt::Debug, K: Hash + Eq + Clone, C, R> fmt::Debug for RateLimit<S, K, C, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RateLimit").field("inner", &self.inner).field("layer", &self.layer).finish()
    }
}
