//! The rows of the table: which servers are beside each other, and how they are asked.

use crate::{
    arguments::Arguments,
    cluster::{self, Node},
    grpc::{self, Ask},
    keys::{Keys, key},
    lines::{self, Protocol},
    process::{CLIENTS, Cpu, Process, SERVERS},
    reference,
    report::Table,
    round::{Course, FOUR_BY_FOUR, FOUR_BY_SIXTEEN, Round, SIXTY_FOUR_BY_ONE, Shape},
};

const KEYS: usize = 10_000;
const LARGE: usize = 64 << 10;
/// Enough to be more than caches of the processor hold.
const LARGE_KEYS: usize = 400;
/// Keys of one `GetMany`.
const MANY: usize = 100;
/// Neither node keeps copies of what the other owns.
const NO_COPIES: &str = "cache.hot_after_requests=0";

/// How a server is asked.
enum Driver {
    Grpc(grpc::Client, Ask),
    Lines(lines::Client, Protocol),
    Loop(String),
}

/// A server in a row.
struct Contender {
    name: &'static str,
    ids: Vec<u32>,
    driver: Driver,
    keys: Keys,
    size: usize,
    /// Keys that nobody has asked for yet begin at this number, where each get has to be a miss.
    fresh: Option<usize>,
    asked: usize,
}

impl Contender {
    fn new(name: &'static str, ids: Vec<u32>, driver: Driver, keys: &Keys, size: usize) -> Self {
        let (keys, fresh, asked) = (keys.clone(), None, 0);
        Self {
            name,
            ids,
            driver,
            keys,
            size,
            fresh,
            asked,
        }
    }

    async fn round(&mut self, gets: usize) -> Round {
        if let Some(first) = &mut self.fresh {
            self.keys = Keys::once(
                (*first..*first + gets)
                    .map(|it| key(self.size, it))
                    .collect(),
            );
            *first += gets;
        }
        let before = Cpu::of(&self.ids);
        let course = Course::new(self.asked, gets);
        self.asked += gets;
        let each = match &mut self.driver {
            Driver::Grpc(client, ask) => {
                client.run(&course, &self.keys, *ask).await;
                ask.keys()
            }
            Driver::Lines(client, protocol) => {
                client.run(&course, &self.keys, *protocol, self.size).await;
                1
            }
            Driver::Loop(address) => {
                let began = tokio::time::Instant::now();
                reference::ask_loop(address, gets, self.size).await;
                course.ended(began);
                gets
            }
        };
        course.round(&self.ids, &before, each)
    }

    /// Gets each key once.
    async fn warm(&mut self) {
        let keys = Keys::once(self.keys.all().to_vec());
        let usual = std::mem::replace(&mut self.keys, keys);
        let each = match &self.driver {
            Driver::Grpc(_, ask) => ask.keys(),
            Driver::Lines(..) | Driver::Loop(_) => 1,
        };
        let asked = self.keys.all().len().div_ceil(each);
        self.round(asked).await;
        self.keys = usual;
    }
}

/// How much is measured.
struct Bench<'a> {
    arguments: &'a Arguments,
    table: Table,
    origin: String,
}

pub async fn run(arguments: &Arguments) -> Table {
    let (_origin, address) = reference(CLIENTS, &["origin"]);
    let mut bench = Bench {
        arguments,
        table: Table::default(),
        origin: address,
    };
    bench.one_node().await;
    bench.hop().await;
    bench.many().await;
    bench.table
}

/// Starts a reference server.
fn reference(core: &str, arguments: &[&str]) -> (Process, String) {
    let this = std::env::current_exe().unwrap();
    let all = [&["reference"], arguments].concat();
    Process::told(core, this.to_str().unwrap(), &all)
}

async fn unary(address: &str, size: usize) -> Driver {
    Driver::Grpc(
        grpc::Client::connect(address, FOUR_BY_SIXTEEN).await,
        Ask::One(size),
    )
}

async fn by_line(address: &str, shape: Shape, protocol: Protocol) -> Driver {
    Driver::Lines(lines::Client::connect(address, shape).await, protocol)
}

fn keys_of(size: usize) -> Vec<String> {
    let count = if size < LARGE { KEYS } else { LARGE_KEYS };
    (0..count).map(|number| key(size, number)).collect()
}

