use super::*;
use crate::bits::BitMask;
use crate::ops::gemm::tests::values;
use crate::ops::masked_gemm::tests::bits;
use crate::trial::{Array, Trial};
use half::f16;
use proptest::prelude::*;

/// `w` without the elements whose bit is clear.
fn pack(w: &Array, mask: &BitMask) -> [Array; 3] {
    let (mut start, mut col, mut value) = (vec![0u32], Vec::new(), Vec::new());
    for row in 0..mask.rows() as usize {
        for j in (0..mask.cols() as usize).filter(|j| mask.get(row, *j)) {
            col.push(j as u16);
            value.push(f16::from_f32(w.f32()[row * mask.cols() as usize + j]));
        }
        start.push(col.len() as u32);
    }
    let n = col.len();
    [Array::U32(1, start.len(), start), Array::U16(1, n, col), Array::F16(1, n, value)]
}

fn trial(seed: u64, r: usize, i: usize, o: usize, keep: f64) -> Trial {
    let [start, col, value] = pack(&values(seed, 1, o, i), &bits(seed, 0, o, i, keep));
    let bias = if seed.is_multiple_of(2) { values(seed, 2, 1, o) } else { Array::Absent };
    let args = vec![values(seed, 0, r, i), start, col, value, bias, Array::output(DType::F32, r, o)];
    // Without a bias, only y says how many outputs there are.
    Trial::new(&PACKED_GEMM, args, &[]).expect("shapes agree")
}

#[test]
fn products_agree_with_f64() {
    let sizes = [
        (0, 3, 4),
        (1, 128, 128),
        (31, 33, 32),
        (32, 1, 33),
        (33, 32, 31),
        (60, 128, 18),
        (65, 300, 2),
        (2, 0, 3),
        (3, 5, 0),
    ];
    for (seed, (r, i, o)) in sizes.into_iter().enumerate() {
        for keep in [0.0, 0.1, 0.5, 1.0] {
            trial(seed as u64, r, i, o, keep).verify().expect("packed_gemm");
        }
    }
}

#[test]
fn row_starts_must_fit() {
    let mut args = trial(0, 2, 5, 3, 0.5).args;
    args[1] = Array::U32(1, 3, vec![0, 0, 0]);
    assert!(Trial::new(&PACKED_GEMM, args, &[]).is_err());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn any_size_and_density(seed: u64, r in 0usize..70, i in 0usize..100, o in 0usize..70, keep in 0.0..1.0f64) {
        prop_assert_eq!(trial(seed, r, i, o, keep).verify(), Ok(()));
    }
}
