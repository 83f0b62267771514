//! The bytes of a connection, watched.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use stampede_contracts::{Code, Problem};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::Limits;
use super::alarm::Alarm;
use super::phase::Phase;

/// How long, and for how many bytes, the other side is listened to after the last answer. Closing while it still sends
/// would reset the connection, and the answer would be lost with it (RFC 9112, 9.6).
const LINGER: Duration = Duration::from_secs(1);
const LINGER_MAX_BYTES: u64 = 8 * 1024 * 1024;

/// How long the last answer may take to be sent.
const FAREWELL_TIMEOUT: Duration = Duration::from_secs(1);

/// A TCP stream that gives heads and answers only so much time, and replaces hyper's empty refusals by problems.
#[derive(Debug)]
pub(super) struct Guarded {
    stream: TcpStream,
    phase: Arc<Phase>,
    limits: Limits,
    /// Set from the first byte of a head until the head is complete.
    head: Alarm,
    line: Line,
    /// Set while the other side takes nothing.
    writing: Alarm,
    /// What is sent before the connection is closed.
    farewell: Option<Code>,
    is_over: bool,
}

impl Guarded {
    pub(super) fn new(stream: TcpStream, phase: Arc<Phase>, limits: Limits) -> Self {
        let (head, writing) = (Alarm::default(), Alarm::default());
        Self { stream, phase, limits, head, line: Line::Empty, writing, farewell: None, is_over: false }
    }

    /// What came cannot be read. hyper says so itself, except to the preface of HTTP/2.
    pub(super) fn refuse(&mut self) {
        if !self.phase.is_answering() {
            self.farewell.get_or_insert(Code::MalformedRequest);
        }
    }

    /// Sends what is left to say, and closes without losing it.
    pub(super) async fn close(self) {
        finish(self.stream, self.farewell, self.is_over).await;
    }

    /// The bytes that came, if any, belong to a head or to what follows one.
    fn watch_head(&mut self, bytes: &[u8]) {
        if self.phase.is_answering() {
            self.head.clear();
            self.line = Line::Empty;
        } else if !bytes.is_empty() {
            self.head.set(self.limits.head_timeout);
            self.line.read(bytes);
        }
    }

    fn poll_head(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.watch_head(&[]);
        ready!(self.head.poll(cx));
        self.farewell = Some(Code::RequestTimeout);
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }

    /// What became of a write; one that is never taken ends with an error.
    fn watch_write(
        &mut self,
        cx: &mut Context<'_>,
        written: Poll<io::Result<usize>>,
    ) -> Poll<io::Result<usize>> {
        if written.is_ready() {
            self.writing.clear();
            return written;
        }
        self.writing.set(self.limits.write_timeout);
        ready!(self.writing.poll(cx));
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }

    /// Takes note of hyper's own refusal, which is then not sent: it comes while no request is being answered, and has
    /// no body, as no refusal of ours does.
    fn swallows(&mut self, bytes: &[u8]) -> bool {
        let looks_like_one = bytes.starts_with(b"HTTP/1.1 4") && is_empty_answer(bytes);
        if !looks_like_one || self.phase.is_own_refusal() || self.phase.is_answering() {
            return false;
        }
        self.farewell = Some(match bytes.get(9..12) {
            // RFC 9112, 3: an address that is too long is not the same as fields that are.
            Some(b"414" | b"431") if self.line != Line::Complete => Code::UriTooLong,
            Some(b"414" | b"431") => Code::HeadTooLarge,
            _ => Code::MalformedRequest,
        });
        true
    }
}

/// How much has come of the first line of a head.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Line {
    /// Nothing but line ends, which may precede it (RFC 9112, 2.2).
    Empty,
    Begun,
    Complete,
}

impl Line {
    fn read(&mut self, bytes: &[u8]) {
        for byte in bytes {
            *self = match (*self, byte) {
                (Self::Complete, _) | (Self::Begun, b'\n') => return *self = Self::Complete,
                (Self::Empty, b'\r' | b'\n') => Self::Empty,
                (Self::Empty | Self::Begun, _) => Self::Begun,
            };
        }
    }
}

/// Sends a 503 to a client for which there is no room, and closes.
pub(super) async fn turn_away(stream: TcpStream) {
    finish(stream, Some(Code::Busy), false).await;
}

async fn finish(mut stream: TcpStream, farewell: Option<Code>, is_over: bool) {
    let sent = async {
        if let Some(code) = farewell {
            stream.write_all(&refusal(code)).await?;
        }
        stream.shutdown().await
    };
    if !matches!(timeout(FAREWELL_TIMEOUT, sent).await, Ok(Ok(()))) || is_over {
        return;
    }
    let mut rest = stream.take(LINGER_MAX_BYTES);
    let _whatever_comes = timeout(LINGER, tokio::io::copy(&mut rest, &mut tokio::io::sink())).await;
}

fn is_empty_answer(bytes: &[u8]) -> bool {
    let length = b"\r\ncontent-length: 0\r\n";
    bytes.ends_with(b"\r\n\r\n")
        && bytes.windows(length.len()).any(|window| window.eq_ignore_ascii_case(length))
}

/// A problem as bytes, for whoever never became a request.
fn refusal(code: Code) -> Vec<u8> {
    let problem = Problem::new(code);
    let body = serde_json::to_string(&problem).unwrap_or_default();
    let retry_after = problem.retry_after.map(|seconds| format!("retry-after: {seconds}\r\n"));
    let reason = http::StatusCode::from_u16(code.status()).ok().and_then(|status| status.canonical_reason());
    format!(
        "HTTP/1.1 {} {}\r\ncontent-type: {}\r\ncontent-length: {}\r\nx-content-type-options: nosniff\r\n\
         cache-control: no-store\r\n{}connection: close\r\n\r\n{body}",
        code.status(),
        reason.unwrap_or_default(),
        Problem::MEDIA_TYPE,
        body.len(),
        retry_after.unwrap_or_default(),
    )
    .into_bytes()
}

impl AsyncRead for Guarded {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        match Pin::new(&mut self.stream).poll_read(cx, buffer) {
            Poll::Pending => self.poll_head(cx),
            Poll::Ready(result) => {
                let came = &buffer.filled()[before..];
                self.is_over = came.is_empty();
                self.watch_head(came);
                Poll::Ready(result)
            }
        }
    }
}

impl AsyncWrite for Guarded {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        if self.swallows(bytes) {
            return Poll::Ready(Ok(bytes.len()));
        }
        let written = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.watch_write(cx, written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if let [only] = slices
            && self.swallows(only)
        {
            return Poll::Ready(Ok(only.len()));
        }
        let written = Pin::new(&mut self.stream).poll_write_vectored(cx, slices);
        self.watch_write(cx, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_an_empty_answer_is_taken_for_hypers_own() {
        let own =
            b"HTTP/1.1 431 Request Header Fields Too Large\r\nconnection: close\r\ncontent-length: 0\r\n\r\n";
        assert!(is_empty_answer(own));
        assert!(!is_empty_answer(b"HTTP/1.1 404 Not Found\r\ncontent-length: 2\r\n\r\n{}"));
        assert!(!is_empty_answer(&refusal(Code::HeadTooLarge)));
    }

    #[test]
    fn a_refusal_is_a_complete_answer() {
        let text = String::from_utf8(refusal(Code::RequestTimeout)).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        assert!(head.starts_with("HTTP/1.1 408 Request Timeout\r\n"));
        assert!(head.contains(&format!("content-length: {}", body.len())));
        assert_eq!(serde_json::from_str::<Problem>(body).unwrap().code, Code::RequestTimeout);
    }
}
