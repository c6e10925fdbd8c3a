//! Values of headers from files, such as mounted Secrets: they are read with the settings, so a
//! changed file is a changed setting.

use std::{fs::File, io::Read, path::Path};

use super::{problem::Problem, settings::Config, walk::InForce};

/// Servers bound all headers together to 8 or 16 KiB.
const MOST: u64 = 16 << 10;

/// Completes `headers` with what the files contain. A value that `headers` has already comes
/// before it, such as `Bearer `. Returns what is wrong with files.
pub(super) fn fill(settings: &mut Config, in_force: &mut [InForce]) -> Vec<Problem> {
    let mut problems = Vec::new();
    for (number, group) in settings.groups.iter_mut().enumerate() {
        let name = format!("groups[{number}].origin.header_files");
        let origin = &mut group.origin;
        for (header, file) in &origin.header_files {
            match read(file) {
                Ok(value) => {
                    let headers = &mut origin.headers;
                    headers.entry(header.clone()).or_default().push_str(&value);
                    let mut named = in_force.iter_mut().filter(|it| it.name == name);
                    named
                        .next()
                        .into_iter()
                        .for_each(|it| it.stands_for(&value));
                }
                Err(why) => problems.push(Problem::of(
                    name.clone(),
                    format!("{header}: {}: {why}", file.display()),
                )),
            }
        }
    }
    problems
}

fn read(file: &Path) -> Result<String, String> {
    let told = |error: std::io::Error| format!("the file can't be read: {error}");
    let mut text = String::new();
    let opened = File::open(file).map_err(told)?;
    opened
        .take(MOST + 1)
        .read_to_string(&mut text)
        .map_err(told)?;
    if text.len() as u64 > MOST {
        return Err(format!("a header's value has at most {MOST} bytes"));
    }
    match text.trim_end_matches(['\r', '\n']) {
        "" => Err("the file is empty".into()),
        value => Ok(value.to_owned()),
    }
}
