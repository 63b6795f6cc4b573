//! Gradients of recorded tapes against central differences in f64, and against the CPU.
//!
//! A rule is written once, on a [`Probe`]: a tape that draws the data of everything it declares. It is recorded twice
//! from the same draws, as it is and as a *twin* whose masked weights are dense tensors `w ⊙ mask`. The twin is only
//! differenced, never differentiated: with `G` its central differences with respect to the effective weight, the
//! recorded gradients must be `dw = G ⊙ mask` and `ds = G ⊙ w ⊙ sign(score)` at the candidates.

use autograd::engine::kernels::Value;
use autograd::engine::{DType, Device, Interpreter, Plan, Program, Result};
use autograd::{Mask, Param, ParamId, Select, Tape, Tensor, Trainable};

/// Largest difference between a recorded gradient and a central difference, relative to the tensor's largest gradient.
pub const DIFFERENCE_TOL: f64 = 1e-6;
/// Largest difference between the CPU in f32 and the replay in f64, relative to the tensor's largest value.
pub const DEVICE_TOL: f64 = 1e-4;
/// Gradients below this count as rounding: scales are at least this large.
const FLOOR: f64 = 1e-4;
/// Entries of one tensor that are differenced one by one; one random direction covers the rest.
const ENTRIES: usize = 12;

/// Deterministic draws (splitmix64).
#[derive(Clone, Debug)]
pub struct Draw(u64);

impl Draw {
    /// Draws that depend on `seed` alone.
    pub fn new(seed: u64) -> Draw {
        Draw(seed)
    }

    /// A uniform 64-bit number.
    pub fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let x = (self.0 ^ self.0 >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let x = (x ^ x >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        x ^ x >> 31
    }

    /// Uniform in `0..n`; 0 if `n` is 0.
    pub fn below(&mut self, n: u32) -> u32 {
        (self.bits() >> 32) as u32 % n.max(1)
    }

    /// One of the given values.
    pub fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(from.len() as u32) as usize]
    }

    /// Uniform in -1.5..1.5, exact in f32.
    pub fn real(&mut self) -> f64 {
        f64::from((self.bits() >> 40) as f32 / (1u32 << 24) as f32 * 3.0 - 1.5)
    }

    fn reals(&mut self, n: usize) -> Vec<f64> {
        (0..n).map(|_| self.real()).collect()
    }

    /// Flags of a matrix: none, all, one row, or random with a random density.
    fn flags(&mut self, rows: u32, cols: u32) -> Vec<u32> {
        let row = self.below(rows);
        let density = self.below(101);
        let kind = self.below(6);
        let mut flag = |r: u32| match kind {
            0 => false,
            1 => true,
            2 => r == row,
            _ => self.below(100) < density,
        };
        (0..rows).flat_map(|r| (0..cols).map(move |_| r)).map(|r| u32::from(flag(r))).collect()
    }
}

/// A tape that draws the data of everything it declares.
#[derive(Debug)]
pub struct Probe {
    /// The tape under test.
    pub tape: Tape,
    /// Sizes and data come from here.
    pub draw: Draw,
    twin: bool,
    data: Vec<Datum>,
    subjects: Vec<Subject>,
}

#[derive(Debug)]
struct Datum {
    name: String,
    dtype: DType,
    cols: u32,
    value: Value,
}

/// A tensor whose gradient is checked.
#[derive(Debug)]
struct Subject {
    name: String,
    of: Of,
    /// Value at which the twin is differenced.
    at: Vec<f64>,
}

#[derive(Debug)]
enum Of {
    Input(Tensor),
    /// `factor` turns `G` into the score's gradient.
    Param {
        id: ParamId,
        mask: Vec<u32>,
        factor: Option<Vec<f64>>,
    },
}

impl Probe {
    fn new(seed: u64, twin: bool) -> Probe {
        Probe { tape: Tape::new(), draw: Draw::new(seed), twin, data: Vec::new(), subjects: Vec::new() }
    }

    fn set(&mut self, name: &str, dtype: DType, cols: u32, value: Value) {
        self.data.push(Datum { name: name.to_owned(), dtype, cols, value });
    }

