//! The HTTP interface: the same paths as the public API. The gateway is in front and names the session.

mod caller;
mod events;
mod orders;
mod problem;
mod tickets;

use axum::Router;

use crate::app::App;

/// All routes.
pub fn router(app: App) -> Router {
    Router::new().merge(orders::router()).merge(events::router()).merge(tickets::router()).with_state(app)
}
