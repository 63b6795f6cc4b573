//! `cargo xtask ptx`: CUDA sources to checked-in PTX, without a GPU and without a toolkit.
//!
//! The compiler is NVRTC from a wheel of the package index, of a version so old that drivers from 525 on load its PTX. The order of
//! some instructions of a large kernel follows the addresses of the compiler's own memory, which are therefore fixed where that can
//! be; what such an address may change is not compared (`same.rs`), and kernels that differ nevertheless are compiled a few times more
//! with any. Every text is then assembled with `ptxas`, which refuses what does not fit a GPU and counts registers; a kernel that spills
//! is an error, and so is one that is named for tensor cores and does not use them. The table of registers names the texts
//! that it is of, so a check of the same texts need not assemble them again.

mod resources;
mod same;
mod sass;

use anyhow::{Context, Result, bail, ensure};
use clap::Args;
use kernels::OPS;
use kernels::contract::cuda::manifest::{HEADERS, OPTIONS, PATH, manifest, modules};
use kernels::contract::cuda::{Module, header};
use rayon::prelude::*;
use same::same;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The wheels. PTX 8.0 of CUDA 12.0 is what the oldest promised driver loads; the assembler may be newer.
const NVRTC: [&str; 2] = ["nvidia-cuda-nvrtc-cu12", "12.0.140"];
const PTXAS: [&str; 2] = ["nvidia-cuda-nvcc-cu12", "12.4.131"];
/// Only looks for instructions, so it may be newer still.
const CUOBJDUMP: [&str; 2] = ["nvidia-cuda-cuobjdump", "13.5.37"];
const NVDISASM: [&str; 2] = ["nvidia-cuda-nvdisasm", "13.5.37"];
const COMPILER: &str = "nvrtc 12.0.140, PTX 8.0";
/// A Python environment that has them already; the last two may be missing there.
const TOOLS: &str = "CUDA_TOOLS";
const SCRIPT: &str = include_str!("nvrtc.py");
/// Times that a module is compiled until it gives the kernels that are checked in.
const TRIES: usize = 6;
/// Registers and shared memory of every kernel, from `kernels/src`.
const RESOURCES: &str = "cuda/resources.txt";

/// Arguments.
#[derive(Args)]
pub(crate) struct Ptx {
    /// Compares with what is checked in instead of writing it.
    #[arg(long)]
    check: bool,
}

pub(crate) fn run(root: &Path, args: &Ptx) -> Result<()> {
    let (sources, tools) = (root.join("kernels/src"), Tools::find(root)?);
    let [args_h, ..] = HEADERS;
    let mut stale = Vec::new();
    let mut put = |path: &str, text: &str| -> Result<()> {
        let full = sources.join(path);
        if std::fs::read_to_string(&full).is_ok_and(|old| old == text) {
            return Ok(());
        }
        stale.push(path.to_owned());
        if !args.check {
            std::fs::write(&full, text).with_context(|| full.display().to_string())?;
        }
        Ok(())
    };
    put(args_h, &header(OPS))?;
    let built = modules().into_par_iter().with_max_len(1).map(|module| tools.build(&sources, &module, args.check));
    let built = built.collect::<Result<Vec<_>>>()?;
    let of = resources::name_of(&built.iter().map(|(_, ptx)| ptx.as_str()).collect::<String>());
    for (path, ptx) in built {
        put(&path, &ptx)?;
    }
    let known =
        std::fs::read_to_string(sources.join(RESOURCES)).is_ok_and(|table| table.lines().any(|line| line == of));
    if !(args.check && known) {
        let rows = modules().into_par_iter().with_max_len(1).map(|module| resources::of(&tools, &module));
        put(RESOURCES, &resources::table(&of, rows.collect::<Result<Vec<_>>>()?.into_iter().flatten().collect()))?;
    }
    if !args.check {
        let text = |path: &str| std::fs::read_to_string(sources.join(path)).with_context(|| path.to_owned());
        put(PATH, &manifest(COMPILER, text)?)?;
        for path in unused(&sources)? {
            std::fs::remove_file(&path).with_context(|| path.display().to_string())?;
        }
        println!("{} modules; changed: {}", modules().len(), stale.join(", "));
        return Ok(());
    }
    stale.extend(unused(&sources)?.iter().map(|path| path.display().to_string()));
    match stale.is_empty() {
        true => Ok(()),
        false => bail!("not what the sources give, run cargo xtask ptx: {}", stale.join(", ")),
    }
}

