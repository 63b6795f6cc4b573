//! How many packages an embedder of `tsn` gets.
//!
//! Counted are packages that are not members of this workspace, over normal and build edges, on the host.

use std::collections::BTreeSet;

/// rayon and what it brings (5), either, bytemuck, half with cfg-if.
pub(crate) const DEFAULT: usize = 9;
/// bytemuck, half with cfg-if.
pub(crate) const BARE: usize = 3;

/// The default ones, cudarc and libloading.
pub(crate) const CUDA: usize = 11;
/// The default ones, wgpu and what it brings, three proc-macros among them.
pub(crate) const WGPU: usize = 61;
/// Proc-macros that wgpu brings.
const WGPU_MACROS: [&str; 3] = ["bytemuck_derive", "document-features", "thiserror-impl"];

/// Complaints about the output of `cargo tree --prefix none`.
pub(crate) fn check(build: &str, tree: &str, most: usize) -> Vec<String> {
    // Members are shown with their path in parentheses; a repeated subtree ends in (*).
    let outside = |line: &&str| !line.is_empty() && !line.contains("(/") && !line.contains(":\\");
    let line = |line: &str| line.trim_end_matches(" (*)").to_owned();
    let packages: BTreeSet<String> = tree.lines().map(str::trim).filter(outside).map(line).collect();
    let mut complaints = Vec::new();
    if packages.len() > most {
        let list: Vec<&str> = packages.iter().map(String::as_str).collect();
        complaints.push(format!(
            "tsn with {build} brings {} packages, the budget is {most}: {}",
            packages.len(),
            list.join(", ")
        ));
    }
    let known = |p: &str| most == WGPU && WGPU_MACROS.iter().any(|name| p.split(' ').next() == Some(name));
    for package in packages.iter().filter(|p| p.contains("(proc-macro)") && !known(p)) {
        complaints.push(format!("tsn with {build} brings the proc-macro {package}; the core has none"));
    }
    complaints
}

#[cfg(test)]
mod tests {
    use super::*;

    const TREE: &str = "tsn v0.1.0 (/a/tsn)\nrayon v1.12.0\neither v1.19.0\nrayon v1.12.0 (*)\ntsn-dt v0.1.0 (/a/dt)\n";

    #[test]
    fn members_and_repeats_are_not_counted() {
        assert_eq!(check("default features", TREE, 2), Vec::<String>::new());
    }

    #[test]
    fn a_package_too_many_is_found() {
        let found = check("default features", &format!("{TREE}libc v0.2.0\n"), 2);
        assert!(found.len() == 1 && found[0].contains("brings 3 packages") && found[0].contains("libc"), "{found:?}");
    }

    #[test]
    fn macros_that_wgpu_brings_are_no_news() {
        let tree = format!("{TREE}thiserror-impl v2.0.21 (proc-macro)\nother v1.0.0 (proc-macro)\n");
        let found = check("wgpu", &tree, WGPU);
        assert!(found.len() == 1 && found[0].contains("other"), "{found:?}");
    }

    #[test]
    fn a_proc_macro_is_found() {
        let found = check("default features", &format!("{TREE}zerocopy-derive v0.8.0 (proc-macro)\n"), 9);
        assert!(found.len() == 1 && found[0].contains("zerocopy-derive"), "{found:?}");
    }
}
