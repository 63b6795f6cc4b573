//! Models of other sizes and combinations than the fixtures have.
//!
//! With a learning rate of 0 the parameters and masks after any steps are those before, which the test knows exactly;
//! of losses and gradients it knows the shapes only (their values are tested by the fixtures and by differences).

use super::*;
use dt::config::{Action, Config, Observation, Role, Time};
use kernels::philox::{Rng, Stream};

/// One combination.
#[derive(Clone, Copy, Debug)]
struct Choice {
    model: &'static str,
    observation: Observation,
    action: Action,
    sizes: [u32; 4],
    keep_ratio: Option<f64>,
    include_embeddings: bool,
    occupied: Option<f64>,
}

const BATCH: usize = 2;
const STEPS: usize = 3;

/// Metadata and tensors; values are random, the last window of every batch is all padding.
fn made(choice: Choice) -> (Value, Vec<Made>) {
    let Choice { model, observation, action, sizes: [width, layers, heads, context], keep_ratio, .. } = choice;
    let config = Config {
        width,
        layers,
        heads,
        context,
        max_ep_len: 7,
        time: Time::Learned,
        include_embeddings: choice.include_embeddings,
        ..Config::new(observation, action)
    };
    let meta = json!({
        "model": model, "d_model": width, "n_layers": layers, "n_heads": heads, "K": context, "B": BATCH,
        "max_ep_len": 7, "n_actions": action.outputs(), "rtg_scale": 3.0, "lr": 0.0, "weight_decay": 0.1,
        "grad_clip": 0.25, "steps": STEPS, "n_batches": 2, "second_task": choice.occupied.is_some(),
        "tsn": keep_ratio.map(|ratio| json!({"keep_ratio": ratio, "include_embeddings": choice.include_embeddings})),
    });
    let mut rng = Rng::new(5, Stream::Data, [0, 0]);
    let mut normal = move |n: usize| -> Vec<f64> { (0..n).map(|_| f64::from(rng.normal() as f32)).collect() };
    let rough = |name: String, shape: &[usize]| {
        let values = vec![0.0; shape.iter().product()];
        Made { atol: json!(1e9), ..expected(&name, shape, &values) }
    };
    let exact = |prefix: &str, made: &Made| Made {
        name: made.name.replacen("param.", prefix, 1),
        role: "out",
        atol: json!(0),
        ..made.clone()
    };
    let mut tensors = Vec::new();
    for spec in config.parameters() {
        let shape = match spec.rows {
            1 => vec![spec.cols as usize],
            rows => vec![rows as usize, spec.cols as usize],
        };
        let layer = spec.name.rsplit_once('.').expect("every parameter belongs to a layer").0;
        let weight = given(&format!("param.{}", spec.name), &shape, &normal(spec.len()));
        tensors.extend([exact("after.", &weight), rough(format!("grad.{}", spec.name), &shape), weight]);
        let (Some(ratio), Role::Maskable) = (keep_ratio, spec.role) else { continue };
        let suffix = if spec.name.ends_with("bias") { "bias_score" } else { "score" };
        let scores = given(&format!("param.{layer}.{suffix}"), &shape, &normal(spec.len()));
        tensors.extend([exact("after.", &scores), rough(format!("grad.{layer}.{suffix}"), &shape)]);
        let occupied: Vec<f64> = match choice.occupied {
            None => vec![0.0; spec.len()],
            Some(part) => (0..spec.len()).map(|at| f64::from((at as f64 / spec.len() as f64) < part)).collect(),
        };
        let mut free: Vec<usize> = (0..spec.len()).filter(|at| occupied[*at] == 0.0).collect();
        let k = if free.is_empty() { 0 } else { ((ratio * free.len() as f64).round_ties_even() as usize).max(1) };
        free.sort_by(|a, b| scores.values[*b].abs().total_cmp(&scores.values[*a].abs()));
        let mut mask = vec![0.0; spec.len()];
        free.iter().take(k).for_each(|at| mask[*at] = 1.0);
        for prefix in ["mask0", "mask_after"] {
            tensors.push(bytes(expected(&format!("{prefix}.{}", spec.name), &shape, &mask)));
        }
        if choice.occupied.is_some() {
            tensors.push(bytes(given(&format!("occupied.{}", spec.name), &shape, &occupied)));
        }
        tensors.push(scores);
    }
    batches(&config, &mut normal, &mut tensors);
    let steps = context as usize;
    tensors.push(rough("logits".into(), &[BATCH, steps, action.outputs() as usize]));
    tensors.push(rough("loss".into(), &[]));
    tensors.extend(["losses", "grad_norms"].map(|name| rough(name.into(), &[STEPS])));
    (meta, tensors)
}

