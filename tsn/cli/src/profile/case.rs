//! One case: an op at given sizes, density and kind of mask, and the valid call that it stands for.

use super::fingerprint::free_bytes;
use super::masks::Kind;
use super::ops;
use std::borrow::Cow;
use std::collections::BTreeMap;
use tsn::dt::autograd::engine::kernels::contract::Arg;
use tsn::dt::autograd::engine::kernels::philox::{Rng, Stream};
use tsn::dt::autograd::engine::kernels::{Access, Array, BitMask, Contract, Crossover, DType, Pool, Trial, bf16, f16};

/// Most bytes of all arguments of a call.
const MOST_BYTES: u64 = 6 << 30;
/// Copies of the arguments that are held at once: as made, as timed, and as checked.
const COPIES: u64 = 3;

/// [`MOST_BYTES`], or less where the machine has less.
fn most_bytes() -> u64 {
    free_bytes().map_or(MOST_BYTES, |free| (free / COPIES).min(MOST_BYTES))
}

/// How a call differs from the usual one of its op.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Twist {
    Usual,
    /// Attention drops nothing.
    NoDropout,
    /// Top-k chooses among half of the weights; the rest belongs to earlier tasks.
    HalfFree,
}

impl Twist {
    /// End of the label.
    fn suffix(self) -> &'static str {
        match self {
            Twist::Usual => "",
            Twist::NoDropout => "_nodrop",
            Twist::HalfFree => "_free50",
        }
    }
}

/// What to call.
#[derive(Clone, Debug)]
pub(crate) struct Case {
    pub op: &'static Contract,
    /// Letters a user gives, in the order of ids.
    pub sizes: Vec<(char, u32)>,
    /// `None` if the op has no mask.
    pub density: Option<f64>,
    pub kind: Kind,
    /// A mask from elsewhere instead of a drawn one, and what it is called.
    pub learned: Option<(String, BitMask)>,
    pub dtype: DType,
    pub twist: Twist,
    pub seed: u64,
    /// Where one way to compute overtakes another.
    pub crossover: Cow<'static, Crossover>,
}

/// A valid call.
#[derive(Clone)]
pub(crate) struct Made {
    pub trial: Trial,
    /// Share of the mask's bits that are set; 1 without a mask.
    pub density: f64,
    /// Operations as if every weight were kept.
    pub dense_flops: u64,
    /// Operations on kept weights.
    pub kept_flops: u64,
    /// Least traffic.
    pub bytes: u64,
    pub scalars: Vec<u32>,
}

impl Case {
    /// An op at its usual sizes.
    pub(crate) fn usual(op: &'static Contract) -> Case {
        let (density, kind) = (ops::usual_density(op), Kind::Random);
        let (dtype, twist, crossover) = (DType::F32, Twist::Usual, Cow::Borrowed(Crossover::SHIPPED));
        Case { op, sizes: ops::letters(op), density, kind, learned: None, dtype, twist, seed: 0, crossover }
    }

    /// The same case with other sizes of some letters.
    pub(crate) fn with(mut self, sizes: &[(char, u32)]) -> Case {
        for (letter, size) in &mut self.sizes {
            if let Some((_, new)) = sizes.iter().find(|(l, _)| l == letter) {
                *size = *new;
            }
        }
        self
    }

    /// The element type asked for where an argument allows it, else its first.
    pub(crate) fn dtype_of(&self, arg: &Arg) -> DType {
        arg.dtype_beside(self.dtype)
    }

    /// `r3840_o512_i128_d50`.
    pub(crate) fn label(&self) -> String {
        let mut text: String = self.sizes.iter().map(|(letter, size)| format!("{letter}{size}_")).collect();
        text += &density_label(self.density.unwrap_or(1.0));
        text += self.twist.suffix();
        match (&self.learned, &self.kind) {
            (Some((name, _)), _) => text + "_" + name,
            (None, Kind::Random) => text,
            (None, kind) => text + "_" + &kind.name(),
        }
    }

