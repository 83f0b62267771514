//! The use cases: join, look, leave, and the loop that calls people.

use std::{collections::HashSet, sync::Arc, time::Duration};

use stampede_bus::{BoxError, Bus, CallError};
use stampede_contracts::{
    Code, LobbyTicket, Problem, SessionId, ShowId, Timestamp,
    api::{self, PlaceState},
    signed::Pass,
};
use stampede_postgres::Failure;
use tokio_util::sync::CancellationToken;

use crate::{
    clients,
    config::Config,
    domain::{eta_seconds, poll_after},
    metrics::Metrics,
    stock::StockCopy,
    store::{Place, Show, Store},
};

/// How often it is written down that somebody still waits.
const NOTE_EVERY: Duration = Duration::from_secs(20);
/// How often the open places are counted.
const COUNT_EVERY: Duration = Duration::from_secs(5);
/// Between two looks for places to forget, and between two statements that delete them.
const FORGET_EVERY: Duration = Duration::from_secs(60);
const FORGET_PAUSE: Duration = Duration::from_millis(200);
/// Places that one statement deletes.
const FORGET_PLACES: i64 = 1_000;

/// What the handlers share. Clones are the same app.
#[derive(Debug, Clone)]
pub struct App {
    store: Store,
    bus: Bus,
    config: Arc<Config>,
    stock: Arc<StockCopy>,
    draining: CancellationToken,
    metrics: Metrics,
}