    /// A float input whose gradient is checked.
    pub fn watched(&mut self, name: &str, rows: u32, cols: u32) -> Tensor {
        let at = self.draw.reals((rows * cols) as usize);
        self.set(name, DType::F32, cols, Value::F(at.clone()));
        let t = self.tape.watched(name, rows, cols);
        self.subjects.push(Subject { name: name.to_owned(), of: Of::Input(t), at });
        t
    }

    /// A float input without gradient.
    pub fn floats(&mut self, name: &str, rows: u32, cols: u32) -> Tensor {
        let values = self.draw.reals((rows * cols) as usize);
        self.set(name, DType::F32, cols, Value::F(values));
        self.tape.input(name, DType::F32, rows, cols)
    }

    /// An integer input with values below `limit`.
    pub fn integers(&mut self, name: &str, dtype: DType, rows: u32, cols: u32, limit: u32) -> Tensor {
        let values = (0..rows * cols).map(|_| self.draw.below(limit)).collect();
        self.set(name, dtype, cols, Value::U(values));
        self.tape.input(name, dtype, rows, cols)
    }

    /// Flags as bytes, bits or floats.
    pub fn flags(&mut self, name: &str, dtype: DType, rows: u32, cols: u32) -> Tensor {
        let flags = self.draw.flags(rows, cols);
        let value = match dtype {
            DType::F32 => Value::F(flags.into_iter().map(f64::from).collect()),
            _ => Value::U(flags),
        };
        self.set(name, dtype, cols, value);
        self.tape.input(name, dtype, rows, cols)
    }

    /// An input with given integers.
    pub fn given(&mut self, name: &str, dtype: DType, values: Vec<u32>) -> Tensor {
        let cols = values.len() as u32;
        self.set(name, dtype, cols, Value::U(values));
        self.tape.input(name, dtype, 1, cols)
    }

    /// The random state of dropout; call it once if the rule drops anything.
    pub fn seed_dropout(&mut self) {
        let words = vec![self.draw.below(u32::MAX), self.draw.below(u32::MAX), 3, 0];
        self.set("rng", DType::U32, 4, Value::U(words));
    }

    /// A trainable parameter with drawn weight, mask, score and candidates.
    pub fn param(&mut self, name: &str, rows: u32, cols: u32, mask: Mask, restrict_score: bool) -> ParamId {
        let n = (rows * cols) as usize;
        let mut w = self.draw.reals(n);
        let score: Vec<f64> = (0..n).map(|i| if i % 7 == 3 { 0.0 } else { self.draw.real() }).collect();
        let given = self.draw.flags(rows, cols);
        let free = self.draw.flags(rows, cols);
        let occupied: Vec<u32> = free.iter().map(|f| 1 - f).collect();
        let k = self.draw.pick(&[0, 1, n as u32 / 2, n as u32, n as u32 + 3]);
        let k_occupied = self.draw.below(n as u32 + 1);
        let chosen = match mask {
            Mask::Dense => vec![1; n],
            Mask::Fixed => given,
            Mask::Learned(Select::Any) => largest(&score, &vec![1; n], k),
            Mask::Learned(Select::Free) => largest(&score, &free, k),
            Mask::Learned(Select::Split) => {
                let old = largest(&score, &occupied, k_occupied);
                largest(&score, &free, k).iter().zip(old).map(|(a, b)| a | b).collect()
            }
        };
        let effective: Vec<f64> = w.iter().zip(&chosen).map(|(w, &bit)| if bit == 1 { *w } else { 0.0 }).collect();
        let restricted = restrict_score && mask == Mask::Learned(Select::Free);
        let factor = matches!(mask, Mask::Learned(_)).then(|| {
            let sign = |s: f64| if s == 0.0 { 0.0 } else { s.signum() };
            let candidate = |i: usize| !restricted || free[i] == 1;
            (0..n).map(|i| if candidate(i) { w[i] * sign(score[i]) } else { 0.0 }).collect()
        });
        if mask == Mask::Fixed {
            // A cleared bit means the weight is not read.
            w.iter_mut().zip(&chosen).filter(|(_, bit)| **bit == 0).for_each(|(w, _)| *w = f64::NAN);
        }
        let param = Param {
            restrict_score,
            ..Param::new(name, rows, cols, if self.twin { Mask::Dense } else { mask }, Trainable::All)
        };
        if self.twin {
            self.set(name, DType::F32, cols, Value::F(effective.clone()));
        } else {
            self.set(name, DType::F32, cols, Value::F(w));
            let split = mask == Mask::Learned(Select::Split);
            if mask == Mask::Fixed {
                self.set(&format!("{name}.mask"), DType::Bits, cols, Value::U(chosen.clone()));
            }
            if let Mask::Learned(select) = mask {
                self.set(&format!("{name}.score"), DType::F32, cols, Value::F(score));
                self.set(&format!("{name}.k"), DType::U32, 1, Value::U(vec![k]));
                if select != Select::Any {
                    self.set(&format!("{name}.free"), DType::Bits, cols, Value::U(free));
                }
                if split {
                    self.set(&format!("{name}.occupied"), DType::Bits, cols, Value::U(occupied));
                    self.set(&format!("{name}.k_occupied"), DType::U32, 1, Value::U(vec![k_occupied]));
                }
            }
        }
        let id = self.tape.param(param);
        let of = Of::Param { id, mask: chosen, factor };
        self.subjects.push(Subject { name: name.to_owned(), of, at: effective });
        id
    }

