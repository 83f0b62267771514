//! From serving to the end, in order: not ready, no new requests, the open ones, the tasks, the last spans.

use std::fmt;
use std::future::Future;
use std::process::ExitCode;
use std::sync::PoisonError;
use std::time::Duration;

use axum::Router;
use futures::FutureExt;
use futures::future::{FusedFuture, join_all};
use tokio::net::TcpListener;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::{Error, Node};

/// What each part of the end may take after the requests, one after the other, whatever those before it needed: children
/// and tasks, then the connections to NATS, then those to the database, then the last spans.
///
/// The grace period of a pod is checked against `DRAIN_DELAY_MS` + `DRAIN_TIMEOUT_MS` + the sum of these
/// (`tools/manifests`, which reads them here, so they are numbers).
const CHILDREN_WITHIN: Duration = Duration::from_secs(12);
const BUSES_WITHIN: Duration = Duration::from_secs(5);
const POOLS_WITHIN: Duration = Duration::from_secs(2);
const SPANS_WITHIN: Duration = Duration::from_secs(5);
// What a part promises for itself fits into its bound.
const _: () = {
    assert!(CHILDREN_WITHIN.as_millis() > stampede_bus::STOP_WITHIN.as_millis());
    assert!(BUSES_WITHIN.as_millis() >= stampede_bus::DRAIN_WITHIN.as_millis());
    assert!(SPANS_WITHIN.as_millis() >= stampede_telemetry::FLUSH_WITHIN.as_millis());
};

/// Why a node stopped serving.
#[derive(Debug)]
enum End {
    /// SIGTERM, Ctrl-C, or the draining token.
    Asked,
    /// A child failed too often, or the server ended by itself.
    GaveUp(String),
}

impl fmt::Display for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Asked => f.write_str("asked to stop"),
            Self::GaveUp(child) => write!(f, "{child} was given up"),
        }
    }
}

/// What a shell says of a process that SIGTERM ended.
const ENDED_BY_SIGTERM: i32 = 128 + 15;

impl Node {
    /// Until it serves there is nothing to drain: asked to end, the process ends, with 143. By itself the kernel does that
    /// for every process but number 1 of a container, which would wait for its database until it is killed.
    pub(crate) fn end_when_asked(mut self) -> Result<Self, Error> {
        let mut signals = Signals::install().map_err(Error::Signals)?;
        self.not_serving.spawn(async move {
            signals.next().await;
            tracing::info!("asked to end before it served");
            std::process::exit(ENDED_BY_SIGTERM);
        });
        Ok(self)
    }

    /// Serves `router` until SIGTERM, Ctrl-C, a child that was given up, or a cancelled
    /// [`draining`](Self::draining) token, and then ends in order. Without a listener it binds one by itself.
    ///
    /// The process lives at most `DRAIN_DELAY_MS` + `DRAIN_TIMEOUT_MS` + 24 s longer than that: the parts of the end
    /// have bounds of their own. Ctrl-C while it drains ends it at once.
    pub async fn serve(self, listener: Option<TcpListener>, router: Router) -> ExitCode {
        let listener = match listener {
            Some(listener) => Ok(listener),
            None => self.listen().await.map(|(listener, _)| listener),
        };
        match listener {
            Ok(listener) => {
                let server = self.server(listener, router);
                self.serve_with(|stop| server.run(stop)).await
            }
            Err(error) => {
                tracing::error!(error = &error as &dyn std::error::Error, "cannot serve");
                ExitCode::FAILURE
            }
        }
    }

    /// Lives like [`serve`](Self::serve), without requests over HTTP.
    pub async fn idle(self) -> ExitCode {
        self.serve_with(CancellationToken::cancelled_owned).await
    }

