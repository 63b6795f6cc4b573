//! Interleave the three tokens of a step; select rows; slide windows of rows.

mod cpu;
mod reference;
#[cfg(test)]
mod tests;

use crate::contract::*;

/// `y[3 r + j] = xj[r] + time[r]`
pub static INTERLEAVE: Contract = Contract {
    name: "interleave",
    formula: "y[3 r + j] = xj[r] + time[r]",
    args: &[
        read("x0", F32, &['r', 'c']),
        read("x1", F32, &['r', 'c']),
        read("x2", F32, &['r', 'c']),
        read("time", F32, &['r', 'c']).optional(),
        write("y", F32, &['q', 'c']),
    ],
    scalars: &[],
    tol: Tol::times_plain(2.0, 1e-6),
    check: |d| d.product_is('q', "3 * r", 3 * d.size('r')),
    flops: |_| 0,
    reference: reference::interleave,
    cpu: &[Variant::any("plain", cpu::interleave)],
    cuda: cuda_variants![Cuda::any(
        "plain",
        MODULE,
        &[Launch::new("interleave_plain", 256, |d| cuda::line(d.size('q') * d.size('c'), 256)).as_stage(None, "y")]
    )],
    wgsl: wgsl_sources![Wgsl::any(
        "plain",
        include_str!("interleave.wgsl"),
        &[Dispatch { entry: "plain", groups: |d| wgsl::line(d.size('q') * d.size('c'), 64) }]
    )],
};

/// `dxj[r] = dy[3 r + j]; dtime[r] = their sum`
pub static INTERLEAVE_DX: Contract = Contract {
    name: "interleave_dx",
    formula: "dxj[r] = dy[3 r + j]; dtime[r] = their sum",
    args: &[
        read("dy", F32, &['q', 'c']),
        write("dx0", F32, &['r', 'c']),
        write("dx1", F32, &['r', 'c']),
        write("dx2", F32, &['r', 'c']),
        write("dtime", F32, &['r', 'c']).optional(),
    ],
    scalars: &[],
    tol: Tol::times_plain(2.0, 1e-6),
    check: |d| d.product_is('q', "3 * r", 3 * d.size('r')),
    flops: |_| 0,
    reference: reference::interleave_dx,
    cpu: &[Variant::any("plain", cpu::interleave_dx)],
    cuda: cuda_variants![Cuda::any(
        "plain",
        MODULE,
        &[Launch::new("interleave_dx_plain", 256, |d| cuda::line(d.size('r') * d.size('c'), 256))]
    )],
    wgsl: wgsl_sources![Wgsl::any(
        "plain",
        include_str!("interleave_dx.wgsl"),
        &[Dispatch { entry: "plain", groups: |d| wgsl::line(d.size('r') * d.size('c'), 64) }]
    )],
};

/// `y[r] = x[r * stride + offset]`
pub static SELECT: Contract = Contract {
    name: "select",
    formula: "y[r] = x[r * stride + offset]",
    args: &[read("x", F32, &['q', 'c']), write("y", F32, &['r', 'c'])],
    scalars: &["stride", "offset"],
    tol: Tol::times_plain(2.0, 1e-6),
    check: check_select,
    flops: |_| 0,
    reference: reference::select,
    cpu: &[Variant::any("plain", cpu::select)],
    cuda: cuda_variants![Cuda::any(
        "plain",
        MODULE,
        &[Launch::new("select_plain", 256, |d| cuda::line(d.size('r') * d.size('c'), 256)).as_stage(None, "y")]
    )],
    wgsl: wgsl_sources![Wgsl::any(
        "plain",
        include_str!("select.wgsl"),
        &[Dispatch { entry: "plain", groups: |d| wgsl::line(d.size('r') * d.size('c'), 64) }]
    )],
};

/// `dx[r * stride + offset] = dy[r], zero elsewhere`
pub static SELECT_DX: Contract = Contract {
    name: "select_dx",
    formula: "dx[r * stride + offset] = dy[r], zero elsewhere",
    args: &[read("dy", F32, &['r', 'c']), write("dx", F32, &['q', 'c'])],
    scalars: &["stride", "offset"],
    tol: Tol::times_plain(2.0, 1e-6),
    check: check_select,
    flops: |_| 0,
    reference: reference::select_dx,
    cpu: &[Variant::any("plain", cpu::select_dx)],
    cuda: cuda_variants![Cuda::any(
        "plain",
        MODULE,
        &[Launch::new("select_dx_plain", 256, |d| cuda::line(d.size('q') * d.size('c'), 256)).as_stage(None, "dx")]
    )],
    wgsl: wgsl_sources![Wgsl::any(
        "plain",
        include_str!("select_dx.wgsl"),
        &[Dispatch { entry: "plain", groups: |d| wgsl::line(d.size('q') * d.size('c'), 64) }]
    )],
};

/// `in each of b groups of rows, window moves up by the group's rows of x, which become its last`
pub static SLIDE: Contract = Contract {
    name: "slide",
    formula: "in each of b groups of rows, window moves up by the group's rows of x, which become its last",
    args: &[read("x", F32, &['r', 'c']), update("window", F32, &['q', 'c'])],
    scalars: &["b"],
    tol: Tol::exact(),
    check: check_slide,
    flops: |_| 0,
    reference: reference::slide,
    cpu: &[Variant::any("plain", cpu::slide)],
    cuda: cuda_variants![Cuda::any(
        "plain",
        MODULE,
        &[Launch::new("slide_plain", 256, |d| cuda::line(d.scalar(0) as usize * d.size('c'), 256)).in_batches()]
    )],
    wgsl: wgsl_sources![Wgsl::any(
        "plain",
        include_str!("slide.wgsl"),
        &[Dispatch { entry: "plain", groups: |d| wgsl::line(d.scalar(0) as usize * d.size('c'), 64) }]
    )],
};

fn check_slide(d: &Dims) -> Result<(), String> {
    let (b, q, r) = (d.scalar(0) as usize, d.size('q'), d.size('r'));
    match b > 0 && q.is_multiple_of(b) && r.is_multiple_of(b) && r <= q {
        true => Ok(()),
        false => Err(format!("{r} rows of x and {q} of the window are not {b} groups each, the first no longer")),
    }
}

fn check_select(d: &Dims) -> Result<(), String> {
    let (stride, offset) = (d.scalar(0), d.scalar(1));
    if stride == 0 {
        return Err("stride is 0, it must be at least 1".into());
    }
    if offset >= stride {
        return Err(format!("offset {offset} is not below stride {stride}"));
    }
    d.product_is('q', "r * stride", d.size('r').saturating_mul(stride as usize))
}

#[cfg(feature = "launches")]
const MODULE: cuda::Module = module!("tokens", "tokens/tokens.cu");
