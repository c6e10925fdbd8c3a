//! Where the settings of a node come from: the file, the environment, flags, and the platform.

use std::{
    ffi::OsString,
    path::{Path, PathBuf},
};

use clap::Args;

use super::failure::Failure;
use crate::config::{self, Sources, schema::VARIABLE_PREFIX};

/// The sources of the settings.
#[derive(Clone, Debug, Args)]
pub(super) struct ConfigArgs {
    /// TOML file with settings
    #[arg(long, value_name = "FILE", env = "GAOCACHE_CONFIG_FILE")]
    config: Option<PathBuf>,
    /// Set one setting, such as --set node.zone=a; overrides the file and the environment
    #[arg(long = "set", value_name = "NAME=VALUE")]
    overrides: Vec<String>,
}

impl ConfigArgs {
    /// The settings, if nothing is wrong with them.
    pub(super) fn load(&self) -> Result<config::Loaded, Failure> {
        Ok(self.read().checked()?)
    }

    /// The file, if there is one.
    pub(super) fn file(&self) -> Option<&Path> {
        self.config.as_deref()
    }

    /// Whether anybody gave settings.
    pub(super) fn is_given(&self) -> bool {
        let mut variables = std::env::vars_os().map(|(name, _)| name);
        let is_setting = |name: OsString| name.to_string_lossy().starts_with(VARIABLE_PREFIX);
        self.config.is_some() || !self.overrides.is_empty() || variables.any(is_setting)
    }

    /// The settings, right or wrong.
    pub(super) fn read(&self) -> config::Reading {
        config::read_all(&Sources {
            file: self.config.clone(),
            environment: std::env::vars_os()
                .filter_map(|(name, value)| {
                    Some((name.into_string().ok()?, value.into_string().ok()?))
                })
                .collect(),
            overrides: self.overrides.clone(),
            platform: platform(),
        })
    }
}

/// Settings that Kubernetes or the machine supplies.
fn platform() -> Vec<(String, String, String)> {
    let host = gethostname::gethostname().to_string_lossy().into_owned();
    let mut told = vec![("node.id".to_owned(), host, "host name".to_owned())];
    for (setting, variable) in [("node.id", "POD_NAME"), ("node.advertise_host", "POD_IP")] {
        if let Ok(value) = std::env::var(variable)
            && !value.is_empty()
        {
            let source = format!("environment variable {variable}");
            told.push((setting.to_owned(), value, source));
        }
    }
    let telemetry = opentelemetry(|name| std::env::var(name).ok()).into_iter();
    told.extend(telemetry.map(|(name, value, source)| (name.to_owned(), value, source)));
    told
}

/// OpenTelemetry's standard variables, as settings. An empty variable counts as unset, as the
/// standard requires.
fn opentelemetry(variable: impl Fn(&str) -> Option<String>) -> Vec<(&'static str, String, String)> {
    /// A later entry overrides an earlier one.
    const SETTINGS: [(&str, &str); 9] = [
        ("trace.endpoint", "OTEL_EXPORTER_OTLP_ENDPOINT"),
        ("trace.endpoint", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"),
        ("trace.ca", "OTEL_EXPORTER_OTLP_CERTIFICATE"),
        ("trace.sampler", "OTEL_TRACES_SAMPLER"),
        ("trace.sample_ratio", "OTEL_TRACES_SAMPLER_ARG"),
        ("trace.service_name", "OTEL_SERVICE_NAME"),
        ("trace.max_queue", "OTEL_BSP_MAX_QUEUE_SIZE"),
        ("trace.timeout_seconds", "OTEL_EXPORTER_OTLP_TIMEOUT"),
        ("trace.timeout_seconds", "OTEL_EXPORTER_OTLP_TRACES_TIMEOUT"),
    ];
    let set = |name: &str| variable(name).filter(|value| !value.is_empty());
    let source = |name: &str| format!("environment variable {name}");
    let mut told: Vec<_> = SETTINGS
        .into_iter()
        .filter_map(|(setting, name)| {
            let value = set(name)?;
            let value = match (setting, value.parse::<f64>()) {
                ("trace.timeout_seconds", Ok(millis)) => (millis / 1000.0).to_string(),
                _ => value,
            };
            Some((setting, value, source(name)))
        })
        .collect();
    for (name, off) in [
        ("OTEL_SDK_DISABLED", "true"),
        ("OTEL_TRACES_EXPORTER", "none"),
    ] {
        if set(name).is_some_and(|value| value.eq_ignore_ascii_case(off)) {
            told.push(("trace.enabled", "false".to_owned(), source(name)));
        }
    }
    told
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(variables: &[(&str, &str)]) -> Vec<(&'static str, String)> {
        let variable = |name: &str| {
            let found = variables.iter().find(|(known, _)| *known == name);
            found.map(|(_, value)| (*value).to_owned())
        };
        let told = opentelemetry(variable).into_iter();
        told.map(|(name, value, _)| (name, value)).collect()
    }

    #[test]
    fn opentelemetry_s_variables_are_settings() {
        let value = |variables: &[(&str, &str)], wanted: &str| {
            let mut told = told(variables);
            told.retain(|(name, _)| *name == wanted);
            told.pop().map(|(_, value)| value)
        };
        let both = [
            ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "http://traces:4317"),
            ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://all:4317"),
            ("OTEL_EXPORTER_OTLP_TIMEOUT", "1500"),
            ("OTEL_SERVICE_NAME", ""),
        ];
        assert_eq!(
            value(&both, "trace.endpoint").as_deref(),
            Some("http://traces:4317")
        );
        assert_eq!(
            value(&both, "trace.timeout_seconds").as_deref(),
            Some("1.5")
        );
        assert_eq!(value(&both, "trace.service_name"), None);
        assert_eq!(value(&both, "trace.enabled"), None);
        for off in [
            ("OTEL_SDK_DISABLED", "True"),
            ("OTEL_TRACES_EXPORTER", "none"),
        ] {
            assert_eq!(value(&[off], "trace.enabled").as_deref(), Some("false"));
        }
    }
}
