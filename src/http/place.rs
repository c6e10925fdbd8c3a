//! Which group and key a request names.

use axum::{
    extract::{Path, rejection::PathRejection},
    http::{Method, Request, Uri, request::Parts},
};

use gaocache_core::{
    error::{Error, ErrorKind, Result},
    group::Query,
};

/// What the router finds in a path.
pub(super) type GroupAndKey = std::result::Result<Path<(String, String)>, PathRejection>;

/// The beginning of the paths of the read route.
const READS: &str = "/v1/";

/// A get whose path names group and key as they are: percent-encoding and queries are left to the
/// router.
pub(super) struct PlainGet {
    pub(super) head: Parts,
    slash: Slash,
}

/// Where in such a path the slash between group and key is.
pub(super) struct Slash(usize);

impl PlainGet {
    /// Where the slash is, if the request is such a get.
    pub(super) fn slash<B>(request: &Request<B>) -> Option<Slash> {
        let (uri, path) = (request.uri(), request.uri().path());
        if *request.method() != Method::GET || uri.query().is_some() {
            return None;
        }
        let (group, key) = path.strip_prefix(READS)?.split_once('/')?;
        let as_it_is = |byte: u8| byte.is_ascii_graphic() && byte != b'%';
        let is_plain = !group.is_empty() && !key.is_empty() && path.bytes().all(as_it_is);
        is_plain.then_some(Slash(READS.len() + group.len()))
    }

    /// The request in which this slash was found.
    pub(super) fn new<B>(request: Request<B>, slash: Slash) -> Self {
        let (head, _) = request.into_parts();
        Self { head, slash }
    }

    pub(super) fn group(&self) -> &str {
        &self.head.uri.path()[READS.len()..self.slash.0]
    }

    pub(super) fn key(&self) -> &str {
        &self.head.uri.path()[self.slash.0 + 1..]
    }
}

/// What a request names; `rule` is what its group makes of a query.
pub(super) fn group_and_key(
    rule: impl FnOnce(&str) -> Result<Query>,
    path: GroupAndKey,
    uri: &Uri,
) -> Result<(String, String)> {
    let (group, key) = path.map(|Path(both)| both).map_err(|rejection| {
        let what = format!("group and key must be percent-encoded UTF-8: {rejection}");
        Error::new(ErrorKind::InvalidRequest, what).with_source(rejection)
    })?;
    let Some(query) = uri.query() else {
        return Ok((group, key));
    };
    match rule(&group)? {
        Query::Append => Ok((group, format!("{key}?{query}"))),
        Query::Ignore => Ok((group, key)),
        Query::Refuse => {
            // Dropped silently, it would answer, or remove, another key than the client meant.
            let what = "a query string is not part of a key in this group (groups[].query); write \
                 '?' in a key as %3F";
            Err(Error::new(ErrorKind::InvalidRequest, what))
        }
    }
}

#[cfg(test)]
mod tests {
    use axum::{Router, body::Body, routing::get};
    use http_body_util::BodyExt;
    use tower::ServiceExt;

    use super::*;

    #[tokio::test]
    async fn a_plain_path_means_what_the_router_makes_of_it() {
        for (path, is_plain) in [
            ("/v1/users/42", true),
            ("/v1/users/a/b", true),
            ("/v1/users//a", true),
            ("/v1/users/a/", true),
            ("/v1/users/./../a;b=c,d:e@f", true),
            ("http://node:80/v1/users/42", true),
            ("/v1/users/a%20b", false),
            ("/v1/us%65rs/a", false),
            ("/v1/users/a?b", false),
            ("/v1/users/a?", false),
            ("/v1/users/", false),
            ("/v1/users", false),
            ("/v1//a", false),
            ("/v2/users/a", false),
            ("*", false),
        ] {
            let request = || Request::get(path).body(Body::empty()).expect("a request");
            let slash = PlainGet::slash(&request());
            assert_eq!(slash.is_some(), is_plain, "{path}");
            let Some(slash) = slash else {
                continue;
            };
            let plain = PlainGet::new(request(), slash);
            let told = async |path: GroupAndKey| {
                let Path((group, key)) = path.expect("a path");
                format!("{group} {key}")
            };
            let router = Router::new().route("/v1/{group}/{*key}", get(told));
            let Ok(answer) = router.oneshot(request()).await;
            let body = answer.into_body().collect().await.expect("a body");
            let found = format!("{} {}", plain.group(), plain.key());
            assert_eq!(body.to_bytes(), found, "{path}");
        }
    }
}
