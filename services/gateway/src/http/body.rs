//! Reading a body: so much, and no longer than so long.

use std::time::Duration;

use axum::body::{Body, HttpBody};
use bytes::Bytes;
use http_body_util::{BodyExt, LengthLimitError, Limited};
use stampede_contracts::{Code, Problem};

/// The largest body of a buyer, in bytes: a hold of eight chosen seats or an order needs less than one KiB.
pub const MAX: usize = 64 * 1024;

/// The largest body of an operator, in bytes: a show with a hundred sections.
pub const OPERATOR_MAX: usize = 1024 * 1024;

/// The whole body.
///
/// # Errors
/// `too_large`, `request_timeout` when it trickles in, `malformed_request` when it breaks off.
pub async fn read(body: Body, max: usize, within: Duration) -> Result<Bytes, Problem> {
    let announced = usize::try_from(body.size_hint().lower()).unwrap_or(usize::MAX);
    if announced > max {
        return Err(too_large(max));
    }
    match tokio::time::timeout(within, Limited::new(body, max).collect()).await {
        Ok(Ok(whole)) => Ok(whole.to_bytes()),
        Ok(Err(error)) if error.is::<LengthLimitError>() => Err(too_large(max)),
        Ok(Err(_)) => Err(Problem::new(Code::MalformedRequest).detail("The body broke off.")),
        Err(_elapsed) => Err(Problem::new(Code::RequestTimeout)),
    }
}

fn too_large(max: usize) -> Problem {
    Problem::new(Code::TooLarge).detail(format!("At most {max} bytes."))
}

#[cfg(test)]
mod tests {
    use futures::stream;

    use super::*;

    const SOON: Duration = Duration::from_secs(1);

    fn chunks(chunks: Vec<&'static [u8]>) -> Body {
        Body::from_stream(stream::iter(chunks.into_iter().map(Ok::<_, std::io::Error>)))
    }

    #[tokio::test]
    async fn exactly_the_limit_passes_announced_or_not() {
        assert_eq!(read(Body::from("1234"), 4, SOON).await.unwrap(), "1234");
        assert_eq!(read(chunks(vec![b"12", b"34"]), 4, SOON).await.unwrap(), "1234");
        for body in [Body::from("12345"), chunks(vec![b"12", b"345"])] {
            assert_eq!(read(body, 4, SOON).await.unwrap_err().code, Code::TooLarge);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_that_trickles_in_is_given_up() {
        let never = Body::from_stream(stream::pending::<Result<Bytes, std::io::Error>>());
        assert_eq!(read(never, 4, SOON).await.unwrap_err().code, Code::RequestTimeout);
    }

    #[tokio::test]
    async fn a_body_that_breaks_off_is_the_clients_affair() {
        let broken = Body::from_stream(stream::iter([Err::<Bytes, _>(std::io::Error::other("gone"))]));
        assert_eq!(read(broken, 4, SOON).await.unwrap_err().code, Code::MalformedRequest);
    }
}
