//! Convolution as an implicit GEMM, masked.
//!
//! Rows of `x` are images flattened as (channel, y, x); rows of `y` are flattened as (output, y, x). No patch matrix is
//! materialised. A weight whose bit is set is finite: a variant of `conv_dx` may multiply it by zeros beside the image. Images, weights and gradients of outputs of a call may all be f16.

mod cpu;
#[cfg(target_arch = "x86_64")]
mod cpu_avx2;
#[cfg(target_arch = "x86_64")]
mod cpu_avx512;
mod cpu_panels;
mod cpu_portable;
#[cfg(feature = "wgsl")]
mod dispatch;
#[cfg(feature = "launches")]
mod launch;
mod reference;
#[cfg(test)]
mod tests;

use crate::contract::*;
#[cfg(target_arch = "x86_64")]
use crate::simd::Isa;
use half::f16;

/// Element types of images.
const IMAGES: &[DType] = &[DType::F32, DType::U8, DType::F16];

/// `valid cross-correlation of NCHW rows with w ⊙ mask, plus bias ⊙ bias_mask; u8 images are divided by 255`
pub static CONV: Contract = Contract {
    name: "conv",
    formula: "valid cross-correlation of NCHW rows with w ⊙ mask, plus bias ⊙ bias_mask; u8 images are divided by 255",
    args: &[
        read("x", IMAGES, &['n', 'a']),
        read("w", F32_F16, &['o', 'j']),
        read("mask", BITS, &['o', 'j']).optional(),
        read("bias", F32, &['o']).optional(),
        read("bias_mask", BITS, &['o']).optional(),
        write("y", F32, &['n', 'e']),
    ],
    scalars: &["channels", "height", "width", "kernel_h", "kernel_w", "stride"],
    tol: Tol::times_plain(2.0, 1e-6),
    check,
    flops,
    reference: reference::conv,
    #[cfg(not(target_arch = "x86_64"))]
    cpu: &[
        Variant::any("plain", cpu::conv),
        #[cfg(not(tsn_small))]
        Variant::any("plain_f16", cpu::conv_f16).only(DType::F16),
        #[cfg(not(tsn_small))]
        Variant::any("panels", cpu_portable::conv).with_scratch(cpu_portable::conv_scratch),
    ],
    #[cfg(target_arch = "x86_64")]
    cpu: &[
        Variant::any("plain", cpu::conv),
        #[cfg(not(tsn_small))]
        Variant::any("plain_f16", cpu::conv_f16).only(DType::F16),
        Variant::any("panels", cpu_portable::conv).with_scratch(cpu_portable::conv_scratch),
        Variant::needs(Isa::Avx2, "panels_avx2", cpu_avx2::conv).with_scratch(cpu_avx2::conv_scratch),
        Variant::needs(Isa::Avx512, "panels_avx512", cpu_avx512::conv).with_scratch(cpu_avx512::conv_scratch),
    ],
    cuda: cuda_variants![
        Cuda::any("plain", launch::MODULE, launch::PLAIN),
        Cuda::any("mma", launch::MODULE_TILES, launch::MMA).fits(launch::fits_mma),
        Cuda::any("tiled", launch::MODULE_TILES, launch::TILED).fits(launch::fits),
        Cuda::any("plain_u8", launch::MODULE, launch::PLAIN_U8).only(DType::U8),
        Cuda::any("mma_u8", launch::MODULE_TILES, launch::MMA_U8).only(DType::U8).fits(launch::fits_mma),
        Cuda::any("tiled_u8", launch::MODULE_TILES, launch::TILED_U8).only(DType::U8).fits(launch::fits),
        Cuda::any("plain_f16", launch::MODULE, launch::PLAIN_F16).only(DType::F16),
    ],
    wgsl: wgsl_sources![
        Wgsl::any("plain", wgsl_of_f32!("conv.wgsl"), dispatch::PLAIN),
        Wgsl::any("tiled", wgsl_of_f32!("conv_tiled.wgsl"), dispatch::TILED).fits(dispatch::fits),
        Wgsl::any("plain_u8", include_str!("conv_u8.wgsl"), dispatch::PLAIN).only(DType::U8),
        Wgsl::any("tiled_u8", include_str!("conv_tiled_u8.wgsl"), dispatch::TILED).only(DType::U8).fits(dispatch::fits),
        Wgsl::any("plain_f16", wgsl_of_f16!("conv.wgsl"), dispatch::PLAIN).only(DType::F16).needs(&[GpuFeature::F16]),
        Wgsl::any("tiled_f16", wgsl_of_f16!("conv_tiled.wgsl"), dispatch::TILED)
            .only(DType::F16)
            .needs(&[GpuFeature::F16])
            .fits(dispatch::fits),
    ],
};

