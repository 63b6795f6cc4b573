//! Every source file says at its top what it is.

use crate::scan::File;

/// The fields of a kernel source, in order.
const FIELDS: [&str; 8] = ["op", "args", "layout", "launch", "order", "tol", "cost", "source"];

/// Complaints about files without their header.
pub(crate) fn check(files: &[File]) -> Vec<String> {
    files.iter().filter_map(fault).collect()
}

fn fault(File { path, text }: &File) -> Option<String> {
    if path.ends_with(".rs") {
        // Tests of a directory are described by the module they belong to.
        let tests = path.ends_with("/tests.rs") && path.contains("/src/");
        return (!tests && !text.starts_with("//! ")).then(|| format!("{path}: does not start with a //! module doc"));
    }
    // Functions shared by kernels are not an op.
    if path.contains("/common") {
        return None;
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
    missing.map(|(name, at)| format!("{path}: field {} of its header must be `{name}`", at + 1))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn complaints(path: &str, text: &str) -> String {
        check(&[File { path: path.into(), text: text.into() }]).join("\n")
    }

    const HEADER: &str = "// op      a\n// args    x\n// layout  row\n// launch  one\n//         more\n// order   j\n// tol     2\n// cost    1\n// source  definition\n";

    #[test]
    fn modules_without_a_doc_are_found() {
        assert_eq!(complaints("a/src/lib.rs", "//! What it is.\n"), "");
        assert_eq!(complaints("kernels/src/ops/x/tests.rs", "use super::*;\n"), "");
        assert!(complaints("a/src/lib.rs", "use b;\n").contains("module doc"));
        assert!(complaints("tests/tests/x.rs", "").contains("module doc"));
    }

    #[test]
    fn kernel_sources_without_a_field_are_found() {
        assert_eq!(complaints("k/cuda.cu", &format!("{HEADER}struct Params {{}};\n")), "");
        let without = HEADER.replace("// tol     2\n", "");
        assert!(complaints("k/wgpu.wgsl", &without).contains("field 6 of its header must be `tol`"));
        assert!(complaints("k/cuda.cu", "struct Params {};\n").contains("`op`"));
    }
}
