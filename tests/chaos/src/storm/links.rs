//! Faults of links.

use std::net::Ipv4Addr;

use anyhow::Result;

use super::faults::Fault;
use crate::{
    cuts::{Link, both_ways, one_way},
    health::Ill,
    kind::Kind,
};

impl Fault {
    /// Cuts links, holds, and mends them. `marks` say who suffers.
    async fn cut(&mut self, detail: String, links: &[Link], marks: Vec<Ill>) -> Result<()> {
        let in_force = self.begin(detail);
        self.world.cuts.cut(links).await?;
        self.hold(0.4, 2.5).await;
        self.world.cuts.mend(links).await?;
        drop((in_force, marks));
        Ok(())
    }

    pub(super) async fn etcd_link(&mut self) -> Result<()> {
        let Some(node) = self.node() else {
            return Ok(());
        };
        let (me, etcd) = ([node.party.ip], self.world.plan.member_ips());
        let (links, how) = match self.rng.u8(0..4) {
            0 => (one_way(&me, &etcd), "to etcd"),
            1 => (one_way(&etcd, &me), "from etcd"),
            _ => (both_ways(&me, &etcd), "both ways"),
        };
        let marks = vec![node.links.ill()];
        self.cut(format!("{} {how}", node.id), &links, marks).await
    }

    pub(super) async fn etcd_links(&mut self) -> Result<()> {
        let running = self.world.running().len();
        let most = self.rng.usize(running / 2 + 1..=running.max(1));
        let nodes = self.nodes(most);
        let ips: Vec<Ipv4Addr> = nodes.iter().map(|node| node.party.ip).collect();
        let links = both_ways(&ips, &self.world.plan.member_ips());
        let marks = nodes.iter().map(|node| node.links.ill()).collect();
        let ids: Vec<&str> = nodes.iter().map(|node| &*node.id).collect();
        self.cut(ids.join(" "), &links, marks).await
    }

    pub(super) async fn peer_link(&mut self) -> Result<()> {
        let nodes = self.nodes(2);
        let [a, b] = &*nodes else {
            return Ok(());
        };
        let ends = ([a.party.ip], [b.party.ip]);
        let (links, sign) = match self.kind {
            Kind::PeerLinkOneWay => (one_way(&ends.0, &ends.1), "->"),
            _ => (both_ways(&ends.0, &ends.1), "-"),
        };
        let marks = vec![a.links.ill(), b.links.ill()];
        self.cut(format!("{}{sign}{}", a.id, b.id), &links, marks)
            .await
    }

    pub(super) async fn off_members(&mut self) -> Result<()> {
        let Some(node) = self.node() else {
            return Ok(());
        };
        let links = both_ways(&[node.party.ip], &self.world.plan.node_ips());
        let marks = vec![node.links.ill()];
        self.cut(node.id.clone(), &links, marks).await
    }

    pub(super) async fn off_everything(&mut self) -> Result<()> {
        let Some(node) = self.node() else {
            return Ok(());
        };
        let mut others = self.world.plan.node_ips();
        others.extend(self.world.plan.member_ips());
        let mut marks = vec![node.links.ill()];
        let mut detail = node.id.clone();
        if self.rng.bool() {
            // Without the origin it can't answer what it doesn't hold.
            others.push(self.world.plan.origin.ip);
            marks.push(node.health.ill());
            detail += ", origin too";
        }
        let links = both_ways(&[node.party.ip], &others);
        self.cut(detail, &links, marks).await
    }

    pub(super) async fn etcd_split(&mut self) -> Result<()> {
        let members = self.world.plan.member_ips();
        let (links, detail) = if self.rng.bool() {
            (both_ways(&members, &members), "all apart".to_owned())
        } else {
            let alone = self.rng.usize(0..members.len());
            let links = both_ways(&[members[alone]], &members);
            (links, format!("e{alone} alone"))
        };
        self.cut(detail, &links, Vec::new()).await
    }
}
