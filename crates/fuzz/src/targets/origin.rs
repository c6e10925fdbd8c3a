//! Origins: what the headers of their answers say, and the URLs of keys.

use std::time::Duration;

use gaocache::{
    Error, ErrorKind, Freshness,
    fuzzing::{origin, template::UrlTemplate},
};
use gaocache_core::{
    metadata::{MAX_METADATA_BYTES, Metadata, why_not},
    ports::Timestamp,
};
use http::{HeaderMap, HeaderName};
use percent_encoding::percent_decode_str;

use crate::{memory::bounded, text};

/// Headers of an answer: it lives no longer than anything in them allows, and what is kept of them
/// can be sent on.
pub fn cache_headers(input: &[u8]) {
    let headers = text::headers(input);
    let (freshness, said, again) = bounded(input.len(), 8, 16 << 10, || {
        let kept = ["x-kept", "cache-control"].map(HeaderName::from_static);
        let said = origin::said(&headers, &kept);
        (
            origin::freshness(&headers),
            said,
            origin::retry_after(&headers),
        )
    });
    assert_eq!(freshness, expected(&headers));
    if let Ok(said) = said {
        assert!(said.as_bytes().len() <= MAX_METADATA_BYTES);
        assert!(said.iter().all(|(name, _)| why_not(name).is_none()));
        let arrived = Metadata::from_bytes(said.as_bytes()).expect("a peer takes it");
        assert!(arrived.iter().eq(said.iter()));
    }
    if let Some(again) = again {
        let error = Error::origin_failed("later").with_retry_after(again);
        let left = error.retry_after().expect("it was said");
        assert!(left <= again, "it got longer");
        assert!(Timestamp(1 << 40).after(again) >= Timestamp(1 << 40));
    }
}

fn expected(headers: &HeaderMap) -> Freshness {
    let list = |name: &str| -> Vec<String> {
        let values = headers.get_all(name).iter();
        let texts = values.filter_map(|it| it.to_str().ok().map(str::to_ascii_lowercase));
        let items = texts.flat_map(|it| it.split(',').map(String::from).collect::<Vec<_>>());
        items.map(|it| it.trim().to_owned()).collect()
    };
    let mut lives = [None, None];
    for directive in list("cache-control") {
        let (name, value) = directive.split_once('=').unwrap_or((&directive, ""));
        match name.trim() {
            "no-store" | "no-cache" | "private" => return Freshness::Uncacheable,
            "s-maxage" => shorten(&mut lives[0], seconds(value).unwrap_or(0)),
            "max-age" => shorten(&mut lives[1], seconds(value).unwrap_or(0)),
            _ => {}
        }
    }
    if list("vary").iter().any(|it| it != "accept-encoding") {
        return Freshness::Uncacheable;
    }
    let ages = list("age");
    let age = ages.iter().filter_map(|it| seconds(it)).max().unwrap_or(0);
    match lives[0].or(lives[1]) {
        None => Freshness::Unsaid,
        Some(life) => {
            let ten_years = 10 * 366 * 24 * 60 * 60;
            Freshness::For(Duration::from_secs(life.min(ten_years).saturating_sub(age)))
        }
    }
}

fn shorten(life: &mut Option<u64>, to: u64) {
    *life = Some(life.map_or(to, |it| it.min(to)));
}

/// Digits, perhaps in quotes; `None` if it is no number.
fn seconds(text: &str) -> Option<u64> {
    let digits = text.trim().trim_matches('"');
    let all = !digits.is_empty() && digits.chars().all(|it| it.is_ascii_digit());
    all.then(|| {
        let digit = |sum: u64, it: char| {
            let digit = u64::from(it as u32 - '0' as u32);
            sum.saturating_mul(10).saturating_add(digit)
        };
        digits.chars().fold(0, digit)
    })
}

/// The templates, what the URL of every key begins with, and whether the key may divide it.
const TEMPLATES: [(&str, &str, bool); 6] = [
    ("http://o.test/base/{key}", "http://o.test/base/", false),
    (
        "http://o.test/base/{key}.json",
        "http://o.test/base/",
        false,
    ),
    ("http://o.test/q?id={key}&x=1", "http://o.test/q?id=", false),
    ("https://o.test:8443/{+key}", "https://o.test:8443/", true),
    (
        "http://u:p@o.test/base/{+key}",
        "http://u:p@o.test/base/",
        true,
    ),
    ("http://o.test/base/x{+key}/y", "http://o.test/base/x", true),
];

/// The URL of no key leaves the place that the template gives it, and `{key}` can be read back. The
/// first byte chooses the template.
pub fn url_templates(input: &[u8]) {
    let Some((which, key)) = input.split_first() else {
        return;
    };
    let key = String::from_utf8_lossy(key);
    let (template, begin, divides) = TEMPLATES[usize::from(*which) % TEMPLATES.len()];
    let url = UrlTemplate::new(template).expect("good").expand(&key);
    let url = match url {
        Ok(url) => url,
        Err(error) => {
            assert_eq!(error.kind(), ErrorKind::NotFound, "{error}");
            return;
        }
    };
    assert!(url.as_str().starts_with(begin), "{url} of {key:?}");
    assert_eq!(url.fragment(), None);
    if !divides {
        let (before, after) = template.split_once("{key}").expect("it has one");
        let encoded = url.as_str().strip_prefix(before).expect("its begin");
        let encoded = encoded.strip_suffix(after).expect("its end");
        let decoded = percent_decode_str(encoded).decode_utf8();
        assert_eq!(decoded.expect("text"), key);
    }
}
