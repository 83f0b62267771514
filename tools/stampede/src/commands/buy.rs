//! `stampede buy`: one purchase, told step by step.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail, ensure};
use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use clap::Args;
use reqwest::StatusCode;
use stampede_contracts::{
    HoldId, LobbyTicket, SectionId,
    api::{self, NewHold, OrderState, PlaceState, ShowSummary},
    signed::{TicketCode, VerifyingKey},
};

use crate::client::{Client, With, new_key, new_order};
use crate::signals::Signals;
use crate::{http, progress};

/// Longest wait in the lobby and for a pending order.
const WAIT_MAX: Duration = Duration::from_secs(120);

/// Buy tickets and tell every step.
#[derive(Debug, Args)]
#[group(skip)]
pub struct Buy {
    /// The gateway; without it, the one that `up` started.
    #[arg(long, value_parser = http::base_url)]
    pub url: Option<String>,
    /// Slug or id of the show; without it, the first that can be bought.
    #[arg(long)]
    pub show: Option<String>,
    /// Name of the section; without it, the first with enough free seats.
    #[arg(long)]
    pub section: Option<String>,
    /// How many tickets.
    #[arg(long, default_value_t = 2)]
    pub quantity: u32,
    /// Number of a test card.
    #[arg(long, default_value = "4242424242424242")]
    pub card: String,
    /// Name on the tickets.
    #[arg(long, default_value = "Ada Lovelace")]
    pub name: String,
    /// Where the tickets are sent.
    #[arg(long, default_value = "ada@example.org")]
    pub email: String,
    /// Where card tokens are given out; without it, where the gateway says.
    #[arg(long, value_name = "URL", env = "TOKENS_URL", value_parser = http::base_url)]
    pub tokens_url: Option<String>,
    /// Cancel the order afterwards.
    #[arg(long)]
    pub cancel: bool,
}

/// Prints a step with the time since the start.
struct Teller {
    started: Instant,
}

impl Teller {
    fn tell(&self, step: &str, what: impl std::fmt::Display) {
        progress::say(format_args!("{:>7.3} s  {step:<9} {what}", self.started.elapsed().as_secs_f64()));
    }
}

/// What a purchase that ends early gives back.
#[derive(Default)]
struct Open {
    token: String,
    place: Option<LobbyTicket>,
    hold: Option<HoldId>,
}

impl Open {
    /// Nobody else could have the seats or the slot until they expire.
    async fn give_back(&self, client: &Client, teller: &Teller) {
        if let Some(hold) = self.hold {
            let released = client.release(hold, &self.token).await.and_then(|reply| reply.success());
            match released {
                Ok(()) => teller.tell("hold", "released"),
                Err(error) => teller.tell("hold", format!("not released: {error:#}")),
            }
        }
        if let Some(place) = self.place {
            let left = client.leave(place, &self.token).await.and_then(|reply| reply.success());
            if left.is_ok() {
                teller.tell("lobby", "left");
            }
        }
    }
}

impl Buy {
    /// Buys at `url`. A purchase that ends early, because of an error or a signal, gives back what it holds.
    ///
    /// # Errors
    /// When a step did not go as it should; the message says which and why.
    pub async fn run(&self, url: &str) -> Result<()> {
        let client = Client::new(url)?;
        let teller = Teller { started: Instant::now() };
        let mut signals = Signals::listen()?;
        let mut open = Open::default();
        let bought = tokio::select! {
            bought = self.steps(&client, &teller, &mut open) => bought,
            () = signals.next() => Err(anyhow!("interrupted")),
        };
        if bought.is_err() {
            open.give_back(&client, &teller).await;
        }
        bought
    }

    async fn steps(&self, client: &Client, teller: &Teller, open: &mut Open) -> Result<()> {
        let summary = self.choose_show(client).await?;
        let show: api::Show = client.show(summary.show_id, With::default()).await?.json()?;
        teller.tell("show", format!("{} at {}, {}", summary.title, summary.venue.name, summary.starts_at));
        let section = self.choose_section(&show)?;

        let session: api::Session = client.session(None).await?.json()?;
        teller.tell("session", format!("until {}", session.expires_at));
        open.token.clone_from(&session.token);
        let pass =
            if summary.lobby { Some(wait_in_lobby(client, &summary, open, teller).await?) } else { None };

        let (key, wish) =
            (new_key(), NewHold { section: Some(section), quantity: Some(self.quantity), seats: None });
        let with = With::token(&session.token).key(&key).pass(pass.as_deref());
        let hold: api::Hold = client.hold(summary.show_id, &wish, with).await?.json().context("no seats")?;
        open.hold = Some(hold.hold_id);
        teller.tell("hold", format!("{} for {}, until {}", seats(&hold.seats), hold.total, hold.expires_at));

        let tokens_url = client.tokens_url(self.tokens_url.as_deref()).await?;
        let card_token = client.card_token(&tokens_url, &self.card).await?;
        teller.tell(
            "card",
            format!(
                "the provider gave a token for •••• {}",
                self.card.chars().rev().take(4).collect::<Vec<_>>().into_iter().rev().collect::<String>()
            ),
        );

        let key = new_key();
        let order = new_order(hold.hold_id, &self.name, &self.email, &card_token);
        let reply = client.order(&order, With::token(&session.token).key(&key)).await?;
        let trace = reply.trace_id();
        let mut order: api::Order = reply.json().context("no order")?;
        let secret = order.order_secret.clone();
        teller.tell("order", format!("{} {}", order.order_id, order.state.as_str()));
        if reply.status == StatusCode::ACCEPTED {
            order = wait_for_order(client, &order, &session.token, teller).await?;
        }
        ensure!(order.state == OrderState::Confirmed, "the order ended as {}", order.state.as_str());

        *open = Open::default();
        let keys = client.ticket_keys().await?;
        for ticket in &order.tickets {
            check_ticket(ticket, &keys)?;
            teller.tell(
                "ticket",
                format!(
                    "{} {} — its signature is valid",
                    ticket.ticket_id,
                    seats(std::slice::from_ref(&ticket.seat))
                ),
            );
        }
        if self.cancel {
            let with = With { token: Some(&session.token), secret: secret.as_deref(), ..With::default() };
            let reply = client.cancel(order.order_id, with).await?;
            order = reply.json().context("not cancelled")?;
            teller.tell("cancel", order.state.as_str());
        }

        // Read once more: the mail may have gone out since.
        let order: api::Order =
            client.read_order(order.order_id, With::token(&session.token)).await?.json()?;
        progress::say(format_args!("\ntrace     {}", trace.or(order.trace_id).unwrap_or_default()));
        progress::say("timeline");
        for entry in &order.timeline {
            let detail = entry.detail.as_deref().unwrap_or_default();
            progress::say(format_args!("  {}  {:<10} {:<9} {detail}", entry.at, entry.step, entry.state));
        }
        Ok(())
    }

