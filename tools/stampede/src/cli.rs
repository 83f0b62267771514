//! The commands and their options.

use std::io::{IsTerminal as _, stdout};
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context as _;
use clap::{Args, Parser, Subcommand};
use stampede_bus::{Bus, Settings};

use crate::commands::dead_letters::DeadLetters;
use crate::commands::kind::forward::Forward;
use crate::commands::kind::reach::Cluster;
use crate::commands::{
    bench, blueprint, buy, chaos, check, check_layers, down, images, kind, load, policies, provision,
    reconcile, restart, secrets, seed, status, test, up, verify,
};
use crate::control::Keep;
use crate::images::engine::Engine;
use crate::progress;
use crate::provision::OPERATOR;
use crate::run_file::RunFile;
use crate::secrets::Secrets;
use crate::services::{Replicas, Setting};
use crate::signals::{ENDED_BY_SIGTERM, Signals};
use crate::state::StateDir;

/// Number of the first process of a container. What it does not listen to never reaches it, so it would not end when asked.
const FIRST: u32 = 1;
/// What a command line that cannot be read ends with, as is the custom.
const USAGE: u8 = 2;

/// Sells tickets while a stampede of buyers arrives.
#[derive(Debug, Parser)]
#[command(name = "stampede", bin_name = "cargo stampede", version, max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Start the whole platform and keep it running until Ctrl-C.
    Up(Up),
    /// Show every process: how it is, where it listens, how much memory it holds.
    Status(Place),
    /// Stop the platform that runs in a state folder.
    Down(Place),
    /// Stop and start one process, or all of a kind, and wait until they are ready.
    Restart(Restart),
    /// Buy tickets and tell every step.
    Buy {
        #[command(flatten)]
        place: Place,
        #[command(flatten)]
        buy: buy::Buy,
    },
    /// Send a stampede of buyers: open loop, whole journeys.
    Load {
        #[command(flatten)]
        place: Place,
        #[command(flatten)]
        load: load::Load,
    },
    /// Kill and freeze random processes of the running platform under load, then verify.
    Chaos {
        #[command(flatten)]
        place: Place,
        #[command(flatten)]
        chaos: chaos::Chaos,
    },
    /// Hold databases, ledgers, streams, logs and what buyers were told against what must always hold.
    Verify {
        #[command(flatten)]
        place: Place,
        #[command(flatten)]
        verify: verify::Verify,
    },
    /// Compare the books of payments with the payment provider's, operation by operation.
    Reconcile {
        #[command(flatten)]
        place: Place,
        /// In a cluster instead, by the name of its context in kubectl: runs in a pod of payments.
        #[arg(long, value_name = "NAME")]
        context: Option<String>,
    },
    /// Show what could not be handled, or send it again.
    #[command(subcommand)]
    DeadLetters(DeadLetters),
    /// Show the policies that are in force, replace numbers of one, or put the blueprint's back.
    #[command(subcommand)]
    Policies(policies::Policies),
    /// Make or update the streams, buckets and consumers of NATS.
    Provision(Provision),
    /// Build container images of all services and of this program: one static binary each, and nothing else.
    Images(Images),
    /// Make the three shows that `up` makes, at a gateway that `up` did not start.
    Seed(seed::Seed),
    /// Print the secrets of a cluster as manifests, made once and kept in the state folder.
    Secrets(secrets::Secrets),
    /// The platform in a cluster on this machine: up, load, deploy, test, down.
    #[command(subcommand)]
    Kind(kind::Kind),
    /// Run everything that must be green, on its own Postgres and NATS.
    Test(Test),
    /// Measure what the patterns cost, beside their peers and in the running platform.
    #[command(subcommand)]
    Bench(bench::Bench),
    /// Print the whole system from its blueprints: functions, calls with their policies, state.
    Blueprint(blueprint::Blueprint),
    /// Check that every route, subject, table and bucket stands in a blueprint, and every entry in the code.
    Check,
    /// Check who imports whom: libs, services and tools.
    CheckLayers,
}

/// Which platform.
#[derive(Args, Clone, Debug)]
pub(crate) struct Place {
    /// Folder of the platform [default: .stampede in the checkout]
    #[arg(long, value_name = "DIR", env = "STAMPEDE_STATE")]
    state: Option<PathBuf>,
}

/// Which platform an operator works on: of a state folder, in a cluster, or at an address.
#[derive(Args, Clone, Debug)]
pub(crate) struct Operated {
    #[command(flatten)]
    place: Place,
    /// In a cluster, by the name of its context in kubectl, which forwards a port and reads the password meanwhile.
    #[arg(long, value_name = "NAME", conflicts_with = "nats_url")]
    context: Option<String>,
    /// At the address of its NATS.
    #[arg(long, value_name = "URL", requires = "nats_password")]
    nats_url: Option<String>,
    /// The user there that may do everything; only with --nats-url
    #[arg(long, env = "STAMPEDE_NATS_USER", default_value = OPERATOR)]
    nats_user: String,
    /// That user's password; better in the environment than on the command line.
    #[arg(long, env = "NATS_PASSWORD", hide_env_values = true)]
    nats_password: Option<String>,
}

