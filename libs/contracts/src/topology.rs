//! What there is in NATS: streams, durable consumers, buckets and users, declared once.
//!
//! `stampede provision` makes it so; services only bind. The accounts file of a local run and of Kubernetes is
//! written from the same users.

use std::time::Duration;

use crate::Function;
use crate::inventory::{
    AttachHold, ClosePass, ConfirmHold, DetachHold, FreeHold, GetHold, Hold, ReleaseHold,
};
use crate::orders::{Buyer, Card};

/// Who takes messages away.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Retention {
    /// The limits alone.
    Limits,
    /// An acknowledgement; a full queue refuses, so that the outbox in front of it waits.
    WorkQueue,
}

/// A stream. Always on disk.
#[derive(Debug, Clone, Copy)]
pub struct Stream {
    /// Name.
    pub name: &'static str,
    /// What it is for.
    pub description: &'static str,
    /// Subjects it takes.
    pub subjects: &'static [&'static str],
    /// Who takes messages away.
    pub retention: Retention,
    /// Keep only the last message of a subject: state, not facts.
    pub last_per_subject: bool,
    /// Age at which messages go.
    pub max_age: Option<Duration>,
    /// Bound in messages.
    pub max_messages: i64,
    /// Bound in bytes.
    pub max_bytes: i64,
}

/// A durable pull consumer.
#[derive(Debug, Clone, Copy)]
pub struct Consumer {
    /// Its stream.
    pub stream: &'static str,
    /// Name; also the last token of its dead-letter subject.
    pub name: &'static str,
    /// The service that binds it.
    pub service: &'static str,
    /// Subjects it sees.
    pub filter: &'static [&'static str],
    /// How long a message may stay unacknowledged before it comes again.
    pub ack_wait: Duration,
    /// Deliveries before it is a dead letter.
    pub max_deliver: i64,
    /// Messages out at once.
    pub max_ack_pending: i64,
}

/// A key-value bucket.
#[derive(Debug, Clone, Copy)]
pub struct Bucket {
    /// Name.
    pub name: &'static str,
    /// What it is for.
    pub description: &'static str,
    /// The service that writes it.
    pub writer: &'static str,
    /// The services that read it.
    pub readers: &'static [&'static str],
    /// Bound in bytes.
    pub max_bytes: i64,
}

/// A user with its rights.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct User {
    /// Name.
    pub name: &'static str,
    /// Subjects it may publish to.
    pub publish: Vec<String>,
    /// Subjects it may subscribe to.
    pub subscribe: Vec<String>,
    /// May answer requests it was sent.
    pub allow_responses: bool,
}

/// The largest message that the server takes, headers included. Its default.
pub const MESSAGE_MAX_BYTES: usize = 1024 * 1024;

const MIB: i64 = 1024 * 1024;
const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// Shows as they are; catalog publishes, inventory and lobby keep copies.
pub const EVT_CATALOG: &str = "EVT_CATALOG";
/// Blocks and layouts as they are; inventory publishes, catalog and lobby keep copies.
pub const EVT_INVENTORY: &str = "EVT_INVENTORY";
/// Facts: what happened to orders, payments, mails and passes.
pub const EVT_FACTS: &str = "EVT_FACTS";
/// Steps for payments.
pub const CMD_PAYMENTS: &str = "CMD_PAYMENTS";
/// Mails to send.
pub const CMD_NOTIFY: &str = "CMD_NOTIFY";
/// Dead letters.
pub const DLQ: &str = "DLQ";
/// The server's notes on messages that were delivered too often.
pub const ADVISORIES: &str = "ADVISORIES";
/// Bucket: show → its blocks with their shards.
pub const LAYOUT: &str = "layout";

/// Bucket: `<service>.<destination>` → what replaces numbers of the blueprint's policy, as a JSON Merge Patch.
pub const POLICIES: &str = "policies";