    /// Lives like [`serve`](Self::serve), with a server of the caller's own. It is given a token that is cancelled when it
    /// has to take no more requests, and ends when the open ones are answered.
    pub async fn serve_with<F>(mut self, serve: impl FnOnce(CancellationToken) -> F) -> ExitCode
    where
        F: Future<Output = ()>,
    {
        let mut signals = match Signals::install() {
            Ok(signals) => signals,
            Err(error) => {
                tracing::error!(%error, "signals cannot be received");
                return ExitCode::FAILURE;
            }
        };
        self.not_serving.abort_all();
        let mut serving = Box::pin(serve(self.stop.clone()).fuse());
        self.readiness.start();
        tracing::info!("serving");
        let end = tokio::select! {
            end = self.end(&mut signals) => end,
            // A server should not end before it is told to; in any case it has to be polled.
            () = &mut serving => End::GaveUp("the server".to_owned()),
        };
        tracing::info!(reason = %end, "draining");
        let telemetry = self.telemetry.clone();
        let exit = tokio::select! {
            () = self.drain(serving) => match end {
                End::Asked => ExitCode::SUCCESS,
                End::GaveUp(_) => ExitCode::FAILURE,
            },
            // Only Ctrl-C: a terminal sends it to a whole group of processes, whose parent then sends SIGTERM as well.
            () = signals.interrupted() => {
                tracing::warn!("interrupted while draining; ending at once");
                ExitCode::FAILURE
            }
        };
        tracing::info!("ended");
        // The exporter blocks its thread, which must not be one that others need in order to finish.
        let _flushed = tokio::task::spawn_blocking(move || telemetry.flush()).await;
        exit
    }

    async fn end(&self, signals: &mut Signals) -> End {
        tokio::select! {
            () = signals.next() => End::Asked,
            () = self.draining.cancelled() => End::Asked,
            child = self.supervisor.failed() => End::GaveUp(child),
        }
    }

    async fn drain(self, serving: impl FusedFuture<Output = ()>) {
        self.readiness.drain();
        self.draining.cancel();
        self.beside.close();
        // A server that ended by itself has nothing left to wait for.
        let serves = !serving.is_terminated();
        let listeners = async {
            let main = async {
                if serves {
                    serving.await;
                }
            };
            tokio::join!(main, self.beside.wait())
        };
        // Boxed, so that it can be dropped below, which ends what is cut off.
        let mut listeners = Box::pin(listeners.fuse());
        // Until everybody knows, some still send requests here, and they are answered.
        if serves {
            let _until_known = timeout(self.settings.drain_delay, &mut listeners).await;
        }
        self.stop.cancel();
        if !listeners.is_terminated() && timeout(self.settings.drain_timeout, listeners).await.is_err() {
            tracing::warn!(waited = ?self.settings.drain_timeout, "requests were cut off");
        }
        // From here on nobody waits for an answer, so the workers that answers depend on may end.
        self.shutdown.cancel();
        self.tasks.close();
        let pools = std::mem::take(&mut *self.pools.lock().unwrap_or_else(PoisonError::into_inner));
        let buses = std::mem::take(&mut *self.buses.lock().unwrap_or_else(PoisonError::into_inner));
        let children = async { tokio::join!(self.supervisor.join(), self.tasks.wait()) };
        within(CHILDREN_WITHIN, "children and tasks", children).await;
        // What was said last goes out before the connection does.
        within(BUSES_WITHIN, "NATS", join_all(buses.iter().map(stampede_bus::Bus::drain))).await;
        within(POOLS_WITHIN, "the database", join_all(pools.iter().map(stampede_postgres::PgPool::close)))
            .await;
    }
}

/// A part of the end. What is cut off here takes no time from the parts behind it.
async fn within<T>(bound: Duration, part: &str, work: impl Future<Output = T>) {
    if timeout(bound, work).await.is_err() {
        tracing::warn!(waited = ?bound, part, "cut off at the end");
    }
}

/// The two ways in which a process is asked to stop.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn install() -> std::io::Result<Self> {
        Ok(Self { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? })
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }

    async fn interrupted(&mut self) {
        self.interrupt.recv().await;
    }
}
