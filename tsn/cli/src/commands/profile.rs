//! Times kernels after holding them against f64.

use super::Negative;
use crate::files::{check_outputs, print, write_output};
use crate::monitor::stop_on_signals;
use crate::profile::case::{Case, Made};
use crate::profile::ceilings::{Ceilings, sweep_bytes};
use crate::profile::expand::{cases, find_op};
use crate::profile::fingerprint::{Caches, Fingerprint, caches, clock_mhz};
use crate::profile::flags::{CacheArg, ProfileArgs};
#[cfg(feature = "gpu")]
use crate::profile::gpu::{self, Single};
#[cfg(feature = "gpu")]
use crate::profile::gpu_ceilings;
use crate::profile::kernel::{self, Kernel};
#[cfg(feature = "gpu")]
use crate::profile::measure::Samples;
use crate::profile::measure::{self, Cache, Spans};
use crate::profile::row::{About, Manner, Outcome, id};
use crate::profile::steps::{Step, manner};
use crate::profile::suites::{Entry, Goal, Job};
use crate::profile::verify::{Checked, verify};
use crate::profile::{ops, output, roofline};
use anyhow::{Result, bail};
use indicatif::{ProgressBar, ProgressStyle};
use std::fmt::Write as _;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tsn::dt::autograd::engine::Device;
use tsn::dt::autograd::engine::kernels::contract::Variant;
use tsn::dt::autograd::engine::kernels::{OPS, Pool, Repeat};

/// How long each ceiling is measured.
const CEILING_SPAN: Duration = Duration::from_millis(20);

/// Runs the command.
pub(crate) fn profile(args: &ProfileArgs) -> Result<()> {
    if args.list {
        return print(&list(&args.op)?);
    }
    check_outputs(&[
        ("--json", args.output.json.as_deref()),
        ("--csv", args.output.csv.as_deref()),
        ("--html", args.html.as_deref()),
    ])?;
    let device = Device::open(&args.device)?;
    #[cfg(feature = "gpu")]
    if !matches!(device, Device::Cpu(_)) {
        gpu::suits(args, &device)?;
    }
    let mut entries = match args.suite {
        Some(_) if !args.letters.0.is_empty() => bail!("a suite has its own sizes: leave out the letters"),
        Some(suite) => suite.entries(args.seed)?,
        None => cases(args)?.into_iter().map(|case| (Job::Call(case), None)).collect(),
    };
    if let Some(table) = args.tuning.table()? {
        let crossover = table.crossover()?;
        entries = entries.into_iter().map(|(job, goal)| (job.tuned(crossover.clone()), goal)).collect();
    }
    if !args.filter.is_empty() {
        entries.retain(|(job, _)| args.filter.iter().any(|text| job.name().contains(text)));
        if entries.is_empty() {
            bail!("--filter {} leaves no case", args.filter.join(","));
        }
    }
    // A variant that does not exist is said before anything is measured.
    for (job, _) in &entries {
        if let Job::Call(case) = job {
            kernel::names(case, &device, args.variant.as_deref())?;
        }
    }
    if args.once {
        return once(args, &entries, &device);
    }
    let found = caches();
    let mut bench = Bench {
        spans: Spans {
            warm_up: Duration::from_millis(args.warm_up_ms),
            measure: Duration::from_millis(args.measure_ms),
        },
        caches: match args.cache {
            CacheArg::Warm => &[Cache::Warm],
            CacheArg::Cold => &[Cache::Cold],
            CacheArg::Both => &[Cache::Warm, Cache::Cold],
        },
        fresh: args.fresh,
        variant: args.variant.as_deref(),
        device,
        buffer: vec![1.0; (sweep_bytes(&found) / 4) as usize],
        ceilings: Vec::new(),
        outcomes: Vec::new(),
        impossible: Vec::new(),
    };
    bench.find_ceilings(&found, args)?;
    let bar = progress(entries.len(), args.output.quiet);
    let stop = Arc::default();
    stop_on_signals(&stop)?;
    let mut left = entries.len();
    for (job, goal) in &entries {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        left -= 1;
        let first = bench.outcomes.len();
        match job {
            Job::Call(case) => bench.case(case),
            Job::Step(step) => bench.step(step),
        }
        // Goals are stated for a CPU.
        if let (Some(goal), Device::Cpu(_)) = (goal, &bench.device) {
            bench.judge(first, *goal);
        }
        bar.inc(1);
    }
    bar.finish_and_clear();
    let fingerprint =
        Fingerprint::new(found, sweep_bytes(&found), bench.ceilings, args.tuning.tune.as_deref(), &bench.device);
    let delivered = deliver(args, &fingerprint, &bench.outcomes);
    if let Some(why) = bench.impossible.first().filter(|_| bench.impossible.len() == entries.len()) {
        // Nothing was measured, so there is no negative result either.
        bail!("no case is possible: {why}");
    }
    delivered?;
    match left {
        0 => Ok(()),
        n => Err(Negative(format!("stopped with {n} of {} cases left", entries.len())).into()),
    }
}

