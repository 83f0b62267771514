//! Reading the stream of dead letters.

use async_nats::HeaderMap;
use async_nats::jetstream::ErrorCode;
use async_nats::jetstream::message::StreamMessage;
use async_nats::jetstream::stream::RawMessageErrorKind;
use stampede_bus::{Bus, dead_letter_header as header, decode_header};
use stampede_contracts::api::{DeadLetter, Page};
use stampede_contracts::topology::DLQ;
use stampede_contracts::{Code, Problem, Timestamp};

const ALL: &str = "dlq.>";

/// At most `limit` dead letters after the one with the number `after`, the oldest first.
///
/// # Errors
/// `unavailable` when JetStream does not answer.
pub async fn page(bus: &Bus, after: u64, limit: usize) -> Result<Page<DeadLetter>, Problem> {
    let stream = bus.jetstream().get_stream_no_info(DLQ).await.map_err(|error| unavailable(&error))?;
    let mut items = Vec::new();
    let mut next = after.saturating_add(1);
    // One more than is shown says whether there is another page.
    while items.len() <= limit {
        match stream.get_first_raw_message_by_subject(ALL, next).await {
            Ok(message) => {
                next = message.sequence.saturating_add(1);
                items.push(letter(&message));
            }
            Err(error) => match error.kind() {
                RawMessageErrorKind::NoMessageFound => break,
                RawMessageErrorKind::JetStream(said) if said.error_code() == ErrorCode::NO_MESSAGE_FOUND => {
                    break;
                }
                _ => return Err(unavailable(&error)),
            },
        }
    }
    let more = items.len() > limit;
    items.truncate(limit);
    let last = items.last().filter(|_| more);
    Ok(Page { next_cursor: last.map(|letter| letter.sequence.to_string()), items })
}

fn letter(message: &StreamMessage) -> DeadLetter {
    let field = |name: &str| text(&message.headers, name);
    DeadLetter {
        sequence: message.sequence,
        subject: message.subject.to_string(),
        origin_subject: field(header::SUBJECT),
        reason: field(header::REASON),
        event_id: field("ce-id"),
        at: field(header::TIME).parse().unwrap_or_else(|_| Timestamp::from(message.time)),
    }
}

/// The value of a header; empty when there is none, because a letter without it is still one to look at.
fn text(headers: &HeaderMap, name: &str) -> String {
    headers.get(name).and_then(|value| decode_header(value.as_str())).unwrap_or_default()
}

fn unavailable(error: &(dyn std::error::Error + 'static)) -> Problem {
    tracing::warn!(error, "dead letters cannot be read");
    Problem::new(Code::Unavailable)
}
