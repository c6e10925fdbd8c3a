//! A client for `Cache.Get` and `Cache.GetMany`, on h2 itself: the same for all servers, and cheap
//! enough that one core keeps one core of a server busy.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use futures::future::join_all;
use gaocache::internal::wire;
use h2::client::SendRequest;
use http::{HeaderMap, Request};
use prost::Message;
use tokio::{net::TcpStream, time::Instant};

use crate::{
    keys::{GROUP, Keys},
    round::{Course, Shape},
};

/// Room for answers, per call and per connection.
const WINDOW: u32 = 64 << 20;

/// What is asked.
#[derive(Clone, Copy)]
pub enum Ask {
    /// One key, whose value has so many bytes.
    One(usize),
    /// So many keys at once, whose values have so many bytes.
    Many(usize, usize),
}

impl Ask {
    /// The keys of a call.
    pub fn keys(self) -> usize {
        match self {
            Self::One(_) => 1,
            Self::Many(count, _) => count,
        }
    }
}

pub struct Client {
    connections: Vec<SendRequest<Bytes>>,
    in_flight: usize,
}

impl Client {
    pub async fn connect(address: &str, shape: Shape) -> Self {
        let mut connections = Vec::new();
        for _ in 0..shape.connections {
            let socket = TcpStream::connect(address).await.unwrap();
            socket.set_nodelay(true).unwrap();
            let mut builder = h2::client::Builder::new();
            builder
                .initial_window_size(WINDOW)
                .initial_connection_window_size(WINDOW);
            let (client, connection) = builder.handshake(socket).await.unwrap();
            tokio::spawn(connection);
            connections.push(client);
        }
        Self {
            connections,
            in_flight: shape.in_flight,
        }
    }

    /// Asks until the course is over. Any error ends the program.
    pub async fn run(&self, course: &Course, keys: &Keys, ask: Ask) {
        let callers = self.connections.iter().flat_map(|connection| {
            (0..self.in_flight).map(|_| call(connection.clone(), course.clone(), keys, ask))
        });
        join_all(callers).await;
    }
}

async fn call(mut connection: SendRequest<Bytes>, course: Course, keys: &Keys, ask: Ask) {
    while let Some(number) = course.next() {
        let began = Instant::now();
        match ask {
            Ask::One(size) => one(&mut connection, keys.at(number), size).await,
            Ask::Many(count, size) => many(&mut connection, keys, number, count, size).await,
        }
        course.ended(began);
    }
}

/// Gets a key once.
pub async fn one(connection: &mut SendRequest<Bytes>, key: &str, size: usize) {
    let request = wire::GetRequest {
        group: GROUP.to_owned(),
        key: key.to_owned(),
    };
    let answer = unary(connection, "/gaocache.v1.Cache/Get", &request).await;
    let answer = wire::GetResponse::decode(answer.slice(5..)).unwrap();
    assert_eq!(answer.value.len(), size, "{key}");
}

async fn many(
    connection: &mut SendRequest<Bytes>,
    keys: &Keys,
    number: usize,
    count: usize,
    size: usize,
) {
    let first = number * count;
    let request = wire::GetManyRequest {
        group: GROUP.to_owned(),
        keys: (first..first + count)
            .map(|it| keys.all()[it % keys.all().len()].clone())
            .collect(),
    };
    let mut answers = unary(connection, "/gaocache.v1.Cache/GetMany", &request).await;
    let mut found = 0;
    while answers.has_remaining() {
        assert_eq!(answers.get_u8(), 0);
        let length = answers.get_u32() as usize;
        let answer = wire::GetManyResponse::decode(answers.split_to(length)).unwrap();
        match answer.outcome.unwrap() {
            wire::get_many_response::Outcome::Found(it) => assert_eq!(it.value.len(), size),
            wire::get_many_response::Outcome::Error(error) => panic!("{}", error.message),
        }
        found += 1;
    }
    assert_eq!(found, count);
}

/// The messages of the answer, each with its prefix.
async fn unary(connection: &mut SendRequest<Bytes>, path: &str, request: &impl Message) -> Bytes {
    let mut body = BytesMut::with_capacity(5 + request.encoded_len());
    body.put_u8(0);
    body.put_u32(request.encoded_len() as u32);
    request.encode(&mut body).unwrap();
    let head = Request::post(format!("http://bench{path}"))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .body(())
        .unwrap();
    std::future::poll_fn(|cx| connection.poll_ready(cx))
        .await
        .unwrap();
    let (answer, mut sending) = connection.send_request(head, false).unwrap();
    sending.send_data(body.freeze(), true).unwrap();
    let (head, mut body) = answer.await.unwrap().into_parts();
    succeeded(&head.headers, true);
    let mut all = BytesMut::new();
    while let Some(part) = body.data().await {
        let part = part.unwrap();
        body.flow_control().release_capacity(part.len()).unwrap();
        all.extend_from_slice(&part);
    }
    succeeded(&body.trailers().await.unwrap().unwrap(), false);
    all.freeze()
}

fn succeeded(headers: &HeaderMap, early: bool) {
    match headers.get("grpc-status") {
        Some(status) if status == "0" => {}
        None if early => {}
        status => panic!("{status:?}: {:?}", headers.get("grpc-message")),
    }
}
