//! Files of the program: JSON and text replaced in one step, outputs that may be `-`, names of run directories.

use anyhow::{Context, Result, bail};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::fs;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};
use tsn::Bank;
use tsn::file::replace_file;

/// Replaces a file by pretty JSON.
pub(crate) fn write_json(path: &Path, value: &impl Serialize) -> Result<()> {
    let mut text = serde_json::to_string_pretty(value)?;
    text.push('\n');
    Ok(replace_file(path, text.as_bytes())?)
}

/// Reads JSON.
pub(crate) fn read_json<T: DeserializeOwned>(path: &Path) -> Result<T> {
    let text = fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    serde_json::from_str(&text).with_context(|| format!("{}: not the JSON it should be", path.display()))
}

/// Writes to a file the user named, or to stdout for `-`. A device is written in place, a file replaced in one step.
pub(crate) fn write_output(path: &Path, text: &str) -> Result<()> {
    if path == Path::new("-") {
        return print(text);
    }
    let device = fs::metadata(path).is_ok_and(|m| !m.is_file() && !m.is_dir());
    if device {
        let written =
            fs::OpenOptions::new().write(true).open(path).and_then(|mut file| file.write_all(text.as_bytes()));
        return written.with_context(|| format!("cannot write {}", path.display()));
    }
    Ok(replace_file(path, text.as_bytes())?)
}

/// Refuses outputs that would mix: two on stdout or in one file.
pub(crate) fn apart(outputs: &[(&str, Option<&Path>)]) -> Result<()> {
    let given = || outputs.iter().filter_map(|(flag, path)| Some((*flag, (*path)?)));
    let stdout: Vec<&str> = given().filter(|(_, path)| *path == Path::new("-")).map(|(flag, _)| flag).collect();
    if stdout.len() > 1 {
        bail!("{} all write to stdout: name a file for all but one", stdout.join(" and "));
    }
    for (flag, path) in given() {
        if let Some((other, _)) = given().find(|(other, same)| *other != flag && *same == path) {
            bail!("{flag} and {other} both write {}", path.display());
        }
    }
    Ok(())
}

/// Refuses outputs that would mix or cannot be written, before the work that fills them.
pub(crate) fn check_outputs(outputs: &[(&str, Option<&Path>)]) -> Result<()> {
    apart(outputs)?;
    let given = outputs.iter().filter_map(|(flag, path)| Some((*flag, (*path)?)));
    for (flag, path) in given.filter(|(_, path)| *path != Path::new("-")) {
        if path.is_dir() {
            bail!("{flag} {}: is a directory", path.display());
        }
        if fs::metadata(path).is_ok_and(|m| !m.is_file()) {
            continue;
        }
        // A file is replaced by a sibling, so what counts is whether siblings can be made.
        let mut probe = path.as_os_str().to_owned();
        probe.push(format!(".probe-{}", std::process::id()));
        let made = fs::OpenOptions::new().write(true).create_new(true).open(&probe);
        made.and_then(|_| fs::remove_file(&probe))
            .with_context(|| format!("{flag} {}: cannot write", path.display()))?;
    }
    Ok(())
}

/// Prints a result. A reader that went away (`| head`) is no failure.
pub(crate) fn print(text: &str) -> Result<()> {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(error).context("cannot write to stdout"),
        _ => Ok(()),
    }
}

/// A note on stderr.
pub(crate) fn note(text: &str) {
    // Nothing is left to tell if stderr is gone.
    let _ = writeln!(io::stderr().lock(), "{text}");
}

/// Opens a bank; every message names the file.
pub(crate) fn open_bank(path: &Path) -> Result<Bank> {
    Bank::open(path).map_err(|error| match error {
        error @ (tsn::Error::Io { .. } | tsn::Error::File { .. }) => error.into(),
        error => anyhow::Error::from(error).context(path.display().to_string()),
    })
}

/// Makes a directory and its parents.
pub(crate) fn make_dir(path: &Path) -> Result<()> {
    fs::create_dir_all(path).with_context(|| format!("cannot make the directory {}", path.display()))
}

/// Makes `<runs>/<stem>__rNNN__<time>`, with a number above those of all runs of this stem.
pub(crate) fn new_run_dir(runs: &Path, stem: &str) -> Result<PathBuf> {
    make_dir(runs)?;
    let prefix = format!("{stem}__r");
    let mut number = 0;
    for entry in fs::read_dir(runs).with_context(|| format!("cannot list {}", runs.display()))? {
        let name = entry.with_context(|| format!("cannot list {}", runs.display()))?.file_name();
        let digits = name.to_str().and_then(|n| n.strip_prefix(&prefix)).and_then(|rest| rest.split("__").next());
        number = number.max(digits.and_then(|d| d.parse::<u32>().ok()).unwrap_or(0));
    }
    loop {
        number += 1;
        let path = runs.join(format!("{prefix}{number:03}__{}", stamp(false)));
        match fs::create_dir(&path) {
            Ok(()) => return Ok(path),
            // Another process took the number.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists && number < u32::MAX => {}
            Err(error) => return Err(error).with_context(|| format!("cannot make the directory {}", path.display())),
        }
    }
}

/// A directory that the user named for a new run.
pub(crate) fn claim_run_dir(path: &Path) -> Result<()> {
    if path.join("config.json").exists() || path.join("bank.safetensors").exists() {
        let at = path.display();
        bail!("{at} already holds a run: continue it with `tsn-affinity resume {at}`, or name another directory");
    }
    make_dir(path)
}

/// The time of day in UTC: `2026-01-31T23:59:59Z`, or `20260131-235959` for names.
pub(crate) fn stamp(long: bool) -> String {
    let seconds = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs());
    format_stamp(seconds, long)
}

fn format_stamp(seconds: u64, long: bool) -> String {
    // Days to civil date with years that begin in March, so that the leap day is the last of its year.
    let days = seconds / 86_400 + 719_468;
    let (era, day) = (days / 146_097, days % 146_097);
    let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let (d, m) = (day - (153 * month + 2) / 5 + 1, if month < 10 { month + 3 } else { month - 9 });
    let y = era * 400 + year + u64::from(m <= 2);
    let (hour, minute, second) = (seconds / 3600 % 24, seconds / 60 % 60, seconds % 60);
    match long {
        true => format!("{y:04}-{m:02}-{d:02}T{hour:02}:{minute:02}:{second:02}Z"),
        false => format!("{y:04}{m:02}{d:02}-{hour:02}{minute:02}{second:02}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates() {
        assert_eq!(format_stamp(0, true), "1970-01-01T00:00:00Z");
        assert_eq!(format_stamp(951_782_399, true), "2000-02-28T23:59:59Z");
        assert_eq!(format_stamp(951_782_400, false), "20000229-000000");
        assert_eq!(format_stamp(1_798_761_599, true), "2026-12-31T23:59:59Z");
    }
}
