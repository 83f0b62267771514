//! `status`: every process, asked now and not remembered.

use std::process::ExitCode;

use futures::future::join_all;

use crate::process::memory::tree_pss;
use crate::process::probe;
use crate::progress;
use crate::run_file::{Entry, Phase, RunFile, Stage};
use crate::services::SERVICES;
use crate::state::StateDir;

/// What the table says about a process.
#[derive(Debug, PartialEq, Eq)]
struct Row {
    name: String,
    pid: String,
    state: String,
    ports: String,
    ready: String,
    restarts: u32,
    pss: Option<u64>,
    is_service: bool,
}

pub(crate) async fn run(state: &StateDir) -> anyhow::Result<ExitCode> {
    let run = match RunFile::read(state)? {
        Some(run) if run.up.is_alive() => run,
        _ => {
            progress::say(format_args!("nothing is up in {}", state.root().display()));
            // As with services of a system: 3 means "does not run".
            return Ok(ExitCode::from(3));
        }
    };
    let rows = join_all(run.processes.iter().map(row)).await;
    progress::say(format_args!("{} since {} (process {})", stage(run.stage), run.started_at, run.up.pid));
    if rows.iter().any(|row| row.is_service) {
        progress::say(format_args!("public API {}, card tokens {}", run.urls.gateway, run.urls.tokens));
    }
    progress::say(format_args!("\n{}", table(&rows)));
    Ok(ExitCode::SUCCESS)
}

async fn row(entry: &Entry) -> Row {
    let alive = entry.identity.as_ref().filter(|identity| identity.is_alive());
    let state = match (alive, entry.phase) {
        (Some(_), phase) => phase_name(phase),
        // The run file is a moment behind.
        (None, Phase::Starting | Phase::Ready) => "died",
        (None, phase) => phase_name(phase),
    };
    let ports: Vec<String> = entry.ports.iter().map(|(name, port)| format!("{name} {port}")).collect();
    Row {
        name: entry.name.clone(),
        pid: alive.map_or_else(|| "-".to_owned(), |identity| identity.pid.to_string()),
        state: state.to_owned(),
        ports: ports.join(", "),
        ready: ready(entry).await,
        restarts: entry.restarts,
        pss: alive.and_then(|identity| tree_pss(identity.pid)),
        is_service: SERVICES.iter().any(|service| service.name == entry.kind),
    }
}

/// Services are asked; what is not ours has no `/readyz`, and was ready when `up` asked it its own way.
async fn ready(entry: &Entry) -> String {
    let is_ready = match entry.ports.get("admin") {
        Some(port) => probe::readyz(*port).await.is_ok(),
        None => entry.phase == Phase::Ready,
    };
    if is_ready { "yes" } else { "no" }.to_owned()
}

fn stage(stage: Stage) -> &'static str {
    match stage {
        Stage::Starting => "starting",
        Stage::Ready => "up",
        Stage::Stopping => "stopping",
    }
}

fn phase_name(phase: Phase) -> &'static str {
    match phase {
        Phase::Starting => "starting",
        Phase::Ready => "running",
        Phase::Pausing => "died, pausing",
        Phase::Stopping => "stopping",
        Phase::Stopped => "stopped",
        Phase::GaveUp => "gave up",
    }
}

fn table(rows: &[Row]) -> String {
    let head = ["PROCESS", "PID", "STATE", "READY", "RESTARTS", "PSS", "PORTS"].map(str::to_owned);
    let mut lines = vec![head];
    lines.extend(rows.iter().map(|row| {
        let memory = row.pss.map_or_else(|| "-".to_owned(), mebibytes);
        let restarts = row.restarts.to_string();
        [&row.name, &row.pid, &row.state, &row.ready, &restarts, &memory, &row.ports].map(Clone::clone)
    }));
    let widths: [usize; 7] = std::array::from_fn(|column| {
        lines.iter().map(|line| line[column].chars().count()).max().unwrap_or(0)
    });
    let mut text = String::new();
    for line in &lines {
        let cells: Vec<String> =
            line.iter().zip(widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
        text.push_str(cells.join("  ").trim_end());
        text.push('\n');
    }
    let sum =
        |services: bool| rows.iter().filter(|row| row.is_service == services).filter_map(|row| row.pss).sum();
    text.push_str(&format!("\nservices {}, infrastructure {}", mebibytes(sum(true)), mebibytes(sum(false))));
    text
}

fn mebibytes(bytes: u64) -> String {
    format!("{} MiB", (bytes + (1 << 19)) >> 20)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up_and_memory_is_added_up_apart() {
        let row = |name: &str, pss, is_service| Row {
            name: name.to_owned(),
            pid: "17".to_owned(),
            state: "running".to_owned(),
            ports: "admin 20001".to_owned(),
            ready: "yes".to_owned(),
            restarts: 2,
            pss,
            is_service,
        };
        let rows =
            [row("orders-1", Some(10 << 20), true), row("nats", Some(20 << 20), false), row("x", None, true)];
        let text = table(&rows);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[0].find("PID"), lines[1].find("17"));
        assert_eq!(lines[0].find("PORTS"), lines[2].find("admin"));
        assert!(text.ends_with("services 10 MiB, infrastructure 20 MiB"), "{text}");
    }
}
