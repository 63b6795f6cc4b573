//! The list of ops is complete and its names are unique.

use crate::scan::{File, code_only, words};
use std::collections::BTreeSet;

/// Where ops live.
pub(crate) const FOLDER: &str = "kernels/src/ops/";

/// Complaints about directories and contracts that `kernels/src/ops.rs` does not list.
pub(crate) fn check(files: &[&File], list: &str) -> Vec<String> {
    let listed = code_only(list);
    let modules: BTreeSet<&str> =
        words(&listed).zip(words(&listed).skip(1)).filter(|(a, _)| *a == "mod").map(|(_, name)| name).collect();
    let mut complaints = Vec::new();
    let mut seen = BTreeSet::new();
    for File { path, text } in files {
        let Some((folder, _)) = path.strip_prefix(FOLDER).and_then(|rest| rest.split_once('/')) else { continue };
        if seen.insert(folder) && !modules.contains(folder) {
            complaints.push(format!("{FOLDER}{folder}: no `mod {folder}` in kernels/src/ops.rs"));
        }
        for name in contracts(&code_only(text)) {
            let entry = format!("&{folder}::{name},");
            if !listed.contains(&entry) {
                complaints.push(format!("{path}: {name} is not in OPS; add `{entry}` to kernels/src/ops.rs"));
            }
        }
    }
    complaints
}

/// Names of `pub static NAME: Contract`.
fn contracts(code: &str) -> Vec<String> {
    let words: Vec<&str> = words(code).collect();
    let public = words.windows(4).filter(|w| w[0] == "pub" && w[1] == "static" && w[3] == "Contract");
    public.map(|w| w[2].to_owned()).collect()
}

/// Complaints about names that two ops share.
pub(crate) fn unique(names: impl Iterator<Item = &'static str>) -> Vec<String> {
    let mut seen = BTreeSet::new();
    let twice = names.filter(|name| !seen.insert(*name));
    twice.map(|name| format!("two ops are called {name}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn complaints(path: &str, text: &str) -> String {
        let list = "pub mod gemm;\npub static OPS: &[&Contract] = &[&gemm::GEMM,\n];\n// pub mod ghost;\n";
        check(&[&File { path: path.into(), text: text.into() }], list).join("\n")
    }

    #[test]
    fn listed_ops_pass() {
        assert_eq!(complaints("kernels/src/ops/gemm/mod.rs", "pub static GEMM: Contract = Contract {"), "");
        assert_eq!(complaints("kernels/src/ops/vmath.rs", "pub static X: f32 = 0.0;"), "");
    }

    #[test]
    fn a_directory_and_an_op_left_out_are_found() {
        assert!(complaints("kernels/src/ops/ghost/mod.rs", "").contains("no `mod ghost`"));
        let found = complaints("kernels/src/ops/gemm/mod.rs", "pub static GEMM_DX: Contract = Contract {");
        assert!(found.contains("&gemm::GEMM_DX,"), "{found}");
    }

    #[test]
    fn a_name_used_twice_is_found() {
        assert_eq!(unique(["a", "b"].into_iter()), Vec::<String>::new());
        assert_eq!(unique(["a", "b", "a"].into_iter()), ["two ops are called a"]);
    }
}
