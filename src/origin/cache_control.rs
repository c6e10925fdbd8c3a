//! How long a response may be kept, as a shared cache reads it (RFC 9111). `docs/http.md` lists the
//! cases.
//!
//! If a response contradicts itself, the shorter lifetime counts. What can't be parsed never makes
//! a lifetime longer.

use std::time::Duration;

use gaocache_core::ports::Freshness;
use reqwest::header::{
    AGE, CACHE_CONTROL, DATE, EXPIRES, HeaderMap, HeaderName, HeaderValue, VARY,
};

/// Longer lifetimes are reduced to this: ten years.
const LONGEST: Duration = Duration::from_secs(10 * 366 * 24 * 60 * 60);

/// What `Cache-Control`, `Expires`, `Age` and `Vary` say of a response.
pub(super) fn freshness(headers: &HeaderMap) -> Freshness {
    let directives = Directives::of(headers);
    if directives.forbidden || varies(headers) {
        return Freshness::Uncacheable;
    }
    let said = directives.shared_max_age.or(directives.max_age);
    let Some(life) = said.or_else(|| expires(headers)) else {
        return Freshness::Unsaid;
    };
    // It has spent that long in caches between here and the origin.
    let life = life.min(LONGEST).saturating_sub(age(headers));
    Freshness::For(life)
}

/// What is left until `Expires`, by the response's own `Date`: clocks differ. What is not a date
/// has expired (5.3). `None` without either.
fn expires(headers: &HeaderMap) -> Option<Duration> {
    let date = |value: &HeaderValue| httpdate::parse_http_date(value.to_str().ok()?.trim()).ok();
    let all = headers.get_all(EXPIRES).iter();
    let sent = headers.get(DATE).and_then(date);
    let lives = all.map(|value| match (date(value), sent) {
        (Some(until), Some(sent)) => Some(until.duration_since(sent).unwrap_or_default()),
        (Some(_), None) => None,
        (None, _) => Some(Duration::ZERO),
    });
    lives.flatten().min()
}

#[derive(Default)]
struct Directives {
    /// It must not be kept, or not be served without asking again.
    forbidden: bool,
    max_age: Option<Duration>,
    shared_max_age: Option<Duration>,
}

impl Directives {
    fn of(headers: &HeaderMap) -> Self {
        let mut all = Self::default();
        for directive in items(headers, CACHE_CONTROL) {
            let (name, value) = directive.split_once('=').unwrap_or((directive, ""));
            let shorter = |known: Option<Duration>| known.into_iter().chain([seconds(value)]).min();
            match name.trim().to_ascii_lowercase().as_str() {
                "no-store" | "no-cache" | "private" => all.forbidden = true,
                "max-age" => all.max_age = shorter(all.max_age),
                "s-maxage" => all.shared_max_age = shorter(all.shared_max_age),
                _ => {}
            }
        }
        all
    }
}

/// The elements of a header that is a list.
fn items(headers: &HeaderMap, name: HeaderName) -> impl Iterator<Item = &str> {
    let values = headers.get_all(name).iter();
    values
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
}

/// A number of seconds. One that can't be read is over at once (RFC 9111, 4.2.1), and one that is
/// too large for any number is as good as for ever (1.2.2).
fn seconds(value: &str) -> Duration {
    let digits = value.trim().trim_matches('"');
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return Duration::ZERO;
    }
    digits.parse().map_or(Duration::MAX, Duration::from_secs)
}

/// The longest of the ages: the response is at least that old. One that can't be read counts for
/// nothing (5.1).
pub(super) fn age(headers: &HeaderMap) -> Duration {
    items(headers, AGE).map(seconds).max().unwrap_or_default()
}

