//! A peer that takes its time.

use super::{made_up::Other, *};

#[tokio::test]
async fn a_leaving_node_answers_until_the_others_have_seen_it_go() {
    let origin = CountingOrigin::start().await;
    let (reached, revision) = watch::channel(0);
    let asked = watch::Sender::new(0);
    let address = Other {
        revision: Some(revision),
        asked: asked.clone(),
        ..Other::default()
    }
    .serve()
    .await;
    let node = node_among(&[("slow", address)], &origin.url(), &[]).await;
    node.stop();
    // First out of the ring, then off the list; each time it waits for the other.
    for step in [7, 8] {
        let mut asked = asked.subscribe();
        within("the question", asked.wait_for(|it| *it == step))
            .await
            .unwrap();
        let mut client = node.client().await;
        let request = wire::GetRequest {
            group: "users".into(),
            key: "alice".into(),
        };
        client.get(request).await.expect("it still answers");
        reached.send_replace(step);
    }
    node.stopped().await;
}
