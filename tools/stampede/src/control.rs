//! The door of a running `up` for other commands: a listener on loopback that wants the control token.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, bail};
use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::routing::post;
use axum::{Json, Router};
use serde::{Deserialize, Serialize};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::infra;
use crate::process::Fleet;
use crate::run_file::RunFile;
use crate::secrets::Secrets;
use crate::state::StateDir;

/// Longer than stopping and starting all of a kind may take.
const RESTART_LIMIT: Duration = Duration::from_secs(300);

/// What `restart` may lose on the way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Keep {
    /// Nothing.
    #[default]
    Everything,
    /// All of JetStream; only for `nats`. Everything acknowledged must survive this.
    Nothing,
}

#[derive(Debug, Default, Serialize, Deserialize)]
struct Restart {
    #[serde(default)]
    keep: Keep,
}

#[derive(Clone)]
struct Door {
    fleet: Fleet,
    token: String,
    jetstream: PathBuf,
}

/// Serves until `shutdown`.
pub(crate) async fn serve(
    listener: TcpListener,
    fleet: Fleet,
    state: &StateDir,
    secrets: &Secrets,
    shutdown: CancellationToken,
) -> anyhow::Result<()> {
    let door = Door { fleet, token: secrets.control_token()?, jetstream: infra::nats::jetstream(state) };
    let router = Router::new().route("/restart/{name}", post(restart)).with_state(door);
    axum::serve(listener, router).with_graceful_shutdown(shutdown.cancelled_owned()).await?;
    Ok(())
}

async fn restart(
    State(door): State<Door>,
    Path(name): Path<String>,
    Query(Restart { keep }): Query<Restart>,
    headers: HeaderMap,
) -> Result<Json<Vec<String>>, (StatusCode, String)> {
    let shown = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
    if shown != Some(&format!("Bearer {}", door.token)) {
        return Err((StatusCode::UNAUTHORIZED, "the control token is needed".to_owned()));
    }
    let empty = match keep {
        Keep::Everything => None,
        Keep::Nothing if name == "nats" => Some(door.jetstream),
        Keep::Nothing => return Err((StatusCode::BAD_REQUEST, "only nats can lose its store".to_owned())),
    };
    match door.fleet.restart(&name, empty).await {
        Ok(names) => Ok(Json(names)),
        Err(error) => Err((StatusCode::CONFLICT, format!("{error:#}"))),
    }
}

/// Asks the `up` of a state folder to restart a process or all of a kind, and waits until they are ready again.
///
/// # Errors
/// When nothing is up there, there is no such process, or it does not get ready.
pub async fn ask_restart(state: &StateDir, name: &str, keep: Keep) -> anyhow::Result<Vec<String>> {
    let run = RunFile::running(state)?;
    let token = Secrets::open(state)?.control_token()?;
    let mut url = reqwest::Url::parse(&run.urls.control).context("the run file names no control listener")?;
    url.set_path(&format!("/restart/{name}"));
    let request = crate::http::client().post(url).query(&Restart { keep }).bearer_auth(token);
    let answer = request.timeout(RESTART_LIMIT).send().await.context("the running `up` does not answer")?;
    if !answer.status().is_success() {
        bail!("{}", answer.text().await.unwrap_or_default());
    }
    Ok(answer.json().await?)
}
