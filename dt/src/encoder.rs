//! From observations to tokens: vectors through one layer, images through three convolutions and one layer.

use crate::config::{CONVOLUTIONS, Config, Observation};
use crate::model::Params;
use autograd::engine::Result;
use autograd::{ConvShape, Tape, Tensor};

/// Variance floor of every layer norm.
pub(crate) const EPS: f32 = 1e-5;

/// Encodes `obs` (`[r, n]` f32, or `[r, channels * height * width]` u8) to `[r, width]`.
pub(crate) fn encode(tape: &mut Tape, config: &Config, params: &Params, obs: Tensor) -> Result<Tensor> {
    let (flat, layer, last) = match config.observation {
        Observation::Vector(_) => (obs, "obs_enc.net.0", "obs_enc.net.2"),
        Observation::Image { channels, height, width } => {
            let mut image = (channels, height, width);
            let mut x = obs;
            for (at, (outputs, kernel, stride)) in CONVOLUTIONS.into_iter().enumerate() {
                let (channels, height, width) = image;
                let shape = ConvShape { channels, height, width, kernel_h: kernel, kernel_w: kernel, stride };
                let name = format!("obs_enc.cnn.{}", 2 * at);
                let y = tape.conv(x, params.weight(&name), Some(params.bias(&name)), shape)?;
                x = tape.gelu(y)?;
                image = (outputs, (height - kernel) / stride + 1, (width - kernel) / stride + 1);
            }
            (x, "obs_enc.proj.1", "obs_enc.proj.3")
        }
    };
    let hidden = tape.linear(flat, params.weight(layer), Some(params.bias(layer)))?;
    let hidden = tape.gelu(hidden)?;
    tape.layernorm(hidden, params.weight(last), Some(params.bias(last)), EPS)
}
