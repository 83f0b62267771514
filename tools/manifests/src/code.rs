//! What the manifests have to agree with, read from the code: settings, listeners, blueprints, versions; and metrics.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, ensure};
use quote::ToTokens;
use stampede_blueprint::Blueprint;
use syn::visit::{self, Visit};

use crate::calls::{self, Found, Wanted};

/// What is built from this workspace.
#[derive(Debug)]
pub struct Code {
    /// Its folder.
    pub workspace: PathBuf,
    /// The version of everything.
    pub version: String,
    /// Every service and the provider's simulator, by name.
    pub services: BTreeMap<String, Service>,
    /// Keys that the command line takes from its environment.
    pub command_line: BTreeSet<String>,
    /// Paths of the admin listener.
    pub admin_paths: BTreeSet<String>,
    /// How long a node drains beyond `DRAIN_DELAY_MS` and `DRAIN_TIMEOUT_MS`.
    pub drain_more: Duration,
    /// How long a node waits for its database while it starts.
    pub startup: Duration,
}

/// One kind of process.
#[derive(Debug)]
pub struct Service {
    /// What it says of itself.
    pub blueprint: Blueprint,
    /// Keys that it reads, with the method that reads each.
    pub keys: BTreeMap<String, String>,
    /// Keys without which it does not start.
    pub required: BTreeSet<String>,
    /// Its listeners beside `admin`.
    pub listeners: BTreeSet<String>,
    /// Its database, if it has one.
    pub database: Option<String>,
    /// Durations that it takes when it is told nothing, by key.
    defaults: BTreeMap<String, Duration>,
}

impl Service {
    /// A duration of this key: what is said, or the default.
    pub fn duration(&self, key: &str, said: Option<&str>) -> Option<Duration> {
        match said {
            Some(said) => said.parse().ok().map(Duration::from_millis),
            None => self.defaults.get(key).copied(),
        }
    }
}

impl Code {
    /// Reads a workspace.
    ///
    /// # Errors
    /// Something is not where it was: the sentence says what was looked for.
    pub fn read(workspace: &Path) -> anyhow::Result<Self> {
        let read = |path: &str| fs::read_to_string(workspace.join(path)).with_context(|| path.to_owned());
        let common = Keys::read(&workspace.join("libs/service"), &read("libs/service/src/env.rs")?)?;
        let life = read("libs/service/src/life.rs")?;
        let manifest: toml::Table = read("Cargo.toml")?.parse()?;
        let version = manifest["workspace"]["package"]["version"].as_str().context("no version")?.to_owned();
        let mut services = BTreeMap::new();
        for listed in listed(&read("tools/stampede/src/services.rs")?)? {
            let service = listed.read(workspace, &common)?;
            services.insert(listed.name, service);
        }
        Ok(Self {
            workspace: workspace.to_owned(),
            version,
            services,
            command_line: command_line(&workspace.join("tools/stampede/src"))?,
            admin_paths: routes(&read("libs/service/src/admin.rs")?)?,
            drain_more: drain_more(&life)?,
            startup: *common
                .defaults
                .get("STARTUP_TIMEOUT_MS")
                .context("no default of STARTUP_TIMEOUT_MS")?,
        })
    }
}

/// Keys of one crate.
struct Keys {
    found: Vec<Found>,
    /// Methods of `Env` that fail when a key is not set.
    strict: BTreeSet<String>,
    methods: BTreeSet<String>,
    defaults: BTreeMap<String, Duration>,
}

impl Keys {
    /// `env` is the source of `Env`: whatever takes a key there is a method that reads one.
    fn read(folder: &Path, env: &str) -> anyhow::Result<Self> {
        let (mut methods, mut strict) = (BTreeSet::new(), BTreeSet::new());
        for item in syn::parse_file(env)?.items {
            let syn::Item::Impl(item) = item else { continue };
            for member in item.items {
                let syn::ImplItem::Fn(function) = member else { continue };
                let name = function.sig.ident.to_string();
                let public = matches!(function.vis, syn::Visibility::Public(_));
                let takes_key = function.sig.inputs.iter().any(|argument| match argument {
                    syn::FnArg::Typed(argument) => {
                        matches!(&*argument.pat, syn::Pat::Ident(pattern) if pattern.ident == "key")
                    }
                    syn::FnArg::Receiver(_) => false,
                });
                if !public || !takes_key {
                    continue;
                }
                let mut mentions = Mentions { word: "missing", found: false };
                mentions.visit_block(&function.block);
                if mentions.found {
                    strict.insert(name.clone());
                }
                methods.insert(name);
            }
        }
        ensure!(strict.contains("secret"), "Env has changed: no method fails when a key is missing");
        Self { found: Vec::new(), strict, methods, defaults: BTreeMap::new() }.of(folder)
    }

