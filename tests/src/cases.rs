//! Valid arguments for any contract, drawn from its letters.
//!
//! A case is sizes for the free letters of an op, a seed and a choice of optional arguments; [`Case::trial`] makes the
//! call. Most ops need nothing here: letters give shapes and names give ranges of values. [`RELATIONS`] holds what
//! letters cannot say. Where a cleared bit means "not read", the value behind it is NaN.

use kernels::contract::Mismatch;
use kernels::philox::{Rng, Stream};
use kernels::{Access, Arg, Array, BitMask, Contract, DType, Trial, Value, bf16, f16, ops};
use std::collections::BTreeMap;

/// One call to make.
#[derive(Clone, Debug)]
pub struct Case {
    /// Sizes of the letters of [`free`], in that order.
    pub sizes: Vec<u32>,
    /// Bit `n` set: the `n`-th optional argument is present.
    pub present: u32,
    /// Seed of all values.
    pub seed: u64,
}

/// What the letters of some ops leave open.
struct Relation {
    ops: &'static [&'static str],
    /// Letters to draw; those that are not letters of the op only serve `derive`.
    free: &'static [char],
    /// Sets the other letters and the scalars.
    derive: fn(&mut Shape),
}

const RELATIONS: &[Relation] = &[
    Relation {
        ops: &["bias_dw", "masked_bias_dw"],
        free: &['r', 'o'],
        derive: |s| {
            let inner = 1 + s.below(5);
            s.set('e', s.get('o') * inner);
            s.scalar("inner", inner);
        },
    },
    // y and x are the sides of the output.
    Relation { ops: &["conv", "conv_dx", "conv_dw"], free: &['n', 'o', 'c', 'y', 'x'], derive: convolution },
    Relation {
        ops: &["attention", "attention_dx"],
        free: &['b', 't', 'h', 'd'],
        derive: |s| {
            let width = s.get('h') * s.get('d');
            s.set('r', s.get('b') * s.get('t'));
            s.set('c', width);
            s.set('e', 3 * width);
            s.scalar("heads", s.get('h'));
        },
    },
    Relation {
        ops: &["attend"],
        free: &['b', 't', 'h', 'd'],
        derive: |s| {
            let width = s.get('h') * s.get('d');
            s.set('r', s.get('b') * s.get('t'));
            s.set('c', width);
            s.set('e', 2 * width);
            s.scalar("heads", s.get('h'));
        },
    },
    Relation { ops: &["interleave", "interleave_dx"], free: &['r', 'c'], derive: |s| s.set('q', 3 * s.get('r')) },
    Relation {
        ops: &["select", "select_dx"],
        free: &['r', 'c'],
        derive: |s| {
            let stride = 1 + s.below(5);
            let offset = s.below(stride);
            s.set('q', s.get('r') * stride);
            s.scalar("stride", stride);
            s.scalar("offset", offset);
        },
    },
    Relation {
        ops: &["slide"],
        free: &['r', 'q', 'c'],
        derive: |s| {
            let b = 1 + s.below(4);
            let new = s.get('r').min(s.get('q'));
            s.set('r', new * b);
            s.set('q', s.get('q') * b);
            s.scalar("b", b);
        },
    },
    Relation { ops: &["packed_gemm"], free: &['r', 'i', 'o'], derive: packed },
    Relation {
        ops: &["cosine_topk"],
        free: &['n', 'm', 'd', 'k'],
        derive: |s| {
            s.set('k', s.get('k').clamp(1, s.get('m').max(1)));
            // In one dimension all cosines are 1 or -1 but for rounding, and rounding must not decide who is first.
            s.set('d', if s.get('d') == 1 { 2 } else { s.get('d') });
        },
    },
    Relation { ops: &["kmeans"], free: &['n', 'k'], derive: |s| s.set('k', s.get('k').clamp(1, 16)) },
];

fn convolution(s: &mut Shape) {
    let (channels, out_h, out_w) = (s.get('c').max(1), s.get('y').max(1), s.get('x').max(1));
    let [kernel_h, kernel_w, stride] = [4, 4, 3].map(|most| 1 + s.below(most));
    // Up to stride - 1 pixels at the far edge belong to no window.
    let [height, width] =
        [(out_h, kernel_h), (out_w, kernel_w)].map(|(out, kernel)| (out - 1) * stride + kernel + s.below(stride));
    s.set('a', channels * height * width);
    s.set('j', channels * kernel_h * kernel_w);
    s.set('e', s.get('o') * out_h * out_w);
    for (name, value) in [("channels", channels), ("height", height), ("width", width), ("stride", stride)] {
        s.scalar(name, value);
    }
    s.scalar("kernel_h", kernel_h);
    s.scalar("kernel_w", kernel_w);
}

