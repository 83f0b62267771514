//! What an answer means, and whether a request can be sent twice.

use std::time::SystemTime;

use http::{HeaderName, Request, Response, StatusCode};
use http_body::Body;

use crate::{RetryAfter, Verdict, retry_after};

/// Header with the number of the attempt; the first attempt has none, the second says `1`.
pub const ATTEMPT: HeaderName = HeaderName::from_static("attempt");

/// What [`RetryLayer`](crate::RetryLayer) has to know about requests and answers.
///
/// A closure `Fn(&Result<Res, E>) -> Verdict` is rules for requests that can be cloned.
pub trait Rules<Req, Res, E> {
    /// What an attempt's result means.
    fn verdict(&self, result: &Result<Res, E>) -> Verdict;

    /// A copy for another attempt; `None` if this request can be sent only once.
    fn copy(&self, request: &Req) -> Option<Req>;

    /// Writes into a copy which attempt it is for; 1 is the second.
    fn number(&self, request: &mut Req, attempt: u32) {
        let _ = (request, attempt);
    }
}

impl<F, Req, Res, E> Rules<Req, Res, E> for F
where
    F: Fn(&Result<Res, E>) -> Verdict,
    Req: Clone,
{
    fn verdict(&self, result: &Result<Res, E>) -> Verdict {
        self(result)
    }

    fn copy(&self, request: &Req) -> Option<Req> {
        Some(request.clone())
    }
}

/// The rules of HTTP: a connection that broke, 429, 502 and 503 are worth another attempt, when the server asks for it
/// in `Retry-After`, and everything else is an answer. A body is kept for another attempt unless it is too large.
#[derive(Clone, Copy, Debug)]
pub struct HttpRules {
    /// Requests whose body has, or may have, more bytes than this are sent once.
    pub replay_max_bytes: u64,
}

impl<B: Body + Clone, R, E> Rules<Request<B>, Response<R>, E> for HttpRules {
    fn verdict(&self, result: &Result<Response<R>, E>) -> Verdict {
        match result {
            Ok(response) => of_response(response),
            Err(_) => Verdict::Again,
        }
    }

    fn copy(&self, request: &Request<B>) -> Option<Request<B>> {
        // A body that does not say how long it is may be endless.
        let fits = |bytes| bytes <= self.replay_max_bytes;
        request.body().size_hint().upper().is_some_and(fits).then(|| request.clone())
    }

    fn number(&self, request: &mut Request<B>, attempt: u32) {
        request.headers_mut().insert(ATTEMPT, attempt.into());
    }
}

fn of_response<R>(response: &Response<R>) -> Verdict {
    match response.status() {
        StatusCode::TOO_MANY_REQUESTS | StatusCode::BAD_GATEWAY | StatusCode::SERVICE_UNAVAILABLE => {
            match retry_after(response.headers(), SystemTime::now()) {
                Some(RetryAfter::Wait(wait)) => Verdict::AgainAfter(wait),
                Some(RetryAfter::Never) => Verdict::Final,
                None => Verdict::Again,
            }
        }
        _ => Verdict::Final,
    }
}

#[cfg(test)]
#[cfg(not(stampede_loom))]
mod tests {
    use std::time::Duration;

    use http_body_util::{BodyExt, Full};

    use super::*;

    type Outcome = Result<Response<()>, ()>;
    type Text = Full<&'static [u8]>;

    fn verdict(status: u16, retry_after: Option<&str>) -> Verdict {
        let mut response = Response::builder().status(status);
        if let Some(text) = retry_after {
            response = response.header("retry-after", text);
        }
        let outcome: Outcome = Ok(response.body(()).unwrap());
        Rules::<Request<Text>, _, _>::verdict(&HttpRules { replay_max_bytes: 0 }, &outcome)
    }

    #[test]
    fn an_answer_is_not_a_failure() {
        for status in [200, 201, 302, 400, 402, 404, 409, 422, 500, 501, 504] {
            assert_eq!(verdict(status, None), Verdict::Final, "{status}");
        }
        for status in [429, 502, 503] {
            assert_eq!(verdict(status, None), Verdict::Again, "{status}");
            assert_eq!(verdict(status, Some("2")), Verdict::AgainAfter(Duration::from_secs(2)), "{status}");
            assert_eq!(verdict(status, Some("1e9")), Verdict::Final, "{status}");
        }
        let broken: Outcome = Err(());
        let rules = HttpRules { replay_max_bytes: 0 };
        assert_eq!(Rules::<Request<Text>, _, _>::verdict(&rules, &broken), Verdict::Again);
    }

    #[test]
    fn a_body_is_kept_up_to_its_cap_and_the_attempt_is_numbered() {
        let rules = HttpRules { replay_max_bytes: 5 };
        let copy = |body: &'static str| {
            Rules::<Request<Text>, Response<()>, ()>::copy(&rules, &Request::new(Full::new(body.as_bytes())))
        };
        let mut kept = copy("12345").unwrap();
        assert!(copy("123456").is_none());
        Rules::<Request<Text>, Response<()>, ()>::number(&rules, &mut kept, 2);
        assert_eq!(kept.headers()[ATTEMPT], "2");
    }

    #[test]
    fn a_body_of_unknown_length_is_sent_once() {
        let body = Text::new(b"1").map_frame(|frame| frame);
        let unknown = Request::new(Unknown(body.map_err(|never| match never {})));
        let rules = HttpRules { replay_max_bytes: u64::MAX };
        assert!(Rules::<_, Response<()>, ()>::copy(&rules, &unknown).is_none());
    }

    #[derive(Clone)]
    struct Unknown<B>(B);

    impl<B: Body<Error = ()> + Unpin> Body for Unknown<B> {
        type Data = B::Data;
        type Error = ();

        fn poll_frame(
            mut self: std::pin::Pin<&mut Self>,
            cx: &mut std::task::Context<'_>,
        ) -> std::task::Poll<Option<Result<http_body::Frame<B::Data>, ()>>> {
            std::pin::Pin::new(&mut self.0).poll_frame(cx)
        }
    }
}
