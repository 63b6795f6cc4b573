//! From the command line to cases: every combination of sizes, densities and masks.

use super::case::Case;
use super::flags::ProfileArgs;
use super::masks::Kind;
use super::{nearest, ops};
use crate::files::open_bank;
use anyhow::{Result, anyhow, bail};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use tsn::dt::autograd::engine::kernels::contract::Variant;
use tsn::dt::autograd::engine::kernels::{BitMask, Contract, DType, Isa, OPS};

/// Most cases of one run.
const MOST: usize = 10_000;

/// The op of a name, or an error with the nearest one.
pub(crate) fn find_op(name: &str) -> Result<&'static Contract> {
    match OPS.iter().find(|op| op.name == name) {
        Some(op) => Ok(op),
        None => {
            let near = nearest(name, OPS.iter().map(|op| op.name));
            let near = near.map_or_else(String::new, |near| format!(" did you mean `{near}`?"));
            bail!("no op `{name}`;{near} --list names all")
        }
    }
}

/// All cases that the options ask for, of all ops.
///
/// # Errors
/// An option that does not fit an op, or a bank that holds no such mask.
pub(crate) fn cases(args: &ProfileArgs) -> Result<Vec<Case>> {
    let mut all = Vec::new();
    for name in &args.op {
        let op = find_op(name)?;
        let base = Case { seed: args.seed, dtype: dtype(op, &args.dtype)?, ..Case::usual(op) };
        for base in masked(args, base)? {
            let letters = sizes(op, &args.letters.0, &base)?;
            let mut product = vec![base];
            for (letter, sizes) in letters {
                let each =
                    |case: Case| sizes.iter().map(move |n| case.clone().with(&[(letter, *n)])).collect::<Vec<_>>();
                product = product.into_iter().flat_map(each).collect();
                if product.len() + all.len() > MOST {
                    bail!("more than {MOST} cases: shorten the lists");
                }
            }
            all.extend(product);
        }
    }
    Ok(all)
}

/// The cases of one op that differ in their masks.
fn masked(args: &ProfileArgs, base: Case) -> Result<Vec<Case>> {
    let op = base.op.name;
    let Some(usual) = base.density else {
        if args.density.is_some() || args.mask.is_some() {
            bail!("{op} has no mask: leave out --density and --mask");
        }
        return Ok(vec![base]);
    };
    let kind = args.mask.clone().unwrap_or(Kind::Random);
    let drawn = ops::mask_arg(base.op).is_some() || op == "packed_gemm";
    if !drawn && kind != Kind::Random {
        bail!("{op} has a share of kept weights but no mask: leave out --mask");
    }
    let fixed = |kind: &str| bail!("--mask {kind} fixes the density itself: leave out --density");
    match &kind {
        Kind::Bank(path, task, tensor) => {
            if args.density.is_some() {
                return fixed("bank");
            }
            let learned = learned(path, task.as_deref(), tensor.as_deref())?;
            let case = |(name, mask): (String, BitMask)| {
                let density = mask.count() as f64 / mask.len().max(1) as f64;
                let sizes = [('o', mask.rows()), ('i', mask.cols())];
                Case { learned: Some((name, mask)), density: Some(density), kind: kind.clone(), ..base.clone() }
                    .with(&sizes)
            };
            if !base.sizes.iter().any(|(l, _)| *l == 'o') || !base.sizes.iter().any(|(l, _)| *l == 'i') {
                bail!("masks of a bank are o x i, and {op} has other letters");
            }
            Ok(learned.into_iter().map(case).collect())
        }
        kind => {
            let densities = match (kind.density(), &args.density) {
                // As it was typed; in ids a colon would be one of a file name.
                (Some(_), Some(_)) => return fixed(&kind.name().replace("of", ":")),
                (Some(density), None) => vec![density],
                (None, Some(list)) => list.0.clone(),
                // A kind was asked for, so there is a mask even where none is usual.
                (None, None) if usual == 1.0 && args.mask.is_some() => vec![0.5],
                (None, None) => vec![usual],
            };
            let case = |density: f64| Case { density: Some(density), kind: kind.clone(), ..base.clone() };
            Ok(densities.into_iter().map(case).collect())
        }
    }
}

