//! `gaocache serve`

use tokio::sync::mpsc;

use super::{
    failure::Failure,
    reload::{Reloader, warn},
    signals::{Hangup, Signals},
    sources::ConfigArgs,
};
use crate::node::{NodeBuilder, configured::start_telemetry};

pub(super) async fn serve(args: &ConfigArgs) -> Result<(), Failure> {
    let loaded = args.load()?;
    let settings = loaded.settings.clone();
    let telemetry = start_telemetry(&settings, &settings.node.id)?;
    warn(&loaded.warnings);
    let (hang_up, hangups) = mpsc::channel(1);
    let signals = Signals::listen(Hangup::Tells(hang_up))?;
    let stop = signals.clone().received(1);
    let served = async {
        let node = NodeBuilder::configured(&settings)?.bind().await?;
        let (reloader, reloads) = Reloader::new(args, loaded, hangups);
        let node = node.with_reloads(reloads);
        let reloading = reloader.run(node.live());
        let drained = tokio::select! {
            drained = node.run_and_drain(stop) => drained?,
            never = reloading => match never {},
        };
        match drained {
            true => Ok(()),
            false => Err(Failure::Failed(
                "stopped before the drain was complete; the log says why".into(),
            )),
        }
    };
    let result = tokio::select! {
        result = served => result,
        () = signals.received(2) => Err(Failure::Failed(
            "stopped at the second signal, without finishing the drain".into(),
        )),
    };
    telemetry.flush();
    result
}
