//! Playing the tasks of a bank, named or not, and saying why an episode is routed as it is.

use super::routing::{self, Routing};
use super::{open_device, tuned};
use crate::args::{Eval, Explain, Rule};
use crate::files::{note, open_bank, print, write_output};
use crate::problem::{Cap, Problem};
use crate::record::{RunConfig, quoted};
use crate::settings::{SCHEMA, Settings};
use crate::simulators::interpreter;
use crate::summary::{Table, number, short};
use crate::unseen::Unseen;
use anyhow::{Context, Result, bail};
use serde_json::{Value, json};
use std::fmt::Write as _;
use std::path::Path;
use tsn::affinity::online::{Evidence, Router};
use tsn::recognise::{follow, online, signature};
use tsn::state::State;
use tsn::{Bank, Learner, Task};

/// Plays every task of a bank.
pub(crate) fn eval(args: &Eval) -> Result<()> {
    args.output.check()?;
    // A file of this name that is no run's says nothing of Python.
    let of_run = run_of(&args.bank).ok().flatten().and_then(|run| run.python);
    let python = interpreter(args.place.python.as_deref().or(of_run.as_deref()));
    let (spec, data) = (args.spec.as_deref(), args.data.as_deref());
    let (mut bank, settings, mut problem) = open(&args.bank, spec, data, args.mem, Some(&python))?;
    // A task that was adapted to has the scales of its source.
    for record in &bank.tasks {
        let adapted = record.notes.contains_key("adapted.method");
        for task in problem.tasks.iter_mut().filter(|task| adapted && task.name == record.name) {
            task.scale_as(record);
            task.target = Some(record.target_return);
        }
    }
    let device = tuned(open_device(&args.place)?, args.tuning.table()?.as_ref())?;
    let tasks = tasks_of(&bank, &problem)?;
    if args.route.is_some() || args.routing_data {
        describe(&mut bank, &tasks, settings.seed)?;
    }
    let mut learner = Learner::with(device.clone(), settings.config()?, settings.options()?, bank)?;
    let bank = learner.bank.clone();
    let mut rows = Vec::new();
    for (record, task) in bank.tasks.iter().zip(&tasks) {
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
    let oracle: Vec<Option<f64>> = rows.iter().map(|(_, scores, ..)| mean(scores)).collect();
    let mut parts = Vec::new();
    if args.route.is_some() && tasks.iter().all(|task| task.environment.is_none()) {
        note("no task can be played, so none is routed while it is; --routing-data routes logged episodes");
    }
    if let Some(rule) = args.route {
        let play =
            routing::Play { device: &device, config: &learner.config, bank: &bank, tasks: &tasks, oracle: &oracle };
        parts.push(play.routed(rule, args.episodes, args.classes)?);
    }
    if args.routing_data {
        let evidence = if args.route == Some(Rule::Nearest) { Evidence::Nearest } else { Evidence::Filter };
        parts.push(routing::logged(&bank, &tasks, evidence, args.pixels_only)?);
    }

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
        let parts: Vec<String> = parts.iter().map(Routing::text).collect();
        print(&(table.text() + &parts.concat()))?;
    }
    if let Some(path) = &args.output.json {
        let task = |(name, scores, success, loss): &(String, Vec<f64>, Vec<f64>, f64)| {
            json!({
                "name": name, "mean": mean(scores), "scores": scores, "success": mean(success), "held_out_loss": loss,
            })
        };
        let routing: Vec<Value> = parts.iter().map(Routing::json).collect();
        let document = json!({
            "schema": SCHEMA, "suite": problem.suite, "tasks": rows.iter().map(task).collect::<Vec<_>>(),
            "routing": routing,
        });
        write_output(path, &(serde_json::to_string_pretty(&document)? + "\n"))?;
    }
    if let Some(path) = &args.output.csv {
        let scores = rows.iter().map(|(name, scores, ..)| (name.as_str(), scores.as_slice()));
        let text = if parts.is_empty() { by_episode(scores) } else { Routing::csv(&parts) };
        write_output(path, &text)?;
    }
    Ok(())
}

/// Scores of tasks, a line for each episode.
fn by_episode<'r>(tasks: impl Iterator<Item = (&'r str, &'r [f64])>) -> String {
    let mut text = String::from("task,episode,score\n");
    for (name, scores) in tasks {
        for (episode, score) in scores.iter().enumerate() {
            _ = writeln!(text, "{},{episode},{score:.6}", quoted(name));
        }
    }
    text
}

fn mean(scores: &[f64]) -> Option<f64> {
    (!scores.is_empty()).then(|| scores.iter().sum::<f64>() / scores.len() as f64)
}

/// A bank with the tasks it was made from.
fn open(
    path: &Path,
    spec: Option<&Path>,
    data: Option<&Path>,
    mem: Option<u64>,
    python: Option<&Path>,
) -> Result<(Bank, Settings, Problem)> {
    let bank = open_bank(path)?;
    if bank.tasks.is_empty() {
        bail!("{}: the bank holds no task to play", path.display());
    }
    let settings = Settings::of_bank(&bank).with_context(|| path.display().to_string())?;
    let cap = mem.map(|bytes| Cap { bytes, beside: path.to_owned() });
    let problem = match (spec, data) {
        (Some(spec), Some(data)) => Problem::from_files(spec, data, settings.options()?.profile, cap.as_ref(), python)?,
        _ => {
            let folder = data.map(Path::to_owned).or(run_of(path)?.and_then(|run| run.data_directory));
            let mut problem = Problem::again(&settings, folder.as_deref(), cap.as_ref(), python)?;
            let profile = settings.options()?.profile;
            for record in &bank.tasks {
                if let Some(unseen) = Unseen::of(record)? {
                    let observation = settings.config()?.observation;
                    let task = unseen.read(folder.as_deref(), observation, profile, cap.as_ref(), python)?;
                    problem.tasks.push(Task { name: record.name.clone(), ..task });
                }
            }
            problem
        }
    };
    Ok((bank, settings, problem))
}

