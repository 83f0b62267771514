//! How we find out that a process is ready: by asking it, never by waiting a while.

use std::net::SocketAddr;
use std::time::Duration;

use sqlx::postgres::PgConnectOptions;
use sqlx::{ConnectOptions, Connection};
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;

use crate::provision::Provisioner;

/// One question may take this long.
const CHECK_LIMIT: Duration = Duration::from_secs(5);
/// Preparing NATS takes longer: it makes every stream and consumer.
const PROVISION_LIMIT: Duration = Duration::from_secs(60);

/// What "ready" means for a process.
#[derive(Clone, Debug)]
pub(crate) enum Probe {
    /// It answers 2xx here: a service's `/readyz`.
    Http { client: reqwest::Client, url: String },
    /// It answers a query.
    Postgres(Box<PgConnectOptions>),
    /// It is healthy, and has every stream, bucket and consumer: they are made after each of its starts, since a
    /// start may have been with an empty store.
    Nats { client: reqwest::Client, health: String, provisioner: Provisioner },
    /// It greets as RFC 5321 wants.
    Smtp(SocketAddr),
}

impl Probe {
    /// `Ok` when the process is ready, else what it lacks.
    pub(crate) async fn check(&self) -> Result<(), String> {
        let limit = if matches!(self, Self::Nats { .. }) { PROVISION_LIMIT } else { CHECK_LIMIT };
        match tokio::time::timeout(limit, self.ask()).await {
            Ok(answer) => answer,
            Err(_) => Err(format!("no answer within {limit:?}")),
        }
    }

    async fn ask(&self) -> Result<(), String> {
        match self {
            Self::Http { client, url } => http(client, url).await,
            Self::Postgres(options) => postgres(options).await,
            Self::Nats { client, health, provisioner } => {
                http(client, health).await?;
                provisioner.provision().await.map(drop).map_err(|error| format!("{error:#}"))
            }
            Self::Smtp(address) => smtp(*address).await,
        }
    }
}

/// Whether an address answers 2xx; if not, the beginning of what it says instead.
pub(crate) async fn http(client: &reqwest::Client, url: &str) -> Result<(), String> {
    let answer = client.get(url).send().await.map_err(|error| error.without_url().to_string())?;
    let status = answer.status();
    if status.is_success() {
        return Ok(());
    }
    let body = answer.text().await.unwrap_or_default();
    Err(format!("{status}: {}", body.chars().take(500).collect::<String>()))
}

/// Asks the admin listener on that port of this machine.
pub(crate) async fn readyz(port: u16) -> Result<(), String> {
    let url = readyz_url(port);
    let client = crate::http::client();
    Probe::Http { client, url }.check().await
}

/// Where a service says whether it is ready.
pub(crate) fn readyz_url(port: u16) -> String {
    format!("http://127.0.0.1:{port}/readyz")
}

async fn postgres(options: &PgConnectOptions) -> Result<(), String> {
    let mut connection = options.connect().await.map_err(|error| error.to_string())?;
    sqlx::query("SELECT 1").execute(&mut connection).await.map_err(|error| error.to_string())?;
    connection.close().await.map_err(|error| error.to_string())
}

async fn smtp(address: SocketAddr) -> Result<(), String> {
    let mut stream = TcpStream::connect(address).await.map_err(|error| error.to_string())?;
    let mut greeting = [0; 3];
    stream.read_exact(&mut greeting).await.map_err(|error| error.to_string())?;
    if &greeting == b"220" { Ok(()) } else { Err(format!("greeted with {greeting:?} instead of 220")) }
}
