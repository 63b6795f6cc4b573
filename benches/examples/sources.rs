//! Sequences of tasks under several rules for where a task starts from; rules share data, weights and the first task of
//! a seed, so that they can be compared in pairs. Appends CSV, a line per task, and skips what a file already holds; then
//! prints how the rules of the file compare.
//!
//! `cargo run --release -p tsn-benches --example sources -- SUITE OUT.csv SEEDS RULES [KEY=VALUE]...`
//!
//! SUITE is a generated suite, or `panda` for the list of suite `panda_families` with `data=DIR`. SEEDS is `0..10`. RULES
//! are joined by commas: `first`, `best` or `never`, then `+inherit0.9`, `+nudge0.3`, `+limit1.7` as wanted. Keys: `steps`,
//! `first` (steps of the first task), `batch`, `width`, `context`, `layers`, `play` (episodes, 0 for loss alone), `shuffle` (1 draws
//! the order of tasks from the seed), `again` (1: every task comes back once, after all of them, with the other half of its
//! episodes).

#![expect(clippy::print_stdout, reason = "a tool for the terminal")]

use dt::autograd::engine::Device;
use dt::autograd::engine::kernels::philox::{Rng, Stream};
use dt::env::cartpole::Derived;
use dt::env::remap::Remap;
use dt_io::{Expect, load_any};
use std::collections::{BTreeMap, BTreeSet};
use std::error::Error;
use std::fs::{OpenOptions, read_to_string};
use std::io::Write as _;
use std::path::Path;
use tsn::memory::{Masks, Memory, TimeEmbedding};
use tsn::state::State;
use tsn::suite::{Suite, config_for, panda_layout};
use tsn::{Bank, Learner, Options, Profile, Silent, Strategy, Task, WarmStart};

type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// Data, environment and meaning of actions of the tasks of suite `panda_families`.
const PANDA: [(&str, Option<&str>); 8] = [
    ("Reach", None),
    ("Push", Some("negated")),
    ("PickAndPlace", None),
    ("Reach", Some("negated")),
    ("Push", None),
    ("PickAndPlace", Some("negated")),
    ("Reach", Some("swapped")),
    ("Push", Some("swapped")),
];

fn panda(dir: &Path) -> Result<Vec<Task>> {
    let one = |(seed, (name, meaning)): (usize, (&str, Option<&str>))| {
        let mut episodes = load_any(&dir.join(name).join("trajs.npz"), &Expect::default())?;
        if let Some(meaning) = meaning {
            episodes = Remap::parse(meaning)?.episodes(episodes)?;
        }
        let width = episodes.observations().shape().values();
        let mut task = Task::new(format!("{name}_{}", meaning.unwrap_or("plain")), seed as u64, episodes)?;
        task.layout = panda_layout(&format!("Panda{name}Dense-v3"), width);
        Ok(task)
    };
    PANDA.into_iter().enumerate().map(one).collect()
}

/// The options that a rule describes.
fn options(rule: &str, base: &Options) -> Result<Options> {
    let mut parts = rule.split('+');
    let strategy = if parts.next() == Some("first") { Strategy::FirstMatch } else { Strategy::TsnAffinity };
    let mut options = Options { strategy, ..base.clone() };
    if rule.starts_with("never") {
        options.warm_start = WarmStart::Never;
    }
    for part in parts {
        let at = part.find(|c: char| c.is_ascii_digit()).unwrap_or(part.len());
        let (name, value) = part.split_at(at);
        match name {
            "inherit" => options.inherit = value.parse()?,
            "nudge" => options.warm_start = WarmStart::Nudge(value.parse()?),
            "limit" => options.thresholds.action = value.parse()?,
            _ => return Err(format!("rule {rule}: {part} is not known").into()),
        }
    }
    Ok(options)
}

/// Tasks as the visit `parity` (0 or 1) of two sees them: with every other episode.
fn visited(mut tasks: Vec<Task>, parity: usize) -> Vec<Task> {
    for task in &mut tasks {
        for part in [&mut task.split.train, &mut task.split.held_out] {
            *part = part.iter().copied().skip(parity).step_by(2).collect();
        }
        if parity == 1 {
            task.name += "_again";
        }
    }
    tasks
}