    /// Arguments of the call.
    ///
    /// # Errors
    /// A sentence if sizes do not fit together or need too much memory.
    pub(crate) fn make(&self) -> Result<Made, String> {
        let sizes = self.sizes.iter().copied().collect();
        let (scalars, packed) = (vec![None; self.op.scalars.len()], Vec::new());
        let rng = Rng::new(self.seed, Stream::Data, [0, 0]);
        let mut shape = Shape { op: self.op, case: self, sizes, scalars, rng, packed, density: None };
        ops::derive(&mut shape).map_err(|why| format!("{}: {why}", self.op.name))?;
        if self.twist == Twist::NoDropout {
            shape.scalar("drop", 0f32.to_bits());
        }
        shape.fits_memory()?;
        let scalars: Vec<u32> = (0..self.op.scalars.len())
            .map(|at| shape.scalars[at].map_or_else(|| usual_scalar(self.op.scalars[at]), Ok))
            .collect::<Result<_, _>>()?;
        let args = (0..self.op.args.len()).map(|at| shape.fill(at)).collect::<Result<Vec<_>, String>>()?;
        let args = follow_forward(self.op, args, &scalars)?;
        let density = shape.density.or(self.density).unwrap_or(1.0);
        let mut trial =
            Trial::new(self.op, args, &scalars).map_err(|why| format!("{}: no valid call: {why:?}", self.op.name))?;
        trial.crossover = self.crossover.clone();
        let flops = (self.op.flops)(&trial.dims);
        let bytes = self.op.bytes(&trial.args.iter().map(Array::shape).collect::<Vec<_>>());
        let bytes = ops::least_bytes(self.op, &trial.dims, bytes);
        let share = ops::kept_share(self.op, density);
        let (dense_flops, kept_flops) = match self.op.name {
            // Its contract counts kept weights.
            "packed_gemm" => (2 * ['r', 'o', 'i'].map(|l| u64::from(shape.size(l))).iter().product::<u64>(), flops),
            _ => (flops, (flops as f64 * share) as u64),
        };
        Ok(Made { trial, density, dense_flops, kept_flops, bytes, scalars })
    }
}

/// `d8` for 8 %, `d0.5` for half a percent.
pub(crate) fn density_label(density: f64) -> String {
    let percent = format!("{:.2}", density * 100.0);
    format!("d{}", percent.trim_end_matches('0').trim_end_matches('.'))
}

/// Sizes and scalars of one call while it is made.
pub(crate) struct Shape<'a> {
    pub(crate) op: &'static Contract,
    case: &'a Case,
    sizes: BTreeMap<char, u32>,
    scalars: Vec<Option<u32>>,
    rng: Rng,
    /// Row starts and columns of a packed weight.
    packed: Vec<Vec<u32>>,
    /// Of the mask, once it is drawn.
    density: Option<f64>,
}

