//! One strategy on one list of tasks in one directory: learned, played and recorded so that it can be killed anywhere.
//!
//! Order of writes for task `i`: `gen/task_i.json`, then the bank that holds the task, then `results.json` with row `i`
//! of the matrix. So a bank never holds a task without its report, and a task whose row is missing is played again,
//! which gives the same numbers. Within a task, `checkpoints/step.safetensors` holds the last checkpoint.

use crate::checkpoint::{self, Earlier, Owner};
use crate::events::{About, Events, Progress};
use crate::files::{make_dir, note, open_bank, read_json, write_json};
use crate::monitor::Monitor;
use crate::problem::{Problem, constant_loss};
use crate::record::{ReferenceScores, Results, RunConfig, ScoreRow, TaskFile, log, task_path};
use anyhow::{Context, Result, bail};
use std::fs::{self, File, TryLockError};
use std::path::{Path, PathBuf};
use std::time::Instant;
use tsn::dt::autograd::engine::Device;
use tsn::sequence::{Played, random_score};
use tsn::state::State;
use tsn::{Bank, Learner, Options, Sequence, Strategy, Task};

mod outcome;

pub(crate) use outcome::{bytes, deployed_memory};

/// Points of a loss curve that are kept.
const CURVE: usize = 200;

/// A run and its directory.
pub(crate) struct Run<'t> {
    /// The directory.
    pub dir: PathBuf,
    /// What `config.json` says.
    pub config: RunConfig,
    /// Scores outside the matrix, as far as known.
    pub references: ReferenceScores,
    /// Reports of the learned tasks.
    pub files: Vec<TaskFile>,
    tasks: &'t [Task],
    sequence: Sequence<'t>,
    loss_matrix: Vec<Vec<Option<f64>>>,
    success_matrix: Vec<Vec<Option<f64>>>,
    episode_scores: Vec<Vec<Vec<Option<f64>>>>,
    end: Option<End>,
    wall_before: f64,
    begin: Instant,
    /// Held as long as this process works in the directory.
    _lock: Option<File>,
}

/// What is measured once all tasks are learned.
#[derive(Clone, Default)]
struct End {
    bit_identical: Option<bool>,
    loss: Vec<Option<f64>>,
    disagreement: Vec<Option<f64>>,
    disagreement_logged: Vec<Option<f64>>,
}

/// A task's held-out steps under a state.
struct HeldOut {
    loss: f64,
    logged: Option<f64>,
    controller: Option<f64>,
}

