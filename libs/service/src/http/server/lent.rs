//! The body of a request, lent to whoever answers it.
//!
//! A connection can serve another request only when this one's body was read to its end. hyper finds out after the head
//! of the answer is gone, and closes without having said so: a client that has just finished sending takes the
//! connection for free, sends its next request there and never hears of it. So what is left of a body is read before
//! the answer leaves, if it is little, and otherwise the answer says that it is the last one (RFC 9112, 9.6).

use std::mem;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Limited};
use hyper::body::{Body, Frame, Incoming, SizeHint};

/// How much of a body that nobody wanted is read, and for how long: closing costs the client a connection, and this
/// must not cost us more.
const REST_MAX_BYTES: usize = 64 * 1024;
const REST_TIMEOUT: Duration = Duration::from_millis(100);

/// What became of a body.
#[derive(Debug)]
enum Fate {
    Lent,
    Read,
    Left(Incoming),
}

/// A body that comes back when its reader lets go.
#[derive(Debug)]
pub(super) struct Lent {
    body: Option<Incoming>,
    fate: Arc<Mutex<Fate>>,
}

/// The place where it comes back to.
#[derive(Debug)]
pub(super) struct Lender(Arc<Mutex<Fate>>);

pub(super) fn lend(body: Incoming) -> (Lent, Lender) {
    let fate = Arc::new(Mutex::new(Fate::Lent));
    (Lent { body: Some(body), fate: Arc::clone(&fate) }, Lender(fate))
}

impl Lender {
    /// Whether the body has come to its end; what is left of a small one is read now, unless the client waits for a
    /// 100 (Continue) before it sends any.
    pub(super) async fn was_read(self, client_waits: bool) -> bool {
        let fate = mem::replace(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner), Fate::Lent);
        match fate {
            Fate::Read => true,
            Fate::Lent => false,
            Fate::Left(body) if client_waits || body.size_hint().lower() > REST_MAX_BYTES as u64 => false,
            Fate::Left(body) => {
                let rest = Limited::new(body, REST_MAX_BYTES).collect();
                matches!(tokio::time::timeout(REST_TIMEOUT, rest).await, Ok(Ok(_)))
            }
        }
    }
}

impl Lent {
    fn becomes(&self, fate: Fate) {
        *self.fate.lock().unwrap_or_else(PoisonError::into_inner) = fate;
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        match self.body.take() {
            Some(body) if body.is_end_stream() => self.becomes(Fate::Read),
            Some(body) => self.becomes(Fate::Left(body)),
            None => {}
        }
    }
}

impl Body for Lent {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let Some(body) = &mut self.body else { return Poll::Ready(None) };
        let frame = ready!(Pin::new(body).poll_frame(cx));
        match frame {
            None => {
                self.body = None;
                self.becomes(Fate::Read);
            }
            // Where the next request begins cannot be determined any more.
            Some(Err(_)) => self.body = None,
            Some(Ok(_)) => {}
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.as_ref().is_none_or(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.body.as_ref().map_or_else(|| SizeHint::with_exact(0), Body::size_hint)
    }
}
