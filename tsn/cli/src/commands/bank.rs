//! Looking at a bank, and playing its tasks.

use super::{open_device, tuned};
use crate::args::{Eval, Inspect};
use crate::files::{open_bank, print, write_output};
use crate::problem::Problem;
use crate::record::{RunConfig, quoted};
use crate::run::{bytes, deployed_memory};
use crate::settings::{SCHEMA, Settings};
use crate::simulators::interpreter;
use crate::summary::{Table, number, short};
use anyhow::{Context, Result, bail};
use serde_json::{Value, json};
use std::fmt::Write as _;
use std::path::Path;
use tsn::Learner;
use tsn::dt::autograd::engine::kernels::BitMask;
use tsn::memory::{Masks, TimeEmbedding};
use tsn::state::State;

/// Plays every task of a bank.
pub(crate) fn eval(args: &Eval) -> Result<()> {
    args.output.check()?;
    let bank = open_bank(&args.bank)?;
    if bank.tasks.is_empty() {
        bail!("{}: the bank holds no task to play", args.bank.display());
    }
    let settings = Settings::of_bank(&bank).with_context(|| args.bank.display().to_string())?;
    let device = tuned(open_device(&args.place)?, args.tuning.table()?.as_ref())?;
    let options = settings.options()?;
    let python = interpreter(args.place.python.as_deref());
    let problem = match (&args.spec, &args.data) {
        (Some(spec), Some(data)) => Problem::from_files(spec, data, options.profile, &python)?,
        _ => {
            // A run directory knows where its data lie; a bank that was copied elsewhere does not.
            let beside = args.bank.parent().unwrap_or(Path::new(".")).join("config.json");
            let known = beside.is_file().then(|| crate::files::read_json::<RunConfig>(&beside)).transpose()?;
            let folder = args.data.clone().or(known.and_then(|c| c.data_directory));
            Problem::again(&settings, folder.as_deref(), &python)?
        }
    };
    let mut learner = Learner::with(device, settings.config()?, options, bank)?;
    let bank = learner.bank.clone();
    let mut rows = Vec::new();
    for record in &bank.tasks {
        let Some(task) = problem.tasks.iter().find(|t| t.name == record.name) else {
            bail!("the bank's task \"{}\" is not among the tasks to play", record.name);
        };
        let state = State::of_task(&bank, record);
        let (config, options) = (learner.config, learner.options.clone());
        let evaluator = learner.evaluator();
        let sampler = task.held_out(&config, &options, evaluator.batch())?;
        let loss = evaluator.held_out(&state, &sampler)?.loss;
        let (mut scores, mut success) = (Vec::new(), Vec::new());
        if task.environment.is_some() {
            let seeds: Vec<u64> = (0..args.episodes).map(|e| task.seed.wrapping_add(e)).collect();
            let played = evaluator.play(&state, task, &seeds)?;
            scores = played.iter().map(|episode| episode.score).collect();
            success = played.iter().filter_map(|episode| episode.success.map(|yes| f64::from(u8::from(yes)))).collect();
        }
        rows.push((record.name.clone(), scores, success, loss));
    }

    let mean = |scores: &[f64]| (!scores.is_empty()).then(|| scores.iter().sum::<f64>() / scores.len() as f64);
    if !args.output.silent() {
        let mut table = Table::default();
        let head = ["task", "episodes", "mean", "least", "most", "success", "held-out loss"];
        table.row(head.map(str::to_owned).to_vec());
        for (name, scores, success, loss) in &rows {
            let least = scores.iter().copied().reduce(f64::min);
            let most = scores.iter().copied().reduce(f64::max);
            let (success, loss) = (number(mean(success), 3), number(Some(*loss), 4));
            let [mean, least, most] = [mean(scores), least, most].map(|score| number(score, 1));
            table.row(vec![short(name), scores.len().to_string(), mean, least, most, success, loss]);
        }
        print(&table.text())?;
    }
    if let Some(path) = &args.output.json {
        let task = |(name, scores, success, loss): &(String, Vec<f64>, Vec<f64>, f64)| json!({"name": name, "mean": mean(scores), "scores": scores, "success": mean(success), "held_out_loss": loss});
        let document =
            json!({"schema": SCHEMA, "suite": problem.suite, "tasks": rows.iter().map(task).collect::<Vec<_>>()});
        write_output(path, &(serde_json::to_string_pretty(&document)? + "\n"))?;
    }
    if let Some(path) = &args.output.csv {
        let mut text = String::from("task,episode,score\n");
        for (name, scores, ..) in &rows {
            for (episode, score) in scores.iter().enumerate() {
                _ = writeln!(text, "{},{episode},{score:.6}", quoted(name));
            }
        }
        write_output(path, &text)?;
    }
    Ok(())
}

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
