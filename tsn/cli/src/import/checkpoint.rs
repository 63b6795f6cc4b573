//! A checkpoint of the reference implementation, exported as safetensors, as a bank of one task. Source: method.md 2.7.
//!
//! Names are ours already; scores are `<module>.score` and `<module>.bias_score`, masks, if the file has them,
//! `<module>.mask` and `<module>.bias_mask`, Panda statistics `obs_mean` and `obs_std`. Sizes follow from the tensors,
//! except heads and context, which no tensor shows.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context, Result, bail};
use safetensors::{Dtype, SafeTensors};
use tsn::Bank;
use tsn::bank::{ActionKind, CopyRecord, TaskRecord, Weight};
use tsn::claim::count;
use tsn::dt::autograd::engine::kernels::BitMask;
use tsn::dt::config::{Action, Config, Observation, Role, Spec, Time};

/// How to make a file that can be read from one that is never read.
const EXPORT: &str = "\
a PyTorch file is a pickle, which can run code, and is never read; export it with PyTorch, where `state` is its state_dict:
  from safetensors.torch import save_file
  save_file({name: tensor.contiguous() for name, tensor in state.items()}, \"model.safetensors\")";

/// What the tensors do not say.
pub(crate) struct Given<'a> {
    /// Name of the task.
    pub(crate) task: &'a str,
    /// Share of each tensor that scores keep.
    pub(crate) keep: Option<f64>,
    /// Attention heads; 4, or 1 for Panda.
    pub(crate) heads: Option<u32>,
    /// Steps in a window.
    pub(crate) context: u32,
}

/// A checkpoint as a model and a bank without settings.
pub(crate) struct Imported {
    pub(crate) config: Config,
    pub(crate) bank: Bank,
}

/// Reads a checkpoint.
///
/// # Errors
/// PyTorch's own format; a damaged file; a tensor that is missing, unknown, or of another shape or type: every message
/// has the tensor, what was expected and what was found.
pub(crate) fn read(path: &Path, given: &Given<'_>) -> Result<Imported> {
    let bytes = std::fs::read(path).with_context(|| format!("{}: cannot be read", path.display()))?;
    let extension = path.extension().and_then(|extension| extension.to_str()).unwrap_or_default();
    if ["pt", "pth", "bin", "pkl"].contains(&extension) || bytes.starts_with(b"PK") || bytes.starts_with(&[0x80]) {
        // A safetensors header begins with its length, which can be 0x80; its third part is `{` then.
        if bytes.get(8) != Some(&b'{') {
            bail!("{}: {EXPORT}", path.display());
        }
    }
    let file = SafeTensors::deserialize(&bytes).map_err(|error| anyhow::anyhow!("not a safetensors file: {error}"));
    file.and_then(|file| Tensors::of(&file)?.import(given)).with_context(|| path.display().to_string())
}

/// The tensors of a file.
struct Tensors {
    shapes: BTreeMap<String, Vec<usize>>,
    values: BTreeMap<String, Vec<f32>>,
    /// Tensors of types that no part of a model has.
    others: BTreeMap<String, Dtype>,
}

impl Tensors {
    fn of(file: &SafeTensors<'_>) -> Result<Tensors> {
        let mut tensors = Tensors { shapes: BTreeMap::new(), values: BTreeMap::new(), others: BTreeMap::new() };
        for (name, view) in file.tensors() {
            let data = view.data();
            let values: Vec<f32> = match view.dtype() {
                Dtype::F32 => data.as_chunks().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect(),
                Dtype::F64 => data.as_chunks().0.iter().map(|bytes| f64::from_le_bytes(*bytes) as f32).collect(),
                Dtype::U8 | Dtype::BOOL => data.iter().map(|byte| f32::from(*byte)).collect(),
                _ if is_ignored(&name) => continue,
                other => {
                    tensors.others.insert(name.clone(), other);
                    Vec::new()
                }
            };
            tensors.shapes.insert(name.clone(), view.shape().to_vec());
            tensors.values.insert(name, values);
        }
        Ok(tensors)
    }

