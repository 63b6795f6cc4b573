//! Where training of a task stands, on disk: `checkpoints/step.safetensors`.
//!
//! Tensors `state.NAME` are the learner's state as raw words, `losses` the loss of every step so far. Metadata:
//! `kind`, `strategy`, `task` (place in the run), `number` (in its learner), `step`, `fixed`, `config_hash`, `bits`
//! (names of tensors whose words are mask bits).

use std::path::Path;
use tsn::dt::autograd::engine::kernels::DType;
use tsn::file::Dtype;
use tsn::fit::Checkpoint;
use tsn::state::State;
use tsn::{TensorFile, TensorWriter};

/// What a checkpoint belongs to.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Owner {
    /// Strategy, or `single` for a reference.
    pub strategy: String,
    /// Number of the task in the run.
    pub task: usize,
    /// Hash of the run's settings.
    pub config_hash: String,
}

/// What an interrupted process leaves of a task.
#[derive(Default)]
pub(crate) struct Earlier {
    /// Where it is gone on with.
    pub checkpoint: Option<Checkpoint>,
    /// Losses of its steps so far.
    pub losses: Vec<f32>,
    /// Time that these took.
    pub seconds: f64,
}

const KIND: &str = "tsn-affinity checkpoint";

/// Writes a checkpoint in one step, replacing the last one.
pub(crate) fn save(
    path: &Path,
    owner: &Owner,
    checkpoint: &Checkpoint,
    losses: &[f32],
    seconds: f64,
) -> Result<(), tsn::Error> {
    let mut file = TensorWriter::new();
    file.meta("kind", KIND);
    file.meta("strategy", owner.strategy.as_str());
    file.meta("task", owner.task.to_string());
    file.meta("config_hash", owner.config_hash.as_str());
    // A reference is task 0 of a learner of its own, whatever its place in the run.
    file.meta("number", checkpoint.task.to_string());
    file.meta("step", checkpoint.step.to_string());
    file.meta("seconds", seconds.to_string());
    file.meta("fixed", checkpoint.fixed.to_string());
    let mut bits = Vec::new();
    for (name, (dtype, bytes)) in &checkpoint.state.0 {
        let (stored, size) = match dtype {
            DType::F32 => (Dtype::F32, 4),
            DType::F16 => (Dtype::F16, 2),
            DType::Bf16 => (Dtype::BF16, 2),
            DType::U32 => (Dtype::U32, 4),
            DType::U16 => (Dtype::U16, 2),
            DType::U8 => (Dtype::U8, 1),
            DType::Bits => {
                bits.push(name.as_str());
                (Dtype::U32, 4)
            }
        };
        file.add_bytes(format!("state.{name}"), stored, &[(bytes.len() / size) as u64], bytes.clone());
    }
    file.meta("bits", bits.join(" "));
    file.add("losses", &[losses.len() as u64], losses);
    file.save(path).map(|_| ())
}

/// The checkpoint of an owner with its losses, or why there is none to go on from.
pub(crate) fn load(path: &Path, owner: &Owner) -> Result<Earlier, String> {
    let file = TensorFile::open(path).map_err(|error| error.to_string())?;
    let meta = |key: &str| file.metadata(key).unwrap_or_default();
    if meta("kind") != KIND {
        return Err(format!("{}: not a checkpoint", path.display()));
    }
    let found = Owner {
        strategy: meta("strategy").into(),
        task: number(meta("task"))?,
        config_hash: meta("config_hash").into(),
    };
    if found != *owner {
        return Err(format!("{}: of task {} of strategy {}", path.display(), found.task, found.strategy));
    }
    let bits: Vec<&str> = meta("bits").split(' ').collect();
    let (mut state, mut losses) = (State::default(), Vec::new());
    for tensor in file.tensors() {
        if tensor.name() == "losses" {
            losses = file.values(tensor).map_err(|error| error.to_string())?;
        }
        let Some(name) = tensor.name().strip_prefix("state.") else { continue };
        let dtype = match tensor.dtype() {
            Dtype::U32 if bits.contains(&name) => DType::Bits,
            Dtype::F32 => DType::F32,
            Dtype::F16 => DType::F16,
            Dtype::BF16 => DType::Bf16,
            Dtype::U32 => DType::U32,
            Dtype::U16 => DType::U16,
            Dtype::U8 => DType::U8,
            other => return Err(format!("{}: tensor {name} has type {other:?}", path.display())),
        };
        state.0.insert(name.to_owned(), (dtype, file.bytes(tensor).to_vec()));
    }
    let (step, fixed) = (number(meta("step"))? as u64, meta("fixed") == "true");
    if losses.len() as u64 != step {
        return Err(format!("{}: {} losses after {step} steps", path.display(), losses.len()));
    }
    let checkpoint = Some(Checkpoint { task: number(meta("number"))?, step, fixed, state });
    let seconds = meta("seconds").parse().ok().filter(|seconds: &f64| seconds.is_finite()).unwrap_or(0.0);
    Ok(Earlier { checkpoint, losses, seconds })
}

fn number(text: &str) -> Result<usize, String> {
    text.parse().map_err(|_| format!("a checkpoint says {text:?} where a number belongs"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_checkpoint_comes_back_and_others_do_not() {
        let path = std::env::temp_dir().join(format!("tsn-checkpoint-{}.safetensors", std::process::id()));
        let mut state = State::default();
        state.put("a.weight", &[1.0, f32::NAN, -0.0]);
        state.put_u32("a.k", &[7]);
        state.0.insert("a.mask".into(), (DType::Bits, vec![255, 0, 0, 1]));
        let checkpoint = Checkpoint { task: 0, step: 3, fixed: true, state };
        let owner = Owner { strategy: "tsn".into(), task: 2, config_hash: "c".into() };
        save(&path, &owner, &checkpoint, &[0.5, 0.25, 0.125], 1.5).unwrap();
        let Earlier { checkpoint: back, losses, seconds } = load(&path, &owner).unwrap();
        let back = back.unwrap();
        assert_eq!(seconds, 1.5);
        assert_eq!(back.state, checkpoint.state);
        assert_eq!((back.task, back.step, back.fixed, losses.len()), (0, 3, true, 3));
        let other = Owner { task: 1, ..owner.clone() };
        assert!(load(&path, &other).err().unwrap().contains("of task 2"));
        let mut bytes = std::fs::read(&path).unwrap();
        let last = bytes.len() - 1;
        bytes[last] ^= 1;
        std::fs::write(&path, &bytes).unwrap();
        assert!(load(&path, &owner).is_err());
        std::fs::remove_file(&path).unwrap();
        assert!(load(&path, &owner).is_err());
    }
}
