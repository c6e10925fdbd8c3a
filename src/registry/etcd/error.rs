//! Errors about etcd, as errors of the cache.

use gaocache_core::error::{Error, ErrorKind};

/// Converts an error of the discovery library to an error of this crate.
pub fn registry_error(error: gaocache_discovery::Error) -> Error {
    let kind = match error.kind() {
        gaocache_discovery::ErrorKind::Configuration => ErrorKind::Configuration,
        _ => ErrorKind::Registry,
    };
    Error::new(kind, error.message()).with_source(error)
}

#[cfg(test)]
mod tests {
    use std::error::Error as _;

    use super::*;
    use gaocache_discovery::{EtcdConfig, expulsion::Records};

    #[tokio::test]
    async fn an_error_about_etcd_is_the_registry_s_unless_the_configuration_is_wrong() {
        for (url, kind) in [
            ("http://127.0.0.1:1", ErrorKind::Registry),
            ("http://[", ErrorKind::Configuration),
        ] {
            let records = Records::new(EtcdConfig::new([url]));
            let error = records.delete("k").await.expect_err("nobody is there");
            let error = registry_error(error);
            assert_eq!(error.kind(), kind, "{error}");
            let cause = error.source().expect("a cause");
            assert!(cause.is::<gaocache_discovery::Error>(), "{cause}");
            assert!(cause.source().is_some(), "and the cause of that");
        }
    }
}
