//! Calls on the same rows in one launch give the bits of a launch for each.

use engine::{Builder, DType, Device, Life, Plan, Slice};
use kernels::ops::{dropout, gemm, layernorm, pointwise, tokens};
use kernels::philox::{Rng, Stream};
use std::sync::Arc;
use tsn_emulator::{Emulator, Order};

/// Share of elements that dropout leaves out, and the number of a call.
const DROP: [u32; 2] = [0x3e80_0000, 7]; // 0.25
const EPS: u32 = 0x3727_c5ac; // 1e-5

/// Records calls on states, so that all that they write can be read.
struct Recorder {
    plan: Builder,
    count: usize,
}

impl Recorder {
    fn buffer_of(&mut self, dtype: DType, rows: u32, cols: u32) -> Option<Slice> {
        self.count += 1;
        let buffer = self.plan.buffer(format!("{:02}", self.count), dtype, rows, cols, Life::State);
        Some(self.plan.whole(buffer))
    }

    fn buffer(&mut self, rows: u32, cols: u32) -> Option<Slice> {
        self.buffer_of(DType::F32, rows, cols)
    }

    fn call(&mut self, op: &'static kernels::Contract, args: &[Option<Slice>], scalars: &[u32]) {
        self.plan.call(op, args, scalars).expect("shapes agree");
    }
}

/// Every stage behind a product, behind its gradient, and behind the calls that gather rows.
fn plan([r, i, o]: [u32; 3]) -> Plan {
    let mut p = Recorder { plan: Builder::new(), count: 0 };
    let rng = p.buffer_of(DType::U32, 1, 4);
    let [x, w, bias, weight, shift] = [[r, i], [o, i], [1, o], [1, o], [1, o]].map(|[rows, cols]| p.buffer(rows, cols));
    let [y, slope, g, n, residual, d, s] = [(); 7].map(|()| p.buffer(r, o));
    let stats = p.buffer(r, 2);
    p.call(&gemm::GEMM, &[x, w, bias, y, slope], &[]);
    p.call(&pointwise::GELU, &[y, g], &[]);
    p.call(&layernorm::LAYERNORM, &[g, weight, shift, n, stats], &[EPS]);
    p.call(&dropout::DROPOUT, &[n, residual, rng, d], &DROP);
    p.call(&pointwise::ADD, &[d, residual, s], &[]);

    let [back, dy] = [[i, o], [r, i]].map(|[rows, cols]| p.buffer(rows, cols));
    let [dx, normed, dropped, last] = [(); 4].map(|()| p.buffer(r, o));
    let [dw, db] = [(); 2].map(|()| p.buffer(1, o));
    p.call(&gemm::GEMM_DX, &[dy, back, dx, slope], &[]);
    p.call(&layernorm::LAYERNORM_DX, &[dx, g, weight, stats, residual, normed, dw, db], &[]);
    p.call(&dropout::DROPOUT_DX, &[normed, rng, dropped], &DROP);
    p.call(&pointwise::GELU_DX, &[y, dropped, last], &[]);

    let [woven, thinned] = [(); 2].map(|()| p.buffer(3 * r, o));
    p.call(&tokens::INTERLEAVE, &[y, g, d, residual, woven], &[]);
    p.call(&dropout::DROPOUT, &[woven, None, rng, thinned], &DROP);
    let [some, bent] = [(); 2].map(|()| p.buffer(r, o));
    p.call(&tokens::SELECT, &[thinned, some], &[3, 1]);
    p.call(&pointwise::GELU, &[some, bent], &[]);
    let [spread, kept] = [(); 2].map(|()| p.buffer(3 * r, o));
    p.call(&tokens::SELECT_DX, &[residual, spread], &[3, 2]);
    p.call(&dropout::DROPOUT_DX, &[spread, rng, kept], &DROP);
    p.plan.finish().expect("names differ")
}

#[test]
fn calls_on_the_same_rows_give_the_bits_of_launches_of_their_own() {
    for sizes in [[1, 1, 1], [33, 7, 30], [70, 40, 128], [5, 16, 129]] {
        let programs = [Order::Scattered, Order::Descending].map(|order| {
            let mut program = plan(sizes).bind(&Device::cuda_over(Arc::new(Emulator::new(order)))).expect("small");
            let names: Vec<(String, usize)> =
                program.states().expect("readable").iter().map(|(n, _, b)| ((*n).to_owned(), b.len())).collect();
            let mut rng = Rng::new(3, Stream::Init, [0, 0]);
            for (name, bytes) in names.iter().skip(1) {
                let values: Vec<f32> = (0..bytes / 4).map(|_| rng.uniform(-2.0, 2.0) as f32).collect();
                program.write(name, &values).expect("of its length");
            }
            program
        });
        let [mut whole, mut apart] = programs;
        let launches = if sizes[2] <= 128 { 7 } else { 17 };
        assert_eq!(whole.launches(), launches, "{sizes:?}");
        whole.run().expect("runs");
        apart.run_apart().expect("runs");
        for (found, expected) in whole.states().expect("readable").iter().zip(apart.states().expect("readable")) {
            assert!(found.2 == expected.2, "{sizes:?}: {} differs", found.0);
        }
    }
}