fn main() -> Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [suite, path, seeds, rules, keys @ ..] = &args[..] else {
        return Err("expected SUITE OUT.csv SEEDS RULES [KEY=VALUE]...".into());
    };
    let keys: BTreeMap<&str, &str> = keys.iter().filter_map(|text| text.split_once('=')).collect();
    let key = |name: &str, default: u64| keys.get(name).map_or(Ok(default), |text| text.parse());
    let (from, to) = seeds.split_once("..").ok_or("expected SEEDS as 0..10")?;
    let held = read_to_string(path).unwrap_or_default();
    let fields = held.lines().map(|line| line.split(',').collect::<Vec<_>>());
    let done: BTreeSet<(String, String)> =
        fields.filter(|f| f.get(3) == Some(&"end")).map(|f| (f[1].to_owned(), f[2].to_owned())).collect();
    let mut out = OpenOptions::new().create(true).append(true).open(path)?;
    // One worker: several of these run beside each other, and the bits are the same.
    let device = Device::cpu(1);
    for seed in from.parse::<u64>()?..to.parse()? {
        let made = || -> Result<Vec<Task>> {
            match &**suite {
                "panda" => panda(Path::new(keys.get("data").ok_or("expected data=DIR")?)),
                name => Ok(Suite::parse(name)?.generate(Derived::Refreshed, seed, 60)?),
            }
        };
        let mut tasks = made()?;
        if key("again", 0)? == 1 {
            tasks = [visited(tasks, 0), visited(made()?, 1)].into_iter().flatten().collect();
        }
        if key("shuffle", 0)? == 1 {
            let mut rng = Rng::new(seed, Stream::Data, [99, 99]);
            (1..tasks.len()).rev().for_each(|last| tasks.swap(last, rng.below(last as u64 + 1) as usize));
        }
        let mut config = config_for(&mut tasks, Profile::Corrected)?;
        (config.width, config.context) = (key("width", 64)? as u32, key("context", 10)? as u32);
        config.layers = key("layers", 3)? as u32;
        let (steps, batch) = (key("steps", 40)?, key("batch", 16)? as u32);
        let base = Options { seed, steps, batch, ..Options::corrected(Strategy::TsnAffinity) };
        let mut begun: Option<Bank> = None;
        for rule in rules.split(',').filter(|rule| !done.contains(&(seed.to_string(), (*rule).to_owned()))) {
            let options = options(rule, &base)?;
            let bank = match &begun {
                Some(bank) => bank.clone(),
                None => {
                    let options = Options { steps: key("first", 250)?, ..base.clone() };
                    let mut learner = Learner::new(device.clone(), config, options)?;
                    learner.learn(&tasks[0], None, &mut Silent)?;
                    begun.insert(learner.bank).clone()
                }
            };
            let mut learner = Learner::with(device.clone(), config, options.clone(), bank)?;
            for (number, task) in tasks.iter().enumerate().skip(1) {
                let report = learner.learn(task, None, &mut Silent)?;
                let state = State::of_task(&learner.bank, &learner.bank.tasks[number]);
                let evaluator = learner.evaluator();
                let loss = evaluator.held_out(&state, &task.held_out(&config, &options, evaluator.batch())?)?.loss;
                let seeds: Vec<u64> = (0..key("play", 20)?).map(|e| task.seed + e).collect();
                let score = match task.environment.is_some() && !seeds.is_empty() {
                    true => evaluator.play(&state, task, &seeds)?.iter().map(|e| e.score).sum::<f64>(),
                    false => f64::NAN,
                } / seeds.len() as f64;
                let source = report.route.source.filter(|_| report.warm_started);
                let (source, new) = (source.map_or("none", |u| &tasks[u].name), report.newly_claimed);
                writeln!(out, "{suite},{seed},{rule},{},{source},{loss},{score},{new},{}", task.name, report.time_s)?;
            }
            let memory = Memory::of(&learner.bank, |_| false).factor(Masks::Packed, TimeEmbedding::Excluded);
            writeln!(out, "{suite},{seed},{rule},end,{},,{}", learner.bank.copies.len(), memory.unwrap_or(f64::NAN))?;
            out.flush()?;
        }
    }
    table(&read_to_string(path)?)
}

