//! `kind`: the platform in a cluster on this machine, from nothing to a purchase. Each step is a command that a person
//! could type; it is shown before it runs, and what mends it is said when it fails.

pub(crate) mod forward;
pub(crate) mod reach;
mod run;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use clap::Subcommand;
use stampede_contracts::Timestamp;

use self::run::{Run, answer, own, program, run};
use crate::cli::ClusterPlace;
use crate::cluster::{self, NAMESPACE};
use crate::secrets::Secrets;
use crate::{progress, state};

/// The cluster, as deploy/kind/cluster.yaml names it.
const CLUSTER: &str = "stampede";
/// What kubectl calls it: nothing here may ever reach another cluster.
const CONTEXT: &str = "kind-stampede";
/// The longest wait for everything to be ready; the first time foreign images are pulled.
const READY_LIMIT: &str = "--timeout=10m";
/// From 0.24 on its network obeys NetworkPolicies; for a while one of two questions for a name got lost with them.
const VERSION_MIN: [u32; 2] = [0, 27];
/// What mends a kind that cannot ask anything.
const NO_ENGINE: &str = "is a container engine running? docker info";
/// A stampede that a laptop with three nodes bears.
const BUYERS: &str = "500";
const RATE: &str = "10";
/// The show that never sells out, however often this is run.
const LARGEST: &str = "summer-festival";

/// A cluster on this machine, with kind.
#[derive(Debug, Subcommand)]
pub(crate) enum Kind {
    /// Create the cluster: three nodes, each a zone; the gateway will be at http://127.0.0.1:8080.
    Up,
    /// Build the images and load them into the nodes.
    Load,
    /// Apply secrets and manifests, wait until everything is ready, make three shows.
    Deploy(Deploy),
    /// Buy, send a stampede of buyers, and verify what must always hold.
    Test(Target),
    /// Delete the cluster and everything in it.
    Down,
}

/// Options of `kind deploy`.
#[derive(clap::Args, Debug)]
pub(crate) struct Deploy {
    #[command(flatten)]
    target: Target,
    /// What is applied.
    #[arg(long, value_name = "DIR", default_value = "k8s/overlays/kind")]
    overlay: PathBuf,
}

/// Whom a step is about.
#[derive(clap::Args, Debug)]
pub(crate) struct Target {
    #[command(flatten)]
    place: ClusterPlace,
    /// Where deploy/kind/cluster.yaml maps the gateway's port to.
    #[arg(long, default_value = "http://127.0.0.1:8080")]
    url: String,
}

impl Kind {
    pub(crate) async fn run(self) -> Result<ExitCode> {
        let began = Instant::now();
        let workspace = state::workspace().context("not inside a checkout of Stampede")?;
        let (what, next) = match self {
            Self::Up => {
                up(&workspace).await?;
                ("cluster", "cargo stampede kind load")
            }
            Self::Load => {
                load_images(&workspace).await?;
                progress::note(
                    "processes that run go on with the images they have until: kubectl -n stampede rollout restart \
                     deployment, and the same for statefulset/payments",
                );
                ("images", "cargo stampede kind deploy")
            }
            Self::Deploy(options) => {
                options.run(&workspace).await?;
                ("platform", "cargo stampede kind test")
            }
            Self::Test(target) => {
                test(&target).await?;
                ("test", "cargo stampede kind down, or look around: kubectl -n stampede get pods")
            }
            Self::Down => {
                let delete = program("kind").args(["delete", "cluster", "--name", CLUSTER]);
                run("delete the cluster", delete, "kind get clusters shows what there is").await?;
                ("cluster", "its secrets are kept in .stampede-cluster, its images in target/images")
            }
        };
        progress::done(what, format_args!("done; next: {next}"), began);
        Ok(ExitCode::SUCCESS)
    }
}

async fn up(workspace: &Path) -> Result<()> {
    let version = answer(program("kind").args(["version", "--quiet"]), NO_ENGINE).await?;
    ensure!(
        is_new_enough(&version),
        "kind {} is too old: it takes {}.{}, whose network obeys NetworkPolicies. Newer: https://kind.sigs.k8s.io",
        version.trim(),
        VERSION_MIN[0],
        VERSION_MIN[1]
    );
    let there = answer(program("kind").args(["get", "clusters"]), NO_ENGINE).await?;
    if there.lines().any(|line| line.trim() == CLUSTER) {
        progress::note("the cluster is there already; `cargo stampede kind down` deletes it");
        let nodes = kubectl().args(["wait", "--for=condition=Ready", "nodes", "--all", "--timeout=60s"]);
        let mend = "after a restart of the machine its nodes may be stopped: docker start stampede-control-plane \
                    stampede-worker stampede-worker2; or anew: cargo stampede kind down, then up";
        return run("see that its nodes are ready", nodes, mend).await;
    }
    let config = workspace.join("deploy/kind/cluster.yaml");
    let create = program("kind").args(["create", "cluster", "--wait=5m", "--config"]).arg(config);
    let mend = "is a container engine running (docker info)? Are the ports 8080 and 8081 free (cargo stampede down stops a \
                platform that listens there)? What is left of a failed attempt goes with: cargo stampede kind down";
    run("create a cluster of three nodes", create, mend).await
}

