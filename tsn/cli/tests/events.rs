//! The event file of a run, read by a reader of its own: framing, checksums, tags and values.

mod common;

use common::{Folder, done};
use serde_json::Value;
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

const FILE: &str = "events.out.tfevents.tsn-affinity";
const TRAIN: &str = "train --suite cartpole_conflict --steps 12 --batch 4 --episodes 1 --width 16 --layers 1 --context 4 \
    --data-episodes 8 --checkpoint-every 5 -q";

/// CRC-32C bit by bit, rotated and moved as records have it.
fn masked(bytes: &[u8]) -> u32 {
    let mut crc = u32::MAX;
    for byte in bytes {
        crc ^= u32::from(*byte);
        for _ in 0..8 {
            crc = (crc >> 1) ^ (0x82f6_3b78 & (0u32.wrapping_sub(crc & 1)));
        }
    }
    let crc = !crc;
    crc.rotate_right(15).wrapping_add(0xa282_ead8)
}

fn number(bytes: &mut &[u8]) -> u64 {
    let (mut value, mut shift) = (0, 0);
    loop {
        let byte = bytes[0];
        *bytes = &bytes[1..];
        value |= u64::from(byte & 127) << shift;
        shift += 7;
        if byte < 128 {
            return value;
        }
    }
}

/// Fields of a message: number, and bytes (varints and fixed values little endian).
fn fields(mut bytes: &[u8]) -> Vec<(u64, Vec<u8>)> {
    let mut all = Vec::new();
    while !bytes.is_empty() {
        let key = number(&mut bytes);
        let len = match key & 7 {
            0 => {
                all.push((key >> 3, number(&mut bytes).to_le_bytes().to_vec()));
                continue;
            }
            1 => 8,
            2 => number(&mut bytes) as usize,
            5 => 4,
            other => panic!("wire type {other}"),
        };
        all.push((key >> 3, bytes[..len].to_vec()));
        bytes = &bytes[len..];
    }
    all
}

/// Curves by tag: steps and values in the order of the file.
fn curves(run: &Path) -> BTreeMap<String, Vec<(u64, f32)>> {
    let bytes = fs::read(run.join(FILE)).expect("an event file");
    let (mut rest, mut curves, mut first) = (&bytes[..], BTreeMap::new(), true);
    while !rest.is_empty() {
        let len = u64::from_le_bytes(rest[..8].try_into().expect("8 bytes")) as usize;
        let word = |at: usize| u32::from_le_bytes(rest[at..at + 4].try_into().expect("4 bytes"));
        assert_eq!(word(8), masked(&rest[..8]), "checksum of a length");
        let message = &rest[12..12 + len];
        assert_eq!(word(12 + len), masked(message), "checksum of a message");
        rest = &rest[16 + len..];
        let event = fields(message);
        let of = |number: u64| event.iter().find(|(n, _)| *n == number).map(|(_, bytes)| bytes.as_slice());
        assert_eq!(of(1).expect("a wall time").len(), 8);
        if first {
            assert_eq!(of(3), Some(&b"brain.Event:2"[..]));
            first = false;
            continue;
        }
        let step = u64::from_le_bytes(of(2).expect("a step").try_into().expect("8 bytes"));
        for (_, value) in fields(of(5).expect("a summary")) {
            let value = fields(&value);
            assert_eq!((value[0].0, value[1].0), (1, 2), "tag and simple_value");
            let tag = String::from_utf8(value[0].1.clone()).expect("text");
            let number = f32::from_le_bytes(value[1].1.as_slice().try_into().expect("4 bytes"));
            curves.entry(tag).or_insert_with(Vec::new).push((step, number));
        }
    }
    curves
}

/// Without what a clock says.
fn timeless(run: &Path) -> BTreeMap<String, Vec<(u64, f32)>> {
    curves(run).into_iter().filter(|(tag, _)| !tag.ends_with("step_ms")).collect()
}

#[test]
fn a_run_draws_what_its_records_say() {
    let folder = Folder::new("events");
    done(&folder.0, &format!("{TRAIN} --out run"));
    let run = folder.path("run");
    let found = curves(&run);
    let steps =
        |tag: &str| found.get(tag).unwrap_or_else(|| panic!("{tag}")).iter().map(|(step, _)| *step).collect::<Vec<_>>();
    for tag in ["loss", "grad_norm", "learning_rate", "step_ms"] {
        assert_eq!(steps(&format!("train/{tag}")), (1..=24).collect::<Vec<u64>>(), "{tag}");
        assert_eq!(steps(&format!("reference/{tag}")), (1..=24).collect::<Vec<u64>>(), "{tag}");
    }
    let results: Value = serde_json::from_slice(&fs::read(run.join("results.json")).expect("results")).expect("JSON");
    for (after, step) in [12, 24].into_iter().enumerate() {
        for (on, name) in ["P_default", "Q_flipped_actions"].into_iter().enumerate() {
            let score = results["perf_matrix"][after][on].as_f64().expect("a score") as f32;
            assert_eq!(found[&format!("after/score/{name}")][after], (step, score));
        }
        for key in ["density", "occupied", "newly_claimed"] {
            let value = results[key][after].as_f64().expect("a share") as f32;
            assert_eq!(found[&format!("after/{key}")][after], (step, value));
        }
    }
    let per_step: Value = serde_json::from_slice(&fs::read(run.join("per_step.json")).expect("steps")).expect("JSON");
    for (at, point) in per_step[1]["losses"].as_array().expect("losses").iter().enumerate() {
        assert_eq!(found["train/loss"][12 + at], (13 + at as u64, point[1].as_f64().expect("a loss") as f32));
    }
    assert!(found["train/learning_rate"].iter().all(|(_, rate)| *rate > 0.0 && *rate <= 0.002));

    // A process that was killed has drawn more than it saved; what is torn at the end is gone as well.
    let whole = timeless(&run);
    let mut results = results;
    results["perf_matrix"].as_array_mut().expect("rows").pop();
    results["success_matrix"] = Value::Array(Vec::new());
    results["references"]["single"] = Value::Array(Vec::new());
    results["references"]["success"] = Value::Null;
    if let Some(references) = results["references"].as_object_mut() {
        references.remove("success");
    }
    fs::write(run.join("results.json"), results.to_string()).expect("results");
    let mut bytes = fs::read(run.join(FILE)).expect("events");
    bytes.extend_from_slice(&[40, 0, 0, 0, 0, 0, 0, 0, 1, 2]);
    fs::write(run.join(FILE), bytes).expect("events");
    done(&folder.0, "resume run -q");
    assert_eq!(timeless(&run), whole, "no step twice, none missing");
}