/// A line on a terminal.
fn progress(cases: usize, quiet: bool) -> ProgressBar {
    let bar = if quiet { ProgressBar::hidden() } else { ProgressBar::new(cases as u64) };
    let style = ProgressStyle::with_template("profile [{bar:24}] {pos}/{len} ({elapsed})");
    bar.with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
}

/// Worker counts asked for; 0 is one per core.
fn workers(args: &ProfileArgs) -> Vec<usize> {
    let cores = std::thread::available_parallelism().map_or(1, |n| n.get());
    args.threads.iter().map(|n| if *n == 0 { cores } else { *n }).collect()
}

/// What all cases share, and their results so far.
struct Bench<'a> {
    spans: Spans,
    caches: &'static [Cache],
    fresh: bool,
    variant: Option<&'a str>,
    device: Device,
    buffer: Vec<f32>,
    ceilings: Vec<Ceilings>,
    outcomes: Vec<Outcome>,
    /// Why calls cannot be made at all: sizes that do not fit together, or too much memory.
    impossible: Vec<String>,
}

impl Bench<'_> {
    fn find_ceilings(&mut self, caches: &Caches, args: &ProfileArgs) -> Result<()> {
        match &self.device {
            Device::Cpu(_) => {
                for threads in workers(args) {
                    self.ceilings.push(Ceilings::measure(threads, caches, &mut self.buffer, CEILING_SPAN));
                }
            }
            #[cfg(feature = "gpu")]
            gpu => self.ceilings.push(gpu_ceilings::measure(gpu, CEILING_SPAN)?),
        }
        Ok(())
    }

    /// Checks and times every variant of a case on every number of workers.
    fn case(&mut self, case: &Case) {
        let made = match case.make() {
            Ok(made) => made,
            Err(why) => {
                self.cannot(case, &why);
                self.impossible.push(why);
                return;
            }
        };
        match kernel::kernels(case, &made, &self.device, self.variant) {
            Ok(kernels) => {
                for kernel in kernels {
                    (0..self.ceilings.len()).for_each(|at| self.one(case, &made, &kernel, at));
                }
            }
            Err(why) => self.cannot(case, &why),
        }
    }

    /// A failed row for every variant asked for.
    fn cannot(&mut self, case: &Case, why: &str) {
        let manner = self.manner(0, self.caches[0]);
        let names = kernel::names(case, &self.device, self.variant).unwrap_or_default();
        self.outcomes.extend(names.iter().map(|name| Outcome::failed(id(case, name, manner), why.to_owned())));
    }

    /// How calls are made on the workers of a ceiling.
    fn manner(&self, at: usize, cache: Cache) -> Manner {
        Manner { backend: kernel::backend(&self.device), threads: self.ceilings[at].threads, cache, fresh: self.fresh }
    }

    fn one(&mut self, case: &Case, made: &Made, kernel: &Kernel, at: usize) {
        let threads = self.ceilings[at].threads;
        let checked = match verify(case, made, kernel, &Pool::new(threads)) {
            Ok(checked) => checked,
            Err(why) => {
                let id = id(case, kernel.name(), self.manner(at, self.caches[0]));
                return self.outcomes.push(Outcome::failed(id, format!("wrong result: {why}")));
            }
        };
        match kernel {
            Kernel::Cpu(variant) => self.on_cpu(case, made, variant, at, &checked),
            #[cfg(feature = "gpu")]
            Kernel::Gpu(gpu, variant) => self.on_gpu(case, made, (gpu, variant), at, &checked),
        }
    }

    /// Times a call by the GPU's clock for every state of the caches.
    #[cfg(feature = "gpu")]
    fn on_gpu(
        &mut self,
        case: &Case,
        made: &Made,
        (gpu, variant): (&Device, &'static str),
        at: usize,
        checked: &Checked,
    ) {
        for &cache in self.caches {
            let manner = self.manner(at, cache);
            let before = gpu::clock_mhz(gpu);
            let _named = gpu::range(gpu, &id(case, variant, manner));
            let outcome = match self.samples_on_gpu(made, gpu, variant, cache) {
                Ok(samples) => {
                    let about = About::call(case, made, variant, manner, None);
                    let clocks = [before, gpu::clock_mhz(gpu)];
                    Outcome::new(about, checked.clone(), samples, clocks, &self.ceilings[at])
                }
                Err(why) => Outcome::failed(id(case, variant, manner), format!("{why:#}")),
            };
            self.outcomes.push(outcome);
        }
    }

    #[cfg(feature = "gpu")]
    fn samples_on_gpu(&self, made: &Made, gpu: &Device, variant: &str, cache: Cache) -> Result<Samples> {
        let mut call = Single::new(&made.trial, gpu, variant).map_err(anyhow::Error::msg)?;
        let mut displace = match cache {
            Cache::Warm => None,
            Cache::Cold => Some(gpu_ceilings::displacing(gpu)?),
        };
        call.samples(self.spans, displace.as_mut())
    }

    /// Times a call for every state of the caches.
    fn on_cpu(&mut self, case: &Case, made: &Made, variant: &'static Variant, at: usize, checked: &Checked) {
        let threads = self.ceilings[at].threads;
        let mut call = Repeat::new(made.trial.clone(), variant, Pool::new(threads));
        let prepare_ns = call.prepare().then(|| {
            let span = Spans { warm_up: self.spans.warm_up / 8, measure: self.spans.measure / 8 };
            measure::warm(span, &mut || _ = call.prepare()).median_ns()
        });
        let mut once = || {
            if self.fresh {
                call.prepare();
            }
            call.run();
        };
        for &cache in self.caches {
            let before = clock_mhz();
            let samples = match cache {
                Cache::Warm => measure::warm(self.spans, &mut once),
                Cache::Cold => measure::cold(self.spans, &self.buffer, &mut once),
            };
            let about = About::call(case, made, variant.name, self.manner(at, cache), prepare_ns);
            let clocks = [before, clock_mhz()];
            self.outcomes.push(Outcome::new(about, checked.clone(), samples, clocks, &self.ceilings[at]));
        }
    }
}

