//! What `gaocache config` finds wrong with files that a node would make.

use super::{
    settings::{GOOD, refused, shown},
    *,
};

#[test]
fn a_file_that_a_node_could_not_make_is_told_and_none_is_made_to_find_out() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("a-file");
    fs::write(&file, "").expect("written");
    let (place, file) = (folder.path().display(), file.display());
    let long = format!("admin.socket={place}/{}", "a".repeat(99));
    for (set, reason) in [
        (
            format!("log.audit={place}"),
            "this is a directory, not a file",
        ),
        (
            "log.audit=/none/audit".into(),
            "the directory /none can't be used: No such file",
        ),
        (format!("log.audit={file}/audit"), "Not a directory"),
        (
            "admin.socket=/none/socket".into(),
            "the directory /none can't be used",
        ),
        (
            format!("admin.socket={file}"),
            "there is a file that is not a socket",
        ),
        (long, "that of a socket has at most 99"),
    ] {
        let told = refused(GOOD, &[&set], &[]);
        assert!(told.contains(reason), "{set}: {told}");
    }
    let good = ["log.audit=off", "log.audit=stderr", "admin.socket="].map(str::to_owned);
    let there = format!("log.audit={file}");
    let new = ["log.audit", "admin.socket"].map(|it| format!("{it}={place}/new"));
    for set in good.iter().chain(&new).chain([&there]) {
        shown(GOOD, &[set], &[]);
    }
    assert_eq!(fs::read_dir(folder.path()).expect("there").count(), 1);
}
