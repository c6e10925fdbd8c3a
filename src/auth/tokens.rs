//! Bearer tokens, as a file has them: hashed, so that who reads the file can't use them.

use std::{collections::HashSet, path::Path, sync::Arc};

use subtle::ConstantTimeEq;

use super::grants::Grant;

/// The most lines of a file of tokens: each request with a token is compared with all.
const MAX_TOKENS: usize = 1_000;
/// The largest file of tokens, in bytes.
const MAX_FILE_BYTES: u64 = 1 << 20;

/// A token that is known.
#[derive(Debug)]
pub(super) struct Token {
    hash: [u8; 32],
    pub(super) name: Arc<str>,
    pub(super) grants: Vec<Grant>,
}

/// All tokens that are known.
#[derive(Debug, Default)]
pub(super) struct Tokens(Vec<Token>);

/// What such a file contains.
///
/// # Errors
/// Why it can't be read, as a phrase.
pub(super) fn read(path: &Path) -> Result<Vec<u8>, String> {
    bounded(path, MAX_FILE_BYTES)
}

/// Whether a file of tokens can be used.
#[cfg(feature = "cli")]
pub(crate) fn check(path: &Path) -> Result<(), String> {
    Tokens::parse(&read(path)?).map(drop)
}

/// For which tokens a file names a group, and which.
#[cfg(feature = "cli")]
pub(crate) fn named_groups(path: &Path) -> Result<Vec<(String, String)>, String> {
    let tokens = Tokens::parse(&read(path)?)?;
    let named = tokens.0.iter().flat_map(|token| {
        let groups = token.grants.iter().flat_map(Grant::named);
        groups.map(|group| (token.name.to_string(), group))
    });
    Ok(named.collect())
}

/// What a file contains, if it is not larger than that.
pub(super) fn bounded(path: &Path, most: u64) -> Result<Vec<u8>, String> {
    let length = std::fs::metadata(path).map_err(|error| error.to_string())?;
    if !length.is_file() {
        return Err("it is not a file".into());
    }
    if length.len() > most {
        return Err(format!("it is larger than {most} bytes"));
    }
    std::fs::read(path).map_err(|error| error.to_string())
}

impl Tokens {
    /// A line each: `NAME SHA256 ROLES [GROUPS]`, the hash in hexadecimal digits. Empty lines and
    /// those that begin with `#` say nothing. Two lines of one name are two tokens, as while one
    /// replaces the other.
    ///
    /// # Errors
    /// Which line is wrong, and why. The line itself is not quoted: it may hold a token that
    /// somebody forgot to hash.
    pub(super) fn parse(content: &[u8]) -> Result<Self, String> {
        let text = std::str::from_utf8(content).map_err(|_| "it is not text".to_owned())?;
        let (mut tokens, mut hashes) = (Vec::new(), HashSet::new());
        for (number, line) in text.lines().enumerate() {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let wrong = |reason: &str| format!("line {}: {reason}", number + 1);
            let token = Token::parse(line).map_err(|reason| wrong(&reason))?;
            if !hashes.insert(token.hash) {
                return Err(wrong("an earlier line has the same token"));
            }
            if tokens.len() == MAX_TOKENS {
                return Err(wrong(&format!("more than {MAX_TOKENS} tokens")));
            }
            tokens.push(token);
        }
        Ok(Self(tokens))
    }

    /// The token, if it is known. All are compared, so that the time reveals nothing.
    pub(super) fn find(&self, token: &[u8]) -> Option<&Token> {
        if self.0.is_empty() {
            return None;
        }
        let hash = ring::digest::digest(&ring::digest::SHA256, token);
        self.0.iter().fold(None, |found, known| {
            let same = bool::from(known.hash.ct_eq(hash.as_ref()));
            if same { Some(known) } else { found }
        })
    }
}

impl Token {
    fn parse(line: &str) -> Result<Self, String> {
        let mut words = line.split_ascii_whitespace();
        let name = words.next().unwrap_or_default();
        let hash = words.next().and_then(hash).ok_or(
            "write NAME SHA256 ROLES [GROUPS], with the SHA-256 hash of the token in 64 \
             hexadecimal digits",
        )?;
        Ok(Self {
            hash,
            name: name.into(),
            grants: vec![Grant::parse(words)?],
        })
    }
}

fn hash(text: &str) -> Option<[u8; 32]> {
    let mut hash = [0; 32];
    if text.len() != 2 * hash.len() || !text.bytes().all(|it| it.is_ascii_hexdigit()) {
        return None;
    }
    for (byte, digits) in hash.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
        let digits = std::str::from_utf8(digits).ok()?;
        *byte = u8::from_str_radix(digits, 16).ok()?;
    }
    Some(hash)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::auth::Action;

    /// As `printf secret | sha256sum` prints it.
    const SECRET: &str = "2bb80d537b1da3e38bd30361aa855686bde0eacd7162fef6a25fe97bf527a25b";

    #[test]
    fn a_token_is_found_by_its_hash() {
        let file = format!("# ours\n\n  ci {SECRET} remove,purge users\n");
        let tokens = Tokens::parse(file.as_bytes()).expect("tokens");
        let found = tokens.find(b"secret").expect("known");
        assert_eq!(&*found.name, "ci");
        assert!(found.grants[0].allows(Action::Purge, "users"));
        assert!(tokens.find(b"Secret").is_none() && tokens.find(SECRET.as_bytes()).is_none());
    }

    #[test]
    fn a_wrong_line_is_named_and_never_quoted() {
        for wrong in [
            "ci hunter2 read".to_owned(),
            format!("hunter2 {SECRET}"),
            format!("hunter2 {SECRET} rule"),
            format!("a {SECRET} read\nhunter2 {SECRET} read"),
            format!("hunter2 {}zz read", &SECRET[2..]),
        ] {
            let error = Tokens::parse(wrong.as_bytes()).expect_err("wrong");
            assert!(error.starts_with("line "), "{error}");
            assert!(!error.contains("hunter2"), "{error}");
        }
        let line = |number: usize| format!("t{number} {number:064x} read\n");
        let most: String = (0..MAX_TOKENS).map(line).collect();
        assert!(Tokens::parse(most.as_bytes()).is_ok());
        let more = most + &line(MAX_TOKENS);
        assert!(Tokens::parse(more.as_bytes()).is_err());
    }
}
