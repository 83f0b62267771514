//! Streams, buckets and consumers of NATS, made from their one declaration in
//! [`stampede_contracts::topology`]. May be run at any time and any number of times; what is there is kept and
//! brought up to date in place.
//!
//! A stream carries a random `generation` in its metadata, made with it. Whoever filled the stream compares it with
//! the one it filled last, and so notices that everything was lost and has to be sent again.

use std::collections::HashMap;
use std::time::Duration;

use anyhow::{Context, anyhow};
use async_nats::jetstream::consumer::{AckPolicy, DeliverPolicy, pull};
use async_nats::jetstream::context::{CreateStreamErrorKind, GetStreamErrorKind};
use async_nats::jetstream::stream::{Config, DiscardPolicy, RetentionPolicy, StorageType};
use async_nats::jetstream::{self, ErrorCode, kv};
use stampede_contracts::topology::{
    self, ADVISORIES, BUCKETS, Bucket, CONSUMERS, Consumer, Retention, STREAMS, Stream,
};

use crate::secrets::hex;

/// The user that may make streams.
pub(crate) const OPERATOR: &str = "operator";
/// Key of a stream's metadata.
const GENERATION: &str = "generation";
const CONNECT_LIMIT: Duration = Duration::from_secs(5);
const REQUEST_LIMIT: Duration = Duration::from_secs(10);
/// The server forgets a message's id after this time; outboxes send again within it.
const DUPLICATE_WINDOW: Duration = Duration::from_secs(120);

/// Where and as whom to provision.
#[derive(Clone)]
pub struct Provisioner {
    url: String,
    user: String,
    password: String,
    replicas: usize,
}

/// What a run did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Provisioned {
    /// Streams, buckets and consumers that were not there before.
    pub made: Vec<String>,
    /// How many were there and are now as declared.
    pub kept: usize,
    /// State streams that were given a new generation.
    pub refilled: Vec<&'static str>,
}

/// Whether state that is there is to be published again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refill {
    /// Only where a stream is new.
    WhereNew,
    /// Everywhere.
    Everything,
}

// By hand, because a password must not be shown.
impl std::fmt::Debug for Provisioner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Provisioner")
            .field("url", &self.url)
            .field("user", &self.user)
            .finish_non_exhaustive()
    }
}

impl Provisioner {
    /// One replica of everything.
    #[must_use]
    pub fn new(url: String, user: String, password: String) -> Self {
        Self { url, user, password, replicas: 1 }
    }

    /// So many replicas of every stream and bucket, for a cluster of at least as many servers.
    #[must_use]
    pub fn with_replicas(self, replicas: usize) -> Self {
        Self { replicas, ..self }
    }

    /// Makes what is missing.
    ///
    /// # Errors
    /// When NATS cannot be reached, the user may not do it, or something that is there cannot be changed into what
    /// is declared.
    pub async fn provision(&self) -> anyhow::Result<Provisioned> {
        self.run(Refill::WhereNew).await
    }

    /// As [`Provisioner::provision`]; with [`Refill::Everything`] all state is published again besides.
    ///
    /// # Errors
    /// See [`Provisioner::provision`].
    pub async fn run(&self, refill: Refill) -> anyhow::Result<Provisioned> {
        let client =
            async_nats::ConnectOptions::with_user_and_password(self.user.clone(), self.password.clone())
                .name("stampede provision")
                .connection_timeout(CONNECT_LIMIT)
                .connect(&self.url)
                .await
                .with_context(|| format!("cannot connect to {} as {}", self.url, self.user))?;
        let mut context = jetstream::new(client.clone());
        context.set_timeout(REQUEST_LIMIT);
        let mut done = Provisioned::default();
        for stream in STREAMS {
            self.stream(&context, stream, refill, &mut done)
                .await
                .with_context(|| format!("stream {}", stream.name))?;
        }
        for bucket in BUCKETS {
            self.bucket(&context, bucket, &mut done)
                .await
                .with_context(|| format!("bucket {}", bucket.name))?;
        }
        for consumer in CONSUMERS {
            for (stream, config) in [(consumer.stream, work(consumer)), (ADVISORIES, advisories(consumer))] {
                let name = config.durable_name.clone().unwrap_or_default();
                make_consumer(&context, stream, config, &mut done)
                    .await
                    .with_context(|| format!("consumer {name}"))?;
            }
        }
        client.drain().await?;
        Ok(done)
    }

    async fn stream(
        &self,
        context: &jetstream::Context,
        stream: &'static Stream,
        refill: Refill,
        done: &mut Provisioned,
    ) -> anyhow::Result<()> {
        let Some(metadata) = metadata(context, stream.name).await? else {
            return self.make_stream(context, stream, done).await;
        };
        let renew = refill == Refill::Everything && stream.last_per_subject;
        let generation = match metadata.get(GENERATION) {
            Some(generation) if !renew => generation.clone(),
            _ => new_generation(),
        };
        context.update_stream(stream_config(stream, self.replicas, generation)).await?;
        done.kept += 1;
        if renew {
            done.refilled.push(stream.name);
        }
        Ok(())
    }

    async fn make_stream(
        &self,
        context: &jetstream::Context,
        stream: &Stream,
        done: &mut Provisioned,
    ) -> anyhow::Result<()> {
        match context.create_stream(stream_config(stream, self.replicas, new_generation())).await {
            Ok(_) => done.made.push(stream.name.to_owned()),
            // Somebody else made it in this moment, from the same declaration.
            Err(error) if is_taken(error.kind()) => done.kept += 1,
            Err(error) => return Err(error.into()),
        }
        Ok(())
    }

