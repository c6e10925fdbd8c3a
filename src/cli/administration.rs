//! `gaocache reload` and `gaocache log`: what changes a node that runs.

use clap::Args;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use reqwest::Method;
use serde_json::{Value, json};

use super::{
    admin::AdminArgs,
    failure::Failure,
    output::{print_json, print_line, printable},
};

#[derive(Debug, Args)]
pub(super) struct ReloadArgs {
    /// Print JSON: what changed, and what needs a restart
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    admin: AdminArgs,
}

#[derive(Debug, Args)]
pub(super) struct LogArgs {
    /// The new level, such as `debug`, or a filter such as `info,gaocache::rpc=debug`; without it,
    /// the level is printed
    level: Option<String>,
    /// Print JSON: the level
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    admin: AdminArgs,
}

pub(super) async fn reload(args: &ReloadArgs) -> Result<(), Failure> {
    let admin = args.admin.place().await?;
    let done = admin.ask(Method::POST, "/reload").await;
    let done = done.map_err(|why| admin.failed(why))?;
    let done: Value = serde_json::from_slice(&done)
        .map_err(|error| admin.failed(format!("the answer does not describe a reload: {error}")))?;
    if args.json {
        return print_json(&done);
    }
    let names = |field: &str| {
        let names = done[field].as_array().into_iter().flatten();
        let names: Vec<String> = names
            .filter_map(|it| Some(printable(it.as_str()?)))
            .collect();
        names.join(" ")
    };
    for (title, field) in [
        ("changed", "changed"),
        ("groups added", "groups_added"),
        ("groups removed", "groups_removed"),
        ("needs a restart", "requires_restart"),
    ] {
        let names = names(field);
        if !names.is_empty() {
            print_line(&format!("{title}: {names}"))?;
        }
    }
    for it in done["warnings"].as_array().into_iter().flatten() {
        let text = |field: &str| printable(it[field].as_str().unwrap_or("?"));
        print_line(&format!("warning: {}: {}", text("name"), text("reason")))?;
    }
    print_line("the settings were read again")
}

pub(super) async fn log(args: &LogArgs) -> Result<(), Failure> {
    let admin = args.admin.place().await?;
    let answer = match &args.level {
        Some(level) => {
            let level = utf8_percent_encode(level, NON_ALPHANUMERIC);
            let path = format!("/log?level={level}");
            admin.ask(Method::PUT, &path).await
        }
        None => admin.get("/log").await,
    };
    let level = answer.map_err(|why| admin.failed(why))?;
    let level = String::from_utf8_lossy(&level).trim().to_owned();
    if args.json {
        return print_json(&json!({ "level": level }));
    }
    print_line(&level)
}