fn packed(s: &mut Shape) {
    let (i, o) = (s.get('i'), s.get('o'));
    let keep = s.density;
    s.row_start = vec![0];
    s.columns.clear();
    for _ in 0..o {
        for column in 0..i {
            if s.rng.uniform(0.0, 1.0) < keep {
                s.columns.push(column as u16);
            }
        }
        s.row_start.push(s.columns.len() as u32);
    }
    s.set('p', o + 1);
    s.set('n', s.columns.len() as u32);
}

/// Values that are read only where a bit is set: ops, value, bits. Bits of one row apply to every row.
const HIDDEN: &[(&[&str], &str, &str)] = &[
    (&["masked_gemm", "masked_gemm_dx", "conv", "conv_dx", "embed"], "w", "mask"),
    (&["masked_gemm", "conv"], "bias", "bias_mask"),
    // Score gradients read the weight of every candidate, masked or not.
    (&["masked_gemm_dw", "conv_dw", "embed_dw"], "w", "candidates"),
    (&["masked_bias_dw"], "bias", "candidates"),
    (&["adamw", "sumsq"], "g", "trainable"),
    (&["adamw"], "p", "trainable"),
    (&["adamw"], "m", "trainable"),
    (&["adamw"], "v", "trainable"),
    (&["cross_entropy", "cross_entropy_dx"], "logits", "allowed"),
    (&["topk"], "score", "candidates"),
    (&["kmeans"], "x", "select"),
];

/// Ops with outputs that are plain sums of products.
const SUMS: &[&str] = &[
    "gemm",
    "gemm_dx",
    "gemm_dw",
    "bias_dw",
    "masked_gemm",
    "masked_gemm_dx",
    "masked_gemm_dw",
    "masked_bias_dw",
    "packed_gemm",
    "conv",
    "conv_dx",
    "conv_dw",
    "layernorm_dx",
];
/// How many bits of a case are set.
const DENSITIES: [f64; 5] = [0.0, 0.02, 0.3, 0.5, 1.0];

/// The letters of an op that a case gives sizes to.
pub fn free(op: &Contract) -> Vec<char> {
    if let Some(relation) = relation(op) {
        return relation.free.to_vec();
    }
    let mut letters = Vec::new();
    for &letter in op.args.iter().flat_map(|arg| arg.dims) {
        if !letter.is_ascii_digit() && !letters.contains(&letter) {
            letters.push(letter);
        }
    }
    letters
}

fn relation(op: &Contract) -> Option<&'static Relation> {
    RELATIONS.iter().find(|r| r.ops.contains(&op.name))
}

/// Sizes and scalars of one call, and the random numbers it is filled from.
struct Shape {
    op: &'static Contract,
    sizes: BTreeMap<char, u32>,
    scalars: Vec<Option<u32>>,
    rng: Rng,
    row_start: Vec<u32>,
    columns: Vec<u16>,
    density: f64,
    coarse: bool,
    /// Of [`Contract::typed_arg`].
    dtype: DType,
}

impl Case {
    /// The call; `None` if the contract refuses it for a size of 0.
    ///
    /// # Errors
    /// A sentence if the contract refuses other sizes, or if nothing here says how to fill an argument: the op needs an
    /// entry in this file.
    pub fn trial(&self, op: &'static Contract) -> Result<Option<Trial>, String> {
        let sizes = free(op).into_iter().zip(self.sizes.iter().copied()).collect();
        let mut rng = Rng::new(self.seed, Stream::Data, [0, 0]);
        let density = DENSITIES[rng.below(5) as usize];
        let scalars = vec![None; op.scalars.len()];
        let (row_start, columns) = (Vec::new(), Vec::new());
        let choice = op.args[op.typed_arg()].dtypes;
        let dtype = choice[rng.below(choice.len() as u64) as usize];
        let mut shape = Shape { op, sizes, scalars, rng, row_start, columns, density, coarse: false, dtype };
        if let Some(relation) = relation(op) {
            (relation.derive)(&mut shape);
        }
        let scalars = shape.all_scalars()?;
        shape.coarse = shape.sums_may_cancel();
        let mut optional = 0;
        let mut args = Vec::new();
        for arg in op.args {
            let absent = arg.optional && self.present >> optional & 1 == 0;
            optional += u32::from(arg.optional);
            args.push(if absent { Array::Absent } else { shape.fill(arg)? });
        }
        hide(op, &mut args);
        follow_forward(op, &mut args, &scalars)?;
        match Trial::new(op, args, &scalars) {
            Ok(trial) => Ok(Some(trial)),
            Err(Mismatch::Relation(_)) if self.sizes.contains(&0) => Ok(None),
            Err(why) => Err(format!("no valid call: {why:?}; say in tests/src/cases.rs what the letters leave open")),
        }
    }
}

impl Shape {
    fn get(&self, letter: char) -> u32 {
        self.sizes[&letter]
    }

