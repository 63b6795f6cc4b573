//! Time, arithmetic and traffic of every op of a step, from the contracts.

use crate::error::Result;
use crate::plan::{Plan, Slice};
use crate::program::{On, Program};
use kernels::Contract;
use kernels::contract::ArgShape;
use std::collections::BTreeMap;
use std::fmt;
use std::time::Instant;

/// Totals of one op and variant over a step.
#[derive(Clone, Debug)]
pub struct OpTime {
    /// Name of the op.
    pub op: &'static str,
    /// Name of the variant that ran.
    pub variant: &'static str,
    /// Calls in a step.
    pub calls: usize,
    /// Microseconds a step, median over the repeats.
    pub us: f64,
    /// Floating point operations a step.
    pub flops: u64,
    /// Least bytes moved a step.
    pub bytes: u64,
}

/// A profiled step, most expensive op first. Prints as a table.
#[derive(Clone, Debug)]
pub struct Profile {
    /// One row per op and variant.
    pub ops: Vec<OpTime>,
    /// Microseconds of a whole step, median over the repeats.
    pub step_us: f64,
}

impl Program {
    /// Times every call over `repeats` steps (after one warm-up step).
    ///
    /// # Errors
    /// Those of [`Program::run`].
    pub fn profile(&mut self, repeats: usize) -> Result<Profile> {
        self.run()?;
        self.wait()?;
        let repeats = repeats.max(1);
        let mut times = vec![vec![0.0; repeats]; self.plan.calls.len()];
        let mut steps = vec![0.0; repeats];
        for (repeat, step) in steps.iter_mut().enumerate() {
            *step = self.time_calls(&mut times, repeat)?;
        }
        let mut rows: BTreeMap<(&str, &str), OpTime> = BTreeMap::new();
        for ((call, time), cost) in times.iter_mut().enumerate().zip(self.plan.costs()) {
            let variant = self.variant(call);
            let row = rows.entry((cost.op.name, variant)).or_insert(OpTime {
                op: cost.op.name,
                variant,
                calls: 0,
                us: 0.0,
                flops: 0,
                bytes: 0,
            });
            row.calls += 1;
            row.us += median(time);
            row.flops += cost.flops;
            row.bytes += cost.bytes;
        }
        let mut ops: Vec<OpTime> = rows.into_values().collect();
        ops.sort_by(|a, b| b.us.total_cmp(&a.us));
        Ok(Profile { ops, step_us: median(&mut steps) })
    }

    /// Runs all calls `repeats` times, one submission, and says how many microseconds the device's own clock counted;
    /// `None`, and nothing runs, where there is no such clock: on the CPU and on adapters without timestamps.
    ///
    /// # Errors
    /// Those of [`Program::run`].
    pub fn stamped(&mut self, repeats: u64) -> Result<Option<f64>> {
        match &mut self.on {
            #[cfg(feature = "cuda")]
            On::Cuda(bound) => bound.stamped_repeats(repeats).map(Some),
            #[cfg(feature = "wgpu")]
            On::Wgpu(bound) => bound.stamped_repeats(repeats),
            On::Cpu(_) => {
                let _ = repeats;
                Ok(None)
            }
        }
    }

    /// Microseconds of every call of one step, into entry `repeat` of each row, and of the whole step.
    ///
    /// A GPU's own clock counts its calls where it has one; otherwise each is waited for.
    fn time_calls(&mut self, times: &mut [Vec<f64>], repeat: usize) -> Result<f64> {
        let stamps: Option<Vec<f64>> = match &mut self.on {
            On::Cpu(_) => None,
            #[cfg(feature = "cuda")]
            On::Cuda(bound) => Some(bound.stamped_run()?),
            #[cfg(feature = "wgpu")]
            On::Wgpu(bound) => bound.stamped_run()?,
        };
        if let Some(stamps) = stamps {
            times.iter_mut().zip(&stamps).for_each(|(time, us)| time[repeat] = *us);
            let begin = Instant::now();
            self.run()?;
            self.wait()?;
            return Ok(begin.elapsed().as_secs_f64() * 1e6);
        }
        let begin = Instant::now();
        for (call, time) in times.iter_mut().enumerate() {
            let begin = Instant::now();
            self.run_call(call)?;
            self.wait()?;
            time[repeat] = begin.elapsed().as_secs_f64() * 1e6;
        }
        Ok(begin.elapsed().as_secs_f64() * 1e6)
    }
}

/// What one call costs by its contract.
#[derive(Clone, Copy, Debug)]
pub struct Cost {
    /// The op.
    pub op: &'static Contract,
    /// Floating point operations.
    pub flops: u64,
    /// Least bytes moved.
    pub bytes: u64,
}

impl Plan {
    /// Cost of every call, in call order.
    pub fn costs(&self) -> impl Iterator<Item = Cost> {
        self.calls.iter().map(|call| {
            let shape = |s: &Slice| {
                let dtype = self.buffers[s.buffer.0 as usize].dtype;
                ArgShape { dtype, rows: s.rows, cols: s.cols }
            };
            let shapes: Vec<Option<ArgShape>> = call.args.iter().map(|s| s.as_ref().map(shape)).collect();
            Cost { op: call.op, flops: (call.op.flops)(&call.dims), bytes: call.op.bytes(&shapes) }
        })
    }
}

fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

impl fmt::Display for Profile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{:<18} {:<10} {:>5} {:>11} {:>6} {:>9} {:>7}",
            "op", "variant", "calls", "us", "%", "GFLOP/s", "GB/s"
        )?;
        let total: f64 = self.ops.iter().map(|o| o.us).sum();
        for o in &self.ops {
            let share = 100.0 * o.us / total.max(1e-9);
            let (gflops, gbs) = (o.flops as f64 / o.us.max(1e-9) / 1e3, o.bytes as f64 / o.us.max(1e-9) / 1e3);
            writeln!(
                f,
                "{:<18} {:<10} {:>5} {:>11.1} {share:>6.1} {gflops:>9.1} {gbs:>7.1}",
                o.op, o.variant, o.calls, o.us
            )?;
        }
        write!(f, "step {:.1} us", self.step_us)
    }
}
