//! Metadata is bounded, and holds nothing that could hurt, wherever it comes from.

use super::{
    packed::{FRAME_BYTES, SINGLE},
    *,
};

fn of(headers: &[(&str, &str)]) -> Result<Metadata> {
    Metadata::new(headers.iter().copied())
}

#[test]
fn no_metadata_costs_a_pointer_and_some_one_allocation() {
    assert_eq!(size_of::<Metadata>(), size_of::<usize>());
    let none = of(&[]).expect("nothing");
    assert_eq!((none.bytes(), none.as_bytes()), (0, &[][..]));
    let some = of(&[("Content-Type", " text/plain ")]).expect("good");
    assert_eq!(some.get("content-type"), Some("text/plain"));
    assert_eq!(some.as_bytes().len(), 3 + 12 + 10);
}

#[test]
fn what_could_break_a_response_or_speaks_for_the_node_is_refused() {
    for (name, value) in [
        ("x", "a\r\nset-cookie: b"),
        ("x", "a\0b"),
        ("x\r\ny", "v"),
        ("x y", "v"),
        ("x:", "v"),
        ("", "v"),
        ("Content-Length", "5"),
        ("transfer-encoding", "chunked"),
        ("set-cookie", "a=b"),
        ("gaocache-error", "internal"),
        ("etag", "no-quotes"),
        ("etag", "W/no-quotes"),
        ("etag", "\"a\"b\""),
        ("etag", "\"a b\""),
        ("etag", "\""),
    ] {
        let error = of(&[(name, value)]).expect_err(name);
        assert_eq!(error.kind(), ErrorKind::OriginFailed, "{name}: {value}");
    }
    for name in SINGLE {
        let twice = of(&[(name, "\"a\""), (name, "\"a\"")]);
        assert!(twice.is_err(), "{name}");
    }
    let lines = of(&[("link", "a"), ("link", "ü")]).expect("several lines");
    assert_eq!(
        lines.iter().collect::<Vec<_>>(),
        [("link", "a"), ("link", "ü")]
    );
}

#[test]
fn metadata_is_bounded_where_it_is_made_and_where_it_arrives() {
    let longest = "v".repeat(MAX_METADATA_BYTES - FRAME_BYTES - 1);
    let largest = of(&[("x", &longest)]).expect("fits");
    assert_eq!(Metadata::from_bytes(largest.as_bytes()), Some(largest));
    for headers in [
        vec![("xy", longest.as_str())],
        vec![("x", longest.as_str()), ("y", "")],
        vec![("x", &"v".repeat(1 << 20))],
    ] {
        let error = of(&headers).expect_err("too much");
        assert_eq!(error.kind(), ErrorKind::ValueTooLarge);
    }
    let mut sent = of(&[("a", &longest[2..])])
        .expect("fits")
        .as_bytes()
        .to_vec();
    pack(&mut Vec::new(), "b", "").expect("fits");
    sent.extend_from_slice(&[1, b'b', 0, 0]);
    assert_eq!(Metadata::from_bytes(&sent), None, "{} bytes", sent.len());
}

#[test]
fn only_what_could_have_been_sent_arrives() {
    let good = of(&[("etag", "\"1\""), ("x", "")]).expect("good");
    assert_eq!(Metadata::from_bytes(good.as_bytes()), Some(good.clone()));
    for cut in 1..good.as_bytes().len() {
        let cut = &good.as_bytes()[..cut];
        let whole = cut == of(&[("etag", "\"1\"")]).expect("good").as_bytes();
        assert_eq!(Metadata::from_bytes(cut).is_some(), whole, "{cut:?}");
    }
    for wrong in [
        &b"\x01X\0\x01v"[..],
        b"\x01x\0\x01\n",
        b"\x01x\0\x01\xff",
        b"\x0acontent-length\0\x015",
        b"\x0econtent-length\0\x015",
        b"\0\0\0",
        b"\x04etag\0\x03\"1\"\x04etag\0\x03\"1\"",
    ] {
        assert_eq!(Metadata::from_bytes(wrong), None, "{wrong:?}");
    }
}

#[test]
fn the_age_goes_on_where_cache_control_is_passed_on() {
    let told = of(&[("cache-control", "max-age=60")]).expect("good");
    let told = told.with_age(Duration::from_secs(5));
    let loaded = told.clone().loaded(Timestamp(1_000));
    assert_eq!(loaded.age(Timestamp(3_000)), Some(Duration::from_secs(7)));
    let untold = of(&[("etag", "\"1\"")]).expect("good");
    let untold = untold.with_age(Duration::from_secs(5)).loaded(Timestamp(1));
    assert_eq!(untold.age(Timestamp(3_000)), None);
}