    fn set(&mut self, letter: char, size: u32) {
        self.sizes.insert(letter, size);
    }

    fn below(&mut self, n: u32) -> u32 {
        self.rng.below(u64::from(n)) as u32
    }

    fn scalar(&mut self, name: &str, bits: u32) {
        let at = self.op.scalars.iter().position(|s| *s == name);
        self.scalars[at.unwrap_or_else(|| panic!("{} has no scalar {name}", self.op.name))] = Some(bits);
    }

    fn all_scalars(&mut self) -> Result<Vec<u32>, String> {
        let op = self.op;
        (0..op.scalars.len()).map(|at| self.scalars[at].map_or_else(|| self.usual(op.scalars[at]), Ok)).collect()
    }

    /// A value for a scalar that stands in no relation to sizes.
    fn usual(&mut self, name: &str) -> Result<u32, String> {
        Ok(match name {
            "eps" => 1e-5f32.to_bits(),
            "floor" => 1e-3f32.to_bits(),
            "beta1" => 0.9f32.to_bits(),
            "beta2" => 0.999f32.to_bits(),
            "weight_decay" => 0.01f32.to_bits(),
            "lr_scale" => 0.5f32.to_bits(),
            "max_norm" => 0.7f32.to_bits(),
            "strength" => [0.0f32, 0.7, 50.0][self.below(3) as usize].to_bits(),
            "drop" => [0.0f32, 0.1, 0.5][self.below(3) as usize].to_bits(),
            "call" => self.below(100),
            "ties" => self.below(2),
            "value" => (self.rng.normal() as f32).to_bits(),
            other => return Err(format!("no value for the scalar {other}; add one in tests/src/cases.rs")),
        })
    }

    /// An error is judged by the largest of an output's values. Where few values are not masked away, sums may cancel to
    /// almost nothing; then values are drawn whose sums and products f32 holds exactly.
    fn sums_may_cancel(&self) -> bool {
        let floats = self.op.args.iter().filter(|a| a.access == Access::Write && a.dtypes.contains(&DType::F32));
        let sizes = floats.map(|a| a.dims.iter().map(|l| self.size(*l)).product::<usize>());
        SUMS.contains(&self.op.name) && sizes.min().is_some_and(|n| n as f64 * self.density <= 64.0)
    }

    fn size(&self, letter: char) -> usize {
        letter.to_digit(10).unwrap_or_else(|| self.get(letter)) as usize
    }

    fn fill(&mut self, arg: &Arg) -> Result<Array, String> {
        let (rows, cols) = match arg.dims {
            [n] => (1, self.size(*n)),
            dims => (self.size(dims[0]), self.size(dims[1])),
        };
        let dtype = arg.dtype_beside(self.dtype);
        if arg.access == Access::Write {
            return Ok(Array::output(dtype, rows, cols));
        }
        let n = rows * cols;
        let index = |s: &mut Shape, most: char| match s.below(6) {
            0 => u32::MAX,
            1 => s.get(most),
            _ => s.below(s.get(most).max(1)),
        };
        Ok(match (dtype, arg.name) {
            (DType::F32, "step") => Array::F32(rows, cols, vec![1e-3, 0.19, 0.002, 0.0]),
            (DType::F32, name) => Array::F32(rows, cols, (0..n).map(|at| self.float(name, at)).collect()),
            (DType::F16, name) => {
                Array::F16(rows, cols, (0..n).map(|at| f16::from_f32(self.float(name, at))).collect())
            }
            (DType::Bf16, name) => {
                Array::Bf16(rows, cols, (0..n).map(|at| bf16::from_f32(self.float(name, at))).collect())
            }
            (DType::U32, "ids") => Array::U32(rows, cols, (0..n).map(|_| index(self, 'v')).collect()),
            (DType::U32, "target") => Array::U32(rows, cols, (0..n).map(|_| index(self, 'a')).collect()),
            (DType::U32, "rng") => Array::U32(rows, cols, vec![self.rng.u32(), self.rng.u32(), self.below(1000), 0]),
            (DType::U32, "k") => Array::U32(rows, cols, vec![self.below(self.get('o') * self.get('i') + 2)]),
            (DType::U32, "row_start") => Array::U32(rows, cols, self.row_start.clone()),
            (DType::U16, "col") => Array::U16(rows, cols, self.columns.clone()),
            (DType::U8, "valid" | "flags") => Array::U8(rows, cols, (0..n).map(|_| self.below(3) as u8).collect()),
            (DType::U8, _) if self.coarse => Array::U8(rows, cols, (0..n).map(|_| 255 * self.below(2) as u8).collect()),
            (DType::U8, _) => Array::U8(rows, cols, (0..n).map(|_| self.rng.u32() as u8).collect()),
            (DType::Bits, _) => {
                let keep = self.density;
                let set = (0..n).map(|_| self.rng.uniform(0.0, 1.0) < keep);
                Array::Bits(BitMask::from_flags(rows as u32, cols as u32, set))
            }
            (dtype, name) => return Err(format!("no values for {dtype:?} {name}; add them in tests/src/cases.rs")),
        })
    }

