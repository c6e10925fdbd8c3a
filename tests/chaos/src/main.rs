//! Breaks a real gaocache cluster, in every way that a network, a machine and an operator can, and
//! checks that what was removed is never served again, and that no get fails that needn't.
//!
//! See the README beside this crate for how to run it and how to read what it prints.

mod args;
mod board;
mod calls;
mod cuts;
mod etcd;
mod health;
mod http;
mod kind;
mod ledger;
mod net;
mod node;
mod origin;
mod process;
mod report;
mod scenario;
mod setup;
mod storm;
mod world;

use std::{path::Path, process::ExitCode, sync::Arc};

use anyhow::{Context, Result, bail};
use args::Args;
use clap::Parser;
use net::Network;
use scenario::{Scenario, Stage, Verdict};
use serde_json::json;
use setup::Setup;
use storm::Weather;
use tokio::signal::unix::{SignalKind, signal};
use world::{Folders, World};

/// Members of etcd.
const MEMBERS: usize = 3;

/// A promise was broken.
const BROKEN: u8 = 1;
/// It could not be run to its end.
const UNABLE: u8 = 2;
/// Namespaces aren't allowed here.
const NOT_ALLOWED: u8 = 77;

fn main() -> ExitCode {
    let args = Args::parse();
    if args.list {
        for Scenario { name, promise, .. } in scenario::ALL {
            println!("{name:<22}{promise}");
        }
        return ExitCode::SUCCESS;
    }
    match Network::new(0, 0) {
        Ok(network) => drop(network),
        Err(error) => {
            eprintln!("network namespaces aren't allowed here: {error:#}");
            return ExitCode::from(NOT_ALLOWED);
        }
    }
    if args.probe {
        return ExitCode::SUCCESS;
    }
    let ended = if args.scenario.is_empty() {
        run_storm(&args)
    } else {
        run_scenarios(&args)
    };
    match ended {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(BROKEN),
        Err(error) => {
            eprintln!("{error:#}");
            ExitCode::from(UNABLE)
        }
    }
}

/// Makes a network and runs `work` in its clients' namespace. All of it goes at the end, however
/// that comes.
fn on_network<T: Send>(
    setup: &Setup,
    logs: &Path,
    work: impl AsyncFnOnce(Arc<net::Plan>, Folders) -> Result<T> + Send,
) -> Result<T> {
    // Before the network: so it is deleted when nobody writes any more.
    let data = tempfile::tempdir()?;
    let folders = Folders {
        logs: logs.into(),
        data: data.path().into(),
    };
    let network = Network::new(setup.nodes + setup.spare, MEMBERS)?;
    let plan = network.plan.clone();
    network.as_client(|| {
        // Threads of the runtime are where the thread is that starts them.
        let mut builder = tokio::runtime::Builder::new_multi_thread();
        let runtime = builder.worker_threads(2).enable_all().build()?;
        runtime.block_on(async {
            tokio::select! {
                ended = work(plan, folders) => ended,
                told = interrupted() => bail!("{}", told?),
            }
        })
    })
}

async fn interrupted() -> Result<&'static str> {
    let mut terminate = signal(SignalKind::terminate())?;
    tokio::select! {
        told = tokio::signal::ctrl_c() => told?,
        _ = terminate.recv() => {}
    }
    Ok("interrupted")
}

/// The program under test.
fn program() -> Result<String> {
    let path = std::env::var("GAOCACHE_BIN").context("GAOCACHE_BIN names no program")?;
    let whole = std::fs::canonicalize(&path).with_context(|| path.clone())?;
    Ok(whole.to_string_lossy().into_owned())
}

/// A folder for logs; kept when they are wanted.
fn with_folder(args: &Args, work: impl FnOnce(&Path) -> Result<bool>) -> Result<bool> {
    let folder = tempfile::Builder::new()
        .prefix("gaocache-chaos-")
        .tempdir()?;
    let ended = work(folder.path());
    if args.keep_logs || !matches!(ended, Ok(true)) {
        eprintln!("logs: {}", folder.keep().display());
    }
    ended
}

fn run_storm(args: &Args) -> Result<bool> {
    let program = program()?;
    let seed = args.seed.unwrap_or_else(|| fastrand::u64(0..1_000_000));
    let weather = Weather {
        seconds: args.seconds,
        seed,
        kinds: args.kinds(),
        clients: args.clients,
    };
    let setup = storm::setup(usize::from(args.nodes), seed, &weather.kinds);
    println!(
        "seed {seed}, {} nodes, {} replicas",
        setup.nodes, setup.replicas
    );
    with_folder(args, |folder| {
        on_network(&setup, folder, async |plan, folders| {
            let world = World::new(setup.clone(), plan, &program, folders, 40).await?;
            let ended = storm::run(&world, &weather).await;
            println!("{}", report::text(&world));
            if args.json {
                println!("{}", report::json(&world, &weather));
            }
            ended.map(|()| world.ledger.broken().is_empty())
        })
    })
}

fn run_scenarios(args: &Args) -> Result<bool> {
    let program = program()?;
    let mut verdicts = Vec::new();
    let ended = with_folder(args, |folder| {
        for scenario in chosen(&args.scenario)? {
            let folder = folder.join(scenario.name);
            std::fs::create_dir(&folder)?;
            let verdict = play(scenario, &program, &folder)?;
            print!("{}", verdict.text());
            verdicts.push(verdict);
        }
        Ok(verdicts.iter().all(|verdict| verdict.failures.is_empty()))
    });
    if args.json {
        let verdicts: Vec<_> = verdicts.iter().map(Verdict::json).collect();
        println!("{}", json!(verdicts));
    }
    ended
}

fn chosen(names: &[String]) -> Result<Vec<&'static Scenario>> {
    if names.iter().any(|name| name == "all") {
        return Ok(scenario::ALL.iter().collect());
    }
    let found = names.iter().map(|name| {
        let found = scenario::ALL.iter().find(|it| it.name == name);
        found.with_context(|| format!("no scenario {name}; --list has them all"))
    });
    found.collect()
}

fn play(scenario: &Scenario, program: &str, logs: &Path) -> Result<Verdict> {
    let setup = (scenario.setup)();
    on_network(&setup, logs, async |plan, folders| {
        let world = World::new(setup.clone(), plan, program, folders, 2).await?;
        let mut stage = Stage::new(world);
        let ended = (scenario.run)(&mut stage).await;
        Ok(stage.end(scenario, ended))
    })
}
