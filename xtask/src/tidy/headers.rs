//! Every source file says at its top what it is; that of a kernel agrees with the contract of its op.

use crate::scan::File;
use kernels::contract::cuda::struct_name;
use kernels::{Access, Arg, Contract, DType};

/// The fields of a kernel source, in order.
const FIELDS: [&str; 8] = ["op", "args", "layout", "launch", "order", "tol", "cost", "source"];

/// Complaints about files without their header, and about headers that differ from the contract of one of `ops`.
pub(crate) fn check(files: &[File], ops: &[&Contract]) -> Vec<String> {
    files.iter().filter_map(|file| fault(file, ops)).collect()
}

fn fault(File { path, text }: &File, ops: &[&Contract]) -> Option<String> {
    if path.ends_with(".rs") {
        // Tests of a directory are described by the module they belong to.
        let tests = path.ends_with("/tests.rs") && path.contains("/src/");
        return (!tests && !text.starts_with("//! ")).then(|| format!("{path}: does not start with a //! module doc"));
    }
    // What the emulator must find wrong, and what measures a GPU, is no op.
    if path.starts_with("tests/emulator/faults/") || path.starts_with("kernels/src/cuda/") {
        return (!text.starts_with("// ")).then(|| format!("{path}: does not start with a // comment"));
    }
    // Functions shared by kernels, and what the profiler measures limits with, are not an op.
    if path.contains("/common") {
        return None;
    }
    if path.starts_with("tsn/") {
        return (!text.starts_with("// ")).then(|| format!("{path}: does not start with a // comment"));
    }
    let field =
        |line: &str| line.strip_prefix("// ").and_then(|rest| rest.split_whitespace().next()).map(str::to_owned);
    // A field may go on in lines that are indented further.
    let heads: Vec<String> = text
        .lines()
        .take_while(|line| line.starts_with("//"))
        .filter(|line| !line.starts_with("//  "))
        .filter_map(field)
        .collect();
    let missing = FIELDS.iter().zip(0..).find(|(name, at)| heads.get(*at).map(String::as_str) != Some(**name));
    if let Some((name, at)) = missing {
        return Some(format!("{path}: field {} of its header must be `{name}`", at + 1));
    }
    // The skeleton of new ops is in no list; its own test holds it against its contract.
    if path.starts_with("xtask/") {
        return None;
    }
    if path.ends_with(".cu") {
        return family_fault(text, ops).map(|why| format!("{path}: {why}"));
    }
    let name = words(text, "op").next().unwrap_or("");
    match ops.iter().find(|op| op.name == name) {
        None => Some(format!("{path}: its header names the op `{name}`, which kernels::OPS does not have")),
        Some(op) => args_fault(text, op).map(|why| format!("{path}: {why}")),
    }
}

/// Words of a field of a header, with those of the lines that continue it.
fn words<'a>(text: &'a str, field: &'a str) -> impl Iterator<Item = &'a str> {
    let head = move |line: &&str| line.strip_prefix("// ").is_some_and(|rest| rest.split(' ').next() == Some(field));
    let lines = text.lines().take_while(|line| line.starts_with("//")).skip_while(move |line| !head(line));
    let own = lines.enumerate().take_while(|(at, line)| *at == 0 || line.starts_with("//  ")).map(|(_, line)| line);
    own.flat_map(str::split_whitespace).filter(|word| *word != "//").skip(1)
}

/// What is wrong with the header of a CUDA source, which holds a family of ops: `op` names each of them at the beginning
/// of a line, `args` the struct that each one's kernels take, and no other struct of an op is used.
fn family_fault(text: &str, ops: &[&Contract]) -> Option<String> {
    let args: Vec<&str> = words(text, "args").collect();
    let lines =
        text.lines().skip_while(|line| !line.starts_with("// op ")).take_while(|line| !line.starts_with("// args"));
    let names: Vec<&str> = lines.filter_map(|line| line.get(11..)?.split(' ').next()).collect();
    let code: String = text.lines().filter(|line| !line.starts_with("//")).collect();
    for op in ops {
        let kind = struct_name(op);
        let used = code.split(|c: char| !c.is_alphanumeric()).any(|word| word == kind);
        if used != names.contains(&op.name) || used != args.contains(&kind.as_str()) {
            return Some(format!("its header and its kernels disagree about {} and {kind}", op.name));
        }
    }
    None
}

/// What is wrong with the field `args` of a source: it lists what the op reads, an arrow, and what it writes or updates.
pub(crate) fn args_fault(text: &str, op: &Contract) -> Option<String> {
    let (read, written): (Vec<&Arg>, Vec<&Arg>) = op.args.iter().partition(|arg| arg.access == Access::Read);
    let both = |arg: &Arg| [vec![arg.name.to_owned()], types(arg)];
    let read = read.into_iter().flat_map(both);
    let expected: Vec<Vec<String>> =
        read.chain([vec!["->".to_owned()]]).chain(written.into_iter().flat_map(both)).collect();
    let found: Vec<&str> = words(text, "args").collect();
    let nothing = Vec::new();
    (0..found.len().max(expected.len())).find_map(|at| {
        let (found, expected) = (found.get(at).copied(), expected.get(at).unwrap_or(&nothing));
        let same = found.is_some_and(|found| expected.iter().any(|one| one == found));
        let what = || if expected.is_empty() { "nothing".to_owned() } else { format!("`{}`", expected.join("` or `")) };
        let end = "the end of the field";
        (!same).then(|| {
            format!(
                "`args` has {} where {} has {}",
                found.map_or(end.to_owned(), |f| format!("`{f}`")),
                op.name,
                what()
            )
        })
    })
}