    /// The keys of another crate, by the same methods.
    fn of(&self, folder: &Path) -> anyhow::Result<Self> {
        let methods = |name: &str| self.methods.contains(name);
        let wanted = Wanted { methods: &methods, only_env: true };
        let found = calls::in_folder(&folder.join("src"), &wanted)?;
        let default = |call: &Found| Some((call.text.clone(), duration(call.default.as_deref()?)?));
        let defaults = found.iter().filter_map(default).collect();
        Ok(Self { found, strict: self.strict.clone(), methods: self.methods.clone(), defaults })
    }

    fn required(&self) -> impl Iterator<Item = &Found> {
        self.found.iter().filter(|call| self.strict.contains(&call.method))
    }
}

struct Mentions<'a> {
    word: &'a str,
    found: bool,
}

impl<'ast> Visit<'ast> for Mentions<'_> {
    fn visit_ident(&mut self, name: &'ast syn::Ident) {
        self.found |= name == self.word;
    }
}

/// `Duration :: from_secs (60)` and its like, factors included.
fn duration(source: &str) -> Option<Duration> {
    let source: String = source.split_whitespace().collect();
    if source == "Duration::ZERO" {
        return Some(Duration::ZERO);
    }
    let inside = |name: &str| source.strip_prefix(name)?.strip_suffix(')');
    let product =
        |text: &str| text.split('*').map(|factor| factor.parse::<u64>().ok()).product::<Option<u64>>();
    match inside("Duration::from_secs(") {
        Some(seconds) => product(seconds).map(Duration::from_secs),
        None => product(inside("Duration::from_millis(")?).map(Duration::from_millis),
    }
}

/// An entry of the list of services.
struct Listed {
    name: String,
    package: String,
    database: Option<String>,
    listeners: BTreeSet<String>,
}

impl Listed {
    fn read(&self, workspace: &Path, common: &Keys) -> anyhow::Result<Service> {
        let shelf = if workspace.join("services").join(&self.name).exists() { "services" } else { "tools" };
        let folder = workspace.join(shelf).join(&self.name);
        let manifest = fs::read_to_string(folder.join("Cargo.toml"))?;
        ensure!(manifest.contains(&format!("\"{}\"", self.package)), "{} is not {}", shelf, self.package);
        let blueprint = Blueprint::parse(&fs::read_to_string(folder.join("blueprint.toml"))?)?;
        let own = common.of(&folder)?;
        let main = fs::read_to_string(folder.join("src/main.rs"))?;
        let messaging = !main.contains("start_without_messaging");
        let mut required: BTreeSet<String> = own.required().map(|call| call.text.clone()).collect();
        // The common settings are read by two doors; only one of them insists on messaging.
        let insisted = common.required().filter(|call| messaging || call.within != "from_env");
        required.extend(insisted.map(|call| call.text.clone()));
        if blueprint.database.is_some() {
            required.insert("DATABASE_URL".to_owned());
        }
        let all = common.found.iter().chain(&own.found);
        let keys = all.map(|call| (call.text.clone(), call.method.clone())).collect();
        let mut defaults = common.defaults.clone();
        defaults.extend(own.defaults);
        Ok(Service {
            blueprint,
            keys,
            required,
            listeners: self.listeners.clone(),
            database: self.database.clone(),
            defaults,
        })
    }
}

/// The list of services in the command line, which is private to it.
fn listed(source: &str) -> anyhow::Result<Vec<Listed>> {
    struct Reader(Vec<Listed>);
    impl<'ast> Visit<'ast> for Reader {
        fn visit_item_mod(&mut self, item: &'ast syn::ItemMod) {
            if !calls::is_for_tests(&item.attrs) {
                visit::visit_item_mod(self, item);
            }
        }

        fn visit_expr_struct(&mut self, entry: &'ast syn::ExprStruct) {
            if !entry.path.is_ident("Service") {
                return;
            }
            let field = |name: &str| {
                let is_it =
                    |member: &syn::Member| matches!(member, syn::Member::Named(named) if named == name);
                let value = entry.fields.iter().find(|field| is_it(&field.member));
                let mut texts = Texts::default();
                if let Some(value) = value {
                    texts.visit_expr(&value.expr);
                }
                texts.0
            };
            let one = |name: &str| field(name).into_iter().next();
            self.0.push(Listed {
                name: one("name").unwrap_or_default(),
                package: one("package").unwrap_or_default(),
                database: one("database"),
                listeners: field("listeners").into_iter().collect(),
            });
        }
    }
    let mut reader = Reader(Vec::new());
    reader.visit_file(&syn::parse_file(source)?);
    ensure!(!reader.0.is_empty(), "the list of services is not in services.rs any more");
    Ok(reader.0)
}

