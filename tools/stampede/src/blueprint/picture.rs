//! The system as a picture: who calls whom, and over which streams who learns of what.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use stampede_blueprint::{Blueprint, Kind, Via};

use super::System;

const COLUMN: i32 = 300;
const ROW: i32 = 170;
const WIDTH: i32 = 150;
const HEIGHT: i32 = 64;
const MARGIN: i32 = 50;

/// A place in the picture.
#[derive(Clone, Copy)]
struct Place {
    x: i32,
    y: i32,
}

/// An arrow, with what stands on it.
struct Arrow {
    from: String,
    to: String,
    text: String,
    class: &'static str,
}

/// The picture in SVG.
pub(crate) fn picture(system: &System) -> String {
    let kinds = [Kind::FrontEnd, Kind::Logic, Kind::Service, Kind::Outside];
    let of_kind = |kind| {
        let blueprints = system.services.values().map(|service| &service.blueprint);
        blueprints.filter(move |blueprint| blueprint.kind == kind).collect::<Vec<&Blueprint>>()
    };
    let columns: Vec<Vec<&Blueprint>> = kinds.into_iter().map(of_kind).collect();
    let rows = columns.iter().map(Vec::len).max().unwrap_or_default();
    let mut places = BTreeMap::new();
    for (column, blueprints) in columns.iter().enumerate() {
        for (row, blueprint) in blueprints.iter().enumerate() {
            // Columns with fewer nodes stand in the middle.
            let above = to_i32(rows - blueprints.len()) * ROW / 2;
            let place =
                Place { x: MARGIN + to_i32(column) * COLUMN, y: MARGIN + 30 + above + to_i32(row) * ROW };
            places.insert(blueprint.service.clone(), place);
        }
    }
    let width = MARGIN * 2 + COLUMN * 3 + WIDTH;
    let height = MARGIN * 2 + to_i32(rows) * ROW;
    let mut svg = head(width, height);
    for (column, kind) in kinds.iter().enumerate() {
        let x = MARGIN + to_i32(column) * COLUMN + WIDTH / 2;
        text(&mut svg, "kind", x, MARGIN - 10, kind.as_str());
    }
    let mut between: BTreeMap<(&String, &String), i32> = BTreeMap::new();
    let arrows = arrows(system);
    for arrow in &arrows {
        let pair = if arrow.from < arrow.to { (&arrow.from, &arrow.to) } else { (&arrow.to, &arrow.from) };
        let number = between.entry(pair).or_default();
        if let (Some(from), Some(to)) = (places.get(&arrow.from), places.get(&arrow.to)) {
            draw(&mut svg, *from, *to, arrow, *number);
        }
        *number += 1;
    }
    for (service, place) in &places {
        if let Some(service) = system.services.get(service) {
            node(&mut svg, *place, &service.blueprint);
        }
    }
    svg.push_str("</svg>\n");
    svg
}

