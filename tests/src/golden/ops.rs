//! Losses, optimiser, similarity, statistics and clustering.

use super::Result;
use super::case::Case;
use autograd::{Tape, adamw_step};
use engine::{Builder, Contract, DType, Device, Life, Program, Slice};
use kernels::{Access, ops};

pub(super) fn cross_entropy(case: &Case, device: &Device) -> Result<()> {
    let [rows, cols] = case.rows("logits")?;
    let target = |&v: &i64| match v {
        -1 => Ok(u32::MAX),
        v if (0..i64::from(cols)).contains(&v) => Ok(v as u32),
        v => Err(format!("tensor `target` holds {v}, which is none of {cols} classes")),
    };
    let targets: Vec<u32> = case.ints("target")?.iter().map(target).collect::<std::result::Result<_, _>>()?;
    let mut tape = Tape::new();
    let logits = tape.watched("logits", rows, cols);
    let target = tape.input("target", DType::U32, 1, rows);
    let loss = tape.cross_entropy(logits, target, None)?;
    tape.backward(loss)?;
    // The tape leaves the log-softmax out; a second call of the same op writes it.
    let (again, logprob) = (tape.temp(DType::F32, 1, 1), tape.temp(DType::F32, rows, cols));
    let args = [Some(logits), Some(target), None, Some(again), Some(logprob)];
    tape.call(&ops::loss::CROSS_ENTROPY, &args, &[])?;
    tape.output(loss, "loss");
    tape.output(logprob, "logprob");
    let grad = tape.grad_of(logits).ok_or_else(|| "the tape has no gradient of logits".to_owned())?;
    tape.output(grad, "glogits");
    let mut program = tape.finish()?.bind(device)?;
    program.write("logits", case.f32s("logits")?)?;
    program.write("target", &targets)?;
    program.run()?;
    let loss: Vec<f32> = program.read_vec("loss")?;
    // The mean of nothing is NaN in PyTorch and 0 here.
    let nothing = targets.iter().all(|t| *t == u32::MAX) && case.f32s("loss")?.iter().all(|v| v.is_nan());
    case.check_where("loss", &loss, |at| !(nothing && loss[at] == 0.0))?;
    case.check("logprob", &program.read_vec("logprob")?)?;
    case.check("glogits", &program.read_vec("glogits")?)
}

pub(super) fn masked_mse(case: &Case, device: &Device) -> Result<()> {
    let [rows, cols] = case.rows("pred")?;
    let mut tape = Tape::new();
    let pred = tape.watched("pred", rows, cols);
    let target = tape.input("target", DType::F32, rows, cols);
    let valid = tape.input("mask", DType::U8, 1, rows);
    let active = case.has("dim_mask").then(|| tape.input("dim_mask", DType::F32, 1, cols));
    let loss = tape.masked_mse(pred, target, valid, active)?;
    tape.backward(loss)?;
    tape.output(loss, "loss");
    let grad = tape.grad_of(pred).ok_or_else(|| "the tape has no gradient of pred".to_owned())?;
    tape.output(grad, "gpred");
    let mut program = tape.finish()?.bind(device)?;
    program.write("pred", case.f32s("pred")?)?;
    program.write("target", case.f32s("target")?)?;
    program.write("mask", &case.bytes("mask")?)?;
    if active.is_some() {
        program.write("dim_mask", case.f32s("dim_mask")?)?;
    }
    program.run()?;
    case.check("loss", &program.read_vec("loss")?)?;
    case.check("gpred", &program.read_vec("gpred")?)
}

