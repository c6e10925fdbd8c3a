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
        of(|m| m.zone = "z".into()),
        of(|m| m.weight = 7),
        of(|m| m.state = MemberState::Draining),
    ] {
        assert_ne!(plain, changed);
    }
}
