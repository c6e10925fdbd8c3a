//! Connections of attackers: many at once, held open, or written to without a pause.

use std::{sync::Arc, time::Duration};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    task::JoinSet,
    time::sleep,
};

use super::wire::open;

/// Does something again and again, side by side, until it is dropped.
pub async fn again<F>(at_once: usize, work: impl Fn(usize) -> F + Clone + Send + 'static)
where
    F: Future<Output = ()> + Send,
{
    let mut tasks = JoinSet::new();
    for number in 0..at_once {
        let work = work.clone();
        tasks.spawn(async move {
            loop {
                work(number).await;
                // Who is refused at once still lets others have the processor.
                tokio::task::yield_now().await;
            }
        });
    }
    tasks.join_all().await;
}

/// Keeps connections open that have sent this; those that are cut are opened anew.
pub async fn hold(port: u16, count: usize, addresses: usize, bytes: Vec<u8>) {
    let bytes: Arc<[u8]> = bytes.into();
    again(count, move |number| {
        let bytes = bytes.clone();
        async move {
            let Some(mut stream) = open(port, number % addresses, &bytes).await else {
                return sleep(Duration::from_millis(100)).await;
            };
            let mut scrap = [0; 1024];
            while matches!(stream.read(&mut scrap).await, Ok(1..)) {}
        }
    })
    .await;
}

/// Sends this without a pause for as long as the node takes it, and reads what it answers.
pub async fn pour(mut stream: TcpStream, bytes: &[u8]) {
    let (mut from, mut to) = stream.split();
    let mut scrap = vec![0; 16_384];
    let reads = async { while matches!(from.read(&mut scrap).await, Ok(1..)) {} };
    let writes = async { while to.write_all(bytes).await.is_ok() {} };
    tokio::select! {
        () = reads => {}
        () = writes => {}
    }
}