/// Every stream.
pub const STREAMS: &[Stream] = &[
    Stream {
        name: EVT_CATALOG,
        description: "shows as they are, the last version of each",
        subjects: &["evt.catalog.>"],
        retention: Retention::Limits,
        last_per_subject: true,
        max_age: None,
        max_messages: 100_000,
        max_bytes: 256 * MIB,
    },
    Stream {
        name: EVT_INVENTORY,
        description: "blocks and layouts as they are, the last version of each",
        subjects: &["evt.inventory.block.>", "evt.inventory.layout.>"],
        retention: Retention::Limits,
        last_per_subject: true,
        max_age: None,
        max_messages: 1_000_000,
        max_bytes: 1024 * MIB,
    },
    Stream {
        name: EVT_FACTS,
        description: "what happened to orders, payments, mails and passes",
        subjects: &["evt.orders.>", "evt.payments.>", "evt.notify.>", "evt.inventory.pass.>"],
        retention: Retention::Limits,
        last_per_subject: false,
        max_age: Some(DAY.saturating_mul(3)),
        max_messages: 10_000_000,
        max_bytes: 2048 * MIB,
    },
    Stream {
        name: CMD_PAYMENTS,
        description: "steps for payments",
        subjects: &["cmd.payments.>"],
        retention: Retention::WorkQueue,
        last_per_subject: false,
        max_age: None,
        max_messages: 100_000,
        max_bytes: 128 * MIB,
    },
    Stream {
        name: CMD_NOTIFY,
        description: "mails to send",
        subjects: &["cmd.notify.>"],
        retention: Retention::WorkQueue,
        last_per_subject: false,
        max_age: None,
        max_messages: 100_000,
        max_bytes: 128 * MIB,
    },
    Stream {
        name: DLQ,
        description: "what could not be handled, with reason and origin",
        subjects: &["dlq.>"],
        retention: Retention::Limits,
        last_per_subject: false,
        max_age: Some(DAY.saturating_mul(30)),
        max_messages: 100_000,
        max_bytes: 256 * MIB,
    },
    Stream {
        name: ADVISORIES,
        description: "messages that were delivered too often",
        subjects: &["$JS.EVENT.ADVISORY.CONSUMER.MAX_DELIVERIES.>"],
        retention: Retention::Limits,
        last_per_subject: false,
        max_age: Some(DAY.saturating_mul(7)),
        max_messages: 100_000,
        max_bytes: 64 * MIB,
    },
];

const fn work(
    stream: &'static str,
    name: &'static str,
    service: &'static str,
    filter: &'static [&'static str],
) -> Consumer {
    Consumer {
        stream,
        name,
        service,
        filter,
        ack_wait: Duration::from_secs(10),
        max_deliver: 20,
        max_ack_pending: 1_024,
    }
}

/// Every durable consumer. Each has a twin `<name>-advisories` on [`ADVISORIES`], see [`advisory_consumer`].
pub const CONSUMERS: &[Consumer] = &[
    work(EVT_CATALOG, "inventory-shows", "inventory", &["evt.catalog.show.v1.>"]),
    work(EVT_CATALOG, "lobby-shows", "lobby", &["evt.catalog.show.v1.>"]),
    work(EVT_FACTS, "lobby-passes", "lobby", &["evt.inventory.pass.v1.>"]),
    work(EVT_FACTS, "orders-payments", "orders", &["evt.payments.result.v1.>"]),
    work(EVT_FACTS, "orders-mails", "orders", &["evt.notify.mail.v1.>"]),
    work(CMD_PAYMENTS, "payments", "payments", &["cmd.payments.>"]),
    work(CMD_NOTIFY, "notify", "notify", &["cmd.notify.>"]),
];

/// Name of the consumer that sees the advisories of `consumer`.
pub fn advisory_consumer(consumer: &str) -> String {
    format!("{consumer}-advisories")
}

/// What the advisory consumer of `consumer` sees.
pub fn advisory_subject(consumer: &Consumer) -> String {
    format!("$JS.EVENT.ADVISORY.CONSUMER.MAX_DELIVERIES.{}.{}", consumer.stream, consumer.name)
}

