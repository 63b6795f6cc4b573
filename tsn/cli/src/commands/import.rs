//! Runs and models of the reference implementation, for `report`, `inspect` and `eval`.

use super::open_device;
use crate::args::Place;
use crate::benchmark::Benchmark;
use crate::files::{make_dir, new_run_dir, note, print, write_json};
use crate::import::checkpoint::{self, Given};
use crate::import::flags::{Import, ImportModel, ImportRun};
use crate::import::records::{self, Record};
use crate::problem::Problem;
use crate::record::quoted;
use crate::settings::Settings;
use crate::simulators::interpreter;
use anyhow::{Result, bail};
use std::fmt::Write as _;
use tsn::file::replace_file;
use tsn::state::State;
use tsn::suite::SUITES;
use tsn::{Learner, Options, Profile, Strategy, Task};

/// Imports.
pub(crate) fn import(args: &Import) -> Result<()> {
    match args {
        Import::Run(args) => run(args),
        Import::Model(args) => model(args),
    }
}

/// Every record becomes a run directory.
fn run(args: &ImportRun) -> Result<()> {
    let mut all = Vec::new();
    for file in &args.files {
        all.extend(records::read(file, args.suite.as_deref())?);
    }
    for record in &all {
        let stem = format!("{}__{}__imported", plain(&record.suite), plain(&record.strategy));
        let dir = new_run_dir(&args.out, &stem)?;
        replace_file(&dir.join("matrix.csv"), matrix(record).as_bytes())?;
        write_json(&dir.join("results.json"), &record.results)?;
        print(&format!("{}: {} on {}\n", dir.display(), record.strategy, record.suite))?;
    }
    Ok(())
}

/// A name without what separates directories or parts of a run's name.
fn plain(name: &str) -> String {
    let character = |c: char| if c.is_alphanumeric() || "-_.".contains(c) { c } else { '_' };
    let plain: String = name.chars().map(character).collect();
    let parts: Vec<&str> = plain.trim_start_matches('.').split('_').filter(|part| !part.is_empty()).collect();
    if parts.is_empty() { "unnamed".to_owned() } else { parts.join("_") }
}

fn matrix(record: &Record) -> String {
    let mut csv = String::from("after_task \\ on_task");
    // Writing into a string cannot fail.
    record.tasks.iter().for_each(|name| _ = write!(csv, ",{}", quoted(name)));
    for (name, row) in record.tasks.iter().zip(&record.matrix) {
        _ = write!(csv, "\n{}", quoted(name));
        row.iter().for_each(|score| _ = write!(csv, ",{}", score.map_or_else(String::new, |s| format!("{s:.6}"))));
    }
    csv + "\n"
}

