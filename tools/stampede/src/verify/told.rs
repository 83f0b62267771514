//! What buyers were told, read from the histories that `load` writes: every answer that is a promise, kept as small as
//! a hundred thousand buyers need it.

use std::borrow::Cow;
use std::collections::HashMap;
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow};
use serde::Deserialize;
use serde_json::value::RawValue;
use stampede_contracts::api::{OrderState, Place, PlaceState, Ticket};
use stampede_contracts::{Code, HoldId, LobbyTicket, Money, OrderId, ShowId, TicketId, Timestamp};

use super::Rule;

/// A line of a history: which file and which line.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Line {
    file: u32,
    line: u32,
}

/// The first final answer to a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Final {
    pub(super) at: Timestamp,
    pub(super) status: u16,
    /// SHA-256 of the bytes.
    pub(super) digest: String,
    pub(super) line: Line,
}

/// A hold that somebody was told to have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ToldHold {
    pub(super) digest: Option<String>,
    pub(super) line: Line,
    /// Where its holder was told that it is released.
    pub(super) released: Option<Line>,
}

/// An order that somebody was told about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ToldOrder {
    pub(super) hold: HoldId,
    pub(super) line: Line,
    pub(super) total: Option<Money>,
    pub(super) secret: Option<String>,
    /// Every state it was said to have.
    pub(super) states: Vec<(OrderState, Line)>,
    pub(super) tickets: Vec<ToldTicket>,
    /// Where somebody was told that it is, or will be, cancelled.
    pub(super) cancelled: Option<Line>,
}

/// A ticket that somebody was given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ToldTicket {
    pub(super) id: TicketId,
    pub(super) seat: Option<String>,
    pub(super) code: String,
}

/// A place in a lobby that somebody was told to have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ToldPlace {
    pub(super) show: ShowId,
    pub(super) number: Option<u64>,
    pub(super) state: PlaceState,
    pub(super) pass_expires_at: Option<Timestamp>,
    pub(super) line: Line,
}

/// Everything that was promised.
#[derive(Debug, Default)]
pub(super) struct Told {
    files: Vec<PathBuf>,
    pub(super) holds: HashMap<HoldId, ToldHold>,
    pub(super) orders: HashMap<OrderId, ToldOrder>,
    pub(super) places: HashMap<LobbyTicket, ToldPlace>,
    /// `POST …/holds` by its key.
    pub(super) hold_keys: HashMap<String, (HoldId, Final)>,
    /// `POST /v1/orders` by its key.
    pub(super) order_keys: HashMap<String, Final>,
    /// Final answers that had a predecessor to be equal to.
    pub(super) repeats: u64,
    /// What was said contradicts itself.
    pub(super) contradictions: Vec<(Rule, String)>,
    /// The hold a buyer had last.
    holds_of: HashMap<u64, HoldId>,
}

/// As [`Entry`](crate::load::Entry), borrowed from the line.
#[derive(Deserialize)]
struct Entry<'a> {
    at: Timestamp,
    buyer: u64,
    #[serde(borrow)]
    step: Cow<'a, str>,
    #[serde(borrow, default)]
    key: Option<Cow<'a, str>>,
    #[serde(default)]
    status: Option<u16>,
    #[serde(borrow, default)]
    body: Option<&'a RawValue>,
    #[serde(borrow, default)]
    digest: Option<Cow<'a, str>>,
}

#[derive(Deserialize)]
struct HoldBody {
    hold_id: HoldId,
}

#[derive(Deserialize)]
struct OrderBody {
    order_id: OrderId,
    state: OrderState,
    hold_id: HoldId,
    #[serde(default)]
    total: Option<Money>,
    #[serde(default)]
    tickets: Vec<Ticket>,
    #[serde(default)]
    order_secret: Option<String>,
}

#[derive(Deserialize)]
struct ProblemBody {
    code: Code,
}

impl Told {
    /// Reads histories. A last line that is not complete is left out: it is being written.
    pub(super) fn read(files: &[PathBuf]) -> Result<Self> {
        let mut told = Self { files: files.to_vec(), ..Self::default() };
        for (file, path) in (0..).zip(files) {
            told.read_file(file, path)?;
            // Buyers are numbered anew in every history.
            told.holds_of.clear();
        }
        Ok(told)
    }

    /// Where a line is, for people.
    pub(super) fn place(&self, at: Line) -> String {
        let file = usize::try_from(at.file).ok().and_then(|file| self.files.get(file)?.file_name());
        format!("{}:{}", file.unwrap_or_default().to_string_lossy(), at.line)
    }

    fn read_file(&mut self, file: u32, path: &Path) -> Result<()> {
        let opened = File::open(path).with_context(|| format!("cannot read {}", path.display()))?;
        let mut reader = BufReader::new(opened);
        let mut bytes = Vec::new();
        for line in 1.. {
            bytes.clear();
            reader.read_until(b'\n', &mut bytes)?;
            if bytes.last() != Some(&b'\n') {
                break;
            }
            let at = Line { file, line };
            serde_json::from_slice(&bytes)
                .map_err(|error| anyhow!(error))
                .and_then(|entry| self.hear(&entry, at))
                .with_context(|| format!("{}:{line}", path.display()))?;
        }
        Ok(())
    }

