#![doc = include_str!("../README.md")]

mod bucket;
mod call;
mod callee;
mod class;
mod connect;
mod consumer;
mod dead_letter;
mod delivery;
mod desk;
mod durable;
mod follow;
mod headers;
mod jetstream;
mod keeper;
mod letters;
mod members;
mod message;
mod metrics;
mod outage;
mod publish;
mod pull;
mod replay;
mod replies;
mod request;
mod responder;
mod roster;
mod settle;
mod watched;

pub use bucket::BucketError;
pub use call::CallError;
pub use class::with_class;
pub use connect::{Bus, ConnectError, DRAIN_WITHIN, Settings};
pub use consumer::{Consumer, ConsumerSettings, Failure, Verdict};
pub use dead_letter::header as dead_letter_header;
pub use delivery::{Delivery, Undecodable};
pub use follow::Reached;
pub use jetstream::ApiError;
pub use keeper::DeadLetterKeeper;
pub use letters::{DeadLetter, ReplayError, Replayed};
pub use members::Members;
pub use message::{Message, NotAnEvent};
pub use outage::is_outage;
pub use publish::PublishError;
pub use replay::Replay;
pub use request::Context;
pub use responder::{Responder, ResponderSettings};

use std::time::Duration;

use tokio_util::sync::CancellationToken;

/// After the shutdown began, every loop of this crate ends within this time: what it has begun gets so long.
pub const STOP_WITHIN: Duration = Duration::from_secs(8);

/// What a loop that somebody supervises ends with.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// Runs `work` to its end, which it begins at `shutdown`; `None` when that takes longer than [`STOP_WITHIN`].
async fn stopping<F: Future>(shutdown: &CancellationToken, work: F) -> Option<F::Output> {
    let too_long = async {
        shutdown.cancelled().await;
        tokio::time::sleep(STOP_WITHIN).await;
    };
    tokio::select! {
        biased;
        output = work => Some(output),
        () = too_long => {
            tracing::warn!(waited = ?STOP_WITHIN, "what was begun is given up at shutdown");
            None
        }
    }
}
