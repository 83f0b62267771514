//! One child: run it, look at how it ended, run it again.

use std::any::Any;
use std::fmt;
use std::future::Future;
use std::panic::AssertUnwindSafe;

use futures::FutureExt;
use opentelemetry::KeyValue;
use opentelemetry::metrics::Counter;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::{BoxError, Decision, IsOutage, Restarts};

/// How the supervision of a child ended.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// Shutdown was asked for, and the child has ended.
    Shutdown,
    /// It failed too often.
    GaveUp,
}

pub(crate) struct Child {
    pub(crate) name: String,
    pub(crate) restarts: Restarts,
    pub(crate) shutdown: CancellationToken,
    pub(crate) counter: Counter<u64>,
    pub(crate) is_outage: IsOutage,
}

impl Child {
    pub(crate) async fn run<F, Fut>(mut self, mut factory: F) -> End
    where
        F: FnMut() -> Fut,
        Fut: Future<Output = Result<(), BoxError>>,
    {
        while !self.shutdown.is_cancelled() {
            let failure = run_once(&mut factory).await;
            if self.shutdown.is_cancelled() {
                if !matches!(failure, Failure::Ended) {
                    tracing::warn!(child = self.name, %failure, "child failed while shutting down");
                }
                break;
            }
            let (decision, reason) = match &failure {
                Failure::Error(error) if (self.is_outage)(error.as_ref()) => {
                    (Decision::After(self.restarts.on_outage(Instant::now())), "outage")
                }
                failure => (self.restarts.on_exit(Instant::now()), failure.reason()),
            };
            match decision {
                Decision::After(delay) => {
                    tracing::warn!(child = self.name, %failure, ?delay, "child failed and is started again");
                    let labels = [("child", self.name.clone()), ("reason", reason.to_owned())];
                    self.counter.add(1, &labels.map(|(key, value)| KeyValue::new(key, value)));
                    self.shutdown.run_until_cancelled(tokio::time::sleep(delay)).await;
                }
                Decision::GiveUp => {
                    tracing::error!(child = self.name, %failure, "child failed too often and is given up");
                    return End::GaveUp;
                }
            }
        }
        End::Shutdown
    }
}

enum Failure {
    Ended,
    Error(BoxError),
    Panic(String),
}

impl Failure {
    fn reason(&self) -> &'static str {
        match self {
            Self::Ended => "ended",
            Self::Error(_) => "error",
            Self::Panic(_) => "panic",
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ended => f.write_str("it ended although nobody asked it to"),
            Self::Error(error) => {
                write!(f, "{error}")?;
                // This is the edge where the chain of causes is logged, once.
                let mut source = error.source();
                while let Some(cause) = source {
                    write!(f, ": {cause}")?;
                    source = cause.source();
                }
                Ok(())
            }
            Self::Panic(message) => write!(f, "it panicked: {message}"),
        }
    }
}

async fn run_once<F, Fut>(factory: &mut F) -> Failure
where
    F: FnMut() -> Fut,
    Fut: Future<Output = Result<(), BoxError>>,
{
    // A panic may leave the child's own state broken, but that state is dropped here and made anew; what it shares
    // with others is behind locks, which notice. The factory is called inside, so that its panic is caught as well.
    match AssertUnwindSafe(async { factory().await }).catch_unwind().await {
        Ok(Ok(())) => Failure::Ended,
        Ok(Err(error)) => Failure::Error(error),
        Err(panic) => Failure::Panic(message(panic.as_ref())),
    }
}

fn message(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("no message").to_owned()
}
