//! Times every op of one training step:
//! `cargo run --release -p tsn --example profile_step -- [threads|device] [keep] [cartpole|atari] [learned|fixed] [batch]`, the
//! fourth of the masks. With a device such as `wgpu` it also holds one submission for a step against one for each call; a
//! software driver wants a batch much smaller than the usual 64.
#![expect(clippy::print_stdout, reason = "a tool for the terminal")]

use dt::autograd::engine::{Device, Program};
use dt::autograd::{AdamW, Mask, Param, Select, Trainable};
use dt::config::{Action, Config, Observation, Role};
use std::error::Error;
use std::time::Instant;
use tsn::dt;

fn main() -> Result<(), Box<dyn Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let device = match args.first().map(|arg| (arg, arg.parse())) {
        None => Device::cpu(1),
        Some((_, Ok(threads))) => Device::cpu(threads),
        Some((name, Err(_))) => Device::open(name)?,
    };
    let keep: f64 = args.get(1).map_or(Ok(0.5), |a| a.parse())?;
    let image = args.get(2).is_some_and(|a| a == "atari");
    let config = match image {
        true => Config::new(Observation::Image { channels: 4, height: 84, width: 84 }, Action::Discrete(18)),
        false => Config::new(Observation::Vector(4), Action::Discrete(2)),
    };
    let fixed = args.get(3).is_some_and(|a| a == "fixed");
    let batch: u32 = args.get(4).map_or(Ok(64), |a| a.parse())?;
    let plan = dt::train::plan_step(&config, batch, &AdamW::default(), |spec| {
        let masked = keep < 1.0 && spec.role == Role::Maskable;
        Param {
            mask: match (masked, fixed) {
                (false, _) => Mask::Dense,
                (true, false) => Mask::Learned(Select::Any),
                (true, true) => Mask::Fixed,
            },
            trainable: if masked { Trainable::Free } else { Trainable::All },
            ..Param::new(spec.name.clone(), spec.rows, spec.cols, Mask::Dense, Trainable::All)
        }
    })?;
    let mut program = plan.bind(&device)?;
    let state = tsn::state::State::fresh(&config, 1, 0);
    state.load(&mut program)?;
    for spec in config.parameters().iter().filter(|s| keep < 1.0 && s.role == Role::Maskable) {
        let n = spec.len();
        let scores: Vec<f32> = (0..n).map(|i| ((i * 7919) % 10007) as f32 / 10007.0 - 0.5).collect();
        if fixed {
            // A multiplicative hash keeps the share everywhere; strides of the scores above would leave rows empty.
            let kept = (0..n as u32).map(|i| f64::from(i.wrapping_mul(0x9E37_79B9) >> 8) < keep * f64::from(1 << 24));
            let mask = dt::autograd::engine::kernels::BitMask::from_flags(spec.rows, spec.cols, kept);
            program.write(&format!("{}.mask", spec.name), mask.words())?;
        } else {
            program.write(&format!("{}.score", spec.name), &scores)?;
            program.write(&format!("{}.k", spec.name), &[tsn::claim::count(keep, n) as u32])?;
        }
        let free = dt::autograd::engine::kernels::BitMask::ones(spec.rows, spec.cols);
        program.write(&format!("{}.free", spec.name), free.words())?;
    }
    let rows = (batch * config.context) as usize;
    program.write("valid", &vec![1u8; 3 * rows])?;
    program.write("target", &vec![1u32; rows])?;
    program.write("allowed", &[(1u32 << config.action.outputs()) - 1])?;
    program.write("rng", &[1u32, 2, 3, 0])?;
    program.write("step", &dt::autograd::adamw_step(1e-4, 0.9, 0.999, 10))?;
    if !image {
        let obs: Vec<f32> = (0..rows * 4).map(|i| ((i * 31) % 17) as f32 / 17.0 - 0.5).collect();
        program.write("obs", &obs)?;
    }
    println!("{} calls, arenas {:?} MB", program.plan().len(), program.arena_bytes().map(|bytes| bytes >> 20));
    println!("{}", program.profile(if image { 3 } else { 8 })?);
    if !matches!(device, Device::Cpu(_)) {
        submissions(&mut program, if image { 3 } else { 9 })?;
    }
    Ok(())
}

/// Times a step as one submission and as one for each call, in turn.
fn submissions(program: &mut Program, rounds: usize) -> Result<(), Box<dyn Error>> {
    let mut times = [Vec::new(), Vec::new()];
    for _ in 0..rounds {
        for (times, run) in times.iter_mut().zip([Program::run, Program::run_apart]) {
            let begin = Instant::now();
            run(program)?;
            let submitted = begin.elapsed();
            program.wait()?;
            times.push((begin.elapsed(), submitted));
        }
    }
    for (name, times) in ["one submission", "one for each call"].iter().zip(&mut times) {
        times.sort();
        let ((step, submitted), [least, most]) = (times[rounds / 2], [times[0].0, times[rounds - 1].0]);
        println!("{name:<18} step {step:?} ({least:?} to {most:?}), of it on the host {submitted:?}");
    }
    Ok(())
}
