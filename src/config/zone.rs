//! Where the node runs: as a setting has it, or a file that was written for the node.

use std::{fs::File, io::Read, path::Path};

use super::settings::NodeSettings;

/// Kubernetes allows labels of 63 characters.
const MOST: u64 = 256;

/// The zone; empty if it is not known.
///
/// # Errors
/// Why the file can't be used, as a phrase.
pub(crate) fn of(node: &NodeSettings) -> Result<String, String> {
    let file = &node.zone_file;
    if file.as_os_str().is_empty() {
        return Ok(node.zone.clone());
    }
    if !node.zone.is_empty() {
        return Err("set either node.zone or node.zone_file".into());
    }
    read(file).map_err(|why| format!("{}: {why}", file.display()))
}

fn read(file: &Path) -> Result<String, String> {
    let told = |error: std::io::Error| error.to_string();
    let mut text = String::new();
    let opened = File::open(file).map_err(told)?;
    let bounded = opened.take(MOST + 1).read_to_string(&mut text);
    bounded.map_err(told)?;
    let zone = text.trim();
    if text.len() as u64 > MOST || zone.contains(char::is_control) {
        return Err("a zone is one line of at most 256 bytes".into());
    }
    Ok(zone.to_owned())
}