    /// Squared distance of `y` to a drawn target: a loss whose gradient differs at every entry.
    pub fn loss(&mut self, y: Tensor) -> Result<Tensor> {
        let [rows, cols] = self.tape.shape(y);
        let target = self.floats("loss.target", rows, cols);
        let valid = self.given("loss.valid", DType::U8, vec![1; rows as usize]);
        self.tape.masked_mse(y, target, valid, None)
    }
}

/// The `k` candidates of largest `|score|`, lower index first on ties: a sort, independent of the op.
fn largest(score: &[f64], candidates: &[u32], k: u32) -> Vec<u32> {
    let mut order: Vec<usize> = (0..score.len()).filter(|&i| candidates[i] == 1).collect();
    order.sort_by(|&a, &b| score[b].abs().total_cmp(&score[a].abs()));
    let mut mask = vec![0; score.len()];
    order.iter().take(k as usize).for_each(|&i| mask[i] = 1);
    mask
}

/// A rule under test: records forward calls on a probe for case number `case` and gives the loss.
pub type Record = fn(&mut Probe, case: u32) -> Result<Tensor>;

/// What a check saw.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    /// Ops of the recorded plan.
    pub ops: Vec<&'static str>,
    /// Largest error of a gradient against central differences.
    pub difference: f64,
    /// Largest error of the CPU against f64.
    pub device: f64,
}

/// Records one case as it is, with gradients as outputs `loss`, `d:<name>` and `ds:<name>`.
fn recorded(record: Record, case: u32, seed: u64) -> Result<(Probe, Plan)> {
    let mut probe = Probe::new(seed, false);
    let loss = record(&mut probe, case)?;
    probe.tape.backward(loss)?;
    for Subject { name, of, .. } in &probe.subjects {
        let (grad, score) = match of {
            Of::Input(t) => (probe.tape.grad_of(*t), None),
            Of::Param { id, .. } => (probe.tape.grad(*id), probe.tape.score_grad(*id)),
        };
        let grad = grad.unwrap_or_else(|| panic!("\"{name}\" has no gradient"));
        probe.tape.output(grad, &format!("d:{name}"));
        if let Some(score) = score {
            probe.tape.output(score, &format!("ds:{name}"));
        }
    }
    probe.tape.output(loss, "loss");
    let tape = std::mem::take(&mut probe.tape);
    Ok((probe, tape.finish()?))
}

/// Ops that one case records.
///
/// # Errors
/// Those of recording.
pub fn ops(record: Record, case: u32, seed: u64) -> Result<Vec<&'static str>> {
    Ok(recorded(record, case, seed)?.1.ops().collect())
}