impl<'t> Run<'t> {
    /// Begins a run in a directory that exists and holds none.
    pub(crate) fn start(dir: PathBuf, config: RunConfig, problem: &'t Problem, device: &Device) -> Result<Run<'t>> {
        for part in ["gen", "checkpoints"] {
            make_dir(&dir.join(part))?;
        }
        let run = Run::with(dir, config, problem, device, Bank::default(), None, Vec::new())?;
        write_json(&run.dir.join("config.json"), &run.config)?;
        log(&run.dir, "start", &run.config.settings.strategy)?;
        Ok(Run { _lock: Some(lock(&run.dir)?), ..run })
    }

    /// Goes on with the run of a directory.
    ///
    /// # Errors
    /// If its files contradict each other or are damaged.
    pub(crate) fn resume(dir: PathBuf, config: RunConfig, problem: &'t Problem, device: &Device) -> Result<Run<'t>> {
        let lock = lock(&dir)?;
        let gone = |task: &&Task| task.environment.is_none() && config.played.contains(&task.name);
        if let Some(task) = problem.tasks.iter().find(gone) {
            bail!(
                "task \"{}\" is played in this run and cannot be now: name the Python with its simulator by --python \
                 (see tsn-affinity doctor)",
                task.name
            );
        }
        for part in ["gen", "checkpoints"] {
            make_dir(&dir.join(part))?;
        }
        for part in ["", "gen", "checkpoints"] {
            remove_leftovers(&dir.join(part))?;
        }
        let (bank_path, results_path) = (dir.join("bank.safetensors"), dir.join("results.json"));
        let bank = if bank_path.exists() { open_bank(&bank_path)? } else { Bank::default() };
        if !bank.tasks.is_empty() && bank.config_hash() != config.config_hash {
            bail!("{}: the bank belongs to a run with other settings", bank_path.display());
        }
        let results: Option<Results> = results_path.exists().then(|| read_json(&results_path)).transpose()?;
        let (learned, played) = (bank.tasks.len(), results.as_ref().map_or(0, |r| r.perf_matrix.len()));
        if learned > problem.tasks.len() || !(played == learned || played + 1 == learned) {
            bail!(
                "{}: results.json has {played} rows but the bank holds {learned} tasks; restore both files or start a new run",
                dir.display()
            );
        }
        let files: Result<Vec<TaskFile>> = (0..learned).map(|number| read_json(&task_path(&dir, number))).collect();
        let files = files?;
        for (record, file) in bank.tasks.iter().zip(&files) {
            if record.name != file.name {
                bail!("{}: the report of task \"{}\" is of \"{}\"", dir.display(), record.name, file.name);
            }
        }
        let run = Run::with(dir, config, problem, device, bank, results, files)?;
        Ok(Run { _lock: Some(lock), ..run })
    }

    fn with(
        dir: PathBuf,
        config: RunConfig,
        problem: &'t Problem,
        device: &Device,
        mut bank: Bank,
        results: Option<Results>,
        files: Vec<TaskFile>,
    ) -> Result<Run<'t>> {
        bank.config = config.settings.flat()?;
        let options = config.settings.options()?;
        let learner = Learner::with(device.clone(), config.settings.config()?, options, bank)?;
        let (mut matrix, mut loss_matrix, mut success_matrix) = (Vec::new(), Vec::new(), Vec::new());
        let mut episode_scores = Vec::new();
        let (mut references, mut wall_before) = (ReferenceScores::default(), 0.0);
        if let Some(results) = results {
            let n = problem.tasks.len();
            if results.perf_matrix.iter().any(|row| row.len() != n) {
                bail!("{}: results.json: expected rows of {n} scores", dir.display());
            }
            let known = |row: &Vec<Option<f64>>| row.iter().map(|s| s.unwrap_or(f64::NAN)).collect();
            matrix = results.perf_matrix.iter().map(known).collect();
            loss_matrix = results.loss_matrix;
            success_matrix = results.success_matrix;
            success_matrix.resize(matrix.len(), vec![None; n]);
            episode_scores = results.episode_scores;
            episode_scores.resize(matrix.len(), vec![Vec::new(); n]);
            references = results.references;
            // A file without success rates has none, for as many tasks as it has scores.
            references.success.random.resize(references.random.len(), None);
            references.success.untrained.resize(references.untrained.len(), None);
            references.success.single.resize(references.single.len(), None);
            wall_before = results.wall_s;
        }
        let reports = files.iter().map(TaskFile::report).collect();
        let sequence = Sequence::new(learner, &problem.tasks, config.settings.episodes, matrix, reports);
        let (tasks, begin, end) = (&problem.tasks[..], Instant::now(), None);
        Ok(Run {
            dir,
            config,
            references,
            files,
            tasks,
            sequence,
            loss_matrix,
            success_matrix,
            episode_scores,
            end,
            wall_before,
            begin,
            _lock: None,
        })
    }

    /// Learns and plays what is left.
    ///
    /// # Errors
    /// [`tsn::Error::Stopped`] after a signal; the run can then be resumed.
    pub(crate) fn learn_all(&mut self, monitor: &mut Monitor) -> Result<()> {
        while self.sequence.matrix.len() < self.tasks.len() {
            if self.sequence.matrix.len() < self.files.len() {
                self.play_row(monitor)?;
            } else {
                self.learn_next(monitor)?;
            }
        }
        monitor.say("measuring");
        self.end = Some(self.measure_end()?);
        Ok(())
    }

    fn learn_next(&mut self, monitor: &mut Monitor) -> Result<()> {
        let number = self.files.len();
        let task = &self.tasks[number];
        let path = self.dir.join("checkpoints").join("step.safetensors");
        let owner = Owner {
            strategy: self.config.settings.strategy.clone(),
            task: number,
            config_hash: self.config.config_hash.clone(),
        };
        let earlier = open_checkpoint(&path, &owner, &task.name);
        let (resume, before) = (earlier.checkpoint, earlier.seconds);
        let events = self.events(About::Train, earlier.losses.len() as u64)?;
        monitor.begin(path.clone(), owner, earlier.losses, before);
        monitor.draw(events, About::Train, number as u64 * self.config.settings.steps, self.config.settings.steps);
        let learner = &mut self.sequence.learner;
        let company = learner.options.strategy.company(self.tasks, number);
        let report = learner.learn_among(task, &company, resume, monitor)?;

        monitor.say("measuring");
        let held_out = self.held_out(number)?;
        let file = TaskFile {
            number,
            name: task.name.clone(),
            copy: report.route.copy,
            source: report.route.source,
            created: report.route.created,
            warm_start: report.warm_started,
            density: report.density,
            newly_claimed: report.newly_claimed,
            occupied: report.occupied,
            own_loss: report.own_loss,
            held_out_loss: held_out.loss,
            constant_loss: constant_loss(task),
            disagreement_logged: held_out.logged,
            disagreement: held_out.controller,
            loss_ends: ends(&monitor.losses),
            losses: curve(&monitor.losses),
            time_s: before + report.time_s,
            fingerprint: report.fingerprint.clone(),
            scores: report.route.scores.iter().map(ScoreRow::new).collect(),
        };
        write_json(&task_path(&self.dir, number), &file)?;
        let bank = &mut self.sequence.learner.bank;
        // The next bank names this one as its parent, also if it is opened again in between.
        bank.parent = Some(bank.save(&self.dir.join("bank.safetensors"))?);
        log(&self.dir, "learned", &task.name)?;
        remove(&path)?;
        self.sequence.reports.push(file.report());
        self.files.push(file);
        Ok(())
    }

    fn play_row(&mut self, monitor: &mut Monitor) -> Result<()> {
        let after = self.sequence.matrix.len();
        let (mut row, mut success, mut episodes) = (Vec::new(), Vec::new(), Vec::new());
        for (on, task) in self.tasks.iter().enumerate() {
            monitor.say(&format!("playing {}", task.name));
            let steps = self.config.settings.steps;
            let played = or_stopped(self.sequence.play(on), monitor, &self.tasks[after], steps)?;
            row.push(played.score);
            success.push(played.success);
            episodes.push(played.scores.into_iter().map(known).collect());
        }
        if self.tasks.iter().any(|t| t.environment.is_none()) {
            let losses: Result<Vec<Option<f64>>> = (0..=after).map(|on| Ok(Some(self.held_out(on)?.loss))).collect();
            self.loss_matrix.push(losses?);
        }
        self.draw_row(&row, &success)?;
        self.sequence.matrix.push(row);
        self.success_matrix.push(success);
        self.episode_scores.push(episodes);
        self.write()?;
        log(&self.dir, "played", &self.tasks[after].name)
    }

    /// The event file, with what the run has got to; `steps` belong to the task that is being learned.
    fn events(&self, about: About, steps: u64) -> Result<Events> {
        let task = self.config.settings.steps;
        let of = |tasks: usize, here: About| tasks as u64 * task + if about == here { steps } else { 0 };
        let progress = Progress {
            train: of(self.files.len(), About::Train),
            reference: of(self.references.single.len(), About::Reference),
            after: of(self.sequence.matrix.len(), About::After),
        };
        Ok(Events::open(&self.dir, progress)?)
    }

    /// Draws what was measured after the last learned task. This comes before the results say so: what is drawn twice is
    /// seen and removed, what is not drawn would be missing.
    fn draw_row(&self, row: &[f64], success: &[Option<f64>]) -> Result<()> {
        let (Some(file), step) = (self.files.last(), self.files.len() as u64 * self.config.settings.steps) else {
            return Ok(());
        };
        let mut values = vec![
            ("density".to_owned(), file.density),
            ("newly_claimed".to_owned(), file.newly_claimed),
            ("occupied".to_owned(), file.occupied),
            ("held_out_loss".to_owned(), file.held_out_loss),
        ];
        for ((task, score), success) in self.tasks.iter().zip(row).zip(success) {
            values.extend(known(*score).map(|score| (format!("score/{}", task.name), score)));
            values.extend(success.map(|rate| (format!("success/{}", task.name), rate)));
        }
        let values: Vec<(&str, f64)> = values.iter().map(|(tag, value)| (tag.as_str(), *value)).collect();
        Ok(self.events(About::After, 0)?.add(About::After, step, &values)?)
    }

    fn held_out(&mut self, number: usize) -> Result<HeldOut> {
        let learner = &mut self.sequence.learner;
        let state = State::of_task(&learner.bank, &learner.bank.tasks[number]);
        let (config, options) = (learner.config, learner.options.clone());
        let (task, evaluator) = (&self.tasks[number], learner.evaluator());
        let sampler = task.held_out(&config, &options, evaluator.batch())?;
        let measured = evaluator.held_out(&state, &sampler)?;
        let controller = evaluator.controller_disagreement(&state, task, &sampler)?;
        Ok(HeldOut { loss: measured.loss, logged: known(measured.disagreement), controller })
    }

    fn measure_end(&mut self) -> Result<End> {
        let mut end = End::default();
        if self.sequence.learner.options.strategy.is_masked() {
            end.bit_identical = Some(self.sequence.unchanged()?.into_iter().all(|same| same));
        }
        for number in 0..self.tasks.len() {
            let held_out = self.held_out(number)?;
            end.loss.push(known(held_out.loss));
            end.disagreement.push(held_out.controller);
            end.disagreement_logged.push(held_out.logged);
        }
        Ok(end)
    }

    /// Scores of random actions, of an untrained model and of a dense model per task; what is known already is kept.
    ///
    /// # Errors
    /// [`tsn::Error::Stopped`] after a signal.
    pub(crate) fn learn_references(&mut self, device: &Device, monitor: &mut Monitor) -> Result<()> {
        let settings = &self.config.settings;
        let (config, episodes) = (settings.config()?, settings.episodes);
        let options = Options { strategy: Strategy::Single, ..settings.options()? };
        let (seed, steps) = (options.seed, options.steps);
        // Every task gets a model and random streams of its own, so that any of them can be made alone.
        let fresh = || Learner::new(device.clone(), config, options.clone());
        if self.references.untrained.len() != self.tasks.len() {
            monitor.say("playing at random");
            let random: Result<Vec<Played>, tsn::Error> =
                self.tasks.iter().map(|task| random_score(task, seed, episodes)).collect();
            let random = or_stopped(random, monitor, &self.tasks[0], steps)?;
            let untrained = Sequence::untrained(&mut fresh()?, self.tasks, episodes);
            let untrained = or_stopped(untrained, monitor, &self.tasks[0], steps)?;
            let scores = |played: &[Played]| played.iter().map(|p| known(p.score)).collect();
            let success = |played: &[Played]| played.iter().map(|p| p.success).collect();
            self.references.random = scores(&random);
            self.references.untrained = scores(&untrained);
            self.references.success.random = success(&random);
            self.references.success.untrained = success(&untrained);
        }
        while let Some(task) = self.tasks.get(self.references.single.len()) {
            let number = self.references.single.len();
            let played = if task.environment.is_some() {
                let path = self.dir.join("checkpoints").join("reference.safetensors");
                let strategy = "single".to_owned();
                let owner = Owner { strategy, task: number, config_hash: self.config.config_hash.clone() };
                let earlier = open_checkpoint(&path, &owner, &task.name);
                let events = self.events(About::Reference, earlier.losses.len() as u64)?;
                monitor.begin(path.clone(), owner, earlier.losses, earlier.seconds);
                monitor.draw(events, About::Reference, number as u64 * steps, steps);
                let mut learner = fresh()?;
                learner.learn(task, earlier.checkpoint, monitor)?;
                monitor.say(&format!("playing {}", task.name));
                let mut alone = Sequence::new(learner, std::slice::from_ref(task), episodes, Vec::new(), Vec::new());
                let played = or_stopped(alone.play(0), monitor, task, steps)?;
                remove(&path)?;
                played
            } else {
                Played::UNKNOWN
            };
            self.references.single.push(known(played.score));
            self.references.success.single.push(played.success);
            self.write()?;
            log(&self.dir, "reference", &task.name)?;
        }
        Ok(())
    }
}

/// What was played; if it failed after the user asked to stop, it is that which ended it.
fn or_stopped<T>(played: Result<T, tsn::Error>, monitor: &Monitor, task: &Task, step: u64) -> Result<T, tsn::Error> {
    played.map_err(|error| match monitor.stopped() {
        true => tsn::Error::Stopped { task: task.name.clone(), step },
        false => error,
    })
}

/// The checkpoint to go on from, if there is a good one of this task.
fn open_checkpoint(path: &Path, owner: &Owner, task: &str) -> Earlier {
    if !path.exists() {
        return Earlier::default();
    }
    match checkpoint::load(path, owner) {
        Ok(earlier) => {
            note(&format!("going on with task \"{task}\" after step {}", earlier.losses.len()));
            earlier
        }
        Err(why) => {
            note(&format!("task \"{task}\" starts over: no checkpoint of it ({why})"));
            Earlier::default()
        }
    }
}

/// Keeps other processes out of a run; where files cannot be locked, nobody is.
fn lock(dir: &Path) -> Result<File> {
    let path = dir.join("config.json");
    let file = File::open(&path).with_context(|| path.display().to_string())?;
    match file.try_lock() {
        Err(TryLockError::WouldBlock) => bail!("{}: another process works on this run", dir.display()),
        _ => Ok(file),
    }
}

fn remove(path: &Path) -> Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot remove {}", path.display()))
        }
        _ => Ok(()),
    }
}

