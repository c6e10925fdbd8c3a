//! The decision, and the audit of what it allowed and refused.

use std::sync::{
    Arc,
    atomic::{AtomicU8, Ordering},
};

use arc_swap::ArcSwap;
use parking_lot::Mutex;

use super::{
    action::{Action, Actions},
    audit::{Audit, Outcome},
    call::Call,
    caller::{Caller, Entry},
    proof::InForce,
    refusal::Refusal,
    rules::AuthRules,
    who::Who,
};
use crate::{fairness::ClientId, telemetry::metrics::Metrics};
use gaocache_core::error::Result;

/// Who may do what on the listeners of a node. Clones are the same permissions.
#[derive(Clone)]
pub(crate) struct Permissions(Arc<Inner>);

struct Inner {
    /// What everybody may do. A copy of what the rules in force say, which costs a hit one load and
    /// one branch.
    open: AtomicU8,
    in_force: ArcSwap<InForce>,
    /// Held while the rules change: those of a reload, and files that were read for those before.
    changing: Mutex<()>,
    audit: Audit,
    metrics: Arc<Metrics>,
}

impl Permissions {
    /// By these rules, for a node of this id. Blocks while it reads what they name.
    ///
    /// # Errors
    /// [`ErrorKind::Configuration`](gaocache_core::error::ErrorKind::Configuration): what can't be
    /// used.
    pub(crate) fn new(rules: &AuthRules, node: &str, metrics: Arc<Metrics>) -> Result<Self> {
        let dropped = metrics.auth.audit_dropped.clone();
        Ok(Self(Arc::new(Inner {
            open: AtomicU8::new(Actions::of(rules.anonymous.iter().copied()).bits()),
            audit: Audit::start(&rules.audit, node, dropped)?,
            in_force: ArcSwap::from_pointee(InForce::load(rules.clone(), None)?),
            changing: Mutex::new(()),
            metrics,
        })))
    }

    /// Whether everybody may do that, in every group.
    pub(crate) fn is_open(&self, action: Action) -> bool {
        Actions::of_bits(self.0.open.load(Ordering::Relaxed)).contains(action)
    }

    /// Whether a caller may do something in a group; of the node itself, the group is empty.
    ///
    /// A refusal is counted and told to the audit.
    ///
    /// # Errors
    /// Why not.
    pub(crate) fn check(
        &self,
        caller: &Caller,
        action: Action,
        group: &str,
    ) -> Result<(), Refusal> {
        if self.is_open(action) {
            return Ok(());
        }
        let call = Call {
            action,
            name: action.name(),
            group,
            detail: None,
        };
        self.decide(caller, &call)
    }

    /// Does what a call asks for, if it may, and tells the audit how it ended.
    ///
    /// # Errors
    /// The refusal, or what the work ends with.
    pub(crate) async fn run<T>(
        &self,
        caller: &Caller,
        call: Call<'_>,
        work: impl Future<Output = Result<T>>,
    ) -> Result<T> {
        if !self.is_open(call.action) {
            self.decide(caller, &call)?;
        }
        let done = work.await;
        let audit = &self.0.audit;
        if audit.is_on() {
            let outcome = match &done {
                Ok(_) => Outcome::Ok,
                Err(error) => Outcome::Failed(error.kind()),
            };
            let who = self.0.in_force.load().prove(caller).who;
            audit.tell(caller.entry, &who, &call, &outcome);
        }
        done
    }

    /// Tells the audit of what the process has done because of this, such as "SIGHUP".
    #[cfg(feature = "cli")]
    pub(crate) fn done_because<T>(&self, of: &'static str, call: &Call<'_>, done: &Result<T>) {
        let outcome = match done {
            Ok(_) => Outcome::Ok,
            Err(error) => Outcome::Failed(error.kind()),
        };
        let audit = &self.0.audit;
        audit.tell(Entry::Process(of), &Who::Operator, call, &outcome);
    }

