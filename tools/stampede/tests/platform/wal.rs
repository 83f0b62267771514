//! Which transactions wrote, read from Postgres' own write-ahead log.
//!
//! Counters of a database mix reading with writing, and transaction numbers belong to all databases of a server. The log
//! has it exactly: one record for the end of every transaction that got a number, and before it records that name the
//! database and the table they change. So every writing transaction is counted once and belongs to somebody.

use std::collections::{BTreeMap, BTreeSet};

use sqlx::postgres::PgPool;
use stampede_testkit::eventually;

use crate::stage::{PATIENCE, Stage};

/// What one kind of transaction has in common: its database and the tables it wrote, locked or deleted from.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Kind {
    /// `None` when the log names none: such a transaction changed no row.
    pub database: Option<String>,
    pub tables: BTreeSet<String>,
    /// It only deleted rows.
    pub only_deletes: bool,
}

impl Kind {
    pub fn touches_only(&self, table: &str) -> bool {
        self.tables.iter().eq([table])
    }

    /// Statistics and freezing: Postgres' work for itself.
    pub fn is_housekeeping(&self) -> bool {
        !self.tables.is_empty() && self.tables.iter().all(|table| table.starts_with("pg_"))
    }
}

/// The log from a moment on.
pub struct Wal {
    server: PgPool,
    postgres: String,
    start: String,
}

/// Every ended transaction with a number, with the tables that its records name. Rows are changed by records of Heap;
/// those of indexes and of the visibility map say nothing new about what the transaction did.
const TRANSACTIONS: &str = r"
    WITH record AS (
        SELECT xid, resource_manager AS manager, record_type AS kind, block_ref
        FROM pg_get_wal_records_info($1::pg_lsn, $2::pg_lsn) WHERE xid <> '0'
    ), ended AS (
        SELECT DISTINCT xid FROM record WHERE manager = 'Transaction' AND kind IN ('COMMIT', 'ABORT')
    ), touched AS (
        SELECT DISTINCT xid, place[1]::bigint AS database, place[2]::bigint AS filenode
        FROM record, regexp_matches(block_ref, 'rel \d+/(\d+)/(\d+)', 'g') AS place
    ), deed AS (
        SELECT xid, bool_and(kind LIKE 'DELETE%') AS only_deletes FROM record WHERE manager = 'Heap' GROUP BY xid
    )
    SELECT database, coalesce(array_agg(filenode) FILTER (WHERE filenode IS NOT NULL), '{}') AS filenodes,
        coalesce(bool_and(only_deletes), false) AS only_deletes
    FROM ended LEFT JOIN touched USING (xid) LEFT JOIN deed USING (xid)
    GROUP BY xid, database";

/// Every file of a database, under the name of the table it serves: an index and a toast table are parts of theirs.
const FILES: &str = "
    SELECT pg_relation_filenode(file.oid)::bigint, owner.relname::text
    FROM pg_class file
    LEFT JOIN pg_index ON indexrelid = file.oid
    LEFT JOIN pg_class toasted ON toasted.reltoastrelid = coalesce(indrelid, file.oid)
    JOIN pg_class owner ON owner.oid = coalesce(toasted.oid, indrelid, file.oid)
    WHERE pg_relation_filenode(file.oid) IS NOT NULL AND file.relkind <> 'S'";

impl Wal {
    /// From now on.
    pub async fn from_now(stage: &Stage) -> Self {
        let run = stage.platform.run_file().unwrap();
        let postgres = run.urls.postgres;
        let password = stage.platform.secrets().unwrap().postgres_password("postgres").unwrap();
        let postgres = format!("postgres://postgres:{password}@{postgres}");
        let server = PgPool::connect(&format!("{postgres}/postgres")).await.unwrap();
        sqlx::query("CREATE EXTENSION pg_walinspect").execute(&server).await.unwrap();
        // What was written stays to be read.
        sqlx::query("ALTER SYSTEM SET wal_keep_size = '8GB'").execute(&server).await.unwrap();
        sqlx::query("SELECT pg_reload_conf()").execute(&server).await.unwrap();
        eventually(PATIENCE, async || {
            let kept: String = sqlx::query_scalar("SHOW wal_keep_size").fetch_one(&server).await.unwrap();
            kept == "8GB"
        })
        .await;
        let start = position(&server).await;
        Self { server, postgres, start }
    }

    /// Every writing transaction that ended until now, by its kind.
    pub async fn transactions(&self) -> BTreeMap<Kind, u64> {
        let end = position(&self.server).await;
        let transactions: Vec<(Option<i64>, Vec<i64>, bool)> =
            sqlx::query_as(TRANSACTIONS).bind(&self.start).bind(&end).fetch_all(&self.server).await.unwrap();
        let files = self.files().await;
        let mut counts = BTreeMap::new();
        for (database, filenodes, only_deletes) in transactions {
            let database = database.map(|database| &files[&database]);
            let tables = database.map(|(_, tables)| {
                filenodes.iter().filter_map(|filenode| tables.get(filenode).cloned()).collect()
            });
            let kind = Kind {
                database: database.map(|(name, _)| name.clone()),
                tables: tables.unwrap_or_default(),
                only_deletes,
            };
            *counts.entry(kind).or_default() += 1;
        }
        counts
    }

    /// Every database with its name and its files.
    async fn files(&self) -> BTreeMap<i64, (String, BTreeMap<i64, String>)> {
        // What all databases share, such as roles, is written as database 0.
        let mut files = BTreeMap::from([(0, ("shared".to_owned(), BTreeMap::new()))]);
        let databases: Vec<(i64, String)> =
            sqlx::query_as("SELECT oid::bigint, datname::text FROM pg_database WHERE datallowconn")
                .fetch_all(&self.server)
                .await
                .unwrap();
        for (oid, name) in databases {
            let database = PgPool::connect(&format!("{}/{name}", self.postgres)).await.unwrap();
            let tables: Vec<(i64, String)> = sqlx::query_as(FILES).fetch_all(&database).await.unwrap();
            database.close().await;
            files.insert(oid, (name, tables.into_iter().collect()));
        }
        files
    }
}

/// The end of the log, with everything before it written out.
async fn position(server: &PgPool) -> String {
    sqlx::query("CHECKPOINT").execute(server).await.unwrap();
    sqlx::query_scalar("SELECT pg_current_wal_flush_lsn()::text").fetch_one(server).await.unwrap()
}
