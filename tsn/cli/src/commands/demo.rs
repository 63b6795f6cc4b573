//! The main job: a built-in suite, learned with several strategies, played, compared and recorded.

use super::{deliver, explain_stop, model, open_device, run_config, stem};
use crate::args::Demo;
use crate::files::{claim_run_dir, new_run_dir, print};
use crate::monitor::Monitor;
use crate::problem::Problem;
use crate::record::{ReferenceScores, Results};
use crate::report;
use crate::run::Run;
use crate::summary;
use anyhow::{Result, bail};
use std::path::{Path, PathBuf};
use std::time::Instant;
use tsn::dt::autograd::engine::Device;
use tsn::dt::config::Config;
use tsn::{Options, Strategy};

/// Steps per task: enough for full scores on the default suite. Measured with seed 0 only.
const STEPS: u64 = 150;
/// Windows in a batch.
const BATCH: u32 = 16;
/// Evaluation episodes per matrix entry.
const EPISODES: u64 = 5;

/// Runs the demo.
pub(crate) fn demo(args: &Demo) -> Result<()> {
    let begin = Instant::now();
    let learn = &args.learn;
    learn.output.check()?;
    let mut strategies: Vec<Strategy> = Vec::new();
    for strategy in &args.strategies {
        if strategies.contains(strategy) {
            bail!("--strategies names {} twice", strategy.name());
        }
        strategies.push(*strategy);
    }
    let device = open_device(&learn.place)?;
    let problem = Problem::generated(args.suite, learn.profile, learn.seed, learn.data_episodes)?;
    let config = model(&problem, learn)?;
    let episodes = learn.episodes.unwrap_or(EPISODES);
    let mut configs = Vec::new();
    for strategy in &strategies {
        configs.push(run_config(&problem, &config, &learn.options(*strategy, STEPS, BATCH), learn, episodes)?);
    }
    let first = learn.options(strategies[0], STEPS, BATCH);
    let parent = match &learn.out {
        Some(dir) => {
            claim_run_dir(dir)?;
            dir.clone()
        }
        None => new_run_dir(Path::new("runs"), &stem(args.suite.name(), "demo", &first))?,
    };
    if !learn.output.silent() {
        print(&heading(&problem, &config, &first, learn.data_episodes, &device))?;
    }

    let mut monitor = Monitor::new(&problem.stop, learn.checkpoint_every, learn.output.quiet)?;
    let mut runs: Vec<Run<'_>> = Vec::new();
    for (strategy, run_config) in strategies.iter().zip(configs) {
        let dir = new_run_dir(&parent, &stem(args.suite.name(), strategy.name(), &first))?;
        let mut run = Run::start(dir, run_config, &problem, &device)?;
        run.learn_all(&mut monitor).map_err(|e| explain_stop(e, &run.dir))?;
        run.write()?;
        runs.push(run);
    }
    let alone: Option<Vec<Option<f64>>> = match runs.iter().find(|r| r.config.settings.strategy == "single") {
        Some(run) => Some(diagonal(&run.results()?)),
        None => None,
    };
    if !learn.no_reference {
        let references = match runs.first_mut() {
            Some(run) => {
                run.references.single = alone.unwrap_or_default();
                run.learn_references(&device, &mut monitor).map_err(|e| explain_stop(e, &run.dir))?;
                run.references.clone()
            }
            None => ReferenceScores::default(),
        };
        runs.iter_mut().for_each(|run| run.references = references.clone());
    }
    let mut all = Vec::new();
    for run in &runs {
        run.write()?;
        all.push(run.results()?);
    }
    monitor.finish();

    let dirs: Vec<PathBuf> = runs.iter().map(|run| run.dir.clone()).collect();
    let page = report::write(&parent, &dirs)?;
    let wall_s = begin.elapsed().as_secs_f64();
    if !learn.output.silent() {
        for results in &all {
            print(&format!("{}\n", summary::strategy(results)))?;
        }
        let references = all.first().map(summary::references).unwrap_or_default();
        print(&format!("{references}{}", if references.is_empty() { "" } else { "\n" }))?;
        print(&summary::comparison(&all))?;
        print(&format!("\n{wall_s:.1} s; runs in {}, plots in {}\n", parent.display(), page.display()))?;
    }
    deliver(&all, wall_s, &parent, &learn.output)
}

fn diagonal(results: &Results) -> Vec<Option<f64>> {
    results.perf_matrix.iter().enumerate().map(|(i, row)| row[i]).collect()
}

/// What is about to be learned, in two lines.
pub(crate) fn heading(
    problem: &Problem,
    config: &Config,
    options: &Options,
    episodes: usize,
    device: &Device,
) -> String {
    let weights: usize = config.parameters().iter().map(|s| s.len()).sum();
    let data = match problem.data.source.as_str() {
        "generated" => format!("{episodes} generated episodes each"),
        _ => "data from files".to_owned(),
    };
    let kept = match options.strategy.is_masked() {
        true => format!("masks keep {} %", 100.0 * options.keep_ratio),
        false => "no masks".to_owned(),
    };
    format!(
        "{}: {} tasks, {data}; {} steps of {} windows per task, seed {}\n\
         model: {} blocks of width {}, {} weights; {kept}; {}\n\n",
        problem.suite,
        problem.tasks.len(),
        options.steps,
        options.batch,
        options.seed,
        config.layers,
        config.width,
        weights,
        device.describe(),
    )
}