/// A checkpoint becomes a bank of one task.
fn model(args: &ImportModel) -> Result<()> {
    if args.out.exists() {
        bail!("{}: exists already", args.out.display());
    }
    if let Some(keep) = args.keep.filter(|keep| !(0.0..=1.0).contains(keep) || *keep == 0.0) {
        bail!("--keep {keep}: expected a share above 0 and at most 1");
    }
    let given = Given { task: &args.task, keep: args.keep, heads: args.heads, context: args.context };
    let imported = checkpoint::read(&args.file, &given)?;
    let (config, mut bank) = (imported.config, imported.bank);

    let problem = problem(args)?;
    let names: Vec<&str> = problem.tasks.iter().map(|task| task.name.as_str()).collect();
    let Some(number) = names.iter().position(|name| *name == args.task) else {
        bail!("--task {}: expected one of {}", args.task, names.join(", "));
    };
    let task = &problem.tasks[number];
    let ours = problem.config;
    if (ours.observation, ours.action) != (config.observation, config.action) {
        bail!(
            "{}: the checkpoint sees {:?} and does {:?}, the tasks have {:?} and {:?}",
            args.file.display(),
            config.observation,
            config.action,
            ours.observation,
            ours.action
        );
    }
    let masked = !bank.tasks[0].masks.is_empty();
    let strategy = if masked { Strategy::Tsn } else { Strategy::Naive };
    let mut options = Options::official(strategy);
    options.keep_ratio = args.keep.unwrap_or(options.keep_ratio);
    options.announced = problem.tasks.len();
    let episodes = args.episodes;
    let settings =
        Settings::new(&problem.suite, &options, &config, episodes, problem.data.clone(), problem.entries.clone());

    let record = &mut bank.tasks[0];
    let goal = task.goal(&config);
    record.rtg_scale = f64::from(task.rtg_scale());
    record.target_return = f64::from(goal.target);
    record.action = task.action(&config);
    record.online = Some(tsn::recognise::online(task, options.seed, 0)?);
    record.notes.insert("imported".into(), args.file.display().to_string());
    compare_statistics(task, record);
    bank.config = settings.flat()?;

    let place = Place { device: None, threads: None, python: args.python.clone() };
    let mut learner = Learner::with(open_device(&place)?, config, options.clone(), bank)?;
    let state = State::of_task(&learner.bank, &learner.bank.tasks[0]);
    let evaluator = learner.evaluator();
    let sampler = task.held_out(&config, &options, evaluator.batch())?;
    let loss = evaluator.held_out(&state, &sampler)?.loss;
    learner.bank.tasks[0].own_loss = loss;
    if let Some(folder) = args.out.parent().filter(|folder| !folder.as_os_str().is_empty()) {
        make_dir(folder)?;
    }
    learner.bank.save(&args.out)?;
    print(&format!(
        "{}: task {}, {}, {} blocks of width {}, {} heads, held-out loss {loss:.4}\n",
        args.out.display(),
        args.task,
        if masked { "masked" } else { "dense" },
        config.layers,
        config.width,
        config.heads
    ))
}

/// A model plays under the statistics of the data it is given; those it was trained under should be the same.
fn compare_statistics(task: &Task, record: &tsn::bank::TaskRecord) {
    let moments = task.moments();
    let (mean, std) = moments.as_ref().map_or((&[][..], &[][..]), |m| (&m.mean[..], &m.std[..]));
    if !record.obs_mean.is_empty() && (apart(&record.obs_mean, mean) || apart(&record.obs_std, std)) {
        note("obs_mean and obs_std of the checkpoint are not those of these data: it was trained on others");
    }
}

/// What is not a number, or infinite on both sides, is apart from everything.
fn apart(a: &[f32], b: &[f32]) -> bool {
    let near = |(a, b): (&f32, &f32)| (a - b).abs() <= 1e-2 * (1.0 + b.abs()) && b.is_finite();
    a.len() != b.len() || !a.iter().zip(b).all(near)
}

fn problem(args: &ImportModel) -> Result<Problem> {
    let python = interpreter(args.python.as_deref());
    let profile = Profile::Official;
    match (&args.suite, &args.spec, &args.data) {
        (None, Some(spec), Some(data)) => Problem::from_files(spec, data, profile, None, Some(&python)),
        (Some(name), _, None) => match SUITES.into_iter().find(|suite| suite.name() == name) {
            Some(suite) => Problem::generated(suite, profile, 0, args.data_episodes),
            None => bail!("the data of suite {name} lie in files: say where with --data DIR"),
        },
        (Some(name), _, Some(data)) => {
            let Benchmark { name, tasks, .. } = Benchmark::open(name)?;
            Problem::from_specs(name, tasks, data, profile, None, Some(&python))
        }
        _ => bail!("import model needs --spec FILE with --data DIR, or --suite NAME"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statistics_that_are_no_numbers_are_not_equal() {
        assert!(!apart(&[1.0, -20.0], &[1.001, -20.1]));
        assert!(apart(&[1.0], &[1.1]) && apart(&[1.0], &[1.0, 2.0]));
        for odd in [f32::NAN, f32::INFINITY] {
            assert!(apart(&[odd], &[1.0]) && apart(&[1.0], &[odd]) && apart(&[odd], &[odd]), "{odd}");
        }
    }
}
