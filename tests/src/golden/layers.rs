//! Ops with a gradient: each is recorded on a tape, and its upstream gradient is the one of the case.

use super::case::Case;
use super::{Result, keep};
use autograd::{ConvShape, Mask, Param, ParamId, Select, Tape, Tensor, Trainable};
use engine::{DType, Device, Program};
use kernels::BitMask;

/// A tape with what the host writes before its one run.
struct Layer<'a> {
    case: &'a Case,
    tape: Tape,
    floats: Vec<(String, Vec<f32>)>,
    words: Vec<(String, Vec<u32>)>,
}

/// Tensors of a masked weight: weight, score, occupied entries, and the outputs of its mask and gradients.
struct Masked {
    weight: &'static str,
    score: &'static str,
    occupied: &'static str,
    mask: &'static str,
}

const WEIGHT: Masked = Masked { weight: "weight", score: "score", occupied: "occ_w", mask: "mask_w" };
const BIAS: Masked = Masked { weight: "bias", score: "bias_score", occupied: "occ_b", mask: "mask_b" };

impl<'a> Layer<'a> {
    fn new(case: &'a Case) -> Layer<'a> {
        Layer { case, tape: Tape::new(), floats: Vec::new(), words: Vec::new() }
    }

    /// An input whose gradient is wanted.
    fn input(&mut self, name: &str, [rows, cols]: [u32; 2]) -> Result<Tensor> {
        self.floats.push((name.to_owned(), self.case.f32s(name)?.to_vec()));
        Ok(self.tape.watched(name, rows, cols))
    }

    /// Row numbers.
    fn ids(&mut self, name: &str) -> Result<Tensor> {
        let id = |&v: &i64| u32::try_from(v).map_err(|_| format!("tensor `{name}` holds {v}, which is no row"));
        let ids: Vec<u32> = self.case.ints(name)?.iter().map(id).collect::<std::result::Result<_, _>>()?;
        let tensor = self.tape.input(name, DType::U32, 1, ids.len() as u32);
        self.words.push((name.to_owned(), ids));
        Ok(tensor)
    }

    /// A dense parameter.
    fn dense(&mut self, name: &str) -> Result<ParamId> {
        let [rows, cols] = self.case.weight(name)?;
        self.floats.push((name.to_owned(), self.case.f32s(name)?.to_vec()));
        Ok(self.tape.param(Param::new(name, rows, cols, Mask::Dense, Trainable::All)))
    }

    fn optional(&mut self, name: &str) -> Result<Option<ParamId>> {
        let stated = self.case.meta.get("bias").and_then(serde_json::Value::as_bool);
        match (stated, self.case.has(name)) {
            (Some(stated), has) if stated != has => Err(format!(
                "parameter `bias` is {stated} but tensor `{name}` is {}",
                if has { "there" } else { "missing" }
            )
            .into()),
            (_, true) => self.dense(name).map(Some),
            (_, false) => Ok(None),
        }
    }

    /// A parameter masked by its scores, as the official profile does it.
    fn masked(&mut self, names: &Masked) -> Result<ParamId> {
        let case = self.case;
        let [rows, cols] = case.weight(names.weight)?;
        self.floats.push((names.weight.to_owned(), case.f32s(names.weight)?.to_vec()));
        self.floats.push((format!("{}.score", names.weight), case.f32s(names.score)?.to_vec()));
        let mut free = vec![true; rows as usize * cols as usize];
        let mut select = Select::Any;
        if case.has(names.occupied) {
            free = case.flags(names.occupied)?.into_iter().map(|occupied| !occupied).collect();
            select = Select::Free;
            let bits = BitMask::from_flags(rows, cols, free.iter().copied());
            self.words.push((format!("{}.free", names.weight), bits.words().to_vec()));
        }
        let k = keep(case.number("keep_ratio")?, free.iter().filter(|free| **free).count());
        self.words.push((format!("{}.k", names.weight), vec![k]));
        let param = Param::new(names.weight, rows, cols, Mask::Learned(select), Trainable::All);
        Ok(self.tape.param(Param { ties: true, restrict_score: false, ..param }))
    }

    /// Differentiates `sum(y ⊙ gy)`, runs it, and compares `y` and the gradients.
    fn finish(mut self, device: &Device, y: Tensor, grads: &[(&str, Grad)]) -> Result<Program> {
        let case = self.case;
        let [rows, cols] = self.tape.shape(y);
        let Some(elements) = rows.checked_mul(cols) else { return Err("too many elements".to_owned().into()) };
        let flat = self.tape.reshape(y, 1, elements)?;
        // A product with a frozen row: its gradient with respect to y is gy, bit for bit.
        let gy = self.tape.param(Param::new("gy", 1, elements, Mask::Dense, Trainable::Frozen));
        self.floats.push(("gy".into(), case.f32s("gy")?.to_vec()));
        let loss = self.tape.linear(flat, gy, None)?;
        self.tape.backward(loss)?;
        self.tape.output(y, "y");
        for (name, of) in grads {
            let grad = match of {
                Grad::Input(x) => self.tape.grad_of(*x),
                Grad::Weight(w) => self.tape.grad(*w),
                Grad::Score(w) => self.tape.score_grad(*w),
            };
            let grad = grad.ok_or_else(|| format!("the tape has no gradient for output `{name}`"))?;
            self.tape.output(grad, name);
        }
        let mut program = self.tape.finish()?.bind(device)?;
        for (name, values) in &self.floats {
            program.write(name, values)?;
        }
        for (name, values) in &self.words {
            program.write(name, values)?;
        }
        program.run()?;
        for name in ["y"].iter().chain(grads.iter().map(|(name, _)| name)) {
            case.check(name, &program.read_vec(name)?)?;
        }
        Ok(program)
    }
}

#[derive(Clone, Copy)]
enum Grad {
    Input(Tensor),
    Weight(ParamId),
    Score(ParamId),
}

pub(super) fn linear(case: &Case, device: &Device) -> Result<()> {
    let [rows, inputs] = case.rows("x")?;
    case.agree("batch", rows as usize)?;
    case.agree("in_features", inputs as usize)?;
    case.agree("out_features", case.weight("w")?[0] as usize)?;
    let mut layer = Layer::new(case);
    let x = layer.input("x", [rows, inputs])?;
    let (w, b) = (layer.dense("w")?, layer.optional("b")?);
    let y = layer.tape.linear(x, w, b)?;
    let mut grads = vec![("gx", Grad::Input(x)), ("gw", Grad::Weight(w))];
    grads.extend(b.map(|b| ("gb", Grad::Weight(b))));
    layer.finish(device, y, &grads).map(|_| ())
}

pub(super) fn conv2d(case: &Case, device: &Device) -> Result<()> {
    let mut layer = Layer::new(case);
    let (shape, images) = conv_shape(case, "w")?;
    let x = layer.input("x", images)?;
    let (w, b) = (layer.dense("w")?, layer.optional("b")?);
    let y = layer.tape.conv(x, w, b, shape)?;
    let mut grads = vec![("gx", Grad::Input(x)), ("gw", Grad::Weight(w))];
    grads.extend(b.map(|b| ("gb", Grad::Weight(b))));
    layer.finish(device, y, &grads).map(|_| ())
}

/// Sizes of a convolution, and its images as rows.
fn conv_shape(case: &Case, weight: &str) -> Result<(ConvShape, [u32; 2])> {
    let [images, channels, height, width] = case.axes("x")?;
    let [_, weight_channels, kernel_h, kernel_w] = case.axes(weight)?;
    if channels != weight_channels {
        return Err(format!("images have {channels} channels, tensor `{weight}` has {weight_channels}").into());
    }
    if kernel_h == kernel_w {
        case.agree("kernel", kernel_h)?;
    }
    let size = |n: usize| n as u32;
    let shape = ConvShape {
        channels: size(channels),
        height: size(height),
        width: size(width),
        kernel_h: size(kernel_h),
        kernel_w: size(kernel_w),
        stride: size(case.size("stride")?),
    };
    Ok((shape, [size(images), size(channels * height * width)]))
}

pub(super) fn ste_linear(case: &Case, device: &Device) -> Result<()> {
    let shape = case.rows("x")?;
    ste(case, device, shape, |tape, x, w, b| Ok(tape.linear(x, w, b)?))
}

pub(super) fn ste_conv(case: &Case, device: &Device) -> Result<()> {
    let (shape, images) = conv_shape(case, "weight")?;
    ste(case, device, images, |tape, x, w, b| Ok(tape.conv(x, w, b, shape)?))
}

/// A masked layer with an optional masked bias.
fn ste(
    case: &Case,
    device: &Device,
    x_shape: [u32; 2],
    record: impl Fn(&mut Tape, Tensor, ParamId, Option<ParamId>) -> Result<Tensor>,
) -> Result<()> {
    let mut layer = Layer::new(case);
    let x = layer.input("x", x_shape)?;
    let w = layer.masked(&WEIGHT)?;
    let b = if case.has(BIAS.weight) { Some(layer.masked(&BIAS)?) } else { None };
    layer.tape.form_masks()?;
    let y = record(&mut layer.tape, x, w, b)?;
    let mut grads = vec![("gx", Grad::Input(x)), ("g_weight", Grad::Weight(w)), ("g_score", Grad::Score(w))];
    if let Some(b) = b {
        grads.extend([("g_bias", Grad::Weight(b)), ("g_bias_score", Grad::Score(b))]);
    }
    let program = layer.finish(device, y, &grads)?;
    check_mask(case, &program, &WEIGHT)?;
    if b.is_some() { check_mask(case, &program, &BIAS) } else { Ok(()) }
}

fn check_mask(case: &Case, program: &Program, names: &Masked) -> Result<()> {
    let [rows, cols] = case.weight(names.weight)?;
    let words = program.read_vec(&format!("{}.mask", names.weight))?;
    match BitMask::from_words(rows, cols, words) {
        Some(mask) => case.check_ints(names.mask, mask.flags().map(i64::from)),
        None => Err(format!("the mask for output `{}` has pad bits set", names.mask).into()),
    }
}

pub(super) fn ste_embedding(case: &Case, device: &Device) -> Result<()> {
    let mut layer = Layer::new(case);
    let ids = layer.ids("x")?;
    let table = layer.masked(&WEIGHT)?;
    layer.tape.form_masks()?;
    let y = layer.tape.embed(ids, table)?;
    let program = layer.finish(device, y, &[("g_weight", Grad::Weight(table)), ("g_score", Grad::Score(table))])?;
    check_mask(case, &program, &WEIGHT)
}

pub(super) fn embedding(case: &Case, device: &Device) -> Result<()> {
    let mut layer = Layer::new(case);
    let (ids, table) = (layer.ids("ids")?, layer.dense("w")?);
    let y = layer.tape.embed(ids, table)?;
    layer.finish(device, y, &[("gw", Grad::Weight(table))]).map(|_| ())
}

pub(super) fn layernorm(case: &Case, device: &Device) -> Result<()> {
    let mut layer = Layer::new(case);
    let x = layer.input("x", case.rows("x")?)?;
    let (w, b) = (layer.dense("w")?, layer.optional("b")?);
    let y = layer.tape.layernorm(x, w, b, case.number("eps")? as f32)?;
    let mut grads = vec![("gx", Grad::Input(x)), ("gw", Grad::Weight(w))];
    grads.extend(b.map(|b| ("gb", Grad::Weight(b))));
    layer.finish(device, y, &grads).map(|_| ())
}

pub(super) fn gelu(case: &Case, device: &Device) -> Result<()> {
    let mut layer = Layer::new(case);
    let x = layer.input("x", case.rows("x")?)?;
    let y = layer.tape.gelu(x)?;
    layer.finish(device, y, &[("gx", Grad::Input(x))]).map(|_| ())
}

/// Cases hold `[b, heads, t, d]`; the op takes rows of tokens, columns q, k, v, each head after head.
pub(super) fn attention(case: &Case, device: &Device) -> Result<()> {
    let [b, heads, t, d] = case.axes("q")?;
    for name in ["k", "v", "gy"] {
        if case.shape(name)? != [b, heads, t, d] {
            return Err(format!("tensor `{name}` is {:?}, `q` is {:?}", case.shape(name)?, [b, heads, t, d]).into());
        }
    }
    let valid = case.flags("mask")?;
    if case.shape("mask")? != [b, t] {
        return Err(format!("tensor `mask` is {:?}, expected {:?}", case.shape("mask")?, [b, t]).into());
    }
    let width = heads * d;
    // Place of element (n, h, i, j) of a case among rows of `cols` columns, shifted by `shift`.
    let places = move |cols: usize, shift: usize| {
        (0..b * heads * t * d).map(move |at| {
            let (j, i, h, n) = (at % d, at / d % t, at / (d * t) % heads, at / (d * t * heads));
            (n * t + i) * cols + shift + h * d + j
        })
    };
    let mut qkv = vec![0.0; b * t * 3 * width];
    for (part, name) in ["q", "k", "v"].iter().enumerate() {
        places(3 * width, part * width).zip(case.f32s(name)?).for_each(|(to, v)| qkv[to] = *v);
    }
    let mut gy = vec![0.0; b * t * width];
    places(width, 0).zip(case.f32s("gy")?).for_each(|(to, v)| gy[to] = *v);

    let mut tape = Tape::new();
    let [rows, cols] = [b * t, width].map(|n| n as u32);
    let x = tape.watched("qkv", rows, 3 * cols);
    let marks = tape.input("valid", DType::U8, b as u32, t as u32);
    let y = tape.attention(x, marks, heads as u32, 0.0)?;
    let flat = tape.reshape(y, 1, rows * cols)?;
    let upstream = tape.param(Param::new("gy", 1, rows * cols, Mask::Dense, Trainable::Frozen));
    let loss = tape.linear(flat, upstream, None)?;
    tape.backward(loss)?;
    tape.output(y, "y");
    let grad = tape.grad_of(x).ok_or_else(|| "the tape has no gradient of q, k and v".to_owned())?;
    tape.output(grad, "dqkv");
    let mut program = tape.finish()?.bind(device)?;
    program.write("qkv", &qkv)?;
    program.write("gy", &gy)?;
    program.write("valid", &valid.iter().map(|v| u8::from(*v)).collect::<Vec<u8>>())?;
    program.run()?;

    let y: Vec<f32> = program.read_vec("y")?;
    let got: Vec<f32> = places(width, 0).map(|from| y[from]).collect();
    case.check_where("y", &got, |at| valid[at / (d * t * heads) * t + at / d % t])?;
    let dqkv: Vec<f32> = program.read_vec("dqkv")?;
    for (part, name) in ["gq", "gk", "gv"].iter().enumerate() {
        let got: Vec<f32> = places(3 * width, part * width).map(|from| dqkv[from]).collect();
        case.check(name, &got)?;
    }
    Ok(())
}
