//! The log and the traces as the settings have them.

use crate::{
    config::{Config, LogFormat, LogSettings, Sampler, TraceSettings, file, seconds},
    telemetry::{
        exporter::ExporterRules,
        log::LogRules,
        process::{self, Telemetry},
        requests::RequestLog,
        trace::Sampling,
    },
};
use gaocache_core::error::Result;

/// Which requests have spans.
pub(super) fn sampling(settings: &TraceSettings) -> Sampling {
    let (ratio, parent_based) = match settings.sampler {
        Sampler::ParentBasedRatio => (settings.sample_ratio, true),
        Sampler::ParentBasedAlwaysOn => (1.0, true),
        Sampler::ParentBasedAlwaysOff => (0.0, true),
        Sampler::Ratio => (settings.sample_ratio, false),
        Sampler::AlwaysOn => (1.0, false),
        Sampler::AlwaysOff => (0.0, false),
    };
    Sampling {
        ratio: settings.is_on().then_some(ratio),
        parent_based,
        keys: settings.keys,
        trusts_clients: settings.trust_clients,
    }
}

/// What the log shows.
fn log(settings: &LogSettings) -> LogRules {
    LogRules {
        level: settings.level.clone(),
        json: settings.format == LogFormat::Json,
        keys: settings.keys,
        requests: request_log(settings),
    }
}

/// What the log shows of requests.
pub(in crate::node) fn request_log(settings: &LogSettings) -> RequestLog {
    RequestLog {
        logged: settings.requests,
        slow: seconds(settings.slow_seconds),
        per_second: settings.max_requests_per_second,
    }
}

/// Where spans are sent; `None`: there are none.
fn exporter(settings: &TraceSettings, instance: &str) -> Option<ExporterRules> {
    settings.is_on().then(|| ExporterRules {
        endpoint: settings.endpoint.clone(),
        ca: file(&settings.ca),
        service_name: settings.service_name.clone(),
        instance: instance.to_owned(),
        max_queue: settings.max_queue,
        timeout: seconds(settings.timeout_seconds),
    })
}

/// Starts the log, and the exporter of spans where the settings have one, for the whole process.
/// `instance` distinguishes this process from others.
///
/// # Errors
/// As `process::start`.
pub fn start_telemetry(config: &Config, instance: &str) -> Result<Telemetry> {
    let spans = exporter(&config.trace, instance);
    process::start(&log(&config.log), spans.as_ref())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::loopback;

    #[test]
    fn samplers_are_shares_with_or_without_the_caller_s_say() {
        let on = "trace.endpoint=http://127.0.0.1:4317";
        let of = |further: &[&str]| {
            let settings = loopback("n", further).expect("good settings");
            let sampling = sampling(&settings.trace);
            (sampling.ratio, sampling.parent_based)
        };
        for (sampler, wanted) in [
            ("parentbased_traceidratio", (Some(0.25), true)),
            ("parentbased_always_on", (Some(1.0), true)),
            ("parentbased_always_off", (Some(0.0), true)),
            ("traceidratio", (Some(0.25), false)),
            ("always_on", (Some(1.0), false)),
            ("always_off", (Some(0.0), false)),
        ] {
            let sampler = format!("trace.sampler={sampler}");
            let given = of(&[on, "trace.sample_ratio=0.25", &sampler]);
            assert_eq!(given, wanted, "{sampler}");
        }
        let always = "trace.sampler=always_on";
        assert_eq!(of(&[always]), (None, false), "no endpoint");
        let off = of(&[on, always, "trace.enabled=false"]);
        assert_eq!(off, (None, false), "switched off");
    }
}
