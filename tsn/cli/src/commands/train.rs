//! One strategy on a user's tasks, and going on with it.

use super::demo::heading;
use super::{absolute, deliver, explain_stop, model, open_device, run_config, stem, tuned};
use crate::args::{Output, Resume, Train};
use crate::benchmark::Benchmark;
use crate::files::{claim_run_dir, new_run_dir, print};
use crate::monitor::Monitor;
use crate::problem::{Cap, Problem};
use crate::record::{ReferenceScores, RunConfig, log};
use crate::report;
use crate::run::Run;
use crate::simulators::interpreter;
use crate::summary;
use anyhow::{Context, Result, bail};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Instant;
use tsn::dt::autograd::engine::Device;
use tsn::suite::{SUITES, Suite};

/// Steps per task.
const STEPS: u64 = 500;
/// Windows in a batch.
const BATCH: u32 = 64;
/// Evaluation episodes per matrix entry.
const EPISODES: u64 = 10;

/// Refuses options that no training takes, whatever the data.
pub(crate) fn check_options(args: &Train) -> Result<()> {
    Ok(args.learn.options(args.strategy, STEPS, BATCH).validate()?)
}

/// Trains.
pub(crate) fn train(args: &Train) -> Result<()> {
    let begin = Instant::now();
    let learn = &args.learn;
    learn.output.check()?;
    let table = args.tuning.table()?;
    let device = tuned(open_device(&learn.place)?, table.as_ref())?;
    let benchmark =
        args.suite.as_deref().filter(|name| *name != Suite::Demo.name()).map(Benchmark::open).transpose()?;
    let budget = match (&benchmark, &args.budget) {
        (Some(benchmark), Some(name)) => Some(benchmark.budget(name)?),
        (None, Some(name)) => bail!("budget {name}: only suites with files of data have budgets; use --steps"),
        _ => None,
    };
    let mut options = learn.options(args.strategy, STEPS, BATCH);
    if let Some(budget) = budget {
        options.steps = learn.steps.unwrap_or(budget.steps);
        options.batch = learn.batch.or(budget.batch).unwrap_or(options.batch);
    }
    options.validate()?;
    let cap = args.mem.map(|bytes| {
        let scratch = || Path::new("runs").join(format!("data-{}", std::process::id()));
        Cap { bytes, beside: learn.out.clone().unwrap_or_else(scratch) }
    });
    let python = interpreter(learn.place.python.as_deref());
    let problem = match (&args.suite, &args.spec, &args.data, benchmark) {
        (_, _, Some(data), Some(benchmark)) => {
            Problem::from_specs(benchmark.name, benchmark.tasks, data, learn.profile, cap.as_ref(), Some(&python))?
        }
        (Some(name), _, None, _) => match SUITES.into_iter().find(|suite| suite.name() == name) {
            Some(suite) => Problem::generated(suite, learn.profile, learn.seed, learn.data_episodes)?,
            None => bail!("the data of suite {name} lie in files: say where with --data DIR"),
        },
        (None, Some(spec), Some(data), _) => {
            Problem::from_files(spec, data, learn.profile, cap.as_ref(), Some(&python))?
        }
        (Some(name), ..) => bail!("the data of suite {name} are generated: leave out --data"),
        _ => bail!("train needs tasks: --suite NAME, or --spec FILE with --data DIR"),
    };
    let config = model(&problem, learn)?;
    let episodes = learn.episodes.or(budget.and_then(|b| b.episodes)).unwrap_or(EPISODES);
    let mut run_config = run_config(&problem, &config, &options, learn, episodes)?;
    run_config.crossover = table;
    run_config.memory_cap = args.mem;
    run_config.data_directory = args.data.as_deref().map(absolute).transpose()?;
    run_config.reference_directory = args.reference.as_deref().map(absolute).transpose()?;
    if let Some(reference) = &run_config.reference_directory {
        // Here, so that nothing is trained first that cannot be compared afterwards.
        ReferenceScores::of_run(reference, &run_config.settings)?;
    }
    let dir = match &learn.out {
        Some(dir) => {
            claim_run_dir(dir)?;
            dir.clone()
        }
        None => new_run_dir(Path::new("runs"), &stem(&problem.suite, args.strategy.name(), &options))?,
    };
    if !learn.output.silent() {
        print(&heading(&problem, &config, &options, learn.data_episodes, &device))?;
    }
    let run = Run::start(dir, run_config, &problem, &device)?;
    go(run, &problem.stop, &device, &learn.output, begin)
}

/// Goes on with a run.
pub(crate) fn resume(args: &Resume) -> Result<()> {
    let begin = Instant::now();
    args.output.check()?;
    let config = RunConfig::read(&args.run)?;
    let place = args.place.or(&config);
    let device = tuned(open_device(&place)?, config.crossover.as_ref())
        .with_context(|| format!("{}: crossover table of the run", args.run.join("config.json").display()))?;
    let folder = args.data.as_deref().or(config.data_directory.as_deref());
    let cap = args.mem.or(config.memory_cap).map(|bytes| Cap { bytes, beside: args.run.clone() });
    let python = interpreter(place.python.as_deref());
    let problem = Problem::again(&config.settings, folder, cap.as_ref(), Some(&python))?;
    let run = Run::resume(args.run.clone(), config, &problem, &device)?;
    log(&run.dir, "resume", &format!("{} tasks learned", run.files.len()))?;
    go(run, &problem.stop, &device, &args.output, begin)
}

fn go(mut run: Run<'_>, stop: &Arc<AtomicBool>, device: &Device, output: &Output, begin: Instant) -> Result<()> {
    let mut monitor = Monitor::new(stop, run.config.checkpoint_every, output.quiet)?;
    run.learn_all(&mut monitor).map_err(|e| explain_stop(e, &run.dir))?;
    run.write()?;
    if run.config.reference {
        if let Some(reference) = run.config.reference_directory.clone().filter(|_| run.references.single.is_empty()) {
            run.references = ReferenceScores::of_run(&reference, &run.config.settings)?;
        }
        run.learn_references(device, &mut monitor).map_err(|e| explain_stop(e, &run.dir))?;
    }
    run.write()?;
    monitor.finish();
    let results = run.results()?;
    log(&run.dir, "done", "")?;
    let page = report::write(&run.dir, std::slice::from_ref(&run.dir))?;
    if !output.silent() {
        print(&format!("{}\n", summary::strategy(&results)))?;
        let references = summary::references(&results);
        print(&format!("{references}{}", if references.is_empty() { "" } else { "\n" }))?;
        let (dir, page) = (run.dir.display(), page.display());
        print(&format!("{:.1} s; bank and records in {dir}, plots in {page}\n", results.wall_s))?;
    }
    deliver(&[results], begin.elapsed().as_secs_f64(), &run.dir, output)
}
