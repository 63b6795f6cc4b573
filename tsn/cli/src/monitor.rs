//! What watches training: the progress line, checkpoints, and the signals that ask to stop.

use crate::checkpoint::{self, Owner};
use crate::events::{About, Events};
use anyhow::Result;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use tsn::{Event, Flow, Observer};

/// Longest time between two checkpoints.
const SAVE_AFTER: Duration = Duration::from_secs(30);

/// Sets `stop` once SIGINT or SIGTERM comes; a second signal ends the process at once.
pub(crate) fn stop_on_signals(stop: &Arc<AtomicBool>) -> Result<()> {
    for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM] {
        signal_hook::flag::register_conditional_shutdown(signal, 128 + signal, Arc::clone(stop))?;
        signal_hook::flag::register(signal, Arc::clone(stop))?;
    }
    Ok(())
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
    /// When this process began the task, and the seconds that others spent on it.
    begun: Instant,
    before: f64,
    events: Option<Curve>,
}

/// What becomes of a task's steps in the event file.
struct Curve {
    events: Events,
    about: About,
    /// Step 0 of the task.
    base: u64,
    /// Losses that lie in earlier points.
    told: usize,
    /// Steps and time since the last point.
    timed: (u64, Instant),
}

impl Curve {
    fn step(&mut self, step: u64, steps: u64, losses: &[f32], norm: f32, rate: f64) -> Result<(), tsn::Error> {
        self.timed.0 += 1;
        if !Events::is_due(step, steps) {
            return Ok(());
        }
        let new = &losses[self.told.min(losses.len())..];
        let loss = new.iter().map(|loss| f64::from(*loss)).sum::<f64>() / new.len().max(1) as f64;
        let step_ms = 1e3 * self.timed.1.elapsed().as_secs_f64() / self.timed.0 as f64;
        (self.told, self.timed) = (losses.len(), (0, Instant::now()));
        let values = [("loss", loss), ("grad_norm", f64::from(norm)), ("learning_rate", rate), ("step_ms", step_ms)];
        self.events.add(self.about, self.base + step, &values)
    }
}

impl Monitor {
    /// Watches, and listens to signals, which set `stop`; a checkpoint is made every `every` steps or 30 s.
    pub(crate) fn new(stop: &Arc<AtomicBool>, every: u64, quiet: bool) -> Result<Monitor> {
        stop_on_signals(stop)?;
        // Hidden by itself where stderr is no terminal.
        let bar = if quiet { ProgressBar::hidden() } else { ProgressBar::with_draw_target(None, line()) };
        let style = ProgressStyle::with_template("{prefix} [{bar:24}] {pos}/{len} {msg} ({elapsed})");
        bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
        let stop = Arc::clone(stop);
        let now = Instant::now();
        Ok(Monitor {
            losses: Vec::new(),
            stop,
            bar,
            every,
            target: None,
            saved: now,
            begun: now,
            before: 0.0,
            events: None,
        })
    }

    /// Begins a task: where its checkpoints go, and the losses and the time before an interruption.
    pub(crate) fn begin(&mut self, path: PathBuf, owner: Owner, losses: Vec<f32>, seconds: f64) {
        self.bar.set_prefix(format!("{} task {}", owner.strategy, owner.task + 1));
        (self.target, self.losses, self.saved) = (Some((path, owner)), losses, Instant::now());
        (self.begun, self.before) = (Instant::now(), seconds);
    }

    /// Draws the steps of the task that begins into an event file. `base` is their step 0, `steps` their number.
    pub(crate) fn draw(&mut self, events: Events, about: About, base: u64, steps: u64) {
        let told = (0..=self.losses.len()).rev().find(|step| Events::is_due(*step as u64, steps)).unwrap_or(0);
        self.events = Some(Curve { events, about, base, told, timed: (0, Instant::now()) });
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
            Event::Step { step, steps, loss, norm, rate, .. } => {
                self.losses.push(loss);
                if let Some(curve) = &mut self.events {
                    curve.step(step, steps, &self.losses, norm, rate)?;
                }
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
                    let seconds = self.before + self.begun.elapsed().as_secs_f64();
                    checkpoint::save(path, owner, checkpoint, &self.losses, seconds)?;
                }
                self.saved = Instant::now();
            }
            _ => {}
        }
        Ok(Flow::Continue)
    }
}