/// Holds the gradients of one case against central differences, and the CPU against f64.
///
/// # Errors
/// What disagrees: tensor, entry, both values.
pub fn check(record: Record, case: u32, seed: u64) -> std::result::Result<Seen, String> {
    let show = |e: autograd::engine::Error| e.to_string();
    let (probe, plan) = recorded(record, case, seed).map_err(show)?;
    let mut exact = plan.interpreter();
    fill(&mut exact, &probe.data).map_err(show)?;
    exact.run();
    let mut seen = Seen { ops: plan.ops().collect(), ..Seen::default() };

    let mut twin = Probe::new(seed, true);
    let loss = record(&mut twin, case).map_err(show)?;
    twin.tape.output(loss, "loss");
    let twin_plan = std::mem::take(&mut twin.tape).finish().map_err(show)?;
    let mut dense = twin_plan.interpreter();
    fill(&mut dense, &twin.data).map_err(show)?;
    dense.run();
    let (a, b) = (floats(&exact, "loss")[0], floats(&dense, "loss")[0]);
    if (a - b).abs() > 1e-12 * b.abs().max(1.0) {
        return Err(format!("loss is {a:e}, with dense weights w ⊙ mask {b:e}"));
    }
    let mut draw = Draw::new(!seed);
    for subject in &probe.subjects {
        let error = differenced(subject, &exact, &mut dense, &mut draw)?;
        seen.difference = seen.difference.max(error);
    }
    seen.device = on_cpu(&probe, &plan, &exact)?;
    Ok(seen)
}

/// Largest error of a subject's recorded gradients, relative to the largest of them.
fn differenced(
    subject: &Subject,
    exact: &Interpreter<'_>,
    twin: &mut Interpreter<'_>,
    draw: &mut Draw,
) -> std::result::Result<f64, String> {
    let name = &subject.name;
    let n = subject.at.len();
    let grad = floats(exact, &format!("d:{name}"));
    let (mask, factor) = match &subject.of {
        Of::Input(_) => (None, None),
        Of::Param { mask, factor, .. } => (Some(mask), factor.as_ref()),
    };
    let masked = |i: usize, g: f64| if mask.is_none_or(|m| m[i] == 1) { g } else { 0.0 };
    let ds = factor.map(|_| floats(exact, &format!("ds:{name}")));
    let scale = |g: &[f64]| g.iter().fold(FLOOR, |most, v| most.max(v.abs()));
    let (scale_w, scale_s) = (scale(&grad), ds.as_ref().map_or(FLOOR, |ds| scale(ds)));
    let mut worst = 0.0f64;
    let mut hold = |what: &str, entry: &str, got: f64, expected: f64, scale: f64| {
        let error = (got - expected).abs() / scale;
        worst = worst.max(error);
        // A NaN must fail, so the comparison is for success.
        if error <= DIFFERENCE_TOL {
            return Ok(());
        }
        Err(format!("{what} of \"{name}\" {entry}: recorded {got:e}, central difference {expected:e}"))
    };
    let entries: Vec<usize> = match n <= ENTRIES {
        true => (0..n).collect(),
        false => (0..ENTRIES).map(|_| draw.below(n as u32) as usize).collect(),
    };
    for i in entries {
        let mut direction = vec![0.0; n];
        direction[i] = 1.0;
        let g = slope(subject, twin, &direction);
        hold("gradient", &format!("entry {i}"), grad[i], masked(i, g), scale_w)?;
        if let (Some(factor), Some(ds)) = (factor, &ds) {
            hold("score gradient", &format!("entry {i}"), ds[i], g * factor[i], scale_s)?;
        }
    }
    let direction = draw.reals(n);
    let kept: Vec<f64> = (0..n).map(|i| masked(i, direction[i])).collect();
    let norm = kept.iter().map(|d| d.abs()).sum::<f64>().max(1.0);
    let got = grad.iter().zip(&direction).map(|(g, d)| g * d).sum();
    hold("gradient", "along a direction", got, slope(subject, twin, &kept), scale_w * norm)?;
    if let (Some(factor), Some(ds)) = (factor, &ds) {
        let bent: Vec<f64> = factor.iter().zip(&direction).map(|(f, d)| f * d).collect();
        let got = ds.iter().zip(&direction).map(|(g, d)| g * d).sum();
        hold("score gradient", "along a direction", got, slope(subject, twin, &bent), scale_s * norm.max(n as f64))?;
    }
    Ok(worst)
}

