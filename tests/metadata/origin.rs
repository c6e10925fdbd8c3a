//! An origin that answers by the first word of the key, writes its responses by hand, and notes
//! what it was asked.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use parking_lot::Mutex;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::watch,
};

/// Cheap to clone.
#[derive(Clone)]
pub(super) struct Origin {
    pub(super) address: SocketAddr,
    state: Arc<State>,
}

struct State {
    /// The heads of all requests, in lower case.
    requests: Mutex<Vec<String>>,
    /// What it has is another value than before.
    changed: AtomicBool,
    down: AtomicBool,
    open: watch::Sender<bool>,
}

pub(super) const MODIFIED: &str = "Sun, 06 Nov 1994 08:49:37 GMT";

impl Origin {
    pub(super) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let state = Arc::new(State {
            requests: Mutex::default(),
            changed: AtomicBool::new(false),
            down: AtomicBool::new(false),
            open: watch::Sender::new(true),
        });
        let shared = state.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(stream, shared.clone()));
            }
        });
        Self { address, state }
    }

    /// The heads of the requests so far that are about this path.
    pub(super) fn asked(&self, path: &str) -> Vec<String> {
        let start = format!("get {path} ");
        let requests = self.state.requests.lock();
        let about = requests.iter().filter(|it| it.starts_with(&start));
        about.cloned().collect()
    }

    pub(super) fn changes(&self) {
        self.state.changed.store(true, Ordering::SeqCst);
    }

    pub(super) fn is_down(&self, down: bool) {
        self.state.down.store(down, Ordering::SeqCst);
    }

    /// Answers wait, or go on.
    pub(super) fn is_open(&self, open: bool) {
        self.state.open.send_replace(open);
    }
}

async fn serve(mut stream: TcpStream, state: Arc<State>) {
    let mut request = Vec::new();
    let mut buffer = [0; 1024];
    while !request.ends_with(b"\r\n\r\n") {
        match stream.read(&mut buffer).await {
            Ok(read @ 1..) => request.extend_from_slice(&buffer[..read]),
            _ => return,
        }
    }
    let request = String::from_utf8_lossy(&request).to_lowercase();
    state.requests.lock().push(request.clone());
    let mut open = state.open.subscribe();
    open.wait_for(|open| *open).await.unwrap();
    let _ = stream.write_all(&answer(&request, &state)).await;
    let _ = stream.shutdown().await;
    // Read to the end, so that closing does not reset what was sent.
    while matches!(stream.read(&mut buffer).await, Ok(1..)) {}
}

fn answer(request: &str, state: &State) -> Vec<u8> {
    let key = request.split(' ').nth(1).unwrap_or_default();
    let key = key.trim_start_matches('/');
    let changed = state.changed.load(Ordering::SeqCst);
    let (tag, body) = if changed {
        ("\"2\"", "second")
    } else {
        ("\"1\"", "first")
    };
    if state.down.load(Ordering::SeqCst) {
        return whole("500 Down", "", "");
    }
    let has_tag = request.contains(&format!("if-none-match: {tag}"));
    let has_date = request.contains("if-modified-since: ");
    let ok = |headers: &str| whole("200 OK", headers, body);
    let word = key.split(['.', '/', '?']).next().unwrap_or_default();
    match word {
        "tagged" if has_tag => whole("304 Not Modified", "x-kept: renewed\r\n", ""),
        "tagged" => ok(&format!(
            "content-type: text/x\r\netag: {tag}\r\nx-kept: loaded\r\n"
        )),
        "dated" if has_date && !changed => whole("304 Not Modified", "", ""),
        "dated" => ok(&format!("last-modified: {MODIFIED}\r\n")),
        "other-tag" if has_tag => whole("304 Not Modified", "etag: \"9\"\r\n", ""),
        "other-tag" => ok(&format!("etag: {tag}\r\n")),
        "always-304" => whole("304 Not Modified", "etag: \"1\"\r\n", ""),
        "all" => ok(&format!(
            "content-type: text/html; charset=utf-8\r\ncontent-encoding: x-unheard-of\r\n\
             content-language: de\r\netag: W/\"w\"\r\nlast-modified: {MODIFIED}\r\n\
             cache-control: max-age=900\r\nage: 100\r\nx-kept: a\r\nx-kept: b\r\nx-other: c\r\n\
             set-cookie: for=one\r\n"
        )),
        "text" if has_tag => whole("304 Not Modified", "", ""),
        "text" => whole(
            "200 OK",
            "content-type: text/plain\r\netag: \"1\"\r\ncache-tag: prose\r\n",
            &text(),
        ),
        "red" => ok(&format!("etag: {tag}\r\ncache-tag: red, warm\r\n")),
        _ => of_tags(word)
            .or_else(|| odd(word))
            .unwrap_or_else(|| ok("")),
    }
}

