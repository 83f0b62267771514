//! The operator's side, on the admin listener: how badly the provider behaves.

use axum::Router;
use axum::extract::State;
use axum::routing::get;
use stampede_contracts::{Code, Problem};
use stampede_service::extract::Json;

use crate::knobs::{Knobs, Panel};

/// `GET` and `PUT /knobs`.
pub fn router(panel: Panel) -> Router {
    Router::new().route("/knobs", get(read).put(set)).with_state(panel)
}

async fn read(State(panel): State<Panel>) -> Json<Knobs> {
    Json(panel.read())
}

async fn set(State(panel): State<Panel>, Json(knobs): Json<Knobs>) -> Result<Json<Knobs>, Problem> {
    panel.set(knobs).map_err(|error| Problem::new(Code::ValidationFailed).detail(error.to_string()))?;
    tracing::info!(?knobs, "the knobs were turned");
    Ok(Json(knobs))
}
