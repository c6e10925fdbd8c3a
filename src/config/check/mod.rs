//! Checks that involve more than one setting, or files that a setting names.
//!
//! A check is skipped if a setting that it depends on is invalid: its result would be a guess.

mod groups;
mod listeners;
mod members;
mod warnings;

use std::path::Path;

pub(super) use groups::leftovers;
pub(super) use warnings::warnings;

use super::{pem, problem::Problem, settings::Config, unsure::Unsure};
use crate::telemetry::log;

/// Every inconsistency between settings.
pub(super) fn together(settings: &Config, unsure: &Unsure) -> Vec<Problem> {
    let mut checks = Checks {
        unsure,
        problems: Vec::new(),
    };
    checks.node(settings);
    checks.registry(settings);
    checks.etcd(settings);
    checks.peer(settings);
    checks.listeners(settings);
    checks.auth(settings);
    if let Err(error) = log::check(&settings.log.level) {
        checks.wrong("log.level", &[], error.message());
    }
    checks.file("trace.ca", &settings.trace.ca, pem::certificates);
    checks.groups(settings);
    checks.in_flight(settings);
    checks.problems
}

struct Checks<'a> {
    unsure: &'a Unsure,
    problems: Vec<Problem>,
}

impl Checks<'_> {
    /// Notes what is wrong with a setting, unless it or one of those that the check `rests_on` was
    /// given wrong in the first place.
    fn wrong(&mut self, name: &str, rests_on: &[&str], reason: impl Into<String>) {
        let mut all = rests_on.iter().chain(std::iter::once(&name));
        if all.any(|name| self.unsure.has(name)) {
            return;
        }
        self.problems.push(Problem::of(name, reason));
    }

    /// Checks what a file contains, if the setting names one. Returns whether there is one that can
    /// be used.
    fn file(&mut self, name: &str, path: &Path, check: fn(&Path) -> Result<(), String>) -> bool {
        if path.as_os_str().is_empty() {
            return false;
        }
        let checked = check(path);
        if let Err(reason) = &checked {
            self.wrong(name, &[], reason);
        }
        checked.is_ok()
    }

    /// Checks that neither of a certificate and its key is missing.
    fn both(&mut self, section: &str, cert: &Path, key: &Path) {
        if cert.as_os_str().is_empty() != key.as_os_str().is_empty() {
            let reason = "cert and key must be set together";
            let (cert, key) = (format!("{section}.cert"), format!("{section}.key"));
            self.wrong(&cert, &[&key], reason);
        }
    }

    /// Checks a certificate, its key, and that they belong together. Returns whether they can be
    /// used.
    fn identity(
        &mut self,
        section: &str,
        cert: &Path,
        key: &Path,
        check: fn(&Path) -> Result<(), String>,
    ) -> bool {
        let (cert_name, key_name) = (format!("{section}.cert"), format!("{section}.key"));
        let has_cert = self.file(&cert_name, cert, check);
        let has_key = self.file(&key_name, key, pem::private_key);
        if !has_cert || !has_key {
            return false;
        }
        let together = pem::together(cert, key);
        if let Err(reason) = &together {
            self.wrong(&key_name, &[&cert_name], reason);
        }
        together.is_ok()
    }
}
