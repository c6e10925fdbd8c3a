//! An attempt to ask an HTTP service that failed: what is said about it, and whether and when
//! another one may follow.

use std::time::Duration;

use reqwest::{
    StatusCode,
    header::{DATE, HeaderMap, RETRY_AFTER},
};

use gaocache_core::error::{Error, ErrorKind, with_causes};

/// The first delay before a retry. Delays double, with jitter, up to the last.
pub(super) const FIRST_PAUSE: Duration = Duration::from_millis(20);
/// A `Retry-After` up to this long is waited for, too. With a longer one there is no retry: that
/// would be too long a wait for a get.
pub(super) const LAST_PAUSE: Duration = Duration::from_secs(2);

/// Whether another attempt may follow one that failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Again {
    /// It would end the same way, or the callers have waited long enough.
    Never,
    /// After the usual pause.
    Soon,
    /// Not before that.
    After(Duration),
}

/// An attempt that returned no value.
pub(super) struct Failed {
    pub(super) error: Error,
    pub(super) again: Again,
}

/// What fails before or after the exchange with the origin is no reason to ask it again.
impl From<Error> for Failed {
    fn from(error: Error) -> Self {
        Self {
            error,
            again: Again::Never,
        }
    }
}

/// A status that is neither a value nor a missing key. Only 5xx may pass by itself, and what comes
/// with `Retry-After` (429, 503) passes after that time.
pub(super) fn unexpected(status: StatusCode, headers: &HeaderMap) -> Failed {
    let redirect = if status.is_redirection() {
        "; redirects are not followed"
    } else {
        ""
    };
    let error = Error::origin_failed(format!("the origin answered {status}{redirect}"));
    let asked = match status {
        StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE => retry_after(headers),
        _ => None,
    };
    let again = match asked {
        Some(asked) if asked <= LAST_PAUSE => Again::After(asked),
        None if status.is_server_error() => Again::Soon,
        Some(_) | None => Again::Never,
    };
    let error = match asked {
        Some(asked) => error.with_retry_after(asked),
        None => error,
    };
    Failed { error, again }
}

/// `Retry-After`: seconds, or a date, which is compared with the answer's own `Date`, since clocks
/// differ.
pub(super) fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let text = |name| headers.get(name)?.to_str().ok();
    let asked = text(RETRY_AFTER)?.trim();
    if let Ok(seconds) = asked.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let until = httpdate::parse_http_date(asked).ok()?;
    let sent = httpdate::parse_http_date(text(DATE)?).ok()?;
    Some(until.duration_since(sent).unwrap_or(Duration::ZERO))
}

/// The whole chain of causes, without the URL, because it contains the key. A timeout is not tried
/// again: the callers have waited long enough, and the origin is busy enough.
pub(super) fn failed(error: reqwest::Error) -> Failed {
    let (kind, again, text) = if error.is_timeout() {
        let text = "the origin did not answer in time";
        (ErrorKind::OriginTimeout, Again::Never, text)
    } else {
        let text = if error.is_connect() {
            "the origin can't be reached"
        } else {
            "the origin's response is invalid"
        };
        (ErrorKind::OriginFailed, Again::Soon, text)
    };
    let error = error.without_url();
    let error = Error::new(kind, with_causes(text.to_owned(), &error)).with_source(error);
    Failed { error, again }
}

#[cfg(test)]
mod tests {
    use reqwest::header::HeaderValue;

    use super::*;

    #[test]
    fn only_5xx_is_tried_again_and_not_before_the_origin_wants_it() {
        let of = |status: u16, given: &[(&'static str, &'static str)]| {
            let mut headers = HeaderMap::new();
            for (name, value) in given {
                headers.insert(*name, HeaderValue::from_static(value));
            }
            let status = StatusCode::from_u16(status).expect("a status");
            let failed = unexpected(status, &headers);
            (failed.again, failed.error.retry_after())
        };
        let secs = Duration::from_secs;
        for status in [201, 204, 206, 301, 302, 304, 400, 401, 403, 418, 429] {
            assert_eq!(of(status, &[]), (Again::Never, None), "{status}");
        }
        for status in [500, 501, 502, 503, 504, 599] {
            assert_eq!(of(status, &[]), (Again::Soon, None), "{status}");
        }
        for status in [429, 503] {
            let soon = (Again::After(secs(2)), Some(secs(2)));
            assert_eq!(of(status, &[("retry-after", "2")]), soon);
            let late = (Again::Never, Some(secs(3)));
            assert_eq!(of(status, &[("retry-after", "3")]), late);
        }
        assert_eq!(of(500, &[("retry-after", "3")]), (Again::Soon, None));
        assert_eq!(of(403, &[("retry-after", "1")]), (Again::Never, None));
        let date = ("date", "Sun, 06 Nov 1994 08:49:37 GMT");
        let until = |at| [date, ("retry-after", at)];
        let second = until("Sun, 06 Nov 1994 08:49:38 GMT");
        assert_eq!(of(503, &second).0, Again::After(secs(1)));
        let past = until("Sat, 06 Nov 1993 08:49:38 GMT");
        assert_eq!(of(503, &past).0, Again::After(secs(0)));
        assert_eq!(of(503, &second[1..]), (Again::Soon, None), "no Date");
        for odd in ["-1", "soon", "", "1.5", "99999999999999999999"] {
            assert_eq!(of(503, &[("retry-after", odd)]), (Again::Soon, None));
        }
    }

    #[test]
    fn a_redirect_is_told_not_to_be_followed() {
        let failed = unexpected(StatusCode::FOUND, &HeaderMap::new());
        let told = failed.error.message();
        assert!(
            told.ends_with("302 Found; redirects are not followed"),
            "{told}"
        );
        assert_eq!(failed.again, Again::Never);
    }
}
