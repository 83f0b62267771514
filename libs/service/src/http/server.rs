//! The accept loop: HTTP/1.1 with a bound on connections and silence, and an end that lets requests finish.
//!
//! `axum::serve` has neither bound, and its connections outlive it.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::time::Duration;

use axum::Router;
use axum::extract::ConnectInfo;
use axum::response::Response;
use http::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tower::Service;

/// How many header fields a request may have, and how many bytes its head.
const HEADERS_MAX: usize = 64;
const HEAD_MAX_BYTES: usize = 32 * 1024;

/// How long to wait when no connection can be accepted, most likely because no file descriptor is left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// A listener and what is served on it.
#[derive(Debug)]
pub(crate) struct Server {
    pub(crate) listener: TcpListener,
    pub(crate) router: Router,
    pub(crate) connections_max: usize,
    pub(crate) idle_timeout: Duration,
}

impl Server {
    /// Serves until `stop`, then waits for the requests that are being worked on. Dropping the future ends them.
    pub(crate) async fn run(mut self, stop: CancellationToken) {
        // Builds every route with its layers now; otherwise axum would build them again for each request.
        self.router = self.router.with_state(());
        let mut connections = JoinSet::new();
        loop {
            let has_room = connections.len() < self.connections_max;
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
        // Closed before the wait, so that newcomers are refused and go to another replica.
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
        let idle_timeout = self.idle_timeout;
        async move {
            // Answers are small and complete: waiting for more bytes would only delay them.
            let _best_effort = stream.set_nodelay(true);
            let service = service_fn(move |request| answer(router.clone(), peer, request));
            let connection = http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(idle_timeout)
                .max_headers(HEADERS_MAX)
                .max_buf_size(HEAD_MAX_BYTES)
                .serve_connection(TokioIo::new(stream), service);
            let mut connection = std::pin::pin!(connection);
            let result = tokio::select! {
                result = connection.as_mut() => result,
                () = stop.cancelled() => {
                    connection.as_mut().graceful_shutdown();
                    connection.await
                }
            };
            if let Err(error) = result {
                // The other side went away or spoke no HTTP: its affair, and under load far too frequent for a log.
                tracing::debug!(%error, %peer, "a connection ended badly");
            }
        }
    }
}

async fn answer(
    mut router: Router,
    peer: SocketAddr,
    mut request: Request<Incoming>,
) -> Result<Response, Infallible> {
    request.extensions_mut().insert(ConnectInfo(peer));
    // A router is always ready.
    router.call(request).await
}
