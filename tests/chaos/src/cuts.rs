//! Links that are cut: rules in the router that let packets vanish.

use std::{collections::HashMap, net::Ipv4Addr, process::Stdio, sync::Arc};

use anyhow::{Context, Result, bail};
use tokio::{io::AsyncWriteExt, process::Command, sync::Mutex};

use crate::net::Plan;

/// One direction of a link: from whom to whom.
pub type Link = (Ipv4Addr, Ipv4Addr);

/// Every direction from one of `from` to one of `to`.
pub fn one_way(from: &[Ipv4Addr], to: &[Ipv4Addr]) -> Vec<Link> {
    let pairs = from.iter().flat_map(|&a| to.iter().map(move |&b| (a, b)));
    pairs.filter(|(a, b)| a != b).collect()
}

/// Both directions between `these` and `those`.
pub fn both_ways(these: &[Ipv4Addr], those: &[Ipv4Addr]) -> Vec<Link> {
    let mut links = one_way(these, those);
    links.extend(one_way(those, these));
    links
}

/// The links that are cut at the moment. Faults overlap: a link is open again when the last who cut
/// it has mended it.
pub struct Cuts {
    plan: Arc<Plan>,
    counts: Mutex<HashMap<Link, usize>>,
}

impl Cuts {
    /// All links open.
    pub fn new(plan: Arc<Plan>) -> Self {
        Self {
            plan,
            counts: Mutex::default(),
        }
    }

    /// Cuts these links.
    ///
    /// # Errors
    /// What `ip` said.
    pub async fn cut(&self, links: &[Link]) -> Result<()> {
        let mut counts = self.counts.lock().await;
        let mut lines = String::new();
        for link in links {
            let count = counts.entry(*link).or_default();
            *count += 1;
            if *count == 1 {
                lines += &rule("add", *link);
            }
        }
        self.route(&lines).await
    }

    /// Mends these links, once for each time that they were cut.
    ///
    /// # Errors
    /// What `ip` said.
    pub async fn mend(&self, links: &[Link]) -> Result<()> {
        let mut counts = self.counts.lock().await;
        let mut lines = String::new();
        for link in links {
            let Some(count) = counts.get_mut(link) else {
                continue;
            };
            *count -= 1;
            if *count == 0 {
                counts.remove(link);
                lines += &rule("del", *link);
            }
        }
        self.route(&lines).await
    }

    async fn route(&self, lines: &str) -> Result<()> {
        let mut child = Command::new("ip")
            .args(["-n", &self.plan.router, "-batch", "-"])
            .stdin(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .context("ip")?;
        if let Some(mut pipe) = child.stdin.take() {
            pipe.write_all(lines.as_bytes()).await?;
        }
        let done = child.wait_with_output().await?;
        if !done.status.success() {
            bail!("ip rule: {}", String::from_utf8_lossy(&done.stderr).trim());
        }
        Ok(())
    }
}

fn rule(verb: &str, (from, to): Link) -> String {
    format!("rule {verb} pref 1000 from {from} to {to} blackhole\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_is_cut_from_itself() {
        let [a, b] = [Ipv4Addr::new(10, 0, 0, 1), Ipv4Addr::new(10, 0, 0, 2)];
        assert_eq!(one_way(&[a], &[a, b]), [(a, b)]);
        assert_eq!(both_ways(&[a], &[a, b]), [(a, b), (b, a)]);
    }
}