impl Bench<'_> {
    /// Measures a row, in rounds of so many gets when there is little time.
    async fn row(&mut self, name: &str, goal: &str, gets: usize, mut all: Vec<Contender>) {
        if self.arguments.alone {
            all.truncate(1);
        }
        let (rounds, gets) = if self.arguments.quick {
            (5, gets)
        } else {
            (9, gets * 3)
        };
        for contender in &mut all {
            if contender.fresh.is_none() && !matches!(contender.driver, Driver::Loop(_)) {
                contender.warm().await;
            }
            contender.round(gets / 4).await;
        }
        let mut found: Vec<Vec<Round>> = vec![Vec::new(); all.len()];
        let mut order: Vec<usize> = (0..all.len()).collect();
        for _ in 0..rounds {
            fastrand::shuffle(&mut order);
            for at in &order {
                found[*at].push(all[*at].round(gets).await);
            }
        }
        let names = all.iter().map(|it| it.name);
        let servers = names.zip(found).collect();
        self.table.add(name, goal, servers);
    }

    fn wants(&self, name: &str) -> bool {
        name.contains(&self.arguments.only)
    }

    async fn one_node(&mut self) {
        const GRPC: [(&str, &str, usize, usize); 3] = [
            ("gRPC hit, 100 B", "≤ 0.9 × raw h2", 100, 30_000),
            ("gRPC hit, 1 KiB", "≤ 0.9 × raw h2", 1024, 30_000),
            ("gRPC hit, 64 KiB", "≤ 1.0 × raw h2", LARGE, 6_000),
        ];
        let program = &self.arguments.gaocache;
        let node = cluster::nodes(program, 1, &self.origin, &[])
            .await
            .remove(0);
        for (name, goal, size, gets) in GRPC {
            if self.wants(name) {
                self.grpc_hit(&node, (name, goal), size, gets).await;
            }
        }
        self.http_hit(&node).await;
        self.redis_hit(&node).await;
        self.miss(&node).await;
    }

    async fn grpc_hit(
        &mut self,
        node: &Node,
        (name, goal): (&str, &str),
        size: usize,
        gets: usize,
    ) {
        let keys = Keys::zipf(keys_of(size));
        let ids = node.process.ids();
        let driver = unary(&node.grpc, size).await;
        let mut all = vec![Contender::new("gaocache", ids, driver, &keys, size)];
        let mut processes = Vec::new();
        for (name, kind) in [
            ("raw h2", "h2"),
            ("tonic", "tonic"),
            ("tonic, current-thread", "tonic-current-thread"),
        ] {
            let (process, address) = reference(SERVERS, &[kind]);
            let driver = unary(&address, size).await;
            all.push(Contender::new(name, process.ids(), driver, &keys, size));
            processes.push(process);
        }
        self.row(name, goal, gets, all).await;
    }

    async fn http_hit(&mut self, node: &Node) {
        let (name, size) = ("HTTP/1.1 hit, 100 B", 100);
        if !self.wants(name) {
            return;
        }
        let keys = Keys::zipf(keys_of(size));
        let driver = by_line(&node.http, SIXTY_FOUR_BY_ONE, Protocol::Http).await;
        let mut all = vec![Contender::new(
            "gaocache",
            node.process.ids(),
            driver,
            &keys,
            size,
        )];
        let nginx = cluster::nginx(&self.origin).await;
        match &nginx {
            Some(nginx) => {
                let driver = by_line(&nginx.address, SIXTY_FOUR_BY_ONE, Protocol::Http).await;
                let ids = nginx.process.ids();
                all.push(Contender::new("nginx", ids, driver, &keys, size));
            }
            None => self
                .table
                .skip(name, "nginx is not installed (tools/ensure-nginx)"),
        }
        self.row(name, "≤ 0.9 × nginx", 30_000, all).await;
    }

    async fn redis_hit(&mut self, node: &Node) {
        const SIZE: usize = 100;
        let keys = Keys::zipf(keys_of(SIZE));
        let redis = cluster::redis().await;
        if let Some(redis) = &redis {
            lines::store(&redis.address, keys.all(), SIZE).await;
        }
        for (name, shape, gets) in [
            (
                "Redis get, 100 B, 4 × 16 pipelined",
                FOUR_BY_SIXTEEN,
                300_000,
            ),
            ("Redis get, 100 B, 64 × 1", SIXTY_FOUR_BY_ONE, 80_000),
        ] {
            if !self.wants(name) {
                continue;
            }
            let driver = by_line(&node.redis, shape, Protocol::Redis).await;
            let ids = node.process.ids();
            let mut all = vec![Contender::new("gaocache", ids, driver, &keys, SIZE)];
            match &redis {
                Some(redis) => {
                    let driver = by_line(&redis.address, shape, Protocol::Redis).await;
                    let ids = redis.process.ids();
                    all.push(Contender::new("redis", ids, driver, &keys, SIZE));
                }
                None => self.table.skip(name, "redis-server is not installed"),
            }
            self.row(name, "≤ 1.0 × redis", gets, all).await;
        }
    }

    async fn miss(&mut self, node: &Node) {
        let (name, size) = ("miss over gRPC, loaded over HTTP/1.1, 100 B", 100);
        if !self.wants(name) {
            return;
        }
        let keys = Keys::once(Vec::new());
        let driver = unary(&node.grpc, size).await;
        let mut missing = Contender::new("gaocache", node.process.ids(), driver, &keys, size);
        // Beyond those that other rows have asked for.
        missing.fresh = Some(KEYS);
        let (process, address) = reference(SERVERS, &["loop", &self.origin]);
        let driver = Driver::Loop(address);
        let bare = Contender::new("hyper client", process.ids(), driver, &keys, size);
        self.row(name, "≤ 1.5 × hyper client", 8_000, vec![missing, bare])
            .await;
    }

    async fn hop(&mut self) {
        const HOPS: [(&str, &str, usize, usize); 2] = [
            ("hop, 100 B, both nodes", "a hit + 5", 100, 12_000),
            ("hop, 64 KiB, both nodes", "≤ 0.6 × relay", LARGE, 2_500),
        ];
        if !HOPS.iter().any(|(name, ..)| self.wants(name)) {
            return;
        }
        let program = &self.arguments.gaocache;
        let nodes = cluster::nodes(program, 2, &self.origin, &[NO_COPIES]).await;
        for (name, goal, size, gets) in HOPS {
            if !self.wants(name) {
                continue;
            }
            let mut owned = Vec::new();
            for key in keys_of(size).into_iter().take(2 * LARGE_KEYS) {
                if lines::owner(&nodes[0].http, &key).await.as_deref() == Some("n1") {
                    owned.push(key);
                }
            }
            let keys = Keys::uniform(owned);
            let ids = nodes.iter().flat_map(|it| it.process.ids()).collect();
            let driver = unary(&nodes[0].grpc, size).await;
            let mut all = vec![Contender::new("gaocache", ids, driver, &keys, size)];
            let mut processes = Vec::new();
            for (name, echo, relay) in [
                ("tonic relay", "tonic", "relay"),
                (
                    "tonic relay, current-thread",
                    "tonic-current-thread",
                    "relay-current-thread",
                ),
            ] {
                let (far, address) = reference(SERVERS, &[echo]);
                let (near, address) = reference(SERVERS, &[relay, &address]);
                let ids = [far.ids(), near.ids()].concat();
                let driver = unary(&address, size).await;
                all.push(Contender::new(name, ids, driver, &keys, size));
                processes.extend([far, near]);
            }
            self.row(name, goal, gets, all).await;
        }
    }

    async fn many(&mut self) {
        let (name, size) = (
            "GetMany, 100 keys of 100 B, three nodes, 4 × 4, per key",
            100,
        );
        if !self.wants(name) {
            return;
        }
        let program = &self.arguments.gaocache;
        let nodes = cluster::nodes(program, 3, &self.origin, &[NO_COPIES]).await;
        let keys = Keys::uniform(keys_of(size));
        let ids = nodes.iter().flat_map(|it| it.process.ids()).collect();
        let client = grpc::Client::connect(&nodes[0].grpc, FOUR_BY_FOUR).await;
        let driver = Driver::Grpc(client, Ask::Many(MANY, size));
        let all = vec![Contender::new("gaocache", ids, driver, &keys, size)];
        self.row(name, "≤ 1.0", 1_500, all).await;
    }
}
