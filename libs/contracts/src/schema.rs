//! JSON Schemas of everything that is published, and what may change in them.
//!
//! A reader of yesterday must bear the writer of today: fields may be added, never taken away, renamed, retyped
//! or newly required. Anything else is a new version on a subject of its own.

use schemars::{JsonSchema, schema_for};
use serde_json::{Map, Value};

use crate::{Event, command, event};

/// A published type and its schema.
#[derive(Debug, Clone, PartialEq)]
pub struct Published {
    /// CloudEvents `type`.
    pub name: &'static str,
    /// JSON Schema, draft 2020-12.
    pub schema: Value,
}

fn published<E: Event + JsonSchema>() -> Published {
    Published { name: E::TYPE, schema: schema_for!(E).to_value() }
}

/// Every event and command.
pub fn all() -> Vec<Published> {
    vec![
        published::<event::ShowPublished>(),
        published::<event::BlockState>(),
        published::<event::LayoutPublished>(),
        published::<event::PassClosed>(),
        published::<event::PaymentResult>(),
        published::<event::MailResult>(),
        published::<event::OrderChanged>(),
        published::<command::PaymentCommand>(),
        published::<command::MailCommand>(),
    ]
}

/// What a reader of `old` could not bear in `new`; empty when nothing.
pub fn breaking(old: &Value, new: &Value) -> Vec<String> {
    let mut found = Vec::new();
    compare("", old, new, &mut found);
    found
}

fn compare(at: &str, old: &Value, new: &Value, found: &mut Vec<String>) {
    match (old, new) {
        (Value::Object(old), Value::Object(new)) => compare_objects(at, old, new, found),
        (Value::Array(old), Value::Array(new)) => compare_arrays(at, old, new, found),
        _ if old == new => {}
        _ => found.push(format!("{at}: {old} became {new}")),
    }
}

fn compare_objects(at: &str, old: &Map<String, Value>, new: &Map<String, Value>, found: &mut Vec<String>) {
    for (key, before) in old {
        if matches!(key.as_str(), "description" | "title" | "examples" | "$schema") {
            continue;
        }
        match new.get(key) {
            Some(after) => compare(&format!("{at}/{key}"), before, after, found),
            None => found.push(format!("{at}/{key}: taken away")),
        }
    }
    // A name under `properties` or `$defs` may be new; any other new word is a new restriction.
    let names = at.ends_with("/properties") || at.ends_with("/$defs");
    for key in new.keys().filter(|key| !names && !old.contains_key(*key)) {
        if !matches!(key.as_str(), "description" | "title" | "examples" | "default" | "$defs" | "properties")
        {
            found.push(format!("{at}/{key}: new restriction"));
        }
    }
}

// `required`, `enum`, `oneOf`, `type`: the order says nothing; a new member of any of them breaks somebody.
fn compare_arrays(at: &str, old: &[Value], new: &[Value], found: &mut Vec<String>) {
    found.extend(
        old.iter().filter(|value| !new.contains(value)).map(|value| format!("{at}: {value} is gone")),
    );
    found
        .extend(new.iter().filter(|value| !old.contains(value)).map(|value| format!("{at}: {value} is new")));
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn old() -> Value {
        json!({
            "type": "object",
            "required": ["a"],
            "properties": { "a": { "type": "string" }, "b": { "type": "integer", "description": "x" } }
        })
    }

    #[test]
    fn an_optional_field_and_other_words_break_nobody() {
        let mut new = old();
        new["properties"]["c"] = json!({ "type": "string" });
        new["properties"]["b"]["description"] = json!("y");
        assert_eq!(breaking(&old(), &new), Vec::<String>::new());
    }

    #[test]
    fn taking_away_retyping_and_requiring_break() {
        let mut gone = old();
        gone["properties"].as_object_mut().unwrap().remove("b");
        let mut retyped = old();
        retyped["properties"]["b"]["type"] = json!("string");
        let mut required = old();
        required["required"] = json!(["a", "b"]);
        let mut narrowed = old();
        narrowed["properties"]["a"]["pattern"] = json!("^x");
        for new in [gone, retyped, required, narrowed] {
            assert_eq!(breaking(&old(), &new).len(), 1, "{new}");
        }
    }
}