/// Whether the value depends on the request. All requests of this node are alike, except for
/// compression, which it doesn't ask for.
fn varies(headers: &HeaderMap) -> bool {
    items(headers, VARY).any(|name| !name.trim().eq_ignore_ascii_case("accept-encoding"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(given: &[(&'static str, &'static str)]) -> Freshness {
        let mut headers = HeaderMap::new();
        for (name, value) in given {
            headers.append(*name, HeaderValue::from_static(value));
        }
        freshness(&headers)
    }

    fn control(value: &'static str) -> Freshness {
        of(&[("cache-control", value)])
    }

    fn secs(seconds: u64) -> Freshness {
        Freshness::For(Duration::from_secs(seconds))
    }

    #[test]
    fn cache_control_is_read_as_by_a_shared_cache() {
        assert_eq!(control("max-age=60"), secs(60));
        assert_eq!(control("public, Max-Age=60, s-maxage=\"5\""), secs(5));
        assert_eq!(control("s-maxage=60, max-age=5"), secs(60));
        assert_eq!(control("must-revalidate, immutable"), Freshness::Unsaid);
        assert_eq!(of(&[]), Freshness::Unsaid);
        for forbidden in ["max-age=60, no-store", "private", "No-Cache, max-age=9"] {
            assert_eq!(control(forbidden), Freshness::Uncacheable, "{forbidden}");
        }
    }

    #[test]
    fn expires_counts_where_cache_control_says_nothing_and_by_the_response_s_own_date() {
        const DATE: (&str, &str) = ("date", "Sun, 06 Nov 1994 08:49:37 GMT");
        const LATER: (&str, &str) = ("expires", "Sun, 06 Nov 1994 08:50:37 GMT");
        const EARLIER: (&str, &str) = ("expires", "Sun, 06 Nov 1994 08:48:37 GMT");
        assert_eq!(of(&[DATE, LATER]), secs(60));
        assert_eq!(of(&[DATE, LATER, ("age", "50")]), secs(10));
        assert_eq!(of(&[DATE, LATER, ("cache-control", "max-age=5")]), secs(5));
        assert_eq!(of(&[DATE, LATER, EARLIER]), secs(0));
        assert_eq!(of(&[DATE, EARLIER]), secs(0));
        for odd in ["0", "-1", "", "tomorrow"] {
            assert_eq!(of(&[DATE, ("expires", odd)]), secs(0), "{odd}");
        }
        assert_eq!(of(&[LATER]), Freshness::Unsaid, "nobody knows since when");
        let far = ("expires", "Fri, 31 Dec 9999 23:59:59 GMT");
        assert_eq!(of(&[DATE, far]), Freshness::For(LONGEST));
    }

    #[test]
    fn what_contradicts_itself_or_makes_no_sense_never_lives_longer() {
        assert_eq!(control("max-age=60, max-age=5"), secs(5));
        assert_eq!(control("max-age=5, max-age=60"), secs(5));
        let twice = [
            ("cache-control", "max-age=60"),
            ("cache-control", "max-age=5"),
        ];
        assert_eq!(of(&twice), secs(5));
        let apart = [
            ("cache-control", "max-age=60"),
            ("cache-control", "no-store"),
        ];
        assert_eq!(of(&apart), Freshness::Uncacheable);
        for odd in [
            "max-age=-1",
            "max-age=soon",
            "max-age=",
            "max-age",
            "max-age=1.5",
        ] {
            assert_eq!(control(odd), secs(0), "{odd}");
        }
        assert_eq!(control("max-age=60, max-age=-1"), secs(0));
        for absurd in ["max-age=99999999999", "max-age=99999999999999999999999"] {
            assert_eq!(control(absurd), Freshness::For(LONGEST), "{absurd}");
        }
    }

    #[test]
    fn the_time_in_other_caches_is_taken_off() {
        let aged = |age| of(&[("cache-control", "max-age=60"), ("age", age)]);
        assert_eq!(aged("0"), secs(60));
        assert_eq!(aged("45"), secs(15));
        assert_eq!(aged("60"), secs(0));
        assert_eq!(aged("99999999999999999999999"), secs(0));
        assert_eq!(aged("-5"), secs(60));
        assert_eq!(aged("young"), secs(60));
        assert_eq!(of(&[("age", "45")]), Freshness::Unsaid);
    }

    #[test]
    fn a_value_that_depends_on_who_asks_is_not_kept() {
        let varies = |by| of(&[("cache-control", "max-age=60"), ("vary", by)]);
        assert_eq!(varies("Accept-Encoding"), secs(60));
        for by in ["*", "Cookie", "accept-encoding, Authorization"] {
            assert_eq!(varies(by), Freshness::Uncacheable, "{by}");
        }
        assert_eq!(of(&[("vary", "*")]), Freshness::Uncacheable);
    }
}
