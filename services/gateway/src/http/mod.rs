//! The door itself: routes, the layers around them, and the contract.

mod admit;
mod body;
mod examples;
mod extract;
mod holds;
mod links;
mod lobby;
pub mod openapi;
mod ops;
mod orders;
mod pages;
mod pass;
mod sessions;
mod shed;
mod shows;

use axum::Router;
use axum::middleware::{from_fn_with_state, map_response};
use axum::response::Response;
use http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS, X_FRAME_OPTIONS,
};
use http::{HeaderName, HeaderValue};
use stampede_deadline::InvalidLimits;
use stampede_service::{HttpLimits, stack};
use utoipa::openapi::OpenApi;
use utoipa_axum::router::OpenApiRouter;

use crate::app::App;

/// The router with all its layers.
///
/// # Errors
/// [`InvalidLimits`] when the deadlines of the configuration contradict each other.
pub fn router(app: App) -> Result<Router, InvalidLimits> {
    let limits = HttpLimits::public()
        .deadline(app.times.deadline_default, app.times.deadline_max)?
        .deadline_min(app.times.deadline_min);
    let (routes, contract) = described();
    let contract = contract.to_json().unwrap_or_default();
    let routes = routes
        .merge(pages::docs(&contract))
        // Around the handlers and nothing else: what a quota refuses takes nobody's place.
        .layer(from_fn_with_state(app.clone(), shed::shed))
        // Around that: whoever is refused costs nothing but this.
        .layer(from_fn_with_state(app.clone(), admit::admit))
        .with_state(app);
    // Outermost, so that every answer has them, the stack's own refusals too.
    Ok(stack(routes, limits).layer(map_response(guard)))
}

/// The contract, as `/openapi.json` shows it.
pub fn contract() -> OpenApi {
    described().1
}

fn described() -> (Router<App>, OpenApi) {
    let (routes, mut contract) = OpenApiRouter::with_openapi(openapi::document())
        .merge(sessions::router())
        .merge(shows::router())
        .merge(lobby::router())
        .merge(holds::router())
        .merge(orders::router())
        .merge(ops::router())
        .merge(pages::router())
        .split_for_parts();
    openapi::finish(&mut contract);
    (routes, contract)
}

/// Tells a browser to take an answer for what it says it is, and for nothing more, unless a handler has said otherwise.
async fn guard(mut response: Response) -> Response {
    for (name, value) in [
        (X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (X_FRAME_OPTIONS, "DENY"),
        (REFERRER_POLICY, "no-referrer"),
        (CONTENT_SECURITY_POLICY, "default-src 'none'; frame-ancestors 'none'"),
        (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
        // Answers are about one session, unless the service behind says otherwise.
        (CACHE_CONTROL, "no-store"),
    ] {
        response.headers_mut().entry(name).or_insert(HeaderValue::from_static(value));
    }
    response
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_route_is_in_the_contract() {
        let (routes, contract) = described();
        // The router tells its paths nowhere else than here.
        let printed = format!("{routes:?}");
        let paths = printed.split('"').filter(|text| text.starts_with('/') && !text.contains("__private"));
        let served: BTreeSet<_> = paths.collect();
        let named: BTreeSet<_> = contract.paths.paths.keys().map(String::as_str).collect();
        assert!(named.len() > 15, "{named:?}");
        assert_eq!(served, named);
    }
}