/// `gradient of conv with respect to x`
pub static CONV_DX: Contract = Contract {
    name: "conv_dx",
    formula: "gradient of conv with respect to x",
    args: &[
        read("dy", F32_F16, &['n', 'e']),
        read("w", F32_F16, &['o', 'j']),
        read("mask", BITS, &['o', 'j']).optional(),
        write("dx", F32, &['n', 'a']),
    ],
    scalars: &["channels", "height", "width", "kernel_h", "kernel_w", "stride"],
    tol: Tol::times_plain(2.0, 1e-6),
    check,
    flops,
    reference: reference::conv_dx,
    #[cfg(not(target_arch = "x86_64"))]
    cpu: &[
        Variant::any("plain", cpu::conv_dx::<f32>),
        Variant::any("plain_f16", cpu::conv_dx::<f16>).only(DType::F16),
        Variant::any("panels", cpu_portable::conv_dx).with_scratch(cpu_portable::conv_dx_scratch),
    ],
    #[cfg(target_arch = "x86_64")]
    cpu: &[
        Variant::any("plain", cpu::conv_dx::<f32>),
        Variant::any("plain_f16", cpu::conv_dx::<f16>).only(DType::F16),
        Variant::any("panels", cpu_portable::conv_dx).with_scratch(cpu_portable::conv_dx_scratch),
        Variant::needs(Isa::Avx2, "panels_avx2", cpu_avx2::conv_dx).with_scratch(cpu_avx2::conv_dx_scratch),
        Variant::needs(Isa::Avx512, "panels_avx512", cpu_avx512::conv_dx).with_scratch(cpu_avx512::conv_dx_scratch),
    ],
    cuda: cuda_variants![
        Cuda::any("plain", launch::MODULE, launch::PLAIN_DX),
        Cuda::any("mma", launch::MODULE_TILES, launch::MMA_DX).fits(launch::fits_dx),
        Cuda::any("tiled", launch::MODULE_TILES, launch::TILED_DX).fits(launch::fits_dx),
        Cuda::any("plain_f16", launch::MODULE, launch::PLAIN_DX_F16).only(DType::F16),
    ],
    wgsl: wgsl_sources![
        Wgsl::any("plain", wgsl_of_f32!("conv_dx.wgsl"), dispatch::PLAIN_DX),
        Wgsl::any("tiled", wgsl_of_f32!("conv_dx_tiled.wgsl"), dispatch::TILED_DX).fits(dispatch::fits_dx),
        Wgsl::any("plain_f16", wgsl_of_f16!("conv_dx.wgsl"), dispatch::PLAIN_DX)
            .only(DType::F16)
            .needs(&[GpuFeature::F16]),
        Wgsl::any("tiled_f16", wgsl_of_f16!("conv_dx_tiled.wgsl"), dispatch::TILED_DX)
            .only(DType::F16)
            .needs(&[GpuFeature::F16])
            .fits(dispatch::fits_dx),
    ],
};