    /// Whether the token of a caller who logs in counts, whatever it allows. A refusal is counted
    /// and told to the audit.
    ///
    /// # Errors
    /// Why it doesn't.
    pub(crate) fn log_in(&self, caller: &Caller) -> Result<(), &'static str> {
        let rules = self.0.in_force.load();
        rules.admit(caller).inspect_err(|_| {
            let refusals = &self.0.metrics.auth.refusals;
            let labels = ["login", "unauthenticated"];
            refusals.with_label_values(&labels).inc();
            let (audit, call) = (&self.0.audit, Call::login());
            audit.tell(caller.entry, &Who::Nobody, &call, &Outcome::RefusedLogin);
        })
    }

    /// Whom a caller's requests are counted for.
    pub(crate) fn client(&self, caller: &Caller) -> ClientId {
        if caller.has_proof() {
            let who = self.0.in_force.load().prove(caller).who;
            if let Some(client) = who.client() {
                return client;
            }
        }
        match caller.entry {
            Entry::Network(from) => ClientId::at(from.ip()),
            Entry::Socket { .. } | Entry::Process(_) => ClientId::NOBODY,
        }
    }

    fn decide(&self, caller: &Caller, call: &Call<'_>) -> Result<(), Refusal> {
        let rules = self.0.in_force.load();
        let proof = rules.prove(caller);
        proof
            .allows(call.action, call.group)
            .inspect_err(|refusal| {
                let (action, reason) = (call.action.name(), refusal.reason());
                let refusals = &self.0.metrics.auth.refusals;
                refusals.with_label_values(&[action, reason]).inc();
                let outcome = Outcome::Refused(reason);
                self.0.audit.tell(caller.entry, &proof.who, call, &outcome);
            })
    }

    /// Returns when the audit is written, or the time for it is over.
    pub(crate) async fn flush(&self) {
        self.0.audit.flush().await;
    }

    /// New rules, and what they name, to be put in force by [`Permissions::put_in_force`]. Blocks
    /// while it reads.
    ///
    /// # Errors
    /// As [`Permissions::new`].
    #[cfg(feature = "cli")]
    pub(crate) fn prepare(&self, rules: &AuthRules) -> Result<Prepared> {
        let now = self.0.in_force.load();
        if now.rules == *rules {
            // Keys that were fetched stay.
            return Ok(Prepared(InForce::clone(&now)));
        }
        InForce::load(rules.clone(), Some(&now)).map(Prepared)
    }

    /// Holds calls that begin from now on to these rules.
    #[cfg(feature = "cli")]
    pub(crate) fn put_in_force(&self, Prepared(prepared): Prepared) {
        let _changing = self.0.changing.lock();
        self.store(prepared);
    }

    /// The rules in force, for the task that follows what they name.
    pub(super) fn in_force(&self) -> Arc<InForce> {
        self.0.in_force.load_full()
    }

    /// Puts what was read anew in force, unless the rules have changed meanwhile.
    pub(super) fn refresh(&self, before: &Arc<InForce>, after: InForce) {
        let _changing = self.0.changing.lock();
        if Arc::ptr_eq(before, &self.0.in_force.load()) {
            self.store(after);
        }
    }

    fn store(&self, rules: InForce) {
        let open = Actions::of(rules.rules.anonymous.iter().copied());
        self.0.in_force.store(Arc::new(rules));
        self.0.open.store(open.bits(), Ordering::Relaxed);
    }

    pub(super) fn metrics(&self) -> &Metrics {
        &self.0.metrics
    }
}