/// Removes temporary files of a process that was killed while it wrote.
fn remove_leftovers(dir: &Path) -> Result<()> {
    for entry in fs::read_dir(dir).with_context(|| format!("cannot list {}", dir.display()))? {
        let path = entry.with_context(|| format!("cannot list {}", dir.display()))?.path();
        if path.extension().is_some_and(|e| e == "tmp") && path.is_file() {
            remove(&path)?;
        }
    }
    Ok(())
}

fn known(value: f64) -> Option<f64> {
    (!value.is_nan()).then_some(value)
}

/// Mean of the first and of the last tenth.
fn ends(losses: &[f32]) -> [f64; 2] {
    let n = (losses.len() / 10).max(1).min(losses.len());
    let mean = |part: &[f32]| part.iter().map(|l| f64::from(*l)).sum::<f64>() / part.len().max(1) as f64;
    [mean(&losses[..n]), mean(&losses[losses.len() - n..])]
}

/// Up to [`CURVE`] points `(step, mean loss since the last point)`.
fn curve(losses: &[f32]) -> Vec<(u64, f32)> {
    let every = losses.len().div_ceil(CURVE).max(1);
    let mean = |part: &[f32]| part.iter().sum::<f32>() / part.len() as f32;
    losses.chunks(every).enumerate().map(|(i, part)| ((i * every + part.len()) as u64, mean(part))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn curves_end_at_the_last_step() {
        let losses: Vec<f32> = (0..501).map(|i| i as f32).collect();
        let points = curve(&losses);
        assert_eq!((points.len(), points[0], points[166]), (167, (3, 1.0), (501, 499.0)));
        assert_eq!(curve(&[]), []);
        assert_eq!(ends(&losses), [24.5, 475.5]);
    }
}
