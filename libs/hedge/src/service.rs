//! The service the layer makes.

use std::fmt;
use std::task::{Context, Poll};

use tower::Service;

use crate::{Classify, Hedge, ResponseFuture};

/// Makes further attempts beside a slow one; made by [`HedgeLayer`](crate::HedgeLayer).
pub struct HedgeService<S, C> {
    inner: S,
    hedge: Hedge,
    classify: C,
    calls: u32,
}

impl<S, C> HedgeService<S, C> {
    pub(crate) fn new(inner: S, hedge: Hedge, classify: C) -> Self {
        Self { inner, hedge, classify, calls: 0 }
    }
}

impl<S, C, Req> Service<Req> for HedgeService<S, C>
where
    S: Service<Req> + Clone,
    C: Classify<S::Response, S::Error> + Clone,
    Req: Clone,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = ResponseFuture<S, C, Req>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Req) -> Self::Future {
        // Not before the second call, because many a service is made for a single one.
        self.calls = self.calls.saturating_add(1);
        if self.calls == 2 {
            self.hedge = self.hedge.apart();
        }
        // The clone is for hedges. The first attempt calls the service that said it is ready.
        let spare = self.inner.clone();
        let first = self.inner.call(request.clone());
        ResponseFuture::new(first, spare, request, self.hedge.clone(), self.classify.clone())
    }
}

impl<S: Clone, C: Clone> Clone for HedgeService<S, C> {
    fn clone(&self) -> Self {
        Self::new(self.inner.clone(), self.hedge.clone(), self.classify.clone())
    }
}

impl<S: fmt::Debug, C> fmt::Debug for HedgeService<S, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HedgeService")
            .field("inner", &self.inner)
            .field("hedge", &self.hedge)
            .finish_non_exhaustive()
    }
}
