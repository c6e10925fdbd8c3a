//! Clients for HTTP/1.1 and for the protocol of Redis, on bare sockets: what they send is
//! prepared, and of an answer they read the length.

use bytes::{Buf, BytesMut};
use futures::future::join_all;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::Instant,
};

use crate::{
    keys::{GROUP, Keys},
    round::{Course, Shape},
};

/// How a get is asked and answered.
#[derive(Clone, Copy)]
pub enum Protocol {
    Http,
    Redis,
}

pub struct Client {
    connections: Vec<Connection>,
    shape: Shape,
}

struct Connection {
    socket: TcpStream,
    read: BytesMut,
}

impl Client {
    pub async fn connect(address: &str, shape: Shape) -> Self {
        let mut connections = Vec::new();
        for _ in 0..shape.connections {
            connections.push(Connection::open(address).await);
        }
        Self { connections, shape }
    }

    /// Asks until the course is over. Any error ends the program.
    pub async fn run(&mut self, course: &Course, keys: &Keys, protocol: Protocol, size: usize) {
        let in_flight = self.shape.in_flight;
        let callers = self.connections.iter_mut().map(async |connection| {
            let mut questions = Vec::new();
            loop {
                questions.clear();
                let numbers = std::iter::from_fn(|| course.next()).take(in_flight);
                let asked = numbers
                    .map(|number| protocol.ask(keys.at(number), &mut questions))
                    .count();
                if asked == 0 {
                    return;
                }
                let began = Instant::now();
                connection.socket.write_all(&questions).await.unwrap();
                for _ in 0..asked {
                    assert_eq!(connection.answer(protocol).await.len(), size);
                    course.ended(began);
                }
            }
        });
        join_all(callers).await;
    }
}

impl Protocol {
    fn ask(self, key: &str, questions: &mut Vec<u8>) {
        let question = match self {
            Self::Http => {
                format!("GET /v1/{GROUP}/{key} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
            }
            Self::Redis => {
                let length = GROUP.len() + 1 + key.len();
                format!("*2\r\n$3\r\nGET\r\n${length}\r\n{GROUP}:{key}\r\n")
            }
        };
        questions.extend(question.as_bytes());
    }

    /// Where the value begins and its length, once its head is there.
    fn head(self, read: &[u8]) -> Option<(usize, usize)> {
        match self {
            Self::Http => {
                let end = read.windows(4).position(|it| it == b"\r\n\r\n")?;
                let head = std::str::from_utf8(&read[..end]).unwrap();
                assert!(head.starts_with("HTTP/1.1 200"), "{head}");
                let mut lines = head.split("\r\n");
                let length = lines.find_map(|line| {
                    let (name, value) = line.split_once(": ")?;
                    name.eq_ignore_ascii_case("content-length").then_some(value)
                });
                Some((end + 4, length.unwrap().parse().unwrap()))
            }
            Self::Redis => {
                let end = read.windows(2).position(|it| it == b"\r\n")?;
                let head = std::str::from_utf8(&read[..end]).unwrap();
                let length = head.strip_prefix('$').unwrap_or_else(|| panic!("{head}"));
                Some((end + 2, length.parse().unwrap()))
            }
        }
    }

    /// What follows a value.
    fn tail(self) -> usize {
        match self {
            Self::Http => 0,
            Self::Redis => 2,
        }
    }
}

impl Connection {
    async fn open(address: &str) -> Self {
        let socket = TcpStream::connect(address).await.unwrap();
        socket.set_nodelay(true).unwrap();
        let read = BytesMut::with_capacity(256 << 10);
        Self { socket, read }
    }

    async fn answer(&mut self, protocol: Protocol) -> BytesMut {
        let (begin, length) = loop {
            match protocol.head(&self.read) {
                Some(head) => break head,
                None => self.more().await,
            }
        };
        while self.read.len() < begin + length + protocol.tail() {
            self.more().await;
        }
        self.read.advance(begin);
        let value = self.read.split_to(length);
        self.read.advance(protocol.tail());
        value
    }

    async fn more(&mut self) {
        self.read.reserve(64 << 10);
        assert!(self.socket.read_buf(&mut self.read).await.unwrap() > 0);
    }
}

/// Whether a node answers a get over HTTP, and if so, who owns the key.
pub async fn owner(address: &str, key: &str) -> Option<String> {
    let mut connection = Connection::open(address).await;
    let mut question = Vec::new();
    Protocol::Http.ask(key, &mut question);
    connection.socket.write_all(&question).await.unwrap();
    while !connection.read.windows(4).any(|it| it == b"\r\n\r\n") {
        connection.more().await;
    }
    let text = String::from_utf8_lossy(&connection.read);
    let mut lines = text.split("\r\n").take_while(|line| !line.is_empty());
    lines.next().filter(|it| it.starts_with("HTTP/1.1 200"))?;
    let owner = lines.find_map(|line| line.strip_prefix("x-cache-owner: "));
    owner.map(str::to_owned)
}

/// Stores the values that are to be found at a Redis server.
pub async fn store(address: &str, keys: &[String], size: usize) {
    let mut connection = Connection::open(address).await;
    let value = "x".repeat(size);
    for key in keys {
        let length = GROUP.len() + 1 + key.len();
        let question =
            format!("*3\r\n$3\r\nSET\r\n${length}\r\n{GROUP}:{key}\r\n${size}\r\n{value}\r\n");
        connection
            .socket
            .write_all(question.as_bytes())
            .await
            .unwrap();
        while connection.read.len() < 5 {
            connection.more().await;
        }
        assert_eq!(&connection.read[..], b"+OK\r\n");
        connection.read.clear();
    }
}
