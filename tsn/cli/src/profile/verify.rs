//! Holds the very call that is timed against f64, or as much of it as takes about a second.

use super::case::{Case, Made};
use super::kernel::Kernel;
use super::ops;
use tsn::dt::autograd::engine::kernels::{Access, Array, BitMask, Contract, Pool, Trial, Value};

/// Operations that the reference and the plain loop may take: about a second of plain f64.
const MOST_WORK: f64 = 3e8;
/// Outputs along the separable letter that are checked when not all are.
const SAMPLED: usize = 8;

/// What was found.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Checked {
    /// What was compared: `all`, `r 8 of 3840`, a smaller shape, or the calls of a step.
    pub verified: String,
    /// Largest difference from f64 of the output that is nearest to its bound, and that bound. A step has many calls
    /// with a bound each, and no figure of its own.
    pub error: Option<[f64; 2]>,
}

/// Compares a variant with the reference; outputs are judged by the contract's rule.
///
/// # Errors
/// A sentence if the variant wrote outside its outputs, an integer differs, or an error is over its bound.
pub(crate) fn verify(case: &Case, made: &Made, kernel: &Kernel, pool: &Pool) -> Result<Checked, String> {
    let whole = work(case.op, made);
    if whole <= MOST_WORK {
        return compare(&made.trial, &made.trial, kernel, pool, None, "all".into());
    }
    if let Some(letter) = ops::separable(case.op) {
        let size = made.trial.dims.size(letter);
        let count = SAMPLED.min((MOST_WORK / whole * size as f64) as usize);
        // The reference works on f64 copies of everything that is not sampled.
        if count > 0 && made.bytes < 1 << 29 {
            let rows = spread(size, count);
            if let Some(part) = sample(made, letter, &rows) {
                let text = format!("{letter} {count} of {size}");
                return compare(&made.trial, &part, kernel, pool, Some((letter, &rows)), text);
            }
        }
    }
    smaller(case, kernel, pool)
}

/// Rough count of the reference's operations.
fn work(op: &Contract, made: &Made) -> f64 {
    let elements: f64 =
        made.trial.args.iter().filter_map(Array::shape).map(|s| f64::from(s.rows) * f64::from(s.cols)).sum();
    match op.name {
        // Tries every pair of borders.
        "kmeans" => pairs(made.trial.dims.size('n') as f64, made.trial.dims.size('k') as f64),
        // Sorting.
        "topk" => 20.0 * elements,
        _ => (made.dense_flops as f64).max(4.0 * elements),
    }
}

fn pairs(n: f64, k: f64) -> f64 {
    2.0 * n * n * k
}

/// `count` different places of `size`, the first and the last among them.
fn spread(size: usize, count: usize) -> Vec<usize> {
    match count {
        1 => vec![size / 2],
        _ => (0..count).map(|at| at * (size - 1) / (count - 1)).collect(),
    }
}

/// The call on some indices of a letter.
fn sample(made: &Made, letter: char, rows: &[usize]) -> Option<Trial> {
    let cut = |(array, arg): (&Array, &_)| pick(array, arg, letter, rows);
    let args = made.trial.args.iter().zip(made.trial.op.args).map(cut).collect();
    Trial::new(made.trial.op, args, &made.scalars).ok()
}

/// The rows or columns of an argument that belong to some indices of a letter.
fn pick(array: &Array, arg: &tsn::dt::autograd::engine::kernels::Arg, letter: char, at: &[usize]) -> Array {
    fn cut<T: Copy>(v: &[T], cols: usize, by_row: bool, at: &[usize]) -> (usize, usize, Vec<T>) {
        let rows = v.len().checked_div(cols).unwrap_or(0);
        match by_row {
            true => (at.len(), cols, at.iter().flat_map(|r| &v[r * cols..][..cols]).copied().collect()),
            false => (rows, at.len(), (0..rows).flat_map(|r| at.iter().map(move |c| v[r * cols + c])).collect()),
        }
    }
    let by_row = arg.dims.len() == 2 && arg.dims[0] == letter;
    if !arg.dims.contains(&letter) {
        return array.clone();
    }
    macro_rules! cut {
        ($Kind:ident, $cols:expr, $v:expr) => {{
            let (rows, cols, v) = cut($v, *$cols, by_row, at);
            Array::$Kind(rows, cols, v)
        }};
    }
    match array {
        Array::F32(_, cols, v) => cut!(F32, cols, v),
        Array::F16(_, cols, v) => cut!(F16, cols, v),
        Array::Bf16(_, cols, v) => cut!(Bf16, cols, v),
        Array::U32(_, cols, v) => cut!(U32, cols, v),
        Array::U16(_, cols, v) => cut!(U16, cols, v),
        Array::U8(_, cols, v) => cut!(U8, cols, v),
        Array::Bits(mask) => {
            let flags: Vec<bool> = mask.flags().collect();
            let (rows, cols, flags) = cut(&flags, mask.cols() as usize, by_row, at);
            Array::Bits(BitMask::from_flags(rows as u32, cols as u32, flags))
        }
        other => other.clone(),
    }
}

