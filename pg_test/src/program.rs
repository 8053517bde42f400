//! Running other programs: with their output kept, and shown when they fail.

use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Command, Output, Stdio};

use anyhow::{Context, Result, bail};

/// Lines of a failed program's output that its error repeats.
const TAIL: usize = 40;

/// A command without what cargo puts into the environment of a program that it runs, so that a cargo
/// started from here decides as one started by hand and rebuilds nothing.
pub fn command(program: impl AsRef<std::ffi::OsStr>) -> Command {
    let mut command = Command::new(program);
    for (name, _) in std::env::vars_os() {
        let name = name.to_string_lossy().into_owned();
        let of_a_package = ["CARGO_PKG_", "CARGO_BIN_", "CARGO_MANIFEST_"];
        if of_a_package.iter().any(|prefix| name.starts_with(prefix)) || name == "CARGO_CRATE_NAME" {
            command.env_remove(name);
        }
    }
    command.env_remove("LD_LIBRARY_PATH").stdin(Stdio::null());
    command
}

/// Runs to the end and gives standard output; anything but success is an error that shows the output.
pub fn output(command: &mut Command) -> Result<String> {
    let output = captured(command)?;
    if !output.status.success() {
        let mut text = String::from_utf8_lossy(&output.stdout).into_owned();
        text.push_str(&String::from_utf8_lossy(&output.stderr));
        bail!("{} ended with {}\n{}", shown(command), output.status, tail(&text));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Runs to the end and gives what came, success or not.
pub fn captured(command: &mut Command) -> Result<Output> {
    command.output().with_context(|| format!("could not run {}", shown(command)))
}

/// As [`captured`], with a text as standard input.
pub fn fed(command: &mut Command, text: &str) -> Result<Output> {
    let what = shown(command);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().with_context(|| format!("could not run {what}"))?;
    let stdin = child.stdin.take();
    std::thread::scope(|scope| {
        // Beside the reading, so that neither side waits for the other with a full pipe. A program that
        // ends without reading it all, as psql does when it is refused, is no error here.
        scope.spawn(move || stdin.map(|mut stdin| stdin.write_all(text.as_bytes())));
        child.wait_with_output().with_context(|| format!("could not wait for {what}"))
    })
}

/// Runs a long program, hands each line of both its outputs to `see` and returns all of it.
/// Anything but success is an error that shows the end of it.
pub fn watched(command: &mut Command, see: impl FnMut(&str)) -> Result<String> {
    let (success, text) = followed(command, see)?;
    if !success {
        bail!("{} failed\n{}", shown(command), tail(&text));
    }
    Ok(text)
}

/// As [`watched`], but gives whether it succeeded instead of an error.
pub fn followed(command: &mut Command, mut see: impl FnMut(&str)) -> Result<(bool, String)> {
    let (reader, writer) = std::io::pipe().context("could not make a pipe")?;
    let what = shown(command);
    command.stdout(writer.try_clone()?).stderr(writer);
    let mut child = command.spawn().with_context(|| format!("could not run {what}"))?;
    // The command holds our copies of the writing end; without them the pipe ends with the program.
    command.stdout(Stdio::null()).stderr(Stdio::null());
    let mut text = String::new();
    let mut lines = BufReader::new(reader);
    let mut line = Vec::new();
    while lines.by_ref().read_until(b'\n', &mut line).unwrap_or(0) > 0 {
        let shown = String::from_utf8_lossy(&line);
        see(shown.trim_end());
        text.push_str(&shown);
        line.clear();
    }
    let status = child.wait().with_context(|| format!("could not wait for {what}"))?;
    Ok((status.success(), text))
}

/// The program and its arguments as one would type them, without the environment.
pub fn shown(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words.map(|word| word.to_string_lossy()).collect::<Vec<_>>().join(" ")
}

/// The last lines of a text.
pub fn tail(text: &str) -> String {
    let lines: Vec<&str> = text.trim_end().lines().collect();
    let from = lines.len().saturating_sub(TAIL);
    lines.iter().skip(from).copied().collect::<Vec<_>>().join("\n")
}
