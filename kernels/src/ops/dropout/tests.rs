use super::draw::{STRIP, bits_at};
use super::*;
use crate::operand::{Call, Mat, MatMut, Operand};
use crate::ops::vmath::{Body, Simd};
use crate::par::Pool;
use crate::philox::{Rng, Stream, philox};
use crate::simd::Isa;
use crate::trial::{Array, Trial};

const RNG: [u32; 4] = [7, 11, 3, 0];

fn floats(rows: usize, cols: usize, place: u32) -> Array {
    let mut rng = Rng::new(1, Stream::Data, [place, 0]);
    Array::F32(rows, cols, (0..rows * cols).map(|_| rng.normal() as f32).collect())
}

fn trial(x: Array, add: Array, drop: f32, call: u32) -> Trial {
    let y = Array::output(DType::F32, x.shape().unwrap().rows as usize, x.shape().unwrap().cols as usize);
    let rng = Array::U32(1, 4, RNG.to_vec());
    Trial::new(&DROPOUT, vec![x, add, rng, y], &[drop.to_bits(), call]).unwrap()
}

#[test]
fn variants_meet_the_reference() {
    for (r, c) in [(0, 5), (5, 0), (1, 1), (3, 7), (31, 33), (60, 128), (1, 1000), (301, 3), (2, 64), (130, 129)] {
        for drop in [0.0, 1e-6, 0.1, 0.5, 0.999_999] {
            for add in [Array::Absent, floats(r, c, 2)] {
                trial(floats(r, c, 1), add, drop, 5).verify().unwrap();
            }
            let args = vec![floats(r, c, 1), Array::U32(1, 4, RNG.to_vec()), Array::output(DType::F32, r, c)];
            Trial::new(&DROPOUT_DX, args, &[drop.to_bits(), 5]).unwrap().verify().unwrap();
        }
    }
}

/// Compares the bits of a strip with the decisions one by one.
struct Strip {
    draw: Draw,
    block: u64,
}

impl Body for Strip {
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let mut kept = [0; STRIP];
        self.draw.strip(s, self.block, &mut kept);
        for i in 0..8 * S::WIDTH {
            assert_eq!(bits_at(&kept, i) & 1 == 1, self.draw.keeps(8 * self.block + i as u64), "{} + {i}", self.block);
        }
    }
}

#[test]
fn bits_are_taken_as_written() {
    let draw = Draw::new(&RNG, 0.25, 9);
    let big = (1u64 << 35) + 3;
    for e in (0..40).chain(big..big + 20) {
        let words = philox([(e / 8) as u32, ((e / 8) >> 32) as u32, 9, RNG[2]], [RNG[0], RNG[1]]);
        let bytes: Vec<u8> = words.iter().flat_map(|w| w.to_le_bytes()).collect();
        let half = u16::from_le_bytes([bytes[e as usize % 8 * 2], bytes[e as usize % 8 * 2 + 1]]);
        assert_eq!(draw.keeps(e), u32::from(half) >= 16384);
    }
    for block in [0, 5, u64::from(u32::MAX) - 3, (1 << 40) + 1] {
        vmath::Portable::run(Strip { draw, block });
        #[cfg(target_arch = "x86_64")]
        {
            if Isa::detect().has(Isa::Avx2) {
                vmath::Avx2::run(Strip { draw, block });
            }
            if Isa::detect().has(Isa::Avx512) {
                vmath::Avx512::run(Strip { draw, block });
            }
        }
    }
    assert_eq!(draw.scale(), 4.0 / 3.0);
}

#[test]
fn rate_holds_and_calls_differ() {
    let kept = |rng: [u32; 4], call| {
        let draw = Draw::new(&rng, 0.1, call);
        (0..100_000).map(|e| draw.keeps(e)).collect::<Vec<bool>>()
    };
    let first = kept(RNG, 0);
    let count = first.iter().filter(|k| **k).count();
    // Four standard deviations of a binomial count.
    assert!((89_620..90_380).contains(&count), "{count}");
    let agree = |other: Vec<bool>| first.iter().zip(&other).filter(|(a, b)| a == b).count();
    for other in [kept(RNG, 1), kept([7, 11, 4, 0], 0), kept([8, 11, 3, 0], 0), kept([7, 12, 3, 0], 0)] {
        assert!((81_300..82_700).contains(&agree(other)));
    }
    assert_eq!(agree(kept(RNG, 0)), 100_000);
}

#[test]
fn dropped_elements_are_not_read() {
    let (mut x, draw) = (vec![1.0; 640], Draw::new(&RNG, 0.5, 5));
    (0..640).filter(|e| !draw.keeps(*e)).for_each(|e| x[e as usize] = f32::NAN);
    for variant in DROPOUT.cpu.iter().filter(|v| Isa::detect().has(v.needs)) {
        let mut t = trial(Array::F32(10, 64, x.clone()), Array::Absent, 0.5, 5);
        t.run(variant, &Pool::serial()).unwrap();
        assert!(t.args[3].f32().iter().all(|y| *y == 0.0 || *y == 2.0), "{}", variant.name);
    }
}

#[test]
fn views_with_gaps_draw_by_logical_position() {
    let dense = trial(floats(9, 20, 1), Array::Absent, 0.3, 5);
    for variant in DROPOUT.cpu.iter().filter(|v| Isa::detect().has(v.needs)) {
        let mut expected = dense.clone();
        expected.run(variant, &Pool::serial()).unwrap();
        let mut wide = vec![0.0; 9 * 23];
        (0..180).for_each(|e| wide[e / 20 * 23 + e % 20] = dense.args[0].f32()[e]);
        let mut y = vec![-1.0; 9 * 31];
        let mut args = std::array::from_fn(|_| Operand::Absent);
        args[0] = Operand::F32(Mat { data: &wide[..8 * 23 + 20], rows: 9, cols: 20, ld: 23 });
        args[2] = Operand::U32(Mat::dense(&RNG, 1, 4));
        args[3] = Operand::F32Mut(MatMut { data: &mut y[..8 * 31 + 20], rows: 9, cols: 20, ld: 31 });
        let (dims, pool) = (&dense.dims, &Pool::serial());
        variant.stage().run(&mut Call::new(dims, pool, args));
        for (e, y) in y.iter().enumerate() {
            let want = if e % 31 < 20 { expected.args[3].f32()[e / 31 * 20 + e % 31] } else { -1.0 };
            assert_eq!(*y, want, "{} at {e}", variant.name);
        }
    }
}

#[test]
fn rates_outside_the_range_are_refused() {
    for drop in [-0.1, 1.0, 1.5, f32::NAN, f32::INFINITY] {
        assert!(check_drop(drop).is_err());
    }
    assert!(check_drop(0.0).is_ok());
}