/// Why a use case did not come to its end.
#[derive(Debug, thiserror::Error)]
pub enum AppError {
    /// The answer is no.
    #[error("refused: {0}")]
    Refused(Problem),
    /// The database.
    #[error("the database did not answer as it should")]
    Database(#[from] sqlx::Error),
    /// Inventory.
    #[error("inventory did not answer as it should")]
    Inventory(#[from] CallError),
}

impl From<Code> for AppError {
    fn from(code: Code) -> Self {
        Self::Refused(Problem::new(code))
    }
}

impl App {
    /// Over its database and the bus. Streams of events end when it is `draining`.
    pub fn new(store: Store, bus: Bus, config: Config, draining: CancellationToken) -> Self {
        let (config, stock) = (Arc::new(config), Arc::default());
        Self { store, bus, config, stock, draining, metrics: Metrics::default() }
    }

    /// Cancelled when this replica is about to end.
    pub fn draining(&self) -> &CancellationToken {
        &self.draining
    }

    /// The database.
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// The copy of how many seats are left.
    pub fn stock(&self) -> Arc<StockCopy> {
        Arc::clone(&self.stock)
    }

    /// Takes a place, or finds the one the session has. Says whether it is new.
    ///
    /// # Errors
    /// [`AppError`].
    pub async fn join(&self, show_id: ShowId, session: SessionId) -> Result<(api::Place, bool), AppError> {
        let show = self.store.show(show_id).await?.ok_or(Code::ShowNotFound)?;
        let rules = show.rules.as_ref().ok_or(Code::NoLobby)?;
        let now = Timestamp::now();
        if now < rules.opens_at || now >= show.starts_at {
            let detail = format!("the lobby is open from {} until {}", rules.opens_at, show.starts_at);
            return Err(AppError::Refused(Problem::new(Code::NotOnSale).detail(detail)));
        }
        let (place, is_new) = self.store.join(show_id, session).await?;
        if is_new {
            self.metrics.joined();
        }
        Ok((self.view(&show, &place), is_new))
    }

    /// How a place stands. To strangers it is not there.
    ///
    /// # Errors
    /// [`AppError`].
    pub async fn place(&self, ticket: LobbyTicket, session: SessionId) -> Result<api::Place, AppError> {
        let (show, place) = self.find(ticket, session).await?;
        Ok(self.view(&show, &place))
    }

    /// Leaves. A shopping slot is closed at inventory first, so that its pass buys nothing any more when the next one is
    /// called.
    ///
    /// # Errors
    /// [`AppError`].
    pub async fn leave(&self, ticket: LobbyTicket, session: SessionId) -> Result<api::Place, AppError> {
        loop {
            let (show, place) = self.find(ticket, session).await?;
            let closed = match (place.state, place.slot) {
                (PlaceState::Early | PlaceState::Waiting, _) => None,
                (PlaceState::Admitted, Some(slot)) => {
                    clients::close_pass(&self.bus, slot.pass_id, session, place.show_id).await?;
                    Some(slot.pass_id)
                }
                _ => return Ok(self.view(&show, &place)),
            };
            // Has no effect on a place that was called in the meantime: its pass is to be closed first.
            self.store.leave(ticket, closed).await?;
        }
    }

    /// The draw of a show: the seed's hash from the beginning, the seed once the draw was held.
    ///
    /// # Errors
    /// [`AppError`].
    pub async fn draw(&self, show_id: ShowId) -> Result<api::Draw, AppError> {
        let show = self.store.show(show_id).await?.ok_or(Code::ShowNotFound)?;
        show.rules.as_ref().ok_or(Code::NoLobby)?;
        Ok(api::Draw {
            show_id,
            seed_hash: hex(ring_sha256(&show.seed).as_ref()),
            seed: show.drawn.then(|| hex(&show.seed)),
        })
    }

    async fn find(&self, ticket: LobbyTicket, session: SessionId) -> Result<(Show, Place), AppError> {
        let place = self.store.place(ticket, NOTE_EVERY).await?;
        let place = place.filter(|place| place.session == session).ok_or(Code::PlaceNotFound)?;
        let show = self.store.show(place.show_id).await?.ok_or(Code::ShowNotFound)?;
        Ok((show, place))
    }

    fn view(&self, show: &Show, place: &Place) -> api::Place {
        let rate = show.rules.as_ref().map_or(1, |rules| rules.rate_per_second);
        // Some before it may have left: it is never longer than told.
        let ahead = match (place.state, place.number) {
            (PlaceState::Waiting, Some(number)) => Some(number.saturating_sub(show.serving + 1)),
            (PlaceState::Admitted, Some(_)) => Some(0),
            _ => None,
        };
        let slot = place.slot.filter(|_| place.state == PlaceState::Admitted);
        let pass = slot.map(|slot| Pass {
            pass_id: slot.pass_id,
            show_id: place.show_id,
            session: place.session,
            place: place.ticket,
            expires_at: slot.expires_at,
        });
        let poll_after = match place.state {
            PlaceState::Early => show
                .sale_opens_at
                .since(Timestamp::now())
                .clamp(Duration::from_millis(500), Duration::from_secs(10)),
            _ => poll_after(ahead.unwrap_or(0), rate),
        };
        api::Place {
            lobby_ticket: place.ticket,
            show_id: place.show_id,
            state: place.state,
            number: place.number,
            ahead,
            eta_seconds: ahead.map(|ahead| eta_seconds(ahead, rate)),
            poll_after_ms: u32::try_from(poll_after.as_millis()).unwrap_or(10_000),
            pass: pass.map(|pass| self.config.pass_key.sign(&pass)),
            pass_expires_at: slot.map(|slot| slot.expires_at),
        }
    }

    /// Calls people until `shutdown`: holds the draws that are due, ends slots, admits.
    ///
    /// # Errors
    /// When the database does not answer; whoever supervises starts it again.
    pub async fn call_people(self, shutdown: CancellationToken) -> Result<(), BoxError> {
        let mut look = tokio::time::interval(self.config.admit_every);
        look.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut defective = HashSet::new();
        while shutdown.run_until_cancelled(look.tick()).await.is_some() {
            let mut outage = None;
            // What is wrong with one show does not concern the buyers of the others.
            for show in self.store.busy_shows().await? {
                match self.look_at(&show).await {
                    Ok(()) => _ = defective.remove(&show.show_id),
                    Err(error) if Failure::of(&error) == Failure::Outage => outage = Some(error),
                    Err(error) if defective.insert(show.show_id) => {
                        let error = &error as &dyn std::error::Error;
                        tracing::error!(
                            show = %show.show_id, error,
                            "no buyer of this show is admitted until its rows are fixed; other shows continue"
                        );
                    }
                    Err(_known) => {}
                }
            }
            if let Some(outage) = outage {
                return Err(outage.into());
            }
        }
        Ok(())
    }

    async fn look_at(&self, show: &Show) -> Result<(), sqlx::Error> {
        if !show.drawn {
            if show.sale_opens_at <= Timestamp::now() {
                let drawn = self.store.draw(show.show_id).await?;
                tracing::info!(show = %show.show_id, drawn, "the draw was held");
            }
            return Ok(());
        }
        let stock = self.stock.of(show.show_id);
        let called = self.store.call(show.show_id, stock, self.config.abandoned_after).await?;
        self.metrics.called(&called);
        Ok(())
    }

    /// Counts open places until `shutdown`.
    ///
    /// # Errors
    /// When the database does not answer; whoever supervises starts it again.
    pub async fn count_places(self, shutdown: CancellationToken) -> Result<(), BoxError> {
        let mut look = tokio::time::interval(COUNT_EVERY);
        while shutdown.run_until_cancelled(look.tick()).await.is_some() {
            self.metrics.open(&self.store.open_places().await?);
        }
        Ok(())
    }

    /// Forgets places of shows that are over for long, until `shutdown`.
    ///
    /// # Errors
    /// When the database does not answer; whoever supervises starts it again.
    pub async fn forget(self, shutdown: CancellationToken) -> Result<(), BoxError> {
        let mut pause = Duration::ZERO;
        while shutdown.run_until_cancelled(tokio::time::sleep(pause)).await.is_some() {
            let gone = self.store.forget_history(self.config.history, FORGET_PLACES).await?;
            pause = if gone == 0 { FORGET_EVERY } else { FORGET_PAUSE };
        }
        Ok(())
    }
}

fn ring_sha256(bytes: &[u8]) -> ring::digest::Digest {
    ring::digest::digest(&ring::digest::SHA256, bytes)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