/// `g = gradient of conv with respect to w ⊙ mask; dw = g ⊙ mask; ds = g ⊙ w ⊙ sign(score), zero outside the candidates`
pub static CONV_DW: Contract = Contract {
    name: "conv_dw",
    formula: "g = gradient of conv with respect to w ⊙ mask; dw = g ⊙ mask; ds = g ⊙ w ⊙ sign(score), zero outside the candidates",
    args: &[
        read("dy", F32_F16, &['n', 'e']),
        read("x", IMAGES, &['n', 'a']),
        read("w", F32_F16, &['o', 'j']),
        read("mask", BITS, &['o', 'j']).optional(),
        read("score", F32, &['o', 'j']).optional(),
        read("candidates", BITS, &['o', 'j']).optional(),
        write("dw", F32, &['o', 'j']),
        write("ds", F32, &['o', 'j']).optional(),
    ],
    scalars: &["channels", "height", "width", "kernel_h", "kernel_w", "stride"],
    tol: Tol::times_plain(2.0, 1e-6),
    check,
    flops,
    reference: reference::conv_dw,
    #[cfg(not(target_arch = "x86_64"))]
    cpu: &[
        Variant::any("plain", cpu::conv_dw),
        Variant::any("plain_f16", cpu::conv_dw_f16).only(DType::F16),
        Variant::any("panels", cpu_portable::conv_dw).with_scratch(cpu_portable::conv_dw_scratch),
    ],
    #[cfg(target_arch = "x86_64")]
    cpu: &[
        Variant::any("plain", cpu::conv_dw),
        Variant::any("plain_f16", cpu::conv_dw_f16).only(DType::F16),
        Variant::any("panels", cpu_portable::conv_dw).with_scratch(cpu_portable::conv_dw_scratch),
        Variant::needs(Isa::Avx2, "panels_avx2", cpu_avx2::conv_dw).with_scratch(cpu_avx2::conv_dw_scratch),
        Variant::needs(Isa::Avx512, "panels_avx512", cpu_avx512::conv_dw).with_scratch(cpu_avx512::conv_dw_scratch),
    ],
    cuda: cuda_variants![
        Cuda::any("plain", launch::MODULE, launch::PLAIN_DW),
        Cuda::any("mma", launch::MODULE_TILES, launch::MMA_DW).with_work(|d| 1 + sums(d)).fits(launch::fits_mma_dw),
        Cuda::any("tiled", launch::MODULE_TILES, launch::TILED_DW).with_work(|d| 1 + sums(d)).fits(launch::fits_dw),
        Cuda::any("plain_u8", launch::MODULE, launch::PLAIN_DW_U8).only(DType::U8),
        Cuda::any("mma_u8", launch::MODULE_TILES, launch::MMA_DW_U8)
            .only(DType::U8)
            .with_work(|d| 1 + sums(d))
            .fits(launch::fits_mma_dw),
        Cuda::any("tiled_u8", launch::MODULE_TILES, launch::TILED_DW_U8)
            .only(DType::U8)
            .with_work(|d| 1 + sums(d))
            .fits(launch::fits_dw),
        Cuda::any("plain_f16", launch::MODULE, launch::PLAIN_DW_F16).only(DType::F16),
    ],
    wgsl: wgsl_sources![
        Wgsl::any("plain", wgsl_of_f32!("conv_dw.wgsl"), dispatch::PLAIN_DW),
        Wgsl::any("tiled", wgsl_of_f32!("conv_dw_tiled.wgsl"), dispatch::TILED_DW)
            .with_work(sums)
            .with_uses(dispatch::USES_DW),
        Wgsl::any("plain_u8", include_str!("conv_dw_u8.wgsl"), dispatch::PLAIN_DW).only(DType::U8),
        Wgsl::any("tiled_u8", include_str!("conv_dw_tiled_u8.wgsl"), dispatch::TILED_DW)
            .only(DType::U8)
            .with_work(sums)
            .with_uses(dispatch::USES_DW),
        Wgsl::any("plain_f16", wgsl_of_f16!("conv_dw.wgsl"), dispatch::PLAIN_DW)
            .only(DType::F16)
            .needs(&[GpuFeature::F16]),
        Wgsl::any("tiled_f16", wgsl_of_f16!("conv_dw_tiled.wgsl"), dispatch::TILED_DW)
            .only(DType::F16)
            .needs(&[GpuFeature::F16])
            .with_work(sums)
            .with_uses(dispatch::USES_DW),
    ],
};

/// Names of the scalars, in contract order.
const SCALARS: [&str; 6] = ["channels", "height", "width", "kernel_h", "kernel_w", "stride"];

