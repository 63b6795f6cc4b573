//! One call on a device: its arguments lie at odd places, or at multiples of four, with gaps between their rows, and nothing
//! beside them may change.

use engine::{Buffer, Builder, Device, Life, Slice};
use kernels::contract::ArgShape;
use kernels::trial::{Array, Trial};
use kernels::{BitMask, DType, bf16, f16};

/// Storage units before the first row and behind each row.
const ODD: (u32, u32) = (5, 3);
/// The same where rows then begin at multiples of four, for variants that read four elements at a time.
const EVEN: (u32, u32) = (8, 4);

/// The arguments after one call, in contract order.
///
/// # Errors
/// What the device says, or the name of an argument beside which something changed.
pub fn run(trial: &Trial, device: &Device) -> Result<Vec<Array>, String> {
    let mut plan = Builder::new();
    let mut slices = Vec::new();
    for (arg, array) in trial.op.args.iter().zip(&trial.args) {
        slices.push(array.shape().map(|shape| place(&mut plan, arg.name, shape)));
    }
    let scalars: Vec<u32> = (0..trial.op.scalars.len()).map(|at| trial.dims.scalar(at)).collect();
    plan.call(trial.op, &slices, &scalars).map_err(|e| e.to_string())?;
    let mut program = plan.finish().and_then(|plan| plan.bind(device)).map_err(|e| e.to_string())?;
    let mut around = Vec::new();
    for ((arg, array), slice) in trial.op.args.iter().zip(&trial.args).zip(&slices) {
        let Some(slice) = slice else { continue };
        let bytes = spread(array, slice, program.units(arg.name).map_err(|e| e.to_string())?);
        program.write_state_bytes(arg.name, &bytes).map_err(|e| e.to_string())?;
        around.push(bytes);
    }
    program.run().map_err(|e| e.to_string())?;
    let mut got = Vec::new();
    let mut around = around.into_iter();
    let states = program.states().map_err(|e| e.to_string())?;
    for ((arg, array), slice) in trial.op.args.iter().zip(&trial.args).zip(&slices) {
        let (Some(slice), Some(shape)) = (slice, array.shape()) else {
            got.push(Array::Absent);
            continue;
        };
        let (_, _, bytes) = states.iter().find(|(name, ..)| *name == arg.name).expect("a state has this name");
        let before = around.next().expect("one for each argument");
        got.push(gather(&before, bytes, shape, slice).ok_or_else(|| format!("wrote beside {}", arg.name))?);
    }
    Ok(got)
}

fn place(plan: &mut Builder, name: &str, shape: ArgShape) -> Slice {
    let ArgShape { dtype, rows, cols } = shape;
    let (lead, gap) = if rows % 2 == 0 && cols % 4 == 0 { EVEN } else { ODD };
    let ld = dtype.row_units(cols) + gap;
    let units = lead + rows * ld + gap;
    let elements = if dtype == DType::Bits { 32 * units } else { units };
    let buffer: Buffer = plan.buffer(name, dtype, 1, elements, Life::State);
    Slice { buffer, at: lead, rows, cols, ld }
}

/// Rows of an array as bytes without gaps.
fn rows_of(array: &Array) -> Vec<u8> {
    match array {
        Array::Absent => Vec::new(),
        Array::F32(_, _, v) => v.iter().flat_map(|v| v.to_ne_bytes()).collect(),
        Array::F16(_, _, v) => v.iter().flat_map(|v| v.to_bits().to_ne_bytes()).collect(),
        Array::Bf16(_, _, v) => v.iter().flat_map(|v| v.to_bits().to_ne_bytes()).collect(),
        Array::U32(_, _, v) => v.iter().flat_map(|v| v.to_ne_bytes()).collect(),
        Array::U16(_, _, v) => v.iter().flat_map(|v| v.to_ne_bytes()).collect(),
        Array::U8(_, _, v) => v.clone(),
        Array::Bits(mask) => mask.words().iter().flat_map(|v| v.to_ne_bytes()).collect(),
    }
}

/// The buffer of an array: garbage wherever no element lies.
fn spread(array: &Array, slice: &Slice, units: usize) -> Vec<u8> {
    let shape = array.shape().expect("present");
    let unit = shape.dtype.unit_bytes();
    let row = shape.dtype.row_units(shape.cols) as usize * unit;
    let mut all: Vec<u8> = (0..units * unit).map(|at| 0xA1 ^ at as u8).collect();
    if row > 0 {
        for (r, from) in rows_of(array).chunks(row).enumerate() {
            let at = (slice.at as usize + r * slice.ld as usize) * unit;
            all[at..at + row].copy_from_slice(from);
        }
    }
    all
}

/// The array in a buffer, `None` if anything beside it differs from `before`.
fn gather(before: &[u8], after: &[u8], shape: ArgShape, slice: &Slice) -> Option<Array> {
    let ArgShape { dtype, rows, cols } = shape;
    let (unit, row) = (dtype.unit_bytes(), dtype.row_units(cols) as usize * dtype.unit_bytes());
    let (mut data, mut rest) = (Vec::new(), after.to_vec());
    for r in 0..rows as usize {
        let at = (slice.at as usize + r * slice.ld as usize) * unit;
        data.extend_from_slice(&after[at..at + row]);
        rest[at..at + row].copy_from_slice(&before[at..at + row]);
    }
    if rest != before {
        return None;
    }
    let (r, c) = (rows as usize, cols as usize);
    let halves = || data.as_chunks::<2>().0.iter().map(|b| u16::from_ne_bytes(*b));
    let words = || data.as_chunks::<4>().0.iter().map(|b| u32::from_ne_bytes(*b));
    Some(match dtype {
        DType::F32 => Array::F32(r, c, words().map(f32::from_bits).collect()),
        DType::F16 => Array::F16(r, c, halves().map(f16::from_bits).collect()),
        DType::Bf16 => Array::Bf16(r, c, halves().map(bf16::from_bits).collect()),
        DType::U32 => Array::U32(r, c, words().collect()),
        DType::U16 => Array::U16(r, c, halves().collect()),
        DType::U8 => Array::U8(r, c, data),
        // A pad bit that a kernel sets is refused here.
        DType::Bits => Array::Bits(BitMask::from_words(rows, cols, words().collect())?),
    })
}
