//! A peer of another release.

use super::{made_up::Other, *};

#[tokio::test]
async fn a_peer_of_another_version_is_not_believed_and_costs_no_read() {
    for format in [Some(2), Some(0), None] {
        let origin = CountingOrigin::start().await;
        let address = Other {
            format,
            ..Other::default()
        }
        .serve()
        .await;
        let node = node_among(&[("other", address)], &origin.url(), &[]).await;
        read_all(&node).await;
        let counted = metric(
            &node,
            "gaocache_peer_fetches_total",
            &["other", "incompatible"],
        )
        .await;
        assert!(counted > 0.0, "{format:?}");
        let ejected = metric(&node, "gaocache_peers_ejected", &[]).await;
        assert_eq!(ejected, 0.0, "it answers, so it lives: {format:?}");
    }
}
