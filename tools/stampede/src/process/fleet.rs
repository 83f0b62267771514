//! All processes of a platform, in tiers: a tier is started when the one below is ready, and stopped before it.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{anyhow, bail};
use futures::future::join_all;
use stampede_supervisor::{RestartPolicy, Restarts};
use tokio::sync::{mpsc, oneshot, watch};
use tokio_util::task::TaskTracker;

use super::identity;
use super::keeper::{Keeper, Request, restart_policy};
use super::spec::Spec;
use crate::run_file::{Board, Entry, Phase};

/// How long a process may take from its start until it is ready.
pub(crate) const READY_LIMIT: Duration = Duration::from_secs(60);
/// Requests that may wait for a keeper that is busy stopping its process.
const REQUESTS_MAX: usize = 4;
/// Lines of a log that are shown when its process is not getting ready.
const TAIL_LINES: usize = 12;

/// See the module. Clones share everything.
#[derive(Clone)]
pub(crate) struct Fleet {
    board: Arc<Board>,
    policy: RestartPolicy,
    keepers: TaskTracker,
    members: Arc<Mutex<Vec<Member>>>,
    gave_up: watch::Sender<Option<String>>,
}

#[derive(Clone)]
struct Member {
    spec: Arc<Spec>,
    tier: usize,
    requests: mpsc::Sender<Request>,
    phase: watch::Receiver<Phase>,
}

impl Fleet {
    pub(crate) fn new(board: Arc<Board>) -> anyhow::Result<Self> {
        Ok(Self {
            board,
            policy: restart_policy()?,
            keepers: TaskTracker::new(),
            members: Arc::default(),
            gave_up: watch::Sender::new(None),
        })
    }

    /// Starts a process and keeps it; does not wait for it.
    pub(crate) fn start(&self, spec: Spec, tier: usize) {
        self.board.add(Entry {
            name: spec.name.clone(),
            kind: spec.kind.clone(),
            identity: None,
            phase: Phase::Starting,
            restarts: 0,
            ports: spec.ports.clone(),
            log: spec.log.clone(),
            stop_signal: spec.stop_signal.as_raw(),
        });
        let (requests, inbox) = mpsc::channel(REQUESTS_MAX);
        let phase = watch::Sender::new(Phase::Starting);
        let member = Member { spec: Arc::new(spec.clone()), tier, requests, phase: phase.subscribe() };
        self.members.lock().unwrap_or_else(PoisonError::into_inner).push(member);
        let keeper = Keeper {
            spec,
            board: Arc::clone(&self.board),
            restarts: Restarts::new(self.policy),
            requests: inbox,
            phase,
            log_before: 0,
        };
        let gave_up = self.gave_up.clone();
        self.keepers.spawn(async move {
            let name = keeper.spec.name.clone();
            if keeper.run().await == Phase::GaveUp {
                gave_up.send_replace(Some(name));
            }
        });
    }

    /// Waits until a process is ready, bounded by [`READY_LIMIT`].
    pub(crate) async fn ready(&self, name: &str) -> anyhow::Result<()> {
        let mut member = self.member(name)?;
        let settled = async {
            let phase =
                member.phase.wait_for(|phase| matches!(phase, Phase::Ready | Phase::GaveUp | Phase::Stopped));
            phase.await.map(|phase| *phase)
        };
        match tokio::time::timeout(READY_LIMIT, settled).await {
            Ok(Ok(Phase::Ready)) => Ok(()),
            Ok(_) => bail!("{name} does not run; its log is {}", member.spec.log.display()),
            Err(_) => {
                let lacks = member.spec.probe.check().await.err().unwrap_or_default();
                let tail = member.spec.log_tail(0, TAIL_LINES);
                bail!("{name} is not ready after {READY_LIMIT:?} ({lacks}). The end of its log:\n{tail}")
            }
        }
    }

    /// Resolves with the name of a process that died too often.
    pub(crate) async fn gave_up(&self) -> String {
        let mut gave_up = self.gave_up.subscribe();
        loop {
            if let Some(name) = gave_up.borrow_and_update().clone() {
                return name;
            }
            if gave_up.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }

    /// Stops and starts every process of that name or kind, one after the other, each until it is ready again.
    /// `empty` is deleted while the process is down.
    pub(crate) async fn restart(&self, name: &str, empty: Option<PathBuf>) -> anyhow::Result<Vec<String>> {
        let chosen: Vec<Member> = self
            .members()
            .into_iter()
            .filter(|member| member.spec.name == name || member.spec.kind == name)
            .collect();
        if chosen.is_empty() {
            bail!("there is no process {name}");
        }
        for member in &chosen {
            let (stopped, is_stopped) = oneshot::channel();
            let request = Request::Restart { empty: empty.clone(), stopped };
            let gone = || anyhow!("{} does not run any more", member.spec.name);
            member.requests.send(request).await.map_err(|_| gone())?;
            is_stopped.await.map_err(|_| gone())?;
            self.ready(&member.spec.name).await?;
        }
        Ok(chosen.into_iter().map(|member| member.spec.name.clone()).collect())
    }

    /// Stops all tiers from the top down; the members of a tier at the same time.
    pub(crate) async fn stop(&self) {
        self.keepers.close();
        let members = self.members();
        for tier in (0..=members.iter().map(|member| member.tier).max().unwrap_or(0)).rev() {
            join_all(members.iter().filter(|member| member.tier == tier).map(Member::stop)).await;
        }
        self.keepers.wait().await;
    }

    /// Ends every service at once, for a person who asked twice. What keeps data (the lowest tiers) still ends
    /// in order.
    pub(crate) fn hurry(&self, above_tier: usize) {
        for entry in self.board.snapshot().processes {
            let is_above = self.member(&entry.name).is_ok_and(|member| member.tier > above_tier);
            if let Some(identity) = entry.identity.filter(|_| is_above) {
                identity.signal(identity::KILL);
            }
        }
    }

    fn members(&self) -> Vec<Member> {
        self.members.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn member(&self, name: &str) -> anyhow::Result<Member> {
        let found = self.members().into_iter().find(|member| member.spec.name == name);
        found.ok_or_else(|| anyhow!("there is no process {name}"))
    }
}

impl Member {
    async fn stop(&self) {
        // A keeper that gave up no longer listens, and its process is gone.
        if self.requests.send(Request::Stop).await.is_ok() {
            let mut phase = self.phase.clone();
            // Bounded by the keeper, which kills what does not end in time; an error says that the keeper is gone.
            let _ = phase.wait_for(|phase| matches!(phase, Phase::Stopped | Phase::GaveUp)).await;
        }
    }
}
