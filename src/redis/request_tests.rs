use proptest::prelude::*;
use redis_protocol::resp2::{
    decode::decode,
    encode::encode,
    types::{OwnedFrame, Resp2Frame},
};

use super::*;

type Command = Vec<Vec<u8>>;

const MOST: usize = 1_000;

/// What a decoder finds in bytes that arrive in these parts, and how it ends.
fn found(bytes: &[u8], cuts: &[usize]) -> (Vec<Command>, Result<(), Violation>) {
    let mut ends: Vec<usize> = cuts.iter().map(|it| it % (bytes.len() + 1)).collect();
    ends.push(bytes.len());
    ends.sort_unstable();
    let (mut decoder, mut commands, mut at) = (Decoder::default(), Vec::new(), 0);
    for end in ends {
        loop {
            let rest = &bytes[at..end];
            match decoder.next(rest, MOST) {
                Ok(Some(length)) => {
                    let arguments = decoder.arguments(&rest[..length]);
                    commands.push(arguments.after(0).map(<[u8]>::to_vec).collect());
                    at += length;
                }
                Ok(None) => break,
                Err(violation) => return (commands, Err(violation)),
            }
        }
    }
    (commands, Ok(()))
}

fn encoded(commands: &[Command]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for command in commands {
        let arguments = command.iter().cloned().map(OwnedFrame::BulkString);
        let frame = OwnedFrame::Array(arguments.collect());
        let mut one = vec![0; frame.encode_len(false)];
        let length = encode(&mut one, &frame, false).expect("it fits");
        bytes.extend(&one[..length]);
    }
    bytes
}

/// What the crate `redis-protocol` finds.
fn oracle(mut bytes: &[u8]) -> Vec<Command> {
    let mut commands = Vec::new();
    while let Ok(Some((OwnedFrame::Array(arguments), length))) = decode(bytes) {
        let texts = arguments.into_iter().map_while(|it| match it {
            OwnedFrame::BulkString(text) => Some(text),
            _ => None,
        });
        commands.push(texts.collect());
        bytes = &bytes[length..];
    }
    commands
}

fn commands() -> impl Strategy<Value = Vec<Command>> {
    let argument = prop::collection::vec(any::<u8>(), 0..40);
    let command = prop::collection::vec(argument, 1..6);
    prop::collection::vec(command, 0..6)
}

proptest! {
    #[test]
    fn commands_are_found_however_they_are_cut_up(
        commands in commands(),
        cuts in prop::collection::vec(any::<usize>(), 0..20),
    ) {
        let bytes = encoded(&commands);
        prop_assert_eq!(oracle(&bytes), commands.clone());
        prop_assert_eq!(found(&bytes, &cuts), (commands, Ok(())));
    }

    #[test]
    fn damaged_bytes_are_read_as_others_read_them_or_refused(
        commands in commands(),
        cuts in prop::collection::vec(any::<usize>(), 0..8),
        (at, byte) in (any::<usize>(), any::<u8>()),
    ) {
        let mut bytes = encoded(&commands);
        if !bytes.is_empty() {
            let at = at % bytes.len();
            bytes[at] = byte;
        }
        let whole = found(&bytes, &[]);
        prop_assert_eq!(&found(&bytes, &cuts), &whole);
        // A line of words and a command of nothing are for this decoder alone.
        let oracle = oracle(&bytes);
        for (ours, theirs) in whole.0.iter().zip(&oracle) {
            if ours.is_empty() || theirs.is_empty() {
                break;
            }
            prop_assert_eq!(ours, theirs);
        }
    }

    #[test]
    fn any_bytes_are_taken_or_refused(
        bytes in prop::collection::vec(any::<u8>(), 0..300),
        cuts in prop::collection::vec(any::<usize>(), 0..8),
    ) {
        prop_assert_eq!(found(&bytes, &cuts), found(&bytes, &[]));
    }
}

fn refused(bytes: &[u8]) -> String {
    let (_, end) = found(bytes, &[1, 2, 3]);
    end.expect_err("no command").0.into_owned()
}

#[test]
fn what_is_announced_is_refused_before_it_comes() {
    assert!(refused(b"*1001\r\n").contains("max_keys_per_request"));
    assert!(refused(b"*1\r\n$65537\r\n").contains("read-through"));
    assert!(refused(b"*1\r\n$-1\r\n").contains("bulk length"));
    assert!(refused(b"*99999999999999999999\r\n").contains("number"));
    assert!(refused(b"*1\r\n$9223372036854775808\r\n").contains("number"));
    assert!(refused(b"*1\r\n:1\r\n").contains("expected '$', got ':'"));
    assert!(refused(b"*1\r\n$1\r\nabc").contains("line break"));
    assert!(refused(&[b'a'; MOST_LINE + 1]).contains("inline"));
    let many = b"$65536\r\n".to_vec();
    let mut large = b"*100\r\n".to_vec();
    for _ in 0..64 {
        large.extend(&many);
        large.extend([b'x'; 65_536]);
        large.extend(b"\r\n");
    }
    assert!(refused(&large).contains("4194304"));
}

#[test]
fn an_announced_length_reserves_nothing() {
    let mut decoder = Decoder::default();
    assert_eq!(decoder.next(b"*1000\r\n$65536\r\nabc", MOST), Ok(None));
    assert_eq!(decoder.places.capacity(), 0);
}

#[test]
fn lines_of_words_are_commands_and_those_of_http_are_not() {
    let (commands, end) = found(b"PING\r\n\r\n  GET  users:a \nX", &[]);
    assert_eq!(end, Ok(()));
    let words = |text: &str| -> Command { text.split(' ').map(|it| it.into()).collect() };
    assert_eq!(commands, [words("PING"), Vec::new(), words("GET users:a")]);
    assert!(refused(b"GET / HTTP/1.1\r\nHost: a\r\n").contains("HTTP"));
    assert!(refused(b"post / HTTP/1.1\r\n").contains("HTTP"));
    assert!(refused(b"GET \"a b\"\r\n").contains("quotes"));
    let (commands, _) = found(b"*0\r\n*-1\r\n*1\r\n$4\r\nPING\r\n", &[2, 5, 9]);
    assert_eq!(commands, [Vec::new(), Vec::new(), words("PING")]);
}
