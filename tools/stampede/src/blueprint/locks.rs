//! Migrations run while the version before them serves. What scans, rewrites or indexes a filled table under a lock that
//! keeps readers or writers out for that long is refused.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use super::code::files;

/// Applied before there was this rule; their checksums are in databases.
const BEFORE_THE_RULE: [&str; 3] =
    ["inventory/0003_history.sql", "lobby/0002_history.sql", "orders/0002_refunds.sql"];
/// Holds what is in flight and no more, so that an index on it is made in a moment.
const IN_FLIGHT: &str = "outbox";
/// What makes sqlx run a file outside of a transaction, as `CONCURRENTLY` needs it.
const NO_TRANSACTION: &str = "-- no-transaction";

/// Sentences about the migrations in a service's folder.
pub(crate) fn locks(service: &str, folder: &Path) -> anyhow::Result<Vec<String>> {
    let migrations = folder.join("migrations");
    let mut broken = Vec::new();
    if !migrations.exists() {
        return Ok(broken);
    }
    for path in files(&migrations, "sql")? {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let name = format!("{service}/{name}");
        if !BEFORE_THE_RULE.contains(&&*name) {
            broken.extend(of_file(&fs::read_to_string(&path)?).map(|sentence| format!("{name}: {sentence}")));
        }
    }
    Ok(broken)
}

fn of_file(sql: &str) -> impl Iterator<Item = String> {
    let in_transaction = !sql.trim_start().starts_with(NO_TRANSACTION);
    let code = sql.lines().map(|line| line.split("--").next().unwrap_or_default());
    let code = code.collect::<Vec<_>>().join(" ").to_lowercase().replace('(', " ( ").replace(')', " ) ");
    let statements: Vec<Vec<String>> =
        code.split(';').map(|statement| statement.split_whitespace().map(str::to_owned).collect()).collect();
    let has = |words: &[String], wanted: &[&str]| words.windows(wanted.len()).any(|window| window == wanted);
    // A table that is made in the same file is empty, and nobody waits for it.
    let created: BTreeSet<String> = statements
        .iter()
        .filter(|words| has(words, &["create", "table"]))
        .filter_map(|words| words.iter().skip(2).find(|word| !["if", "not", "exists"].contains(&&***word)))
        .cloned()
        .collect();
    let mut broken = Vec::new();
    for words in &statements {
        let after = |word: &str| words.iter().skip_while(|found| *found != word).nth(1).cloned();
        let has = |wanted: &[&str]| has(words, wanted);
        let begins =
            |wanted: &[&str]| words.iter().map(String::as_str).take(wanted.len()).eq(wanted.iter().copied());
        let is_index = begins(&["create", "index"]) || begins(&["create", "unique", "index"]);
        let table = if is_index { after("on") } else { after("table").or_else(|| after("only")) };
        if has(&["concurrently"]) {
            if in_transaction {
                broken.push(format!(
                    "CONCURRENTLY needs {NO_TRANSACTION:?} in the first line, and a file of its own"
                ));
            }
            continue;
        }
        if table.as_ref().is_some_and(|table| created.contains(table) || (is_index && table == IN_FLIGHT)) {
            continue;
        }
        let wrong = if is_index || begins(&["reindex"]) {
            "an index is made CONCURRENTLY"
        } else if begins(&["vacuum", "full"])
            || begins(&["cluster"])
            || begins(&["truncate"])
            || begins(&["lock"])
        {
            "this keeps everybody out"
        } else if !begins(&["alter", "table"]) {
            continue;
        } else if has(&["type"]) || has(&["set", "logged"]) || has(&["set", "unlogged"]) {
            "this rewrites the table: add a column, fill it, and change to it"
        } else if has(&["set", "not", "null"]) {
            "this reads the table: add CHECK (… IS NOT NULL) NOT VALID, validate it, and drop it after SET NOT NULL"
        } else if (has(&["unique"]) || has(&["primary", "key"])) && !has(&["using", "index"]) {
            "make the index CONCURRENTLY and add the constraint USING INDEX"
        } else if (has(&["check"]) || has(&["references"])) && !has(&["not", "valid"]) {
            "add the constraint NOT VALID and validate it in another migration"
        } else {
            continue;
        };
        broken.push(format!("{}: {wrong}", words.join(" ")));
    }
    broken.into_iter()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_keeps_the_version_before_from_serving_is_refused() {
        for sql in [
            "CREATE INDEX show_start ON show (starts_at);",
            "CREATE UNIQUE INDEX show_start ON show (starts_at);",
            "CREATE INDEX CONCURRENTLY show_start ON show (starts_at);",
            "ALTER TABLE show ALTER COLUMN price TYPE bigint;",
            "ALTER TABLE show ALTER price SET NOT NULL;",
            "ALTER TABLE show ADD CONSTRAINT price CHECK (price >= 0);",
            "ALTER TABLE show ADD COLUMN price bigint CHECK (price >= 0);",
            "ALTER TABLE show ADD COLUMN venue uuid REFERENCES venue;",
            "ALTER TABLE show ADD UNIQUE (slug);",
            "ALTER TABLE show ADD COLUMN id bigint PRIMARY KEY;",
            "ALTER TABLE show SET UNLOGGED;",
            "CREATE TABLE other (id bigint); CREATE INDEX one ON show (id);",
            "VACUUM FULL show;",
            "LOCK TABLE show;",
        ] {
            assert_eq!(of_file(sql).count(), 1, "{sql}");
        }
    }

    #[test]
    fn what_takes_its_locks_for_a_moment_is_not() {
        for sql in [
            "-- no-transaction\nCREATE INDEX CONCURRENTLY show_start ON show (starts_at);",
            "CREATE TABLE show (id bigint PRIMARY KEY); CREATE INDEX show_id ON show (id);",
            "CREATE TABLE IF NOT EXISTS show(id bigint); ALTER TABLE show ALTER id SET STORAGE PLAIN;",
            "ALTER TABLE show ADD COLUMN price bigint NOT NULL DEFAULT 0;",
            "ALTER TABLE show ADD CONSTRAINT price CHECK (price >= 0) NOT VALID;",
            "ALTER TABLE show VALIDATE CONSTRAINT price;",
            "ALTER TABLE show ADD CONSTRAINT slug UNIQUE USING INDEX show_slug;",
            "-- CREATE INDEX show_start ON show (starts_at);",
            "CREATE INDEX outbox_lane ON outbox (subject);",
            "UPDATE show SET type = 'x' WHERE id = 1;",
        ] {
            assert_eq!(of_file(sql).collect::<Vec<_>>(), Vec::<String>::new(), "{sql}");
        }
    }
}