impl Shape<'_> {
    /// Size of a letter; a digit is its own size.
    pub(crate) fn size(&self, letter: char) -> u32 {
        letter.to_digit(10).or_else(|| self.sizes.get(&letter).copied()).unwrap_or(0)
    }

    /// Sets a letter to a product of others.
    pub(crate) fn product(&mut self, letter: char, of: &[char], times: u32) -> Result<(), String> {
        let size = of.iter().try_fold(times, |n, l| n.checked_mul(self.size(*l)));
        let size = size.ok_or_else(|| format!("dim `{letter}` is over {}", u32::MAX))?;
        self.sizes.insert(letter, size);
        Ok(())
    }

    /// Sets a scalar of the contract.
    pub(crate) fn scalar(&mut self, name: &str, bits: u32) {
        if let Some(at) = self.op.scalars.iter().position(|s| *s == name) {
            self.scalars[at] = Some(bits);
        }
    }

    /// Draws the pattern of a packed weight.
    pub(crate) fn pack(&mut self) -> Result<(), String> {
        let kept = f64::from(self.size('o')) * f64::from(self.size('i')) * self.case.density.unwrap_or(1.0);
        // Values and columns, before the vectors that hold them grow.
        if 16.0 * kept > most_bytes() as f64 {
            return Err(format!("{kept:.0} kept weights are too many"));
        }
        let mask = self.mask(self.size('o'), self.size('i'))?;
        let (mut starts, mut columns) = (vec![0], Vec::new());
        for row in 0..mask.rows() as usize {
            columns.extend((0..mask.cols()).filter(|c| mask.get(row, *c as usize)));
            starts.push(columns.len() as u32);
        }
        self.sizes.insert('p', self.size('o') + 1);
        self.sizes.insert('n', columns.len() as u32);
        self.packed = vec![starts, columns];
        Ok(())
    }

    /// The mask of the case.
    fn mask(&mut self, rows: u32, cols: u32) -> Result<BitMask, String> {
        let mask = match &self.case.learned {
            Some((name, mask)) if (mask.rows(), mask.cols()) != (rows, cols) => {
                let (r, c) = (mask.rows(), mask.cols());
                return Err(format!("mask {name} is {r} x {c}, but the shape asks for {rows} x {cols}"));
            }
            Some((_, mask)) => mask.clone(),
            None => {
                let density = self.case.density.unwrap_or(1.0);
                let u64_bits = u64::from(rows) * u64::from(cols);
                if u64_bits > MOST_BYTES {
                    return Err(format!("a mask of {rows} x {cols} is too large"));
                }
                self.case.kind.draw(rows, cols, density, self.case.seed.wrapping_add(1))
            }
        };
        self.density = Some(mask.count() as f64 / mask.len().max(1) as f64);
        Ok(mask)
    }

    /// Rows and columns of an argument.
    fn extent(&self, arg: &Arg) -> (u32, u32) {
        match arg.dims {
            [one] => (1, self.size(*one)),
            dims => (self.size(dims[0]), self.size(dims[1])),
        }
    }

    fn is_absent(&self, at: usize) -> bool {
        let arg = &self.op.args[at];
        let masked =
            ops::mask_arg(self.op) == Some(at) && (self.case.learned.is_some() || self.case.density != Some(1.0));
        let free = arg.name == "candidates" && self.case.twist == Twist::HalfFree;
        arg.optional && !masked && !free && !ops::is_usual(self.op, arg.name)
    }

    fn fits_memory(&self) -> Result<(), String> {
        let mut total = 0u64;
        for (at, arg) in self.op.args.iter().enumerate().filter(|(at, _)| !self.is_absent(*at)) {
            let (rows, cols) = self.extent(arg);
            let units = u64::from(rows) * u64::from(self.dtype(at).row_units(cols));
            total = total.saturating_add(units.saturating_mul(self.dtype(at).unit_bytes() as u64));
        }
        let most = most_bytes();
        let gib = |bytes: u64| bytes as f64 / f64::from(1 << 30);
        match total <= most {
            true => Ok(()),
            false => Err(format!(
                "{} {}: its arguments take {:.1} GiB; the limit is {:.1}",
                self.op.name,
                self.case.label(),
                gib(total),
                gib(most)
            )),
        }
    }

    fn dtype(&self, at: usize) -> DType {
        self.case.dtype_of(&self.op.args[at])
    }

    fn fill(&mut self, at: usize) -> Result<Array, String> {
        let arg = &self.op.args[at];
        if self.is_absent(at) {
            return Ok(Array::Absent);
        }
        let ((rows, cols), dtype) = (self.extent(arg), self.dtype(at));
        let (r, c) = (rows as usize, cols as usize);
        let n = r * c;
        if arg.access == Access::Write {
            return Ok(Array::output(dtype, r, c));
        }
        let below = |s: &mut Shape<'_>, letter: char| s.rng.below(u64::from(s.size(letter).max(1))) as u32;
        Ok(match (dtype, arg.name) {
            (DType::F32, "step") => Array::F32(r, c, vec![1e-6, 0.19, 0.002, 0.0]),
            (DType::F32, name) => Array::F32(r, c, (0..n).map(|at| self.float(name, at)).collect()),
            (DType::F16, name) => Array::F16(r, c, (0..n).map(|at| f16::from_f32(self.float(name, at))).collect()),
            (DType::Bf16, name) => Array::Bf16(r, c, (0..n).map(|at| bf16::from_f32(self.float(name, at))).collect()),
            (DType::U32, "ids") => Array::U32(r, c, (0..n).map(|_| below(self, 'v')).collect()),
            (DType::U32, "target") => Array::U32(r, c, (0..n).map(|_| below(self, 'a')).collect()),
            (DType::U32, "rng") => Array::U32(r, c, vec![1, 2, 3, 0]),
            (DType::U32, "k") => {
                let weights = f64::from(self.size('o')) * f64::from(self.size('i'));
                let free = if self.case.twist == Twist::HalfFree { 0.5 * weights } else { weights };
                Array::U32(r, c, vec![(self.case.density.unwrap_or(1.0) * free).round() as u32])
            }
            (DType::U32, "row_start") => Array::U32(r, c, self.packed[0].clone()),
            (DType::U16, "col") => Array::U16(r, c, self.packed[1].iter().map(|c| *c as u16).collect()),
            (DType::U8, "valid") => Array::U8(r, c, vec![1; n]),
            (DType::U8, "flags") => Array::U8(r, c, (0..n).map(|_| self.rng.below(2) as u8).collect()),
            (DType::U8, _) => Array::U8(r, c, (0..n).map(|_| self.rng.u32() as u8).collect()),
            (DType::Bits, "candidates") => Array::Bits(Kind::Random.draw(rows, cols, 0.5, self.case.seed)),
            (DType::Bits, _) => Array::Bits(self.mask(rows, cols)?),
            (dtype, name) => return Err(format!("{}: no values for {dtype:?} {name}", self.op.name)),
        })
    }

    fn float(&mut self, name: &str, at: usize) -> f32 {
        let x = self.rng.uniform(-1.0, 1.0);
        (match name {
            "var_p" | "var_q" | "v" | "s" => x.abs() + 0.1,
            // Mean and reciprocal deviation of a row.
            "stats" if at % 2 == 1 => x.abs() + 1.0,
            _ => x,
        }) as f32
    }
}

