//! Attention with dropout over the model's windows, one window and a batch.

mod common;

use tsn_benches::kernels::ops::attention::{ATTENTION, ATTENTION_DX};
use tsn_benches::kernels::{Array, Pool, Trial};
use tsn_benches::{output, trial, values};

const TOKENS: usize = 60;
const WIDTH: usize = 128;
const HEADS: usize = 4;

fn main() {
    let mut c = common::criterion();
    for b in [1, 64] {
        let shape = format!("b{b}_t{TOKENS}_h{HEADS}_c{WIDTH}");
        common::op(&mut c, &shape, 1.0, 0, &|| forward(2), &|| forward(b));
        common::op(&mut c, &shape, 1.0, 0, &|| backward(2), &|| backward(b));
    }
    c.final_summary();
}

fn scalars() -> [u32; 3] {
    [HEADS as u32, 0.1f32.to_bits(), 0]
}

fn inputs(b: usize) -> [Array; 3] {
    let valid = Array::U8(b, TOKENS, vec![1; b * TOKENS]);
    [values(1, b * TOKENS, 3 * WIDTH), valid, Array::U32(1, 4, vec![1, 2, 3, 0])]
}

fn forward(b: usize) -> Trial {
    let outputs = vec![output(b * TOKENS, WIDTH), output(b * TOKENS, HEADS)];
    trial(&ATTENTION, [inputs(b).to_vec(), outputs].concat(), &scalars())
}

fn backward(b: usize) -> Trial {
    let mut done = forward(b);
    let best = ATTENTION.best(tsn_benches::kernels::Isa::detect());
    done.run(best, &Pool::serial()).expect("the forward call stays inside its outputs");
    let [.., y, stats] = &done.args[..] else { unreachable!("the contract has five arguments") };
    let rest = vec![y.clone(), stats.clone(), values(2, b * TOKENS, WIDTH), output(b * TOKENS, 3 * WIDTH)];
    trial(&ATTENTION_DX, [inputs(b).to_vec(), rest].concat(), &scalars())
}