/// Mean loss and score of the tasks of a seed after the first one.
type Mean = (f64, f64);

/// Prints how much lower the loss is and how much higher the score, by pairs of equal seeds: each rule against `first`, and
/// `best` against `first` with the same settings. Tasks that came back are apart.
fn table(text: &str) -> Result<()> {
    // A run that was killed leaves a line cut short.
    let rows: Vec<Vec<&str>> =
        text.lines().map(|line| line.split(',').collect()).filter(|row: &Vec<_>| row.len() > 6).collect();
    let done: BTreeSet<(&str, &str)> = rows.iter().filter(|row| row[3] == "end").map(|row| (row[1], row[2])).collect();
    println!("| rule | against | tasks | seeds | lower loss by | 95 % interval | higher score by | 95 % interval |");
    println!("|{}", "---|".repeat(8));
    for (part, again) in [("all", None), ("first visit", Some(false)), ("come back", Some(true))] {
        // Tasks by name: those of a run that was killed before its end stand there twice.
        let mut tasks: BTreeMap<(&str, &str), BTreeMap<&str, Mean>> = BTreeMap::new();
        let split = rows.iter().any(|row| row[3].ends_with("_again"));
        for row in rows.iter().filter(|row| row[3] != "end" && done.contains(&(row[1], row[2]))) {
            if again.is_some_and(|again| row[3].ends_with("_again") != again) || again.is_none() == split {
                continue;
            }
            tasks.entry((row[2], row[1])).or_default().insert(row[3], (row[5].parse()?, row[6].parse()?));
        }
        let means = |rule: &str| -> BTreeMap<&str, Mean> {
            let own = tasks.iter().filter(|((of, _), _)| *of == rule);
            own.map(|((_, seed), of)| (*seed, mean(of.values()))).collect()
        };
        for rule in tasks.keys().map(|(rule, _)| *rule).collect::<BTreeSet<&str>>() {
            let alike = rule.replacen("best", "first", 1);
            for against in [alike.as_str(), "first"].into_iter().collect::<BTreeSet<&str>>() {
                let (own, other) = (means(rule), means(against));
                let pairs: Vec<(Mean, Mean)> =
                    own.iter().filter_map(|(seed, own)| Some((*own, *other.get(seed)?))).collect();
                if rule == against || pairs.is_empty() {
                    continue;
                }
                let base = pairs.iter().map(|pair| pair.1.1).sum::<f64>() / pairs.len() as f64;
                let loss: Vec<f64> = pairs.iter().map(|(own, other)| 1.0 - own.0 / other.0).collect();
                let score: Vec<f64> = pairs.iter().map(|(own, other)| (own.1 - other.1) / base).collect();
                let (seeds, loss, score) = (pairs.len(), interval(&loss), interval(&score));
                println!("| `{rule}` | `{against}` | {part} | {seeds} | {loss} | {score} |");
            }
        }
    }
    Ok(())
}

fn mean<'a>(tasks: impl ExactSizeIterator<Item = &'a Mean>) -> Mean {
    let n = tasks.len() as f64;
    let (loss, score) = tasks.fold((0.0, 0.0), |sum, of| (sum.0 + of.0, sum.1 + of.1));
    (loss / n, score / n)
}

/// The mean in percent, and where 95 % of the means of 10 000 samples drawn with repetition lie.
fn interval(values: &[f64]) -> String {
    let mean = |sum: f64| 100.0 * sum / values.len() as f64;
    if values.iter().any(|value| value.is_nan()) {
        return "- | -".into();
    }
    let mut rng = Rng::new(0, Stream::Data, [0, 0]);
    let mut one = || values.iter().map(|_| values[rng.below(values.len() as u64) as usize]).sum::<f64>();
    let mut means: Vec<f64> = (0..10_000).map(|_| mean(one())).collect();
    means.sort_by(f64::total_cmp);
    format!("{:+.2} % | {:+.2} to {:+.2}", mean(values.iter().sum()), means[250], means[9749])
}