/// Runs the whole call, and compares it, or its part that is `sampled`, with the reference of `part`.
fn compare(
    whole: &Trial,
    part: &Trial,
    kernel: &Kernel,
    pool: &Pool,
    sampled: Option<(char, &[usize])>,
    verified: String,
) -> Result<Checked, String> {
    let got = kernel.run(whole, pool)?;
    let expected = part.reference();
    let first = kernel.plain(whole);
    let is_plain = kernel.name() == first.name();
    let plain = if is_plain { Vec::new() } else { first.run(part, &Pool::serial())? };
    let mut worst = [0.0, 0.0];
    for (at, arg) in whole.op.args.iter().enumerate().filter(|(_, a)| a.access != Access::Read) {
        let ours = match sampled {
            Some((letter, rows)) => pick(&got[at], arg, letter, rows).value(),
            None => got[at].value(),
        };
        let output = |why: String| format!("output {}: {why}", arg.name);
        let (error, scale) = distance(&ours, &expected.args[at]).map_err(output)?;
        let tol = whole.op.tol.of(whole.dtype());
        let tolerance = match is_plain {
            true => f64::from(tol.plain) * scale,
            false => {
                let plain_error = distance(&plain[at].value(), &expected.args[at]);
                let (plain_error, _) = plain_error.map_err(|why| output(format!("of the plain variant: {why}")))?;
                (f64::from(tol.times) * plain_error).max(f64::from(tol.floor) * scale)
            }
        };
        if error > tolerance {
            return Err(output(format!(
                "error {error:e} is over {tolerance:e} (largest value {scale:e}; {})",
                verified
            )));
        }
        // Cross-multiplied, so that bounds of zero need no case of their own.
        if error * worst[1] >= worst[0] * tolerance && tolerance > 0.0 {
            worst = [error, tolerance];
        }
    }
    Ok(Checked { verified, error: Some(worst) })
}

/// The same variant on the same kind of data, with the largest sizes halved until the reference can follow.
fn smaller(case: &Case, kernel: &Kernel, pool: &Pool) -> Result<Checked, String> {
    let mut case = Case { learned: None, ..case.clone() };
    loop {
        let Some((_, size)) = case.sizes.iter_mut().max_by_key(|(_, size)| *size) else {
            return Err("has no size to reduce".into());
        };
        *size = (*size / 2).max(1);
        let small = estimate(&case);
        if small <= MOST_WORK || case.sizes.iter().all(|(_, size)| *size == 1) {
            break;
        }
    }
    let made = case.make()?;
    let sizes: Vec<String> = case.sizes.iter().map(|(letter, size)| format!("{letter}{size}")).collect();
    compare(&made.trial, &made.trial, kernel, pool, None, format!("smaller: {}", sizes.join(" ")))
}

/// Work of a case that may be too large to make: the product of all sizes is over every cost in this project.
fn estimate(case: &Case) -> f64 {
    let product: f64 = case.sizes.iter().map(|(_, size)| f64::from(*size)).product();
    let size = |letter: char| case.sizes.iter().find(|(l, _)| *l == letter).map_or(1, |(_, n)| *n);
    match case.op.name {
        "kmeans" => pairs(f64::from(size('n')), f64::from(size('k'))),
        "attention" | "attention_dx" => 10.0 * product * f64::from(size('t')),
        _ => 4.0 * product.max(1.0),
    }
}

