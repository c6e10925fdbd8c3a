//! What crosses the wire is what was sent, and the lean path writes what generated code reads.

use bytes::Bytes;
use prost::Message;

use super::*;

fn peer(value: Option<&'static str>, expires_at: Timestamp) -> PeerAnswer {
    PeerAnswer {
        record: kept(value, expires_at),
        source: Source::Hit,
        course: Course {
            collapsed: true,
            stale: false,
        },
        uncacheable: false,
    }
}

fn kept(value: Option<&'static str>, expires_at: Timestamp) -> Record {
    Record {
        value: value.map(Bytes::from_static_str),
        expires_at,
        stale: Stale::NEVER,
        entity_tag: u64::MAX,
        metadata: said(),
    }
}

fn said() -> Metadata {
    let said = [("content-type", "text/plain"), ("x-kept", "ü")];
    Metadata::new(said).expect("good")
}

trait FromStaticStr {
    fn from_static_str(text: &'static str) -> Self;
}
impl FromStaticStr for Bytes {
    fn from_static_str(text: &'static str) -> Self {
        Bytes::from_static(text.as_bytes())
    }
}

/// By the sender's clock: when it was asked, and when it read the entry.
const ASKED: Timestamp = Timestamp(900_000);
const READ: Timestamp = Timestamp(900_700);

#[test]
fn an_entry_crosses_the_wire_with_its_age() {
    for (value, expires_at, arrives_with) in [
        (Some("value"), Timestamp(901_234), Timestamp(7_234)),
        (Some(""), Timestamp::NEVER, Timestamp::NEVER),
        (None, Timestamp(0), Timestamp(6_700)),
    ] {
        let bytes = fetch_reply(peer(value, expires_at), ASKED, READ).message();
        let read = wire::FetchResponse::decode(bytes).expect("the generated code reads it");
        assert_eq!(read, fetch_response(peer(value, expires_at), ASKED, READ));
        // The receiver sent its question at 6,000 of its own clock, so the entry was read at
        // 6,700 at the earliest.
        let back = peer_answer(read, Timestamp(6_000)).expect("a known format");
        assert_eq!(back.record, kept(value, arrives_with));
        assert_eq!(back.source, Source::Hit);
        assert!(back.course.collapsed && !back.course.stale);
    }
}

#[test]
fn what_is_said_in_place_of_a_value_crosses_the_wire_and_older_nodes_see_that_there_is_none() {
    let body = NotFoundBody::new("nobody", said());
    let mut answer = peer(None, Timestamp::NEVER);
    answer.record = answer.record.with_absence(&body);
    assert!(answer.record.is_absent());
    let bytes = fetch_reply(answer.clone(), ASKED, READ).message();
    let read = wire::FetchResponse::decode(bytes).expect("the generated code reads it");
    let entry = read.entry.clone().expect("an entry");
    assert!(!entry.found);
    assert_eq!(Metadata::from_bytes(&entry.metadata), Some(said()));
    let back = peer_answer(read, ASKED).expect("a known format");
    assert_eq!(back.record, answer.record);
}

#[test]
fn an_entry_of_any_size_is_written_as_the_generated_code_does() {
    for size in [0, 1, 127, 128, 5_000, 100_000] {
        let mut answer = peer(Some(""), Timestamp::NEVER);
        answer.record.value = Some(vec![7u8; size].into());
        let bytes = fetch_reply(answer.clone(), ASKED, READ).message();
        let read = wire::FetchResponse::decode(bytes).expect("the generated code reads it");
        assert_eq!(read, fetch_response(answer, ASKED, READ));
    }
}

#[test]
fn an_answer_written_by_hand_is_what_the_generated_code_reads() {
    for size in [0, 1, 127, 128, 5_000, 100_000] {
        let answer = Answer {
            value: vec![7u8; size].into(),
            expires_at: Timestamp(5_000),
            entity_tag: 9,
            source: Source::Peer,
            owner: "gaocache-1".into(),
            metadata: said(),
            course: Course::default(),
        };
        let bytes = get_reply(answer.clone(), Timestamp(2_000)).message();
        let read = wire::GetResponse::decode(bytes).expect("the generated code reads it");
        assert_eq!(read, get_response(answer, Timestamp(2_000)));
        assert_eq!(read.ttl_remaining_ms, Some(3_000));
    }
}

#[test]
fn entries_handed_over_cross_the_wire_with_their_age() {
    let parcel = |group: &str, value: Option<&'static str>, expires_at| Parcel {
        group: group.into(),
        key: "k".into(),
        what: Handed::Over(kept(value, expires_at)),
        use_count: 7,
        copy: true,
    };
    let announced = Parcel {
        what: Handed::Announced { value_bytes: 5 },
        ..parcel("h", None, Timestamp::NEVER)
    };
    let sent = |expires_at| {
        vec![
            parcel("g", Some("value"), expires_at),
            parcel("g", Some(""), Timestamp::NEVER),
            parcel("g", None, Timestamp::NEVER),
            parcel("h", None, expires_at),
            announced.clone(),
        ]
    };
    let batch = wire::HandoffBatch {
        format: ENTRY_FORMAT,
        sender: 9,
        receipts: 1,
        elapsed_ms: 0,
        revision: 3,
        entries: handoff_entries(sent(Timestamp(901_234)), READ),
    };
    let mut read =
        wire::HandoffBatch::decode(&*batch.encode_to_vec()).expect("generated code reads it");
    let back = parcels(read.clone(), Timestamp(50)).expect("a known format");
    let expected = sent(Timestamp(584));
    assert_eq!(format!("{back:?}"), format!("{expected:?}"));
    read.format += 1;
    assert!(parcels(read, Timestamp(50)).is_none());
}

