//! The environment of every service, put together in this one place from layout and secrets. Which keys there are
//! is written in each service's README; how they are read, in its `config.rs`.

use reqwest::Url;

use crate::infra::postgres;
use crate::layout::{Instance, Layout};
use crate::secrets::Secrets;
use crate::services::{self, Service, Setting};
use crate::state::StateDir;

/// Taken over from whoever started us, when set: how much is logged and where traces go is the person's choice.
const PASSED_ON: [&str; 3] = ["RUST_LOG", "LOG_FORMAT", "OTEL_EXPORTER_OTLP_ENDPOINT"];
/// Sender of the mails.
const MAIL_FROM: &str = "Stampede Tickets <tickets@stampede.example>";

/// Keys and values, later ones stronger.
type Pairs = Vec<(String, String)>;

/// The environment of one process.
pub(crate) fn of(
    instance: &Instance,
    layout: &Layout,
    state: &StateDir,
    secrets: &Secrets,
    settings: &[Setting],
) -> anyhow::Result<Pairs> {
    let mut env = common(instance, layout, state, secrets)?;
    let own = own(instance, layout).into_iter().chain(secret(instance.service, secrets)?);
    env.extend(own.map(|(key, value)| (key.to_owned(), value)));
    let chosen = settings.iter().filter(|setting| setting.service == instance.service.name);
    env.extend(chosen.map(|setting| (setting.key.clone(), setting.value.clone())));
    Ok(env)
}

/// What services take over from our environment.
pub(crate) fn passed_on() -> Pairs {
    PASSED_ON.iter().filter_map(|key| Some(((*key).to_owned(), std::env::var(key).ok()?))).collect()
}

/// What every service is told.
fn common(
    instance: &Instance,
    layout: &Layout,
    state: &StateDir,
    secrets: &Secrets,
) -> anyhow::Result<Pairs> {
    let service = instance.service;
    let mut env = passed_on();
    let mut set = |key: &str, value: String| env.push((key.to_owned(), value));
    set("INSTANCE", instance.name.clone());
    for (listener, port) in &instance.ports {
        set(&format!("{}_LISTEN", listener.to_uppercase()), format!("127.0.0.1:{port}"));
    }
    if let Some(database) = service.database {
        set("DATABASE_URL", database_url(database, database, layout, state, secrets)?);
    }
    if service.nats {
        set("NATS_URL", format!("nats://127.0.0.1:{}", layout.nats.client));
        set("NATS_USER", service.name.to_owned());
    }
    Ok(env)
}

/// What replaces a service's own while its database is migrated: the schema is its owner's.
pub(crate) fn owner(
    database: &str,
    layout: &Layout,
    state: &StateDir,
    secrets: &Secrets,
) -> anyhow::Result<Pairs> {
    let url = database_url(&services::owner(database), database, layout, state, secrets)?;
    Ok(vec![("DATABASE_URL".to_owned(), url)])
}

/// Over the socket where there is one: a statement costs a third less processor time than over the loopback interface.
fn database_url(
    role: &str,
    name: &str,
    layout: &Layout,
    state: &StateDir,
    secrets: &Secrets,
) -> anyhow::Result<String> {
    let (password, port) = (secrets.postgres_password(role)?, layout.postgres);
    let mut url: Url =
        format!("postgres://{role}:{password}@127.0.0.1:{port}/{name}?sslmode=disable").parse()?;
    if let Some(folder) = postgres::socket_folder(state, port) {
        url.query_pairs_mut().append_pair("host", &folder.display().to_string());
    }
    Ok(url.into())
}

/// What only this service is told, and everybody may know.
fn own(instance: &Instance, layout: &Layout) -> Vec<(&'static str, String)> {
    match instance.service.name {
        "gateway" => vec![("TOKENS_PUBLIC_URL", format!("{}/tokens", layout.url("psp-sim", "tokens")))],
        "payments" => vec![("PSP_URL", layout.url("psp-sim", "http"))],
        "psp-sim" => vec![
            ("TOKENS_URL", format!("{}/tokens", layout.url("psp-sim", "tokens"))),
            ("WEBHOOK_URL", format!("{}/webhooks", layout.url("payments", "webhook"))),
        ],
        "notify" => vec![
            ("SMTP_URL", format!("smtp://127.0.0.1:{}", layout.smtp)),
            ("MAIL_FROM", MAIL_FROM.to_owned()),
        ],
        _ => Vec::new(),
    }
}

