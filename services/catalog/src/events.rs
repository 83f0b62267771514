//! What the catalog follows: inventory's state stream, and whether its own stream was made anew.

use std::{sync::Arc, time::Duration};

use stampede_bus::{BoxError, Bus, Delivery, Replay};
use stampede_contracts::{
    Event, ShowId, Timestamp,
    event::{BlockState, LayoutPublished},
    topology::{EVT_CATALOG, EVT_INVENTORY},
};
use stampede_service::Gate;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::{
    availability::Copies,
    store::{Cursor, Store},
};

/// How often the stream's generation is looked at.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// How often shows are published again although nothing changed.
const AGAIN_EVERY: Duration = Duration::from_secs(600);
/// Shows published again within a second.
const AGAIN_AT_ONCE: u32 = 16;

/// Follows inventory's state stream into the copy until `shutdown`.
///
/// # Errors
/// None while it runs.
pub async fn follow(bus: Bus, copies: Arc<Copies>, shutdown: CancellationToken) -> Result<(), BoxError> {
    let into = Arc::clone(&copies);
    let handler = move |delivery: Delivery| {
        apply(&into, &delivery);
        std::future::ready(Ok::<(), BoxError>(()))
    };
    Replay::new(bus, EVT_INVENTORY, "evt.inventory.>")
        .run(shutdown, handler, move |place| copies.reached(place, Timestamp::now()))
        .await
}

// A state that cannot be read is passed over: the next one of the same block replaces it.
fn apply(copies: &Copies, delivery: &Delivery) {
    let applied = match delivery.ce_type.as_str() {
        BlockState::TYPE => delivery.decode().map(|block| copies.apply_block(block)),
        LayoutPublished::TYPE => delivery.decode().map(|layout| copies.apply_layout(layout)),
        _ => Ok(()),
    };
    if let Err(error) = applied {
        tracing::warn!(%error, subject = delivery.subject, "a state that cannot be read");
    }
}

/// Keeps the node's readiness true until `shutdown`.
///
/// # Errors
/// None while it runs.
pub async fn watch_copy(
    copies: Arc<Copies>,
    gate: Gate,
    shutdown: CancellationToken,
) -> Result<(), BoxError> {
    let mut look = tokio::time::interval(Duration::from_millis(100));
    while shutdown.run_until_cancelled(look.tick()).await.is_some() {
        match copies.ready() {
            Ok(()) => {
                // It stays ready: an old copy is better than none.
                gate.open();
                shutdown.cancelled().await;
            }
            Err(reason) => gate.close(reason),
        }
    }
    Ok(())
}

/// Publishes shows that are still to come again although nothing changed, one round after the other, until `shutdown`: a
/// lost message leaves no copy wrong indefinitely.
///
/// # Errors
/// None while it runs: what fails is tried again a second later.
pub async fn publish_again(store: Store, shutdown: CancellationToken) -> Result<(), BoxError> {
    let mut look = tokio::time::interval(LOOK_EVERY);
    let mut round = None;
    let mut next_round_at = Instant::now() + AGAIN_EVERY;
    while shutdown.run_until_cancelled(look.tick()).await.is_some() {
        if round.is_none() && next_round_at <= Instant::now() {
            next_round_at = Instant::now() + AGAIN_EVERY;
            round = Some(Cursor { starts_at: Timestamp::now(), show_id: ShowId::from_uuid(Uuid::nil()) });
        }
        let Some(behind) = round else { continue };
        match store.publish_again(behind, AGAIN_AT_ONCE).await {
            Ok(next) => round = next,
            Err(error) => {
                tracing::warn!(error = &error as &dyn std::error::Error, "shows are not published again yet");
            }
        }
    }
    Ok(())
}

/// Publishes every show again whenever the stream of shows was made anew, until `shutdown`.
///
/// # Errors
/// None while it runs: what fails is tried again a second later.
pub async fn watch_generation(bus: Bus, store: Store, shutdown: CancellationToken) -> Result<(), BoxError> {
    let mut look = tokio::time::interval(LOOK_EVERY);
    while shutdown.run_until_cancelled(look.tick()).await.is_some() {
        match bus.generation(EVT_CATALOG).await {
            Ok(Some(generation)) => match store.republish(EVT_CATALOG, &generation).await {
                Ok(0) => {}
                Ok(shows) => tracing::info!(shows, "the stream of shows is new: all were published again"),
                Err(error) => {
                    tracing::warn!(error = &error as &dyn std::error::Error, "not published again yet");
                }
            },
            Ok(None) => {}
            Err(error) => tracing::debug!(%error, "the stream of shows cannot be asked now"),
        }
    }
    Ok(())
}
