//! What the lobby follows: shows from the catalog, closed passes and stock from inventory.

use std::sync::Arc;
use std::time::Duration;

use rand::Rng;
use stampede_bus::{BoxError, Bus, Consumer, ConsumerSettings, Delivery, Failure, Replay, Verdict};
use stampede_contracts::{
    event::{PassClosed, ShowPublished},
    topology::{EVT_CATALOG, EVT_FACTS, EVT_INVENTORY},
};
use stampede_service::failure;
use tokio_util::sync::CancellationToken;

use crate::{stock::StockCopy, store::Store};

/// A slot may be free a moment later, and under load many closed passes are then one statement.
const GATHER: Duration = Duration::from_millis(100);

/// Takes shows until `shutdown`.
///
/// # Errors
/// None while it runs.
pub async fn shows(bus: Bus, store: Store, shutdown: CancellationToken) -> Result<(), BoxError> {
    let consumer = Consumer::new(bus, EVT_CATALOG, "lobby-shows", ConsumerSettings::default());
    let handler = move |deliveries: Vec<Delivery>| {
        let store = store.clone();
        async move {
            let mut verdicts = Vec::with_capacity(deliveries.len());
            for delivery in &deliveries {
                verdicts.push(take_show(&store, delivery).await?);
            }
            Ok(verdicts)
        }
    };
    consumer.run(shutdown, handler).await
}

async fn take_show(store: &Store, delivery: &Delivery) -> Result<Verdict, Failure> {
    let show: ShowPublished = match delivery.decode() {
        Ok(show) => show,
        Err(error) => return Ok(Verdict::Dead(error.to_string())),
    };
    let mut seed = [0_u8; 32];
    rand::rng().fill_bytes(&mut seed);
    store.take_show(&show, &seed).await.map_err(failure)?;
    Ok(Verdict::Done)
}

/// Frees the slots of passes that inventory closed, until `shutdown`.
///
/// # Errors
/// None while it runs.
pub async fn passes(bus: Bus, store: Store, shutdown: CancellationToken) -> Result<(), BoxError> {
    let settings = ConsumerSettings { gather: GATHER, ..ConsumerSettings::default() };
    let consumer = Consumer::new(bus, EVT_FACTS, "lobby-passes", settings);
    let handler = move |deliveries: Vec<Delivery>| {
        let store = store.clone();
        async move {
            let mut closed = Vec::with_capacity(deliveries.len());
            let mut verdicts = Vec::with_capacity(deliveries.len());
            for delivery in &deliveries {
                match delivery.decode::<PassClosed>() {
                    Ok(event) => {
                        closed.push(event.pass_id);
                        verdicts.push(Verdict::Done);
                    }
                    Err(error) => verdicts.push(Verdict::Dead(error.to_string())),
                }
            }
            store.passes_closed(&closed).await.map_err(failure)?;
            Ok(verdicts)
        }
    };
    consumer.run(shutdown, handler).await
}

/// Keeps the copy of the stock until `shutdown`.
///
/// # Errors
/// None while it runs.
pub async fn stock(bus: Bus, copy: Arc<StockCopy>, shutdown: CancellationToken) -> Result<(), BoxError> {
    let handler = move |delivery: Delivery| std::future::ready(copy.apply(&delivery));
    Replay::new(bus, EVT_INVENTORY, "evt.inventory.>").run(shutdown, handler, |_| {}).await
}
