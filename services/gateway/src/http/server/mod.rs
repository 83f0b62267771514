//! The accept loop of a door that strangers stand before.
//!
//! Between our own nodes `stampede-service` serves. Here every wait of a connection has a bound of its own: for the first
//! byte of a request, for the rest of its head, for the client to take its answer, and to take note that it is over. And whatever hyper
//! would refuse with an empty answer, because it never becomes a request, is refused with a problem.

mod alarm;
mod guarded;
mod lent;
mod phase;

use std::convert::Infallible;
use std::future::poll_fn;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::ConnectInfo;
use futures::future::BoxFuture;
use http::{HeaderValue, Request, Response, header};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tower::Service;

use self::guarded::Guarded;
use self::phase::{Phase, Tracked};
use crate::metrics::Metrics;

/// How many header fields a request may have, and how many bytes its head.
const FIELDS_MAX: usize = 64;
const HEAD_MAX_BYTES: usize = 32 * 1024;

/// How long to wait when no connection can be accepted, most likely because no file descriptor is left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What connections may cost.
#[derive(Debug, Clone, Copy)]
pub struct ConnectionLimits {
    /// How many at once; more wait in the kernel's backlog.
    pub max: usize,
    /// How long one may be silent between requests.
    pub idle_timeout: Duration,
    /// How long the head of a request may take from its first byte on.
    pub head_timeout: Duration,
    /// How long the client may refuse to take more of an answer.
    pub write_timeout: Duration,
}

/// A listener and what is served on it.
#[derive(Debug)]
pub struct Server {
    /// Where connections come in.
    pub listener: TcpListener,
    /// What answers.
    pub router: Router,
    /// What connections may cost.
    pub limits: ConnectionLimits,
    /// What is counted.
    pub metrics: Metrics,
}

impl Server {
    /// Serves until `stop`, then waits for the requests that are being worked on. Dropping the future ends them.
    pub async fn run(mut self, stop: CancellationToken) {
        // Builds every route with its layers now; otherwise axum would build them again for each request.
        self.router = self.router.with_state(());
        let mut connections = JoinSet::new();
        loop {
            let has_room = connections.len() < self.limits.max;
            tokio::select! {
                () = stop.cancelled() => break,
                Some(_ended) = connections.join_next() => {}
                accepted = self.listener.accept(), if has_room => match accepted {
                    Ok((stream, peer)) => {
                        connections.spawn(self.connection(stream, peer, stop.clone()));
                    }
                    Err(error) => {
                        tracing::warn!(%error, "a connection could not be accepted");
                        stop.run_until_cancelled(tokio::time::sleep(ACCEPT_PAUSE)).await;
                    }
                },
            }
        }
        // Closed before the wait, so that newcomers are refused and go to another gateway.
        drop(self.listener);
        while connections.join_next().await.is_some() {}
    }

    fn connection(
        &self,
        stream: TcpStream,
        peer: SocketAddr,
        stop: CancellationToken,
    ) -> impl Future<Output = ()> + Send + use<> {
        let router = self.router.clone();
        let limits = self.limits;
        let counted = self.metrics.connection();
        async move {
            // Answers are small and complete: waiting for more bytes would only delay them.
            let _best_effort = stream.set_nodelay(true);
            let phase = Arc::new(Phase::default());
            let guarded = Guarded::new(stream, Arc::clone(&phase), limits);
            let service =
                service_fn(move |request| answer(router.clone(), peer, Arc::clone(&phase), request));
            let mut connection = http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(limits.idle_timeout)
                .max_headers(FIELDS_MAX)
                .max_buf_size(HEAD_MAX_BYTES)
                .serve_connection(TokioIo::new(guarded), service);
            let result = tokio::select! {
                result = poll_fn(|cx| connection.poll_without_shutdown(cx)) => result,
                () = stop.cancelled() => {
                    std::pin::Pin::new(&mut connection).graceful_shutdown();
                    poll_fn(|cx| connection.poll_without_shutdown(cx)).await
                }
            };
            if let Err(error) = result {
                // The other side went away or spoke no HTTP: its affair, and far too frequent for a log.
                tracing::debug!(%error, %peer, "a connection ended badly");
            }
            connection.into_parts().io.into_inner().close().await;
            drop(counted);
        }
    }
}

// Boxed, because hyper hands a connection back only when this future can be moved.
fn answer(
    mut router: Router,
    peer: SocketAddr,
    phase: Arc<Phase>,
    mut request: Request<Incoming>,
) -> BoxFuture<'static, Result<Response<Tracked>, Infallible>> {
    phase.answering();
    request.extensions_mut().insert(ConnectInfo(peer));
    Box::pin(async move {
        let (head, body) = request.into_parts();
        let (body, lender) = lent::lend(body);
        let mut response = router.call(Request::from_parts(head, body)).await?;
        if !lender.was_read().await {
            response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
        Ok(response.map(|body| Tracked::new(body, phase)))
    })
}
