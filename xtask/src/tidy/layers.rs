//! Which crate may depend on which (ARCHITECTURE.md, "Layers").

use anyhow::{Context, Result};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};

/// The core ring: package and the members it may import.
const CORE: &[(&str, &[&str])] = &[
    ("tsn-kernels", &[]),
    ("tsn-engine", &["tsn-kernels"]),
    ("tsn-autograd", &["tsn-engine"]),
    ("tsn-affinity-math", &["tsn-engine"]),
    ("tsn-dt", &["tsn-autograd"]),
    ("tsn", &["tsn-dt", "tsn-affinity-math"]),
    ("tsn-capi", &["tsn"]),
    ("tsn-web", &["tsn"]),
];
/// The program ring; other packages are free here.
const PROGRAMS: &[(&str, &[&str])] = &[("tsn-dt-io", &["tsn-dt"]), ("tsn-affinity", &["tsn", "tsn-dt-io"])];
/// May import every member.
const TOP: &[&str] = &["tsn-tests", "tsn-emulator", "tsn-benches", "xtask"];
/// What the core may use from outside.
const OUTSIDE: &[&str] = &["rayon", "bytemuck", "half"];
/// The same, but only as an optional dependency of one member.
const OPTIONAL: &[(&str, &str)] = &[("tsn-engine", "cudarc"), ("tsn-engine", "wgpu")];

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Normal,
    Dev,
}

struct Edge {
    from: String,
    to: String,
    kind: Kind,
    optional: bool,
}

/// Complaints about the output of `cargo metadata --no-deps`.
pub(crate) fn check(metadata: &str) -> Result<Vec<String>> {
    let (members, edges) = read(metadata)?;
    let mut complaints = Vec::new();
    for member in &members {
        if drawn(member).is_none() && !TOP.contains(&member.as_str()) {
            complaints.push(format!("{member}: not a layer of ARCHITECTURE.md; add it to xtask/src/tidy/layers.rs"));
        }
    }
    for edge in edges.iter().filter(|e| e.kind == Kind::Normal) {
        complaints.extend(fault(edge, &members));
    }
    complaints.extend(cycle(&members, &edges));
    Ok(complaints)
}

fn drawn(package: &str) -> Option<&'static [&'static str]> {
    CORE.iter().chain(PROGRAMS).find(|(name, _)| *name == package).map(|(_, below)| *below)
}

fn fault(edge: &Edge, members: &BTreeSet<String>) -> Option<String> {
    let Edge { from, to, optional, .. } = edge;
    let below = drawn(from)?;
    if members.contains(to) {
        return (!below.contains(&to.as_str())).then(|| format!("{from} -> {to}: this edge is not drawn"));
    }
    if !CORE.iter().any(|(name, _)| name == from) || OUTSIDE.contains(&to.as_str()) {
        return None;
    }
    match (OPTIONAL.contains(&(from.as_str(), to.as_str())), optional) {
        (true, true) => None,
        (true, false) => Some(format!("{from} -> {to}: must be optional, behind a feature")),
        _ => Some(format!("{from} -> {to}: the core ring may use {}", OUTSIDE.join(", "))),
    }
}

/// A cycle among members, dev-dependencies included: cargo allows one, but then a crate is built twice and its types
/// differ between the two.
fn cycle(members: &BTreeSet<String>, edges: &[Edge]) -> Option<String> {
    let mut left: BTreeMap<&str, BTreeSet<&str>> = members.iter().map(|m| (m.as_str(), BTreeSet::new())).collect();
    for edge in edges.iter().filter(|e| members.contains(&e.to)) {
        left.entry(&edge.from).or_default().insert(&edge.to);
    }
    while let Some(&free) = left.iter().find(|(_, to)| to.is_empty()).map(|(from, _)| from) {
        left.remove(free);
        left.values_mut().for_each(|to| {
            to.remove(free);
        });
    }
    let names: Vec<&str> = left.keys().copied().collect();
    (!names.is_empty()).then(|| format!("a cycle of dependencies runs through {}", names.join(", ")))
}