    fn import(&self, given: &Given<'_>) -> Result<Imported> {
        let config = self.config(given)?;
        let masked = self.shapes.keys().any(|name| name.ends_with(".score"));
        let mut known: Vec<String> = ["obs_mean", "obs_std"].map(str::to_owned).to_vec();
        let has_masks = self.shapes.keys().any(|name| name.ends_with("mask") && !is_ignored(name));
        let mut weights = Vec::new();
        let mut masks = Vec::new();
        for spec in config.parameters() {
            let values = self.shaped(&spec.name, &shape(&spec))?;
            known.push(spec.name.clone());
            let mut occupied = None;
            if masked && spec.role == Role::Maskable {
                let (score, mask) = (beside(&spec.name, "score"), beside(&spec.name, "mask"));
                let scores = self.shaped(&score, &shape(&spec))?;
                let bits = match (has_masks, given.keep) {
                    (true, _) => self.bits(&mask, &spec)?,
                    (false, Some(ratio)) => by_score(&score, scores, &spec, ratio)?,
                    (false, None) => bail!(
                        "the checkpoint has scores and no masks: say what share they keep with --keep \
                         (published runs: 0.5 on Atari, 0.33 on Panda)"
                    ),
                };
                known.extend([score, mask]);
                masks.push(bits.clone());
                occupied = Some(bits);
            }
            let Spec { name, rows, cols, .. } = spec;
            weights.push(Weight { name, rows, cols, values: values.to_vec(), occupied });
        }
        let unknown: Vec<&str> = self.shapes.keys().map(String::as_str).collect();
        let unknown: Vec<&str> =
            unknown.into_iter().filter(|name| !is_ignored(name) && !known.iter().any(|k| k == name)).collect();
        if !unknown.is_empty() {
            bail!("tensors that no part of this model has: {}", unknown.join(", "));
        }
        let width = config.observation_len() as usize;
        let stats = |name: &str| -> Result<Vec<f32>> {
            match self.shapes.contains_key(name) {
                true => Ok(self.shaped(name, &[width])?.to_vec()),
                false => Ok(Vec::new()),
            }
        };
        let (obs_mean, obs_std) = (stats("obs_mean")?, stats("obs_std")?);
        let action = match config.action {
            Action::Discrete(n) => ActionKind::Discrete { n, valid: (0..n).collect() },
            Action::Continuous(d) => ActionKind::Continuous { d, active: (0..d).collect() },
        };
        let claimed = masks.iter().map(|mask: &BitMask| mask.count() as u64).sum();
        let task = TaskRecord {
            name: given.task.to_owned(),
            copy: 0,
            source: None,
            masks,
            norms: Vec::new(),
            obs_mean,
            obs_std,
            rtg_scale: 1.0,
            target_return: 0.0,
            action,
            keep_ratio: if masked { given.keep.unwrap_or(1.0) } else { 1.0 },
            latent_mean: Vec::new(),
            latent_var: Vec::new(),
            extra: Vec::new(),
            own_loss: 0.0,
            claimed,
            codebooks: Vec::new(),
            online: None,
            notes: BTreeMap::new(),
        };
        let bank = Bank { copies: vec![CopyRecord { weights }], tasks: vec![task], ..Bank::default() };
        bank.check()?;
        Ok(Imported { config, bank })
    }

    /// Sizes that the tensors show.
    fn config(&self, given: &Given<'_>) -> Result<Config> {
        let rows = |name: &str| self.shape(name).map(|shape| shape.first().copied().unwrap_or(0) as u32);
        let cols = |name: &str| self.shape(name).map(|shape| shape.get(1).copied().unwrap_or(0) as u32);
        let width = rows("dt.re.weight")?;
        let observation = match self.shapes.contains_key("obs_enc.net.0.weight") {
            true => Observation::Vector(cols("obs_enc.net.0.weight")?),
            false => {
                let channels = cols("obs_enc.cnn.0.weight")?;
                let flattened = cols("obs_enc.proj.1.weight")?;
                let image = |side: u32| Observation::Image { channels, height: side, width: side };
                // Frames of 84 x 84 are the standard; other sides can share their number of features with a neighbour.
                let fits = |side: &u32| Config::new(image(*side), Action::Discrete(1)).flattened() == flattened;
                match std::iter::once(84).chain(36..=512).find(fits) {
                    Some(side) => image(side),
                    None => bail!(
                        "tensor obs_enc.proj.1.weight: expected the features of square frames (3136 for 84 x 84), found {flattened}"
                    ),
                }
            }
        };
        let outputs = rows("dt.act_head.weight")?;
        let embedding = self.shape("dt.ae.weight")?;
        let (o, e) = (outputs as usize, width as usize);
        let action = match embedding {
            // A square embedding of as many actions as the model is wide could be either; a table is the published case.
            [a, b] if (*a, *b) == (o, e) => Action::Discrete(outputs),
            [a, b] if (*a, *b) == (e, o) => Action::Continuous(outputs),
            found => bail!("tensor dt.ae.weight: expected [{o}, {e}] or [{e}, {o}], found {found:?}"),
        };
        let layers = (0u32..).take_while(|l| self.shapes.contains_key(&format!("dt.h.{l}.ln1.weight"))).count() as u32;
        let config = Config {
            width,
            layers,
            heads: given.heads.unwrap_or(if self.shapes.contains_key("obs_mean") { 1 } else { 4 }),
            context: given.context,
            dropout: 0.1,
            max_ep_len: rows("dt.te.weight")?,
            time: Time::Learned,
            include_embeddings: self.shapes.contains_key("dt.ae.score"),
            ..Config::new(observation, action)
        };
        config.validate()?;
        Ok(config)
    }