/// Every bucket.
pub const BUCKETS: &[Bucket] = &[
    Bucket {
        name: LAYOUT,
        description: "show → its blocks with their shards",
        writer: "inventory",
        readers: &["gateway"],
        max_bytes: 64 * MIB,
    },
    Bucket {
        name: POLICIES,
        description: "policies that are replaced while services run",
        writer: "operator",
        readers: &["gateway", "lobby", "catalog", "inventory", "orders", "payments", "notify"],
        max_bytes: MIB,
    },
];

/// Every user: one a service with only its subjects, and the operator.
pub fn users() -> Vec<User> {
    let mut users = vec![
        // The public door holds seats, and reads heartbeats and dead letters. What belongs to an order is for `orders`.
        rights("gateway")
            .calls("rpc.inventory.*", &[Hold::NAME, GetHold::NAME, ReleaseHold::NAME])
            .subscribe(&["oam.heartbeat.*.*"])
            .reads_messages(DLQ),
        rights("lobby").calls("rpc.inventory.any", &[ClosePass::NAME]).replays(EVT_INVENTORY),
        rights("catalog").publish(&["evt.catalog.show.v1.>"]).replays(EVT_INVENTORY).asks_about(EVT_CATALOG),
        rights("inventory")
            .publish(&["evt.inventory.block.v1.>", "evt.inventory.layout.v1.>", "evt.inventory.pass.v1.>"])
            .answers("rpc.inventory.*.*")
            .asks_about(EVT_INVENTORY)
            .reads_messages(EVT_INVENTORY),
        rights("orders")
            .publish(&["cmd.payments.>", "cmd.notify.>", "evt.orders.order.v1.>"])
            .calls(
                "rpc.inventory.any",
                &[AttachHold::NAME, DetachHold::NAME, ConfirmHold::NAME, FreeHold::NAME],
            )
            .answers("rpc.orders.*"),
        rights("payments").publish(&["evt.payments.result.v1.>"]).calls("rpc.orders", &[Card::NAME]),
        rights("notify").publish(&["evt.notify.mail.v1.>"]).calls("rpc.orders", &[Buyer::NAME]),
    ];
    for user in &mut users {
        let name = user.name;
        user.publish.push(format!("oam.heartbeat.{name}.>"));
        for consumer in CONSUMERS.iter().filter(|consumer| consumer.service == name) {
            user.binds(consumer);
        }
        for bucket in BUCKETS {
            if bucket.writer == name {
                user.writes(bucket);
            }
            if bucket.readers.contains(&name) {
                user.publish.extend(replaying(&format!("KV_{}", bucket.name)));
            }
        }
    }
    // Provisions, replays dead letters, verifies. Not a service: only a person's tools use it.
    users.push(User {
        name: "operator",
        publish: vec![">".to_owned()],
        subscribe: vec![">".to_owned()],
        allow_responses: false,
    });
    users
}

fn rights(name: &'static str) -> User {
    User { name, publish: Vec::new(), subscribe: vec![format!("_INBOX_{name}.>")], allow_responses: false }
}

/// What it takes to follow a stream with an ordered consumer of one's own: nameless, so short-lived, consumers may be
/// created on this stream and nothing else. The server deletes them when nobody asks any more.
fn replaying(stream: &str) -> [String; 3] {
    [
        format!("$JS.API.STREAM.INFO.{stream}"),
        format!("$JS.API.CONSUMER.CREATE.{stream}"),
        format!("$JS.API.CONSUMER.MSG.NEXT.{stream}.*"),
    ]
}

impl User {
    fn publish(mut self, subjects: &[&str]) -> Self {
        self.publish.extend(subjects.iter().map(|subject| (*subject).to_owned()));
        self
    }

    /// These functions and no others of the same service.
    fn calls(self, service: &str, functions: &[&str]) -> Self {
        let subjects: Vec<String> = functions.iter().map(|name| format!("{service}.{name}")).collect();
        self.publish(&subjects.iter().map(String::as_str).collect::<Vec<_>>())
    }

    fn subscribe(mut self, subjects: &[&str]) -> Self {
        self.subscribe.extend(subjects.iter().map(|subject| (*subject).to_owned()));
        self
    }

