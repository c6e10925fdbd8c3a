//! `gaocache serve`

use tokio::signal::unix::{SignalKind, signal};

use super::{ConfigArgs, Failure};
use crate::{
    config::{ConfigError, Problem},
    node::{NodeBuilder, configured::start_telemetry},
};

pub(super) async fn serve(args: &ConfigArgs) -> Result<(), Failure> {
    let loaded = args.load()?;
    if loaded.settings.groups.is_empty() {
        return Err(ConfigError(vec![Problem {
            name: "groups".into(),
            value: None,
            source: None,
            reason: "at least one [[groups]] with an origin is required".into(),
        }])
        .into());
    }
    let settings = &loaded.settings;
    let telemetry = start_telemetry(settings, &settings.node.id)?;
    let served = async {
        let node = NodeBuilder::configured(settings)?.bind().await?;
        node.run(stop_signal()?).await?;
        Ok(())
    };
    let result = served.await;
    telemetry.flush();
    result
}

/// Resolves on the first SIGTERM or SIGINT.
pub(super) fn stop_signal() -> Result<impl Future<Output = ()>, Failure> {
    let watch = |kind| {
        signal(kind).map_err(|error| {
            Failure::Failed(format!("could not install the signal handler: {error}"))
        })
    };
    let mut terminate = watch(SignalKind::terminate())?;
    let mut interrupt = watch(SignalKind::interrupt())?;
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    })
}
