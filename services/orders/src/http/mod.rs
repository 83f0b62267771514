//! The HTTP interface: the same paths as the public API. The gateway is in front and names the session.

mod caller;
mod events;
mod orders;
mod problem;
mod tickets;

use axum::Router;
use axum::middleware::map_response;
use axum::response::Response;
use http::{HeaderValue, header};

use crate::app::App;

/// All routes.
pub fn router(app: App) -> Router {
    let routes = Router::new().merge(orders::router()).merge(events::router()).merge(tickets::router());
    routes.layer(map_response(not_cached)).with_state(app)
}

/// Orders belong to one buyer, and whoever has a ticket's code can use it: nothing between us may keep them.
async fn not_cached(mut response: Response) -> Response {
    response.headers_mut().entry(header::CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    response
}
