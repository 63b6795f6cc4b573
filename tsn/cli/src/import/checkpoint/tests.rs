//! The golden whole models, written with the names of a checkpoint, against the outputs that PyTorch gave.

use std::fs;
use std::path::PathBuf;

use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensors};
use tsn::dt::autograd::engine::Device;
use tsn::dt::model::input;
use tsn::dt::train::{output, plan_loss};
use tsn::fit::frozen;
use tsn::state::State;

use super::*;

/// A tensor in a file.
type Stored = (Dtype, Vec<usize>, Vec<u8>);

struct Golden {
    name: &'static str,
    heads: u32,
    context: u32,
    keep: Option<f64>,
    scale: f64,
    tensors: BTreeMap<String, Stored>,
}

impl Golden {
    fn read(name: &'static str) -> Golden {
        let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures/golden");
        let index: serde_json::Value = serde_json::from_slice(&fs::read(folder.join("index.json")).unwrap()).unwrap();
        let meta = &index[name]["meta"];
        let bytes = fs::read(folder.join(format!("{name}.safetensors"))).unwrap();
        let file = SafeTensors::deserialize(&bytes).unwrap();
        let tensors = file
            .tensors()
            .into_iter()
            .map(|(name, view)| (name, (view.dtype(), view.shape().to_vec(), view.data().to_vec())));
        let number = |key: &str| meta[key].as_u64().unwrap() as u32;
        Golden {
            name,
            heads: number("n_heads"),
            context: number("K"),
            keep: meta["tsn"]["keep_ratio"].as_f64(),
            scale: meta["rtg_scale"].as_f64().unwrap(),
            tensors: tensors.collect(),
        }
    }

    /// The parameters alone, without the prefix.
    fn checkpoint(&self) -> BTreeMap<String, Stored> {
        let parameter =
            |(name, stored): (&String, &Stored)| Some((name.strip_prefix("param.")?.to_owned(), stored.clone()));
        self.tensors.iter().filter_map(parameter).collect()
    }

    fn given(&self) -> Given<'static> {
        Given { task: "a", keep: self.keep, heads: Some(self.heads), context: self.context }
    }

    fn floats(&self, name: &str) -> Vec<f32> {
        floats(&self.tensors[name])
    }

    fn ints(&self, name: &str) -> Vec<i64> {
        let (dtype, _, bytes) = &self.tensors[name];
        match dtype {
            Dtype::I64 => bytes.as_chunks().0.iter().map(|b| i64::from_le_bytes(*b)).collect(),
            Dtype::I32 => bytes.as_chunks().0.iter().map(|b| i64::from(i32::from_le_bytes(*b))).collect(),
            Dtype::U8 | Dtype::BOOL => bytes.iter().map(|b| i64::from(*b)).collect(),
            Dtype::F32 => floats(&self.tensors[name]).iter().map(|v| *v as i64).collect(),
            other => panic!("{name}: {other:?}"),
        }
    }
}

fn floats((dtype, _, bytes): &Stored) -> Vec<f32> {
    assert_eq!(*dtype, Dtype::F32);
    bytes.as_chunks().0.iter().map(|b| f32::from_le_bytes(*b)).collect()
}

