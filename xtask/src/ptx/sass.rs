//! Machine code of the kernels for tensor cores: a kernel that is named for them must use them.

use super::{Tools, command};
use anyhow::{Result, ensure};
use std::collections::BTreeMap;
use std::path::Path;

/// Words in the names of kernels, and the instruction that such a kernel has.
const PROMISED: [(&str, &str); 2] = [("mma", "HMMA"), ("wgmma", "HGMMA")];

/// Holds an assembled module against the names of its kernels; nothing where the disassembler is not installed.
///
/// # Errors
/// A kernel without the instruction that its name promises.
pub(super) fn check(tools: &Tools, cubin: &Path) -> Result<()> {
    let Some(folder) = &tools.disassembler else { return Ok(()) };
    // The one program starts the other by its bare name.
    let paths = std::env::var_os("PATH").unwrap_or_default();
    let paths = std::env::join_paths(std::iter::once(folder.clone()).chain(std::env::split_paths(&paths)))?;
    let text = command(folder.join("cuobjdump"), |c| c.arg("-sass").arg(cubin).env("PATH", paths))?;
    for (kernel, code) in kernels(&text) {
        for (word, instruction) in PROMISED {
            let promised = kernel.split('_').any(|part| part == word);
            ensure!(!promised || code.contains(instruction), "{kernel} has no {instruction} in its machine code");
        }
    }
    Ok(())
}

/// Code by kernel, from lines such as `Function : gemm_mma`.
fn kernels(text: &str) -> BTreeMap<&str, &str> {
    let parts = text.split("Function : ").skip(1);
    parts.filter_map(|part| part.split_once('\n')).map(|(name, code)| (name.trim(), code)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn code_belongs_to_the_kernel_above_it() {
        let text =
            "Fatbin\n\t\tFunction : gemm_mma\n\t/*0*/ HMMA.16816 R0 ;\n\t\tFunction : gemm_tiled\n\t/*0*/ FFMA R0 ;\n";
        let all = kernels(text);
        assert!(all["gemm_mma"].contains("HMMA") && !all["gemm_tiled"].contains("HMMA"));
        assert_eq!(all.len(), 2);
    }
}
