//! Roles × calls × listeners: every cell, over real sockets, at a node as a process.

use std::fs;

use crate::{
    calls::{Call, Listener, Verdict, calls, make},
    common::{CountingOrigin, etcd::free_port, process::NodeProcess, within},
    line,
};

/// Who calls: the token, and the role that it gives for the group `users` alone.
struct Who {
    name: &'static str,
    token: Option<&'static str>,
    known: bool,
    role: Option<&'static str>,
}

const CALLERS: [Who; 6] = [
    Who {
        name: "nobody",
        token: None,
        known: false,
        role: None,
    },
    Who {
        name: "a stranger",
        token: Some("made-up"),
        known: false,
        role: None,
    },
    Who {
        name: "a reader",
        token: Some("t-read"),
        known: true,
        role: Some("read"),
    },
    Who {
        name: "a remover",
        token: Some("t-remove"),
        known: true,
        role: Some("remove"),
    },
    Who {
        name: "a purger",
        token: Some("t-purge"),
        known: true,
        role: Some("purge"),
    },
    Who {
        name: "an admin",
        token: Some("t-admin"),
        known: true,
        role: Some("admin"),
    },
];

/// What everybody may do, in one node after the other.
const OPEN: [&[&str]; 4] = [
    &[],
    &["read"],
    &["read", "remove"],
    &["read", "remove", "purge", "admin"],
];

fn expected(open: &[&str], needs: Option<&str>, who: &Who, socket: bool, group: &str) -> Verdict {
    let Some(needs) = needs else {
        return Verdict::Allowed;
    };
    let granted = who.role == Some(needs) && (group == "users" || needs == "admin");
    if socket || open.contains(&needs) || granted {
        Verdict::Allowed
    } else if who.known {
        Verdict::Denied
    } else {
        Verdict::Unauthenticated
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_role_is_heard_for_its_calls_and_for_no_other_on_every_listener() {
    let origin = CountingOrigin::start().await;
    let folder = tempfile::tempdir().expect("a folder");
    let tokens = folder.path().join("tokens");
    let roles = ["read", "remove", "purge"]
        .map(|role| line(role, &format!("t-{role}"), &format!("{role} users")));
    fs::write(&tokens, roles.concat() + &line("admin", "t-admin", "admin")).expect("written");
    let (mut cells, mut refused) = (0, 0);
    for (number, open) in OPEN.iter().enumerate() {
        let socket = folder.path().join(format!("{number}.sock"));
        let redis = free_port();
        let node = node(&origin, open, &tokens, &socket, redis).await;
        let listeners = [
            Listener::Grpc(node.grpc),
            Listener::Http(node.http),
            Listener::Admin(node.admin),
            Listener::Redis(redis),
            Listener::Socket(socket),
        ];
        let mut refused_here = 0;
        for listener in &listeners {
            let local = matches!(listener, Listener::Socket(_));
            for (call, needs) in calls(listener) {
                for who in &CALLERS {
                    for group in groups(call) {
                        let wanted = expected(open, needs, who, local, group);
                        let given = make(listener, call, group, who.token).await;
                        let cell = format!("{listener:?} {call:?} {group} {} {open:?}", who.name);
                        assert_eq!(given, wanted, "{cell}");
                        cells += 1;
                        refused_here += usize::from(given != Verdict::Allowed);
                    }
                }
            }
        }
        let counted = async |label| node.metric("gaocache_auth_refusals_total", label).await;
        // Beside them are passwords that nobody knows.
        let calls = counted("").await - counted("role=\"login\"").await;
        assert_eq!(calls, refused_here as f64, "each refusal is counted");
        refused += refused_here;
    }
    println!("{cells} cells, {refused} of them refused");
}

/// The groups that a call is tried with: another than the one that is granted, too.
fn groups(call: Call) -> &'static [&'static str] {
    match call {
        Call::Path(_, text) | Call::Words(text) if !text.contains("{group}") => &["users"],
        _ => &["users", "orders"],
    }
}

async fn node(
    origin: &CountingOrigin,
    open: &[&str],
    tokens: &std::path::Path,
    socket: &std::path::Path,
    redis: u16,
) -> NodeProcess {
    let group = |name: &str| {
        format!(
            "{{ name = \"{name}\", ttl_seconds = 60, origin = {{ kind = \"http\", url = \"{}\" }} }}",
            origin.url()
        )
    };
    let further = [
        "registry.kind=memory".into(),
        "log.level=warn".into(),
        format!("auth.anonymous={}", open.join(",")),
        format!("auth.token_file={}", tokens.display()),
        format!("admin.socket={}", socket.display()),
        format!("redis.listen=127.0.0.1:{redis}"),
        format!("groups=[{}, {}]", group("users"), group("orders")),
    ];
    let further: Vec<&str> = further.iter().map(String::as_str).collect();
    let node = NodeProcess::start("n0", &["http://127.0.0.1:1"], &origin.url(), &further);
    within("readiness", async {
        while node.readyz().await.is_none_or(|(status, _)| status != 200) {
            tokio::task::yield_now().await;
        }
    })
    .await;
    node
}
