//! What the checked-in PTX was made from, so that a test finds text that is out of date without a compiler.

use super::rows::ROWS_MODULE;
use super::{CEILINGS, Module, Target};
use crate::ops::OPS;
use crate::sha256::compress;

/// Options of the compiler besides the target. Fused products are written in the sources; everything else rounds as
/// IEEE 754 says, which is what the emulator computes.
pub const OPTIONS: &[&str] = &["--std=c++17", "--fmad=false", "--ftz=false", "--prec-div=true", "--prec-sqrt=true"];

/// Files that sources include, from `kernels/src`; the first is made from the contracts.
pub const HEADERS: [&str; 11] = [
    "cuda/args.h",
    "cuda/device.h",
    "cuda/product.h",
    "cuda/ends.h",
    "cuda/conv.h",
    "cuda/hopper.h",
    "cuda/warpgroup.h",
    "cuda/rows.h",
    "cuda/attention.h",
    "cuda/attention_mma.h",
    "cuda/attention_wgmma.h",
];

/// The manifest, from `kernels/src`.
pub const PATH: &str = "cuda/ptx/manifest.txt";

impl Module {
    /// Its PTX, from `kernels/src`.
    pub fn ptx_path(&self) -> String {
        format!("cuda/ptx/{}.ptx", self.name)
    }
}

impl Target {
    /// Name of the virtual architecture.
    pub const fn arch(self) -> &'static str {
        match self {
            Target::Sm80 => "compute_80",
            Target::Sm90a => "compute_90a",
        }
    }
}

/// Every module that a contract names, [`CEILINGS`] and [`ROWS_MODULE`], in order of their names.
pub fn modules() -> Vec<Module> {
    let mut all: Vec<Module> =
        OPS.iter().flat_map(|op| op.cuda).map(|variant| variant.module).chain([CEILINGS, ROWS_MODULE]).collect();
    all.sort_by_key(|module| (module.name, module.path));
    all.dedup();
    all
}

/// The text of the manifest: the compiler, the options, and hashes of the headers, of each source and of each PTX.
/// `text` reads a file below `kernels/src`.
///
/// # Errors
/// Those of `text`.
pub fn manifest<E>(compiler: &str, text: impl Fn(&str) -> Result<String, E>) -> Result<String, E> {
    let mut headers = String::new();
    for path in HEADERS {
        headers += &text(path)?;
    }
    let options = OPTIONS.join(" ");
    let mut out = format!(
        "# What the PTX here was made from. Made by `cargo xtask ptx`; module, target, SHA-256 of the source, of the PTX.\n\
         compiler {compiler}\noptions  {options}\nheaders  {}\n",
        hash(&headers)
    );
    for module in modules() {
        let (source, ptx) = (hash(&text(module.path)?), hash(&text(&module.ptx_path())?));
        out += &format!("{} {} {source} {ptx}\n", module.name, module.target.arch());
    }
    Ok(out)
}

/// The first 16 digits of SHA-256: enough to notice a change.
pub fn hash(text: &str) -> String {
    let mut state =
        [0x6a09_e667, 0xbb67_ae85, 0x3c6e_f372, 0xa54f_f53a, 0x510e_527f, 0x9b05_688c, 0x1f83_d9ab, 0x5be0_cd19];
    let mut bytes = text.as_bytes().to_vec();
    bytes.push(0x80);
    bytes.resize((bytes.len() + 8).next_multiple_of(64) - 8, 0);
    bytes.extend((8 * text.len() as u64).to_be_bytes());
    compress(&mut state, bytes.as_chunks::<64>().0);
    format!("{:08x}{:08x}", state[0], state[1])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hashes_are_those_of_the_standard() {
        assert_eq!([hash(""), hash("abc")], ["e3b0c44298fc1c14", "ba7816bf8f01cfea"]);
    }

    #[test]
    fn any_change_changes_the_manifest() {
        let of = |changed: &'static str| {
            let text = |path: &str| Ok::<_, ()>(if path == changed { "new" } else { "old" }.to_owned());
            manifest("nvrtc 12", text).expect("texts")
        };
        for path in HEADERS.into_iter().chain([modules()[0].path]) {
            assert_ne!(of(path), of(""), "{path}");
        }
        assert!(manifest("nvrtc 12", |_| Err(())).is_err());
    }
}
