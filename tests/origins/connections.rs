//! Connections to an origin between loads.

use super::*;

/// Answers one request after the other, the first ones not before as many have come as `all` waits
/// for.
async fn stay_open(mut stream: TcpStream, all: Arc<tokio::sync::Barrier>) {
    let mut request = Vec::new();
    while let Ok(1..) = stream.read_buf(&mut request).await {
        if request.ends_with(b"\r\n\r\n") {
            request.clear();
            all.wait().await;
            let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nvalue";
            let _ = stream.write_all(answer).await;
        }
    }
}

#[tokio::test]
async fn few_connections_of_many_loads_stay_open() {
    const LOADS: usize = 40;
    let all = Arc::new(tokio::sync::Barrier::new(LOADS));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let open = tokio_util::task::TaskTracker::new();
    let accepted = open.clone();
    let accepting = tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            accepted.spawn(stay_open(stream, all.clone()));
        }
    });
    let origin = format!("origin = {{ kind = \"http\", url = \"http://{address}/{{key}}\" }}");
    let node = one_group(&format!("ttl_seconds = 600, {origin}")).await;
    let keys: Vec<String> = (0..LOADS).map(|nth| format!("k{nth}")).collect();
    let gets = keys.iter().map(|key| outcome(&node, key));
    for (status, ..) in within("all loads", futures::future::join_all(gets)).await {
        assert_eq!(status, 200);
    }
    let few = async {
        while open.len() > 8 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    within("most connections are closed", few).await;
    accepting.abort();
}