/// Rules that can be put in force.
#[cfg(feature = "cli")]
pub(crate) struct Prepared(InForce);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tls::ClientNames;
    use gaocache_core::error::{Error, ErrorKind};

    fn permissions(anonymous: &[Action], grants: &[&str]) -> Permissions {
        let rules = AuthRules {
            anonymous: anonymous.to_vec(),
            grants: grants.iter().map(ToString::to_string).collect(),
            ..AuthRules::default()
        };
        Permissions::new(&rules, "n", Metrics::new().expect("metrics")).expect("good rules")
    }

    fn stranger() -> Caller {
        Caller::new(Entry::Network("10.0.0.7:1".parse().expect("an address")))
    }

    fn named(names: &[&str]) -> Caller {
        let names = names.iter().map(ToString::to_string).collect();
        stranger().with_names(Some(ClientNames(names)))
    }

    fn kind(refused: Result<(), Refusal>) -> Option<ErrorKind> {
        refused.err().map(|refusal| Error::from(refusal).kind())
    }

    #[test]
    fn a_certificate_s_name_has_what_was_granted_to_it_and_no_more() {
        let grants = ["certificate:web.test remove users", "certificate:b read"];
        let permissions = permissions(&[], &grants);
        let of = |caller: &Caller, action, group| kind(permissions.check(caller, action, group));
        let web = named(&["other.test", "web.test"]);
        assert_eq!(of(&web, Action::Remove, "users"), None);
        let denied = Some(ErrorKind::PermissionDenied);
        assert_eq!(of(&web, Action::Remove, "orders"), denied);
        assert_eq!(of(&web, Action::Read, "users"), denied);
        assert_eq!(
            of(&named(&["web.test.evil"]), Action::Remove, "users"),
            denied
        );
        let unknown = Some(ErrorKind::Unauthenticated);
        assert_eq!(of(&stranger(), Action::Remove, "users"), unknown);
        // The roles of all names add up.
        assert_eq!(
            of(&named(&["b", "web.test"]), Action::Remove, "users"),
            None
        );
        assert_eq!(of(&named(&["b", "web.test"]), Action::Read, "users"), None);
    }

    #[test]
    fn what_everybody_may_needs_no_proof_and_the_socket_needs_none_at_all() {
        let permissions = permissions(&[Action::Read], &[]);
        assert_eq!(
            kind(permissions.check(&stranger(), Action::Read, "any")),
            None
        );
        let token = stranger().with_token(Some("wrong".into()));
        assert_eq!(kind(permissions.check(&token, Action::Read, "any")), None);
        let socket = Caller::new(Entry::Socket { uid: Some(1) });
        for action in Action::ALL {
            assert_eq!(
                kind(permissions.check(&socket, action, "")),
                None,
                "{action}"
            );
            let open = permissions.is_open(action);
            assert_eq!(open, action == Action::Read, "{action}");
        }
    }

    #[test]
    fn requests_are_counted_for_whoever_has_proven_to_be_somebody_and_else_for_the_address() {
        let permissions = permissions(&[Action::Read], &["certificate:web.test remove users"]);
        let client = |caller: &Caller| permissions.client(caller);
        let address = client(&stranger());
        assert_eq!(
            address,
            ClientId::at("10.0.0.7".parse().expect("an address"))
        );
        assert_eq!(
            client(&named(&["web.test"])),
            ClientId::named("certificate", "web.test")
        );
        let wrong = stranger().with_token(Some("wrong".into()));
        assert_eq!(
            client(&wrong),
            address,
            "a token that nobody knows proves nothing"
        );
        let socket = Caller::new(Entry::Socket { uid: None });
        assert_eq!(client(&socket), ClientId::NOBODY);
    }

    #[test]
    fn a_refusal_tells_neither_the_token_nor_what_rules_a_terminal() {
        let permissions = permissions(&[], &[]);
        let caller = stranger().with_token(Some("geheim".into()));
        let refused = permissions.check(&caller, Action::Purge, "a\n\u{1b}[2J");
        let error = Error::from(refused.expect_err("nobody may"));
        let told = error.message();
        assert!(
            told.contains("'purge'") && !told.contains("geheim"),
            "{told}"
        );
        assert!(!told.contains(char::is_control), "{told:?}");
    }
}