    fn hear(&mut self, entry: &Entry<'_>, line: Line) -> Result<()> {
        let Some(status) = entry.status else { return Ok(()) };
        match (&*entry.step, status) {
            ("hold", 201) => self.hear_hold(entry, line),
            ("release", 204) => {
                let hold = self.holds_of.get(&entry.buyer).and_then(|hold| self.holds.get_mut(hold));
                if let Some(hold) = hold {
                    hold.released.get_or_insert(line);
                }
                Ok(())
            }
            ("order" | "order again", 201 | 202 | 402 | 409) => self.hear_order(entry, status, line),
            ("settle" | "cancel", 200..300) => {
                let body: OrderBody = body(entry)?;
                // Whoever was told that nothing is left to cancel was promised no cancellation.
                let ended =
                    matches!(body.state, OrderState::Declined | OrderState::Failing | OrderState::Failed);
                let is_cancelled = entry.step == "cancel" && !ended;
                let id = body.order_id;
                self.keep_order(body, line);
                if is_cancelled && let Some(order) = self.orders.get_mut(&id) {
                    order.cancelled.get_or_insert(line);
                }
                Ok(())
            }
            ("lobby" | "leave", 200..300) => {
                let place = body(entry)?;
                self.keep_place(&place, line);
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn hear_hold(&mut self, entry: &Entry<'_>, line: Line) -> Result<()> {
        let HoldBody { hold_id } = body(entry)?;
        let digest = entry.digest.as_deref().map(str::to_owned);
        self.holds_of.insert(entry.buyer, hold_id);
        let told = ToldHold { digest: digest.clone(), line, released: None };
        self.holds.entry(hold_id).or_insert(told);
        let (Some(key), Some(digest)) = (entry.key.as_deref(), digest) else { return Ok(()) };
        let answer = Final { at: entry.at, status: 201, digest, line };
        let first = self.hold_keys.get(key).map(|(_, first)| first.clone());
        match first {
            Some(first) => self.compare(key, &first, &answer),
            None => drop(self.hold_keys.insert(key.to_owned(), (hold_id, answer))),
        }
        Ok(())
    }

    fn hear_order(&mut self, entry: &Entry<'_>, status: u16, line: Line) -> Result<()> {
        if status < 400 {
            self.keep_order(body(entry)?, line);
        } else if status == 409 && body::<ProblemBody>(entry)?.code == Code::KeyInProgress {
            // Says only that the first one is still running.
            return Ok(());
        }
        let (Some(key), Some(digest)) = (entry.key.as_deref(), entry.digest.as_deref()) else {
            return Ok(());
        };
        let answer = Final { at: entry.at, status, digest: digest.to_owned(), line };
        match self.order_keys.get(key).cloned() {
            Some(first) => self.compare(key, &first, &answer),
            None => drop(self.order_keys.insert(key.to_owned(), answer)),
        }
        Ok(())
    }

    fn compare(&mut self, key: &str, first: &Final, again: &Final) {
        self.repeats += 1;
        if (first.status, &first.digest) != (again.status, &again.digest) {
            let why = format!(
                "key {key} was answered {} ({}) and {} ({}), with other bytes",
                first.status,
                self.place(first.line),
                again.status,
                self.place(again.line)
            );
            self.contradictions.push((Rule::SameReply, why));
        }
    }

    fn keep_order(&mut self, body: OrderBody, line: Line) {
        let order = self.orders.entry(body.order_id).or_insert_with(|| ToldOrder {
            hold: body.hold_id,
            line,
            total: None,
            secret: None,
            states: Vec::new(),
            tickets: Vec::new(),
            cancelled: None,
        });
        order.total = order.total.or(body.total);
        if order.secret.is_none() {
            order.secret = body.order_secret;
        }
        if order.states.iter().all(|(state, _)| *state != body.state) {
            order.states.push((body.state, line));
        }
        if order.tickets.is_empty() {
            order.tickets = body.tickets.into_iter().map(ToldTicket::from).collect();
        }
    }

    fn keep_place(&mut self, place: &Place, line: Line) {
        let told = ToldPlace {
            show: place.show_id,
            number: place.number,
            state: place.state,
            pass_expires_at: place.pass_expires_at,
            line,
        };
        let Some(before) = self.places.insert(place.lobby_ticket, told) else { return };
        if before.number.is_some() && before.number != place.number {
            let why = format!(
                "place {} had number {} ({}) and then {} ({})",
                place.lobby_ticket,
                before.number.unwrap_or_default(),
                self.place(before.line),
                place.number.map_or_else(|| "none".to_owned(), |number| number.to_string()),
                self.place(line)
            );
            self.contradictions.push((Rule::Kept, why));
        }
    }
}

impl From<Ticket> for ToldTicket {
    fn from(ticket: Ticket) -> Self {
        let seat = ticket.seat.seat_id.map(|seat| seat.to_string());
        Self { id: ticket.ticket_id, seat, code: ticket.code }
    }
}

fn body<'a, T: Deserialize<'a>>(entry: &Entry<'a>) -> Result<T> {
    let body = entry.body.with_context(|| format!("an answer to {} without its words", entry.step))?;
    serde_json::from_str(body.get()).with_context(|| format!("an answer to {} of another shape", entry.step))
}

#[cfg(test)]
mod tests {
    use std::fmt::Write as _;

    use serde_json::{Value, json};
    use stampede_contracts::BlockId;

    use super::*;
    use crate::load;
    use crate::scratch::Scratch;

    fn said(step: &str, status: u16, key: Option<&str>, body: Option<Value>) -> load::Entry {
        load::Entry {
            at: Timestamp::now(),
            buyer: 1,
            step: step.to_owned(),
            key: key.map(str::to_owned),
            status: Some(status),
            took_ms: 1.5,
            digest: key.map(|_| body.as_ref().map(Value::to_string).unwrap_or_default()),
            body,
        }
    }

    fn read(entries: &[load::Entry], end: &str) -> Result<Told> {
        let scratch = Scratch::new("history").unwrap();
        let mut text = String::new();
        for entry in entries {
            writeln!(text, "{}", serde_json::to_string(entry).unwrap()).unwrap();
        }
        let path = scratch.path().join("a.jsonl");
        std::fs::write(&path, text + end).unwrap();
        Told::read(&[path])
    }

    fn hold() -> (HoldId, Value) {
        let id = HoldId::new(BlockId::from_number(3));
        (id, json!({ "hold_id": id, "quantity": 2 }))
    }

    #[test]
    fn an_answer_of_load_is_understood() {
        let (id, body) = hold();
        let entries = [
            said("session", 201, None, None),
            said("hold", 409, Some("k"), Some(json!({ "code": "seats_taken" }))),
            said("hold", 201, Some("k"), Some(body)),
            said("release", 204, None, None),
        ];
        let told = read(&entries, "").unwrap();
        let hold = &told.holds[&id];
        assert!(hold.released.is_some() && hold.digest.is_some());
        assert_eq!(told.place(hold.line), "a.jsonl:3");
        assert_eq!(told.hold_keys["k"].0, id);
        assert_eq!(told.repeats, 0, "409 changed nothing, so the same key may have succeeded later");
    }

    #[test]
    fn the_same_key_with_other_bytes_is_a_contradiction() {
        let order = |id: OrderId| json!({ "order_id": id, "state": "pending", "hold_id": hold().0, "created_at": Timestamp::now() });
        let (first, other) = (order(OrderId::new()), order(OrderId::new()));
        let running = json!({ "code": "key_in_progress" });
        let same = [
            said("order", 409, Some("k"), Some(running)),
            said("order", 202, Some("k"), Some(first.clone())),
            said("order again", 202, Some("k"), Some(first.clone())),
        ];
        let told = read(&same, "").unwrap();
        assert_eq!((told.repeats, told.contradictions.len()), (1, 0));
        let different =
            [said("order", 202, Some("k"), Some(first)), said("order", 202, Some("k"), Some(other))];
        let told = read(&different, "").unwrap();
        assert_eq!(told.contradictions.len(), 1);
        assert_eq!(told.contradictions[0].0, Rule::SameReply);
    }

    #[test]
    fn an_attempt_without_an_answer_promises_nothing_and_its_repetition_does() {
        let (id, body) = hold();
        let silence = |step: &str, key: &str| load::Entry {
            status: None,
            body: None,
            digest: None,
            ..said(step, 0, Some(key), None)
        };
        let entries = [silence("hold", "k"), said("hold", 201, Some("k"), Some(body)), silence("order", "o")];
        let told = read(&entries, "").unwrap();
        assert_eq!(told.hold_keys["k"].0, id);
        assert!(told.orders.is_empty() && told.order_keys.is_empty());
        assert_eq!(told.repeats, 0, "an answer that nobody heard is not compared");
    }

    #[test]
    fn a_number_in_a_lobby_does_not_change() {
        let (ticket, show) = (LobbyTicket::new(), ShowId::new());
        let place = |number: Option<u64>| {
            let body = json!({ "lobby_ticket": ticket, "show_id": show, "state": "waiting", "number": number,
                "ahead": 0, "eta_seconds": 0, "poll_after_ms": 250 });
            said("lobby", 200, None, Some(body))
        };
        assert!(read(&[place(None), place(Some(7)), place(Some(7))], "").unwrap().contradictions.is_empty());
        assert_eq!(read(&[place(Some(7)), place(Some(8))], "").unwrap().contradictions.len(), 1);
    }

    #[test]
    fn a_line_that_is_still_being_written_is_left_out_and_a_broken_one_is_named() {
        let (_, body) = hold();
        let told = read(&[said("hold", 201, Some("k"), Some(body))], r#"{"at":"2027-"#).unwrap();
        assert_eq!(told.holds.len(), 1);
        let error = format!("{:#}", read(&[], "{}\n").unwrap_err());
        assert!(error.contains("a.jsonl:1"), "{error}");
    }
}
