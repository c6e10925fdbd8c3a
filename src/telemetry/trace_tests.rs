use super::*;

const CALL: Call = Call::grpc("Cache/Get");

/// A share of those that no caller decided on, or of all; callers are believed.
fn sampling(parent_based: bool, ratio: impl Into<Option<f64>>) -> Sampling {
    Sampling {
        ratio: ratio.into(),
        parent_based,
        keys: false,
        trusts_clients: true,
    }
}

fn from_caller(traceparent: &'static str) -> HeaderMap {
    let mut headers = HeaderMap::new();
    headers.insert(TRACEPARENT, http::HeaderValue::from_static(traceparent));
    headers
}

fn sampled() -> HeaderMap {
    from_caller("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01")
}

fn unsampled() -> HeaderMap {
    from_caller("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00")
}

fn shown(scope: &Scope) -> &'static str {
    match scope {
        Scope::Nothing => "nothing",
        Scope::HandedOn(_) => "handed on",
        Scope::Traced(_) => "traced",
    }
}

#[test]
fn who_decides() {
    let cases = [
        // parent based, share, no caller, sampled caller, unsampled caller
        (true, 1.0, "traced", "traced", "handed on"),
        (true, 0.0, "nothing", "traced", "handed on"),
        (false, 1.0, "traced", "traced", "traced"),
        (false, 0.0, "nothing", "handed on", "handed on"),
    ];
    for (parent_based, ratio, none, yes, no) in cases {
        let sampling = sampling(parent_based, ratio);
        for (headers, wanted) in [
            (HeaderMap::new(), none),
            (sampled(), yes),
            (unsampled(), no),
        ] {
            let scope = sampling.begin(CALL, &headers);
            assert_eq!(shown(&scope), wanted, "{sampling:?} {headers:?}");
        }
    }
}

#[test]
fn a_client_decides_nothing_where_clients_are_not_believed() {
    for (ratio, wanted) in [(0.0, "nothing"), (1.0, "traced")] {
        let sampling = Sampling {
            trusts_clients: false,
            ..sampling(true, ratio)
        };
        for headers in [sampled(), unsampled()] {
            assert_eq!(
                shown(&sampling.begin(CALL, &headers)),
                wanted,
                "{headers:?}"
            );
        }
    }
}

#[test]
fn another_node_has_decided_already() {
    let sampling = sampling(false, 1.0);
    for (headers, wanted) in [
        (HeaderMap::new(), "nothing"),
        (sampled(), "traced"),
        (unsampled(), "handed on"),
    ] {
        let scope = sampling.follow(CALL, &headers);
        assert_eq!(shown(&scope), wanted, "{headers:?}");
    }
}

#[test]
fn without_an_endpoint_there_are_no_spans_and_callers_traces_go_on_as_they_are() {
    let off = sampling(false, None);
    assert_eq!(shown(&off.begin(CALL, &HeaderMap::new())), "nothing");
    let scope = off.begin(CALL, &sampled());
    let Scope::HandedOn(context) = scope else {
        panic!("{}", shown(&scope));
    };
    assert!(is_sampled(&context), "we have decided nothing");
}

#[test]
fn who_comes_after_sees_that_we_decided_against_it() {
    let never = sampling(false, 0.0);
    let scope = never.begin(CALL, &sampled());
    let Scope::HandedOn(context) = scope else {
        panic!("{}", shown(&scope));
    };
    let mut headers = HeaderMap::new();
    let here = context.attach();
    hand_on(&mut headers);
    drop(here);
    assert_eq!(headers[TRACEPARENT], unsampled()[TRACEPARENT]);
}

/// 1,000 draws at 20 %: outside these bounds once in more than 10¹⁵ runs.
#[test]
fn a_share_is_sampled() {
    let sampling = sampling(true, 0.2);
    let draws = (0..1_000).map(|_| sampling.begin(CALL, &HeaderMap::new()));
    let sampled = draws.filter(|scope| shown(scope) == "traced").count();
    assert!((100..=300).contains(&sampled), "{sampled}");
}

#[test]
fn a_header_that_can_t_be_read_is_no_trace() {
    let sampling = sampling(true, 0.0);
    for wrong in [
        "",
        "00",
        "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
        "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
        "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-0g",
    ] {
        let scope = sampling.begin(CALL, &from_caller(wrong));
        assert_eq!(shown(&scope), "nothing", "{wrong}");
    }
}