/// The lists of an op's letters, in its order; a bank's mask has given some already.
fn sizes(op: &Contract, given: &BTreeMap<char, Vec<u32>>, base: &Case) -> Result<Vec<(char, Vec<u32>)>> {
    let has: Vec<char> = base.sizes.iter().map(|(letter, _)| *letter).collect();
    if let Some(unknown) = given.keys().find(|letter| !has.contains(letter)) {
        let names: Vec<String> = has.iter().map(|letter| format!("--{letter}")).collect();
        bail!("{} has no letter `{unknown}`; it has {}", op.name, names.join(", "));
    }
    Ok(has.into_iter().filter_map(|letter| Some((letter, given.get(&letter)?.clone()))).collect())
}

/// An element type that an argument of the op may have.
fn dtype(op: &Contract, name: &str) -> Result<DType> {
    let mut allowed: Vec<DType> = Vec::new();
    for dtype in op.args.iter().flat_map(|arg| arg.dtypes) {
        // Others come with the op and are not chosen.
        let chosen =
            *dtype == DType::F32 || op.args.iter().any(|arg| arg.dtypes.len() > 1 && arg.dtypes.contains(dtype));
        if chosen && !allowed.contains(dtype) {
            allowed.push(*dtype);
        }
    }
    if allowed.is_empty() {
        // No float anywhere: the label stays.
        allowed.push(DType::F32);
    }
    let found = allowed.iter().find(|dtype| super::row::dtype_name(**dtype) == name);
    let names: Vec<String> = allowed.iter().map(|dtype| super::row::dtype_name(*dtype)).collect();
    found.copied().ok_or_else(|| anyhow!("{} is not made for {name}; --dtype may be {}", op.name, names.join(", ")))
}

/// Variants of a case's op by name; without a name the one that runs by default.
pub(crate) fn variants(case: &Case, wanted: Option<&str>) -> Result<Vec<&'static Variant>> {
    let (op, isa) = (case.op, Isa::detect());
    let first = case.dtype_of(&op.args[op.typed_arg()]);
    let supported = || op.variants(isa, first);
    match wanted {
        None => Ok(vec![op.best_for(isa, first)]),
        Some("all") => Ok(supported().collect()),
        Some(name) => {
            let found: Vec<_> = supported().filter(|v| v.name == name).collect();
            let names: Vec<&str> = supported().map(|v| v.name).collect();
            match (found.is_empty(), op.cpu.iter().find(|v| v.name == name)) {
                (false, _) => Ok(found),
                (true, Some(v)) if isa.has(v.needs) => {
                    bail!("{} {name} is not made for {}", op.name, super::row::dtype_name(first))
                }
                (true, Some(v)) => bail!("{} {name} needs {}, which this CPU does not have", op.name, v.needs.name()),
                (true, None) => bail!("{} has no variant `{name}`; here it has {}", op.name, names.join(", ")),
            }
        }
    }
}

/// A name among those of an op on a device.
///
/// # Errors
/// Lists them.
#[cfg(feature = "gpu")]
pub(crate) fn find_variant(op: &str, here: &[&'static str], name: &str) -> Result<&'static str> {
    let found = here.iter().find(|n| **n == name).copied();
    found.ok_or_else(|| anyhow!("{op} has no variant `{name}`; here it has {}", here.join(", ")))
}

/// Masks of a bank with the names of their task and tensor.
fn learned(path: &Path, task: Option<&str>, tensor: Option<&str>) -> Result<Vec<(String, BitMask)>> {
    let bank = open_bank(path)?;
    let mut found = Vec::new();
    for record in bank.tasks.iter().filter(|t| task.is_none_or(|name| t.name == name)) {
        let Some(copy) = bank.copies.get(record.copy) else { continue };
        for ((weight, _), mask) in copy.masked().zip(&record.masks) {
            // Biases are masked too, but not by a matrix.
            if tensor.map_or(weight.rows > 1, |name| weight.name == name) {
                found.push((format!("{}.{}", record.name, weight.name), mask.clone()));
            }
        }
    }
    if found.is_empty() {
        let tasks: Vec<&str> = bank.tasks.iter().map(|t| t.name.as_str()).collect();
        let at = path.display();
        match (task, tensor) {
            (Some(task), _) if !tasks.contains(&task) => {
                bail!("{at} holds no task `{task}`; its tasks are {}", tasks.join(", "))
            }
            (_, Some(tensor)) => {
                let names: BTreeSet<&str> =
                    bank.copies.iter().flat_map(|copy| copy.masked()).map(|(weight, _)| weight.name.as_str()).collect();
                let names: Vec<&str> = names.into_iter().collect();
                bail!("{at} holds no mask of `{tensor}`; there are masks of {}", names.join(", "))
            }
            _ => bail!("{at} holds no masks: its tasks were learned without"),
        }
    }
    Ok(found)
}
