//! Whether two texts of a module are the same kernels. What follows the addresses of the compiler's own memory is left out: the order
//! of instructions, the numbers of registers and labels, and how often a value is copied; so it does not see what flows where. That the
//! text belongs to its sources is held by the hashes of the manifest.

use std::collections::BTreeMap;

/// Every kernel has the same instructions, each as often; copies count once.
pub(super) fn same(left: &str, right: &str) -> bool {
    left == right || kernels(left) == kernels(right)
}

/// Instructions by kernel, and how often each is there.
fn kernels(text: &str) -> Vec<BTreeMap<String, usize>> {
    text.split(".entry ").map(instructions).collect()
}

fn instructions(kernel: &str) -> BTreeMap<String, usize> {
    let mut all = BTreeMap::new();
    let lines = kernel.lines().map(str::trim).filter(|line| !line.starts_with(".reg") && !line.starts_with("//"));
    for line in lines {
        let count = all.entry(unnumbered(line)).or_insert(0);
        *count = if line.starts_with("mov.") { 1 } else { *count + 1 };
    }
    all
}

/// Registers (`%f12`) and labels (`$L__BB3_4`) without their numbers.
fn unnumbered(line: &str) -> String {
    let mut numbered = false;
    let of_name = |c: char| c.is_ascii_alphanumeric() || "_%$".contains(c);
    line.chars()
        .filter(|c| {
            numbered = if numbered { of_name(*c) } else { "%$".contains(*c) };
            !(numbered && c.is_ascii_digit())
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = ".visible .entry a(\n)\n{\n.reg .f32 %f<3>;\nmov.f32 %f1, 0f00000000;\nadd.f32 %f2, %f1, 0f3F800000;\n\
                        @%p1 bra $L__BB0_2;\nst.global.f32 [%rd1+8], %f2;\nret;\n}";

    #[test]
    fn order_numbers_and_copies_do_not_count() {
        let other = TEXT.replace("%f1", "%f7").replace("_2;", "_5;").replace("%f<3>", "%f<9>");
        let copied = other.replace("add", "mov.f32 %f8, 0f00000000;\nadd");
        let moved = copied.replace("ret;\n", "").replace("@%p1", "ret;\n@%p1");
        assert!(same(TEXT, &other) && same(TEXT, &copied) && same(TEXT, &moved));
    }

    #[test]
    fn everything_else_counts() {
        for (what, by) in [("add", "sub"), ("+8", "+4"), ("0f3F800000", "0f40000000"), ("0f00000000", "0f80000000")] {
            assert!(!same(TEXT, &TEXT.replace(what, by)), "{what}");
        }
        assert!(!same(TEXT, &TEXT.replace("ret;", "ret;\nret;")) && !same(TEXT, &format!("{TEXT}\n{TEXT}")));
    }
}
