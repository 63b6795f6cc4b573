//! `cargo xtask new-op <name>`: the directory of a new op and its lines in the list.

/// What the skeleton finds in `kernels`; its sources are always there here.
#[cfg(test)]
macro_rules! wgsl_sources {
    ($($source:expr),* $(,)?) => { &[$($source),*] };
}
#[cfg(test)]
#[expect(unreachable_pub, reason = "public where it is copied to")]
mod skeleton_op;

use anyhow::{Context, Result, ensure};
use std::path::Path;

const SKELETON: [(&str, &str); 4] = [
    ("mod.rs", include_str!("skeleton_op/mod.rs")),
    ("reference.rs", include_str!("skeleton_op/reference.rs")),
    ("cpu.rs", include_str!("skeleton_op/cpu.rs")),
    ("skeleton_op.wgsl", include_str!("skeleton_op/skeleton_op.wgsl")),
];
const LIST_END: &str = "\n];\n";
const KEYWORDS: &[&str] = &[
    "as", "async", "await", "box", "break", "const", "continue", "crate", "do", "dyn", "else", "enum", "extern",
    "final", "fn", "for", "gen", "if", "impl", "in", "let", "loop", "macro", "match", "mod", "move", "mut", "override",
    "priv", "pub", "ref", "return", "self", "static", "struct", "super", "trait", "true", "false", "try", "type",
    "typeof", "unsafe", "unsized", "use", "virtual", "where", "while", "yield", "abstract", "become",
];

pub(crate) fn run(root: &Path, name: &str) -> Result<()> {
    let (list, folder) = (root.join("kernels/src/ops.rs"), root.join("kernels/src/ops").join(name));
    let text = std::fs::read_to_string(&list).context("kernels/src/ops.rs")?;
    let text = listed(&text, name)?;
    ensure!(!folder.exists(), "{} exists", folder.display());
    std::fs::create_dir_all(&folder).with_context(|| folder.display().to_string())?;
    for (file, source) in files(name) {
        std::fs::write(folder.join(&file), source).with_context(|| file.clone())?;
    }
    std::fs::write(&list, text).context("kernels/src/ops.rs")?;
    println!(
        "kernels/src/ops/{name}: contract, reference, cpu.rs and {name}.wgsl of y = x; kernels/src/ops.rs lists it"
    );
    println!("next: cargo xtask tidy --write; cargo test -p tsn-tests --features wgpu --test conformance --test wgsl");
    Ok(())
}

/// The sources of a new op.
fn files(name: &str) -> [(String, String); 4] {
    let upper = name.to_uppercase();
    SKELETON.map(|part| {
        <[&str; 2]>::from(part).map(|text| text.replace("skeleton_op", name).replace("SKELETON_OP", &upper)).into()
    })
}

/// The list with a module line, in alphabetical order, and an entry at the end.
fn listed(list: &str, name: &str) -> Result<String> {
    let fits = name.starts_with(|c: char| c.is_ascii_lowercase())
        && name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_')
        && !KEYWORDS.contains(&name);
    ensure!(fits, "{name}: an op is named by a lower-case identifier that is no keyword, like masked_gemm");
    let module = format!("pub mod {name};");
    ensure!(!list.lines().any(|line| line.trim_start_matches("pub ") == format!("mod {name};")), "{name} is taken");
    let mut lines: Vec<&str> = list.lines().collect();
    let is_module = |line: &&str| line.starts_with("pub mod ");
    let after = lines.iter().rposition(|line| is_module(line) && *line < module.as_str());
    let first = lines.iter().position(is_module).context("kernels/src/ops.rs has no `pub mod` line")?;
    lines.insert(after.map_or(first, |at| at + 1), &module);
    let text = lines.join("\n") + "\n";
    let (before, rest) = text.split_once(LIST_END).context("kernels/src/ops.rs has no line `];`")?;
    Ok(format!("{before}\n    &{name}::{},{LIST_END}{rest}", name.to_uppercase()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use kernels::{Array, DType, Trial};

    const LIST: &str = "//! List.\n\npub mod gemm;\npub mod topk;\n\npub static OPS: &[&Contract] = &[\n    &gemm::GEMM,\n    &topk::TOPK,\n];\n\nfn find() {}\n";

    #[test]
    fn the_skeleton_is_a_correct_op() {
        for (r, c) in [(0, 3), (3, 0), (1, 1), (65, 33)] {
            let x = Array::F32(r, c, (0..r * c).map(|i| i as f32 - 7.5).collect());
            let args = vec![x, Array::output(DType::F32, r, c)];
            Trial::new(&skeleton_op::SKELETON_OP, args, &[]).unwrap().verify().unwrap();
        }
    }

    #[test]
    fn the_shader_of_the_skeleton_follows_its_contract() {
        let source = &skeleton_op::SKELETON_OP.wgsl[0];
        assert_eq!(crate::tidy::args_fault(source.text, &skeleton_op::SKELETON_OP), None);
        let (_, rest) = source.text.split_once("struct Params {").unwrap();
        let (members, rest) = rest.split_once('}').unwrap();
        let names: Vec<&str> = members.split(',').filter_map(|m| m.trim().strip_suffix(": u32")).collect();
        assert_eq!(names, kernels::contract::wgsl::parameters(&skeleton_op::SKELETON_OP));
        for binding in ["@binding(0) var<storage, read_write> x: array<f32>;", "@binding(9) var<uniform> p: Params;"] {
            assert!(rest.contains(binding), "{binding}");
        }
        let Some(launch) = source.dispatches.first() else { panic!("it is never launched") };
        assert!(rest.contains(&format!("fn {}(", launch.entry)));
    }

    #[test]
    fn modules_stay_sorted_and_the_entry_comes_last() {
        let list = listed(LIST, "relu").unwrap();
        assert!(list.contains("pub mod gemm;\npub mod relu;\npub mod topk;\n"), "{list}");
        assert!(list.contains("    &topk::TOPK,\n    &relu::RELU,\n];\n\nfn find() {}\n"), "{list}");
        assert!(listed(LIST, "abs").unwrap().contains("pub mod abs;\npub mod gemm;\n"));
    }

    #[test]
    fn bad_and_taken_names_are_refused() {
        for name in ["", "Relu", "2d", "a-b", "../x", "move", "gemm"] {
            assert!(listed(LIST, name).is_err(), "{name}");
        }
    }

    #[test]
    fn a_workspace_gets_the_directory_and_the_line() {
        let root = std::env::temp_dir().join(format!("tsn-new-op-{}", std::process::id()));
        std::fs::create_dir_all(root.join("kernels/src/ops")).unwrap();
        std::fs::write(root.join("kernels/src/ops.rs"), LIST).unwrap();
        let done = run(&root, "relu");
        let again = run(&root, "relu");
        let source = std::fs::read_to_string(root.join("kernels/src/ops/relu/mod.rs"));
        let shader = std::fs::read_to_string(root.join("kernels/src/ops/relu/relu.wgsl"));
        std::fs::remove_dir_all(&root).unwrap();
        done.unwrap();
        assert!(again.unwrap_err().to_string().contains("taken"));
        let source = source.unwrap();
        assert!(source.contains("pub static RELU: Contract") && source.contains("name: \"relu\""), "{source}");
        assert!(source.contains("include_str!(\"relu.wgsl\")"), "{source}");
        let shader = shader.unwrap();
        assert!(shader.starts_with("// op      relu "), "{shader}");
        assert!(!(source + &shader).to_lowercase().contains("skeleton"));
    }
}