/// The ways to write type and dimensions of an argument.
fn types(arg: &Arg) -> Vec<String> {
    let dims: Vec<String> = arg.dims.iter().map(char::to_string).collect();
    let (dims, optional) = (dims.join(","), if arg.optional { "?" } else { "" });
    let name = |dtype: &DType| match dtype {
        DType::F32 => "f32",
        DType::F16 => "f16",
        DType::Bf16 => "bf16",
        DType::U32 => "u32",
        DType::U16 => "u16",
        DType::U8 => "u8",
        DType::Bits => "bits",
    };
    arg.dtypes.iter().map(|dtype| format!("{}[{dims}]{optional}", name(dtype))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_family_names_its_ops_and_their_structs() {
        let head = "// op      add                    y = a + b\n//         fill                   y = value\n// args    AddArgs  FillArgs\n";
        let of = |text: &str| family_fault(text, kernels::OPS);
        let kernels = "KERNEL(256) add(AddArgs a) {}\nKERNEL(256) fill(FillArgs a) {}\n";
        assert_eq!(of(&format!("{head}{kernels}")), None);
        assert!(of(&format!("{head}KERNEL(256) add(AddArgs a) {{}}\n")).is_some_and(|why| why.contains("fill")));
        assert!(
            of(&format!("{head}{kernels}KERNEL(256) gelu(GeluArgs a) {{}}\n")).is_some_and(|why| why.contains("gelu"))
        );
    }

    fn complaints(path: &str, text: &str) -> String {
        check(&[File { path: path.into(), text: text.into() }], kernels::OPS).join("\n")
    }

    const HEADER: &str = "// op      add   y = a + b\n// args    a f32[r,c]  b f32[r,c]\n//         ->  y f32[r,c]\n// layout  row\n// launch  one\n//         more\n// order   j\n// tol     2\n// cost    1\n// source  definition\n";

    #[test]
    fn modules_without_a_doc_are_found() {
        assert_eq!(complaints("a/src/lib.rs", "//! What it is.\n"), "");
        assert_eq!(complaints("kernels/src/ops/x/tests.rs", "use super::*;\n"), "");
        assert!(complaints("a/src/lib.rs", "use b;\n").contains("module doc"));
        assert!(complaints("tests/tests/x.rs", "").contains("module doc"));
    }

    #[test]
    fn kernel_sources_without_a_field_are_found() {
        assert_eq!(complaints("k/wgpu.wgsl", &format!("{HEADER}struct Params {{}};\n")), "");
        let without = HEADER.replace("// tol     2\n", "");
        assert!(complaints("k/wgpu.wgsl", &without).contains("field 6 of its header must be `tol`"));
        assert!(complaints("k/cuda.cu", "struct Params {};\n").contains("`op`"));
        assert_eq!(complaints("tsn/cli/src/read.wgsl", "// Reads all.\nstruct Params {};\n"), "");
        assert!(complaints("tsn/cli/src/read.wgsl", "struct Params {};\n").contains("// comment"));
    }

    #[test]
    fn arguments_that_differ_from_the_contract_are_found() {
        let with = |args: &str| HEADER.replace("a f32[r,c]  b f32[r,c]", args);
        assert_eq!(complaints("k/add.wgsl", &with("a f32[r,c]\n//         b f32[r,c]")), "");
        for (args, why) in [
            ("a f32[r,c]", "`args` has `->` where add has `b`"),
            ("b f32[r,c]  a f32[r,c]", "has `b` where add has `a`"),
            ("a f32[c,r]  b f32[r,c]", "has `f32[c,r]` where add has `f32[r,c]`"),
            ("a f32[r,c]?  b f32[r,c]", "has `f32[r,c]?` where"),
            ("a u32[r,c]  b f32[r,c]", "has `u32[r,c]` where"),
            ("a f32[r,c]  b f32[r,c]  c f32[r,c]", "has `c` where add has `->`"),
        ] {
            let found = complaints("k/add.wgsl", &with(args));
            assert!(found.contains(why) && found.contains("k/add.wgsl"), "{args}: {found}");
        }
        let longer = HEADER.replace("->  y f32[r,c]", "->  y f32[r,c]  z f32[r,c]");
        assert!(complaints("k/add.wgsl", &longer).contains("has `z` where add has nothing"));
        let shorter = HEADER.replace("  y f32[r,c]", "");
        assert!(complaints("k/add.wgsl", &shorter).contains("has the end of the field where add has `y`"));
        let unknown = HEADER.replace("op      add", "op      subtract");
        assert!(complaints("k/add.wgsl", &unknown).contains("the op `subtract`"));
    }

    #[test]
    fn one_of_several_types_is_enough() {
        let gemm = kernels::ops::find("gemm").unwrap();
        for dtype in ["f32", "bf16"] {
            let text = format!(
                "// op      gemm\n// args    x {dtype}[r,i]  w {dtype}[o,i]  bias f32[o]?  ->  y f32[r,o]  slope f32[r,o]?\n"
            );
            assert_eq!(args_fault(&text, gemm), None);
        }
        let text = "// op      gemm\n// args    x u8[r,i]\n";
        assert!(args_fault(text, gemm).unwrap().contains("`f32[r,i]` or `bf16[r,i]`"));
    }
}
