//! Profiling of kernels: cases from the command line, checks, timing, statistics, and what is written about them.

pub(crate) mod case;
pub(crate) mod ceilings;
pub(crate) mod expand;
pub(crate) mod fingerprint;
pub(crate) mod flags;
#[cfg(feature = "gpu")]
pub(crate) mod gpu;
#[cfg(feature = "gpu")]
pub(crate) mod gpu_ceilings;
pub(crate) mod kernel;
pub(crate) mod masks;
pub(crate) mod measure;
pub(crate) mod ops;
pub(crate) mod output;
pub(crate) mod roofline;
pub(crate) mod row;
mod statistics;
pub(crate) mod steps;
pub(crate) mod suites;
pub(crate) mod syntax;
pub(crate) mod verify;

/// Version of the JSON lines.
pub(crate) const SCHEMA: u32 = 1;

/// The name with the fewest edits from a misspelt one, if those leave half of it.
pub(crate) fn nearest<'a>(text: &str, names: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let near = names.map(|name| (edits(text, name), name)).min().filter(|(edits, name)| 2 * edits <= name.len());
    near.map(|(_, name)| name)
}

/// Insertions, deletions and replacements between two words.
fn edits(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.iter().enumerate() {
            let replaced = diagonal + usize::from(x != *y);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn misspelt_names() {
        assert_eq!(edits("kitten", "sitting"), 3);
        let names = ["gemm", "masked_gemm", "gelu"];
        assert_eq!(nearest("masked_gem", names.into_iter()), Some("masked_gemm"));
        assert_eq!(nearest("convolve", names.into_iter()), None);
    }
}
