//! Names of the headers that travel between nodes, the same over HTTP and NATS. The two of a deadline are named where
//! they are written and read, in `stampede_deadline`.

/// The session that the gateway verified.
pub const SESSION: &str = "stampede-session";
/// The priority class of the function at the public door.
pub const CLASS: &str = "stampede-class";
/// The key under which a request has its effect once (draft-ietf-httpapi-idempotency-key-header-07).
pub const IDEMPOTENCY_KEY: &str = "idempotency-key";
/// A shopping slot given by the lobby.
pub const LOBBY_PASS: &str = "lobby-pass";
/// The secret that reads, cancels and fetches the tickets of one order without its session.
pub const ORDER_SECRET: &str = "order-secret";
/// W3C trace context.
pub const TRACEPARENT: &str = "traceparent";
/// What JetStream de-duplicates by.
pub const NATS_MSG_ID: &str = "Nats-Msg-Id";