/// Which cluster.
#[derive(Args, Clone, Debug)]
pub(crate) struct ClusterPlace {
    /// Folder of its secrets: who loses it cannot reach the data [default: .stampede-cluster in the checkout]
    #[arg(long, value_name = "DIR")]
    pub(crate) state: Option<PathBuf>,
}

/// Options of `up`.
#[derive(Args, Clone, Debug)]
pub(crate) struct Up {
    #[command(flatten)]
    pub(crate) place: Place,
    /// Build for speed.
    #[arg(long, conflicts_with = "no_build")]
    pub(crate) release: bool,
    /// Use binaries that are built already, whatever has changed since.
    #[arg(long)]
    pub(crate) no_build: bool,
    /// Where they are [default: beside this program]
    #[arg(long, value_name = "DIR", requires = "no_build")]
    pub(crate) binaries: Option<PathBuf>,
    /// Listen on free ports instead of 8080 and 8081.
    #[arg(long)]
    pub(crate) random_ports: bool,
    /// More processes of a kind, for example orders=2,inventory=3
    #[arg(long, value_name = "SERVICE=N,…", value_parser = Replicas::parse, default_value = "", hide_default_value = true)]
    pub(crate) replicas: Replicas,
    /// A setting of a service, for example --set orders.DRAIN_TIMEOUT_MS=500 (may be repeated)
    #[arg(long = "set", value_name = "SERVICE.KEY=VALUE", value_parser = Setting::parse)]
    pub(crate) settings: Vec<Setting>,
    /// Delete all data first.
    #[arg(long)]
    pub(crate) fresh: bool,
    /// Make no shows.
    #[arg(long)]
    pub(crate) no_seed: bool,
    /// Only Postgres, NATS and the mail sink; no services.
    #[arg(long)]
    pub(crate) infra: bool,
    /// These data will be deleted: Postgres need not wait for the disk. They survive any crash but the machine's.
    #[arg(long)]
    pub(crate) throw_away: bool,
    /// Have Postgres archive its log beside its data, in postgres/archive: for a restore to a moment, docs/guides/restore.md
    #[arg(long)]
    pub(crate) archive: bool,
    /// Return when everything is ready, and leave it running.
    #[arg(long)]
    pub(crate) detach: bool,
    /// We are what `--detach` left running.
    #[arg(long, hide = true)]
    pub(crate) detached: bool,
}

/// Options of `restart`.
#[derive(Args, Debug)]
pub(crate) struct Restart {
    #[command(flatten)]
    place: Place,
    /// A process (orders-2) or a kind (orders).
    name: String,
    /// Delete all of JetStream on the way; only for nats. Nothing acknowledged may be lost.
    #[arg(long)]
    lose_store: bool,
}

/// Options of `provision`.
#[derive(Args, Debug)]
pub(crate) struct Provision {
    #[command(flatten)]
    pub(crate) place: Place,
    /// Have all state published again, not only where a stream is new.
    #[arg(long)]
    pub(crate) refill: bool,
    /// A NATS that `up` does not run.
    #[arg(long, value_name = "URL", env = "STAMPEDE_NATS_URL", requires = "password")]
    pub(crate) url: Option<String>,
    /// Its user that may make streams.
    #[arg(long, env = "STAMPEDE_NATS_USER", default_value = crate::provision::OPERATOR)]
    pub(crate) user: String,
    /// That user's password; better in the environment than on the command line.
    #[arg(long, env = "NATS_PASSWORD", hide_env_values = true)]
    pub(crate) password: Option<String>,
    /// Copies of every stream, in a cluster.
    #[arg(long, value_name = "N", env = "STREAM_REPLICAS", default_value_t = 1)]
    pub(crate) stream_replicas: usize,
}

/// Options of `images`.
#[derive(Args, Debug)]
pub(crate) struct Images {
    /// Use binaries that are built already; they must be linked statically.
    #[arg(long)]
    pub(crate) no_build: bool,
    /// Where they are [default: beside this program]
    #[arg(long, value_name = "DIR", requires = "no_build")]
    pub(crate) binaries: Option<PathBuf>,
    /// Keep each image's root file system as a folder in here.
    #[arg(long, value_name = "DIR")]
    pub(crate) root: Option<PathBuf>,
    /// Write an archive an image, for `kind load image-archive`, `ctr images import` or `docker load`.
    #[arg(long, value_name = "DIR")]
    pub(crate) archive: Option<PathBuf>,
    /// Who gets the images [default: the first that answers, or nobody with --archive, --root or --try]
    #[arg(long)]
    pub(crate) engine: Option<Engine>,
    /// Start each binary in its own root file system, as in a container, and look at what it does.
    #[arg(long = "try")]
    pub(crate) trial: bool,
}

