//! The accept loop, the same for every listener: no client can keep it from answering the others.
//!
//! `axum::serve` bounds nothing, and its connections outlive it. Here the number of connections is bounded, in total and
//! per address, and so is each wait: for the first byte of a request, for the rest of its head, for the client to read
//! the response, and for it to close. What hyper refuses with an empty response is refused with a problem.

mod alarm;
mod connections;
mod guarded;
mod lent;
mod phase;
mod protocol;

use std::convert::Infallible;
use std::fmt;
use std::future::poll_fn;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::{Body, HttpBody};
use axum::extract::ConnectInfo;
use axum::response::IntoResponse;
use futures::future::BoxFuture;
use http::{HeaderValue, Request, Response, StatusCode, header};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use stampede_contracts::{Code, Problem};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tower::Service;

use self::connections::{Connections, Slot};
use self::guarded::Guarded;
use self::phase::{Phase, Tracked};
use crate::Settings;
use crate::http::AddressKey;

/// How many header fields a request may have, and how many bytes its head.
const FIELDS_MAX: usize = 64;
const HEAD_MAX_BYTES: usize = 32 * 1024;

/// How long to wait when no connection can be accepted, most likely because no file descriptor is left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// How many refusals for want of room are sent concurrently; further connections are closed without one.
const TURNED_AWAY_MAX: usize = 32;

/// What connections may cost.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    pub(crate) max: usize,
    pub(crate) max_per_address: usize,
    pub(crate) idle_timeout: Duration,
    pub(crate) head_timeout: Duration,
    pub(crate) write_timeout: Duration,
}

impl Limits {
    pub(crate) fn of(settings: &Settings) -> Self {
        Self {
            max: settings.http_connections_max,
            max_per_address: settings.http_connections_per_address_max,
            idle_timeout: settings.http_idle_timeout,
            head_timeout: settings.http_head_timeout,
            write_timeout: settings.http_write_timeout,
        }
    }

    /// The same for so many connections, wherever they come from.
    pub(crate) fn at_most(self, max: usize) -> Self {
        Self { max, max_per_address: max, ..self }
    }
}

/// A listener and what is served on it.
pub struct Server {
    listener: TcpListener,
    router: Router,
    limits: Limits,
    connections: Arc<Connections>,
    /// Half of the connections may be streams of events, which last; the others are for requests.
    streams: Arc<Semaphore>,
    is_proxy: Box<dyn Fn(IpAddr) -> bool + Send + Sync>,
}

impl Server {
    /// `name` is for metrics.
    pub(crate) fn new(name: &'static str, listener: TcpListener, router: Router, limits: Limits) -> Self {
        let connections = Connections::new(name, limits.max, limits.max_per_address);
        let streams = Arc::new(Semaphore::new((limits.max / 2).max(1)));
        Self { listener, router, limits, connections, streams, is_proxy: Box::new(|_| false) }
    }

    /// Connections of these peers are not counted by address: they come for many clients.
    #[must_use]
    pub fn behind(mut self, is_proxy: impl Fn(IpAddr) -> bool + Send + Sync + 'static) -> Self {
        self.is_proxy = Box::new(is_proxy);
        self
    }

    /// Serves until `stop`, then waits for the requests that are being worked on. Dropping the future ends them.
    pub async fn run(mut self, stop: CancellationToken) {
        // Builds every route with its layers now; otherwise axum would build them again for each request.
        self.router = self.router.with_state(());
        let (mut served, mut turned_away) = (JoinSet::new(), JoinSet::new());
        loop {
            tokio::select! {
                () = stop.cancelled() => break,
                Some(_ended) = served.join_next() => {}
                Some(_ended) = turned_away.join_next() => {}
                accepted = self.listener.accept() => match accepted {
                    Ok((stream, peer)) => {
                        let address = (!(self.is_proxy)(peer.ip())).then(|| AddressKey::from(peer.ip()));
                        match self.connections.admit(address) {
                            Some(slot) => {
                                served.spawn(self.connection(stream, peer, slot, stop.clone()));
                            }
                            None if turned_away.len() < TURNED_AWAY_MAX => {
                                turned_away.spawn(guarded::turn_away(stream));
                            }
                            None => {}
                        }
                    }
                    Err(error) => {
                        let evicted = self.connections.evict_one();
                        tracing::warn!(%error, evicted, "a connection could not be accepted");
                        stop.run_until_cancelled(tokio::time::sleep(ACCEPT_PAUSE)).await;
                    }
                },
            }
        }
        // Closed before the wait, so that newcomers are refused and go to another replica.
        drop(self.listener);
        while served.join_next().await.is_some() {}
    }