    fn shape(&self, name: &str) -> Result<&[usize]> {
        match self.shapes.get(name) {
            Some(shape) => Ok(shape),
            None => bail!("tensor {name}: expected in a checkpoint of a Decision Transformer, found none"),
        }
    }

    fn shaped(&self, name: &str, expected: &[usize]) -> Result<&[f32]> {
        let found = self.shape(name)?;
        if let Some(other) = self.others.get(name) {
            bail!("tensor {name}: expected F32, F64, or U8 and BOOL for masks, found {other:?}");
        }
        if found != expected {
            bail!("tensor {name}: expected shape {expected:?}, found {found:?}");
        }
        let values = &self.values[name];
        if let Some(at) = values.iter().position(|value| !value.is_finite()) {
            bail!("tensor {name}: expected finite numbers, found {} at {at}", values[at]);
        }
        Ok(values)
    }

    fn bits(&self, name: &str, spec: &Spec) -> Result<BitMask> {
        let values = self.shaped(name, &shape(spec))?;
        if let Some(other) = values.iter().find(|value| **value != 0.0 && **value != 1.0) {
            bail!("tensor {name}: expected 0 and 1, found {other}");
        }
        Ok(BitMask::from_flags(spec.rows, spec.cols, values.iter().map(|value| *value == 1.0)))
    }
}

/// The mask of scores as the reference forms it: every entry that is not below the k-th magnitude (method.md 5.3).
fn by_score(name: &str, scores: &[f32], spec: &Spec, ratio: f64) -> Result<BitMask> {
    let k = count(ratio, scores.len());
    let mut sizes: Vec<f32> = scores.iter().map(|score| score.abs()).collect();
    if k == 0 {
        bail!("tensor {name}: expected at least one entry, found none");
    }
    sizes.select_nth_unstable_by(k - 1, |a, b| b.total_cmp(a));
    let least = sizes[k - 1];
    Ok(BitMask::from_flags(spec.rows, spec.cols, scores.iter().map(|score| score.abs() >= least)))
}

/// Shape of a parameter in PyTorch.
fn shape(spec: &Spec) -> Vec<usize> {
    let (rows, cols) = (spec.rows as usize, spec.cols as usize);
    if spec.rows == 1 && (spec.role == Role::Norm || spec.name.ends_with(".bias")) {
        return vec![cols];
    }
    let kernel = match spec.name.as_str() {
        "obs_enc.cnn.0.weight" => 8,
        "obs_enc.cnn.2.weight" => 4,
        "obs_enc.cnn.4.weight" => 3,
        _ => return vec![rows, cols],
    };
    vec![rows, cols / (kernel * kernel), kernel, kernel]
}

/// `<module>.score` of `<module>.weight`, `<module>.bias_score` of `<module>.bias`.
fn beside(name: &str, what: &str) -> String {
    match name.strip_suffix(".bias") {
        Some(module) => format!("{module}.bias_{what}"),
        None => format!("{}.{what}", name.strip_suffix(".weight").unwrap_or(name)),
    }
}

/// Buffers that hold nothing learned: the causal mask of an attention.
fn is_ignored(name: &str) -> bool {
    name.starts_with("dt.h.") && (name.ends_with(".attn.mask") || name.ends_with(".attn.bias"))
}

#[cfg(test)]
mod tests;