/// Options of `test`.
#[derive(Args, Debug)]
pub(crate) struct Test {
    /// Build and test one crate alone, for example orders (may be repeated).
    #[arg(long = "package", short, value_name = "CRATE")]
    pub(crate) packages: Vec<String>,
    /// Only its unit tests: those that are within the library and need no server.
    #[arg(long, requires = "packages")]
    pub(crate) lib: bool,
    /// Only compile.
    #[arg(long)]
    pub(crate) no_run: bool,
    /// Only tests whose names contain one of these (then no examples in documentation).
    pub(crate) filter: Vec<String>,
}

impl Operated {
    /// A connection to its NATS, and the port that leads there, which must outlive it; `instance` names the command.
    pub(crate) async fn bus(&self, instance: &str) -> anyhow::Result<(Bus, Option<Forward>)> {
        if let Some(context) = &self.context {
            let (forward, password) = Cluster(context).nats().await?;
            let bus = bus(format!("nats://127.0.0.1:{}", forward.port), OPERATOR, password, instance).await?;
            return Ok((bus, Some(forward)));
        }
        let Some(url) = &self.nats_url else { return Ok((self.place.bus(instance).await?, None)) };
        let password = self.nats_password.clone().context("NATS_PASSWORD is not set")?;
        Ok((bus(url.clone(), &self.nats_user, password, instance).await?, None))
    }
}

async fn bus(url: String, user: &str, password: String, instance: &str) -> anyhow::Result<Bus> {
    let (user, service, instance) = (user.to_owned(), "stampede".to_owned(), instance.to_owned());
    Ok(Bus::connect(Settings { url, user, password, service, instance }).await?)
}

impl ClusterPlace {
    /// The folder, made when it is missing.
    pub(crate) fn create(&self) -> anyhow::Result<StateDir> {
        StateDir::create(&self.state.clone().map_or_else(StateDir::cluster_root, Ok)?)
    }
}

impl Place {
    /// The folder, made when it is missing.
    pub(crate) fn create(&self) -> anyhow::Result<StateDir> {
        StateDir::create(&self.root()?)
    }

    /// The folder, which must be there.
    pub(crate) fn existing(&self) -> anyhow::Result<StateDir> {
        StateDir::existing(&self.root()?)
    }

    /// A connection to the NATS that runs here, as the operator; `instance` names the command.
    pub(crate) async fn bus(&self, instance: &str) -> anyhow::Result<Bus> {
        let state = self.existing()?;
        let run = RunFile::running(&state)?;
        bus(run.urls.nats, OPERATOR, Secrets::open(&state)?.nats_password(OPERATOR)?, instance).await
    }

    /// The gateway that was named, or else the one that runs here, with the operator's token. A gateway that was
    /// named may be anybody's, so it is not shown our token.
    pub(crate) fn gateway(&self, named: Option<&str>) -> anyhow::Result<(String, Option<String>)> {
        if let Some(url) = named {
            return Ok((url.to_owned(), None));
        }
        let state = self.existing()?;
        let run = RunFile::running(&state)?;
        Ok((run.urls.gateway, Some(Secrets::open(&state)?.operator_token()?)))
    }

    fn root(&self) -> anyhow::Result<PathBuf> {
        self.state.clone().map_or_else(StateDir::default_root, Ok)
    }
}

/// Does what the command line says.
///
/// # Errors
/// Whatever kept the command from doing it, for a person to read.
pub async fn run() -> anyhow::Result<ExitCode> {
    let command = match Cli::try_parse() {
        Ok(cli) => cli.command,
        // Help and version are output; everything else is an error.
        Err(text) if !text.use_stderr() => {
            progress::print(if stdout().is_terminal() {
                text.render().ansi().to_string()
            } else {
                text.to_string()
            });
            progress::finish()?;
            return Ok(ExitCode::SUCCESS);
        }
        Err(wrong) => {
            let _ = wrong.print();
            return Ok(ExitCode::from(USAGE));
        }
    };
    let code = until_asked_to_end(command).await?;
    progress::finish()?;
    Ok(code)
}

async fn until_asked_to_end(command: Command) -> anyhow::Result<ExitCode> {
    let ends_in_order = matches!(command, Command::Up(_) | Command::Test(_));
    if std::process::id() != FIRST || ends_in_order {
        return carry_out(command).await;
    }
    let mut signals = Signals::listen()?;
    tokio::select! {
        done = carry_out(command) => done,
        () = signals.next() => Ok(ExitCode::from(ENDED_BY_SIGTERM)),
    }
}