/// Largest absolute difference, and the largest finite expected magnitude. NaN must meet NaN, infinity the same.
fn distance(got: &Value, expected: &Value) -> Result<(f64, f64), String> {
    match (got, expected) {
        (Value::Absent, Value::Absent) => Ok((0.0, 0.0)),
        (Value::U(a), Value::U(b)) if a == b => Ok((0.0, 0.0)),
        (Value::U(a), Value::U(b)) => {
            let at = a.iter().zip(b).position(|(x, y)| x != y);
            Err(format!("integers differ, the first at {at:?} of {}", b.len()))
        }
        (Value::F(a), Value::F(b)) if a.len() == b.len() => {
            let (mut error, mut scale) = (0.0f64, 0.0f64);
            for (at, (x, y)) in a.iter().zip(b).enumerate() {
                if x.is_finite() && y.is_finite() {
                    (error, scale) = (error.max((x - y).abs()), scale.max(y.abs()));
                } else if !(x.is_nan() && y.is_nan()) && x != y {
                    return Err(format!("element {at} is {x}, expected {y}"));
                }
            }
            Ok((error, scale))
        }
        _ => Err("the reference has another type or size".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::profile::expand::find_op;
    use tsn::dt::autograd::engine::kernels::contract::Variant;
    use tsn::dt::autograd::engine::kernels::{Call, DType, Isa, OPS, Repeat};

    /// Sizes at which the plain loops take no time.
    fn tiny(op: &'static Contract) -> Case {
        let sizes =
            [('n', 6), ('m', 7), ('d', 5), ('k', 3), ('r', 6), ('o', 9), ('i', 37), ('b', 2), ('t', 3), ('h', 2)];
        let case = Case::usual(op).with(&sizes).with(&[('c', 5), ('s', 4), ('a', 5), ('v', 11), ('j', 2)]);
        match op.name.starts_with("conv") {
            true => case.with(&[('c', 2), ('s', 9), ('k', 3), ('t', 2)]),
            false => case,
        }
    }

    #[test]
    fn every_variant_of_every_op_is_made_verified_and_repeated() {
        for op in OPS {
            for density in [None, Some(0.3)] {
                let mut case = tiny(op);
                case.density = case.density.map(|usual| density.unwrap_or(usual));
                let made = case.make().unwrap_or_else(|why| panic!("{why}"));
                assert!(made.bytes > 0 && made.kept_flops <= made.dense_flops, "{}", op.name);
                for variant in op.cpu.iter().filter(|v| Isa::detect().has(v.needs)) {
                    let case = Case { dtype: variant.only.unwrap_or(DType::F32), ..case.clone() };
                    let made = case.make().unwrap_or_else(|why| panic!("{why}"));
                    let checked = verify(&case, &made, &Kernel::Cpu(variant), &Pool::serial());
                    let checked = checked.unwrap_or_else(|why| panic!("{} {}: {why}", op.name, variant.name));
                    assert_eq!(checked.verified, "all");
                    let mut repeat = Repeat::new(made.trial.clone(), variant, Pool::serial());
                    (0..3).for_each(|_| repeat.run());
                }
            }
        }
    }

    fn off_by_one(call: &mut Call<'_>) {
        let mut y = call.f32_mut(5);
        y.data.fill(0.0);
        let rows = y.rows;
        y.row(rows - 1).fill(1.0);
    }

    #[test]
    fn a_wrong_kernel_is_found_out() {
        let op = find_op("masked_gemm").expect("in the list");
        static WRONG: Variant = Variant::any("wrong", off_by_one);
        let wrong = Kernel::Cpu(&WRONG);
        for sizes in [[('r', 8), ('o', 8), ('i', 8)], [('r', 3000), ('o', 512), ('i', 128)]] {
            let case = Case::usual(op).with(&sizes);
            let made = case.make().expect("a call");
            let why = verify(&case, &made, &wrong, &Pool::serial()).expect_err("nothing is right");
            assert!(why.contains("output y: error"), "{why}");
        }
        // With all bits cleared every output is 0 but for the last row.
        let case = Case { density: Some(0.0), ..Case::usual(op).with(&[('r', 3000), ('o', 512), ('i', 128)]) };
        let made = case.make().expect("a call");
        assert!(verify(&case, &made, &wrong, &Pool::serial()).is_err(), "the last row is among those checked");
    }

    #[test]
    fn large_calls_are_checked_in_part() {
        let sizes = [('r', 3000), ('o', 512), ('i', 128)];
        for (op, expected) in [("gemm", "r 8 of 3000"), ("gemm_dw", "o 8 of 512"), ("masked_gemm_dw", "o 8 of 512")] {
            let op = find_op(op).expect("in the list");
            let case = Case::usual(op).with(&sizes);
            let made = case.make().expect("a call");
            let checked = verify(&case, &made, &Kernel::Cpu(op.best(Isa::detect())), &Pool::serial()).expect("right");
            assert_eq!(checked.verified, expected);
            assert!(checked.error.is_some_and(|[error, tolerance]| 0.0 < error && error <= tolerance));
        }
        // Sequences are not cut apart, so a large batch stands for itself in small.
        let op = find_op("attention").expect("in the list");
        let case = Case::usual(op).with(&[('t', 300)]);
        let made = case.make().expect("a call");
        let checked = verify(&case, &made, &Kernel::Cpu(op.best(Isa::detect())), &Pool::serial()).expect("right");
        assert!(checked.verified.starts_with("smaller: b64 t"), "{checked:?}");
    }

    #[test]
    fn places_are_spread() {
        assert_eq!(spread(10, 4), [0, 3, 6, 9]);
        assert_eq!(spread(10, 1), [5]);
        assert_eq!(spread(3, 3), [0, 1, 2]);
    }
}
