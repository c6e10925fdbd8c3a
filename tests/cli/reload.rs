//! New settings for a node that runs: by signal, by request, and when the file changes.

use std::{sync::Arc, time::Duration};

use super::{
    mounted::{Asked, Load, Mounted, group},
    serve::Serve,
    *,
};
use common::{CountingOrigin, within};

fn start(mounted: &Mounted) -> (Serve, Arc<Asked>) {
    start_with(mounted, &[])
}

fn start_with(mounted: &Mounted, further: &[&str]) -> (Serve, Arc<Asked>) {
    let path = mounted.path();
    let mut settings = vec!["registry.kind=memory", "node.worker_threads=1"];
    settings.extend(further);
    let mut serve = Serve::with_file(&path, &settings);
    serve.logs("\"ready\"");
    let asked = Asked::of(&serve, None);
    (serve, Arc::new(asked))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn groups_lives_origins_and_limits_change_under_load_and_no_get_fails() {
    let (one, other) = (CountingOrigin::start().await, CountingOrigin::start().await);
    let mut mounted = Mounted::new(&group("users", 600, &one.url()));
    let (mut serve, asked) = tokio::task::block_in_place(|| start(&mounted));
    let load = Load::start(&asked);
    load.goes_on().await;

    // A life, by signal.
    mounted.change(&group("users", 60, &one.url()));
    kill("-HUP", &serve.child);
    asked.until("groups[0].ttl_seconds", 60.0.into()).await;
    let (_, life, _) = asked.get("users", "short").await;
    assert!(life == "max-age=60" || life == "max-age=59", "{life}");
    load.goes_on().await;

    // A group and a limit, by the file alone.
    let both = group("users", 60, &one.url()) + &group("more", 600, &one.url());
    let level = "warn,gaocache::cli=info";
    mounted.change(&format!(
        "[limits]\nmax_connections = 77\n[log]\nlevel = \"{level}\"\n{both}"
    ));
    asked.until("groups[1].name", "more".into()).await;
    assert_eq!(asked.get("more", "m").await.0, 200);
    assert_eq!(asked.metric("gaocache_connections_limit", "").await, 77.0);
    assert_eq!(asked.admin("/log").await.trim(), level);
    load.goes_on().await;

    // An origin, on request. What is held stays.
    let held = asked.get("users", "held").await;
    let moved = group("users", 60, &other.url()) + &group("more", 600, &one.url());
    mounted.change(&moved);
    let (status, answer) = asked.reload().await;
    assert_eq!(status, 200, "{answer}");
    let changed = answer["changed"].to_string();
    assert!(changed.contains("groups[0].origin.url"), "{changed}");
    assert_eq!(asked.get("users", "from-the-other").await.0, 200);
    assert_eq!(other.loads_of("from-the-other"), 1);
    assert_eq!(asked.get("users", "held").await.2, held.2);
    assert_eq!(one.loads_of("held") + other.loads_of("held"), 1);
    load.goes_on().await;

    // A group goes, and its entries with it; it comes back empty.
    assert_eq!(one.loads_of("m"), 1);
    mounted.change(&group("users", 60, &other.url()));
    let (_, answer) = asked.reload().await;
    assert_eq!(answer["groups_removed"].to_string(), "[\"more\"]");
    let (status, _, body) = asked.get("more", "m").await;
    assert!(
        status == 404 && body.contains("unknown_group"),
        "{status} {body}"
    );
    has_no_entries(&asked).await;
    mounted.change(&moved);
    assert_eq!(asked.reload().await.0, 200);
    assert_eq!(asked.get("more", "m").await.0, 200);
    assert_eq!(one.loads_of("m"), 2);

    load.goes_on().await;
    load.ended().await;
    serve.logs("the settings were read again");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_memory_of_a_group_changes() {
    let origin = CountingOrigin::start().await;
    let users = group("users", 600, &origin.url());
    let mut mounted = Mounted::new(&users);
    let (_serve, asked) = tokio::task::block_in_place(|| start(&mounted));
    let owned = "group=\"users\",tier=\"owned\"";
    let capacity = asked.metric("gaocache_store_capacity_bytes", "owned").await;
    let memory = "memory_share = 0.25\nmemory_limit = 0.5\norigin.";
    for (settings, share, limit) in [
        (users.replacen("origin.", memory, 1), 0.25, 0.5),
        (users.clone(), 0.0, 1.0),
    ] {
        mounted.change(&settings);
        assert_eq!(asked.reload().await.0, 200);
        for (name, ratio) in [("share", share), ("limit", limit)] {
            let name = format!("gaocache_store_{name}_bytes");
            assert_eq!(asked.metric(&name, owned).await, capacity * ratio, "{name}");
        }
    }
}

async fn has_no_entries(asked: &Asked) {
    within("its memory", async {
        while asked.metric("gaocache_store_items", "group=\"more\"").await != 0.0 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
}

/// An origin whose values are the header that came with the request.
async fn telling_origin() -> String {
    let tell = async |headers: axum::http::HeaderMap| {
        let header = headers.get("authorization").map(|it| it.as_bytes());
        header.unwrap_or_default().to_vec()
    };
    let router = axum::Router::new().route("/users/{key}", axum::routing::get(tell));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await;
    let listener = listener.expect("a port");
    let address = listener.local_addr().expect("bound");
    tokio::spawn(async move { axum::serve(listener, router).await });
    format!("http://{address}/users/{{key}}")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_secret_in_a_file_is_sent_and_a_changed_one_is_taken_up() {
    let folder = tempfile::tempdir().expect("a folder");
    let token = folder.path().join("token");
    fs::write(&token, "first\n").expect("written");
    let headers = format!(
        "origin.headers = {{ authorization = \"Bearer \" }}\norigin.header_files = {{ authorization = {token:?} }}\n"
    );
    let origin = telling_origin().await;
    let mut mounted = Mounted::new(&(group("users", 600, &origin) + &headers));
    let (mut serve, asked) = tokio::task::block_in_place(|| start(&mounted));
    assert_eq!(asked.get("users", "a").await.2, "Bearer first");
    let rotated = async |value: &str| {
        let mut n = 0;
        within("the new token", async {
            while asked.get("users", &format!("{value}{n}")).await.2 != format!("Bearer {value}") {
                n += 1;
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        })
        .await;
    };
    fs::write(&token, "second").expect("written");
    rotated("second").await;
    let line = serve.logs("\"cause\":\"a file changed\"");
    let named = "\"changed\":\"groups[0].origin.header_files\"";
    assert!(line.contains(named), "{line}");
    // Nothing that would be sent without it: what was good before goes on.
    fs::write(&token, "").expect("written");
    serve.logs("the file is empty");
    assert_eq!(asked.get("users", "b").await.2, "Bearer second");
    // Another file, by the settings, is followed too.
    let other = folder.path().join("other");
    fs::write(&other, "third").expect("written");
    let headers = headers.replace("/token\"", "/other\"");
    mounted.change(&(group("users", 600, &origin) + &headers));
    rotated("third").await;
    fs::write(&other, "fourth").expect("written");
    rotated("fourth").await;
    let shown = asked.setting("groups[0].origin.headers").await.to_string();
    assert!(!shown.contains("fourth"), "{shown}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn settings_that_are_wrong_change_nothing_and_what_is_wrong_is_told() {
    let origin = CountingOrigin::start().await;
    let good = group("users", 600, &origin.url()) + &group("more", 600, &origin.url());
    let mut mounted = Mounted::new(&good);
    let (mut serve, asked) = tokio::task::block_in_place(|| start(&mounted));
    let load = Load::start(&asked);
    load.goes_on().await;
    for (bad, reason) in [
        // The first setting is right, the second is not.
        (
            group("users", 5, &origin.url()) + "[node]\nwieght = 5",
            "did you mean 'node.weight'?",
        ),
        (
            group("users", 5, &origin.url()) + "[[groups",
            "not valid TOML",
        ),
        (String::new(), "at least one [[groups]]"),
        // Right by itself, but not for a node that was started with smaller values.
        (
            group("users", 5, &origin.url()) + "max_value = \"16MiB\"",
            "restart the node for it",
        ),
    ] {
        mounted.change(&bad);
        let (status, answer) = asked.reload().await;
        assert_eq!(status, 500, "{answer}");
        assert_eq!(answer["error"], "configuration");
        assert!(
            answer["message"].to_string().contains(reason),
            "{reason}: {answer}"
        );
        assert_eq!(asked.setting("groups[0].ttl_seconds").await, 600.0);
        assert_eq!(asked.setting("groups[1].name").await, "more");
        assert_eq!(asked.get("more", "m").await.0, 200);
        let shown = asked.admin("/config").await;
        assert!(shown.contains(reason), "{shown}");
        assert_eq!(asked.metric("gaocache_reload_refused", "").await, 1.0);
        load.goes_on().await;
    }
    serve.logs("the new settings are refused; nothing has changed");
    // What needs a restart is named, and the rest applies.
    let change = good.replace("ttl_seconds = 600", "ttl_seconds = 300");
    mounted.change(&format!("[cache]\ncapacity = \"33MiB\"\n{change}"));
    let (status, answer) = asked.reload().await;
    assert_eq!(status, 200, "{answer}");
    assert_eq!(
        answer["requires_restart"].to_string(),
        "[\"cache.capacity\"]"
    );
    assert_eq!(asked.setting("groups[0].ttl_seconds").await, 300.0);
    assert_ne!(asked.setting("cache.capacity").await, "33MiB");
    assert_eq!(asked.metric("gaocache_reload_refused", "").await, 0.0);
    let refused = asked
        .metric("gaocache_reloads_total", "outcome=\"refused\"")
        .await;
    assert!(refused >= 4.0, "{refused}");
    load.ended().await;
}

/// Whatever made the node read its settings, and what was refused is not what is in force.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refusal_is_over_when_the_settings_are_again_what_they_were() {
    let good = group("users", 600, "http://127.0.0.1:1/{key}");
    let mut mounted = Mounted::new(&good);
    let (mut serve, asked) = tokio::task::block_in_place(|| start(&mounted));
    for by_signal in [false, true] {
        mounted.change("[[groups");
        if by_signal {
            kill("-HUP", &serve.child);
            serve.logs("\"cause\":\"SIGHUP\"");
        } else {
            assert_eq!(asked.reload().await.0, 500);
        }
        refused_becomes(&asked, 1.0).await;
        mounted.change(&good);
        refused_becomes(&asked, 0.0).await;
        let shown: serde_json::Value =
            serde_json::from_str(&asked.admin("/config").await).expect("JSON");
        assert_eq!(shown["problem"], "");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_that_is_gone_is_a_refusal_like_any_other() {
    let folder = tempfile::tempdir().expect("a folder");
    let token = folder.path().join("token");
    fs::write(&token, "first").expect("written");
    let headers = format!("origin.header_files = {{ authorization = {token:?} }}\n");
    let good = group("users", 600, "http://127.0.0.1:1/{key}") + &headers;
    let mounted = Mounted::new(&good);
    let (mut serve, asked) = tokio::task::block_in_place(|| start(&mounted));
    for file in [mounted.path(), token] {
        let away = file.with_extension("away");
        fs::rename(&file, &away).expect("moved");
        let line = serve.logs("the new settings are refused; nothing has changed");
        assert!(line.contains(file.to_str().expect("text")), "{line}");
        refused_becomes(&asked, 1.0).await;
        fs::rename(&away, &file).expect("moved back");
        refused_becomes(&asked, 0.0).await;
    }
}

async fn refused_becomes(asked: &Asked, value: f64) {
    within("gaocache_reload_refused", async {
        while asked.metric("gaocache_reload_refused", "").await != value {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
}

/// And what is masked, or is one of many.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_log_of_a_reload_leaves_out_no_change_without_a_word() {
    let secret = |secret: &str| {
        let url = format!("http://user:{secret}@127.0.0.1:1/{{key}}");
        group("users", 600, &url) + &format!("origin.headers = {{ x-secret = \"{secret}\" }}\n")
    };
    let mut mounted = Mounted::new(&secret("one"));
    let (mut serve, asked) = tokio::task::block_in_place(|| start(&mounted));
    mounted.change(&secret("two"));
    let (_, answer) = asked.reload().await;
    let both = "[\"groups[0].origin.url\",\"groups[0].origin.headers\"]";
    assert_eq!(answer["changed"].to_string(), both);
    let many = (0..9).map(|n| group(&format!("g{n}"), 60, "http://127.0.0.1:1/{key}"));
    mounted.change(&(secret("two") + &many.collect::<String>()));
    let (_, answer) = asked.reload().await;
    let count = answer["changed"].as_array().expect("a list").len();
    assert!(count > 100, "{answer}");
    let more = format!(" and {} more\"", count - 20);
    serve.logs(&more);
}

/// A second pool beside the first would let twice as many loads run.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_origin_that_stays_keeps_its_limit_over_a_reload() {
    let origin = CountingOrigin::start().await;
    let limits = "origin.max_concurrency = 1\norigin.max_queue = 0\n";
    let limited = |ttl| group("users", ttl, &origin.url()) + limits;
    let mut mounted = Mounted::new(&limited(600));
    let (_serve, asked) = tokio::task::block_in_place(|| start(&mounted));
    origin.hold();
    let first = tokio::spawn({
        let asked = asked.clone();
        async move { asked.get("users", "first").await.0 }
    });
    origin.is_asked().await;
    mounted.change(&limited(60));
    assert_eq!(asked.reload().await.0, 200);
    // The first one still has the only place.
    let second = within("a refusal", asked.get("users", "second")).await;
    assert_eq!(second.0, 503, "{}", second.2);
    origin.release();
    assert_eq!(first.await.expect("ends"), 200);
}

/// A secret header must not go to the origin of the group that is in that place now.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_set_for_a_group_by_number_never_goes_to_another_group() {
    let (one, other) = (CountingOrigin::start().await, CountingOrigin::start().await);
    let users = group("users", 600, &one.url());
    let mut mounted = Mounted::new(&users);
    let secret = "groups[0].origin.headers={ \"x-secret\" = \"s\" }";
    let (_serve, asked) = tokio::task::block_in_place(|| start_with(&mounted, &[secret]));
    mounted.change(&(group("public", 600, &other.url()) + &users));
    let (status, answer) = asked.reload().await;
    assert_eq!(status, 500, "{answer}");
    let reason = answer["message"].to_string();
    assert!(
        reason.contains("which was group 'users' and is group 'public'"),
        "{reason}"
    );
    assert_eq!(asked.get("public", "k").await.0, 404);
    // Behind it, another group may come.
    mounted.change(&(users + &group("public", 600, &other.url())));
    let (status, answer) = asked.reload().await;
    assert_eq!(status, 200, "{answer}");
    assert_eq!(asked.get("public", "k").await.0, 200);
    assert_eq!(other.loads(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_without_groups_is_ready_and_groups_may_come() {
    let origin = CountingOrigin::start().await;
    let mut mounted = Mounted::new("");
    let (_serve, asked) = tokio::task::block_in_place(|| start(&mounted));
    let (status, _, body) = asked.get("users", "k").await;
    assert_eq!(status, 404, "{body}");
    assert!(body.contains("unknown_group"), "{body}");
    mounted.change(&group("users", 600, &origin.url()));
    assert_eq!(asked.reload().await.0, 200);
    assert_eq!(asked.get("users", "k").await.0, 200);
}
