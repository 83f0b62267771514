//! Reading the stream of dead letters.

use stampede_bus::Bus;
use stampede_contracts::api::{DeadLetter, Page};
use stampede_contracts::{Code, Problem};

/// At most `limit` dead letters after the one with the number `after`, the oldest first.
///
/// # Errors
/// `unavailable` when JetStream does not answer.
pub async fn page(bus: &Bus, after: u64, limit: usize) -> Result<Page<DeadLetter>, Problem> {
    // One more than is shown says whether there is another page.
    let letters = bus.dead_letters(None, after, limit.saturating_add(1)).await.map_err(|error| {
        tracing::warn!(%error, "dead letters cannot be read");
        Problem::new(Code::Unavailable)
    })?;
    let more = letters.len() > limit;
    let items: Vec<_> = letters.into_iter().take(limit).map(shown).collect();
    let last = items.last().filter(|_| more);
    Ok(Page { next_cursor: last.map(|letter| letter.sequence.to_string()), items })
}

fn shown(letter: stampede_bus::DeadLetter) -> DeadLetter {
    DeadLetter {
        sequence: letter.sequence,
        subject: letter.subject,
        origin_subject: letter.origin_subject,
        reason: letter.reason,
        event_id: letter.event_id,
        at: letter.at,
    }
}
