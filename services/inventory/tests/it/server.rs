//! A NATS server as `stampede provision` leaves it.

use async_nats::jetstream::consumer::{AckPolicy, pull};
use async_nats::jetstream::{kv, stream};
use stampede_bus::Bus;
use stampede_contracts::topology::{
    ADVISORIES, BUCKETS, CONSUMERS, DLQ, STREAMS, User, advisory_consumer, advisory_subject, users,
};
use uuid::Uuid;

/// The users with the rights they have in production; each has its name for a password.
pub fn config() -> String {
    let quoted = |subjects: &[String]| -> String { subjects.iter().map(|s| format!("\"{s}\", ")).collect() };
    let user = |user: User| {
        let (publish, subscribe) = (quoted(&user.publish), quoted(&user.subscribe));
        let responses = if user.allow_responses { "allow_responses: true" } else { "" };
        let permissions = format!("publish: [ {publish}], subscribe: [ {subscribe}], {responses}");
        format!("{{ user: {0}, password: {0}, permissions: {{ {permissions} }} }}\n", user.name)
    };
    format!("authorization {{ users: [\n{}] }}\n", users().into_iter().map(user).collect::<String>())
}

/// As `stampede provision` does, as far as this service needs it. May be called again.
pub async fn provision(operator: &Bus) {
    let jetstream = operator.jetstream();
    for declared in STREAMS
        .iter()
        .filter(|stream| stream.name.starts_with("EVT") || [ADVISORIES, DLQ].contains(&stream.name))
    {
        let config = stream::Config {
            name: declared.name.to_owned(),
            subjects: declared.subjects.iter().map(|subject| (*subject).to_owned()).collect(),
            max_messages_per_subject: if declared.last_per_subject { 1 } else { -1 },
            allow_direct: true,
            metadata: [("generation".to_owned(), Uuid::new_v4().to_string())].into(),
            ..stream::Config::default()
        };
        if jetstream.get_stream(declared.name).await.is_err() {
            jetstream.create_stream(config).await.unwrap();
        }
    }
    for declared in CONSUMERS.iter().filter(|consumer| consumer.service == "inventory") {
        let config = |name: &str, filter: Vec<String>| pull::Config {
            durable_name: Some(name.to_owned()),
            filter_subjects: filter,
            ack_policy: AckPolicy::Explicit,
            ack_wait: declared.ack_wait,
            max_deliver: declared.max_deliver,
            ..pull::Config::default()
        };
        let filter = declared.filter.iter().map(|subject| (*subject).to_owned()).collect();
        jetstream.create_consumer_on_stream(config(declared.name, filter), declared.stream).await.unwrap();
        let twin = config(&advisory_consumer(declared.name), vec![advisory_subject(declared)]);
        jetstream.create_consumer_on_stream(twin, ADVISORIES).await.unwrap();
    }
    for declared in BUCKETS {
        let config = kv::Config { bucket: declared.name.to_owned(), ..kv::Config::default() };
        if jetstream.get_key_value(declared.name).await.is_err() {
            jetstream.create_key_value(config).await.unwrap();
        }
    }
}
