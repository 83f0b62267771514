//! A bulkhead in front of a service.

use std::fmt;
use std::marker::PhantomData;
use std::task::{Context, Poll};

use tower::{Layer, Service};

use crate::{Bulkhead, Error, Hold, ResponseFuture, UntilAnswer, UntilBodyEnds};

/// Lets as many calls through at a time as the bulkhead has places. All services it makes share them.
pub struct BulkheadLayer<H = UntilAnswer> {
    bulkhead: Bulkhead,
    hold: PhantomData<fn() -> H>,
}

impl BulkheadLayer {
    /// A call keeps its place until there is an answer.
    pub fn new(bulkhead: Bulkhead) -> Self {
        Self { bulkhead, hold: PhantomData }
    }
}

impl BulkheadLayer<UntilBodyEnds> {
    /// An HTTP call keeps its place until the body of the answer has ended or was dropped.
    pub fn until_body_ends(bulkhead: Bulkhead) -> Self {
        Self { bulkhead, hold: PhantomData }
    }
}

impl<S, H> Layer<S> for BulkheadLayer<H> {
    type Service = BulkheadService<S, H>;

    fn layer(&self, inner: S) -> Self::Service {
        BulkheadService { inner, bulkhead: self.bulkhead.clone(), calls: 0, hold: PhantomData }
    }
}

// Derived, these would ask the same of `H`.
impl<H> Clone for BulkheadLayer<H> {
    fn clone(&self) -> Self {
        Self { bulkhead: self.bulkhead.clone(), hold: PhantomData }
    }
}

impl<H> fmt::Debug for BulkheadLayer<H> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BulkheadLayer").field("bulkhead", &self.bulkhead).finish()
    }
}

/// Made by [`BulkheadLayer`].
pub struct BulkheadService<S, H = UntilAnswer> {
    inner: S,
    bulkhead: Bulkhead,
    calls: u32,
    hold: PhantomData<fn() -> H>,
}

impl<S, H, Req> Service<Req> for BulkheadService<S, H>
where
    S: Service<Req> + Clone,
    H: Hold<S::Response>,
{
    type Response = H::Answer;
    type Error = Error<S::Error>;
    type Future = ResponseFuture<S, Req, H>;

    /// Takes no place: a service that is ready may be an idle connection, and would keep it for nothing.
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(cx).map_err(Error::Inner)
    }

    fn call(&mut self, request: Req) -> Self::Future {
        // Not before the second call, because many a service is made for a single one.
        self.calls = self.calls.saturating_add(1);
        if self.calls == 2 {
            self.bulkhead = self.bulkhead.apart();
        }
        if let Some(permit) = self.bulkhead.try_acquire() {
            return ResponseFuture::running(self.inner.call(request), permit);
        }
        // The service that said it is ready waits with the request.
        let fresh = self.inner.clone();
        let ready = std::mem::replace(&mut self.inner, fresh);
        ResponseFuture::waiting(self.bulkhead.acquire(), ready, request)
    }
}

impl<S: Clone, H> Clone for BulkheadService<S, H> {
    fn clone(&self) -> Self {
        Self { inner: self.inner.clone(), bulkhead: self.bulkhead.clone(), calls: 0, hold: PhantomData }
    }
}

impl<S: fmt::Debug, H> fmt::Debug for BulkheadService<S, H> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BulkheadService")
            .field("inner", &self.inner)
            .field("bulkhead", &self.bulkhead)
            .finish()
    }
}