/// Writes tensors as a file and imports it.
fn import(tensors: &BTreeMap<String, Stored>, given: &Given<'_>, test: &str) -> Result<Imported> {
    let path = std::env::temp_dir().join(format!("tsn-import-{}-{test}.safetensors", std::process::id()));
    let views: Vec<(&String, TensorView<'_>)> = tensors
        .iter()
        .map(|(name, (dtype, shape, bytes))| (name, TensorView::new(*dtype, shape.clone(), bytes).unwrap()))
        .collect();
    fs::write(&path, safetensors::serialize(views, None).unwrap()).unwrap();
    let imported = read(&path, given);
    fs::remove_file(&path).unwrap();
    imported
}

/// Outputs of the bank's task on the golden batch, next to PyTorch's at valid steps.
fn outputs(golden: &Golden, imported: &Imported) -> Vec<(f32, f32)> {
    let Imported { config, bank } = imported;
    let masked = !bank.tasks[0].masks.is_empty();
    let batch = golden.tensors["batch0.mask"].1[0] as u32;
    let mut program = plan_loss(config, batch, |spec| frozen(spec, masked)).unwrap().bind(&Device::cpu(1)).unwrap();
    State::of_task(bank, &bank.tasks[0]).load(&mut program).unwrap();
    let task = &bank.tasks[0];
    match config.observation {
        Observation::Image { .. } => program.write(input::OBS, &golden.tensors["batch0.obs"].2).unwrap(),
        Observation::Vector(n) => {
            let mut obs = golden.floats("batch0.obs");
            if !task.obs_mean.is_empty() {
                let at = |at: usize| (task.obs_mean[at % n as usize], task.obs_std[at % n as usize]);
                obs.iter_mut().enumerate().for_each(|(k, o)| *o = (*o - at(k).0) / at(k).1);
            }
            program.write(input::OBS, &obs).unwrap();
        }
    }
    let rtg: Vec<f32> = golden.floats("batch0.rtg").iter().map(|r| (f64::from(*r) / golden.scale) as f32).collect();
    program.write(input::RTG, &rtg).unwrap();
    let last = i64::from(config.max_ep_len) - 1;
    let times: Vec<u32> = golden.ints("batch0.timesteps").iter().map(|t| (*t).clamp(0, last) as u32).collect();
    program.write(input::TIMESTEPS, &times).unwrap();
    let valid = golden.ints("batch0.mask");
    let tokens: Vec<u8> = valid.iter().flat_map(|v| [*v as u8; 3]).collect();
    program.write(input::VALID, &tokens).unwrap();
    match config.action {
        Action::Discrete(_) => {
            let ids: Vec<u32> = golden.ints("batch0.actions").iter().map(|a| (*a).max(0) as u32).collect();
            program.write(input::ACTIONS, &ids).unwrap();
            program.write(input::TARGET, &ids).unwrap();
        }
        Action::Continuous(_) => {
            program.write(input::ACTIONS, &golden.floats("batch0.actions")).unwrap();
            program.write(input::TARGET, &golden.floats("batch0.actions")).unwrap();
            program.write(input::STEP_VALID, &valid.iter().map(|v| *v as u8).collect::<Vec<u8>>()).unwrap();
        }
    }
    program.run().unwrap();
    let width = config.action.outputs() as usize;
    let ours: Vec<f32> = program.read_vec(output::OUTPUT).unwrap();
    let pairs = ours.into_iter().zip(golden.floats("logits")).enumerate();
    pairs.filter(|(at, _)| valid[at / width] == 1).map(|(_, pair)| pair).collect()
}

#[test]
fn models_give_the_outputs_of_pytorch() {
    for name in
        ["model_cartpole", "model_panda", "model_atari", "model_cartpole_tsn", "model_panda_tsn", "model_atari_tsn"]
    {
        let golden = Golden::read(name);
        let mut checkpoint = golden.checkpoint();
        // A causal mask that some implementations keep as a buffer.
        checkpoint.insert("dt.h.0.attn.mask".into(), (Dtype::I32, vec![1], vec![0; 4]));
        let imported = import(&checkpoint, &golden.given(), name).unwrap();
        assert_eq!(golden.name.ends_with("_tsn"), !imported.bank.tasks[0].masks.is_empty());
        let pairs = outputs(&golden, &imported);
        assert!(pairs.len() > 10);
        let size = pairs.iter().map(|(_, theirs)| theirs.abs()).fold(0.0, f32::max);
        for (ours, theirs) in pairs {
            assert!((ours - theirs).abs() <= 2e-5 * (1.0 + size), "{name}: {ours} against {theirs}");
        }
        for (mask, (weight, _)) in imported.bank.tasks[0].masks.iter().zip(imported.bank.copies[0].masked()) {
            let theirs = golden.ints(&format!("mask0.{}", weight.name));
            assert!(mask.flags().map(i64::from).eq(theirs), "{name}: mask of {}", weight.name);
        }
    }
}

/// Masks of a file count, whatever its scores say; an equal score is kept, however many there are.
#[test]
fn masks_of_the_file_and_ties() {
    let golden = Golden::read("model_cartpole_tsn");
    let mut checkpoint = golden.checkpoint();
    let scored = |name: &String| name.ends_with("score");
    let scores: Vec<String> = checkpoint.keys().filter(|name| scored(name)).cloned().collect();
    for name in &scores {
        let (_, shape, bytes) = checkpoint[name].clone();
        checkpoint.insert(name.replace("score", "mask"), (Dtype::U8, shape, vec![1; bytes.len() / 4]));
    }
    let whole = import(&checkpoint, &Given { keep: None, ..golden.given() }, "masks").unwrap();
    assert!(whole.bank.tasks[0].masks.iter().all(|mask| mask.count() == mask.len()));
    let mut checkpoint = golden.checkpoint();
    for name in &scores {
        let len = checkpoint[name].2.len() / 4;
        checkpoint.get_mut(name).unwrap().2 =
            [0.5f32.to_le_bytes(), (-0.5f32).to_le_bytes()].concat().repeat(len)[..4 * len].to_vec();
    }
    let ties = import(&checkpoint, &golden.given(), "ties").unwrap();
    assert!(ties.bank.tasks[0].masks.iter().all(|mask| mask.count() == mask.len()));
}

#[test]
fn what_does_not_fit_is_named() {
    let golden = Golden::read("model_cartpole_tsn");
    let whole = golden.checkpoint();
    let refused = |change: &dyn Fn(&mut BTreeMap<String, Stored>), parts: &[&str]| {
        let mut tensors = whole.clone();
        change(&mut tensors);
        let message = format!("{:#}", import(&tensors, &golden.given(), "refused").err().unwrap());
        assert!(parts.iter().all(|part| message.contains(part)), "{message}");
    };
    refused(&|t| _ = t.remove("dt.ln_f.weight"), &["dt.ln_f.weight", "found none"]);
    refused(&|t| _ = t.remove("dt.se.score"), &["dt.se.score", "found none"]);
    refused(&|t| _ = t.insert("extra.weight".into(), t["dt.ln_f.weight"].clone()), &["no part", "extra.weight"]);
    refused(
        &|t| t.get_mut("dt.ln_f.weight").unwrap().1 = vec![4, 8],
        &["dt.ln_f.weight", "expected shape [32]", "found [4, 8]"],
    );
    refused(&|t| t.get_mut("dt.re.score").unwrap().2[3] = 0x7f, &["dt.re.score", "finite"]);
    refused(&|t| t.get_mut("dt.re.weight").unwrap().0 = Dtype::I32, &["dt.re.weight", "F32", "I32"]);
    let message = format!("{:#}", import(&whole, &Given { keep: None, ..golden.given() }, "keep").err().unwrap());
    assert!(message.contains("--keep"), "{message}");
    let path = std::env::temp_dir().join(format!("tsn-import-{}.pt", std::process::id()));
    for bytes in [&b"PK\x03\x04 model"[..], b"\x80\x02}q", b"", b"nothing"] {
        fs::write(&path, bytes).unwrap();
        let message = format!("{:#}", read(&path, &golden.given()).err().unwrap());
        assert!(message.contains("pickle") && message.contains("safetensors.torch import save_file"), "{message}");
    }
    fs::remove_file(&path).unwrap();
}
