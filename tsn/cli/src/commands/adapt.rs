//! A mask for an unseen task from a few demonstrations.

use super::{absolute, open_device};
use crate::args::Place;
use crate::files::{check_outputs, open_bank, print, write_output};
use crate::run::deployed_memory;
use crate::settings::{SCHEMA, Settings};
use crate::simulators::interpreter;
use crate::summary::{Table, number, short};
use crate::unseen::Unseen;
use anyhow::{Context, Result, bail};
use clap::Args;
use dt_io::{TaskSpec, load_spec};
use serde_json::{Value, json};
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use tsn::adapt::{Method, Pick, Source, demonstrations};
use tsn::memory::{Masks, TimeEmbedding};
use tsn::state::State;
use tsn::{Learner, Silent, Task};

#[derive(Args)]
#[command(after_help = "\
Methods: retrieve (the closest task's mask), compose (a weighted vote of masks), tune* (scores
trained from there, all weights frozen), tune-free (free weights and norms, too).

Example:
  tsn-affinity adapt runs/train/bank.safetensors --data data --task P_default --name P --steps 4")]
pub(crate) struct AdaptArgs {
    /// The bank, for example RUN_DIR/bank.safetensors; it is not changed
    pub bank: PathBuf,
    /// Folder of the datasets
    #[arg(long, value_name = "DIR")]
    pub data: PathBuf,
    /// JSON list of tasks that holds the unseen one (DIR/tasks.json)
    #[arg(long, value_name = "FILE")]
    pub spec: Option<PathBuf>,
    /// Name of the unseen task in the list
    #[arg(long, value_name = "NAME")]
    pub task: String,
    /// Name it gets in the bank, if not that of the list
    #[arg(long, value_name = "NAME")]
    pub name: Option<String>,
    /// Demonstrations: episodes that are not held out
    #[arg(long, value_name = "N", default_value_t = 5)]
    pub demos: usize,
    /// The first episodes, or those of largest return
    #[arg(long, value_name = "WHICH", default_value = "first", hide_possible_values = true)]
    pub pick: WhichDemos,
    /// How the mask is found (see below)
    #[arg(long, value_name = "NAME", default_value = "tune", hide_default_value = true, value_parser = Method::parse)]
    pub method: Method,
    /// Training steps of tune and tune-free
    #[arg(long, value_name = "N", default_value_t = 50, value_parser = clap::value_parser!(u64).range(1..))]
    pub steps: u64,
    /// Episodes to play; 0 plays none
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u64).range(0..=100_000))]
    pub episodes: u64,
    /// Bank to write with the task in it
    #[arg(long, value_name = "FILE")]
    pub out: Option<PathBuf>,
    #[command(flatten)]
    pub place: Place,
    /// Write JSON to a file, or - for stdout
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
}

/// Which episodes are demonstrations.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum WhichDemos {
    First,
    Best,
}

impl From<WhichDemos> for Pick {
    fn from(which: WhichDemos) -> Pick {
        match which {
            WhichDemos::First => Pick::First,
            WhichDemos::Best => Pick::Best,
        }
    }
}

