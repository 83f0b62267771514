//! The mail sink: aiosmtpd, an SMTP server from PyPI, with a handler of ours that keeps each mail as a file of a Maildir.

use std::collections::BTreeMap;
use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::time::Duration;

use rustix::process::Signal;

use super::venv::Venv;
use crate::process::{Probe, Spec};
use crate::state::StateDir;

/// Version 1.4 has been stable for years; the next major one may change the handler.
pub(crate) const PACKAGE: &str = "aiosmtpd>=1.4.6,<2";
/// What it does with a mail, a module that it imports from a folder of its own.
const HANDLER: &str = include_str!("mail_sink.py");
const STOP_LIMIT: Duration = Duration::from_secs(5);

/// The sink, listening on `port`.
pub(crate) fn spec(venv: &Venv, state: &StateDir, port: u16) -> anyhow::Result<Spec> {
    StateDir::private_folder(&state.mail_sink())?;
    fs::write(state.mail_sink().join("mail_sink.py"), HANDLER)?;
    let listen = format!("127.0.0.1:{port}");
    // Seen from the sink's folder, from which Python takes the module: a path of PYTHONPATH may hold no colon.
    let mail = Path::new("..").join(state.mail().file_name().unwrap_or_default());
    let args = ["-m", "aiosmtpd", "--nosetuid", "--smtputf8", "--listen", &listen, "--class"];
    Ok(Spec {
        name: "smtp".to_owned(),
        kind: "smtp".to_owned(),
        program: venv.program("python"),
        args: args.iter().map(Into::into).chain(["mail_sink.Maildir".into(), mail.into()]).collect(),
        env: Vec::new(),
        account: None,
        folder: state.mail_sink(),
        log: state.logs().join("smtp.log"),
        probe: Probe::Smtp(SocketAddr::from((Ipv4Addr::LOCALHOST, port))),
        // It leaves its loop on INT only.
        stop_signal: Signal::INT,
        stop_limit: STOP_LIMIT,
        ports: BTreeMap::from([("smtp".to_owned(), port)]),
    })
}
