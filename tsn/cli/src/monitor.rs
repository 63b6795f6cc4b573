//! What watches training: the progress line, checkpoints, and the signals that ask to stop.

use crate::checkpoint::{self, Owner};
use anyhow::Result;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use tsn::{Event, Flow, Observer};

/// Longest time between two checkpoints.
const SAVE_AFTER: Duration = Duration::from_secs(30);

/// Set once SIGINT or SIGTERM came; a second signal ends the process at once.
pub(crate) fn stop_on_signals() -> Result<Arc<AtomicBool>> {
    let stop = Arc::new(AtomicBool::new(false));
    for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM] {
        signal_hook::flag::register_conditional_shutdown(signal, 128 + signal, Arc::clone(&stop))?;
        signal_hook::flag::register(signal, Arc::clone(&stop))?;
    }
    Ok(stop)
}

/// Observes the training of one task after another.
pub(crate) struct Monitor {
    /// Losses of the task's steps so far, those before an interruption included.
    pub losses: Vec<f32>,
    stop: Arc<AtomicBool>,
    bar: ProgressBar,
    every: u64,
    target: Option<(PathBuf, Owner)>,
    saved: Instant,
}

impl Monitor {
    /// Watches; a checkpoint is made every `every` steps or 30 s.
    pub(crate) fn new(stop: Arc<AtomicBool>, every: u64, quiet: bool) -> Monitor {
        // Hidden by itself where stderr is no terminal.
        let bar = if quiet { ProgressBar::hidden() } else { ProgressBar::with_draw_target(None, line()) };
        let style = ProgressStyle::with_template("{prefix} [{bar:24}] {pos}/{len} {msg} ({elapsed})");
        bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
        Monitor { losses: Vec::new(), stop, bar, every, target: None, saved: Instant::now() }
    }

    /// Begins a task: where its checkpoints go, and the losses before an interruption.
    pub(crate) fn begin(&mut self, path: PathBuf, owner: Owner, losses: Vec<f32>) {
        self.bar.set_prefix(format!("{} task {}", owner.strategy, owner.task + 1));
        (self.target, self.losses, self.saved) = (Some((path, owner)), losses, Instant::now());
    }

    /// Says what is being done besides steps.
    pub(crate) fn say(&self, what: &str) {
        self.bar.set_message(what.to_owned());
    }

    /// True once the user asked to stop.
    pub(crate) fn stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    /// Removes the progress line.
    pub(crate) fn finish(&self) {
        self.bar.finish_and_clear();
    }
}

fn line() -> ProgressDrawTarget {
    ProgressDrawTarget::stderr_with_hz(5)
}

impl Observer for Monitor {
    fn event(&mut self, event: Event<'_>) -> Result<Flow, tsn::Error> {
        match event {
            Event::Step { step, steps, loss, .. } => {
                self.losses.push(loss);
                self.bar.set_length(steps);
                self.bar.set_position(step);
                self.bar.set_message(format!("loss {loss:.3}"));
                let due = step % self.every == 0 || self.saved.elapsed() >= SAVE_AFTER;
                return Ok(match (self.stopped(), due) {
                    (true, _) => Flow::Stop,
                    (false, true) => Flow::Save,
                    (false, false) => Flow::Continue,
                });
            }
            Event::Checkpoint(checkpoint) => {
                if let Some((path, owner)) = &self.target {
                    checkpoint::save(path, owner, checkpoint, &self.losses)?;
                }
                self.saved = Instant::now();
            }
            _ => {}
        }
        Ok(Flow::Continue)
    }
}