/// A value for a scalar that stands in no relation to sizes.
fn usual_scalar(name: &str) -> Result<u32, String> {
    Ok(match name {
        "eps" => 1e-5f32.to_bits(),
        "floor" => 1e-3f32.to_bits(),
        "beta1" => 0.9f32.to_bits(),
        "beta2" => 0.999f32.to_bits(),
        "weight_decay" => 0.01f32.to_bits(),
        "lr_scale" | "max_norm" | "strength" | "value" => 1.0f32.to_bits(),
        "drop" => 0.1f32.to_bits(),
        "call" | "ties" => 0,
        other => return Err(format!("no usual value for the scalar {other}")),
    })
}

/// A gradient that reads outputs of its forward call gets them from the forward call.
fn follow_forward(op: &Contract, mut args: Vec<Array>, scalars: &[u32]) -> Result<Vec<Array>, String> {
    if op.name == "attention_dx" {
        let forward = &tsn::dt::autograd::engine::kernels::ops::attention::ATTENTION;
        let mut outputs = [3, 4].map(|at| match &args[at] {
            Array::F32(r, c, _) => Array::output(DType::F32, *r, *c),
            other => other.clone(),
        });
        let inputs = [args[..3].to_vec(), outputs.to_vec()].concat();
        let mut trial = Trial::new(forward, inputs, scalars).map_err(|why| format!("attention: {why:?}"))?;
        let variant = trial.variants().next_back().ok_or("attention: no variant")?;
        trial.run(variant, &Pool::serial())?;
        outputs.iter_mut().zip(&trial.args[3..]).for_each(|(out, done)| *out = done.clone());
        args[3..5].clone_from_slice(&outputs);
    }
    Ok(args)
}