async fn load_images(workspace: &Path) -> Result<()> {
    // Before minutes of building.
    let there = answer(program("kind").args(["get", "clusters"]), NO_ENGINE).await?;
    ensure!(
        there.lines().any(|line| line.trim() == CLUSTER),
        "there is no cluster {CLUSTER}: cargo stampede kind up"
    );
    let folder = workspace.join("target/images");
    // Archives of an older version would be loaded as well.
    if folder.is_dir() {
        std::fs::remove_dir_all(&folder).with_context(|| format!("cannot empty {}", folder.display()))?;
    }
    let images = own()?.args(["images", "--archive"]).arg(&folder);
    run("build the images", images, "the message above says what is missing").await?;
    let entries = std::fs::read_dir(&folder).with_context(|| format!("cannot read {}", folder.display()))?;
    let mut archives: Vec<PathBuf> = entries.map(|entry| Ok(entry?.path())).collect::<Result<_>>()?;
    archives.sort();
    ensure!(!archives.is_empty(), "there is no archive in {}", folder.display());
    for archive in archives {
        let load = program("kind").args(["load", "image-archive", "--name", CLUSTER]).arg(archive);
        run("load an image into every node", load, "is the cluster there? cargo stampede kind up").await?;
    }
    Ok(())
}

impl Deploy {
    async fn run(self, workspace: &Path) -> Result<()> {
        let secrets = Secrets::open(&self.target.place.create()?)?;
        let no_cluster = "is the cluster there? cargo stampede kind up";
        let namespace = kubectl().args(["apply", "-f"]).arg(workspace.join("k8s/base/namespace.yaml"));
        run("make the namespace", namespace, no_cluster).await?;

        let manifests: String = cluster::manifests(&secrets)?.iter().map(ToString::to_string).collect();
        // By the server, or they would be kept a second time, in an annotation.
        let apply = kubectl().args(["apply", "--server-side", "-f", "-"]).input(manifests);
        run("apply the secrets (cargo stampede secrets)", apply, no_cluster).await?;

        // A Job cannot be changed.
        let jobs = ["job/provision", "job/postgres-databases", "job/load"];
        let delete = kubectl().args(["delete", "--ignore-not-found"]).args(jobs);
        run("delete the Jobs of an earlier version", delete, no_cluster).await?;

        let apply = kubectl().args(["apply", "-k"]).arg(workspace.join(&self.overlay));
        let mend = "a refused field names its object; kubectl kustomize shows what is applied";
        run("apply the manifests", apply, mend).await?;

        let mend = "who is not ready: kubectl -n stampede get pods; why there are no streams: kubectl -n stampede logs \
                    job/provision; what a state means: the table in docs/guides/kubernetes.md. ErrImagePull of \
                    localhost/stampede/…: cargo stampede kind load";
        let wait = kubectl().args(["wait", "--for=condition=complete", "job/provision", READY_LIMIT]);
        run("wait for streams and buckets", wait, mend).await?;
        let names =
            answer(kubectl().args(["get", "deployment,statefulset", "-o", "name"]), no_cluster).await?;
        ensure!(!names.trim().is_empty(), "nothing was deployed: {} has no workload", self.overlay.display());
        for name in names.split_whitespace() {
            let wait = kubectl().args(["rollout", "status", name, READY_LIMIT]);
            run("wait until it is ready", wait, mend).await?;
        }
        let token = secrets.operator_token()?;
        let seed = own()?.secret("OPERATOR_TOKEN", token).args(["seed", "--url", &self.target.url]);
        let mend = "the gateway is ready: does something else listen at its port of this machine?";
        run("make three shows", seed, mend).await
    }
}

/// One purchase, then many, then the verifier over forwarded ports.
async fn test(target: &Target) -> Result<()> {
    let (state, url) = (target.place.create()?, target.url.as_str());
    // At that address there may be somebody else, such as `up`.
    let not_deployed = "is it deployed? cargo stampede kind deploy";
    run("see that it is in the cluster", kubectl().args(["get", "deployment/gateway"]), not_deployed).await?;
    let secrets = Secrets::open(&state)?;
    let not_there =
        "is it ready? kubectl -n stampede get pods; if it was never deployed: cargo stampede kind deploy";
    run("buy two tickets", own()?.args(["buy", "--url", url, "--show", LARGEST]), not_there).await?;

    let history =
        state.root().join(format!("history/{}.jsonl", Timestamp::now().to_string().replace(':', "-")));
    let stampede = own()?
        .secret("OPERATOR_TOKEN", secrets.operator_token()?)
        .args(["load", "--url", url, "--buyers", BUYERS, "--rate", RATE, "--state"])
        .arg(state.root())
        .arg("--history")
        .arg(&history);
    run("send a stampede of buyers", stampede, "the timeline of an order says what became of it").await?;

    let verify = own()?
        .args(["verify", "--context", CONTEXT, "--state"])
        .arg(state.root())
        .arg("--history")
        .arg(&history);
    run("verify what must always hold", verify, "the report above names the rule that is broken").await
}

fn kubectl() -> Run {
    kubectl_in(CONTEXT)
}

fn kubectl_in(context: &str) -> Run {
    program("kubectl").args([&format!("--context={context}"), "--namespace", NAMESPACE])
}

/// `0.31.0`, as `kind version --quiet` says it; a development version has more behind it.
fn is_new_enough(version: &str) -> bool {
    let mut numbers =
        version.trim().trim_start_matches('v').split('.').map(|part| part.parse::<u32>().unwrap_or(0));
    let version = [numbers.next().unwrap_or(0), numbers.next().unwrap_or(0)];
    version >= VERSION_MIN
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_old_kind_is_told_apart() {
        for (version, new) in
            [("0.31.0\n", true), ("0.27.0", true), ("v1.0.0", true), ("0.26.9", false), ("", false)]
        {
            assert_eq!(is_new_enough(version), new, "{version}");
        }
    }
}
