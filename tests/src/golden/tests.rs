//! The comparison itself: right directories pass, each kind of damage fails and is named.

mod models;

use super::*;
use safetensors::tensor::{Dtype, TensorView};
use serde_json::{Map, Value, json};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};

/// A tensor of a case in the making.
#[derive(Clone)]
struct Made {
    name: String,
    role: &'static str,
    dtype: Dtype,
    shape: Vec<usize>,
    values: Vec<f64>,
    atol: Value,
}

fn given(name: &str, shape: &[usize], values: &[f64]) -> Made {
    let (name, shape, values) = (name.to_owned(), shape.to_vec(), values.to_vec());
    Made { name, role: "in", dtype: Dtype::F32, shape, values, atol: Value::Null }
}

fn expected(name: &str, shape: &[usize], values: &[f64]) -> Made {
    Made { role: "out", atol: json!(1e-5), ..given(name, shape, values) }
}

/// Booleans and masks.
fn bytes(made: Made) -> Made {
    Made { dtype: Dtype::U8, ..made }
}

fn ids(made: Made) -> Made {
    Made { dtype: Dtype::I64, ..made }
}

/// A directory of cases that removes itself.
struct Golden {
    dir: PathBuf,
    index: Map<String, Value>,
}

impl Golden {
    fn new() -> Golden {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let name = format!("golden-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let dir = std::env::temp_dir().join(name);
        std::fs::create_dir_all(&dir).expect("a directory for temporary files");
        Golden { dir, index: Map::new() }
    }

    /// Writes a file that the index does not list.
    fn unlisted(&mut self, name: &str, meta: &Value, tensors: &[Made]) {
        let data: Vec<Vec<u8>> = tensors
            .iter()
            .map(|t| match t.dtype {
                Dtype::F32 => t.values.iter().flat_map(|v| (*v as f32).to_le_bytes()).collect(),
                Dtype::U8 => t.values.iter().map(|v| *v as u8).collect(),
                _ => t.values.iter().flat_map(|v| (*v as i64).to_le_bytes()).collect(),
            })
            .collect();
        let views = tensors
            .iter()
            .zip(&data)
            .map(|(t, data)| (t.name.as_str(), TensorView::new(t.dtype, t.shape.clone(), data).expect("sizes fit")));
        let metadata = [("case".to_owned(), meta.to_string())].into();
        let file = safetensors::serialize(views, Some(metadata)).expect("tensors are valid");
        std::fs::write(self.dir.join(format!("{name}.safetensors")), file).expect("the directory is ours");
    }

    fn add(&mut self, name: &str, meta: &Value, tensors: &[Made]) {
        self.unlisted(name, meta, tensors);
        let spec = |t: &Made| {
            let spec = json!({"role": t.role, "shape": t.shape, "atol": t.atol});
            (t.name.clone(), spec)
        };
        let specs: Map<String, Value> = tensors.iter().map(spec).collect();
        self.index.insert(name.to_owned(), json!({"meta": meta, "tensors": specs}));
    }

    fn run(&self) -> Vec<Outcome> {
        let index = Value::Object(self.index.clone()).to_string();
        std::fs::write(self.dir.join("index.json"), index).expect("the directory is ours");
        run(&self.dir, &Device::cpu(1)).expect("the index is readable")
    }

    /// Failures of all cases in one text.
    fn failures(&self) -> String {
        self.run().iter().flat_map(|o| o.failures.clone()).collect::<Vec<_>>().join("\n")
    }
}

impl Drop for Golden {
    fn drop(&mut self) {
        // Left behind if the system refuses; no test depends on it.
        let _ = std::fs::remove_dir_all(&self.dir);
    }
}

/// `y = x wᵀ` of 2 x 2 numbers, with upstream gradient ones.
fn product() -> (Value, Vec<Made>) {
    let tensors = vec![
        given("x", &[2, 2], &[1.0, 2.0, 3.0, 4.0]),
        given("w", &[1, 2], &[0.5, -1.0]),
        given("gy", &[2, 1], &[1.0, 1.0]),
        expected("y", &[2, 1], &[-1.5, -2.5]),
        expected("gx", &[2, 2], &[0.5, -1.0, 0.5, -1.0]),
        expected("gw", &[1, 2], &[4.0, 6.0]),
    ];
    (json!({"bias": false, "in_features": 2}), tensors)
}

/// The failures after one change to the product's case.
fn damaged(change: impl Fn(&mut Value, &mut Vec<Made>)) -> String {
    let (mut meta, mut tensors) = product();
    change(&mut meta, &mut tensors);
    let mut golden = Golden::new();
    golden.add("linear_t", &meta, &tensors);
    golden.failures()
}

#[test]
fn a_right_case_passes_and_a_wrong_value_fails() {
    assert_eq!(damaged(|_, _| {}), "");
    assert_eq!(damaged(|_, t| t[3].values[1] += 0.9e-5), "");
    for (tensor, name) in [(3, "`y`[1]"), (4, "`gx`[1]"), (5, "`gw`[1]")] {
        let text = damaged(|_, t| t[tensor].values[1] += 1.2e-5);
        assert!(text.contains(name) && text.contains("atol"), "{text}");
        let text = damaged(|_, t| t[tensor].values[1] = f64::NAN);
        assert!(text.contains(name), "{text}");
    }
}

#[test]
fn an_atol_of_zero_means_equal() {
    assert_eq!(damaged(|_, t| t[3].atol = json!(0)), "");
    assert!(damaged(|_, t| (t[3].atol, t[3].values[0]) = (json!(0), -1.500001)).contains("`y`[0]"));
}

#[test]
fn what_is_missing_or_left_over_is_named() {
    for (tensor, name) in ["`x`", "`w`", "`gy`", "`y`", "`gx`", "`gw`"].into_iter().enumerate() {
        let text = damaged(|_, t| drop(t.remove(tensor)));
        assert!(text.contains(name), "without {name}: {text}");
    }
    let text = damaged(|_, t| t.push(expected("gb", &[1], &[2.0])));
    assert!(text.contains("`gb` is compared with nothing"), "{text}");
    let text = damaged(|_, t| t.push(given("scale", &[1], &[2.0])));
    assert!(text.contains("`scale` is not read"), "{text}");
    let text = damaged(|_, t| t.push(given("b", &[1], &[0.0])));
    assert!(text.contains("`bias` is false") && text.contains("`b` is there"), "{text}");
    assert!(damaged(|_, t| t[3].role = "in").contains("`y` is a result but index.json calls it an input"));
    assert!(damaged(|_, t| t[3].role = "aux").contains("unknown role"));
    assert!(damaged(|meta, _| meta["in_features"] = json!(3)).contains("`in_features` is 3"));
}

#[test]
fn index_and_file_must_agree() {
    let (meta, tensors) = product();
    let with = |change: &dyn Fn(&mut Golden)| {
        let mut golden = Golden::new();
        golden.add("linear_t", &meta, &tensors);
        change(&mut golden);
        golden.failures()
    };
    let specs = |golden: &mut Golden, to: &dyn Fn(&mut Map<String, Value>)| {
        to(golden.index["linear_t"]["tensors"].as_object_mut().expect("an object"))
    };
    assert!(with(&|g| specs(g, &|s| drop(s.remove("gw")))).contains("`gw` is in the file but not in index.json"));
    assert!(with(&|g| specs(g, &|s| drop(s.insert("gb".into(), json!({}))))).contains("`gb` is missing from the file"));
    assert!(with(&|g| specs(g, &|s| s["y"]["shape"] = json!([1, 2]))).contains("`y` is [2, 1]"));
    assert!(with(&|g| g.index["linear_t"]["meta"]["bias"] = json!(true)).contains("parameters"));
    let text = with(&|g| std::fs::remove_file(g.dir.join("linear_t.safetensors")).expect("it is there"));
    assert!(text.contains("linear_t.safetensors"), "{text}");
    let text = with(&|g| std::fs::write(g.dir.join("linear_t.safetensors"), [0; 20]).expect("the directory is ours"));
    assert!(text.contains("linear_t.safetensors"), "{text}");
}

#[test]
fn unknown_kinds_and_unlisted_files_are_cases() {
    let (meta, tensors) = product();
    let mut golden = Golden::new();
    golden.add("linearity", &meta, &tensors);
    golden.add("softmax_a", &meta, &tensors);
    golden.unlisted("linear_u", &meta, &tensors);
    let mut wrong = tensors.clone();
    wrong[3].values[0] += 1e-3;
    golden.unlisted("linear_v", &meta, &wrong);
    golden.unlisted("rnn_a", &meta, &tensors);
    golden.add("model_hopper", &json!({"model": "hopper"}), &[]);
    let outcomes = golden.run();
    let of = |case: &str| outcomes.iter().find(|o| o.case == case).expect("every file is a case").failures.join("\n");
    for name in ["linearity", "softmax_a", "rnn_a"] {
        assert!(of(name).contains(&format!("unknown kind of case \"{name}\"")), "{}", of(name));
    }
    assert!(of("model_hopper").contains("unknown kind of model \"hopper\""));
    assert_eq!(of("linear_u"), "");
    assert!(of("linear_v").contains("`y`[0]"));
    assert_eq!(outcomes.len(), 6);
}

#[test]
fn a_directory_without_an_index_is_an_error() {
    let golden = Golden::new();
    let failure = run(&golden.dir, &Device::cpu(1)).expect_err("no index");
    assert!(failure.to_string().contains("index.json"), "{failure}");
}

/// A masked row of four weights, input and upstream gradient 1.
fn masked(scores: [f64; 4], occupied: Option<[f64; 4]>, ratio: f64, mask: [f64; 4]) -> (Value, Vec<Made>) {
    let weights = [1.0, 2.0, 3.0, 4.0];
    let sign = |s: f64| if s == 0.0 { 0.0 } else { s.signum() };
    let kept: Vec<f64> = weights.iter().zip(mask).map(|(w, m)| w * m).collect();
    let score_grad: Vec<f64> = weights.iter().zip(scores).map(|(w, s)| w * sign(s)).collect();
    let mut tensors = vec![
        given("x", &[1, 4], &[1.0; 4]),
        given("weight", &[1, 4], &weights),
        given("score", &[1, 4], &scores),
        given("gy", &[1, 1], &[1.0]),
        expected("y", &[1, 1], &[kept.iter().sum()]),
        expected("gx", &[1, 4], &kept),
        bytes(expected("mask_w", &[1, 4], &mask)),
        expected("g_weight", &[1, 4], &mask),
        expected("g_score", &[1, 4], &score_grad),
    ];
    tensors.extend(occupied.map(|o| bytes(given("occ_w", &[1, 4], &o))));
    (json!({"keep_ratio": ratio}), tensors)
}

#[test]
fn masks_at_their_edges() {
    let cases = [
        ("half", [0.1, -0.9, 0.5, -0.2], None, 0.5, [0.0, 1.0, 1.0, 0.0]),
        // 0.625 * 4 = 2.5 goes to the even 2; 0.875 * 4 = 3.5 to 4.
        ("to_even", [0.1, -0.9, 0.5, -0.2], None, 0.625, [0.0, 1.0, 1.0, 0.0]),
        ("to_even_up", [0.1, -0.9, 0.5, -0.2], None, 0.875, [1.0; 4]),
        ("at_least_one", [0.1, -0.9, 0.5, -0.2], None, 0.01, [0.0, 1.0, 0.0, 0.0]),
        ("all", [0.1, -0.9, 0.5, -0.2], None, 1.0, [1.0; 4]),
        ("ties", [0.5, -0.5, 0.5, -0.2], None, 0.5, [1.0, 1.0, 1.0, 0.0]),
        ("zeros", [0.0, -0.0, 0.0, 0.3], None, 0.5, [1.0; 4]),
        ("occupied", [0.1, -0.9, 0.5, -0.2], Some([0.0, 1.0, 0.0, 0.0]), 0.33, [0.0, 0.0, 1.0, 0.0]),
        ("no_free", [0.1, -0.9, 0.5, -0.2], Some([1.0; 4]), 0.5, [0.0; 4]),
    ];
    for (name, scores, occupied, ratio, mask) in cases {
        let (meta, mut tensors) = masked(scores, occupied, ratio, mask);
        let mut golden = Golden::new();
        golden.add(&format!("ste_linear_{name}"), &meta, &tensors);
        assert_eq!(golden.failures(), "", "{name}");
        tensors[6].values[3] = 1.0 - tensors[6].values[3];
        golden.add(&format!("ste_linear_{name}"), &meta, &tensors);
        assert!(golden.failures().contains("`mask_w`[3]"), "{name}: {}", golden.failures());
    }
}

#[test]
fn sums_over_nothing() {
    let mut golden = Golden::new();
    let (uniform, zero) = ([-2f64.ln(); 4], [0.0; 4]);
    for (name, loss) in [("zero", 0.0), ("nan", f64::NAN)] {
        let tensors = [
            given("logits", &[2, 2], &zero),
            ids(given("target", &[2], &[-1.0, -1.0])),
            expected("loss", &[], &[loss]),
            expected("logprob", &[2, 2], &uniform),
            expected("glogits", &[2, 2], &zero),
        ];
        golden.add(&format!("cross_entropy_{name}"), &json!({}), &tensors);
    }
    let tensors = [
        given("pred", &[1, 2, 2], &[1.0, 2.0, 3.0, 4.0]),
        given("target", &[1, 2, 2], &zero),
        bytes(given("mask", &[1, 2], &[0.0, 0.0])),
        given("dim_mask", &[2], &[1.0, 1.0]),
        expected("loss", &[], &[0.0]),
        expected("gpred", &[1, 2, 2], &zero),
    ];
    golden.add("masked_mse_nothing", &json!({}), &tensors);
    let tensors = [
        given("a", &[2, 2], &[0.0, 0.0, 3.0, 4.0]),
        given("b", &[1, 2], &[3.0, 4.0]),
        expected("cos", &[2, 1], &[0.0, 1.0]),
    ];
    golden.add("cosine_matrix_zero", &json!({}), &tensors);
    let tensors = [
        given("x", &[5], &[2.0, 1.0, 2.0, 1.0, 4.0]),
        given("init_centers", &[3], &[1.0, 2.0, 4.0]),
        expected("lloyd_centers", &[3], &[1.0, 2.0, 4.0]),
        expected("lloyd_inertia", &[], &[0.0]),
        expected("optimal_centers", &[3], &[1.0, 2.0, 4.0]),
        expected("optimal_inertia", &[], &[0.0]),
        expected("sklearn_inertia", &[], &[0.0]),
    ];
    golden.add("kmeans1d_distinct", &json!({"k": 6, "k_used": 3}), &tensors);
    assert_eq!(golden.failures(), "");

    let mut tensors = tensors;
    tensors[0].values[0] = 2.5;
    golden.add("kmeans1d_distinct", &json!({"k": 3, "k_used": 3}), &tensors);
    assert!(golden.failures().contains("times `sklearn_inertia`"), "{}", golden.failures());
}
