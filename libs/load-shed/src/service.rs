//! The service the layer wraps around another.

use std::task::{Context, Poll};

use tower::Service;

use crate::gate::Admission;
use crate::{Acquire, Classify, Error, LoadShed, PriorityOf, ResponseFuture};

/// Calls its inner service with a slot only; made by [`LoadShedLayer`](crate::LoadShedLayer).
#[derive(Debug)]
pub struct LoadShedService<S, P, C> {
    inner: S,
    shed: LoadShed,
    calls: u32,
    priority_of: P,
    classify: C,
}

impl<S, P, C> LoadShedService<S, P, C> {
    pub(crate) fn new(inner: S, shed: LoadShed, priority_of: P, classify: C) -> Self {
        Self { inner, shed, calls: 0, priority_of, classify }
    }
}

impl<S, R, P, C> Service<R> for LoadShedService<S, P, C>
where
    S: Service<R> + Clone,
    P: PriorityOf<R>,
    C: Classify<S::Response, S::Error>,
{
    type Response = S::Response;
    type Error = Error<S::Error>;
    type Future = ResponseFuture<S, R, C>;

    /// Takes no slot: a service may stay ready for hours without being called.
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(cx).map_err(Error::Inner)
    }

    fn call(&mut self, request: R) -> Self::Future {
        // Not before the second call, because many a service is made for a single one.
        self.calls = self.calls.saturating_add(1);
        if self.calls == 2 {
            self.shed = self.shed.apart();
        }
        let classify = self.classify.clone();
        match self.shed.admit(self.priority_of.priority_of(&request)) {
            Admission::Granted(permit) => ResponseFuture::running(permit, self.inner.call(request), classify),
            Admission::Refused(shed) => ResponseFuture::refused(shed, classify),
            Admission::Waits(place) => {
                // The service that was asked whether it is ready goes along; its clone has yet to be asked.
                let clone = self.inner.clone();
                let ready = std::mem::replace(&mut self.inner, clone);
                ResponseFuture::waiting(Acquire::waiting(place), ready, request, classify)
            }
        }
    }
}

impl<S: Clone, P: Clone, C: Clone> Clone for LoadShedService<S, P, C> {
    fn clone(&self) -> Self {
        Self {
            inner: self.inner.clone(),
            shed: self.shed.clone(),
            calls: 0,
            priority_of: self.priority_of.clone(),
            classify: self.classify.clone(),
        }
    }
}