fn read(metadata: &str) -> Result<(BTreeSet<String>, Vec<Edge>)> {
    let json: Value = serde_json::from_str(metadata).context("cargo metadata")?;
    let string = |value: &Value, key: &str| value[key].as_str().map(str::to_owned).with_context(|| format!("no {key}"));
    let (mut members, mut edges) = (BTreeSet::new(), Vec::new());
    for package in json["packages"].as_array().context("no packages")? {
        let from = string(package, "name")?;
        for dependency in package["dependencies"].as_array().context("no dependencies")? {
            let kind = if dependency["kind"] == "dev" { Kind::Dev } else { Kind::Normal };
            let optional = dependency["optional"] == true;
            edges.push(Edge { from: from.clone(), to: string(dependency, "name")?, kind, optional });
        }
        members.insert(from);
    }
    Ok((members, edges))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Name, kind, optional.
    type Dependency<'a> = (&'a str, &'a str, bool);
    type Package<'a> = (&'a str, &'a [Dependency<'a>]);

    /// What cargo says of these packages.
    fn metadata(packages: &[Package<'_>]) -> String {
        let dependency = |(name, kind, optional): &Dependency<'_>| {
            let kind = if *kind == "normal" { "null".to_owned() } else { format!("\"{kind}\"") };
            format!(r#"{{"name":"{name}","kind":{kind},"optional":{optional}}}"#)
        };
        let package = |(name, list): &Package<'_>| {
            let list: Vec<String> = list.iter().map(dependency).collect();
            format!(r#"{{"name":"{name}","dependencies":[{}]}}"#, list.join(","))
        };
        let packages: Vec<String> = packages.iter().map(package).collect();
        format!(r#"{{"packages":[{}]}}"#, packages.join(","))
    }

    fn complaint(packages: &[Package<'_>]) -> String {
        check(&metadata(packages)).unwrap().join("\n")
    }

    #[test]
    fn drawn_edges_pass() {
        let kernels: &[_] = &[("rayon", "normal", true), ("proptest", "dev", false)];
        let engine: &[_] = &[("tsn-kernels", "normal", false), ("wgpu", "normal", true)];
        let top: &[_] = &[("tsn-engine", "normal", false), ("clap", "normal", false)];
        assert_eq!(complaint(&[("tsn-kernels", kernels), ("tsn-engine", engine), ("xtask", top)]), "");
    }

    #[test]
    fn an_edge_not_drawn_is_found() {
        let upward: &[_] = &[("tsn-engine", "normal", false)];
        assert!(complaint(&[("tsn-kernels", upward), ("tsn-engine", &[])]).contains("not drawn"));
        let skipping: &[_] = &[("tsn-kernels", "normal", false)];
        assert!(complaint(&[("tsn", skipping), ("tsn-kernels", &[])]).contains("tsn -> tsn-kernels"));
    }

    #[test]
    fn libraries_in_the_core_are_found() {
        assert!(complaint(&[("tsn-dt", &[("serde", "normal", false)])]).contains("tsn-dt -> serde"));
        assert!(complaint(&[("tsn-dt", &[("wgpu", "normal", true)])]).contains("tsn-dt -> wgpu"));
        assert!(complaint(&[("tsn-engine", &[("cudarc", "normal", false)])]).contains("optional"));
        assert_eq!(complaint(&[("tsn-engine", &[("cudarc", "normal", true)])]), "");
        assert!(complaint(&[("tsn", &[("cudarc", "normal", true)])]).contains("tsn -> cudarc"));
    }

    #[test]
    fn cycles_through_dev_dependencies_and_unknown_members_are_found() {
        let engine: &[_] = &[("tsn-kernels", "normal", false)];
        let back: &[_] = &[("tsn-engine", "dev", false)];
        let found = complaint(&[("tsn-kernels", back), ("tsn-engine", engine)]);
        assert_eq!(found, "a cycle of dependencies runs through tsn-engine, tsn-kernels");
        assert!(complaint(&[("tsn-surprise", &[])]).contains("not a layer"));
    }
}
