//! Looking at a bank.

use crate::args::Inspect;
use crate::files::{open_bank, print, write_output};
use crate::run::{bytes, deployed_memory};
use crate::settings::SCHEMA;
use crate::summary::{Table, number, short};
use anyhow::Result;
use serde_json::{Value, json};
use std::fmt::Write as _;
use tsn::dt::autograd::engine::kernels::BitMask;
use tsn::memory::{Masks, TimeEmbedding};

/// Shows what a bank holds.
pub(crate) fn inspect(args: &Inspect) -> Result<()> {
    let bank = open_bank(&args.bank)?;
    let memory = deployed_memory(&bank);
    let count = |masks: &[BitMask]| {
        let (set, all) = masks.iter().fold((0, 0), |(s, n), m| (s + m.count(), n + m.len()));
        if all == 0 { None } else { Some(set as f64 / all as f64) }
    };
    let factor = |time| memory.factor(Masks::Packed, time);
    let (without, with) = (factor(TimeEmbedding::Excluded), factor(TimeEmbedding::Included));
    if let Some(path) = &args.json {
        let tasks: Vec<Value> = bank
            .tasks
            .iter()
            .map(|t| {
                json!({
                    "name": t.name, "copy": t.copy, "source": t.source, "density": count(&t.masks),
                    "claimed": t.claimed, "keep_ratio": t.keep_ratio, "own_loss": t.own_loss,
                    "target_return": t.target_return, "rtg_scale": t.rtg_scale,
                })
            })
            .collect();
        let document = json!({
            "schema": SCHEMA, "copies": bank.copies.len(), "tasks": tasks, "memory": bytes(&memory),
            "memory_factor": without, "memory_factor_with_te": with, "config_hash": bank.config_hash(),
            "config": bank.config, "parent": bank.parent,
        });
        return write_output(path, &(serde_json::to_string_pretty(&document)? + "\n"));
    }
    let setting = |key: &str| bank.config.get(key).map_or("unknown", |v| v.trim_matches('"')).to_owned();
    let mut text = format!(
        "{}: tasks {}, copies {}, suite {}, strategy {}, seed {}\n\n",
        args.bank.display(),
        bank.tasks.len(),
        bank.copies.len(),
        setting("suite"),
        setting("strategy"),
        setting("seed"),
    );
    let mut table = Table::default();
    let head = ["task", "copy", "source", "density", "claimed", "held-out loss", "asks for return"];
    table.row(head.map(str::to_owned).to_vec());
    for t in &bank.tasks {
        table.row(vec![
            short(&t.name),
            t.copy.to_string(),
            t.source.map_or_else(|| "-".to_owned(), |u| short(&bank.tasks[u].name)),
            count(&t.masks).map_or_else(|| "dense".to_owned(), |d| format!("{:.2} %", 100.0 * d)),
            if t.masks.is_empty() { "-".to_owned() } else { t.claimed.to_string() },
            number(Some(t.own_loss), 4),
            number(Some(t.target_return), 1),
        ]);
    }
    text.push_str(&table.text());
    let mut copies = Table::default();
    copies.row(["copy", "tensors", "weights", "occupied"].map(str::to_owned).to_vec());
    for (c, copy) in bank.copies.iter().enumerate() {
        let occupied: Vec<BitMask> = copy.masked().map(|(_, occupied)| occupied.clone()).collect();
        copies.row(vec![
            c.to_string(),
            copy.weights.len().to_string(),
            copy.weights.iter().map(|w| w.values.len()).sum::<usize>().to_string(),
            count(&occupied).map_or_else(|| "-".to_owned(), |d| format!("{:.2} %", 100.0 * d)),
        ]);
    }
    text.push('\n');
    text.push_str(&copies.text());
    let mut table = Table::default();
    table.row(vec!["memory".into(), "bytes".into()]);
    for (name, bytes) in bytes(&memory).into_iter().filter(|(_, bytes)| *bytes > 0) {
        table.row(vec![name.replace('_', " "), bytes.to_string()]);
    }
    text.push('\n');
    text.push_str(&table.text());
    let (without, with) = (number(without, 3), number(with, 3));
    _ = writeln!(text, "\n  {without} times a dense model, {with} with the time embedding (masks packed)");
    print(&text)
}