pub(super) fn adamw(case: &Case, device: &Device) -> Result<()> {
    let [rows, cols] = case.rows("p")?;
    let size = rows as usize * cols as usize;
    let grads = case.f32s("grads")?;
    let steps = case.size("steps")?;
    if grads.len() != steps * size {
        return Err(format!("tensor `grads` has {} values, expected {steps} x {size}", grads.len()).into());
    }
    let lr = case.number("lr")?;
    let [beta1, beta2, eps, decay] = ["beta1", "beta2", "eps", "weight_decay"].map(|key| case.number(key));
    let [beta1, beta2, eps, decay] = [beta1? as f32, beta2? as f32, eps? as f32, decay? as f32];
    let scalars = [beta1, beta2, eps, decay, 1.0].map(f32::to_bits);
    let shape = Some([rows, cols]);
    let shapes = [shape, None, Some([1, 4]), None, shape, shape, shape];
    let mut program = bind(&ops::adamw::ADAMW, &shapes, &scalars, device)?;
    program.write("p", case.f32s("p")?)?;
    let mut history = Vec::new();
    for step in 0..steps {
        program.write("g", &grads[step * size..(step + 1) * size])?;
        program.write("step", &adamw_step(lr, beta1, beta2, step as u64 + 1))?;
        program.run()?;
        history.extend(program.read_vec::<f32>("p")?);
    }
    case.check("p_each_step", &history)?;
    case.check("m", &program.read_vec("m")?)?;
    case.check("v", &program.read_vec("v")?)
}

/// A plan of one call; buffers have the names of the contract's arguments.
fn bind(op: &'static Contract, shapes: &[Option<[u32; 2]>], scalars: &[u32], device: &Device) -> Result<Program> {
    let mut plan = Builder::new();
    let args: Vec<Option<Slice>> = shapes
        .iter()
        .zip(op.args)
        .map(|(shape, arg)| {
            let life = match arg.access {
                Access::Read => Life::Input,
                Access::Write => Life::Output,
                Access::Update => Life::State,
            };
            shape.map(|[rows, cols]| {
                let buffer = plan.buffer(arg.name, arg.dtypes[0], rows, cols, life);
                plan.whole(buffer)
            })
        })
        .collect();
    plan.call(op, &args, scalars)?;
    Ok(plan.finish()?.bind(device)?)
}

/// The norm and factor of the optimiser's own calls; with no memory and no rate, its first moment is the clipped gradient.
pub(super) fn clip_grad_norm(case: &Case, device: &Device) -> Result<()> {
    let count = (0..).take_while(|i| case.has(&format!("g{i}"))).count();
    let mut plan = Builder::new();
    let sums = plan.buffer("sums", DType::F32, 1, count as u32, Life::Temp);
    let mut grads = Vec::new();
    for i in 0..count {
        let [rows, cols] = case.rows(&format!("g{i}"))?;
        let g = plan.buffer(format!("g{i}"), DType::F32, rows, cols, Life::Input);
        let g = plan.whole(g);
        let sum = Slice { at: i as u32, cols: 1, ..plan.whole(sums) };
        plan.call(&ops::adamw::SUMSQ, &[Some(g), None, Some(sum)], &[])?;
        grads.push(g);
    }
    let [norm, factor] = ["norm", "factor"].map(|name| plan.buffer(name, DType::F32, 1, 1, Life::Output));
    let [sums, norm, factor] = [sums, norm, factor].map(|buffer| Some(plan.whole(buffer)));
    plan.call(&ops::adamw::CLIP, &[sums, norm, factor], &[(case.number("max_norm")? as f32).to_bits()])?;
    let step = plan.buffer("step", DType::F32, 1, 4, Life::Input);
    let step = Some(plan.whole(step));
    let no_memory = [0.0f32, 0.0, 1.0, 0.0, 1.0].map(f32::to_bits);
    for (i, g) in grads.iter().enumerate() {
        let [p, m, v] =
            ["p", "m", "v"].map(|name| plan.buffer(format!("{name}{i}"), DType::F32, g.rows, g.cols, Life::State));
        let [p, m, v] = [p, m, v].map(|buffer| Some(plan.whole(buffer)));
        plan.call(&ops::adamw::ADAMW, &[Some(*g), None, step, factor, p, m, v], &no_memory)?;
    }
    let mut program = plan.finish()?.bind(device)?;
    program.write("step", &adamw_step(0.0, 0.0, 0.0, 1))?;
    for i in 0..count {
        program.write(&format!("g{i}"), case.f32s(&format!("g{i}"))?)?;
    }
    program.run()?;
    case.check("norm", &program.read_vec("norm")?)?;
    for i in 0..count {
        case.check(&format!("clipped{i}"), &program.read_vec(&format!("m{i}"))?)?;
    }
    Ok(())
}

