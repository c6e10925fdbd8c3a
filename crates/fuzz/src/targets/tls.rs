//! Certificates, and who their names make a peer.

use std::{fmt::Write as _, sync::LazyLock};

use base64::{Engine, engine::general_purpose::STANDARD};
use gaocache::fuzzing::tls::{members, names, pem};
use rcgen::{CertificateParams, KeyPair, SanType};

use crate::{memory::bounded, text};

static KEY: LazyLock<KeyPair> = LazyLock::new(|| KeyPair::generate().expect("a key"));

/// What the first byte says: a certificate, one with these names, a file, or patterns (first line)
/// and names.
pub fn certificates(input: &[u8]) {
    let Some((kind, rest)) = input.split_first() else {
        return;
    };
    match kind % 4 {
        0 => certificate(rest),
        1 => issued(rest),
        2 => file(rest),
        _ => patterns(rest),
    }
}

/// Names take no more room than the certificate.
fn certificate(der: &[u8]) {
    if let Ok(names) = bounded(der.len(), 64, 16 << 10, || names(der)) {
        let bytes: usize = names.iter().map(String::len).sum();
        assert!(bytes <= der.len());
    }
}

/// The names of a certificate are those that it was issued for.
fn issued(input: &[u8]) {
    let wanted: Vec<String> = text::texts(input).into_iter().take(8).collect();
    let wanted = wanted
        .into_iter()
        .filter(|it| it.is_ascii() && !it.is_empty());
    let mut params = CertificateParams::default();
    let mut expected = Vec::new();
    for name in wanted {
        let text = name.as_str().try_into().expect("ASCII");
        params.subject_alt_names.push(if name.contains("://") {
            SanType::URI(text)
        } else {
            SanType::DnsName(text)
        });
        expected.push(name);
    }
    let certificate = params.self_signed(&*KEY).expect("issued");
    let mut der = certificate.der().to_vec();
    assert_eq!(names(&der), Ok(expected));
    // A part of one is none.
    der.pop();
    assert!(names(&der).is_err());
}

/// A file never shows what is in it: its lines may be those of a key.
fn file(input: &[u8]) {
    let mut secret = String::from("-----BEGIN PRIVATE KEY-----\n");
    let _ = writeln!(secret, "{}\n", STANDARD.encode("the key itself"));
    let text = [secret.as_bytes(), input].concat();
    let (certificates, key) = bounded(text.len(), 8, 16 << 10, || pem(&text));
    let errors = [certificates.map(drop), key].map(|it| it.err().unwrap_or_default());
    for error in errors {
        assert!(
            !error.contains(&STANDARD.encode("the key itself")),
            "{error}"
        );
    }
}

/// Who matches a pattern has what stands before and after the id, and one label or segment between.
fn patterns(input: &[u8]) {
    let (first, rest) = text::line(input);
    let pattern = String::from_utf8_lossy(first).into_owned();
    let names = text::texts(rest);
    let Ok(found) = members(std::slice::from_ref(&pattern), &names) else {
        return;
    };
    let (mark, is_id) = match pattern.contains("{id}") {
        true => ("{id}", true),
        false => ("*", false),
    };
    let fits = |name: &String| {
        let Some((before, after)) = pattern.split_once(mark) else {
            return (*name == pattern).then(String::new);
        };
        if !is_id && before.is_empty() && after.is_empty() {
            return Some(String::new());
        }
        if name.len() < before.len() + after.len() {
            return None;
        }
        let (begin, rest) = name.split_at_checked(before.len())?;
        let (middle, end) = rest.split_at_checked(rest.len() - after.len())?;
        let divides = if before.contains("://") { "/" } else { "/." };
        let one = !middle.is_empty() && !middle.contains(|it| divides.contains(it));
        (begin == before && end == after && one).then(|| middle.to_owned())
    };
    let fitting: Vec<String> = names.iter().filter_map(fits).collect();
    match found {
        None => assert_eq!(fitting, Vec::<String>::new()),
        Some(None) => assert!(!is_id && !fitting.is_empty()),
        Some(Some(ids)) => {
            assert!(is_id);
            assert!(
                ids.iter()
                    .map(|it| &**it)
                    .eq(fitting.iter().map(|it| &**it))
            );
        }
    }
}