    async fn bucket(
        &self,
        context: &jetstream::Context,
        bucket: &Bucket,
        done: &mut Provisioned,
    ) -> anyhow::Result<()> {
        let is_new = metadata(context, &format!("KV_{}", bucket.name)).await?.is_none();
        context.create_or_update_key_value(bucket_config(bucket, self.replicas)).await?;
        if is_new {
            done.made.push(bucket.name.to_owned());
        } else {
            done.kept += 1;
        }
        Ok(())
    }
}

/// The metadata of a stream, `None` when there is no such stream.
async fn metadata(
    context: &jetstream::Context,
    name: &str,
) -> anyhow::Result<Option<HashMap<String, String>>> {
    match context.get_stream(name).await {
        Ok(stream) => Ok(Some(stream.cached_info().config.metadata.clone())),
        Err(error) => match error.kind() {
            GetStreamErrorKind::JetStream(inner) if inner.error_code() == ErrorCode::STREAM_NOT_FOUND => {
                Ok(None)
            }
            _ => Err(error.into()),
        },
    }
}

fn is_taken(kind: CreateStreamErrorKind) -> bool {
    matches!(kind, CreateStreamErrorKind::JetStream(error) if error.error_code() == ErrorCode::STREAM_NAME_EXIST)
}

async fn make_consumer(
    context: &jetstream::Context,
    stream: &str,
    config: pull::Config,
    done: &mut Provisioned,
) -> anyhow::Result<()> {
    let name = config.durable_name.clone().ok_or_else(|| anyhow!("a consumer without a name"))?;
    let stream = context.get_stream_no_info(stream).await?;
    let is_new = stream.get_consumer::<pull::Config>(&name).await.is_err();
    stream.create_consumer(config).await?;
    if is_new {
        done.made.push(name);
    } else {
        done.kept += 1;
    }
    Ok(())
}

fn new_generation() -> String {
    hex(&rand::random::<[u8; 8]>())
}

fn stream_config(stream: &Stream, replicas: usize, generation: String) -> Config {
    let (retention, discard) = match stream.retention {
        Retention::Limits => (RetentionPolicy::Limits, DiscardPolicy::Old),
        // A full queue refuses, so that the outbox in front of it waits and nothing is lost.
        Retention::WorkQueue => (RetentionPolicy::WorkQueue, DiscardPolicy::New),
    };
    Config {
        name: stream.name.to_owned(),
        description: Some(stream.description.to_owned()),
        subjects: stream.subjects.iter().map(|subject| (*subject).to_owned()).collect(),
        retention,
        discard,
        max_messages_per_subject: if stream.last_per_subject { 1 } else { -1 },
        max_age: stream.max_age.unwrap_or_default(),
        max_messages: stream.max_messages,
        max_bytes: stream.max_bytes,
        storage: StorageType::File,
        num_replicas: replicas,
        duplicate_window: DUPLICATE_WINDOW,
        allow_direct: true,
        metadata: HashMap::from([(GENERATION.to_owned(), generation)]),
        ..Config::default()
    }
}

fn bucket_config(bucket: &Bucket, replicas: usize) -> kv::Config {
    kv::Config {
        bucket: bucket.name.to_owned(),
        description: bucket.description.to_owned(),
        history: 1,
        max_bytes: bucket.max_bytes,
        storage: StorageType::File,
        num_replicas: replicas,
        ..kv::Config::default()
    }
}

fn work(consumer: &Consumer) -> pull::Config {
    let mut config =
        durable(consumer.name.to_owned(), consumer.filter.iter().map(|&filter| filter.to_owned()).collect());
    config.description = Some(format!("bound by {}", consumer.service));
    config.ack_wait = consumer.ack_wait;
    config.max_deliver = consumer.max_deliver;
    config.max_ack_pending = consumer.max_ack_pending;
    config
}

/// Sees the server's notes that a message of `consumer` was delivered too often, so that it becomes a dead letter.
fn advisories(consumer: &Consumer) -> pull::Config {
    let name = topology::advisory_consumer(consumer.name);
    let mut config = durable(name, vec![topology::advisory_subject(consumer)]);
    config.description = Some(format!("messages {} could not handle", consumer.service));
    config.ack_wait = consumer.ack_wait;
    config
}

fn durable(name: String, mut filter: Vec<String>) -> pull::Config {
    let mut config = pull::Config {
        durable_name: Some(name),
        ack_policy: AckPolicy::Explicit,
        deliver_policy: DeliverPolicy::All,
        ..pull::Config::default()
    };
    // The two are exclusive, and the plural one is for more than one.
    match filter.as_mut_slice() {
        [only] => config.filter_subject = std::mem::take(only),
        _ => config.filter_subjects = filter,
    }
    config
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(name: &str) -> &'static Stream {
        STREAMS.iter().find(|stream| stream.name == name).unwrap()
    }

    #[test]
    fn a_full_queue_refuses_and_state_keeps_the_last() {
        let queue = stream_config(named(topology::CMD_PAYMENTS), 1, "g".to_owned());
        assert_eq!(queue.discard, DiscardPolicy::New);
        assert_eq!(queue.retention, RetentionPolicy::WorkQueue);
        let state = stream_config(named(topology::EVT_INVENTORY), 3, "g".to_owned());
        assert_eq!(state.max_messages_per_subject, 1);
        assert_eq!(state.num_replicas, 3);
        assert_eq!(state.metadata[GENERATION], "g");
        assert!(
            STREAMS.iter().all(|stream| stream_config(stream, 1, String::new()).storage == StorageType::File)
        );
    }

    #[test]
    fn a_password_is_not_shown() {
        let provisioner =
            Provisioner::new("nats://x".to_owned(), "operator".to_owned(), "hunter2".to_owned());
        assert!(!format!("{provisioner:?}").contains("hunter2"));
    }
}
