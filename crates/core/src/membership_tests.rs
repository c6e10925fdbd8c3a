use super::*;

fn member(id: &str, address: &str) -> Member {
    Member::new(id, address)
}

#[test]
fn the_fingerprint_tells_every_field_that_matters() {
    let of = |change: fn(&mut Member)| {
        let mut changed = member("a", "h:1");
        change(&mut changed);
        View::new(1, [changed, member("b", "h:2")]).fingerprint()
    };
    let plain = of(|_| {});
    assert_eq!(
        plain,
        View::new(7, [member("b", "h:2"), member("a", "h:1")]).fingerprint()
    );
    for changed in [
        of(|m| m.id = "c".into()),
        of(|m| m.address = "h:9".into()),
        of(|m| m.contact.address = "h:9".into()),
        of(|m| m.contact.key = Some(KeyFingerprint([7; 32]))),
        of(|m| m.zone = "z".into()),
        of(|m| m.weight = 7),
        of(|m| m.state = MemberState::Draining),
    ] {
        assert_ne!(plain, changed);
    }
}

#[test]
fn a_key_is_read_as_it_is_written_and_nothing_else_is_one() {
    let mut bytes = [0xa0; 32];
    bytes[31] = 0x0f;
    let key = KeyFingerprint(bytes);
    let text = key.to_string();
    assert!(text.starts_with("a0") && text.ends_with("0f"), "{text}");
    assert_eq!(KeyFingerprint::parse(&text), Some(key));
    let long = format!("{text}00");
    for wrong in ["", &text[1..], &long, &text.replace('f', "g")] {
        assert_eq!(KeyFingerprint::parse(wrong), None, "{wrong}");
    }
}