fn batches(config: &Config, normal: &mut impl FnMut(usize) -> Vec<f64>, tensors: &mut Vec<Made>) {
    let steps = config.context as usize;
    let rows = BATCH * steps;
    let valid = |row: usize| row < steps;
    for batch in 0..2 {
        let name = |part: &str| format!("batch{batch}.{part}");
        let len = rows * config.observation_len() as usize;
        tensors.push(match config.observation {
            Observation::Vector(n) => given(&name("obs"), &[BATCH, steps, n as usize], &normal(len)),
            Observation::Image { channels, height, width } => {
                let [channels, height, width] = [channels, height, width].map(|n| n as usize);
                let pixels: Vec<f64> = (0..len).map(|at| (at * 37 % 256) as f64).collect();
                bytes(given(&name("obs"), &[BATCH, steps, channels, height, width], &pixels))
            }
        });
        tensors.push(match config.action {
            Action::Discrete(n) => {
                let action = |row: usize| if valid(row) { (row % n as usize) as f64 } else { -1.0 };
                ids(given(&name("actions"), &[BATCH, steps], &(0..rows).map(action).collect::<Vec<_>>()))
            }
            Action::Continuous(n) => given(&name("actions"), &[BATCH, steps, n as usize], &normal(rows * n as usize)),
        });
        tensors.push(given(&name("rtg"), &[BATCH, steps, 1], &normal(rows)));
        let (times, mask): (Vec<f64>, Vec<f64>) = (0..rows).map(|row| (row as f64, f64::from(valid(row)))).unzip();
        tensors.push(ids(given(&name("timesteps"), &[BATCH, steps], &times)));
        tensors.push(bytes(given(&name("mask"), &[BATCH, steps], &mask)));
    }
}

fn choices() -> Vec<Choice> {
    let image = Observation::Image { channels: 1, height: 36, width: 45 };
    let kinds = [
        ("cartpole", Observation::Vector(5), Action::Discrete(3), [12, 1, 3, 1]),
        ("panda", Observation::Vector(3), Action::Continuous(2), [10, 2, 5, 4]),
        ("atari", image, Action::Discrete(2), [6, 1, 1, 3]),
    ];
    let masks = [None, Some((0.33, None)), Some((1.0, None)), Some((0.5, Some(0.5))), Some((0.5, Some(1.0)))];
    let mut all = Vec::new();
    for (model, observation, action, sizes) in kinds {
        for mask in masks {
            for include_embeddings in [false, true] {
                let (keep_ratio, occupied) = (mask.map(|m| m.0), mask.and_then(|m| m.1));
                all.push(Choice { model, observation, action, sizes, keep_ratio, include_embeddings, occupied });
            }
        }
    }
    all
}

#[test]
fn every_combination_is_read_and_compared() {
    let mut golden = Golden::new();
    for (at, choice) in choices().into_iter().enumerate() {
        let (meta, tensors) = made(choice);
        golden.add(&format!("model_{}_{at:02}", choice.model), &meta, &tensors);
    }
    let outcomes = golden.run();
    assert_eq!(outcomes.len(), 30);
    for outcome in outcomes {
        assert!(outcome.failures.is_empty(), "{}: {}", outcome.case, outcome.failures.join("\n"));
    }
}

#[test]
fn a_model_with_a_wrong_tensor_fails() {
    let choice = choices()[6];
    assert!(choice.occupied.is_some() && choice.model == "cartpole");
    let (meta, tensors) = made(choice);
    for tensor in ["mask0.dt.se.weight", "mask_after.obs_enc.net.0.bias", "after.dt.te.weight", "after.dt.se.score"] {
        let mut tensors = tensors.clone();
        let wrong = tensors.iter_mut().find(|t| t.name == tensor).expect("the model has it");
        wrong.values[0] = 1.0 - wrong.values[0];
        let mut golden = Golden::new();
        golden.add("model_cartpole_wrong", &meta, &tensors);
        let text = golden.failures();
        assert!(text.starts_with(&format!("output `{tensor}`[0]")) && text.lines().count() == 1, "{text}");
    }
    for at in 0..tensors.len() {
        let mut tensors = tensors.clone();
        let missing = tensors.remove(at).name;
        let mut golden = Golden::new();
        golden.add("model_cartpole_less", &meta, &tensors);
        assert!(golden.failures().contains(&missing), "without {missing}: {}", golden.failures());
    }
}