/// Derivative of the twin's loss along `direction`: central differences of fourth order.
fn slope(subject: &Subject, twin: &mut Interpreter<'_>, direction: &[f64]) -> f64 {
    let longest = direction.iter().fold(0.0f64, |most, d| most.max(d.abs()));
    if longest == 0.0 {
        return 0.0;
    }
    let h = 2e-4 / longest;
    let mut at = |steps: f64| {
        let moved = subject.at.iter().zip(direction).map(|(x, d)| x + steps * h * d).collect();
        twin.set(&subject.name, Value::F(moved)).expect("the twin has every subject");
        twin.run();
        floats(twin, "loss")[0]
    };
    let slope = (8.0 * (at(1.0) - at(-1.0)) - (at(2.0) - at(-2.0))) / (12.0 * h);
    at(0.0);
    slope
}

/// Largest error of loss and gradients on the CPU; every call must also pass [`Program::check`].
fn on_cpu(probe: &Probe, plan: &Plan, exact: &Interpreter<'_>) -> std::result::Result<f64, String> {
    let show = |e: autograd::engine::Error| e.to_string();
    let mut program = plan.bind(&Device::open("cpu").map_err(show)?).map_err(show)?;
    for datum in &probe.data {
        write(&mut program, datum).map_err(show)?;
    }
    program.run().map_err(show)?;
    let mut worst = 0.0f64;
    let grads = probe.subjects.iter().flat_map(|s| [format!("d:{}", s.name), format!("ds:{}", s.name)]);
    for name in grads.chain(["loss".to_owned()]).filter(|name| program.has(name)) {
        let got = program.read_vec::<f32>(&name).map_err(show)?;
        let expected = floats(exact, &name);
        let scale = expected.iter().fold(FLOOR, |most, v| most.max(v.abs()));
        for (i, (got, expected)) in got.iter().zip(&expected).enumerate() {
            let error = (f64::from(*got) - expected).abs() / scale;
            worst = worst.max(error);
            if error.is_nan() || error > DEVICE_TOL {
                return Err(format!("{name} entry {i} is {got:e} on the cpu, {expected:e} in f64"));
            }
        }
    }
    program.check().map_err(show)?;
    Ok(worst)
}

fn fill(interpreter: &mut Interpreter<'_>, data: &[Datum]) -> Result<()> {
    data.iter().try_for_each(|d| interpreter.set(&d.name, d.value.clone()))
}

fn floats(interpreter: &Interpreter<'_>, name: &str) -> Vec<f64> {
    match interpreter.get(name) {
        Ok(Value::F(values)) => values.clone(),
        other => panic!("\"{name}\" holds no floats: {other:?}"),
    }
}

fn write(program: &mut Program, datum: &Datum) -> Result<()> {
    let Datum { name, dtype, cols, value } = datum;
    match (value, dtype) {
        (Value::F(v), _) => program.write(name, &v.iter().map(|x| *x as f32).collect::<Vec<f32>>()),
        (Value::U(v), DType::U8) => program.write(name, &v.iter().map(|x| *x as u8).collect::<Vec<u8>>()),
        (Value::U(v), DType::Bits) => program.write(name, &pack(v, *cols)),
        (Value::U(v), _) => program.write(name, v),
        (Value::Absent, _) => Ok(()),
    }
}

/// One 0 or 1 per element to rows of whole words.
pub fn pack(bits: &[u32], cols: u32) -> Vec<u32> {
    let word = |chunk: &[u32]| chunk.iter().enumerate().fold(0, |word, (at, bit)| word | bit << at);
    bits.chunks(cols.max(1) as usize).flat_map(|row| row.chunks(32).map(word)).collect()
}