    fn float(&mut self, name: &str, at: usize) -> f32 {
        let normal = self.rng.normal();
        (match name {
            "var_p" | "var_q" | "v" | "s" => normal.abs() + 0.1,
            "clip" => self.rng.uniform(0.1, 1.0),
            "active" => f64::from(self.below(4).min(1)),
            // Mean and reciprocal deviation of a row.
            "stats" if at % 2 == 1 => (normal.abs() * 4.0).ceil() / 4.0,
            // Few levels, for ties and zeros.
            "score" => (normal * 4.0).round() / 4.0,
            _ if self.coarse => (normal * 4.0).round() / 4.0,
            _ => normal,
        }) as f32
    }
}

/// NaN where bits say that a value is not read.
fn hide(op: &Contract, args: &mut [Array]) {
    let at = |name: &str| op.args.iter().position(|arg| arg.name == name);
    for (_, value, bits) in HIDDEN.iter().filter(|(ops, ..)| ops.contains(&op.name)) {
        let (Some(value), Some(bits)) = (at(value), at(bits)) else { continue };
        let Array::Bits(bits) = args[bits].clone() else { continue };
        let set = |i: usize, cols: usize| bits.get(if bits.rows() == 1 { 0 } else { i / cols }, i % cols);
        match &mut args[value] {
            Array::F32(_, cols, v) => {
                v.iter_mut().enumerate().filter(|(i, _)| !set(*i, *cols)).for_each(|(_, v)| *v = f32::NAN);
            }
            Array::F16(_, cols, v) => {
                v.iter_mut().enumerate().filter(|(i, _)| !set(*i, *cols)).for_each(|(_, v)| *v = f16::NAN);
            }
            Array::Bf16(_, cols, v) => {
                v.iter_mut().enumerate().filter(|(i, _)| !set(*i, *cols)).for_each(|(_, v)| *v = bf16::NAN);
            }
            _ => {}
        }
    }
    if op.name.starts_with("masked_mse") {
        hide_rows_and_columns(args);
    }
    if op.name.starts_with("attention") {
        hide_keys(op, args);
    }
}

/// The keys and values of tokens that are not valid are not read.
fn hide_keys(op: &Contract, args: &mut [Array]) {
    let place = |name: &str| op.args.iter().position(|arg| arg.name == name).expect("an argument of attention");
    let Array::U8(_, _, valid) = args[place("valid")].clone() else { panic!("`valid` is not u8") };
    let hidden = |i: usize, cols: usize| valid[i / cols] == 0 && i % cols >= cols / 3;
    match &mut args[place("qkv")] {
        Array::F32(_, cols, v) => {
            v.iter_mut().enumerate().filter(|(i, _)| hidden(*i, *cols)).for_each(|(_, v)| *v = f32::NAN);
        }
        Array::F16(_, cols, v) => {
            v.iter_mut().enumerate().filter(|(i, _)| hidden(*i, *cols)).for_each(|(_, v)| *v = f16::NAN);
        }
        _ => {}
    }
}

/// `pred` and `target` of a masked loss are not read in rows that are not valid and columns that are not active.
fn hide_rows_and_columns(args: &mut [Array]) {
    let Array::U8(_, _, valid) = args[2].clone() else { return };
    let active = if let Array::F32(_, _, active) = &args[3] { Some(active.clone()) } else { None };
    for arg in &mut args[..2] {
        if let Array::F32(_, cols, v) = arg {
            let read = |i: usize| valid[i / *cols] != 0 && active.as_ref().is_none_or(|a| a[i % *cols] != 0.0);
            v.iter_mut().enumerate().filter(|(i, _)| !read(*i)).for_each(|(_, v)| *v = f32::NAN);
        }
    }
}

/// A gradient that reads outputs of its forward call gets those of the f64 reference.
fn follow_forward(op: &Contract, args: &mut [Array], scalars: &[u32]) -> Result<(), String> {
    if op.name == ops::attention::ATTENTION_DX.name {
        let forward = [&args[..3], &[3, 4].map(|at| args[at].clone())].concat();
        if let Ok(trial) = Trial::new(&ops::attention::ATTENTION, forward, scalars) {
            let reference = trial.reference();
            for at in [3, 4] {
                let (Array::F32(_, _, v), Value::F(exact)) = (&mut args[at], &reference.args[at]) else {
                    return Err("attention writes f32".into());
                };
                *v = exact.iter().map(|x| *x as f32).collect();
            }
        }
    }
    Ok(())
}
