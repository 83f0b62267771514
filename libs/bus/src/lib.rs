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
pub use connect::{Bus, ConnectError, Settings};
pub use consumer::{Consumer, ConsumerSettings, Verdict};
pub use dead_letter::header as dead_letter_header;
pub use delivery::{Delivery, Undecodable};
pub use jetstream::ApiError;
pub use keeper::DeadLetterKeeper;
pub use letters::{DeadLetter, ReplayError, Replayed};
pub use members::Members;
pub use message::{Message, NotAnEvent};
pub use publish::PublishError;
pub use replay::Replay;
pub use request::Context;
pub use responder::{Responder, ResponderSettings};

/// What a loop that somebody supervises ends with.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;
