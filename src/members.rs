//! The fixed list of members, as the settings have it.

use gaocache_core::{
    error::{Error, ErrorKind, Result},
    membership::Member,
};

/// Why a fixed list needs more settings.
pub const FIXED_NEEDS_IDENTITY: &str = "a fixed list holds no keys by which nodes could authenticate each other, so they need \
     certificates, or plaintext in a network that nobody else can reach";

/// Parses entries of the form `id=host:port`.
///
/// # Errors
/// [`ErrorKind::Configuration`]: an entry that is not of that form, an id that comes twice, or a
/// list without `my_id`.
pub fn fixed_members(peers: &[String], my_id: &str) -> Result<Vec<Member>> {
    let wrong = |message: String| Error::new(ErrorKind::Configuration, message);
    let mut members: Vec<Member> = Vec::new();
    for peer in peers {
        let parts = peer.split_once('=').filter(|(id, address)| {
            let port = address
                .rsplit_once(':')
                .map(|(_, port)| port.parse::<u16>());
            !id.is_empty() && matches!(port, Some(Ok(_)))
        });
        let Some((id, address)) = parts else {
            return Err(wrong(format!(
                "'{peer}' does not have the form id=host:port"
            )));
        };
        if members.iter().any(|member| *member.id == *id) {
            return Err(wrong(format!("two peers have the id '{id}'")));
        }
        members.push(Member::new(id, address));
    }
    if !members.iter().any(|member| *member.id == *my_id) {
        return Err(wrong(format!(
            "this node's id '{my_id}' is not in the list; every node must have the same list, including itself"
        )));
    }
    Ok(members)
}

#[cfg(test)]
mod tests {
    #[test]
    fn wrong_lists_are_told_apart() {
        let parse = |peers: &[&str]| {
            let peers: Vec<String> = peers.iter().map(|&peer| peer.to_owned()).collect();
            super::fixed_members(&peers, "a").map_err(|error| error.message().to_owned())
        };
        assert_eq!(parse(&["a=h:1", "b=[::1]:2"]).map(|list| list.len()), Ok(2));
        assert!(
            parse(&["b=h:1"])
                .unwrap_err()
                .contains("'a' is not in the list")
        );
        assert!(
            parse(&["a=h:1", "a=h:2"])
                .unwrap_err()
                .contains("two peers")
        );
        for wrong in ["a", "=h:1", "a=h", "a=h:99999"] {
            assert!(
                parse(&[wrong])
                    .unwrap_err()
                    .contains("does not have the form"),
                "{wrong}"
            );
        }
    }
}
