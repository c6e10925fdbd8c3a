//! A network of namespaces: every party has a subnet of its own behind one router.
//!
//! Links are cut by rules in the router (see [`crate::cuts`]): packets vanish without a word, as in
//! a broken network. All names carry this process's id.

use std::{
    fs::File,
    io::{self, Write},
    net::Ipv4Addr,
    os::fd::AsFd,
    process::{Command, Stdio},
    sync::Arc,
};

use anyhow::{Context, Result, bail};
use rustix::{
    process::{Pid, Signal, kill_process},
    thread::{LinkNameSpaceType, move_into_link_name_space},
};

/// One namespace with one address.
#[derive(Clone, Debug)]
pub struct Party {
    /// The namespace's name.
    pub namespace: String,
    /// Its address.
    pub ip: Ipv4Addr,
}

/// Who is where. Outlives nothing: the namespaces go with [`Network`].
#[derive(Debug)]
pub struct Plan {
    /// The router's namespace.
    pub router: String,
    /// Where clients and the checker run.
    pub client: Party,
    /// Where the origin listens.
    pub origin: Party,
    /// The members of etcd.
    pub members: Vec<Party>,
    /// The nodes, spare ones too.
    pub nodes: Vec<Party>,
}

impl Plan {
    fn new(nodes: usize, members: usize) -> Self {
        let prefix = format!("gc{}", std::process::id());
        let mut last = 0;
        let mut party = |name: &str| {
            last += 1;
            Party {
                namespace: format!("{prefix}-{name}"),
                ip: Ipv4Addr::new(10, 77, last, 2),
            }
        };
        Self {
            router: format!("{prefix}-router"),
            client: party("client"),
            origin: party("origin"),
            members: (0..members).map(|n| party(&format!("e{n}"))).collect(),
            nodes: (0..nodes).map(|n| party(&format!("n{n}"))).collect(),
        }
    }

    fn parties(&self) -> impl Iterator<Item = &Party> {
        [&self.client, &self.origin]
            .into_iter()
            .chain(&self.members)
            .chain(&self.nodes)
    }

    /// The addresses of all nodes.
    pub fn node_ips(&self) -> Vec<Ipv4Addr> {
        self.nodes.iter().map(|party| party.ip).collect()
    }

    /// The addresses of all members of etcd.
    pub fn member_ips(&self) -> Vec<Ipv4Addr> {
        self.members.iter().map(|party| party.ip).collect()
    }
}

/// The namespaces; they go, with everything that runs in them, when this is dropped.
pub struct Network {
    /// Who is where.
    pub plan: Arc<Plan>,
}

impl Network {
    /// Makes the namespaces and joins them.
    ///
    /// # Errors
    /// What `ip` said.
    pub fn new(nodes: usize, members: usize) -> Result<Self> {
        let network = Self {
            plan: Arc::new(Plan::new(nodes, members)),
        };
        network.build()?;
        Ok(network)
    }

    fn build(&self) -> Result<()> {
        let router = &self.plan.router;
        let mut outside = format!("netns add {router}\n");
        let mut at_router = String::from("link set lo up\n");
        for (number, Party { namespace, ip }) in self.plan.parties().enumerate() {
            outside += &format!(
                "netns add {namespace}\n\
                 link add v{number} netns {router} type veth peer name eth0 netns {namespace}\n"
            );
            let gateway = gateway(*ip);
            at_router += &format!("addr add {gateway}/30 dev v{number}\nlink set v{number} up\n");
        }
        batch(None, &outside)?;
        batch(Some(router), &at_router)?;
        for Party { namespace, ip } in self.plan.parties() {
            let gateway = gateway(*ip);
            let lines = format!(
                "link set lo up\naddr add {ip}/30 dev eth0\nlink set eth0 up\n\
                 route add default via {gateway}\n"
            );
            batch(Some(namespace), &lines)?;
        }
        let forward = "echo 1 > /proc/sys/net/ipv4/ip_forward";
        run(&["netns", "exec", router, "sh", "-c", forward])
    }

    /// Runs `work` on a thread inside the clients' namespace, as are all threads and processes that
    /// it starts.
    ///
    /// # Errors
    /// If the thread can't enter the namespace.
    pub fn as_client<T: Send>(&self, work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
        inside(&self.plan.client.namespace, work)
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        let parties = self.plan.parties().map(|party| &party.namespace);
        for namespace in parties.chain([&self.plan.router]) {
            kill_all(namespace);
            let deleted = Command::new("ip")
                .args(["netns", "del", namespace])
                .stderr(Stdio::null())
                .status();
            drop(deleted);
        }
    }
}

/// The router's address on a party's subnet.
fn gateway(ip: Ipv4Addr) -> Ipv4Addr {
    let [a, b, c, _] = ip.octets();
    Ipv4Addr::new(a, b, c, 1)
}

/// Kills what still runs in a namespace of ours. This process may have threads there.
fn kill_all(namespace: &str) {
    let Ok(listed) = Command::new("ip")
        .args(["netns", "pids", namespace])
        .stderr(Stdio::null())
        .output()
    else {
        return;
    };
    for line in String::from_utf8_lossy(&listed.stdout).lines() {
        let Some(pid) = line.trim().parse().ok().and_then(Pid::from_raw) else {
            continue;
        };
        if pid != rustix::process::getpid() {
            let _ = kill_process(pid, Signal::KILL);
        }
    }
}

/// Runs `work` on a thread inside a namespace. Sockets stay where they were made.
///
/// # Errors
/// If the namespace can't be entered, or what `work` ends with.
pub fn inside<T: Send>(namespace: &str, work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            let file = File::open(format!("/run/netns/{namespace}"))
                .with_context(|| format!("namespace {namespace}"))?;
            move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network))
                .with_context(|| format!("can't enter {namespace}"))?;
            work()
        });
        // A panic goes on here, where the network is dropped on its way.
        thread
            .join()
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

fn run(args: &[&str]) -> Result<()> {
    let done = Command::new("ip").args(args).output().context("ip")?;
    if !done.status.success() {
        let said = String::from_utf8_lossy(&done.stderr);
        bail!("ip {}: {}", args.join(" "), said.trim());
    }
    Ok(())
}

fn batch(namespace: Option<&str>, lines: &str) -> Result<()> {
    let mut command = Command::new("ip");
    if let Some(namespace) = namespace {
        command.args(["-n", namespace]);
    }
    let mut child = command
        .args(["-batch", "-"])
        .stdin(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .context("ip (iproute2)")?;
    let written: io::Result<()> = match child.stdin.take() {
        Some(mut pipe) => pipe.write_all(lines.as_bytes()),
        None => Ok(()),
    };
    let done = child.wait_with_output()?;
    if !done.status.success() {
        bail!("ip: {}", String::from_utf8_lossy(&done.stderr).trim());
    }
    written.context("ip")
}