fn check(d: &Dims) -> Result<(), String> {
    for (at, name) in SCALARS.iter().enumerate() {
        if d.scalar(at) == 0 {
            return Err(format!("{name} is 0 but must be at least 1"));
        }
    }
    if d.size('o') == 0 {
        return Err("dim `o` is 0 but a convolution has at least one output".into());
    }
    let [channels, height, width, kernel_h, kernel_w, stride] = std::array::from_fn(|at| u64::from(d.scalar(at)));
    for (kernel, k, side, s) in [("kernel_h", kernel_h, "height", height), ("kernel_w", kernel_w, "width", width)] {
        if k > s {
            return Err(format!("{kernel} {k} is larger than {side} {s}"));
        }
    }
    let (out_h, out_w) = ((height - kernel_h) / stride + 1, (width - kernel_w) / stride + 1);
    let relations = [
        ('a', "channels * height * width", [channels, height, width]),
        ('j', "channels * kernel_h * kernel_w", [channels, kernel_h, kernel_w]),
        ('e', "o * out_h * out_w", [d.size('o') as u64, out_h, out_w]),
    ];
    for (letter, product, factors) in relations {
        match factors.iter().try_fold(1u64, |all, f| all.checked_mul(*f)).and_then(|n| usize::try_from(n).ok()) {
            Some(value) => d.product_is(letter, product, value)?,
            None => {
                let [x, y, z] = factors;
                return Err(format!("dim `{letter}` is {} but {product} is {x} * {y} * {z}", d.size(letter)));
            }
        }
    }
    Ok(())
}

fn flops(d: &Dims) -> u64 {
    // e is o * out_h * out_w.
    ['n', 'e', 'j'].iter().fold(2u64, |all, l| all.saturating_mul(d.size(*l) as u64))
}

/// Sizes of a checked call.
#[derive(Clone, Copy, Debug)]
struct Geometry {
    channels: usize,
    height: usize,
    width: usize,
    kernel_h: usize,
    kernel_w: usize,
    stride: usize,
    out_h: usize,
    out_w: usize,
    /// Outputs, the `o` of the contract.
    outputs: usize,
}

impl Geometry {
    fn new(d: &Dims) -> Geometry {
        let [channels, height, width, kernel_h, kernel_w, stride] = std::array::from_fn(|at| d.scalar(at) as usize);
        let (out_h, out_w) = ((height - kernel_h) / stride + 1, (width - kernel_w) / stride + 1);
        Geometry { channels, height, width, kernel_h, kernel_w, stride, out_h, out_w, outputs: d.size('o') }
    }

    /// Output positions of one image.
    fn pixels(&self) -> usize {
        self.out_h * self.out_w
    }

    /// Weights of one output, the `j` of the contract.
    fn taps(&self) -> usize {
        self.channels * self.kernel_h * self.kernel_w
    }

    /// Elements of one image, the `a` of the contract.
    fn image(&self) -> usize {
        self.channels * self.height * self.width
    }

    /// Offset in an image of tap `j`, seen from a window's upper left corner.
    fn tap_at(&self, j: usize) -> usize {
        let (c, ky, kx) = (j / self.kernel_w / self.kernel_h, j / self.kernel_w % self.kernel_h, j % self.kernel_w);
        (c * self.height + ky) * self.width + kx
    }

    /// Offset in a channel of the upper left corner of output `pixel`'s window.
    fn window_at(&self, pixel: usize) -> usize {
        (pixel / self.out_w * self.width + pixel % self.out_w) * self.stride
    }
}

/// Blocks of images whose weight gradients are summed apart, and the least images of one.
#[cfg(any(feature = "wgsl", feature = "launches"))]
const BLOCKS: usize = 64;
#[cfg(any(feature = "wgsl", feature = "launches"))]
const LEAST: usize = 8;

#[cfg(any(feature = "wgsl", feature = "launches"))]
fn blocks(d: &Dims) -> usize {
    let n = d.size('n');
    n.div_ceil(n.div_ceil(BLOCKS).max(LEAST))
}

/// A weight gradient per block of images.
#[cfg(any(feature = "wgsl", feature = "launches"))]
fn sums(d: &Dims) -> usize {
    blocks(d) * d.size('o') * d.size('j')
}

/// Output pixels of all images.
#[cfg(any(feature = "wgsl", feature = "launches"))]
fn pixels(d: &Dims) -> usize {
    d.size('n') * Geometry::new(d).pixels()
}
