//! One buyer: browses, waits, holds, orders, reads the tickets — or gives up, changes their mind, sends things twice.

use std::{future::Future, sync::Arc, time::Duration};

use rand::{RngExt, SeedableRng, rngs::SmallRng};
use reqwest::StatusCode;
use stampede_contracts::{
    Code, SectionId,
    api::{self, NewHold, OrderState, PlaceState, ShowSummary},
};
use stampede_deadline::Deadline;
use stampede_retry::retry;
use tokio::time::Instant;

use super::{Outcome, Stage};
use crate::client::{Reply, With, new_key, new_order};

/// How long a buyer waits in a lobby.
const LOBBY_PATIENCE: Duration = Duration::from_secs(600);
/// How long a buyer waits for a pending order.
const ORDER_PATIENCE: Duration = Duration::from_secs(120);
/// How long a buyer waits before looking at a pending order: at first, and at most, doubling in between.
const ORDER_LOOK: Duration = Duration::from_secs(1);
const ORDER_LOOK_MAX: Duration = Duration::from_secs(8);
/// Sections a buyer tries before believing that it is sold out.
const SECTIONS_TRIED_MAX: usize = 3;
/// How often a buyer repeats what was refused with 429 or 503, or answered with 504.
const REFUSALS_MAX: u32 = 5;
/// How long a buyer goes on sending a request that broke off; the last attempt begins before that.
const BROKEN_PATIENCE: Duration = Duration::from_secs(60);
/// How often a buyer sends a request that breaks off, at most.
const ATTEMPTS_MAX: u32 = 60;
/// Seats a buyer wants, at most.
const SEATS_MAX: u32 = 4;

/// What buyers do besides buying; shares of all buyers, 0 to 1.
#[derive(Debug, Clone, Copy)]
pub struct Habits {
    /// Leave after looking, or leave the lobby.
    pub give_up: f64,
    /// Release the hold instead of ordering.
    pub change_mind: f64,
    /// Send the same order twice at once.
    pub send_twice: f64,
    /// Have a card that is declined.
    pub declined: f64,
    /// Cancel after buying.
    pub cancel: f64,
    /// Look at the seat map before choosing.
    pub look_at_map: f64,
}

impl Habits {
    /// Everybody buys at once and keeps it: for measuring how many purchases there can be.
    pub const ONLY_BUY: Self = Self {
        give_up: 0.0,
        change_mind: 0.0,
        send_twice: 0.0,
        declined: 0.0,
        cancel: 0.0,
        look_at_map: 0.0,
    };
}

impl Default for Habits {
    fn default() -> Self {
        Self {
            give_up: 0.03,
            change_mind: 0.05,
            send_twice: 0.1,
            declined: 0.03,
            cancel: 0.02,
            look_at_map: 0.2,
        }
    }
}

/// The attempt, counted from 0, that got no answer.
struct Broken(u32);

/// The end of a journey, reached from anywhere in it.
struct Ended(Outcome);

type Step<T> = Result<T, Ended>;

pub struct Journey {
    stage: Arc<Stage>,
    buyer: u64,
    rng: SmallRng,
    due: Instant,
}

impl Journey {
    pub fn new(stage: Arc<Stage>, buyer: u64, seed: u64, due: Instant) -> Self {
        let rng = SmallRng::seed_from_u64(seed ^ buyer.wrapping_mul(0x9E37_79B9_7F4A_7C15));
        Self { stage, buyer, rng, due }
    }

    pub async fn run(mut self) {
        self.stage.report.arrived();
        let outcome = match self.travel().await {
            Ok(outcome) | Err(Ended(outcome)) => outcome,
        };
        if outcome == Outcome::Bought {
            self.stage.report.took("journey", self.due.elapsed());
        }
        self.stage.report.ended(outcome);
    }

    async fn travel(&mut self) -> Step<Outcome> {
        let show = self.stage.shows[self.rng.random_range(0..self.stage.shows.len())].clone();
        let operator = self.stage.operator_token.as_deref();
        let session: api::Session = self.success("session", || self.stage.client.session(operator)).await?;
        let token = session.token;

        let wish = self.browse(&show, &token).await?;
        if self.chance(self.stage.habits.give_up) && !show.lobby {
            return Ok(Outcome::GaveUp);
        }
        let pass = if show.lobby { Some(self.wait(&show, &token).await?) } else { None };
        let hold = self.hold(&show, &token, pass.as_deref(), wish).await?;
        if self.chance(self.stage.habits.change_mind) {
            self.ask("release", None, || self.stage.client.release(hold.hold_id, &token)).await?;
            return Ok(Outcome::ChangedMind);
        }
        let order = self.order(&hold, &token).await?;
        let ticket = order.tickets.first().ok_or(Ended(Outcome::Wrong))?.ticket_id;
        let (path, with) = (format!("/v1/tickets/{ticket}"), With::token(&token));
        let read = || self.stage.client.send(reqwest::Method::GET, &path, with, None);
        let _: api::Ticket = self.success("ticket", read).await?;
        if self.chance(self.stage.habits.cancel) {
            let cancel = || self.stage.client.cancel(order.order_id, with);
            let _: api::Order = self.success("cancel", cancel).await?;
            return Ok(Outcome::Cancelled);
        }
        Ok(Outcome::Bought)
    }