/// PTX that no contract names.
fn unused(sources: &Path) -> Result<Vec<PathBuf>> {
    let known: Vec<PathBuf> = modules().iter().map(|module| sources.join(module.ptx_path())).collect();
    let mut all = Vec::new();
    for entry in std::fs::read_dir(sources.join("cuda/ptx")).context("kernels/src/cuda/ptx")? {
        let path = entry?.path();
        if path.extension().is_some_and(|ending| ending == "ptx") && !known.contains(&path) {
            all.push(path);
        }
    }
    Ok(all)
}

/// Compiler and assembler.
struct Tools {
    python: PathBuf,
    libraries: PathBuf,
    ptxas: PathBuf,
    /// Folder of `cuobjdump` and `nvdisasm`.
    disassembler: Option<PathBuf>,
    scratch: PathBuf,
}

impl Tools {
    /// Those of the environment that [`TOOLS`] names, or of one below `target`, which is made if it is not there.
    fn find(root: &Path) -> Result<Tools> {
        let own = root.join("target/cuda-tools");
        let folder = std::env::var_os(TOOLS).map_or(own.clone(), PathBuf::from);
        let python = folder.join("bin/python");
        if folder == own {
            let packages = [NVRTC, PTXAS, CUOBJDUMP, NVDISASM].map(|[name, version]| format!("{name}=={version}"));
            if !python.exists() {
                command("python3", |c| c.args(["-m", "venv"]).arg(&own))?;
            }
            let list = command(&python, |c| c.args(["-m", "pip", "list", "--format=freeze"]))?;
            if packages.iter().any(|package| list.lines().all(|line| line != package)) {
                command(&python, |c| c.args(["-m", "pip", "install", "--quiet"]).args(&packages))?;
            }
        }
        let purelib = "import sysconfig; print(sysconfig.get_path('purelib'))";
        let packages = PathBuf::from(command(&python, |c| c.args(["-c", purelib]))?.trim()).join("nvidia");
        let (libraries, ptxas) = (packages.join("cuda_nvrtc/lib"), packages.join("cuda_nvcc/bin/ptxas"));
        ensure!(libraries.is_dir() && ptxas.is_file(), "{}: no {} or no {}", packages.display(), NVRTC[0], PTXAS[0]);
        let disassembler = Some(packages.join("cu13/bin")).filter(|folder| folder.join("nvdisasm").is_file());
        if disassembler.is_none() {
            println!("machine code is not looked at: no {}", NVDISASM[0]);
        }
        let scratch = root.join("target/ptx");
        std::fs::create_dir_all(&scratch).with_context(|| scratch.display().to_string())?;
        Ok(Tools { python, libraries, ptxas, disassembler, scratch })
    }

    /// The path and the PTX of a module. A check is given the text that is there if it has the
    /// same kernels; for new sources that would not do, as terms of a sum may have changed places.
    fn build(&self, sources: &Path, module: &Module, check: bool) -> Result<(String, String)> {
        let path = module.ptx_path();
        let kept = std::fs::read_to_string(sources.join(&path)).ok().filter(|_| check);
        let first = self.compile(sources, module, "fixed")?;
        let (mut ptx, mut tries) = (first.clone(), 1);
        while tries < TRIES && kept.as_ref().is_some_and(|kept| !same(kept, &ptx)) {
            ptx = self.compile(sources, module, "any")?;
            tries += 1;
        }
        let ptx = kept.filter(|kept| same(kept, &ptx)).unwrap_or(first);
        let output = self.output(module);
        std::fs::write(&output, &ptx).with_context(|| output.display().to_string())?;
        Ok((path, ptx))
    }

    /// Where the PTX of a module is made.
    fn output(&self, module: &Module) -> PathBuf {
        self.scratch.join(format!("{}.ptx", module.name))
    }

    /// The PTX of a module; a warning is an error.
    fn compile(&self, sources: &Path, module: &Module, addresses: &str) -> Result<String> {
        let output = self.output(module);
        command(&self.python, |c| {
            c.env_clear().args(["-c", SCRIPT, addresses]).arg(&self.libraries).arg(sources.join("cuda"));
            c.args([&sources.join(module.path), &output]);
            c.args(OPTIONS).arg(format!("--gpu-architecture={}", module.target.arch()))
        })?;
        std::fs::read_to_string(&output).with_context(|| output.display().to_string())
    }
}

/// What a program prints.
fn command(program: impl AsRef<Path>, with: impl FnOnce(&mut Command) -> &mut Command) -> Result<String> {
    let program = program.as_ref();
    let out = with(&mut Command::new(program)).output().with_context(|| program.display().to_string())?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    ensure!(out.status.success(), "{}: {}", program.display(), text(&out.stderr).trim());
    Ok(text(&out.stdout) + &text(&out.stderr))
}
