//! nginx as an origin. Without one, these tests say so and end; `make nginx-test` has one.

use std::{
    io::Write,
    net::{SocketAddr, TcpListener},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use super::*;

/// A server of files; `Drop` ends it.
struct Nginx {
    address: SocketAddr,
    work: tempfile::TempDir,
    process: Child,
}

impl Drop for Nginx {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn program() -> Option<PathBuf> {
    if let Some(named) = std::env::var_os("GAOCACHE_TEST_NGINX") {
        return Some(named.into());
    }
    let usual = ["/usr/sbin/nginx", "/usr/local/sbin/nginx"];
    usual.iter().map(PathBuf::from).find(|it| it.exists())
}

fn settings_in(work: &Path, port: u16) -> String {
    let work = work.display();
    format!(
        "daemon off; master_process off; pid {work}/pid; error_log {work}/errors;
         events {{ }}
         http {{
           access_log {work}/access;
           client_body_temp_path {work}/t1; proxy_temp_path {work}/t2;
           fastcgi_temp_path {work}/t3; uwsgi_temp_path {work}/t4; scgi_temp_path {work}/t5;
           types {{ text/html html; }}
           gzip on; gzip_min_length 1; gzip_types text/html;
           server {{
             listen 127.0.0.1:{port};
             root {work}/files;
             location /tagged/ {{ add_header Cache-Tag 'red, blue'; }}
             location /short/ {{ expires -1; }}
             location /long/ {{ expires 1h; }}
             location /gone/ {{ return 410; }}
             location /busy/ {{ add_header Retry-After 100 always; return 503; }}
           }}
         }}"
    )
}

impl Nginx {
    /// `None`, loudly, if there is no nginx.
    async fn start() -> Option<Self> {
        let Some(program) = program() else {
            // Not by a macro, whose output the test harness keeps to itself.
            let mut out = std::io::stderr();
            let _ = out.write_all(b"SKIPPED: no nginx; run make nginx-test\n");
            return None;
        };
        let work = tempfile::tempdir().unwrap();
        for (name, text) in [
            ("page.html", "<p>first"),
            ("plain", "plain"),
            ("tagged/a", "a"),
            ("short/a", "a"),
            ("long/a", "a"),
        ] {
            let path = work.path().join("files").join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        let free = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = free.local_addr().unwrap();
        drop(free);
        let file = work.path().join("nginx.conf");
        std::fs::write(&file, settings_in(work.path(), address.port())).unwrap();
        let process = Command::new(program)
            .arg("-c")
            .arg(&file)
            .arg("-p")
            .arg(work.path())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let nginx = Self {
            address,
            work,
            process,
        };
        let listens = async {
            while tokio::net::TcpStream::connect(address).await.is_err() {
                tokio::task::yield_now().await;
            }
        };
        within("nginx", listens).await;
        Some(nginx)
    }

    /// Lines of its log with these words.
    fn logged(&self, words: &[&str]) -> usize {
        let log = std::fs::read_to_string(self.work.path().join("access")).unwrap_or_default();
        let has_all = |line: &&str| words.iter().all(|word| line.contains(word));
        log.lines().filter(has_all).count()
    }

    fn write(&self, name: &str, text: &str) {
        std::fs::write(self.work.path().join("files").join(name), text).unwrap();
    }

    async fn nodes(&self, size: usize, group: &str, origin: &str) -> Vec<TestNode> {
        let url = format!("http://{}/{{+key}}", self.address);
        let groups = format!(
            "groups=[{{ name = \"users\", max_value = \"1KiB\", {group} origin = {{ kind = \"http\", url = \"{url}\", retries = 0, {origin} }} }}]"
        );
        cluster(size, &url, &[&groups]).await
    }
}

#[tokio::test]
async fn what_nginx_says_of_a_file_comes_with_it_from_every_node() {
    let Some(nginx) = Nginx::start().await else {
        return;
    };
    let nodes = nginx.nodes(3, "ttl_seconds = 600,", "").await;
    let direct = http().get(format!("http://{}/page.html", nginx.address));
    let direct = direct.send().await.unwrap();
    for node in &nodes {
        let got = get(node, "page.html", &[]).await;
        for name in ["content-type", "last-modified", "etag"] {
            assert_eq!(lines(&got, name), lines(&direct, name), "{name}");
        }
        // gaocache asks for no compression, so nginx does not compress.
        assert_eq!(lines(&got, "content-encoding"), Vec::<&str>::new());
        assert_eq!(got.text().await.unwrap(), "<p>first");
    }
    assert_eq!(
        nginx.logged(&["page.html", " 200 "]),
        2,
        "one of them was direct"
    );
    for (key, status) in [
        ("missing", 404),
        ("gone/a", 404),
        ("busy/a", 502),
        // A directory: nginx redirects.
        ("tagged", 502),
    ] {
        assert_eq!(get(&nodes[0], key, &[]).await.status(), status, "{key}");
    }
    nginx.write("large", &"x".repeat(2_000));
    let large = get(&nodes[0], "large", &[]).await;
    assert_eq!(lines(&large, "gaocache-error"), ["value_too_large"]);
}

#[tokio::test]
async fn nginx_is_asked_whether_a_file_has_changed_and_a_stale_one_outlives_it() {
    let Some(mut nginx) = Nginx::start().await else {
        return;
    };
    let group = "ttl_seconds = 0.02, stale_if_error_seconds = 86400,";
    let nodes = nginx.nodes(1, group, "").await;
    let renewed = async || metric(&nodes[0], "gaocache_origin_renewals_total", &["users"]).await;
    get(&nodes[0], "page.html", &[]).await;
    within("renewals", async {
        while renewed().await < 2.0 {
            let got = get(&nodes[0], "page.html", &[]).await;
            assert_eq!(got.text().await.unwrap(), "<p>first");
        }
    })
    .await;
    assert!(nginx.logged(&["page.html", " 304 "]) >= 2);
    assert_eq!(nginx.logged(&["page.html", " 200 "]), 1);
    nginx.write("page.html", "<p>second, and longer");
    within("the second", async {
        while get(&nodes[0], "page.html", &[]).await.text().await.unwrap() == "<p>first" {}
    })
    .await;
    nginx.process.kill().unwrap();
    nginx.process.wait().unwrap();
    let stale = until(&nodes[0], "page.html", "stale").await;
    assert_eq!(stale.text().await.unwrap(), "<p>second, and longer");
    assert_eq!(get(&nodes[0], "plain", &[]).await.status(), 502);
}

#[tokio::test]
async fn expires_and_cache_tag_of_nginx_are_honoured() {
    let Some(nginx) = Nginx::start().await else {
        return;
    };
    let honour = "honour_cache_control = true,";
    let nodes = nginx.nodes(2, "", honour).await;
    for key in ["tagged/a", "short/a", "long/a"] {
        for _ in 0..2 {
            for node in &nodes {
                assert_eq!(get(node, key, &[]).await.text().await.unwrap(), "a");
            }
        }
    }
    let loads = |key: &str| nginx.logged(&[key, " 200 "]);
    assert_eq!(loads("/short/a"), 4, "it has expired at once");
    assert_eq!((loads("/long/a"), loads("/tagged/a")), (1, 1));
    let left = get(&nodes[0], "long/a", &[]).await;
    let left = lines(&left, "cache-control")[0].to_owned();
    let seconds: u64 = left.trim_start_matches("max-age=").parse().unwrap();
    assert!((3_000..=3_600).contains(&seconds), "{left}");

    let purge = nodes[1].http("/v1/users?tag=red");
    let purged = within("a purge", http().delete(purge).send())
        .await
        .unwrap();
    assert_eq!(purged.status(), 204);
    for node in &nodes {
        get(node, "tagged/a", &[]).await;
        get(node, "long/a", &[]).await;
    }
    assert_eq!((loads("/long/a"), loads("/tagged/a")), (1, 2));
}