    fn chance(&mut self, share: f64) -> bool {
        share > 0.0 && self.rng.random_bool(share.min(1.0))
    }

    /// Looks at the show; says which sections to try, in order.
    async fn browse(&mut self, show: &ShowSummary, token: &str) -> Step<Vec<SectionId>> {
        let with = With::token(token);
        let now: api::Show = self.success("show", || self.stage.client.show(show.show_id, with)).await?;
        let free = |section: &api::Section| section.availability.map_or(1, |now| now.free);
        let mut open: Vec<_> = now.sections.iter().filter(|section| free(section) > 0).collect();
        // A copy a moment behind may say that nothing is left when the last hold has just ended: everybody tries.
        if open.is_empty() {
            open = now.sections.iter().collect();
        }
        let first = self.rng.random_range(0..open.len().max(1)).min(open.len());
        open.rotate_left(first);
        let wish: Vec<_> = open.iter().take(SECTIONS_TRIED_MAX).map(|section| section.section_id).collect();
        if let Some(section) = wish.first()
            && self.chance(self.stage.habits.look_at_map)
        {
            self.ask("seats", None, || self.stage.client.seats(show.show_id, *section, with)).await?;
        }
        Ok(wish)
    }

    async fn wait(&mut self, show: &ShowSummary, token: &str) -> Step<String> {
        let join = || self.stage.client.join(show.show_id, token);
        let mut place: api::Place = self.success("lobby", join).await?;
        let gives_up = self.chance(self.stage.habits.give_up);
        let until = Instant::now() + LOBBY_PATIENCE;
        loop {
            match place.state {
                PlaceState::Admitted => return place.pass.ok_or(Ended(Outcome::Wrong)),
                PlaceState::SoldOut => return Err(Ended(Outcome::SoldOut)),
                PlaceState::Expired | PlaceState::Left => return Err(Ended(Outcome::GaveUp)),
                PlaceState::Early | PlaceState::Waiting if gives_up || Instant::now() > until => {
                    let leave = || self.stage.client.leave(place.lobby_ticket, token);
                    self.ask("leave", None, leave).await?;
                    return Err(Ended(Outcome::GaveUp));
                }
                PlaceState::Early | PlaceState::Waiting => {}
            }
            tokio::time::sleep(Duration::from_millis(place.poll_after_ms.into())).await;
            let look = || self.stage.client.place(place.lobby_ticket, token);
            place = self.success("lobby", look).await?;
        }
    }

    async fn hold(
        &mut self,
        show: &ShowSummary,
        token: &str,
        pass: Option<&str>,
        sections: Vec<SectionId>,
    ) -> Step<api::Hold> {
        let mut quantity = self.rng.random_range(1..=SEATS_MAX);
        for (attempt, section) in sections.iter().cycle().take(SECTIONS_TRIED_MAX * 2).enumerate() {
            if attempt == SECTIONS_TRIED_MAX {
                // Perhaps there is a single seat somewhere.
                quantity = 1;
            }
            let (key, wish) =
                (new_key(), NewHold { section: Some(*section), quantity: Some(quantity), seats: None });
            let with = With::token(token).key(&key).pass(pass);
            let hold = || self.stage.client.hold(show.show_id, &wish, with);
            let reply = self.insist("hold", Some(&key), hold).await?;
            match reply.status {
                StatusCode::CREATED => return reply.json().map_err(|_| Ended(Outcome::Wrong)),
                StatusCode::CONFLICT if reply.code() == Some(Code::SeatsTaken) => {}
                StatusCode::CONFLICT if reply.code() == Some(Code::PassClosed) => {
                    return Err(Ended(Outcome::GaveUp));
                }
                _ => return Err(Self::unexpected(&reply)),
            }
        }
        Err(Ended(Outcome::SoldOut))
    }

