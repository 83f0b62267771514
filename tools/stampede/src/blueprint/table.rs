//! The system as a table: who offers what, who calls whom and how, who keeps what.

use std::fmt::Write as _;

use stampede_blueprint::{Access, Call, Way};
use stampede_resilience::{DestinationPolicy, Stack};

use super::System;

/// Three tables in Markdown, which a terminal shows as well.
pub(crate) fn table(system: &System) -> String {
    let mut text = String::new();
    let offers = system.services.values().flat_map(|service| {
        service.blueprint.offers.iter().map(|(name, offer)| {
            let deadline = offer.deadline_ms.map_or_else(|| "-".to_owned(), millis);
            let by = match &offer.by {
                Way::Rpc(function) => format!("rpc.{}.*.{function}", service.blueprint.service),
                Way::Http { .. } | Way::Command(_) => offer.by.to_string(),
            };
            let (guarantee, class) = (offer.guarantee.as_str().to_owned(), offer.class.to_string());
            vec![service.blueprint.service.clone(), name.clone(), by, guarantee, class, deadline]
        })
    });
    rows(
        &mut text,
        "Functions",
        &["service", "function", "asked by", "guarantee", "class", "deadline"],
        offers.collect(),
    );
    text.push_str(&calls(system));
    rows(&mut text, "State", &["service", "what", "how", "shared"], state(system));
    text
}

/// The table of calls with their policies.
pub(crate) fn calls(system: &System) -> String {
    let mut text = String::new();
    let calls = system.services.values().flat_map(|service| {
        let caller = service.blueprint.service.clone();
        service.blueprint.calls.iter().map(move |(name, call)| call_row(system, &caller, name, call))
    });
    let head = [
        "caller",
        "destination",
        "over",
        "functions → fallback",
        "time",
        "retry",
        "hedge",
        "budget",
        "breaker",
        "bulkhead",
    ];
    rows(&mut text, "Calls", &head, calls.collect());
    text
}

fn call_row(system: &System, caller: &str, name: &str, call: &Call) -> Vec<String> {
    let functions =
        call.functions.iter().map(|(function, fallback)| format!("{function} → {}", fallback.as_str()));
    let DestinationPolicy { stack, deadline_ms, attempt_ms, retry, hedge, budget, breaker, bulkhead } =
        call.policy;
    let repeated = |text: String| if call.is_repeated() { text } else { "once".to_owned() };
    let time = if stack == Stack::On {
        format!("{} each, {} in all", millis(attempt_ms), millis(deadline_ms))
    } else {
        "no layers".to_owned()
    };
    vec![
        caller.to_owned(),
        name.to_owned(),
        call.via.as_str().to_owned(),
        functions.collect::<Vec<_>>().join(", "),
        time,
        repeated(format!("≤ {}, pauses ≤ {}", retry.attempts_max, millis(retry.pause_max_ms))),
        repeated(if system.is_hedged(name, call) {
            let (min, max) = (millis(hedge.delay_min_ms), millis(hedge.delay_max_ms));
            format!("after {} ‰, {min} to {max}", hedge.per_mille)
        } else {
            "never".to_owned()
        }),
        repeated(format!("{} ‰ + {}", budget.per_mille, budget.reserve)),
        format!(
            "{} % of ≥ {} in {}, open {} to {}",
            breaker.percent,
            breaker.min_calls,
            millis(breaker.window_ms),
            millis(breaker.open_ms),
            millis(breaker.open_max_ms)
        ),
        format!("{} + {} for {}", bulkhead.places, bulkhead.waiting_max, millis(bulkhead.wait_ms)),
    ]
}

fn state(system: &System) -> Vec<Vec<String>> {
    let mut found = Vec::new();
    for service in system.services.values() {
        let name = &service.blueprint.service;
        let mut row = |what: String, how: String, shared: &str| {
            found.push(vec![name.clone(), what, how, shared.to_owned()]);
        };
        if let Some(database) = &service.blueprint.database {
            for (table, sharing) in &database.tables {
                row(format!("table {table}"), "reads, writes".to_owned(), sharing.as_str());
            }
        }
        for (stream, entry) in &service.blueprint.streams {
            let ways =
                [("publishes", &entry.publishes), ("takes by", &entry.takes), ("replays", &entry.replays)];
            let ways = ways.iter().filter(|(_, what)| !what.is_empty());
            let how = ways.map(|(way, what)| format!("{way} {}", what.join(", "))).collect::<Vec<_>>();
            row(format!("stream {stream}"), how.join("; "), entry.sharing.as_str());
        }
        for (bucket, entry) in &service.blueprint.buckets {
            let how = if entry.access == Access::Writes { "writes" } else { "reads" };
            row(format!("bucket {bucket}"), how.to_owned(), entry.sharing.as_str());
        }
    }
    found
}

fn millis(millis: u64) -> String {
    if millis >= 1_000 && millis.is_multiple_of(1_000) {
        format!("{} s", millis / 1_000)
    } else {
        format!("{millis} ms")
    }
}

fn rows(text: &mut String, title: &str, head: &[&str], rows: Vec<Vec<String>>) {
    let width = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count());
        cells.chain(head.get(column).map(|cell| cell.chars().count())).max().unwrap_or_default()
    };
    let widths: Vec<usize> = (0..head.len()).map(width).collect();
    let line = |cells: &mut dyn Iterator<Item = &str>| {
        let padded = cells.zip(&widths).map(|(cell, width)| format!("{cell:width$}"));
        format!("| {} |\n", padded.collect::<Vec<_>>().join(" | "))
    };
    let _infallible = writeln!(text, "## {title}\n");
    text.push_str(&line(&mut head.iter().copied()));
    let rule = widths.iter().map(|width| "-".repeat(*width)).collect::<Vec<_>>();
    text.push_str(&line(&mut rule.iter().map(String::as_str)));
    for row in &rows {
        text.push_str(&line(&mut row.iter().map(String::as_str)));
    }
    text.push('\n');
}
