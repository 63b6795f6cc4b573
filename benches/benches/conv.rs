//! The three convolutions of the image encoder on one batch of images, dense and masked.

mod common;

use tsn_benches::kernels::ops::conv::{CONV, CONV_DW, CONV_DX};
use tsn_benches::kernels::{Array, Trial};
use tsn_benches::{bits, bytes, output, trial, values};

/// Images: one window's worth and more, so that a call takes milliseconds.
const IMAGES: usize = 64;

/// Channels, side of the image, outputs, side of the kernel, stride.
#[derive(Clone, Copy)]
struct Layer(usize, usize, usize, usize, usize);

const LAYERS: [Layer; 3] = [Layer(4, 84, 32, 8, 4), Layer(32, 20, 64, 4, 2), Layer(64, 9, 64, 3, 1)];

fn main() {
    let mut c = common::criterion();
    for layer in LAYERS {
        let Layer(channels, side, o, kernel, stride) = layer;
        let shape = format!("n{IMAGES}_c{channels}_s{side}_o{o}_k{kernel}_t{stride}");
        for density in [1.0, 0.5] {
            for make in [forward, dx, dw] {
                common::op(&mut c, &shape, density, 0, &|| make(1, layer, density), &|| make(IMAGES, layer, density));
            }
        }
    }
    c.final_summary();
}

impl Layer {
    fn scalars(self) -> [u32; 6] {
        let Layer(channels, side, _, kernel, stride) = self;
        [channels, side, side, kernel, kernel, stride].map(|n| n as u32)
    }

    fn outputs(self) -> usize {
        let Layer(_, side, o, kernel, stride) = self;
        o * ((side - kernel) / stride + 1).pow(2)
    }

    /// Frames are bytes, what the layers make of them is not.
    fn images(self, n: usize) -> Array {
        let Layer(channels, side, ..) = self;
        if side == 84 { bytes(1, n, channels * side * side) } else { values(1, n, channels * side * side) }
    }

    fn weight(self, density: f64) -> [Array; 2] {
        let Layer(channels, _, o, kernel, _) = self;
        let taps = channels * kernel * kernel;
        [values(2, o, taps), if density < 1.0 { bits(3, o, taps, density) } else { Array::Absent }]
    }
}

fn forward(n: usize, layer: Layer, density: f64) -> Trial {
    let [w, mask] = layer.weight(density);
    let args = vec![layer.images(n), w, mask, values(4, 1, layer.2), Array::Absent, output(n, layer.outputs())];
    trial(&CONV, args, &layer.scalars())
}

fn dx(n: usize, layer: Layer, density: f64) -> Trial {
    let Layer(channels, side, ..) = layer;
    let [w, mask] = layer.weight(density);
    let args = vec![values(5, n, layer.outputs()), w, mask, output(n, channels * side * side)];
    trial(&CONV_DX, args, &layer.scalars())
}

fn dw(n: usize, layer: Layer, density: f64) -> Trial {
    let Layer(channels, _, o, kernel, _) = layer;
    let [w, mask] = layer.weight(density);
    let dw = output(o, channels * kernel * kernel);
    let scores = [Array::Absent, Array::Absent];
    let args =
        [vec![values(5, n, layer.outputs()), layer.images(n), w, mask], scores.to_vec(), vec![dw, Array::Absent]];
    trial(&CONV_DW, args.concat(), &layer.scalars())
}
