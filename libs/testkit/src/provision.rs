//! Streams, consumers and buckets as declared, without the rights and bounds of a real run.

#![expect(clippy::expect_used, reason = "a test that cannot have its streams has to stop here")]

use async_nats::jetstream::{self, consumer, kv, stream};
use stampede_contracts::topology::{
    ADVISORIES, BUCKETS, CONSUMERS, Retention, STREAMS, advisory_consumer, advisory_subject,
};

/// Makes every stream, consumer and bucket of [`stampede_contracts::topology`], each stream with a new `generation`.
///
/// # Panics
/// When the server refuses one: the test cannot go on.
pub async fn provision(context: &jetstream::Context) {
    for declared in STREAMS {
        let config = stream::Config {
            name: declared.name.to_owned(),
            subjects: declared.subjects.iter().map(ToString::to_string).collect(),
            retention: match declared.retention {
                Retention::Limits => stream::RetentionPolicy::Limits,
                Retention::WorkQueue => stream::RetentionPolicy::WorkQueue,
            },
            max_messages_per_subject: if declared.last_per_subject { 1 } else { -1 },
            allow_direct: true,
            metadata: [("generation".to_owned(), uuid::Uuid::new_v4().to_string())].into(),
            ..Default::default()
        };
        context.get_or_create_stream(config).await.expect("the stream can be made");
    }
    for declared in CONSUMERS {
        let filters = declared.filter.iter().map(ToString::to_string).collect();
        durable(context, declared.stream, declared.name, filters).await;
        let (twin, filter) = (advisory_consumer(declared.name), advisory_subject(declared));
        durable(context, ADVISORIES, &twin, vec![filter]).await;
    }
    for declared in BUCKETS {
        let config = kv::Config { bucket: declared.name.to_owned(), ..Default::default() };
        context.create_or_update_key_value(config).await.expect("the bucket can be made");
    }
}

async fn durable(context: &jetstream::Context, stream: &str, name: &str, filter_subjects: Vec<String>) {
    let config = consumer::pull::Config {
        durable_name: Some(name.to_owned()),
        filter_subjects,
        ack_wait: std::time::Duration::from_secs(2),
        max_deliver: 5,
        ..Default::default()
    };
    context.create_consumer_on_stream(config, stream).await.expect("the consumer can be made");
}