    async fn choose_show(&self, client: &Client) -> Result<ShowSummary> {
        let shows = client.shows().await?;
        let known = shows.iter().map(|show| show.slug.clone()).collect::<Vec<_>>().join(", ");
        let found = match &self.show {
            Some(name) => {
                shows.into_iter().find(|show| show.slug == *name || show.show_id.to_string() == *name)
            }
            None => shows.into_iter().min_by_key(|show| show.lobby),
        };
        found.with_context(|| format!("no such show; there are: {known}"))
    }

    fn choose_section(&self, show: &api::Show) -> Result<SectionId> {
        let fits = |section: &&api::Section| match &self.section {
            Some(name) => section.name == *name,
            None => section.availability.is_none_or(|now| now.free >= u64::from(self.quantity)),
        };
        show.sections
            .iter()
            .find(fits)
            .map(|section| section.section_id)
            .context("no such section, or all are full")
    }
}

fn seats(labels: &[stampede_contracts::inventory::SeatLabel]) -> String {
    let one = |label: &stampede_contracts::inventory::SeatLabel| match (&label.row, label.number) {
        (Some(row), Some(number)) => format!("{} row {row} seat {number}", label.section),
        _ => format!("{} (free choice of place)", label.section),
    };
    labels.iter().map(one).collect::<Vec<_>>().join(", ")
}

async fn wait_in_lobby(
    client: &Client,
    show: &ShowSummary,
    open: &mut Open,
    teller: &Teller,
) -> Result<String> {
    let mut place: api::Place =
        client.join(show.show_id, &open.token).await?.json().context("no place in the lobby")?;
    open.place = Some(place.lobby_ticket);
    let mut told = None;
    let until = Instant::now() + WAIT_MAX;
    loop {
        if told != Some((place.state, place.ahead)) {
            let ahead = place.ahead.map(|ahead| format!(", {ahead} ahead")).unwrap_or_default();
            teller.tell("lobby", format!("{:?}{ahead}", place.state));
            told = Some((place.state, place.ahead));
        }
        match place.state {
            PlaceState::Admitted => return place.pass.context("admitted without a pass"),
            PlaceState::Early | PlaceState::Waiting => {}
            ended => bail!("the lobby said {ended:?}"),
        }
        ensure!(Instant::now() < until, "still in the lobby after {} s", WAIT_MAX.as_secs());
        tokio::time::sleep(Duration::from_millis(place.poll_after_ms.into())).await;
        place = client.place(place.lobby_ticket, &open.token).await?.json()?;
    }
}

async fn wait_for_order(
    client: &Client,
    order: &api::Order,
    token: &str,
    teller: &Teller,
) -> Result<api::Order> {
    let until = Instant::now() + WAIT_MAX;
    loop {
        let now: api::Order = client.read_order(order.order_id, With::token(token)).await?.json()?;
        if now.state.is_settled() {
            teller.tell("order", now.state.as_str());
            return Ok(now);
        }
        ensure!(Instant::now() < until, "still {} after {} s", now.state.as_str(), WAIT_MAX.as_secs());
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
}

// As a scanner does at the door: with the public keys alone.
fn check_ticket(ticket: &api::Ticket, keys: &api::TicketKeys) -> Result<()> {
    let key = keys
        .keys
        .iter()
        .find(|key| ticket.code.contains(&key.kid))
        .context("the ticket names an unknown key")?;
    let public = BASE64_URL_SAFE_NO_PAD.decode(&key.x).context("a public key that is none")?;
    let hex: String = public.iter().map(|byte| format!("{byte:02x}")).collect();
    let code: TicketCode = VerifyingKey::from_hex(&hex)?.verify(&ticket.code)?;
    ensure!(code.ticket_id == ticket.ticket_id, "the code belongs to another ticket");
    Ok(())
}