fn head(width: i32, height: i32) -> String {
    format!(
        r##"<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" font-family="sans-serif" font-size="12">
<title>Who calls whom: solid lines are calls, dashed ones streams</title>
<style>
rect {{ fill: #fff; stroke: #333; }} path {{ fill: none; stroke-width: 1.5; }}
.http {{ stroke: #1f6feb; }} .rpc {{ stroke: #b35900; }} .stream {{ stroke: #2da44e; stroke-dasharray: 5 4; }}
text {{ text-anchor: middle; fill: #333; }} text.http {{ fill: #1f6feb; stroke: none; }} text.rpc {{ fill: #b35900; stroke: none; }}
text.stream {{ fill: #1a7f37; stroke: none; }} .name {{ font-weight: bold; font-size: 15px; }} .kind {{ fill: #777; font-size: 14px; }}
.small {{ font-size: 10px; }} .back {{ fill: #fff; stroke: none; opacity: 0.85; }}
</style>
<defs><marker id="end" viewBox="0 0 8 8" refX="8" refY="4" markerWidth="7" markerHeight="7" orient="auto"><path d="M0 0L8 4L0 8z" style="fill:#555;stroke:none"/></marker></defs>
<rect class="back" width="{width}" height="{height}"/>
"##
    )
}

/// Calls, and for every stream one arrow from whoever publishes to whoever takes or copies.
fn arrows(system: &System) -> Vec<Arrow> {
    let mut arrows = Vec::new();
    for service in system.services.values() {
        for (name, call) in &service.blueprint.calls {
            let Some(callee) = system.callee(name, call.service.as_deref()) else { continue };
            let class = if call.via == Via::Rpc { "rpc" } else { "http" };
            let text = format!("{} ({})", call.via.as_str(), call.functions.len());
            let (from, to) = (service.blueprint.service.clone(), callee.blueprint.service.clone());
            arrows.push(Arrow { from, to, text, class });
        }
    }
    for publisher in system.services.values() {
        for (stream, entry) in &publisher.blueprint.streams {
            if entry.publishes.is_empty() || stream == "DLQ" {
                continue;
            }
            for reader in system.services.values() {
                let reads = reader.blueprint.streams.get(stream);
                let reads = reads.is_some_and(|entry| !entry.takes.is_empty() || !entry.replays.is_empty());
                if reads
                    && reader.blueprint.service != publisher.blueprint.service
                    && hears(publisher, reader)
                {
                    let (from, to) = (publisher.blueprint.service.clone(), reader.blueprint.service.clone());
                    arrows.push(Arrow { from, to, text: stream.clone(), class: "stream" });
                }
            }
        }
    }
    arrows
}

/// The stream of facts is everybody's; who takes what of it stands in the filters of the consumers.
fn hears(publisher: &super::system::Service, reader: &super::system::Service) -> bool {
    let publishes: Vec<&str> =
        publisher.blueprint.streams.values().flat_map(|entry| &entry.publishes).map(String::as_str).collect();
    let takes = stampede_contracts::topology::CONSUMERS
        .iter()
        .filter(|consumer| consumer.service == reader.blueprint.service)
        .flat_map(|consumer| consumer.filter);
    let replays = reader.blueprint.streams.values().flat_map(|entry| &entry.replays).map(String::as_str);
    let fixed = |subject: &str| subject.trim_end_matches(['>', '*', '.']).to_owned();
    takes.copied().chain(replays).any(|filter| {
        publishes.iter().any(|subject| {
            fixed(subject).starts_with(&fixed(filter)) || fixed(filter).starts_with(&fixed(subject))
        })
    })
}

fn node(svg: &mut String, Place { x, y }: Place, blueprint: &Blueprint) {
    let _infallible = writeln!(svg, r#"<rect x="{x}" y="{y}" width="{WIDTH}" height="{HEIGHT}" rx="8"/>"#);
    let middle = x + WIDTH / 2;
    text(svg, "name", middle, y + 24, &blueprint.service);
    text(svg, "small", middle, y + 40, &format!("{} functions", blueprint.offers.len()));
    let tables = blueprint.database.as_ref().map_or(0, |database| database.tables.len());
    let state = if tables == 0 { "no state".to_owned() } else { format!("{tables} tables") };
    text(svg, "small", middle, y + 54, &state);
}

/// Forward from the right side to the left, back from the left to the right, within a column in a bow.
fn draw(svg: &mut String, from: Place, to: Place, arrow: &Arrow, number: i32) {
    // Arrows between the same two do not lie on each other, nor their names.
    let shift = (number % 5 - 2) * 11;
    let (begin, end, bend) = if from.x == to.x {
        let is_right = number % 2 == 0;
        let side = if is_right { WIDTH } else { 0 };
        let out = if is_right { 60 + shift } else { shift - 60 };
        (side_of(from, side, shift), side_of(to, side, shift), (out, out))
    } else if from.x < to.x {
        (side_of(from, WIDTH, shift), side_of(to, 0, shift), (70, -70))
    } else {
        (side_of(from, 0, shift), side_of(to, WIDTH, shift), (-70, 70))
    };
    let Arrow { text: words, class, .. } = arrow;
    let (first, second) = (begin.x + bend.0, end.x + bend.1);
    let _infallible = writeln!(
        svg,
        r#"<path class="{class}" marker-end="url(#end)" d="M{} {}C{first} {} {second} {} {} {}"/>"#,
        begin.x, begin.y, begin.y, end.y, end.x, end.y
    );
    // Where the name stands on the curve, in tenths of the way; by de Casteljau's weights.
    let tenths = [5, 3, 7, 4, 6].get(number.rem_euclid(5) as usize).copied().unwrap_or(5);
    let (t, rest) = (tenths, 10 - tenths);
    let at = |a: i32, b: i32, c: i32, d: i32| {
        (rest * rest * rest * a + 3 * rest * rest * t * b + 3 * rest * t * t * c + t * t * t * d) / 1_000
    };
    let (x, y) = (at(begin.x, first, second, end.x), at(begin.y, begin.y, end.y, end.y));
    text(svg, &format!("small {class}"), x, y - 3, words);
}

fn side_of(place: Place, side: i32, shift: i32) -> Place {
    Place { x: place.x + side, y: place.y + HEIGHT / 2 + shift }
}

fn text(svg: &mut String, class: &str, x: i32, y: i32, words: &str) {
    let words = words.replace('&', "&amp;").replace('<', "&lt;");
    let _infallible = writeln!(svg, r#"<text class="{class}" x="{x}" y="{y}">{words}</text>"#);
}

fn to_i32(number: usize) -> i32 {
    i32::try_from(number).unwrap_or(i32::MAX)
}
