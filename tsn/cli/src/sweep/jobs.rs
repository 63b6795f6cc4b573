//! Runs cells of a grid as processes, a few at a time.

use super::grid::Cell;
use crate::files::{note, read_json};
use crate::record::Results;
use anyhow::{Context, Result};
use std::collections::VecDeque;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{available_parallelism, sleep};
use std::time::{Duration, Instant};

/// How often processes are looked after.
const TICK: Duration = Duration::from_millis(100);
/// How long a stopped run may take to write its checkpoint before it is killed.
const GRACE: Duration = Duration::from_secs(20);

/// What became of a cell.
#[derive(Clone, Debug)]
pub(super) enum Outcome {
    /// Its results are complete.
    Done,
    /// Its process failed.
    Failed {
        /// The line that tells it.
        why: String,
        /// It refused its input.
        refused: bool,
    },
    /// Not begun, or interrupted.
    Left,
}

/// Where and how cells run.
pub(super) struct Workers<'a> {
    jobs: usize,
    threads: usize,
    out: &'a Path,
    stop: Arc<AtomicBool>,
}

struct Job {
    cell: usize,
    child: Child,
    begin: Instant,
}

impl<'a> Workers<'a> {
    /// `jobs` processes at a time with `threads` workers each; 0 shares the cores out.
    pub(super) fn new(jobs: usize, threads: usize, out: &'a Path, stop: Arc<AtomicBool>) -> Workers<'a> {
        let cores = available_parallelism().map_or(1, usize::from);
        let jobs = if jobs == 0 { cores } else { jobs };
        let threads = if threads == 0 { (cores / jobs).max(1) } else { threads };
        Workers { jobs, threads, out, stop }
    }

    /// Runs every cell that is not complete; those that need another's scores wait for it.
    ///
    /// # Errors
    /// If a process cannot be started or looked after.
    pub(super) fn run(&self, cells: &[Cell]) -> Result<Vec<Outcome>> {
        let mut outcomes: Vec<Outcome> = cells.iter().map(|cell| self.found(cell)).collect();
        let complete = outcomes.iter().filter(|o| matches!(o, Outcome::Done)).count();
        if complete > 0 {
            note(&format!("{complete} of {} runs are complete already", cells.len()));
        }
        let open = (0..cells.len()).filter(|at| !matches!(outcomes[*at], Outcome::Done));
        let mut waiting: VecDeque<usize> = open.collect();
        let mut running: Vec<Job> = Vec::new();
        let result = self.drain(cells, &mut outcomes, &mut waiting, &mut running);
        self.end(running);
        result.map(|()| outcomes)
    }

    /// Starts and looks after runs until none is left or the sweep is to stop.
    fn drain(
        &self,
        cells: &[Cell],
        outcomes: &mut [Outcome],
        waiting: &mut VecDeque<usize>,
        running: &mut Vec<Job>,
    ) -> Result<()> {
        let mut begun = cells.len() - waiting.len();
        while !(running.is_empty() && waiting.is_empty()) {
            if self.stop.load(Ordering::Relaxed) {
                return Ok(());
            }
            while running.len() < self.jobs {
                let Some(place) = waiting.iter().position(|at| is_ready(&cells[*at], cells, outcomes)) else { break };
                let Some(at) = waiting.remove(place) else { break };
                running.push(Job { cell: at, child: self.start(&cells[at])?, begin: Instant::now() });
            }
            if running.is_empty() {
                // What is left waits for scores that will not come.
                for at in waiting.drain(..) {
                    let why = format!("its reference {} failed", cells[at].reference.as_deref().unwrap_or_default());
                    outcomes[at] = Outcome::Failed { why, refused: false };
                }
                break;
            }
            let mut at = 0;
            while at < running.len() {
                let Some(status) = running[at].child.try_wait().context("cannot look after a run")? else {
                    at += 1;
                    continue;
                };
                let job = running.remove(at);
                begun += 1;
                outcomes[job.cell] = self.ended(&cells[job.cell], status);
                tell(begun, cells, &job, &outcomes[job.cell]);
            }
            sleep(TICK);
        }
        Ok(())
    }

    fn dir(&self, cell: &Cell) -> PathBuf {
        self.out.join(&cell.name)
    }

    fn log(&self, cell: &Cell) -> PathBuf {
        self.out.join(format!("{}.log", cell.name))
    }

    /// What its directory says of a cell before the sweep.
    fn found(&self, cell: &Cell) -> Outcome {
        let results = read_json::<Results>(&self.dir(cell).join("results.json"));
        if results.is_ok_and(|r| r.complete) { Outcome::Done } else { Outcome::Left }
    }

    /// What a process left behind. A run that was told to stop is not failed.
    fn ended(&self, cell: &Cell, status: ExitStatus) -> Outcome {
        match self.found(cell) {
            Outcome::Left if !self.stop.load(Ordering::Relaxed) => {
                let text = fs::read_to_string(self.log(cell)).unwrap_or_default();
                // Of refused arguments the first line tells, and the last how to get help.
                let first = text.lines().find(|line| line.starts_with("error:"));
                let why = first.or_else(|| text.lines().rfind(|line| !line.trim().is_empty()));
                let why = why.unwrap_or("it said nothing").to_owned();
                Outcome::Failed { why, refused: status.code() == Some(2) }
            }
            outcome => outcome,
        }
    }

    fn start(&self, cell: &Cell) -> Result<Child> {
        let (dir, log) = (self.dir(cell), self.log(cell));
        let written = File::create(&log).with_context(|| format!("{}: cannot be written", log.display()))?;
        let mut command = Command::new(std::env::current_exe().context("cannot find this program")?);
        if dir.join("config.json").is_file() {
            command.arg("resume").arg(&dir).arg("--quiet");
        } else {
            // A process that died before its first file leaves a directory without one, which would be refused. What
            // is not empty is not ours to remove.
            for part in ["gen", "checkpoints", ""] {
                let _ = fs::remove_dir(dir.join(part));
            }
            command.args(cell.words(self.out));
        }
        command.arg("--threads").arg(self.threads.to_string()).stdin(Stdio::null()).stdout(Stdio::null());
        command.stderr(written).spawn().with_context(|| format!("{}: cannot start", cell.name))
    }

    /// Asks runs to stop, waits for them to write a checkpoint, and kills those that do not end. Runs survive that.
    fn end(&self, mut running: Vec<Job>) {
        for job in &running {
            // Ctrl-C reached them already; a signal to this process alone did not.
            let _ = Command::new("kill").arg("-TERM").arg(job.child.id().to_string()).stderr(Stdio::null()).status();
        }
        let begin = Instant::now();
        while !running.is_empty() && begin.elapsed() < GRACE {
            running.retain_mut(|job| matches!(job.child.try_wait(), Ok(None)));
            sleep(TICK);
        }
        for job in &mut running {
            // It may have ended in between; either way it is gone afterwards.
            let _ = job.child.kill();
            let _ = job.child.wait();
        }
    }
}

fn is_ready(cell: &Cell, cells: &[Cell], outcomes: &[Outcome]) -> bool {
    let needs = |name: &String| cells.iter().position(|other| other.name == *name);
    let reference = cell.reference.as_ref().and_then(needs);
    reference.is_none_or(|at| matches!(outcomes[at], Outcome::Done))
}

fn tell(begun: usize, cells: &[Cell], job: &Job, outcome: &Outcome) {
    let (name, seconds) = (&cells[job.cell].name, job.begin.elapsed().as_secs_f64());
    let end = match outcome {
        Outcome::Done => format!("done in {seconds:.1} s"),
        Outcome::Failed { why, .. } => format!("failed after {seconds:.1} s: {why}"),
        Outcome::Left => "stopped".to_owned(),
    };
    note(&format!("[{begun}/{}] {name}: {end}", cells.len()));
}
