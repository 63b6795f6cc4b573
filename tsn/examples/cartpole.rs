//! Learns a CartPole suite with one strategy and prints the score matrix.
//!
//! `cargo run --release -p tsn --example cartpole -- [suite] [strategy] [steps] [batch] [lr] [keep] [seed]`
#![expect(clippy::print_stdout, reason = "a tool for the terminal")]

use dt::autograd::engine::Device;
use dt::env::cartpole::Derived;
use std::error::Error;
use tsn::dt;
use tsn::suite::{Suite, config_for};
use tsn::{Event, Flow, Learner, Observer, Options, Profile, Sequence, Strategy};

struct Print;

impl Observer for Print {
    fn event(&mut self, event: Event<'_>) -> Result<Flow, tsn::Error> {
        if let Event::Step { step, steps, loss, norm, .. } = event
            && step % (steps / 4).max(1) == 0
        {
            eprintln!("  step {step}/{steps} loss {loss:.4} norm {norm:.3}");
        }
        Ok(Flow::Continue)
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let arg = |at: usize, default: &str| args.get(at).cloned().unwrap_or(default.to_owned());
    let suite = Suite::parse(&arg(0, "demo"))?;
    let mut tasks = suite.generate(Derived::Refreshed, arg(6, "0").parse()?, 60)?;
    let config = config_for(&mut tasks, Profile::Corrected)?;
    let mut options = Options::corrected(Strategy::parse(&arg(1, "tsn_affinity"))?);
    options.steps = arg(2, "150").parse()?;
    options.batch = arg(3, "16").parse()?;
    options.lr = arg(4, "2e-3").parse()?;
    options.keep_ratio = arg(5, "0.08").parse()?;
    options.seed = arg(6, "0").parse()?;
    let learner = Learner::new(Device::open("cpu")?, config, options)?;
    let mut sequence = Sequence::new(learner, &tasks, 10, Vec::new(), Vec::new());
    loop {
        let begin = std::time::Instant::now();
        let Some(report) = sequence.next(None, &mut Print)? else { break };
        let (learn, number) = (report.time_s, report.number);
        println!(
            "{:<18} source {:?} warm {} density {:.4} claimed {:.4} occupied {:.3} loss {:?} own {:.4} learn {learn:.1} s play {:.1} s",
            report.name,
            report.route.source,
            report.warm_started,
            report.density,
            report.newly_claimed,
            report.occupied,
            report.losses,
            report.own_loss,
            begin.elapsed().as_secs_f64() - learn
        );
        for row in &report.route.scores {
            println!(
                "  from task {}: A {:?} A/chance {:?} L {:?}",
                row.candidate.task, row.candidate.action, row.chance_ratio, row.candidate.latent
            );
        }
        println!("  {:?}", sequence.matrix[number]);
        let record = sequence.learner.bank.tasks[number].clone();
        let state = tsn::state::State::of_task(&sequence.learner.bank, &record);
        let (config, options) = (sequence.learner.config, sequence.learner.options.clone());
        let evaluator = sequence.learner.evaluator();
        let sampler = tasks[number].held_out(&config, &options, evaluator.batch())?;
        println!(
            "  disagreement with the controller {:?}",
            evaluator.controller_disagreement(&state, &tasks[number], &sampler)?
        );
    }
    println!("unchanged: {:?}", sequence.unchanged()?);
    Ok(())
}
