//! Convolution of flattened images.

use crate::param::ParamId;
use crate::tape::{Tape, Tensor};
use engine::Result;
use engine::kernels::ops::conv::{CONV, CONV_DW, CONV_DX};
use std::panic::Location;

/// Sizes of a convolution without padding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConvShape {
    /// Channels of an input image.
    pub channels: u32,
    /// Rows of an input image, in pixels.
    pub height: u32,
    /// Columns of an input image, in pixels.
    pub width: u32,
    /// Rows of the kernel, in pixels.
    pub kernel_h: u32,
    /// Columns of the kernel, in pixels.
    pub kernel_w: u32,
    /// Pixels between neighbouring outputs, both ways.
    pub stride: u32,
}

impl ConvShape {
    /// Rows and columns of an output image; 0 where the kernel does not fit or the stride is 0.
    pub fn out_shape(&self) -> [u32; 2] {
        let side = |image: u32, kernel: u32| match image.checked_sub(kernel) {
            Some(rest) if self.stride > 0 => rest / self.stride + 1,
            _ => 0,
        };
        [side(self.height, self.kernel_h), side(self.width, self.kernel_w)]
    }

    fn scalars(&self) -> [u32; 6] {
        [self.channels, self.height, self.width, self.kernel_h, self.kernel_w, self.stride]
    }
}

impl Tape {
    /// Valid cross-correlation of images with `w ⊙ mask`, plus `bias ⊙ bias_mask`.
    ///
    /// Rows of `x[n, channels * height * width]` are images (channel, y, x), F32 or U8 (divided by 255);
    /// `w[o, channels * kernel_h * kernel_w]`, `bias[1, o]`, `y[n, o * out_h * out_w]`.
    ///
    /// # Errors
    /// [`engine::Error::Call`] for shapes, [`engine::Error::Unwritten`] for a learned mask before [`Tape::form_masks`].
    #[track_caller]
    pub fn conv(&mut self, x: Tensor, w: ParamId, bias: Option<ParamId>, shape: ConvShape) -> Result<Tensor> {
        self.line = Location::caller();
        let (weight, mask) = self.weight(CONV.name, w)?;
        let (b, bias_mask) = match bias {
            Some(bias) => self.weight(CONV.name, bias).map(|(b, mask)| (Some(b), mask))?,
            None => (None, None),
        };
        let [out_h, out_w] = shape.out_shape();
        let cols = self.shape(weight)[0].checked_mul(out_h).and_then(|n| n.checked_mul(out_w));
        let Some(cols) = cols else {
            return Err(self.error(CONV.name, format!("an output image of {out_h} x {out_w} is too large")));
        };
        if cols == 0 {
            return Err(self.error(CONV.name, format!("{shape:?} with w \"{}\" gives no output", self.name(weight))));
        }
        let y = self.make(&CONV, [self.shape(x)[0], cols]);
        self.record(&CONV, &[Some(x), Some(weight), mask, b, bias_mask, Some(y)], &shape.scalars())?;
        let from = [vec![x], self.param_sources(w, bias)].concat();
        self.derive(y, &from, move |tape, dy| conv_dx(tape, x, (w, bias), shape, dy));
        Ok(y)
    }
}

fn conv_dx(
    tape: &mut Tape,
    x: Tensor,
    (w, bias): (ParamId, Option<ParamId>),
    shape: ConvShape,
    dy: Tensor,
) -> Result<()> {
    let (weight, mask) = (tape.handles(w).w, tape.handles(w).mask);
    if let Some(bias) = bias {
        let [out_h, out_w] = shape.out_shape();
        tape.bias_grad(bias, dy, out_h * out_w)?;
    }
    tape.weight_grad(&CONV_DW, w, &[Some(dy), Some(x), Some(weight)], &shape.scalars())?;
    if !tape.wants(x) {
        return Ok(());
    }
    let dx = tape.make(&CONV_DX, tape.shape(x));
    tape.record(&CONV_DX, &[Some(dy), Some(weight), mask, Some(dx)], &shape.scalars())?;
    tape.accumulate(x, dx)
}
