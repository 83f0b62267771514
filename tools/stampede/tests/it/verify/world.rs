//! A platform's databases as five purchases left them, in which everything holds. Tests spoil something and see that
//! the verifier notices.
//!
//! A schema stands for each database: seven databases a world would take a second to make.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use sqlx::migrate::Migrator;
use sqlx::postgres::{PgConnectOptions, PgPool, PgPoolOptions};
use stampede::scratch::Scratch;
use stampede::verify::{Databases, Options, Report, Rule, Sources, verify};
use stampede_testkit::{Database, fresh_database};

/// Schema, folder of its service, and what lies in it.
const SCHEMAS: [(&str, &str, &str); 7] = [
    ("catalog", "services/catalog", include_str!("clean/catalog.sql")),
    ("inventory", "services/inventory", include_str!("clean/inventory.sql")),
    ("lobby", "services/lobby", include_str!("clean/lobby.sql")),
    ("notify", "services/notify", include_str!("clean/notify.sql")),
    ("orders", "services/orders", include_str!("clean/orders.sql")),
    ("payments", "services/payments", include_str!("clean/payments.sql")),
    ("psp", "tools/psp-sim", include_str!("clean/psp.sql")),
];

/// Most of what the verifier looks for the databases refuse by themselves. A verifier that trusted them would be none.
const LOOSEN: &str = "
    DO $$ DECLARE found record; BEGIN
        FOR found IN SELECT conrelid::regclass AS owner, conname AS name FROM pg_constraint
            WHERE connamespace = current_schema()::regnamespace AND contype IN ('c', 'u')
        LOOP
            EXECUTE format('ALTER TABLE %s DROP CONSTRAINT %I', found.owner, found.name);
        END LOOP;
        FOR found IN SELECT indexrelid::regclass AS name FROM pg_index JOIN pg_class ON pg_class.oid = indexrelid
            WHERE indisunique AND NOT indisprimary AND relnamespace = current_schema()::regnamespace
        LOOP
            EXECUTE format('DROP INDEX %s', found.name);
        END LOOP;
    END $$;
    -- Without triggers and references.
    SET session_replication_role = replica;";

/// Nothing is waited for and nothing is too young.
const AT_ONCE: Options = Options { settle_within: Duration::ZERO, younger_than: Duration::ZERO };

/// Databases that a test may spoil.
pub struct World {
    pools: BTreeMap<&'static str, PgPool>,
    pub sources: Sources,
    pub options: Options,
    scratch: Scratch,
    _database: Database,
}

impl World {
    pub async fn new() -> Self {
        let database = fresh_database("verify", &Migrator::DEFAULT).await;
        sqlx::raw_sql(include_str!("clean/functions.sql")).execute(database.pool()).await.unwrap();
        let mut pools = BTreeMap::new();
        for (schema, folder, content) in SCHEMAS {
            pools.insert(schema, fill(&database, schema, folder, content).await);
        }
        let pool = |schema: &str| pools[schema].clone();
        let databases = Databases {
            catalog: pool("catalog"),
            inventory: pool("inventory"),
            lobby: pool("lobby"),
            notify: pool("notify"),
            orders: pool("orders"),
            payments: pool("payments"),
            psp: pool("psp"),
        };
        let sources = Sources { databases, nats: None, logs: Vec::new(), mails: None, histories: Vec::new() };
        let scratch = Scratch::new("verify").unwrap();
        Self { pools, sources, options: AT_ONCE, scratch, _database: database }
    }

    pub fn pool(&self, schema: &str) -> &PgPool {
        &self.pools[schema]
    }

    /// A file of this world's own.
    pub fn file(&self, name: &str, content: &str) -> PathBuf {
        let path = self.scratch.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, content).unwrap();
        path
    }

    /// Does something to one of the databases that it would not let happen.
    pub async fn spoil(&self, schema: &str, how: &'static str) {
        let mut connection = self.pool(schema).acquire().await.unwrap();
        sqlx::raw_sql(LOOSEN).execute(&mut *connection).await.unwrap();
        sqlx::raw_sql(how).execute(&mut *connection).await.unwrap();
        sqlx::raw_sql("RESET session_replication_role").execute(&mut *connection).await.unwrap();
    }

    pub async fn verify(&self) -> Report {
        verify(&self.sources, &self.options, |_| ()).await.unwrap()
    }

    /// Exactly this rule is broken, and one of the sentences about it has these words.
    pub async fn breaks(&self, rule: Rule, words: &str) {
        let report = self.verify().await;
        assert_eq!(report.broken(), [rule], "{words}: {report}");
        assert!(
            report.of(rule).unwrap().listed.iter().any(|sentence| sentence.contains(words)),
            "{words}: {report}"
        );
    }
}

async fn fill(database: &Database, schema: &str, folder: &str, content: &'static str) -> PgPool {
    let create = sqlx::AssertSqlSafe(format!("CREATE SCHEMA {schema}"));
    sqlx::raw_sql(create).execute(database.pool()).await.unwrap();
    let options = PgConnectOptions::from_str(&database.url()).unwrap();
    let options = options.options([("search_path", format!("{schema},public"))]);
    let pool = PgPoolOptions::new().max_connections(2).connect_lazy_with(options);
    let migrations = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").join(folder).join("migrations");
    Migrator::new(migrations).await.unwrap().run(&pool).await.unwrap();
    sqlx::raw_sql(content).execute(&pool).await.unwrap();
    pool
}

/// What to do to which database.
pub type Spoiled = &'static [(&'static str, &'static str)];

/// A world for every way to break a rule.
pub async fn each_breaks(rule: Rule, ways: &[(&str, Spoiled)]) {
    for (words, spoiled) in ways {
        let world = World::new().await;
        for (schema, how) in *spoiled {
            world.spoil(schema, how).await;
        }
        world.breaks(rule, words).await;
    }
}
