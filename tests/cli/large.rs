//! Values past the limit of 4 MiB that gRPC clients have by default.

use super::{etcd::told, *};
use common::{CountingOrigin, etcd::Etcd, process::NodeProcess};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_value_past_grpc_s_default_limit_is_got_from_a_node_and_from_the_cluster() {
    let (etcd, origin) = (Etcd::start().await, CountingOrigin::start().await);
    let folder = tempfile::tempdir().expect("a folder");
    let large = vec![b'x'; 6 << 20];
    fs::write(folder.path().join("large"), &large).expect("written");
    let groups = format!(
        "groups=[{{ name = \"files\", origin = {{ kind = \"file\", path = {:?} }} }}]",
        folder.path()
    );
    let node = NodeProcess::start("n0", &[&etcd.url], &origin.url(), &[&groups]);
    node.until_ready().await;
    let target = format!("127.0.0.1:{}", node.grpc);
    let there = folder.path().join("got");
    let file = there.to_str().expect("text");
    for asked in [["--target", &target], ["--etcd", &etcd.url]] {
        let all = [&["get", "files", "large", "-o", file], &asked[..]].concat();
        let (code, _, errors) = tokio::task::block_in_place(|| told(&all));
        assert_eq!(code, Some(0), "{asked:?}: {errors}");
        assert!(fs::read(&there).expect("there") == large, "{asked:?}");
        fs::remove_file(&there).expect("removed");
    }
}
