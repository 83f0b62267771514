//! The service the layer wraps around a handler.

use std::fmt;
use std::task::{Context, Poll};

use http::{HeaderMap, Request, Response};
use tower::Service;

use crate::scope::enter;
use crate::{Deadline, DeadlineLayer, HEADER, Malformed, ResponseFuture, parse_ms};

/// Runs its inner service in the scope of the request's deadline; made by [`DeadlineLayer`].
pub struct DeadlineService<S, B> {
    inner: S,
    layer: DeadlineLayer<B>,
}

impl<S, B> DeadlineService<S, B> {
    pub(crate) fn new(inner: S, layer: DeadlineLayer<B>) -> Self {
        Self { inner, layer }
    }

    fn deadline(&self, headers: &HeaderMap) -> Result<Deadline, Malformed> {
        let left = match headers.get(HEADER) {
            None => self.layer.default,
            Some(value) => parse_ms(value.to_str().map_err(|_not_text| Malformed::Left)?)?,
        };
        Ok(Deadline::after(left.clamp(self.layer.min, self.layer.max)))
    }
}

impl<S, In, B> Service<Request<In>> for DeadlineService<S, B>
where
    S: Service<Request<In>, Response = Response<B>>,
{
    type Response = Response<B>;
    type Error = S::Error;
    type Future = ResponseFuture<S::Future, B>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<In>) -> Self::Future {
        match self.deadline(request.headers()) {
            Ok(deadline) => {
                // A layer further in may already look at the deadline while it makes its future.
                let handler = enter(deadline, || self.inner.call(request));
                ResponseFuture::running(deadline, handler, self.layer.respond)
            }
            Err(malformed) => ResponseFuture::refused(malformed, self.layer.respond),
        }
    }
}

impl<S: Clone, B> Clone for DeadlineService<S, B> {
    fn clone(&self) -> Self {
        Self { inner: self.inner.clone(), layer: self.layer }
    }
}

impl<S: fmt::Debug, B> fmt::Debug for DeadlineService<S, B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DeadlineService").field("inner", &self.inner).field("layer", &self.layer).finish()
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;
    use std::time::Duration;

    use http::StatusCode;
    use tower::{Layer, ServiceExt, service_fn};

    use super::*;
    use crate::{Refusal, current};

    fn layer() -> DeadlineLayer<String> {
        DeadlineLayer::try_new(Duration::from_millis(200), Duration::from_secs(2), |refusal: Refusal| {
            let mut response = Response::new(refusal.to_string());
            *response.status_mut() = refusal.status();
            response
        })
        .unwrap()
    }

    fn request(deadline_ms: Option<&str>) -> Request<()> {
        let mut request = Request::new(());
        if let Some(value) = deadline_ms {
            request.headers_mut().insert(HEADER, value.parse().unwrap());
        }
        request
    }

    /// What the handler sees as its own time left.
    async fn left_in_handler(deadline_ms: Option<&str>) -> Response<String> {
        let handler = service_fn(|_: Request<()>| {
            let while_called = current();
            async move {
                assert_eq!(current(), while_called, "the same before and inside of the future");
                let left = current().map(|deadline| deadline.header().to_string());
                Ok::<_, Infallible>(Response::new(left.unwrap_or_default()))
            }
        });
        layer().layer(handler).oneshot(request(deadline_ms)).await.unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn the_handler_sees_the_default_the_header_or_the_maximum() {
        assert_eq!(left_in_handler(None).await.body(), "200");
        assert_eq!(left_in_handler(Some("150")).await.body(), "150");
        assert_eq!(left_in_handler(Some("1999")).await.body(), "1999");
        assert_eq!(left_in_handler(Some("600000")).await.body(), "2000");
        let handler = service_fn(async |_: Request<()>| {
            Ok::<_, Infallible>(Response::new(
                current().map(|deadline| deadline.header().to_string()).unwrap(),
            ))
        });
        let patient = layer().at_least(Duration::from_millis(100)).layer(handler);
        assert_eq!(patient.oneshot(request(Some("1"))).await.unwrap().body(), "100");
    }

    #[tokio::test(start_paused = true)]
    async fn a_header_that_cannot_be_read_is_400() {
        for wrong in ["0", "-1", "soon", "ä"] {
            let response = left_in_handler(Some(wrong)).await;
            assert_eq!(response.status(), StatusCode::BAD_REQUEST, "{wrong}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_handler_that_is_too_slow_is_dropped_and_504_answered_in_its_place() {
        let dropped = std::sync::Arc::new(());
        let seen = dropped.clone();
        let handler = service_fn(move |_: Request<()>| {
            let held = seen.clone();
            async move {
                tokio::time::sleep(Duration::from_secs(60)).await;
                drop(held);
                Ok::<_, Infallible>(Response::new(String::new()))
            }
        });
        let started = tokio::time::Instant::now();
        let response = layer().layer(handler).oneshot(request(Some("70"))).await.unwrap();

        assert_eq!(response.status(), StatusCode::GATEWAY_TIMEOUT);
        assert_eq!(started.elapsed(), Duration::from_millis(70));
        assert_eq!(std::sync::Arc::strong_count(&dropped), 1, "the handler's future is gone");
    }

    #[tokio::test(start_paused = true)]
    async fn an_error_of_the_handler_goes_through() {
        let handler = service_fn(async |_: Request<()>| Err::<Response<String>, _>("broken"));
        assert_eq!(layer().layer(handler).oneshot(request(None)).await.unwrap_err(), "broken");
    }

    #[tokio::test(start_paused = true)]
    async fn it_fits_into_a_router() {
        use axum::{Router, body::Body, routing::get};

        let layer = DeadlineLayer::try_new(Duration::from_millis(20), Duration::from_secs(1), |refusal| {
            let mut response = Response::new(Body::empty());
            *response.status_mut() = refusal.status();
            response
        })
        .unwrap();
        let router: Router = Router::new().route("/", get(std::future::pending::<()>)).layer(layer);
        let response = router.oneshot(Request::new(Body::empty())).await.unwrap();
        assert_eq!(response.status(), StatusCode::GATEWAY_TIMEOUT);
    }
}