    async fn order(&mut self, hold: &api::Hold, token: &str) -> Step<api::Order> {
        let declined = self.chance(self.stage.habits.declined);
        let card = if declined { "4000000000000002" } else { "4242424242424242" };
        let card_token = self.card_token(card).await?;
        let email = format!("buyer-{}@load.example", self.buyer);
        let order = new_order(hold.hold_id, &format!("Buyer {}", self.buyer), &email, &card_token);
        let key = new_key();
        let with = With::token(token).key(&key);
        let is_sent_twice = self.chance(self.stage.habits.send_twice);
        let send = || self.stage.client.order(&order, with);
        let reply = if is_sent_twice {
            // What the second was told is written down as well: the verifier compares the two.
            let (first, second) = tokio::join!(
                self.insist("order", Some(&key), send),
                self.insist("order again", Some(&key), send)
            );
            second?;
            first?
        } else {
            self.insist("order", Some(&key), send).await?
        };
        match reply.status {
            StatusCode::CREATED => {
                self.stage.report.confirmed();
                reply.json().map_err(|_| Ended(Outcome::Wrong))
            }
            StatusCode::ACCEPTED => {
                let pending = reply.json().map_err(|_| Ended(Outcome::Wrong))?;
                self.settle(pending, token).await
            }
            StatusCode::PAYMENT_REQUIRED => {
                Err(Ended(if declined { Outcome::Declined } else { Outcome::Wrong }))
            }
            StatusCode::CONFLICT => Err(Ended(Outcome::OrderFailed)),
            _ => Err(Self::unexpected(&reply)),
        }
    }

    /// From the provider, which is no part of the platform: nothing of it is in the history.
    async fn card_token(&self, card: &str) -> Step<String> {
        let sent = Instant::now();
        let Stage { client, tokens_url, .. } = &*self.stage;
        let token = self
            .repeat(async |attempt| client.card_token(tokens_url, card).await.map_err(|_| Broken(attempt)));
        let token = token.await?;
        self.stage.report.took("card", sent.elapsed());
        Ok(token)
    }

    async fn settle(&mut self, pending: api::Order, token: &str) -> Step<api::Order> {
        let until = Instant::now() + ORDER_PATIENCE;
        let mut pause = ORDER_LOOK;
        while Instant::now() < until {
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(ORDER_LOOK_MAX);
            let look = || self.stage.client.read_order(pending.order_id, With::token(token));
            let reply = self.ask("settle", None, look).await?;
            if !reply.status.is_success() {
                continue;
            }
            let order: api::Order = reply.json().map_err(|_| Ended(Outcome::Wrong))?;
            match order.state {
                OrderState::Confirmed => {
                    self.stage.report.confirmed();
                    return Ok(order);
                }
                OrderState::Declined => return Err(Ended(Outcome::Declined)),
                OrderState::Failed | OrderState::Cancelled => return Err(Ended(Outcome::OrderFailed)),
                OrderState::Pending | OrderState::Failing | OrderState::Cancelling => {}
            }
        }
        Err(Ended(Outcome::Unsettled))
    }