/// What only this service may know, beside the address of its database: the same keys for `up` and in a cluster.
pub(crate) fn secret(service: &Service, secrets: &Secrets) -> anyhow::Result<Vec<(&'static str, String)>> {
    let mut env = match service.name {
        "gateway" => vec![
            ("SESSION_KEY", secrets.session_key()?),
            ("FINGERPRINT_KEY", secrets.fingerprint_key()?),
            ("OPERATOR_TOKEN", secrets.operator_token()?),
        ],
        "lobby" => vec![("PASS_SIGNING_KEY", secrets.pass_signing_key()?.seed)],
        "inventory" => vec![("PASS_PUBLIC_KEY", secrets.pass_signing_key()?.public)],
        "orders" => vec![
            ("TICKET_SIGNING_KEY", secrets.ticket_signing_key()?.seed),
            ("FINGERPRINT_KEY", secrets.fingerprint_key()?),
        ],
        "payments" => {
            vec![("PSP_API_KEY", secrets.psp_api_key()?), ("WEBHOOK_SECRET", secrets.webhook_secret()?)]
        }
        "psp-sim" => vec![("API_KEY", secrets.psp_api_key()?), ("WEBHOOK_SECRET", secrets.webhook_secret()?)],
        _ => Vec::new(),
    };
    if service.nats {
        env.push(("NATS_PASSWORD", secrets.nats_password(service.name)?));
    }
    Ok(env)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::layout::PublicPorts;
    use crate::scratch::Scratch;
    use crate::services::Replicas;
    use crate::state::StateDir;

    struct Fixture {
        layout: Layout,
        state: StateDir,
        secrets: Secrets,
        _scratch: Scratch,
    }

    fn fixture() -> Fixture {
        let scratch = Scratch::new("env").unwrap();
        let state = StateDir::create(scratch.path()).unwrap();
        let replicas = Replicas::parse("orders=2").unwrap();
        let layout = Layout::plan(&replicas, PublicPorts::Random).unwrap();
        Fixture { layout, secrets: Secrets::open(&state).unwrap(), state, _scratch: scratch }
    }

    fn env(fixture: &Fixture, name: &str, settings: &[Setting]) -> BTreeMap<String, String> {
        let instance = fixture.layout.instances.iter().find(|instance| instance.name == name).unwrap();
        of(instance, &fixture.layout, &fixture.state, &fixture.secrets, settings)
            .unwrap()
            .into_iter()
            .collect()
    }

    #[test]
    fn both_ends_are_told_the_same() {
        let fixture = fixture();
        let (payments, psp) = (env(&fixture, "payments-1", &[]), env(&fixture, "psp-sim-1", &[]));
        assert_eq!(payments["PSP_API_KEY"], psp["API_KEY"]);
        assert_eq!(payments["WEBHOOK_SECRET"], psp["WEBHOOK_SECRET"]);
        assert_eq!(payments["PSP_URL"], format!("http://{}", psp["HTTP_LISTEN"]));
        assert_eq!(psp["WEBHOOK_URL"], format!("http://{}/webhooks", payments["WEBHOOK_LISTEN"]));
        assert_eq!(
            env(&fixture, "gateway-1", &[])["TOKENS_PUBLIC_URL"],
            format!("http://{}/tokens", psp["TOKENS_LISTEN"])
        );
        assert_eq!(
            env(&fixture, "gateway-1", &[])["FINGERPRINT_KEY"],
            env(&fixture, "orders-1", &[])["FINGERPRINT_KEY"]
        );
    }

    #[test]
    fn nobody_holds_what_is_not_its_own() {
        let fixture = fixture();
        let seed = env(&fixture, "lobby-1", &[])["PASS_SIGNING_KEY"].clone();
        for instance in fixture.layout.instances.iter().filter(|instance| instance.service.name != "lobby") {
            assert!(
                !env(&fixture, &instance.name, &[]).values().any(|value| *value == seed),
                "{}",
                instance.name
            );
        }
        assert!(!env(&fixture, "gateway-1", &[]).contains_key("DATABASE_URL"));
        assert!(!env(&fixture, "psp-sim-1", &[]).contains_key("NATS_PASSWORD"));
    }

    #[test]
    fn replicas_differ_and_a_setting_is_for_all_of_a_kind() {
        let fixture = fixture();
        let settings = [Setting::parse("orders.DRAIN_TIMEOUT_MS=7").unwrap()];
        let (one, two) = (env(&fixture, "orders-1", &settings), env(&fixture, "orders-2", &settings));
        assert_ne!(one["INSTANCE"], two["INSTANCE"]);
        assert_ne!(one["HTTP_LISTEN"], two["HTTP_LISTEN"]);
        assert_eq!(one["DATABASE_URL"], two["DATABASE_URL"]);
        assert_eq!([&one["DRAIN_TIMEOUT_MS"], &two["DRAIN_TIMEOUT_MS"]], ["7", "7"]);
        assert!(!env(&fixture, "catalog-1", &settings).contains_key("DRAIN_TIMEOUT_MS"));
    }

    #[test]
    fn the_database_is_reached_over_its_socket_once_it_is_there() {
        let fixture = fixture();
        let host = format!("@127.0.0.1:{}/orders?sslmode=disable", fixture.layout.postgres);
        assert!(env(&fixture, "orders-1", &[])["DATABASE_URL"].ends_with(&host));
        std::fs::create_dir(fixture.state.postgres()).unwrap();
        let options: sqlx::postgres::PgConnectOptions =
            env(&fixture, "orders-1", &[])["DATABASE_URL"].parse().unwrap();
        assert_eq!(options.get_socket(), Some(&fixture.state.postgres().canonicalize().unwrap()));
    }
}
