//! In which form a value goes out that is kept compressed: as it lies, to clients that say that
//! they take it; else as the origin gave it.
//!
//! The two are different representations (RFC 9110, 8.8.3.3): each has a tag of its own, and caches
//! are told what the choice depends on. Parts are always parts of the origin's form.

use std::borrow::Cow;

use axum::http::{
    HeaderMap,
    header::{ACCEPT_ENCODING, RANGE},
};
use gaocache_core::metadata::Metadata;

/// What the tag of the compressed form ends with.
const SUFFIX: &str = "-zstd";

/// The form of a value in a response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// As the origin gave it; there is no other.
    AsLoaded,
    /// As the origin gave it, though it lies compressed.
    Decompressed,
    /// Compressed.
    Compressed,
}

impl Form {
    /// Of a value with this metadata, in the response to this request.
    pub(super) fn of(kept: &Metadata, request: &HeaderMap) -> Self {
        if kept.plain_bytes().is_none() {
            Self::AsLoaded
        } else if takes_zstd(request) && !request.contains_key(RANGE) {
            Self::Compressed
        } else {
            Self::Decompressed
        }
    }

    /// The entity tag of this form.
    pub(super) fn tag(self, tag: &str) -> Cow<'_, str> {
        match tag.strip_suffix('"') {
            Some(tag) if self == Self::Compressed => Cow::Owned(format!("{tag}{SUFFIX}\"")),
            _ => Cow::Borrowed(tag),
        }
    }
}

/// Whether the client names `zstd` among what it takes, and not as the last thing that it wants.
/// `*` is not enough: many that send it can't decode zstd.
fn takes_zstd(request: &HeaderMap) -> bool {
    let given = request.get_all(ACCEPT_ENCODING).iter();
    let lists = given.filter_map(|it| it.to_str().ok());
    let mut items = lists.flat_map(|it| it.split(','));
    items.any(|item| {
        let mut parts = item.split(';').map(str::trim);
        let is_zstd = parts
            .next()
            .is_some_and(|it| it.eq_ignore_ascii_case("zstd"));
        let weight = parts.find_map(|it| it.strip_prefix("q=").or(it.strip_prefix("Q=")));
        let weight = weight.map_or(Ok(1.0), str::parse::<f32>);
        is_zstd && weight.is_ok_and(|it| it > 0.0)
    })
}

#[cfg(test)]
mod tests {
    use axum::http::{HeaderName, HeaderValue};

    use super::*;

    fn of(given: &[(HeaderName, &'static str)]) -> Form {
        let mut headers = HeaderMap::new();
        for (name, value) in given {
            headers.append(name, HeaderValue::from_static(value));
        }
        Form::of(&Metadata::NONE.compressed(9), &headers)
    }

    #[test]
    fn only_who_names_zstd_gets_it_and_parts_are_of_the_origin_s_form() {
        for takes in ["zstd", "gzip, ZSTD;q=0.1", "br , zstd ; q=1", "gzip,zstd"] {
            assert_eq!(of(&[(ACCEPT_ENCODING, takes)]), Form::Compressed, "{takes}");
        }
        for refuses in [
            "",
            "*",
            "gzip",
            "zstd;q=0",
            "zstd;q=0.000",
            "zstd;q=x",
            "x-zstd",
            "zstds",
        ] {
            assert_eq!(
                of(&[(ACCEPT_ENCODING, refuses)]),
                Form::Decompressed,
                "{refuses}"
            );
        }
        assert_eq!(of(&[]), Form::Decompressed);
        let lines = [(ACCEPT_ENCODING, "gzip"), (ACCEPT_ENCODING, "zstd")];
        assert_eq!(of(&lines), Form::Compressed);
        let part = [(ACCEPT_ENCODING, "zstd"), (RANGE, "bytes=0-1")];
        assert_eq!(of(&part), Form::Decompressed);
        let mut takes = HeaderMap::new();
        takes.insert(ACCEPT_ENCODING, HeaderValue::from_static("zstd"));
        assert_eq!(Form::of(&Metadata::NONE, &takes), Form::AsLoaded);
    }

    #[test]
    fn each_form_has_a_tag_of_its_own() {
        for (tag, compressed) in [("\"1\"", "\"1-zstd\""), ("W/\"1\"", "W/\"1-zstd\"")] {
            assert_eq!(Form::Compressed.tag(tag), compressed);
            assert_eq!(Form::Decompressed.tag(tag), tag);
            assert_eq!(Form::AsLoaded.tag(tag), tag);
        }
    }
}