async fn carry_out(command: Command) -> anyhow::Result<ExitCode> {
    match command {
        Command::Up(options) => up::run(options).await,
        Command::Status(place) => status::run(&place.existing()?).await,
        Command::Down(place) => down::run(&place.existing()?).await,
        Command::Restart(options) => {
            let keep = if options.lose_store { Keep::Nothing } else { Keep::Everything };
            restart::run(&options.place.existing()?, &options.name, keep).await
        }
        Command::Buy { place, buy } => {
            let (gateway, _) = place.gateway(buy.url.as_deref())?;
            buy.run(&gateway).await?;
            Ok(ExitCode::SUCCESS)
        }
        Command::Load { place, load } => {
            let (gateway, operator) = place.gateway(load.url.as_deref())?;
            load.run(&gateway, operator, place.create()?.root()).await?;
            Ok(ExitCode::SUCCESS)
        }
        Command::Chaos { place, chaos } => {
            let (gateway, operator) = place.gateway(None)?;
            chaos.run(&place.existing()?, gateway, operator).await
        }
        Command::Verify { place, verify } => {
            let state = match (&verify.context, &verify.database_url) {
                // What buyers of a platform in a cluster were told is not among what those of `up` were.
                (Some(_), _) => ClusterPlace { state: place.state }.create()?,
                // Of a platform elsewhere there may be nothing here yet.
                (None, Some(_)) => place.create()?,
                (None, None) => place.existing()?,
            };
            verify.run(&state).await
        }
        Command::Seed(seed) => seed.run().await,
        Command::Secrets(secrets) => secrets.run(),
        Command::Kind(kind) => kind.run().await,
        Command::Reconcile { context: Some(context), place: _ } => Cluster(&context).reconcile().await,
        Command::Reconcile { context: None, place } => reconcile::run(&place.existing()?).await,
        Command::DeadLetters(letters) => letters.run().await,
        Command::Policies(policies) => policies.run().await,
        Command::Provision(options) => provision::run(&options).await,
        Command::Images(options) => images::run(&options).await,
        Command::Test(options) => test::run(&options).await,
        Command::Bench(bench) => bench.run().await,
        Command::Blueprint(blueprint) => blueprint.run(),
        Command::Check => check::run(),
        Command::CheckLayers => check_layers::run().await,
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    /// At night nobody looks up how an option is spelled.
    #[test]
    fn what_alerts_and_guides_tell_people_to_type_is_understood() {
        let workspace = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
        let files = [
            "k8s/components/observability/alerts.yml",
            "docs/guides/kubernetes.md",
            "docs/guides/restore.md",
            "docs/figures.md",
            "deploy/compose.yaml",
            "k8s/README.md",
            "tools/stampede/README.md",
            "CONTRIBUTING.md",
            "README.md",
        ];
        let mut lines = 0;
        for file in files {
            let text = std::fs::read_to_string(workspace.join(file)).unwrap();
            // As a container or a function of the shell, too.
            let image = concat!("stampede/stampede:", env!("CARGO_PKG_VERSION"), " ");
            let text = text.replace("\nstampede ", "\ncargo stampede ").replace(image, "cargo stampede ");
            for line in text.split("cargo stampede ").skip(1) {
                let line = line.split(['`', '|', '#', '\n', ';']).next().unwrap();
                // A placeholder, or all of them.
                if line.starts_with(['…', '<', '"']) {
                    continue;
                }
                let read = Cli::try_parse_from(["stampede"].into_iter().chain(line.split_whitespace()));
                assert!(read.is_ok(), "{file}: cargo stampede {line}: {}", read.unwrap_err());
                lines += 1;
            }
        }
        assert!(lines > 60, "{lines}");
    }

    #[test]
    fn a_replay_says_which_letters() {
        let read = |words: &[&str]| Cli::try_parse_from(["stampede", "dead-letters"].iter().chain(words));
        assert!(read(&["list", "--consumer", "notify", "--state", "x"]).is_ok());
        for good in [&["replay", "1", "2"][..], &["replay", "--all", "--consumer", "notify"]] {
            assert!(read(good).is_ok(), "{good:?}");
        }
        for bad in [&["replay"][..], &["replay", "1", "--all"], &["replay", "1", "--consumer", "notify"]] {
            assert!(read(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn replicas_and_settings_are_read() {
        let line =
            ["stampede", "up", "--replicas", "orders=2", "--set", "orders.A=1", "--set", "catalog.B=2"];
        let Command::Up(up) = Cli::try_parse_from(line).unwrap().command else { panic!("not up") };
        assert_eq!(up.replicas, Replicas::parse("orders=2").unwrap());
        assert_eq!(up.settings.len(), 2);
        assert!(Cli::try_parse_from(["stampede", "up", "--replicas", "nobody=2"]).is_err());
    }
}