    fn answers(mut self, subject: &str) -> Self {
        self.allow_responses = true;
        self.subscribe(&[subject])
    }

    /// Its generation, and whether it is there.
    fn asks_about(self, stream: &str) -> Self {
        self.publish(&[&format!("$JS.API.STREAM.INFO.{stream}")])
    }

    /// One message at a time, by its number, or the last under a subject.
    fn reads_messages(self, stream: &str) -> Self {
        self.publish(&[&format!("$JS.API.STREAM.MSG.GET.{stream}")])
    }

    fn replays(mut self, stream: &str) -> Self {
        self.publish.extend(replaying(stream));
        self
    }

    fn binds(&mut self, consumer: &Consumer) {
        let twin = advisory_consumer(consumer.name);
        for (stream, name) in [(consumer.stream, consumer.name), (ADVISORIES, twin.as_str())] {
            self.publish.extend([
                format!("$JS.API.CONSUMER.INFO.{stream}.{name}"),
                format!("$JS.API.CONSUMER.MSG.NEXT.{stream}.{name}"),
                format!("$JS.ACK.{stream}.{name}.>"),
            ]);
        }
        self.publish.extend([
            format!("dlq.{}.{}", consumer.service, consumer.name),
            format!("$JS.API.STREAM.INFO.{}", consumer.stream),
            format!("$JS.API.STREAM.MSG.GET.{}", consumer.stream),
        ]);
        if STREAMS
            .iter()
            .any(|stream| stream.name == consumer.stream && stream.retention == Retention::WorkQueue)
        {
            self.publish.push(format!("$JS.API.STREAM.MSG.DELETE.{}", consumer.stream));
        }
    }

    /// Puts values, and looks whether they are there.
    fn writes(&mut self, bucket: &Bucket) {
        let name = bucket.name;
        self.publish.extend([format!("$KV.{name}.>"), format!("$JS.API.DIRECT.GET.KV_{name}.>")]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_consumer_lies_in_a_stream_and_belongs_to_a_user() {
        let users = users();
        for consumer in CONSUMERS {
            assert!(STREAMS.iter().any(|stream| stream.name == consumer.stream), "{}", consumer.name);
            assert!(users.iter().any(|user| user.name == consumer.service), "{}", consumer.name);
        }
    }

    #[test]
    fn a_service_makes_nothing_in_jetstream_that_stays_and_deletes_only_from_its_own_queue() {
        for user in users().iter().filter(|user| user.name != "operator") {
            for right in &user.publish {
                let Some(call) = right.strip_prefix("$JS.API.") else { continue };
                let parts: Vec<&str> = call.split('.').collect();
                let permitted = match parts.as_slice() {
                    // Durable and filtered consumers have longer subjects.
                    ["CONSUMER", "CREATE", _] => true,
                    ["CONSUMER", "INFO" | "MSG", ..]
                    | ["STREAM", "INFO", _]
                    | ["STREAM", "MSG", "GET", _] => true,
                    ["DIRECT", "GET", bucket, ..] => bucket.starts_with("KV_"),
                    ["STREAM", "MSG", "DELETE", queue] => CONSUMERS
                        .iter()
                        .any(|consumer| consumer.stream == *queue && consumer.service == user.name),
                    _ => false,
                };
                assert!(permitted, "{} {right}", user.name);
            }
        }
    }

    #[test]
    fn no_service_has_a_right_to_functions_or_events_that_it_does_not_name() {
        for user in users().iter().filter(|user| user.name != "operator") {
            for right in user.publish.iter().filter(|right| !right.starts_with('$')) {
                let tokens: Vec<&str> = right.split('.').collect();
                let named = match tokens.as_slice() {
                    ["rpc", _, .., function] => !["*", ">"].contains(function),
                    ["evt", owner, _noun, version, ">"] => *owner == user.name && version.starts_with('v'),
                    ["cmd", "payments" | "notify", ">"] => user.name == "orders",
                    ["dlq" | "oam", ..] => true,
                    _ => false,
                };
                assert!(named, "{} {right}", user.name);
            }
        }
    }
}