#[test]
fn newer_headers_take_the_place_of_those_with_their_names() {
    let old = [("etag", "\"1\""), ("link", "a"), ("link", "b"), ("x", "1")];
    let old = of(&old).expect("good");
    let updated = old.updated(&of(&[("link", "c"), ("y", "2")]).expect("good"));
    let wanted = [("etag", "\"1\""), ("x", "1"), ("link", "c"), ("y", "2")];
    assert_eq!(updated.expect("fits"), of(&wanted).expect("good"));
}

#[test]
fn tags_travel_with_the_headers_and_are_none_of_them() {
    let headers = Metadata::new([("etag", "\"1\""), ("x", "y")]).expect("good");
    let tagged = headers.with_tags(["b", "a", "b"]).expect("good");
    assert_eq!(tagged.tags().count(), 2);
    assert!(tagged.has_tag("a") && tagged.has_tag("b") && !tagged.has_tag("c"));
    assert!(tagged.iter().eq(headers.iter()), "hidden");
    assert_eq!(tagged.get(":tags"), None);
    assert!(Metadata::new([(":tags", "0123456789abcdef")]).is_err());
    let arrived = Metadata::from_bytes(tagged.as_bytes()).expect("good");
    assert_eq!(arrived, tagged);
    assert_eq!(tagged.with_tags([]).expect("good"), headers);
    assert_eq!(tagged.with_tags(["c"]).expect("good").tags().count(), 1);

    // A 304 keeps the tags, unless it has others.
    let newer = Metadata::new([("x", "z")]).expect("good");
    let updated = tagged.updated(&newer).expect("good");
    assert!(updated.has_tag("a") && updated.get("x") == Some("z"));
    let newer = newer.with_tags(["c"]).expect("good");
    let updated = tagged.updated(&newer).expect("good");
    assert!(updated.has_tag("c") && !updated.has_tag("a"));
}

#[test]
fn how_large_a_compressed_value_is_travels_with_it_and_is_no_header() {
    let headers = of(&[("etag", "\"1\""), ("cache-control", "max-age=9")]).expect("good");
    let headers = headers.with_age(Duration::from_secs(5));
    let tagged = headers.with_tags(["a"]).expect("good");
    for kept in [&Metadata::NONE, &headers, &tagged] {
        assert_eq!(kept.plain_bytes(), None);
        let marked = kept.compressed(123_456);
        assert_eq!(marked.plain_bytes(), Some(123_456));
        assert!(marked.iter().eq(kept.iter()) && marked.tags().eq(kept.tags()));
        assert_eq!(marked.age(Timestamp(0)), kept.age(Timestamp(0)));
        assert_eq!(marked.uncompressed(), *kept);
        assert_eq!(marked.compressed(7).plain_bytes(), Some(7), "in its place");
        let arrived = Metadata::from_bytes(marked.as_bytes()).expect("good");
        assert_eq!(arrived.plain_bytes(), Some(123_456));
        let renewed = marked.updated(&Metadata::NONE).expect("good");
        assert_eq!(renewed.plain_bytes(), Some(123_456));
        let retagged = marked.with_tags(["b"]).expect("good");
        assert_eq!(retagged.plain_bytes(), Some(123_456));
        assert!(retagged.has_tag("b") && !retagged.has_tag("a"));
    }
    assert!(of(&[(":plain", "5")]).is_err());
    for forged in ["", "-1", "1.5", "x", "1234567890123"] {
        let mark = [
            &[6][..],
            b":plain",
            &[0, forged.len() as u8],
            forged.as_bytes(),
        ]
        .concat();
        assert_eq!(Metadata::from_bytes(&mark), None, "{forged}");
    }
    let behind = [headers.as_bytes(), Metadata::NONE.compressed(5).as_bytes()].concat();
    assert_eq!(
        Metadata::from_bytes(&behind),
        None,
        "only before all headers"
    );
}

#[test]
fn there_are_no_more_tags_than_a_value_may_have() {
    let all: Vec<String> = (0..=MAX_TAGS).map(|it| it.to_string()).collect();
    let tags = |count: usize| Metadata::NONE.with_tags(all[..count].iter().map(|it| &**it));
    let most = tags(MAX_TAGS).expect("good");
    assert_eq!(most.tags().count(), MAX_TAGS);
    assert!(tags(MAX_TAGS + 1).is_err());
    assert!(Metadata::NONE.with_tags(["a b"]).is_err());
    // What another node would have to make up.
    let mut forged = most.as_bytes().to_vec();
    assert!(Metadata::from_bytes(&forged).is_some());
    forged[8] = b'g';
    assert!(Metadata::from_bytes(&forged).is_none(), "no hash");
    let longer = [&[5][..], b":tags", &[4, 16], &[b'0'; 1040]].concat();
    assert!(Metadata::from_bytes(&longer).is_none(), "too many");
    let twice = [most.as_bytes(), most.as_bytes()].concat();
    assert!(
        Metadata::from_bytes(&twice).is_none(),
        "only before all headers"
    );
}
