//! A whole cluster: network, origin, etcd, nodes, and what is known of their promises.

use std::{path::PathBuf, sync::Arc, time::Duration};

use anyhow::{Context, Result, bail};
use tokio::time::{Instant, sleep};

use crate::{
    board::Board,
    cuts::Cuts,
    etcd::Etcd,
    http::Http,
    ledger::Ledger,
    net::Plan,
    node::{Launch, Node},
    origin::{Origin, PORT},
    setup::Setup,
};

/// Bound on the cluster's being whole after everything was mended.
pub const HEALS_WITHIN: Duration = Duration::from_secs(60);

/// A whole cluster.
pub struct World {
    pub setup: Setup,
    pub plan: Arc<Plan>,
    pub cuts: Cuts,
    pub board: Arc<Board>,
    pub origin: Arc<Origin>,
    pub etcd: Etcd,
    pub nodes: Vec<Arc<Node>>,
    pub ledger: Ledger,
    pub http: Http,
    /// The program under test.
    pub program: String,
    folders: Folders,
}

/// Where the processes write.
pub struct Folders {
    /// May be kept.
    pub logs: PathBuf,
    /// Goes with the cluster: etcd writes much at once.
    pub data: PathBuf,
}

impl World {
    /// Origin and etcd run, no node does yet. So many `lines` are printed of each violation.
    ///
    /// # Errors
    /// If something can't be started.
    pub async fn new(
        setup: Setup,
        plan: Arc<Plan>,
        program: &str,
        folders: Folders,
        lines: usize,
    ) -> Result<Arc<Self>> {
        let board = Arc::new(Board::new());
        let sizes = setup.groups.iter();
        let sizes = sizes.map(|group| (group.name.to_owned(), group.value));
        let origin = Origin::start(&plan.origin, sizes.collect(), board.clone())?;
        let http = Http::new();
        let etcd = Etcd::start(&plan, &folders, http.clone()).await?;
        let mut world = Self {
            cuts: Cuts::new(plan.clone()),
            setup,
            plan,
            board,
            origin,
            etcd,
            nodes: Vec::new(),
            ledger: Ledger::new(lines),
            http,
            program: program.to_owned(),
            folders,
        };
        let numbers = 0..world.plan.nodes.len();
        world.nodes = numbers.map(|number| world.node(number)).collect();
        Ok(Arc::new(world))
    }

    fn node(&self, number: usize) -> Arc<Node> {
        let id = format!("n{number}");
        let party = self.plan.nodes[number].clone();
        let launch = Launch {
            program: self.program.clone(),
            arguments: self.arguments(&self.setup, number),
            clock: self.setup.clocks,
        };
        let (logs, http) = (&self.folders.logs, self.http.clone());
        Arc::new(Node::new(&id, party, launch, logs, http))
    }

    /// The arguments of a node with these settings.
    pub fn arguments(&self, setup: &Setup, number: usize) -> Vec<String> {
        let ip = self.plan.nodes[number].ip.to_string();
        let origin = format!("{}:{PORT}", self.plan.origin.ip);
        setup.arguments(&format!("n{number}"), &ip, &self.etcd.endpoints(), &origin)
    }

    /// Starts these nodes and waits until all that run are one ring.
    ///
    /// # Errors
    /// If they don't become one.
    pub async fn start(&self, numbers: impl IntoIterator<Item = usize>) -> Result<()> {
        for number in numbers {
            let node = &self.nodes[number];
            node.start(&mut *node.process.lock().await)?;
        }
        self.agree(HEALS_WITHIN).await
    }

    /// The nodes that run.
    pub fn running(&self) -> Vec<Arc<Node>> {
        let nodes = self.nodes.iter();
        let running = nodes.filter(|it| it.running.load(std::sync::atomic::Ordering::SeqCst));
        running.cloned().collect()
    }

    /// Resolves when all that run are ready and see each other.
    ///
    /// # Errors
    /// If they don't within `bound`; tells what each sees.
    pub async fn agree(&self, bound: Duration) -> Result<()> {
        let deadline = Instant::now() + bound;
        let running = self.running();
        let mut ids: Vec<String> = running.iter().map(|node| node.id.clone()).collect();
        ids.sort();
        for node in &running {
            if !node.until_ready(deadline).await {
                bail!("{} isn't ready: {}", node.id, self.why_not(node).await);
            }
            while node.ring().await.as_ref() != Some(&ids) {
                if Instant::now() > deadline {
                    let ring = node.ring().await;
                    bail!("{} sees {ring:?}, not {ids:?}", node.id);
                }
                // Between two questions.
                sleep(Duration::from_millis(50)).await;
            }
        }
        Ok(())
    }

    async fn why_not(&self, node: &Node) -> String {
        if let Some(process) = &mut *node.process.lock().await
            && process.has_ended()
        {
            return "its process has ended".into();
        }
        let url = format!("http://{}:9090/readyz", node.party.ip);
        match self.http.get(&url, Duration::from_secs(2)).await {
            Ok(answer) => String::from_utf8_lossy(&answer.body).trim().to_owned(),
            Err(error) => format!("{error:#}"),
        }
    }

    /// How long a lease is.
    pub fn lease(&self) -> Duration {
        Duration::from_secs(self.setup.lease)
    }

    /// The seconds for which values of a key's group may be served, stale ones or others; 0: for
    /// ever.
    pub fn life(&self, key: &str, stale: bool) -> u64 {
        let group = key.split('/').next().unwrap_or_default();
        let found = self.setup.groups.iter().find(|it| it.name == group);
        found.map(|it| it.life(stale)).unwrap_or_default()
    }

    /// Deletes a node's key in etcd by hand.
    ///
    /// # Errors
    /// If etcd doesn't.
    pub async fn delete_key(&self, node: &Node) -> Result<bool> {
        let key = format!("gaocache/{}", node.id);
        self.etcd.delete(&key).await.context("by hand")
    }
}
