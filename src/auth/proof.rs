//! What a caller has proven, and the rules that it is checked against.

use std::sync::Arc;

#[cfg(feature = "cli")]
use super::jwt::Jwt;
use super::{
    action::Action,
    caller::{Caller, Entry},
    grants::{Grant, Grants},
    refusal::Refusal,
    rules::AuthRules,
    tokens::{self, Tokens},
    who::Who,
};
use gaocache_core::error::{Error, ErrorKind, Result};

/// What a caller has proven.
pub(super) struct Proof<'a> {
    pub(super) who: Who,
    grants: Vec<&'a [Grant]>,
    /// Why a token that it sent doesn't count.
    problem: Option<&'static str>,
}

/// The rules in force, and what was read for them.
#[derive(Clone)]
pub(super) struct InForce {
    pub(super) rules: AuthRules,
    grants: Arc<Grants>,
    /// As the file had them.
    pub(super) content: Arc<[u8]>,
    tokens: Arc<Tokens>,
    #[cfg(feature = "cli")]
    pub(super) jwt: Option<Arc<Jwt>>,
}

impl InForce {
    /// Reads what the rules name; blocks meanwhile. Keys for JWTs that are behind a URL come later,
    /// unless they are those of the rules `before`.
    ///
    /// # Errors
    /// [`ErrorKind::Configuration`]: what can't be used.
    #[cfg_attr(not(feature = "cli"), allow(unused_variables))]
    pub(super) fn load(rules: AuthRules, before: Option<&Self>) -> Result<Self> {
        let wrong = |what: String| Error::new(ErrorKind::Configuration, what);
        let grants = Grants::parse(&rules.grants);
        let grants = grants.map_err(|why| wrong(format!("auth.grants: {why}")))?;
        let unread = Self {
            grants: Arc::new(grants),
            content: Arc::default(),
            tokens: Arc::default(),
            #[cfg(feature = "cli")]
            jwt: match (&rules.jwt, before) {
                (same, Some(before)) if *same == before.rules.jwt => before.jwt.clone(),
                (Some(jwt), _) => Some(Arc::new(Jwt::load(jwt)?)),
                (None, _) => None,
            },
            rules,
        };
        let Some(file) = unread.rules.token_file.clone() else {
            return Ok(unread);
        };
        let read = tokens::read(&file).and_then(|content| unread.with_tokens(content));
        read.map_err(|why| wrong(format!("auth.token_file {}: {why}", file.display())))
    }

    /// The same, with the tokens of this file.
    pub(super) fn with_tokens(&self, content: Vec<u8>) -> Result<Self, String> {
        Ok(Self {
            tokens: Arc::new(Tokens::parse(&content)?),
            content: content.into(),
            ..self.clone()
        })
    }

    /// What a caller has proven.
    pub(super) fn prove(&self, caller: &Caller) -> Proof<'_> {
        let mut proof = Proof {
            who: Who::Nobody,
            grants: Vec::new(),
            problem: None,
        };
        if let Entry::Socket { .. } = caller.entry {
            proof.who = Who::Socket;
            return proof;
        }
        for name in caller.names.iter().flat_map(|names| names.0.iter()) {
            let granted = self.grants.certificates.get(name.as_str());
            // The name that is told is the one that counts, if any does.
            if proof.who == Who::Nobody || (granted.is_some() && proof.grants.is_empty()) {
                proof.who = Who::Certificate(name.clone());
            }
            proof.grants.extend(granted.map(Vec::as_slice));
        }
        if let Some(token) = &caller.token {
            match self.bearer(token) {
                Ok((who, granted)) => {
                    proof.who = who;
                    proof.grants.extend(granted);
                }
                Err(problem) => proof.problem = Some(problem),
            }
        }
        proof
    }

    /// Whether the token of a caller who logs in counts.
    ///
    /// # Errors
    /// Why it doesn't.
    pub(super) fn admit(&self, caller: &Caller) -> Result<(), &'static str> {
        let token = caller.token.as_ref().ok_or("the token is too long")?;
        self.bearer(token).map(drop)
    }

    fn bearer(&self, token: &[u8]) -> Result<(Who, Option<&[Grant]>), &'static str> {
        if let Some(token) = self.tokens.find(token) {
            return Ok((Who::Token(token.name.clone()), Some(&token.grants)));
        }
        #[cfg(feature = "cli")]
        if let Some(jwt) = &self.jwt {
            let subject = jwt.subject(token)?;
            let granted = self.grants.subjects.get(subject.as_str());
            return Ok((Who::Subject(subject), granted.map(Vec::as_slice)));
        }
        Err(match self.rules.token_file {
            Some(_) => "the bearer token is not known",
            None => "this node accepts no tokens",
        })
    }
}

impl Proof<'_> {
    /// Whether a caller who has proven this may do that.
    pub(super) fn allows(&self, action: Action, group: &str) -> Result<(), Refusal> {
        let granted = self.grants.iter().copied().flatten();
        if self.who == Who::Socket || granted.into_iter().any(|it| it.allows(action, group)) {
            return Ok(());
        }
        let place = match group {
            "" => String::new(),
            group => {
                let shown: String = group.escape_debug().take(64).collect();
                format!(" for group '{shown}'")
            }
        };
        if self.who == Who::Nobody {
            let problem = self.problem.unwrap_or("the call carried no bearer token");
            return Err(Refusal::Unauthenticated(format!(
                "this needs the role '{action}'{place}, and {problem}"
            )));
        }
        let who = self.who.shown_name();
        Err(Refusal::Denied(format!(
            "{who} lacks the role '{action}'{place}"
        )))
    }
}
