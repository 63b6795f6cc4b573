//! Registers and shared memory of every kernel, as the assembler reports them.

use super::{Tools, command, sass};
use anyhow::{Context, Result};
use kernels::contract::cuda::manifest::hash;
use kernels::contract::cuda::{Module, Target};
use std::fmt::Write;

/// One kernel on one GPU.
pub(super) struct Row {
    kernel: String,
    arch: &'static str,
    registers: u32,
    shared_bytes: u32,
}

/// Assembles a module of [`Tools::build`] for every GPU that the project names.
///
/// # Errors
/// What the assembler says; a kernel that spills registers, or lacks an instruction that its name promises.
pub(super) fn of(tools: &Tools, module: &Module) -> Result<Vec<Row>> {
    let archs: &[&str] = match module.target {
        Target::Sm80 => &["sm_80", "sm_90a"],
        Target::Sm90a => &["sm_90a"],
    };
    let mut rows = Vec::new();
    let ptx = tools.output(module);
    for arch in archs {
        let cubin = tools.scratch.join(format!("{}.{arch}.cubin", module.name));
        let report = command(&tools.ptxas, |c| {
            c.args(["-v", "--warn-on-spills", "--warning-as-error", "-arch", arch, "-o"]);
            c.arg(&cubin).arg(&ptx)
        })?;
        sass::check(tools, &cubin)?;
        rows.extend(parse(&report, arch).with_context(|| format!("what ptxas says of {}", module.name))?);
    }
    Ok(rows)
}

/// Lines such as `Compiling entry function 'add_plain' for 'sm_80'` and `Used 16 registers, 128 bytes smem, 432 bytes cmem[0]`.
fn parse(report: &str, arch: &'static str) -> Option<Vec<Row>> {
    let mut rows = Vec::new();
    let mut kernel = None;
    for line in report.lines() {
        if let Some((_, rest)) = line.split_once("Compiling entry function '") {
            kernel = rest.split('\'').next();
        }
        if let Some((_, rest)) = line.split_once("Used ") {
            let number = |what: &str| {
                let before = rest.split_once(what)?.0;
                before.rsplit([' ', ',']).find(|word| !word.is_empty())?.parse().ok()
            };
            let (registers, shared_bytes) = (number(" registers")?, number(" bytes smem").unwrap_or(0));
            rows.push(Row { kernel: kernel?.to_owned(), arch, registers, shared_bytes });
        }
    }
    (!rows.is_empty()).then_some(rows)
}

/// The line that names the PTX of all modules.
pub(super) fn name_of(texts: &str) -> String {
    format!("# Of the texts with the hash {}.", hash(texts))
}

/// All rows in the order of their names, below the name of what they are of.
pub(super) fn table(of: &str, mut rows: Vec<Row>) -> String {
    rows.sort_by(|a, b| (&a.kernel, a.arch).cmp(&(&b.kernel, b.arch)));
    let mut text = format!(
        "# Registers of a thread and static shared memory of a block, by ptxas; made by `cargo xtask ptx`.\n{of}\n",
    );
    for Row { kernel, arch, registers, shared_bytes } in rows {
        // Writing to a string cannot fail.
        let _ = writeln!(text, "{kernel:<32} {arch:<7} {registers:>3} registers {shared_bytes:>6} bytes");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    const REPORT: &str = "ptxas info    : 0 bytes gmem\n\
        ptxas info    : Compiling entry function 'rows' for 'sm_80'\n\
        ptxas info    : Function properties for rows\n\
        \x20   0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads\n\
        ptxas info    : Used 18 registers, 128 bytes smem, 432 bytes cmem[0]\n\
        ptxas info    : Compiling entry function 'add' for 'sm_80'\n\
        ptxas info    : Used 16 registers, 432 bytes cmem[0]\n";

    #[test]
    fn the_report_is_read() {
        let rows = parse(REPORT, "sm_80").expect("two kernels");
        let of = name_of("add rows");
        assert_ne!(of, name_of("add row"));
        let table = table(&of, rows);
        assert_eq!(table.lines().nth(1), Some(&*of));
        let lines: Vec<&str> = table.lines().skip(2).map(|line| line.trim_end()).collect();
        assert!(lines[0].starts_with("add ") && lines[0].ends_with("16 registers      0 bytes"), "{lines:?}");
        assert!(lines[1].starts_with("rows ") && lines[1].ends_with("18 registers    128 bytes"), "{lines:?}");
        assert!(parse("ptxas fatal", "sm_80").is_none());
    }
}
