//! Which group and key a request names.

use axum::{
    extract::{Path, rejection::PathRejection},
    http::Uri,
};

use gaocache_core::{
    error::{Error, ErrorKind, Result},
    group::Query,
};

/// What the router finds in a path: the group, and the key unless it is empty.
pub(super) type GroupAndKey = std::result::Result<Path<Vec<String>>, PathRejection>;

/// The group and the key of a path of the read route that names both as they are: percent-encoding
/// and queries are left to the router.
pub(super) fn plain(uri: &Uri) -> Option<(&str, &str)> {
    let path = uri.path();
    let (group, key) = path.strip_prefix("/v1/")?.split_once('/')?;
    let as_it_is = |byte: u8| byte.is_ascii_graphic() && byte != b'%';
    let is_plain = uri.query().is_none() && path.bytes().all(as_it_is);
    (is_plain && !group.is_empty() && !key.is_empty()).then_some((group, key))
}

/// What a request names; `rule` is what its group makes of a query.
pub(super) fn group_and_key(
    rule: impl FnOnce(&str) -> Result<Query>,
    path: GroupAndKey,
    uri: &Uri,
) -> Result<(String, String)> {
    let Path(parts) = path.map_err(|rejection| {
        let what = format!("group and key must be percent-encoded UTF-8: {rejection}");
        Error::new(ErrorKind::InvalidRequest, what).with_source(rejection)
    })?;
    let mut parts = parts.into_iter();
    let (group, key) = (
        parts.next().unwrap_or_default(),
        parts.next().unwrap_or_default(),
    );
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
    use axum::{Router, body::Body, http::Request, routing::get};
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
            let uri: Uri = path.parse().expect("a URI");
            assert_eq!(plain(&uri).is_some(), is_plain, "{path}");
            let Some((group, key)) = plain(&uri) else {
                continue;
            };
            let told = async |path: GroupAndKey| path.expect("a path").0.join(" ");
            let router = Router::new().route("/v1/{group}/{*key}", get(told));
            let request = Request::get(path).body(Body::empty()).expect("a request");
            let Ok(answer) = router.oneshot(request).await;
            let body = answer.into_body().collect().await.expect("a body");
            assert_eq!(body.to_bytes(), format!("{group} {key}"), "{path}");
        }
    }
}