    /// Sends a request until there is an answer, as a buyer's client does: what broke off is sent again, under the same
    /// key where it has one, and everything else that a buyer sends may happen twice. Every attempt is written down.
    async fn ask<Fut>(&self, step: &'static str, key: Option<&str>, send: impl Fn() -> Fut) -> Step<Reply>
    where
        Fut: Future<Output = anyhow::Result<Reply>>,
    {
        self.repeat(async |attempt| {
            if attempt > 0 {
                self.stage.report.repeated();
            }
            let sent = Instant::now();
            let reply = send().await;
            self.heard(step, key, sent, reply).await.ok_or(Broken(attempt))
        })
        .await
    }

    async fn repeat<T, Fut>(&self, attempt: impl FnMut(u32) -> Fut) -> Step<T>
    where
        Fut: Future<Output = Result<T, Broken>>,
    {
        let has_patience = |Broken(attempt): &Broken| attempt + 1 < ATTEMPTS_MAX;
        let answered = retry(Deadline::after(BROKEN_PATIENCE), &self.stage.backoff, has_patience, attempt);
        answered.await.map_err(|_: Broken| Ended(Outcome::Silence))
    }

    /// As [`Journey::ask`], and again while the answer is to come later or that nobody knows: asking again finds out
    /// whatever became of the first.
    async fn insist<Fut>(&self, step: &'static str, key: Option<&str>, send: impl Fn() -> Fut) -> Step<Reply>
    where
        Fut: Future<Output = anyhow::Result<Reply>>,
    {
        let mut refusals = 0;
        loop {
            let reply = self.ask(step, key, &send).await?;
            let is_undecided =
                matches!(reply.status.as_u16(), 429 | 503 | 504) || reply.code() == Some(Code::KeyInProgress);
            if !is_undecided || refusals == REFUSALS_MAX {
                return Ok(reply);
            }
            refusals += 1;
            pause(&reply).await;
        }
    }

    /// Writes down and times what came back, if anything did.
    async fn heard(
        &self,
        step: &'static str,
        key: Option<&str>,
        sent: Instant,
        reply: anyhow::Result<Reply>,
    ) -> Option<Reply> {
        match reply {
            Ok(reply) => {
                self.stage.report.took(step, reply.took);
                self.stage.history.told(self.buyer, step, key, Ok(&reply)).await;
                if reply.status.as_u16() >= 400 {
                    let code = reply.code().map(|code| code.as_str()).unwrap_or("no problem details");
                    self.stage.report.note(format!("{step}: {} {code}", reply.status.as_u16()));
                }
                Some(reply)
            }
            Err(error) => {
                let waited_ms = sent.elapsed().as_secs_f64() * 1_000.0;
                self.stage.history.told(self.buyer, step, key, Err(waited_ms)).await;
                self.stage.report.note(format!("{step}: {}", error.root_cause()));
                None
            }
        }
    }

    /// An answer without a key that has to be a success.
    async fn success<T, Fut>(&self, step: &'static str, send: impl Fn() -> Fut) -> Step<T>
    where
        T: serde::de::DeserializeOwned,
        Fut: Future<Output = anyhow::Result<Reply>>,
    {
        let reply = self.insist(step, None, send).await?;
        reply.json().map_err(|_| Self::unexpected(&reply))
    }

    fn unexpected(reply: &Reply) -> Ended {
        Ended(match reply.status.as_u16() {
            429 | 503 => Outcome::Refused,
            504 => Outcome::Unsettled,
            409 => Outcome::OrderFailed,
            _ => Outcome::Wrong,
        })
    }
}

// As long as the answer says, and no longer than a person would.
async fn pause(reply: &Reply) {
    let header = reply.headers.get("retry-after").and_then(|value| value.to_str().ok()?.parse().ok());
    tokio::time::sleep(Duration::from_secs(header.unwrap_or(1_u64).clamp(1, 10))).await;
}

#[cfg(test)]
mod tests {
    use reqwest::Method;
    use stampede_retry::Backoff;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;
    use crate::client::Client;
    use crate::load::{Entry, History, Report, Summary, read_history};
    use crate::scratch::Scratch;

    /// A door that takes requests, breaks off so many of them, and answers the rest.
    async fn door(listener: TcpListener, broken: usize) {
        for number in 0.. {
            let (mut connection, _) = listener.accept().await.unwrap();
            let mut head = [0; 4_096];
            assert!(connection.read(&mut head).await.unwrap() > 0);
            if number >= broken {
                let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\n{}";
                connection.write_all(answer).await.unwrap();
            }
        }
    }

    /// One request with a key through such a door; what came of it, was counted, and was written down.
    async fn ask_through(broken: usize) -> (Option<StatusCode>, Summary, Vec<Entry>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let door = tokio::spawn(door(listener, broken));
        let scratch = Scratch::new("journey").unwrap();
        let path = scratch.path().join("history.jsonl");
        let (history, writer) = History::create(&path).await.unwrap();
        let pause = Duration::from_millis(1);
        let stage = Arc::new(Stage {
            client: Client::new(&url).unwrap(),
            shows: Vec::new(),
            tokens_url: String::new(),
            habits: Habits::ONLY_BUY,
            operator_token: None,
            backoff: Backoff::try_new(pause, pause).unwrap(),
            history,
            report: Report::default(),
        });
        let journey = Journey::new(Arc::clone(&stage), 3, 1, Instant::now());
        let with = With::default().key("k");
        let send = || stage.client.send(Method::POST, "/v1/orders", with, None);
        let reply = journey.ask("order", Some("k"), send).await;
        drop(journey);
        door.abort();
        let Stage { history, report, .. } = Arc::into_inner(stage).unwrap();
        drop(history);
        writer.await.unwrap().unwrap();
        let entries = read_history(&path).await.unwrap();
        (reply.ok().map(|reply| reply.status), report.summary(Duration::ZERO, path), entries)
    }

    #[tokio::test]
    async fn what_broke_off_is_sent_again_under_its_key_and_every_attempt_is_written_down() {
        let (status, summary, entries) = ask_through(2).await;
        assert_eq!((status, summary.repeated), (Some(StatusCode::OK), 2));
        let statuses: Vec<_> = entries.iter().map(|entry| entry.status).collect();
        assert_eq!(statuses, [None, None, Some(200)]);
        assert!(entries.iter().all(|entry| entry.key.as_deref() == Some("k") && entry.buyer == 3));
    }

    #[tokio::test]
    async fn a_door_that_stays_shut_is_left_in_the_end() {
        let (status, summary, entries) = ask_through(usize::MAX).await;
        assert_eq!((status, summary.repeated), (None, u64::from(ATTEMPTS_MAX) - 1));
        assert_eq!(entries.len(), ATTEMPTS_MAX as usize);
    }
}