#[test]
fn each_fate_crosses_the_wire_and_an_unknown_one_is_a_refusal() {
    let sent = Receipt {
        fates: Fate::ALL.into(),
    };
    let bytes = handoff_receipt(sent.clone()).encode_to_vec();
    let read = wire::HandoffReceipt::decode(&*bytes).expect("the generated code reads it");
    assert_eq!(receipt(&read), sent);
    let odd = wire::HandoffReceipt {
        fates: vec![99],
        ..wire::HandoffReceipt::default()
    };
    assert_eq!(receipt(&odd).fates, [Fate::Refused]);
}

#[test]
fn a_format_that_is_not_known_is_refused() {
    let mut response = fetch_response(peer(Some("v"), Timestamp::NEVER), ASKED, READ);
    response.format = ENTRY_FORMAT + 1;
    assert!(peer_answer(response, ASKED).is_none());
    assert!(peer_answer(wire::FetchResponse::default(), ASKED).is_none());
}

#[test]
fn metadata_that_no_node_sends_is_refused_with_what_it_came_with() {
    let mut response = fetch_response(peer(Some("v"), Timestamp::NEVER), ASKED, READ);
    let record = kept(Some("v"), Timestamp::NEVER);
    for wrong in [
        b"\x0econtent-length\0\x015".to_vec(),
        b"\x01x\0\x02\r\n".to_vec(),
        vec![0xff; 4096],
    ] {
        let entry = response.entry.as_mut().expect("an entry");
        entry.metadata = wrong.clone().into();
        assert!(peer_answer(response.clone(), ASKED).is_none(), "{wrong:?}");
        let mut batch = wire::HandoffBatch {
            format: ENTRY_FORMAT,
            entries: handoff_entries(vec![parcel_of(record.clone())], READ),
            ..wire::HandoffBatch::default()
        };
        assert!(parcels(batch.clone(), READ).is_some());
        let Some(What::Entry(entry)) = &mut batch.entries[0].what else {
            panic!("an entry");
        };
        entry.metadata = wrong.into();
        assert!(parcels(batch, READ).is_none());
    }
}

fn parcel_of(record: Record) -> Parcel {
    Parcel {
        group: "g".into(),
        key: "k".into(),
        what: Handed::Over(record),
        use_count: 1,
        copy: false,
    }
}

#[test]
fn the_age_at_the_origin_crosses_the_wire() {
    let told = Metadata::new([("cache-control", "max-age=60")]).expect("good");
    let mut record = kept(Some("v"), Timestamp::NEVER);
    record.metadata = told.with_age(Duration::from_secs(5));
    // Loaded at 0 of the sender's clock, and read at 900,700.
    let sent = fetch_response(
        PeerAnswer {
            record,
            ..peer(None, READ)
        },
        ASKED,
        READ,
    );
    let back = peer_answer(sent, Timestamp(6_000)).expect("a known format");
    let age = back.record.metadata.age(Timestamp(6_700));
    assert_eq!(age, Some(Duration::from_millis(905_700)));
}
