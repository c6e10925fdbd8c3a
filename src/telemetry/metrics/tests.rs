use super::{
    group::{OUTCOMES, outcome_index},
    *,
};
use crate::telemetry::names;
use gaocache_core::{
    group::Source,
    ports::{BreakerState, LoadObserver, Receipt},
    store::GroupStats,
};
use std::time::Duration;

#[tokio::test]
async fn every_name_in_the_table_is_registered_with_its_kind_and_labels() {
    let metrics = Metrics::new().expect("names are valid");
    metrics
        .runtimes
        .watch("control", tokio::runtime::Handle::current().metrics());
    let group = metrics.group("g");
    group.request(Duration::ZERO, Err(ErrorKind::Internal));
    group.loaded("k", Duration::ZERO, Ok(1));
    group.invalidation(Ok(()));
    group.breaker(BreakerState::Open);
    group.refused_by_breaker();
    group.hedged(true);
    group.saved(1);
    metrics.stores.of_group("g", "owned", GroupStats::default());
    metrics.stores.holds("owned", 1, 0);
    metrics.peers.fetches.with_label_values(&["p", "hit"]).inc();
    let messages = &metrics.peers.messages;
    messages.with_label_values(&["p", "fetch"]).inc();
    metrics.connections.open("grpc").set(0);
    metrics.connections.certificate_in_use("grpc", 1, 2);
    for refusals in [&metrics.connections.refusals, &metrics.connections.cuts] {
        refusals.with_label_values(&["grpc", "any"]).inc();
    }
    metrics.etcd.lease_renewed("ok");
    metrics.etcd.registered("start");
    metrics.handoff().received(&Receipt::default());
    #[cfg(feature = "cli")]
    metrics.runtimes.reloaded("changed");
    let text = String::from_utf8(metrics.render().expect("renders")).expect("text");
    for metric in names::ALL {
        let line = format!("# TYPE {} {}", metric.name, metric.kind);
        assert!(text.contains(&line), "missing: {line}");
        for label in metric.labels {
            let sample = text.lines().find(|line| line.starts_with(metric.name));
            assert!(
                sample.is_some_and(|line| line.contains(&format!("{label}=\""))),
                "{label} of {}",
                metric.name
            );
        }
    }
}

/// `cargo test --lib -- a_scrape --nocapture` prints the figures. The goal is 5 ms, but a test must
/// not fail on time.
#[test]
fn a_scrape_of_ten_groups_and_a_hundred_peers_has_at_most_300_kb() {
    let metrics = Metrics::new().expect("names are valid");
    for number in 0..10 {
        let group = metrics.group(&format!("group-{number}"));
        for &kind in ErrorKind::ALL {
            group.request(Duration::from_millis(1), Err(kind));
            group.loaded("k", Duration::from_millis(1), Err(&Error::new(kind, "x")));
            group.invalidation(Err(kind));
        }
    }
    for number in 0..100 {
        for outcome in ["hit", "origin", "error", "unreachable", "incompatible"] {
            let peer = format!("cache-gaocache-{number}");
            metrics
                .peers
                .fetches
                .with_label_values(&[peer.as_str(), outcome])
                .inc();
        }
    }
    let began = tokio::time::Instant::now();
    let bytes = metrics.render().expect("renders").len();
    println!("a scrape: {bytes} bytes in {:?}", began.elapsed());
    assert!(bytes <= 300_000, "{bytes} bytes");
}

#[test]
fn the_table_keeps_to_its_own_rules() {
    for metric in names::ALL {
        assert!(metric.name.starts_with("gaocache_"), "{}", metric.name);
        assert_eq!(
            metric.kind == "counter",
            metric.name.ends_with("_total"),
            "{}",
            metric.name
        );
        assert_eq!(
            metric.kind == "histogram",
            metric.name.ends_with("_duration_seconds"),
            "{}",
            metric.name
        );
        assert!(metric.help.ends_with('.'), "{}", metric.name);
        assert!(!metric.labels.contains(&"key"));
    }
}

#[test]
fn every_error_is_an_outcome_of_its_own() {
    for &kind in ErrorKind::ALL {
        assert_eq!(OUTCOMES[outcome_index(Err(kind))], kind.name());
    }
    assert_eq!(
        OUTCOMES[outcome_index(Ok(Source::Peer))],
        Source::Peer.name()
    );
}
