//! Which kernels a crossover table was measured with.

/// FNV-1a over names and texts of the sources that decide where lists overtake tiles: `ops/lists`, `ops/masked_gemm` and
/// `ops/gemm`. It is computed while compiling, so that no program carries the sources.
pub const KERNEL_HASH: u64 = hash(SOURCES);

macro_rules! sources {
    ($($folder:literal: $($file:literal)*;)*) => {
        &[$($((
            concat!($folder, "/", $file, ".rs"),
            include_bytes!(concat!("../ops/", $folder, "/", $file, ".rs")).as_slice(),
        )),*),*]
    };
}

/// Name and text of every source for the CPU but tests and references, which are never timed.
const SOURCES: &[(&str, &[u8])] = sources! {
    "gemm": "cpu" "cpu_amx" "cpu_bf16" "finish" "gradient" "micro" "micro_avx2" "micro_avx512" "mod" "pairs" "product" "sums" "widened";
    "gemm/amx": "element" "gradient" "meet" "mod" "pack" "product" "tile";
    "gemm/micro": "pack" "portable" "rows";
    "lists": "build" "mod" "sampled" "strip" "turn" "x86";
    "masked_gemm": "cpu" "cpu_amx" "cpu_bf16" "lists" "mod" "sampled";
};

const fn hash(sources: &[(&str, &[u8])]) -> u64 {
    let (mut hash, mut at) = (0xcbf2_9ce4_8422_2325, 0);
    while at < sources.len() {
        hash = add(add(hash, sources[at].0.as_bytes()), sources[at].1);
        at += 1;
    }
    hash
}

/// Goes on with bytes and a zero, which ends them.
const fn add(mut hash: u64, bytes: &[u8]) -> u64 {
    let mut at = 0;
    while at <= bytes.len() {
        let byte = if at < bytes.len() { bytes[at] } else { 0 };
        hash = (hash ^ byte as u64).wrapping_mul(0x0000_0100_0000_01b3);
        at += 1;
    }
    hash
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    #[test]
    fn every_source_is_hashed() {
        let ops = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/ops");
        let mut found = Vec::new();
        let mut folders = ["gemm", "lists", "masked_gemm"].map(String::from).to_vec();
        while let Some(folder) = folders.pop() {
            for entry in ops.join(&folder).read_dir().expect("a folder of sources") {
                let entry = entry.expect("an entry");
                let name = entry.file_name().into_string().expect("text");
                if entry.file_type().expect("a kind").is_dir() {
                    folders.push(format!("{folder}/{name}"));
                } else if name.ends_with(".rs")
                    && !["tests.rs", "reference.rs", "dispatch.rs", "launch.rs"].contains(&&*name)
                {
                    found.push(format!("{folder}/{name}"));
                }
            }
        }
        found.sort();
        let mut hashed: Vec<&str> = SOURCES.iter().map(|(name, _)| *name).collect();
        hashed.sort_unstable();
        assert_eq!(hashed, found);
    }

    #[test]
    fn names_texts_and_their_borders_count() {
        // FNV-1a of one zero byte and of "a" with one, from its definition.
        assert_eq!(add(0xcbf2_9ce4_8422_2325, b""), 0xcbf2_9ce4_8422_2325u64.wrapping_mul(0x0100_0000_01b3));
        let all = [hash(&[("a", b"b")]), hash(&[("b", b"a")]), hash(&[("ab", b"")]), hash(&[("a", b"b"), ("", b"")])];
        assert!(all.iter().enumerate().all(|(at, one)| !all[..at].contains(one)), "{all:x?}");
    }
}