/// Values with tags.
fn of_tags(word: &str) -> Option<Vec<u8>> {
    let ok = |headers: &str| whole("200 OK", headers, "first");
    Some(match word {
        "blue" => ok("surrogate-key: blue cold\r\n"),
        "tags-64" => ok(&format!("surrogate-key: {}\r\n", numbers(64))),
        "tags-65" => ok(&format!("surrogate-key: {}\r\n", numbers(65))),
        "tag-128" => ok(&format!("cache-tag: {}\r\n", "t".repeat(128))),
        "tag-129" => ok(&format!("cache-tag: {}\r\n", "t".repeat(129))),
        "tag-unicode" => ok("cache-tag: röt\r\n"),
        "tag-latin" => b"HTTP/1.1 200 OK\r\ncache-tag: r\xf6t\r\ncontent-length: 5\r\n\
             connection: close\r\n\r\nfirst"
            .to_vec(),
        "tag-blank" => ok("cache-tag: a\tb\r\n"),
        "tag-commas" => ok("cache-tag: ,,a,, b ,\r\n"),
        "tag-control" => ok("cache-tag: a\u{1}b\r\n"),
        "many-tags" => ok(&format!("surrogate-key: {}\r\n", numbers(100))),
        _ => return None,
    })
}

/// What no origin should answer, and what says that there is nothing.
fn odd(word: &str) -> Option<Vec<u8>> {
    let ok = |headers: &str| whole("200 OK", headers, "first");
    Some(match word {
        "encoded" => whole("200 OK", "content-encoding: gzip\r\n", &text()),
        "unquoted" => ok("etag: 1\r\n"),
        "two-types" => ok("content-type: text/html\r\ncontent-type: text/plain\r\n"),
        "two-tags" => ok("etag: \"1\"\r\netag: \"2\"\r\n"),
        "two-lengths" => {
            b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\ncontent-length: 3\r\n\r\nfirst".to_vec()
        }
        "megabyte" => ok(&format!("x-large: {}\r\n", "v".repeat(1 << 20))),
        "many-headers" => ok(&"x-one-of-many: v\r\n".repeat(10_000)),
        "long-kept" => ok(&format!("x-kept: {}\r\n", "v".repeat(3000))),
        "long-other" => ok(&format!("x-other: {}\r\n", "v".repeat(3000))),
        "garbled-encoding" => b"HTTP/1.1 200 OK\r\ncontent-encoding: \xff\r\ncontent-length: 5\r\n\
             connection: close\r\n\r\nfirst"
            .to_vec(),
        "short" => {
            b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\nconnection: close\r\n\r\nfirst".to_vec()
        }
        "half-chunked" => b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\
             connection: close\r\n\r\n5\r\nfirst\r\n"
            .to_vec(),
        "contradicts" => ok("cache-control: max-age=600, no-store\r\ncache-control: public\r\n"),
        "absurd" => ok("cache-control: max-age=99999999999\r\n"),
        "negative" => ok("cache-control: max-age=-1\r\n"),
        "digits" => whole("200 OK", "etag: \"d\"\r\n", "0123456789"),
        "nobody" => whole(
            "404 Not Found",
            "content-type: text/html\r\ncontent-language: de\r\nx-kept: a\r\n",
            "<p>niemand</p>",
        ),
        "gone" => whole("410 Gone", "", "gone"),
        "bare" => whole("404 Not Found", "content-type: text/html\r\n", ""),
        "much" => whole("404 Not Found", "", &"x".repeat((1 << 16) + 1)),
        "broken" => {
            b"HTTP/1.1 404 Not Found\r\ncontent-length: 9\r\nconnection: close\r\n\r\nno".to_vec()
        }
        _ => return None,
    })
}

/// A hundred thousand bytes that shrink.
pub(super) fn text() -> String {
    "all work and no play ".repeat(10_000)
}

fn numbers(count: usize) -> String {
    (0..count).map(|number| format!("{number} ")).collect()
}

/// A response with nothing wrong about its form.
fn whole(status: &str, headers: &str, body: &str) -> Vec<u8> {
    let length = match &status[..3] {
        "304" => String::new(),
        _ => format!("content-length: {}\r\n", body.len()),
    };
    format!("HTTP/1.1 {status}\r\n{headers}{length}connection: close\r\n\r\n{body}").into_bytes()
}
