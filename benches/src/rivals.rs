//! Calls of other libraries on the same numbers, one thread each.
//!
//! What a rival does not time is work it does once: the copy of the weight with zeros behind cleared bits for the dense
//! products of `masked_gemm`; for sprs the compressed rows, `x` transposed before and `y` left transposed; the index of
//! usearch. Buffers of products begin at a cache line and are in large pages, as ours are. Every rival's result is compared with ours before it is timed.

#![expect(unsafe_code, reason = "gemm and matrixmultiply take pointers")]

use crate::Work;
use faer::linalg::matmul::matmul;
use faer::{Accum, MatMut, MatRef, Par};
use kernels::{Array, Isa, Trial, pages};
use sprs::{CsMat, TriMat, prod::csr_mulacc_dense_rowmaj};
use usearch::{Index, IndexOptions, MetricKind, ScalarKind};

/// Difference to our result that two roundings explain, relative to its largest magnitude.
const CLOSE: f32 = 1e-4;

/// Writes the result into the output.
type Call = Box<dyn FnMut(&mut [f32])>;

/// How a product of a library is called: `y[r, o] = x[r, i] wᵀ[i, o]`.
type Product = fn(&[f32], &[f32], &mut [f32], [usize; 3]);

const PRODUCTS: [(&str, Product); 3] = [("faer", faer), ("gemm", gemm), ("matrixmultiply", matrixmultiply)];

/// A library's call with its inputs and output.
pub struct Rival {
    call: Call,
    y: Vec<f32>,
    /// Where the output begins, at a cache line for products.
    begin: usize,
    /// Rows of the output if it is stored by columns.
    transposed: Option<usize>,
}

/// The libraries that have an op.
pub fn names(op: &str) -> &'static [&'static str] {
    match op {
        "gemm" => &["faer", "gemm", "matrixmultiply"],
        "masked_gemm" => &["faer", "gemm", "matrixmultiply", "sprs"],
        "cosine_topk" => &["usearch"],
        _ => &[],
    }
}

impl Rival {
    /// The call of a trial by one of [`names`], held against our best variant.
    ///
    /// # Errors
    /// A sentence if the results differ.
    pub fn checked(name: &str, trial: &Trial) -> Result<Rival, String> {
        let mut rival = Rival::new(name, trial)?;
        rival.run();
        let mut ours = Work::new(trial.clone(), trial.op.best(Isa::detect()));
        ours.run();
        rival.compare(ours.output()).map_err(|why| format!("{} by {name}: {why}", trial.op.name))?;
        Ok(rival)
    }

    /// Runs it once.
    pub fn run(&mut self) {
        (self.call)(&mut self.y[self.begin..]);
    }

    fn new(name: &str, trial: &Trial) -> Result<Rival, String> {
        let size = |letter| trial.dims.size(letter);
        let input = |at: usize| pages::copied(trial.args[at].f32());
        let product = PRODUCTS.iter().find(|(product, _)| *product == name);
        match (trial.op.name, product) {
            ("gemm" | "masked_gemm", Some((_, product))) => {
                let ((x, x0), (w, w0)) = (input(0), pages::copied(&masked(trial)));
                let sizes = [size('r'), size('o'), size('i')];
                let call = Box::new(move |y: &mut [f32]| product(&x[x0..], &w[w0..], y, sizes));
                let (y, begin) = pages::copied(&vec![0.0; size('r') * size('o')]);
                Ok(Rival { call, y, begin, transposed: None })
            }
            ("masked_gemm", None) if name == "sprs" => Ok(sparse(trial)),
            ("cosine_topk", None) if name == "usearch" => nearest(trial).map_err(|error| error.to_string()),
            (op, _) => Err(format!("{name} has no {op}")),
        }
    }

    /// Fails if a result is too far from ours.
    fn compare(&self, ours: &[f32]) -> Result<(), String> {
        let cols = self.transposed.map_or(1, |rows| ours.len() / rows.max(1));
        let y = &self.y[self.begin..];
        let at = |i: usize| self.transposed.map_or(i, |rows| i % cols * rows + i / cols);
        let scale = ours.iter().fold(0.0f32, |most, x| most.max(x.abs()));
        // NaN is not close.
        let close = |i: usize| (y[at(i)] - ours[i]).abs() <= CLOSE * scale;
        if y.len() != ours.len() {
            return Err(format!("{} values, expected {}", y.len(), ours.len()));
        }
        match (0..ours.len()).find(|i| !close(*i)) {
            Some(i) => Err(format!("element {i} is {}, ours {}", y[at(i)], ours[i])),
            None => Ok(()),
        }
    }
}

/// The weight with zeros where the mask of `masked_gemm` is cleared.
fn masked(trial: &Trial) -> Vec<f32> {
    let w = trial.args[1].f32();
    match &trial.args[2] {
        Array::Bits(mask) => w.iter().zip(mask.flags()).map(|(w, kept)| if kept { *w } else { 0.0 }).collect(),
        _ => w.to_vec(),
    }
}

fn faer(x: &[f32], w: &[f32], y: &mut [f32], [r, o, i]: [usize; 3]) {
    let (x, w) = (MatRef::from_row_major_slice(x, r, i), MatRef::from_row_major_slice(w, o, i));
    let y = MatMut::from_row_major_slice_mut(y, r, o);
    matmul(y, Accum::Replace, x, w.transpose(), 1.0, Par::Seq);
}