pub(super) fn cosine_matrix(case: &Case, device: &Device) -> Result<()> {
    let (a, b) = (case.rows("a")?, case.rows("b")?);
    let mut program = bind(&ops::cosine::COSINE, &[Some(a), Some(b), Some([a[0], b[0]])], &[], device)?;
    program.write("q", case.f32s("a")?)?;
    program.write("p", case.f32s("b")?)?;
    program.run()?;
    case.check("cos", &program.read_vec("y")?)
}

/// Least variance of the divergence.
const VARIANCE_FLOOR: f32 = 1e-6;

pub(super) fn sym_kl(case: &Case, device: &Device) -> Result<()> {
    let mut plan = Builder::new();
    let mut gaussians = Vec::new();
    for name in ["a", "b"] {
        let [rows, cols] = case.rows(&format!("z{name}"))?;
        let z = plan.buffer(format!("z{name}"), DType::F32, rows, cols, Life::Input);
        let mean = plan.buffer(format!("mu_{name}"), DType::F32, 1, cols, Life::Output);
        let var = plan.buffer(format!("var_{name}"), DType::F32, 1, cols, Life::Output);
        let [z, mean, var] = [z, mean, var].map(|buffer| Some(plan.whole(buffer)));
        plan.call(&ops::reduce::MOMENTS, &[z, mean, var], &[VARIANCE_FLOOR.to_bits()])?;
        gaussians.extend([mean, var]);
    }
    let skl = plan.buffer("skl", DType::F32, 1, 1, Life::Output);
    gaussians.push(Some(plan.whole(skl)));
    plan.call(&ops::reduce::SYM_KL, &gaussians, &[])?;
    let mut program = plan.finish()?.bind(device)?;
    program.write("za", case.f32s("za")?)?;
    program.write("zb", case.f32s("zb")?)?;
    program.run()?;
    for name in ["mu_a", "var_a", "mu_b", "var_b", "skl"] {
        case.check(name, &program.read_vec(name)?)?;
    }
    Ok(())
}

/// Largest inertia of any implementation, relative to scikit-learn's.
const INERTIA: f64 = 1.02;

pub(super) fn kmeans1d(case: &Case, device: &Device) -> Result<()> {
    let x = case.f32s("x")?;
    let n = x.len() as u32;
    let cluster = |k: u32, init: Option<&[f32]>| -> Result<(Vec<f32>, Vec<f32>, u32)> {
        let shapes = [Some([1, n]), None, init.map(|_| [1, k]), Some([1, k]), Some([1, n]), Some([1, 1]), Some([1, 1])];
        let mut program = bind(&ops::kmeans::KMEANS, &shapes, &[], device)?;
        program.write("x", x)?;
        if let Some(init) = init {
            program.write("init", init)?;
        }
        program.run()?;
        let used: Vec<u32> = program.read_vec("used")?;
        Ok((program.read_vec("center")?, program.read_vec("inertia")?, used[0]))
    };
    let init = case.f32s("init_centers")?;
    let (mut center, inertia, _) = cluster(init.len() as u32, Some(init))?;
    center.truncate(case.shape("lloyd_centers")?.iter().product());
    case.check("lloyd_centers", &center)?;
    case.check("lloyd_inertia", &inertia)?;

    let (mut center, inertia, used) = cluster(case.size("k")? as u32, None)?;
    case.agree("k_used", used as usize)?;
    center.truncate(case.shape("optimal_centers")?.iter().product());
    case.check("optimal_centers", &center)?;
    case.check("optimal_inertia", &inertia)?;
    case.check_at_most("sklearn_inertia", inertia[0], INERTIA)
}
