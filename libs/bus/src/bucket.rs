//! Key-value buckets that somebody else made.
//!
//! Without the client library's `Store`, which needs the right to look the bucket's stream up, and whose watch asks
//! for consumers with names and deletes them.

use std::time::Duration;

use async_nats::jetstream::Message;
use async_nats::{HeaderMap, StatusCode};
use bytes::Bytes;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::follow::{Follow, Follower, Reached};
use crate::headers::get;
use crate::jetstream::Start;
use crate::{BoxError, Bus, PublishError};

const ANSWER_WITHIN: Duration = Duration::from_secs(5);
/// Says that a value is a mark left by a deletion.
const OPERATION: &str = "KV-Operation";
/// The same, written by the server when a value's time was over.
const MARKER_REASON: &str = "Nats-Marker-Reason";

/// A bucket could not be read or written.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BucketError {
    /// Letters, digits and `-/_=.` only, no dot at either end.
    #[error("{0:?} is no key")]
    InvalidKey(String),
    /// There is no such bucket, no connection, or no answer.
    #[error("the bucket does not answer: {0}")]
    Unavailable(String),
    /// The value was not stored, or nobody knows.
    #[error(transparent)]
    Publish(#[from] PublishError),
}

impl Bus {
    /// Stores a value; the last one wins.
    ///
    /// # Errors
    /// [`BucketError`]
    pub async fn kv_put(&self, bucket: &str, key: &str, value: Bytes) -> Result<(), BucketError> {
        let subject = subject(bucket, key)?;
        Ok(self.store(subject, HeaderMap::new(), value).await?)
    }

    /// The value of a key. `None`: there is none, or it was deleted.
    ///
    /// # Errors
    /// [`BucketError`]
    pub async fn kv_get(&self, bucket: &str, key: &str) -> Result<Option<Bytes>, BucketError> {
        let subject = format!("$JS.API.DIRECT.GET.KV_{bucket}.{}", subject(bucket, key)?);
        let deadline = Instant::now() + ANSWER_WITHIN;
        let message = self
            .ask(subject, HeaderMap::new(), Bytes::new(), deadline)
            .await
            .map_err(|error| BucketError::Unavailable(error.to_string()))?;
        match message.status {
            None | Some(StatusCode::OK) => Ok(value(message)),
            Some(StatusCode::NOT_FOUND) => Ok(None),
            Some(status) => {
                let said = message.description.unwrap_or_else(|| status.to_string());
                Err(BucketError::Unavailable(said))
            }
        }
    }

    /// Hands all keys with their values to `change`, and then every change, until `shutdown`. `None`: deleted.
    ///
    /// While the bucket or the server are away nothing is called and the last known values stand; a bucket that was
    /// made anew is read from its beginning, and what it does not hold was not deleted.
    ///
    /// # Errors
    /// None while it runs.
    pub async fn watch_bucket<F>(
        &self,
        bucket: &str,
        shutdown: CancellationToken,
        change: F,
    ) -> Result<(), BoxError>
    where
        F: FnMut(String, Option<Bytes>) + Send,
    {
        let prefix = format!("$KV.{bucket}.");
        let follow = Follow {
            bus: self.clone(),
            stream: format!("KV_{bucket}"),
            filter: format!("{prefix}>"),
            start: Start::LastPerSubject,
        };
        follow.run(&shutdown, Watching { prefix, change }).await
    }
}

struct Watching<F> {
    prefix: String,
    change: F,
}

impl<F: FnMut(String, Option<Bytes>) + Send> Follower for Watching<F> {
    async fn message(&mut self, message: &Message) -> Result<(), BoxError> {
        if let Some(key) = message.subject.strip_prefix(self.prefix.as_str()) {
            (self.change)(key.to_owned(), value(message.message.clone()));
        }
        Ok(())
    }

    fn reached(&mut self, _: Reached) {}
}

/// The value, if the message is not a mark left by a deletion.
fn value(message: async_nats::Message) -> Option<Bytes> {
    let headers = message.headers.as_ref();
    let deleted =
        matches!(get(headers, OPERATION), Some("DEL" | "PURGE")) || get(headers, MARKER_REASON).is_some();
    (!deleted).then_some(message.payload)
}

fn subject(bucket: &str, key: &str) -> Result<String, BucketError> {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-/_=.".contains(&byte);
    let valid = !key.is_empty()
        && key.bytes().all(allowed)
        && !key.starts_with('.')
        && !key.ends_with('.')
        && !key.contains("..");
    if valid { Ok(format!("$KV.{bucket}.{key}")) } else { Err(BucketError::InvalidKey(key.to_owned())) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_cannot_leave_its_bucket() {
        assert_eq!(subject("layout", "shw_1").unwrap(), "$KV.layout.shw_1");
        for wrong in ["", ".", "a.", ".a", "a..b", "*", ">", "a b", "ü"] {
            assert_eq!(subject("layout", wrong), Err(BucketError::InvalidKey(wrong.to_owned())));
        }
    }
}
