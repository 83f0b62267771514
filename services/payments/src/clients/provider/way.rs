//! The way to the provider: one exchange, and the layers around it.

use std::task::{Context, Poll};

use futures::FutureExt;
use futures::future::BoxFuture;
use reqwest::{RequestBuilder, Response, StatusCode};
use stampede_contracts::function::Keyed;
use stampede_resilience::{Destination, Error, Meaning};
use tower::{Layer, Service, ServiceExt};

use super::{ANSWER_MAX_BYTES, Unclear};

/// An answer that says something.
pub(super) type Exchanged = (StatusCode, Vec<u8>);

/// A request and how it is called.
pub(super) struct Call {
    pub(super) name: &'static str,
    pub(super) request: RequestBuilder,
}

/// Makes one call, if it is made at all. Only one: an operation whose outcome is unknown is a row that comes again by
/// itself.
pub(super) async fn exchange(provider: &Destination<Keyed>, call: Call) -> Result<Exchanged, Unclear> {
    if !provider.is_on() {
        return send(call.name, call.request).await;
    }
    provider.single(meaning).layer(Way).oneshot(call).await.map_err(|error| match error {
        Error::Inner(unclear) => unclear,
        Error::TimedOut => Unclear::TimedOut,
        Error::Open(_) | Error::Crowded(_) => Unclear::NotCalled,
    })
}

/// What is no definite answer is a failure: the provider is there to give one.
fn meaning(answer: Result<&Exchanged, &Unclear>) -> Meaning {
    match answer {
        Ok((StatusCode::TOO_MANY_REQUESTS, _)) => Meaning::Busy(None),
        Ok(_) => Meaning::Answer,
        Err(_) => Meaning::Unavailable(None),
    }
}

/// The way without any layer.
#[derive(Clone)]
struct Way;

impl Service<Call> for Way {
    type Response = Exchanged;
    type Error = Unclear;
    type Future = BoxFuture<'static, Result<Exchanged, Unclear>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Unclear>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, Call { name, request }: Call) -> Self::Future {
        send(name, request).boxed()
    }
}

async fn send(name: &'static str, request: RequestBuilder) -> Result<Exchanged, Unclear> {
    let response = request.send().await?;
    let status = response.status();
    match status {
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => Err(Unclear::Credentials(status)),
        status if status.is_server_error() => Err(Unclear::Status(status)),
        status => Ok((status, body(name, response).await?)),
    }
}

async fn body(name: &'static str, mut response: Response) -> Result<Vec<u8>, Unclear> {
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await? {
        if body.len() + chunk.len() > ANSWER_MAX_BYTES {
            return Err(Unclear::Malformed(name));
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_no_failure_and_no_answer_is() {
        let answered = |status: StatusCode| meaning(Ok(&(status, Vec::new())));
        assert_eq!(answered(StatusCode::CREATED), Meaning::Answer);
        assert_eq!(answered(StatusCode::PAYMENT_REQUIRED), Meaning::Answer);
        assert_eq!(answered(StatusCode::NOT_FOUND), Meaning::Answer);
        assert_eq!(answered(StatusCode::TOO_MANY_REQUESTS), Meaning::Busy(None));
        assert_eq!(meaning(Err(&Unclear::TimedOut)), Meaning::Unavailable(None));
    }
}