impl Bench<'_> {
    /// Checks and times a step on every number of workers; its caches are those of a step.
    fn step(&mut self, step: &Step) {
        for at in 0..self.ceilings.len() {
            let manner = manner(kernel::backend(&self.device), self.ceilings[at].threads);
            let outcome = self.step_on(step, at, manner);
            let outcome = outcome.unwrap_or_else(|why| Outcome::failed(step.id(manner), format!("{why:#}")));
            self.outcomes.push(outcome);
        }
    }

    fn step_on(&self, step: &Step, at: usize, manner: Manner) -> Result<Outcome> {
        let device = match &self.device {
            Device::Cpu(_) => Device::cpu(manner.threads),
            #[cfg(feature = "gpu")]
            gpu => gpu.clone(),
        };
        let checked = Checked { verified: step.verify(&device)?, error: None };
        let (mut program, about) = step.make(&device, manner)?;
        #[cfg(feature = "gpu")]
        if !matches!(device, Device::Cpu(_)) {
            let before = gpu::clock_mhz(&device);
            let _named = gpu::range(&device, &step.id(manner));
            let samples = gpu::samples(self.spans, &mut program, None)?;
            let clocks = [before, gpu::clock_mhz(&device)];
            return Ok(Outcome::new(about, checked, samples, clocks, &self.ceilings[at]));
        }
        let (before, mut broken) = (clock_mhz(), None);
        let samples = measure::warm(self.spans, &mut || broken = program.run().err().or(broken.take()));
        if let Some(error) = broken {
            return Err(error.into());
        }
        Ok(Outcome::new(about, checked, samples, [before, clock_mhz()], &self.ceilings[at]))
    }

    /// Sets the goal of the rows from `first` on.
    fn judge(&mut self, first: usize, goal: Goal) {
        for outcome in &mut self.outcomes[first..] {
            if let Outcome::Done(row) = outcome {
                let peak = self.ceilings.iter().find(|c| c.threads == row.threads).map_or(0.0, Ceilings::vectors);
                let ns = goal.ns(row.throughput[0].per_iteration, peak);
                row.set_goal(ns);
            }
        }
    }
}

