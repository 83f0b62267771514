//! One buyer: browses, waits, holds, orders, reads the tickets — or gives up, changes their mind, sends things twice.

use std::{sync::Arc, time::Duration};

use rand::{RngExt, SeedableRng, rngs::SmallRng};
use reqwest::StatusCode;
use stampede_contracts::{
    Code, SectionId,
    api::{self, NewHold, OrderState, PlaceState, ShowSummary},
};
use tokio::time::Instant;

use super::{Outcome, Stage};
use crate::client::{Reply, With, new_key, new_order};

/// How long a buyer waits in a lobby.
const LOBBY_PATIENCE: Duration = Duration::from_secs(600);
/// How long a buyer waits for a pending order.
const ORDER_PATIENCE: Duration = Duration::from_secs(120);
/// How often a buyer looks at a pending order.
const ORDER_LOOK: Duration = Duration::from_secs(1);
/// Sections a buyer tries before believing that it is sold out.
const SECTIONS_TRIED_MAX: usize = 3;
/// How often a buyer repeats what was refused with 429 or 503.
const REFUSALS_MAX: u32 = 5;
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
        let reply = self.stage.client.session(self.stage.operator_token.as_deref()).await;
        let session: api::Session = self.success("session", None, reply).await?;
        let token = session.token;

        let wish = self.browse(&show, &token).await?;
        if self.chance(self.stage.habits.give_up) && !show.lobby {
            return Ok(Outcome::GaveUp);
        }
        let pass = if show.lobby { Some(self.wait(&show, &token).await?) } else { None };
        let hold = self.hold(&show, &token, pass.as_deref(), wish).await?;
        if self.chance(self.stage.habits.change_mind) {
            let reply = self.stage.client.release(hold.hold_id, &token).await;
            self.heard("release", None, reply).await?;
            return Ok(Outcome::ChangedMind);
        }
        let order = self.order(&hold, &token).await?;
        let ticket = order.tickets.first().ok_or(Ended(Outcome::Wrong))?.ticket_id;
        let path = format!("/v1/tickets/{ticket}");
        let reply = self.stage.client.send(reqwest::Method::GET, &path, With::token(&token), None).await;
        let _: api::Ticket = self.success("ticket", None, reply).await?;
        if self.chance(self.stage.habits.cancel) {
            let reply = self.stage.client.cancel(order.order_id, With::token(&token)).await;
            let _: api::Order = self.success("cancel", None, reply).await?;
            return Ok(Outcome::Cancelled);
        }
        Ok(Outcome::Bought)
    }

    fn chance(&mut self, share: f64) -> bool {
        share > 0.0 && self.rng.random_bool(share.min(1.0))
    }

    /// Looks at the show; says which sections to try, in order.
    async fn browse(&mut self, show: &ShowSummary, token: &str) -> Step<Vec<SectionId>> {
        let reply = self.stage.client.show(show.show_id, With::token(token)).await;
        let now: api::Show = self.success("show", None, reply).await?;
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
            let reply = self.stage.client.seats(show.show_id, *section, With::token(token)).await;
            self.heard("seats", None, reply).await?;
        }
        Ok(wish)
    }

    async fn wait(&mut self, show: &ShowSummary, token: &str) -> Step<String> {
        let reply = self.stage.client.join(show.show_id, token).await;
        let mut place: api::Place = self.success("lobby", None, reply).await?;
        let gives_up = self.chance(self.stage.habits.give_up);
        let until = Instant::now() + LOBBY_PATIENCE;
        loop {
            match place.state {
                PlaceState::Admitted => return place.pass.ok_or(Ended(Outcome::Wrong)),
                PlaceState::SoldOut => return Err(Ended(Outcome::SoldOut)),
                PlaceState::Expired | PlaceState::Left => return Err(Ended(Outcome::GaveUp)),
                PlaceState::Early | PlaceState::Waiting if gives_up || Instant::now() > until => {
                    let reply = self.stage.client.leave(place.lobby_ticket, token).await;
                    self.heard("leave", None, reply).await?;
                    return Err(Ended(Outcome::GaveUp));
                }
                PlaceState::Early | PlaceState::Waiting => {}
            }
            tokio::time::sleep(Duration::from_millis(place.poll_after_ms.into())).await;
            let reply = self.stage.client.place(place.lobby_ticket, token).await;
            place = self.success("lobby", None, reply).await?;
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
            let mut refusals = 0;
            loop {
                let reply = self.stage.client.hold(show.show_id, &wish, with).await;
                let reply = self.heard("hold", Some(&key), reply).await?;
                match reply.status {
                    StatusCode::CREATED => return reply.json().map_err(|_| Ended(Outcome::Wrong)),
                    StatusCode::CONFLICT if reply.code() == Some(Code::SeatsTaken) => break,
                    StatusCode::CONFLICT if reply.code() == Some(Code::PassClosed) => {
                        return Err(Ended(Outcome::GaveUp));
                    }
                    // The same key again: whatever became of the first, this finds out.
                    StatusCode::TOO_MANY_REQUESTS
                    | StatusCode::SERVICE_UNAVAILABLE
                    | StatusCode::GATEWAY_TIMEOUT
                        if refusals < REFUSALS_MAX =>
                    {
                        refusals += 1;
                        pause(&reply).await;
                    }
                    _ => return Err(Self::unexpected(&reply)),
                }
            }
        }
        Err(Ended(Outcome::SoldOut))
    }

    async fn order(&mut self, hold: &api::Hold, token: &str) -> Step<api::Order> {
        let declined = self.chance(self.stage.habits.declined);
        let card = if declined { "4000000000000002" } else { "4242424242424242" };
        let sent = Instant::now();
        let Ok(card_token) = self.stage.client.card_token(&self.stage.tokens_url, card).await else {
            return Err(Ended(Outcome::Silence));
        };
        self.stage.report.took("card", sent.elapsed());
        let email = format!("buyer-{}@load.example", self.buyer);
        let order = new_order(hold.hold_id, &format!("Buyer {}", self.buyer), &email, &card_token);
        let key = new_key();
        let with = With::token(token).key(&key);
        let mut refusals = 0;
        let reply = loop {
            let reply = if self.chance(self.stage.habits.send_twice) {
                let (first, second) = tokio::join!(
                    self.stage.client.order(&order, with),
                    self.stage.client.order(&order, with)
                );
                // What the second was told is written down as well: the verifier compares the two.
                self.heard("order again", Some(&key), second).await?;
                first
            } else {
                self.stage.client.order(&order, with).await
            };
            let reply = self.heard("order", Some(&key), reply).await?;
            let again =
                matches!(reply.status.as_u16(), 429 | 503 | 504) || reply.code() == Some(Code::KeyInProgress);
            if !again || refusals == REFUSALS_MAX {
                break reply;
            }
            refusals += 1;
            pause(&reply).await;
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

    async fn settle(&mut self, pending: api::Order, token: &str) -> Step<api::Order> {
        let until = Instant::now() + ORDER_PATIENCE;
        while Instant::now() < until {
            tokio::time::sleep(ORDER_LOOK).await;
            let reply = self.stage.client.read_order(pending.order_id, With::token(token)).await;
            let reply = self.heard("settle", None, reply).await?;
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

    /// Writes down and times what came back; no answer ends the journey.
    async fn heard(
        &self,
        step: &'static str,
        key: Option<&str>,
        reply: anyhow::Result<Reply>,
    ) -> Step<Reply> {
        match reply {
            Ok(reply) => {
                self.stage.report.took(step, reply.took);
                self.stage.history.told(self.buyer, step, key, Ok(&reply)).await;
                if reply.status.as_u16() >= 400 {
                    let code = reply.code().map(|code| code.as_str()).unwrap_or("no problem details");
                    self.stage.report.note(format!("{step}: {} {code}", reply.status.as_u16()));
                }
                Ok(reply)
            }
            Err(error) => {
                self.stage.history.told(self.buyer, step, key, Err(0.0)).await;
                self.stage.report.note(format!("{step}: {}", error.root_cause()));
                Err(Ended(Outcome::Silence))
            }
        }
    }

    async fn success<T: serde::de::DeserializeOwned>(
        &self,
        step: &'static str,
        key: Option<&str>,
        reply: anyhow::Result<Reply>,
    ) -> Step<T> {
        let reply = self.heard(step, key, reply).await?;
        reply.json().map_err(|_| Self::unexpected(&reply))
    }

    fn unexpected(reply: &Reply) -> Ended {
        Ended(match reply.status.as_u16() {
            429 | 503 => Outcome::Refused,
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