/// The run that a bank lies in, which knows where its data and its Python are; a bank that was copied elsewhere has none.
fn run_of(bank: &Path) -> Result<Option<RunConfig>> {
    let beside = bank.parent().unwrap_or(Path::new(".")).join("config.json");
    beside.is_file().then(|| crate::files::read_json::<RunConfig>(&beside)).transpose()
}

/// The problem's task of every task of the bank.
fn tasks_of<'p>(bank: &Bank, problem: &'p Problem) -> Result<Vec<&'p Task>> {
    let find = |name: &str| match problem.tasks.iter().find(|t| t.name == name) {
        Some(task) => Ok(task),
        None => bail!("the bank's task \"{name}\" is not among the tasks to play"),
    };
    bank.tasks.iter().map(|record| find(&record.name)).collect()
}

/// Describes tasks of a bank that was written before it kept descriptions.
fn describe(bank: &mut Bank, tasks: &[&Task], seed: u64) -> Result<()> {
    for (number, (record, task)) in bank.tasks.iter_mut().zip(tasks).enumerate() {
        if record.online.is_none() {
            note(&format!("task \"{}\" is described by its data now: the bank is of an earlier format", record.name));
            record.online = Some(online(task, seed, number as u32)?);
        }
    }
    Ok(())
}

/// States of an episode that are shown.
const SHOWN: [usize; 9] = [0, 1, 2, 5, 10, 20, 50, 100, 200];

/// Says why each task was learned where it is, or why a logged episode is routed as it is.
pub(crate) fn explain(args: &Explain) -> Result<()> {
    let Some(name) = &args.task else { return routing::sources(args) };
    let (spec, data) = (args.spec.as_deref(), args.data.as_deref());
    let (mut bank, settings, problem) = open(&args.bank, spec, data, None, None)?;
    let tasks = tasks_of(&bank, &problem)?;
    describe(&mut bank, &tasks, settings.seed)?;
    let Some(task) = tasks.iter().find(|t| t.name == *name) else {
        let names: Vec<&str> = tasks.iter().map(|t| t.name.as_str()).collect();
        bail!("the bank has no task \"{name}\", only {}", names.join(", "));
    };
    let list = if task.split.held_out.is_empty() { &task.split.train } else { &task.split.held_out };
    let Some(wanted) = list.get(args.episode) else {
        bail!("episode {} of task \"{name}\" does not exist: it has {} to follow", args.episode, list.len());
    };
    let signature = signature(task);
    let router = Router::new(signature, bank.described(), tsn::affinity::online::Settings::default())?;
    let names: Vec<String> = router.tasks().iter().map(|t| short(&bank.tasks[*t].name)).collect();
    let last = task.episodes.rows_of(*wanted).len() - 1;
    let mut states = Vec::new();
    follow(&router, task, |episode, state, filter, choice| {
        if episode != *wanted || !(SHOWN.contains(&state) || state == last) {
            return;
        }
        let fits = filter.fits().to_vec();
        let (scores, posterior) = (filter.scores().to_vec(), filter.posterior().to_vec());
        states.push((state, choice, scores, posterior, fits));
    })?;
    if let Some(path) = &args.json {
        let state = |(state, choice, scores, posterior, fits): &(
            usize,
            tsn::recognise::Choice,
            Vec<f64>,
            Vec<f64>,
            Vec<f64>,
        )| {
            json!({"state": state, "task": bank.tasks[choice.task].name, "unknown": choice.unknown,
                "scores": scores, "posterior": posterior, "fit": fits})
        };
        let document = json!({
            "schema": SCHEMA, "task": name, "episode": args.episode, "signature": signature.to_string(),
            "candidates": router.tasks().iter().map(|t| &bank.tasks[*t].name).collect::<Vec<_>>(),
            "states": states.iter().map(state).collect::<Vec<_>>(),
        });
        return write_output(path, &(serde_json::to_string_pretty(&document)? + "\n"));
    }
    let others = bank.tasks.len() - router.tasks().len();
    let mut text = format!(
        "Held-out episode {} of {name}: an environment of {signature}; {} candidates, {others} tasks of other environments\n\n",
        args.episode,
        router.tasks().len()
    );
    let mut table = Table::default();
    let mut head = vec!["state".to_owned(), "chosen".to_owned(), "unknown".to_owned()];
    head.extend(names);
    table.row(head);
    for (state, choice, scores, _, fits) in &states {
        let best = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let mut row = vec![state.to_string(), short(&bank.tasks[choice.task].name), yes(choice.unknown)];
        row.extend(scores.iter().zip(fits).map(|(score, fit)| format!("{:.1} ({fit:.1})", score - best)));
        table.row(row);
    }
    text.push_str(&table.text());
    text.push_str(
        "\n  Score below the best candidate's. In brackets how the state fits: for vectors the squared error of\
         \n  the transition over the expected one (1 is a perfect model, above 10 unlike the task), for frames the\
         \n  deviations of the cosine from the task's own (below -3 unlike the task).\n",
    );
    print(&text)
}

fn yes(flag: bool) -> String {
    if flag { "yes" } else { "-" }.to_owned()
}