#[derive(Default)]
struct Texts(Vec<String>);

impl<'ast> Visit<'ast> for Texts {
    fn visit_lit_str(&mut self, text: &'ast syn::LitStr) {
        self.0.push(text.value());
    }
}

/// `env = "KEY"` in the options of the command line.
fn command_line(folder: &Path) -> anyhow::Result<BTreeSet<String>> {
    let mut keys = BTreeSet::new();
    for path in calls::rust_files(folder)? {
        let source = fs::read_to_string(path)?;
        let texts = source.split("env = \"").skip(1).filter_map(|rest| rest.split('"').next());
        keys.extend(texts.map(str::to_owned));
    }
    ensure!(!keys.is_empty(), "no option of the command line is taken from the environment any more");
    Ok(keys)
}

fn routes(source: &str) -> anyhow::Result<BTreeSet<String>> {
    let wanted = Wanted { methods: &|name| name == "route", only_env: false };
    Ok(calls::in_source(source, &wanted)?.into_iter().map(|call| call.text).collect())
}

/// The bounds of the parts of the end, `…_WITHIN` in the source of `Node::serve`, added up.
fn drain_more(source: &str) -> anyhow::Result<Duration> {
    let mut sum = Duration::ZERO;
    for item in syn::parse_file(source)?.items {
        let syn::Item::Const(bound) = item else { continue };
        if bound.ident.to_string().ends_with("_WITHIN") {
            let value = duration(&bound.expr.to_token_stream().to_string());
            sum += value.with_context(|| format!("life.rs: {} is no number of seconds", bound.ident))?;
        }
    }
    ensure!(!sum.is_zero(), "life.rs bounds no part of the end any more");
    Ok(sum)
}

/// Every metric of libraries, services and the simulator, named as the exporter for Prometheus names it.
///
/// # Errors
/// A source cannot be read.
pub fn metrics(workspace: &Path) -> anyhow::Result<BTreeSet<String>> {
    const KINDS: [&str; 3] = ["counter", "gauge", "histogram"];
    let is_instrument = |name: &str| {
        let (number, kind) = name.split_once('_').unwrap_or_default();
        ["u64", "i64", "f64"].contains(&number) && KINDS.iter().any(|known| kind.ends_with(known))
    };
    let wanted = Wanted { methods: &is_instrument, only_env: false };
    let mut names = BTreeSet::new();
    for shelf in ["libs", "services", "tools/psp-sim"] {
        let folder = workspace.join(shelf);
        let own = folder.join("src").exists().then(|| folder.clone());
        let below = fs::read_dir(&folder)?.filter_map(|entry| Some(entry.ok()?.path()));
        for folder in own.into_iter().chain(below).filter(|folder| folder.join("src").exists()) {
            for call in calls::in_folder(&folder.join("src"), &wanted)? {
                names.extend(exported(&call));
            }
        }
    }
    Ok(names)
}

fn exported(call: &Found) -> Vec<String> {
    let mut name = call.text.replace('.', "_");
    match call.unit.as_deref() {
        Some("s") => name.push_str("_seconds"),
        Some("By") => name.push_str("_bytes"),
        _ => {}
    }
    let adds = call.method.ends_with("counter") && !call.method.contains("up_down");
    match () {
        () if adds => vec![format!("{name}_total")],
        () if call.method.ends_with("histogram") => {
            ["bucket", "count", "sum"].map(|part| format!("{name}_{part}")).to_vec()
        }
        () => vec![name],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_parts_of_the_end_are_added_up() {
        let life = "const A_WITHIN: Duration = Duration::from_secs(3); const B_WITHIN: Duration = Duration::from_millis(4 * 500);";
        assert_eq!(drain_more(life).unwrap(), Duration::from_secs(5));
        let elsewhere = "const A_WITHIN: Duration = bus::DRAIN_WITHIN;";
        assert!(drain_more(elsewhere).unwrap_err().to_string().contains("A_WITHIN is no number"));
        assert!(drain_more("const OTHER: Duration = Duration::from_secs(3);").is_err());
    }
}
