//! Wrong variants: each gate has to find its own.

use crate::column::Devices;
use crate::conform;
use kernels::contract::{F32, no_check, read, write};
use kernels::{Arg, Call, Contract, Reference, Tol, Variant};

const PLANTED_ARGS: &[Arg] = &[read("x", F32, &['r', 'c']), write("y", F32, &['r', 'c'])];

/// `y = 2 x` with variants that may be wrong.
const fn planted(scalars: &'static [&'static str], cpu: &'static [Variant]) -> Contract {
    Contract {
        name: "planted",
        formula: "y = 2 x",
        args: PLANTED_ARGS,
        scalars,
        tol: Tol::times_plain(2.0, 1e-6),
        check: no_check,
        flops: |_| 0,
        reference: |r: &mut Reference| r.put_f(1, r.f(0).iter().map(|x| 2.0 * x).collect()),
        cpu,
        cuda: &[],
        wgsl: &[],
    }
}

fn twice(c: &mut Call<'_>) {
    let (x, y) = (c.f32(0), c.f32_mut(1));
    y.data.iter_mut().zip(x.data).for_each(|(y, x)| *y = 2.0 * x);
}

fn all_but_the_last(c: &mut Call<'_>) {
    let (x, y) = (c.f32(0), c.f32_mut(1));
    y.data.iter_mut().zip(x.data).take(64).for_each(|(y, x)| *y = 2.0 * x);
}

fn by_workers(c: &mut Call<'_>) {
    let off = 1e-7 * c.pool.workers() as f32;
    let (x, y) = (c.f32(0), c.f32_mut(1));
    y.data.iter_mut().zip(x.data).for_each(|(y, x)| *y = (2.0 + off) * x);
}

#[test]
fn planted_faults_are_found() {
    static RIGHT: Contract = planted(&[], &[Variant::any("plain", twice)]);
    static SHORT: Contract = planted(&[], &[Variant::any("plain", twice), Variant::any("wide", all_but_the_last)]);
    static UNSTEADY: Contract = planted(&[], &[Variant::any("plain", by_workers)]);
    static OPEN: Contract = planted(&["zeal"], &[Variant::any("plain", twice)]);
    let cpu = Devices { cpu: true, ..Devices::default() };
    let conform = |op| conform(op, &cpu);
    assert!(conform(&RIGHT).expect("right") > 60);
    assert!(conform(&SHORT).expect_err("unwritten elements").contains("planted wide, output y"));
    assert!(conform(&UNSTEADY).expect_err("bits of the workers").contains("bits depend on"));
    assert!(conform(&OPEN).expect_err("a scalar without values").contains("zeal"));
}

/// Operands of products with a fault each, in place of those of a variant on tensor cores.
#[cfg(feature = "cuda")]
#[test]
fn planted_operands_are_found() {
    use crate::column::emulator;
    use kernels::contract::cuda::{Launch, Module, Target};
    use kernels::{Cuda, ops};
    const FAULTS: Module = Module { name: "faults_products", path: "", ptx: "", target: Target::Sm80 };
    let emulator = Devices { columns: vec![emulator()], ..Devices::default() };
    for (op, variant, entry) in [
        (&ops::conv::CONV, "mma", "unturned_taps"),
        (&ops::conv::CONV, "mma", "one_plane"),
        (&ops::conv::CONV, "mma_u8", "half_a_chunk"),
        (&ops::conv::CONV_DW, "mma", "first_images"),
        (&ops::conv::CONV_DX, "mma", "first_class"),
        (&ops::packed_gemm::PACKED_GEMM, "mma", "one_place"),
        (&ops::cosine::COSINE, "mma", "neighbours_lengths"),
        (&ops::gemm::GEMM, "mma_f16", "other_exponents"),
    ] {
        let mma = op.cuda.iter().find(|other| other.name == variant).expect("on tensor cores");
        let [product, finish @ ..] = mma.launches else { unreachable!("at least a product") };
        let launches: &[Launch] = [&[Launch { entry, ..*product }], finish].concat().leak();
        let cuda: &[Cuda] =
            Box::leak(Box::new([op.cuda[0], Cuda { name: "planted", module: FAULTS, launches, ..*mma }]));
        let planted: &Contract = Box::leak(Box::new(Contract { cuda, ..*op }));
        let error = conform(planted, &emulator).expect_err(entry);
        assert!(error.contains("emulator planted, output"), "{entry}: {error}");
    }
}
