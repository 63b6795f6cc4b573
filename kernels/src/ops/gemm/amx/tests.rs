use super::element::Element;
use super::pack::{self, Factor, Run};
use crate::contract::DType;
use crate::operand::Mat;
use crate::ops::gemm::GEMM;
use crate::philox::{Rng, Stream};
use crate::trial::{Array, Trial};
use crate::{Isa, Pool};
use std::io::Write;

fn tiles_are_here() -> bool {
    let here = Isa::detect().has(Isa::Amx);
    if !here {
        writeln!(std::io::stderr(), "not run: this machine has no matrix tiles").expect("standard error is open");
    }
    here
}

/// Values of all magnitudes between two powers of two.
fn spread(seed: u64, len: usize, powers: std::ops::Range<i32>) -> Vec<f32> {
    let mut rng = Rng::new(seed, Stream::Init, [0; 2]);
    let mut value = || {
        let power = powers.start + (rng.u64() % powers.len() as u64) as i32;
        let mantissa = 1.0 + (rng.u64() >> 41) as f32 / (1 << 23) as f32;
        if rng.u64() & 1 == 0 { mantissa * 2f32.powi(power) } else { -mantissa * 2f32.powi(power) }
    };
    (0..len).map(|_| value()).collect()
}

#[test]
fn parts_add_up_exactly() {
    if !tiles_are_here() {
        return;
    }
    let x = spread(1, 16 * 32, -109..127);
    let mut tiles = vec![0.0f32; 3 * 256];
    let factor = Factor { m: Mat::dense(&x, 16, 32), mask: None };
    // SAFETY: the instruction set was found above.
    #[expect(unsafe_code, reason = "calls code compiled for an instruction set")]
    unsafe {
        pack::left(factor, Run::Along, 0, 0, 3 * 256, &mut tiles);
    }
    for (m, row) in x.chunks_exact(32).enumerate() {
        for j in 0..16 {
            for (half, k) in f32::pair(j).into_iter().enumerate() {
                let part =
                    |p: usize| f32::from_bits(tiles[256 * p + 16 * m + j].to_bits() << (16 * (1 - half)) & !0xFFFF);
                let parts = [part(0), part(1), part(2)];
                assert_eq!(parts.iter().map(|p| f64::from(*p)).sum::<f64>(), f64::from(row[k]), "{parts:?}");
                assert!(
                    parts[1].abs() <= parts[0].abs() / 256.0 && parts[2].abs() <= parts[0].abs() / 65536.0,
                    "{parts:?}"
                );
            }
        }
    }
}

#[test]
fn products_of_all_magnitudes_are_as_exact_as_of_f32() {
    let (r, i, o) = (48, 160, 40);
    let (x, w) = (spread(2, r * i, -30..30), spread(3, o * i, -30..30));
    let args = vec![
        Array::F32(r, i, x.clone()),
        Array::F32(o, i, w.clone()),
        Array::Absent,
        Array::output(DType::F32, r, o),
        Array::Absent,
    ];
    let trial = Trial::new(&GEMM, args, &[]).expect("shapes agree");
    let worst = |name: &str| {
        let mut trial = trial.clone();
        let variant = trial.variants().find(|v| v.name == name)?;
        trial.run(variant, &Pool::serial()).expect("stays inside its outputs");
        let y = trial.args[3].f32();
        let error = |at: usize| {
            let terms = (0..i).map(|k| f64::from(x[at / o * i + k]) * f64::from(w[at % o * i + k]));
            let (sum, size) = terms.fold((0.0, 0.0), |(sum, size), t| (sum + t, size + t.abs()));
            (f64::from(y[at]) - sum).abs() / size
        };
        Some((0..r * o).map(error).fold(0.0, f64::max))
    };
    if tiles_are_here() {
        let [plain, tiles] = ["plain", "tiles_amx"].map(|name| worst(name).expect("runs here"));
        assert!(tiles <= plain.max(2f64.powi(-24)), "{tiles:e} against {plain:e}");
    }
}

#[test]
fn nan_of_any_bits_stays() {
    if !tiles_are_here() {
        return;
    }
    for bits in [0x7FC0_0000, 0x7F80_0001, 0x7FFF_FFFF, u32::MAX, 0xFFFF_8000] {
        for k in [3, 20] {
            let mut x = vec![1.0f32; 32 * 32];
            x[5 * 32 + k] = f32::from_bits(bits);
            let w = Array::F32(32, 32, vec![1.0; 32 * 32]);
            let args = vec![Array::F32(32, 32, x), w, Array::Absent, Array::output(DType::F32, 32, 32), Array::Absent];
            let mut trial = Trial::new(&GEMM, args, &[]).expect("shapes agree");
            let variant = trial.variants().find(|v| v.name == "tiles_amx").expect("runs here");
            trial.run(variant, &Pool::serial()).expect("stays inside its outputs");
            let y = trial.args[3].f32();
            assert!(y[5 * 32..6 * 32].iter().all(|y| y.is_nan()), "{bits:#x} at {k}");
            assert!(y[..5 * 32].iter().chain(&y[6 * 32..]).all(|y| *y == 32.0), "{bits:#x} at {k}");
        }
    }
}
