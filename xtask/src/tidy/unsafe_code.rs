//! Unsafe code stays in few places, in few blocks, each with its reason.

use crate::scan::{File, code_only};

/// Blocks and impls in all that is linked into a program; tests and tools are not. 33 are calls of CUDA's libraries.
const MOST: usize = 280;

/// Paths that may hold unsafe code.
const PLACES: &[&str] = &[
    "kernels/src/ops/",         // vector intrinsics
    "kernels/src/ceiling.rs",   // loops compiled for an instruction set
    "kernels/src/pages.rs",     // a hint to the system on memory
    "kernels/src/par.rs",       // parts of a workspace for several threads
    "kernels/src/par/split.rs", // parts of an output for several threads
    "kernels/src/simd/amx.rs",  // asks the system for matrix tiles
    "kernels/src/sha256.rs",    // instructions of the CPU for a bank's checksum
    "engine/src/backend/",      // the split of an arena, launches
    "tsn/capi/src/",            // raw pointers from C
];
/// The same, for tests and tools: counting allocators, the measure of a core's peak, libraries that take pointers.
const BESIDE: &[&str] = &[
    "kernels/examples/",
    "dt/tests/",
    "dt/io/tests/",
    "tsn/tests/",
    "tests/tests/",
    "tests/emulator/src/",
    "benches/src/rivals.rs",
];

/// How far above a block its reason may stand: a statement of several lines lies between.
const REACH: usize = 6;

/// Complaints about unsafe code elsewhere, without a reason, or over the budget.
pub(crate) fn check(files: &[File]) -> Vec<String> {
    let mut complaints = Vec::new();
    let mut total = 0;
    for File { path, text } in files.iter().filter(|f| f.path.ends_with(".rs")) {
        let lines: Vec<&str> = text.lines().collect();
        let code = code_only(text);
        let blocks: Vec<usize> = code.lines().zip(0..).filter_map(|(line, at)| opens(line).then_some(at)).collect();
        if blocks.is_empty() {
            continue;
        }
        let beside = BESIDE.iter().any(|place| path.starts_with(place));
        total += if beside { 0 } else { blocks.len() };
        if !beside && !PLACES.iter().any(|place| path.starts_with(place)) {
            complaints.push(format!("{path}:{}: unsafe code has no place in this file", blocks[0] + 1));
        }
        let reason = |at: usize| lines[at.saturating_sub(REACH)..=at].iter().any(|line| line.contains("// SAFETY:"));
        for at in blocks.into_iter().filter(|at| !reason(*at)) {
            complaints.push(format!("{path}:{}: no `// SAFETY:` sentence above", at + 1));
        }
    }
    if total > MOST {
        complaints.push(format!("{total} unsafe blocks and impls, the budget is {MOST}"));
    }
    complaints
}

/// A line that opens an unsafe block or impl. An unsafe function only states what its callers must promise.
fn opens(line: &str) -> bool {
    let mut rest = line;
    while let Some(at) = rest.find("unsafe") {
        let alone = !rest[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_');
        rest = &rest[at + "unsafe".len()..];
        let next = rest.trim_start();
        if alone && (next.starts_with('{') || next.starts_with("impl")) {
            return true;
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    fn complaints(path: &str, text: &str) -> String {
        check(&[File { path: path.into(), text: text.into() }]).join("\n")
    }

    #[test]
    fn a_block_with_a_reason_in_its_place_passes() {
        let text =
            "// SAFETY: checked above.\nunsafe { read() }\nunsafe fn f() {}\nlet s = \"unsafe {\"; // unsafe {\n";
        assert_eq!(complaints("kernels/src/ops/gemm/cpu.rs", text), "");
    }

    #[test]
    fn other_places_and_missing_reasons_are_found() {
        let text = "// SAFETY: checked above.\nunsafe { read() }\n";
        assert!(complaints("dt/src/model.rs", text).contains("no place"));
        assert!(complaints("engine/src/backend/cpu.rs", "unsafe { read() }\n").contains("SAFETY"));
        assert!(complaints("kernels/src/par.rs", "unsafe impl Send for A {}\n").contains("SAFETY"));
    }

    #[test]
    fn the_budget_is_held() {
        let text = "// SAFETY: checked above.\nunsafe { read() }\n".repeat(MOST + 1);
        assert!(complaints("kernels/src/par.rs", &text).contains(&format!("{} unsafe blocks", MOST + 1)));
        assert_eq!(complaints("dt/tests/allocation.rs", &text), "");
    }
}
