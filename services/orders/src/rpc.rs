//! Personal data over request-reply: core NATS stores nothing, and only one user may ask each question.

use stampede_bus::{Bus, Responder, ResponderSettings};
use stampede_contracts::orders::{Buyer, Card};

use crate::app::App;

/// Requests that may wait for a worker.
const CAPACITY: usize = 1_024;
/// Requests that are answered at the same time; each takes one connection of the pool for a moment.
const WORKERS: usize = 4;

/// `rpc.orders.card` for `payments`, `rpc.orders.buyer` for `notify`.
pub fn responder(bus: Bus, app: App) -> Responder {
    let settings = ResponderSettings {
        subject: "rpc.orders.*".to_owned(),
        queue: "orders".to_owned(),
        capacity: CAPACITY,
        workers: WORKERS,
    };
    let buyers = app.clone();
    Responder::new(bus, settings)
        .on::<Card, _, _>(move |request, _context| {
            let app = app.clone();
            async move { app.card(request.order_id).await }
        })
        .on::<Buyer, _, _>(move |request, _context| {
            let app = buyers.clone();
            async move { app.buyer(request.order_id).await }
        })
}