    fn connection(
        &self,
        stream: TcpStream,
        peer: SocketAddr,
        slot: Slot,
        stop: CancellationToken,
    ) -> impl Future<Output = ()> + Send + use<> {
        let (router, streams) = (self.router.clone(), Arc::clone(&self.streams));
        let limits = self.limits;
        async move {
            // Answers are small and complete: waiting for more bytes would only delay them.
            let _best_effort = stream.set_nodelay(true);
            let phase = Arc::new(Phase::new(slot));
            let guarded = Guarded::new(stream, Arc::clone(&phase), limits);
            let room = Arc::clone(&phase);
            let service = service_fn(move |mut request: Request<Incoming>| {
                request.extensions_mut().insert(ConnectInfo(peer));
                answer(router.clone(), Arc::clone(&streams), Arc::clone(&phase), request)
            });
            let mut connection = http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(limits.idle_timeout)
                .max_headers(FIELDS_MAX)
                .max_buf_size(HEAD_MAX_BYTES)
                .serve_connection(TokioIo::new(guarded), service);
            let served = async move {
                let result = tokio::select! {
                    result = poll_fn(|cx| connection.poll_without_shutdown(cx)) => result,
                    () = stop.cancelled() => {
                        std::pin::Pin::new(&mut connection).graceful_shutdown();
                        poll_fn(|cx| connection.poll_without_shutdown(cx)).await
                    }
                };
                let mut guarded = connection.into_parts().io.into_inner();
                if let Err(error) = result {
                    // The other side went away or spoke no HTTP: its affair, and far too frequent for a log.
                    tracing::debug!(%error, %peer, "a connection ended badly");
                    if error.is_parse() {
                        guarded.refuse();
                    }
                }
                guarded.close().await;
            };
            tokio::select! {
                () = served => {}
                () = room.evicted() => {}
            }
        }
    }
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Server").field("limits", &self.limits).finish_non_exhaustive()
    }
}

// Boxed, because hyper hands a connection back only when this future can be moved.
fn answer(
    mut router: Router,
    streams: Arc<Semaphore>,
    phase: Arc<Phase>,
    request: Request<Incoming>,
) -> BoxFuture<'static, Result<Response<Tracked>, Infallible>> {
    if !phase.answering() {
        // The connection is closed before this is polled again.
        return Box::pin(std::future::pending());
    }
    Box::pin(async move {
        let (head, body) = request.into_parts();
        if let Err(problem) = protocol::refuse(&head) {
            return Ok(last(problem.into_response()).map(|body| Tracked::new(body, phase, None)));
        }
        if head.uri.path() == protocol::ASTERISK {
            return Ok(about_the_server().map(|body| Tracked::new(body, phase, None)));
        }
        let waits = head.headers.contains_key(header::EXPECT);
        let (body, lender) = lent::lend(body);
        let mut response = router.call(Request::from_parts(head, body)).await?;
        if !lender.was_read(waits).await {
            response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
        if is_empty_refusal(&response) {
            phase.refuses_without_a_body();
        }
        let stream = if is_stream(&response) { streams.try_acquire_owned().map(Some) } else { Ok(None) };
        Ok(match stream {
            Ok(stream) => response.map(|body| Tracked::new(body, phase, stream)),
            Err(_full) => {
                let refusal = Problem::new(Code::Busy).detail("Too many streams are open.");
                last(refusal.into_response()).map(|body| Tracked::new(body, phase, None))
            }
        })
    })
}

fn is_empty_refusal(response: &Response<Body>) -> bool {
    let length = response.headers().get(header::CONTENT_LENGTH);
    response.status().is_client_error()
        && response.body().is_end_stream()
        && length.is_none_or(|length| length.as_bytes() == b"0")
}

fn is_stream(response: &Response<Body>) -> bool {
    let kind = response.headers().get(header::CONTENT_TYPE);
    kind.is_some_and(|kind| kind.as_bytes().starts_with(b"text/event-stream"))
        && !response.body().is_end_stream()
}

/// A refusal after which the connection ends.
fn last(mut response: Response<Body>) -> Response<Body> {
    for (name, value) in [
        (header::CONNECTION, "close"),
        (header::CACHE_CONTROL, "no-store"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    ] {
        response.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    response
}

/// The response to `OPTIONS *`: every method that some resource takes.
fn about_the_server() -> Response<Body> {
    let methods = HeaderValue::from_static("GET, HEAD, POST, PUT, DELETE, OPTIONS");
    (StatusCode::NO_CONTENT, [(header::ALLOW, methods)]).into_response()
}
