//! `gaocache serve`

use super::{
    ConfigArgs, Failure,
    signals::{Hangup, Signals},
};
use crate::node::{NodeBuilder, configured::start_telemetry};

pub(super) async fn serve(args: &ConfigArgs) -> Result<(), Failure> {
    let settings = args.load(true)?.settings;
    let telemetry = start_telemetry(&settings, &settings.node.id)?;
    let signals = Signals::listen(Hangup::IsIgnored)?;
    let stop = signals.clone().told(1);
    let served = async {
        let node = NodeBuilder::configured(&settings)?.bind().await?;
        match node.run_and_drain(stop).await? {
            true => Ok(()),
            false => Err(Failure::Failed(
                "stopped, but the drain did not come to its end; the log says why".into(),
            )),
        }
    };
    let result = tokio::select! {
        result = served => result,
        () = signals.told(2) => Err(Failure::Failed(
            "stopped at the second signal, without finishing the drain".into(),
        )),
    };
    telemetry.flush();
    result
}