/// One call to warm up, one to look at; nothing is timed or checked, so that a profiler sees little else.
fn once(args: &ProfileArgs, entries: &[Entry], device: &Device) -> Result<()> {
    let mut text = String::new();
    for (job, _) in entries {
        let Job::Call(case) = job else { continue };
        let made = case.make().map_err(anyhow::Error::msg)?;
        for kernel in kernel::kernels(case, &made, device, args.variant.as_deref()).map_err(anyhow::Error::msg)? {
            for threads in workers(args) {
                let id = id(case, kernel.name(), manner(kernel::backend(device), threads));
                match &kernel {
                    Kernel::Cpu(variant) => {
                        let mut call = Repeat::new(made.trial.clone(), variant, Pool::new(threads));
                        call.run();
                        call.run();
                    }
                    #[cfg(feature = "gpu")]
                    Kernel::Gpu(gpu, variant) => {
                        let call = Single::new(&made.trial, gpu, variant).map_err(anyhow::Error::msg)?;
                        let _named = gpu::range(gpu, &id);
                        call.twice()?;
                    }
                }
                _ = writeln!(text, "{id}: one call to warm up, one call");
            }
        }
    }
    print(&text)
}

/// Writes what was asked for; a failed case makes the command fail.
fn deliver(args: &ProfileArgs, fingerprint: &Fingerprint, outcomes: &[Outcome]) -> Result<()> {
    let html_on_stdout = args.html.as_deref() == Some(Path::new("-"));
    if !args.output.silent() && !html_on_stdout {
        print(&(fingerprint.text() + "\n" + &output::table(outcomes)))?;
    }
    // One that cannot be written does not take the others with it.
    let json = args.output.json.as_ref().map(|path| write_output(path, &output::json(fingerprint, outcomes)?));
    let csv = args.output.csv.as_ref().map(|path| write_output(path, &output::csv(fingerprint, outcomes)));
    let html = args.html.as_ref().map(|path| write_output(path, &roofline::page(fingerprint, outcomes)?));
    [json, csv, html].into_iter().flatten().collect::<Result<()>>()?;
    let failed = outcomes.iter().filter(|o| matches!(o, Outcome::Failed(_))).count();
    match failed {
        0 => Ok(()),
        n => Err(Negative(format!("{n} of {} cases failed", outcomes.len())).into()),
    }
}

/// Some ops, or all, with letters, usual sizes, variants and arguments.
fn list(names: &[String]) -> Result<String> {
    let mut text = String::new();
    names.iter().try_for_each(|name| find_op(name).map(drop))?;
    for op in OPS.iter().filter(|op| names.is_empty() || names.iter().any(|name| name == op.name)) {
        let letters: Vec<String> = ops::letters(op).iter().map(|(l, n)| format!("{l}={n}")).collect();
        let variants: Vec<&str> = op.cpu.iter().map(|v| v.name).collect();
        let args = op.args.iter().map(|arg| {
            let dims: String = arg.dims.iter().map(|d| d.to_string()).collect::<Vec<_>>().join(",");
            format!("{}[{dims}]{}", arg.name, if arg.optional { "?" } else { "" })
        });
        let density = ops::usual_density(op).map_or_else(String::new, |d| format!("  density {d}"));
        _ = writeln!(text, "{}\n  letters  {}{density}", op.name, letters.join(" "));
        _ = writeln!(text, "  variants {}", variants.join(" "));
        if !op.wgsl.is_empty() {
            let sources: Vec<&str> = op.wgsl.iter().map(|source| source.name).collect();
            _ = writeln!(text, "  wgsl     {}", sources.join(" "));
        }
        _ = writeln!(text, "  args     {}", args.collect::<Vec<_>>().join(" "));
    }
    Ok(text)
}
