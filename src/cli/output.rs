//! What the commands print. Results go to standard output, everything else to standard error.

use std::{
    io::{ErrorKind, IsTerminal, Write, stderr, stdout},
    path::Path,
};

use super::failure::Failure;

/// Prints a line.
pub(super) fn print_line(line: &str) -> Result<(), Failure> {
    let mut out = stdout().lock();
    writeln!(out, "{line}").map_err(|error| unwritten(&error))
}

/// Prints a message that is not part of the results. Nothing in it may control the terminal: it
/// contains ids, groups and other nodes' words. A user who can't read it still gets the exit code;
/// `eprintln!` would panic.
pub(super) fn tell(text: &str) {
    let lines = text.split('\n').map(printable);
    let _ = writeln!(stderr().lock(), "{}", lines.collect::<Vec<_>>().join("\n"));
}

/// The same as JSON, which escapes by itself what could rule the terminal.
pub(super) fn tell_json(told: &serde_json::Value) {
    let _ = writeln!(stderr().lock(), "{told}");
}

/// Prints JSON on one line.
pub(super) fn print_json(value: &impl serde::Serialize) -> Result<(), Failure> {
    let text = serde_json::to_string(value);
    print_line(&text.map_err(|error| Failure::Failed(error.to_string()))?)
}

/// Prints bytes as they are.
pub(super) fn print_bytes(bytes: &[u8]) -> Result<(), Failure> {
    let mut out = stdout().lock();
    let written = out.write_all(bytes).and_then(|()| out.flush());
    written.map_err(|error| unwritten(&error))
}

/// Writes a value to a file, which has either all of it or what it had before. What is no ordinary
/// file, such as a pipe, is written as it is.
pub(super) fn write_file(file: &Path, value: &[u8]) -> Result<(), Failure> {
    let is_new = || std::fs::symlink_metadata(file).is_err();
    let written = match std::fs::metadata(file) {
        Ok(it) if it.is_file() => match std::fs::canonicalize(file) {
            Ok(there) => replace(&there, value),
            Err(_) => std::fs::write(file, value),
        },
        Err(_) if is_new() => replace(file, value),
        // Replacing `/dev/stdout` would take it away from everybody.
        _ => std::fs::write(file, value),
    };
    written.map_err(|error| Failure::Failed(format!("{}: {error}", file.display())))
}

/// Writes beside the file, and takes its place.
fn replace(file: &Path, value: &[u8]) -> std::io::Result<()> {
    let Some(name) = file.file_name() else {
        return std::fs::write(file, value);
    };
    let mut beside = name.to_owned();
    beside.push(format!(".{}.new", std::process::id()));
    let beside = file.with_file_name(beside);
    let written = std::fs::write(&beside, value)
        .and_then(|()| match std::fs::metadata(file) {
            Ok(before) => std::fs::set_permissions(&beside, before.permissions()),
            Err(_) => Ok(()),
        })
        .and_then(|()| std::fs::rename(&beside, file));
    if written.is_err() {
        let _ = std::fs::remove_file(&beside);
    }
    written
}

/// Prints a value as it is. A terminal gets no binary: its bytes could be commands to it.
pub(super) fn print_value(value: &[u8]) -> Result<(), Failure> {
    let mut out = stdout().lock();
    let terminal = out.is_terminal();
    if terminal && !is_text(value) {
        return Err(Failure::Failed(format!(
            "the value is binary ({}) and would disturb the terminal; write it to a file with \
             `-o FILE`, or send it to a program, as in `… | xxd`",
            counted(value.len() as u64, "byte", "bytes")
        )));
    }
    let written = out.write_all(value).and_then(|()| {
        // So that the prompt gets a line of its own.
        if terminal && !value.is_empty() && !value.ends_with(b"\n") {
            out.write_all(b"\n")?;
        }
        out.flush()
    });
    written.map_err(|error| unwritten(&error))
}

/// A reader that closes the pipe (`gaocache config | head`) has read enough, which is not a
/// failure.
fn unwritten(error: &std::io::Error) -> Failure {
    match error.kind() {
        ErrorKind::BrokenPipe => Failure::NobodyReads,
        _ => Failure::Failed(format!("standard output: {error}")),
    }
}

fn is_text(value: &[u8]) -> bool {
    let printable = |text: &str| {
        let mut letters = text.chars();
        letters.all(|letter| matches!(letter, '\n' | '\t' | '\r') || !letter.is_control())
    };
    std::str::from_utf8(value).is_ok_and(printable)
}

/// Columns under their titles.
pub(super) fn table<const N: usize>(
    titles: [&str; N],
    rows: impl IntoIterator<Item = [String; N]>,
) -> String {
    let rows: Vec<[String; N]> = std::iter::once(titles.map(str::to_owned))
        .chain(rows)
        .collect();
    let widths: [usize; N] = std::array::from_fn(|at| {
        let longest = rows.iter().map(|row| row[at].chars().count()).max();
        longest.unwrap_or(0)
    });
    let lines = rows.iter().map(|row| {
        let cells = row.iter().zip(widths);
        let cells = cells.map(|(cell, width)| format!("{cell:width$}"));
        cells.collect::<Vec<_>>().join("  ").trim_end().to_owned()
    });
    lines.collect::<Vec<_>>().join("\n")
}

/// Text from elsewhere, of which nothing may rule the terminal.
pub(super) fn printable(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter {
            '\'' | '"' | '\\' => shown.push(letter),
            _ => shown.extend(letter.escape_debug()),
        }
    }
    shown
}

/// A count with its noun: `1 member`, `2 members`.
pub(super) fn counted(count: u64, singular: &str, plural: &str) -> String {
    let noun = if count == 1 { singular } else { plural };
    format!("{count} {noun}")
}

#[cfg(test)]
mod tests {
    use super::printable;

    #[test]
    fn text_from_elsewhere_can_t_rule_the_terminal() {
        for (given, shown) in [
            ("can't \"be\" b\\c", "can't \"be\" b\\c"),
            ("\u{1b}[2Jzone\n", "\\u{1b}[2Jzone\\n"),
            ("Zürich", "Zürich"),
        ] {
            assert_eq!(printable(given), shown);
        }
    }
}
