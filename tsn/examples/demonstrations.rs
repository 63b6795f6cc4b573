//! Masks from a few demonstrations, leave one task out: every method against training from scratch and full data.
//!
//! ```text
//! cargo run --release -p tsn --example demonstrations -- SUITE STEPS BATCH WIDTH [HELD_OUT ...]
//! ```
//!
//! For each task held out (all, unless named) the others of the suite are learned in order, then the task is adapted to
//! from the first 1, 5 and 10 of its episodes. Scores are means of 10 episodes; `+new` is what tune-free claims.
#![expect(clippy::print_stdout, reason = "a tool for the terminal")]

use dt::autograd::engine::Device;
use dt::config::Config;
use dt::env::cartpole::Derived;
use std::error::Error;
use tsn::adapt::{Method, Pick, demonstrations};
use tsn::dt;
use tsn::state::State;
use tsn::suite::{Suite, config_for};
use tsn::{Bank, Learner, Options, Profile, Silent, Strategy, Task};

const DEMONSTRATIONS: [usize; 3] = [1, 5, 10];
/// Steps of methods that train, as the method's evaluation asks for.
const TUNE: [u64; 2] = [50, 500];
const EPISODES: u64 = 10;
const DATA_EPISODES: usize = 60;

type Outcome<T> = Result<T, Box<dyn Error>>;

struct Trial {
    suite: Suite,
    config: Config,
    options: Options,
}

fn main() -> Outcome<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let arg = |at: usize, default: &str| args.get(at).cloned().unwrap_or(default.to_owned());
    let suite = Suite::parse(&arg(0, "cartpole7"))?;
    let mut tasks = suite.generate(Derived::Refreshed, 0, DATA_EPISODES)?;
    let fitting = config_for(&mut tasks, Profile::Corrected)?;
    let config = Config { width: arg(3, "128").parse()?, ..fitting };
    let options = Options {
        steps: arg(1, "300").parse()?,
        batch: arg(2, "16").parse()?,
        ..Options::corrected(Strategy::TsnAffinity)
    };
    let trial = Trial { suite, config, options };
    println!(
        "| held out | n | retrieve | compose | tune 50 | 500 | tune-free 50 | 500 | +new | scratch 50 | 500 | full data |"
    );
    println!("|---|---|---|---|---|---|---|---|---|---|---|---|");
    let chosen = |name: &str| args.len() <= 4 || args[4..].iter().any(|held| held == name);
    for at in (0..tasks.len()).filter(|at| chosen(&tasks[*at].name)) {
        let mut learner = trial.learner(Bank::default(), trial.options.steps)?;
        for task in tasks.iter().enumerate().filter(|(other, _)| *other != at).map(|(_, task)| task) {
            learner.learn(task, None, &mut Silent)?;
        }
        let bank = learner.bank;
        let full = trial.scratch(trial.task(at)?, trial.options.steps)?;
        for n in DEMONSTRATIONS {
            let mut cells = vec![tasks[at].name.clone(), n.to_string()];
            for (method, steps) in [(Method::Retrieve, 0), (Method::Compose, 0)] {
                cells.push(format!("{:.0}", trial.adapt(&bank, at, n, method, steps)?.0));
            }
            for method in [Method::Tune, Method::TuneFree] {
                for steps in TUNE {
                    let (score, claimed) = trial.adapt(&bank, at, n, method, steps)?;
                    cells.push(format!("{score:.0}"));
                    if (method, steps) == (Method::TuneFree, TUNE[1]) {
                        cells.push(format!("{:.1} %", 100.0 * claimed));
                    }
                }
            }
            for steps in TUNE {
                let mut task = trial.task(at)?;
                demonstrations(&mut task, n, Pick::First)?;
                cells.push(format!("{:.0}", trial.scratch(task, steps)?));
            }
            cells.push(format!("{full:.0}"));
            println!("| {} |", cells.join(" | "));
        }
    }
    Ok(())
}

impl Trial {
    fn learner(&self, bank: Bank, steps: u64) -> Outcome<Learner> {
        let options = Options { steps, ..self.options.clone() };
        Ok(Learner::with(Device::cpu(1), self.config, options, bank)?)
    }

    /// A task of the suite, made anew: adapting takes most of its data away.
    fn task(&self, at: usize) -> Outcome<Task> {
        let mut tasks = self.suite.generate(Derived::Refreshed, 0, DATA_EPISODES)?;
        config_for(&mut tasks, Profile::Corrected)?;
        Ok(tasks.swap_remove(at))
    }

    /// Score after adapting, and the share of weights newly claimed.
    fn adapt(&self, bank: &Bank, at: usize, n: usize, method: Method, steps: u64) -> Outcome<(f64, f64)> {
        let mut learner = self.learner(bank.clone(), self.options.steps)?;
        let mut task = self.task(at)?;
        demonstrations(&mut task, n, Pick::First)?;
        let adapted = learner.adapt(&mut task, method, steps, &mut Silent)?;
        Ok((score(&mut learner, &task)?, adapted.report.newly_claimed))
    }

    /// Score of a task learned alone.
    fn scratch(&self, task: Task, steps: u64) -> Outcome<f64> {
        let mut learner = self.learner(Bank::default(), steps)?;
        learner.learn(&task, None, &mut Silent)?;
        score(&mut learner, &task)
    }
}

/// Mean score of the last task of a bank.
fn score(learner: &mut Learner, task: &Task) -> Outcome<f64> {
    let record = learner.bank.tasks.last().ok_or("the bank is empty")?;
    let state = State::of_task(&learner.bank, record);
    let seeds: Vec<u64> = (0..EPISODES).map(|e| task.seed + e).collect();
    let played = learner.evaluator().play(&state, task, &seeds)?;
    Ok(played.iter().map(|episode| episode.score).sum::<f64>() / played.len() as f64)
}