/// Adapts to a task of a spec.
pub(crate) fn adapt(args: &AdaptArgs) -> Result<()> {
    let outputs = [("--json", args.json.as_deref()), ("--out", args.out.as_deref())];
    check_outputs(&outputs)?;
    let same =
        |path: &Path| path.canonicalize().is_ok_and(|path| args.bank.canonicalize().is_ok_and(|bank| bank == path));
    if let Some((flag, _)) = outputs.iter().find(|(_, path)| path.is_some_and(same)) {
        bail!("{flag} {}: is the bank that is read, and is not changed; name another file", args.bank.display());
    }
    let bank = open_bank(&args.bank)?;
    let settings = Settings::of_bank(&bank).with_context(|| args.bank.display().to_string())?;
    let (config, options) = (settings.config()?, settings.options()?);
    let (spec, data, python) = (find(args)?, absolute(&args.data)?, interpreter(args.place.python.as_deref()));
    let (mut task, unseen) = Unseen::open(&spec, data, config.observation, options.profile, Some(&python))?;
    let (note, text) = unseen.note()?;
    if let Some(name) = &args.name {
        task.name.clone_from(name);
    }
    demonstrations(&mut task, args.demos, args.pick.into())?;
    let before = deployed_memory(&bank).persistent(Masks::Packed, TimeEmbedding::Excluded);
    let mut learner = Learner::with(open_device(&args.place)?, config, options, bank)?;
    let adapted = learner.adapt(&mut task, args.method, args.steps, &mut Silent)?;
    let after = deployed_memory(&learner.bank).persistent(Masks::Packed, TimeEmbedding::Excluded);
    let scores = play(&mut learner, &task, args.episodes)?;
    if let Some(path) = &args.out {
        if let Some(record) = learner.bank.tasks.last_mut() {
            record.notes.insert(note, text);
        }
        learner.bank.save(path)?;
    }

    let mean = (!scores.is_empty()).then(|| scores.iter().sum::<f64>() / scores.len() as f64);
    let (report, grown) = (&adapted.report, after.saturating_sub(before));
    let name = |source: &Source| learner.bank.tasks[source.task].name.as_str();
    if let Some(path) = &args.json {
        let source = |s: &Source| json!({"task": name(s), "loss": s.error, "scaled": s.scaled, "weight": s.weight});
        let document = json!({
            "schema": SCHEMA, "task": report.name, "method": args.method.name(), "demonstrations": args.demos,
            "steps": args.method.trains().then_some(args.steps),
            "sources": adapted.sources.iter().map(source).collect::<Vec<Value>>(),
            "copy": report.route.copy, "density": report.density, "newly_claimed": report.newly_claimed,
            "demonstration_loss": report.own_loss, "bytes": grown, "scores": scores, "mean": mean,
        });
        write_output(path, &(serde_json::to_string_pretty(&document)? + "\n"))?;
        if path.as_os_str() == "-" {
            return Ok(());
        }
    }
    let mut table = Table::default();
    table.row(["source", "loss A", "scaled A'", "weight"].map(str::to_owned).to_vec());
    for source in &adapted.sources {
        let (loss, scaled) = (number(Some(source.error), 4), number(source.scaled, 4));
        table.row(vec![short(name(source)), loss, scaled, number(Some(source.weight), 3)]);
    }
    let closest = report.route.source.map_or("-", |u| learner.bank.tasks[u].name.as_str());
    let mut text = format!(
        "{}: demonstrations {}, closest task {}, copy {}\n\n{}\n",
        short(&report.name),
        args.demos,
        short(closest),
        report.route.copy,
        table.text(),
    );
    let steps = if args.method.trains() { format!(", {} steps", args.steps) } else { String::new() };
    _ = writeln!(
        text,
        "  {}{steps}: mask {:.2} % of the weights, {:.2} % newly claimed, loss on the demonstrations {:.4}, {grown} bytes",
        args.method.name(),
        100.0 * report.density,
        100.0 * report.newly_claimed,
        report.own_loss,
    );
    if let Some(mean) = mean {
        _ = writeln!(text, "  score {mean:.1}, mean of {} episodes", scores.len());
    }
    match &args.out {
        Some(path) => _ = writeln!(text, "  wrote {}", path.display()),
        None => text.push_str("  nothing written: name a bank with --out\n"),
    }
    print(&text)
}

/// The task of the list that was asked for.
fn find(args: &AdaptArgs) -> Result<TaskSpec> {
    let spec_file = args.spec.clone().unwrap_or_else(|| args.data.join("tasks.json"));
    let specs = load_spec(&spec_file)?;
    let names: Vec<&str> = specs.iter().map(|spec| spec.name.as_str()).collect();
    let names = names.join(", ");
    match specs.iter().find(|spec| spec.name == args.task) {
        Some(spec) => Ok(spec.clone()),
        None => bail!("{}: no task \"{}\", only {names}", spec_file.display(), args.task),
    }
}

/// Scores of the last task of the bank; none without an environment.
fn play(learner: &mut Learner, task: &Task, episodes: u64) -> Result<Vec<f64>> {
    let Some(record) = learner.bank.tasks.last().filter(|_| episodes > 0 && task.environment.is_some()) else {
        return Ok(Vec::new());
    };
    let state = State::of_task(&learner.bank, record);
    let seeds: Vec<u64> = (0..episodes).map(|e| task.seed.wrapping_add(e)).collect();
    Ok(learner.evaluator().play(&state, task, &seeds)?.iter().map(|episode| episode.score).collect())
}