fn gemm(x: &[f32], w: &[f32], y: &mut [f32], [r, o, i]: [usize; 3]) {
    assert!(x.len() == r * i && w.len() == o * i && y.len() == r * o, "slices hold whole matrices");
    let serial = gemm::Parallelism::None;
    let (x_row, y_row) = (i as isize, o as isize);
    // SAFETY: the strides describe row-major matrices whose sizes were compared with the slices above; y overlaps nothing.
    unsafe {
        gemm::gemm(
            r,
            o,
            i,
            y.as_mut_ptr(),
            1,
            y_row,
            false,
            x.as_ptr(),
            1,
            x_row,
            w.as_ptr(),
            x_row,
            1,
            0.0,
            1.0,
            false,
            false,
            false,
            serial,
        );
    }
}

fn matrixmultiply(x: &[f32], w: &[f32], y: &mut [f32], [r, o, i]: [usize; 3]) {
    assert!(x.len() == r * i && w.len() == o * i && y.len() == r * o, "slices hold whole matrices");
    let (x_row, y_row) = (i as isize, o as isize);
    // SAFETY: the strides describe row-major matrices whose sizes were compared with the slices above; y overlaps nothing.
    unsafe {
        matrixmultiply::sgemm(r, i, o, 1.0, x.as_ptr(), x_row, 1, w.as_ptr(), 1, x_row, 0.0, y.as_mut_ptr(), y_row, 1);
    }
}

/// `yᵀ = W xᵀ` with compressed rows.
fn sparse(trial: &Trial) -> Rival {
    let [r, o, i] = ['r', 'o', 'i'].map(|letter| trial.dims.size(letter));
    let (x, w) = (trial.args[0].f32(), masked(trial));
    let mut list = TriMat::new((o, i));
    (0..o * i).filter(|at| w[*at] != 0.0).for_each(|at| list.add_triplet(at / i, at % i, w[at]));
    let kept: CsMat<f32> = list.to_csr();
    let columns: Vec<f32> = (0..i * r).map(|at| x[at % r * i + at / r]).collect();
    let call = Box::new(move |y: &mut [f32]| {
        y.fill(0.0);
        let x = ndarray::ArrayView2::from_shape((i, r), &columns).expect("sizes of the trial");
        let y = ndarray::ArrayViewMut2::from_shape((o, r), y).expect("sizes of the trial");
        csr_mulacc_dense_rowmaj(kept.view(), x, y);
    });
    Rival { call, y: vec![0.0; r * o], begin: 0, transposed: Some(r) }
}

/// Exact search, one query at a time; the output is the cosines.
fn nearest(trial: &Trial) -> Result<Rival, Box<dyn std::error::Error>> {
    let [m, d, k] = ['m', 'd', 'k'].map(|letter| trial.dims.size(letter));
    let options =
        IndexOptions { dimensions: d, metric: MetricKind::Cos, quantization: ScalarKind::F32, ..Default::default() };
    let index = Index::new(&options)?;
    index.reserve(m)?;
    for (key, vector) in trial.args[1].f32().chunks_exact(d).enumerate() {
        index.add(key as u64, vector)?;
    }
    let queries = trial.args[0].f32().to_vec();
    let call = Box::new(move |y: &mut [f32]| {
        for (query, best) in queries.chunks_exact(d).zip(y.chunks_exact_mut(k)) {
            let found = index.exact_search(query, k).expect("an index of the same width");
            best.iter_mut().zip(found.distances).for_each(|(cosine, distance)| *cosine = 1.0 - distance);
        }
    });
    Ok(Rival { call, y: vec![0.0; trial.dims.size('n') * k], begin: 0, transposed: None })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{bits, output, trial, values};
    use kernels::DType;
    use kernels::ops::{cosine::COSINE_TOPK, gemm::GEMM, masked_gemm::MASKED_GEMM};

    fn trials() -> [Trial; 3] {
        let weight = [values(2, 24, 40), bits(3, 24, 40, 0.3), Array::Absent, Array::Absent];
        [
            trial(&GEMM, vec![values(1, 17, 40), values(2, 24, 40), Array::Absent, output(17, 24)], &[]),
            trial(&MASKED_GEMM, [vec![values(1, 17, 40)], weight.to_vec(), vec![output(17, 24)]].concat(), &[]),
            trial(
                &COSINE_TOPK,
                vec![values(1, 9, 32), values(2, 50, 32), output(9, 3), Array::output(DType::U32, 9, 3)],
                &[],
            ),
        ]
    }

    #[test]
    fn rivals_agree_with_us() {
        for trial in trials() {
            assert!(!names(trial.op.name).is_empty());
            for name in names(trial.op.name) {
                Rival::checked(name, &trial).unwrap_or_else(|why| panic!("{why}"));
            }
        }
    }

    #[test]
    fn another_result_is_refused() {
        for trial in trials() {
            for name in names(trial.op.name) {
                let rival = Rival::checked(name, &trial).unwrap();
                let mut wrong = Rival { y: rival.y.clone(), ..rival };
                wrong.y[5] += 1.0;
                let ours = Rival::checked(name, &trial).unwrap();
                assert!(wrong.compare(&straight(&ours)).unwrap_err().contains("ours"));
            }
        }
        assert!(Rival::checked("nobody", &trials()[0]).is_err());
    }

    fn straight(rival: &Rival) -> Vec<f32> {
        let n = rival.y.len();
        let Some(rows) = rival.transposed else { return rival.y.clone() };
        (0..n).map(|i| rival.y[i % (n / rows) * rows + i / (n / rows)]).collect()
    }
}
