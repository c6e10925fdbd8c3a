//! Many commands at once: the order of the answers, and who waits for whom.

use super::*;

fn get(key: &str) -> Vec<u8> {
    command(&["GET", &format!("users:{key}")])
}

#[tokio::test]
async fn answers_come_in_order_and_a_load_holds_up_no_other_connection() {
    let origin = CountingOrigin::start().await;
    let nodes = nodes(1, &origin, &["node.worker_threads=1"]).await;
    let mut first = Raw::connect(&nodes[0]).await;
    first.send(get("alice")).await;
    first.answers(value("value of alice")).await;
    origin.hold();
    let pipeline = [
        get("bob"),
        get("alice"),
        command(&["HELLO", "3"]),
        get("missing"),
    ];
    first.send(pipeline.concat()).await;
    within("both loads", async {
        while origin.loads_of("bob") + origin.loads_of("missing") < 2 {
            tokio::task::yield_now().await;
        }
    })
    .await;
    let mut second = Raw::connect(&nodes[0]).await;
    second
        .send([get("alice"), command(&["PING"])].concat())
        .await;
    second.answers(value("value of alice") + "+PONG\r\n").await;
    origin.release();
    first
        .answers(value("value of bob") + &value("value of alice"))
        .await;
    first.answers("%7\r\n$6\r\nserver\r\n").await;
    first.send(command(&["QUIT"])).await;
    let rest = first.rest().await;
    assert!(rest.ends_with("_\\r\\n+OK\\r\\n"), "{rest}");
}

#[tokio::test]
async fn misses_of_one_pipeline_are_loaded_at_once() {
    let origin = CountingOrigin::start().await;
    let nodes = nodes(1, &origin, &[]).await;
    origin.hold();
    let mut raw = Raw::connect(&nodes[0]).await;
    let keys: Vec<String> = (0..30).map(|number| format!("k{number}")).collect();
    let pipeline: Vec<Vec<u8>> = keys.iter().map(|key| get(key)).collect();
    let many: Vec<String> = (0..30).map(|number| format!("users:m{number}")).collect();
    let many: Vec<&str> = std::iter::once("MGET")
        .chain(many.iter().map(|it| &**it))
        .collect();
    raw.send([pipeline.concat(), command(&many)].concat()).await;
    within("all loads", async {
        while origin.loads() < 60 {
            tokio::task::yield_now().await;
        }
    })
    .await;
    origin.release();
    for key in &keys {
        raw.answers(value(&format!("value of {key}"))).await;
    }
    raw.answers("*30\r\n").await;
    for key in &many[1..] {
        let key = key.strip_prefix("users:").unwrap();
        raw.answers(value(&format!("value of {key}"))).await;
    }
}

#[tokio::test]
async fn what_comes_after_a_removal_sees_it() {
    let origin = CountingOrigin::start().await;
    let nodes = nodes(3, &origin, &[]).await;
    let mut raw = Raw::connect(&nodes[0]).await;
    let del = command(&["DEL", "users:alice", "users:bob"]);
    let one = [get("alice"), del, get("alice")].concat();
    raw.send(one.repeat(20)).await;
    for _ in 0..20 {
        raw.answers(value("value of alice") + ":2\r\n" + &value("value of alice"))
            .await;
    }
    assert_eq!(origin.loads_of("alice"), 21);
}

#[tokio::test]
async fn a_value_that_is_in_memory_is_not_answered_before_the_removal_that_came_first() {
    let origin = CountingOrigin::start().await;
    let nodes = nodes(1, &origin, &[]).await;
    let mut raw = Raw::connect(&nodes[0]).await;
    raw.send(get("alice")).await;
    raw.answers(value("value of alice")).await;
    let one = [command(&["DEL", "users:alice"]), get("alice")].concat();
    raw.send(one.repeat(20)).await;
    for _ in 0..20 {
        raw.answers(":1\r\n".to_owned() + &value("value of alice"))
            .await;
    }
    assert_eq!(
        origin.loads_of("alice"),
        21,
        "each removal is followed by a load"
    );
}

#[tokio::test]
async fn a_client_that_has_no_more_to_say_gets_what_it_asked_for() {
    let origin = CountingOrigin::start().await;
    let nodes = nodes(1, &origin, &[]).await;
    origin.hold();
    let mut raw = Raw::connect(&nodes[0]).await;
    raw.send([get("alice"), command(&["PING"])].concat()).await;
    raw.0.shutdown().await.expect("it is open");
    origin.is_asked().await;
    // By the time that another is answered, the node has mostly seen the end.
    let mut second = Raw::connect(&nodes[0]).await;
    second.send("PING\r\n").await;
    second.answers("+PONG\r\n").await;
    origin.release();
    raw.answers(value("value of alice") + "+PONG\r\n").await;
    assert_eq!(raw.rest().await, "");
}

#[tokio::test]
async fn it_doesn_t_matter_how_the_bytes_of_a_pipeline_are_cut_up() {
    let origin = CountingOrigin::start().await;
    let nodes = nodes(1, &origin, &[]).await;
    let large = "x".repeat(300_000);
    let pipeline = [
        get("alice"),
        b"PING\r\n\r\n".to_vec(),
        get("size-300000"),
        command(&["MGET", "users:alice", "users:missing", "users:size-300000"]),
        b"*0\r\n".to_vec(),
        get("alice"),
    ]
    .concat();
    let answers = [
        value("value of alice"),
        "+PONG\r\n".into(),
        value(&large),
        format!("*3\r\n{}$-1\r\n{}", value("value of alice"), value(&large)),
        value("value of alice"),
    ]
    .concat();
    for size in [1, 2, 3, 7, 50, pipeline.len()] {
        let mut raw = Raw::connect(&nodes[0]).await;
        for part in pipeline.chunks(size) {
            raw.send(part).await;
        }
        raw.answers(&answers).await;
    }
}

#[tokio::test]
async fn a_pipeline_larger_than_any_buffer_is_answered_to_who_reads() {
    const COMMANDS: usize = 20_000;
    let origin = CountingOrigin::start().await;
    let nodes = nodes(1, &origin, &[]).await;
    let Raw(stream) = Raw::connect(&nodes[0]).await;
    let (mut reader, mut writer) = stream.into_split();
    let pipeline = get("alice").repeat(COMMANDS);
    let answers = value("value of alice").repeat(COMMANDS);
    let written = tokio::spawn(async move {
        writer.write_all(&pipeline).await.expect("it is read");
        writer
    });
    let mut read = vec![0; answers.len()];
    within("the answers", reader.read_exact(&mut read))
        .await
        .unwrap();
    assert!(read == answers.as_bytes());
    // The client has no more to say; what it asked is answered all the same.
    let mut writer = written.await.unwrap();
    writer.write_all(b"PING\r\n").await.unwrap();
    writer.shutdown().await.unwrap();
    let mut rest = Vec::new();
    within("the end", reader.read_to_end(&mut rest))
        .await
        .unwrap();
    assert_eq!(rest, b"+PONG\r\n");
}
