//! CUDA kernels of an op: modules, launches, and the one struct that every kernel of an op is given.
//!
//! A `.cu` file holds the kernels of a family of ops. `cargo xtask ptx` compiles it to the checked-in text of its
//! [`Module`]; nothing here needs a toolkit. Every kernel of an op takes one argument by value, the struct that
//! [`members`] lists and [`header`] declares in `kernels/src/cuda/args.h`: a pointer for every argument of the contract, null
//! where it is absent; the workspace; every letter; every scalar; and the pitch of every argument in storage units.
//! [`argument_bytes`] makes its bytes. A kernel that copies in bulk has a second argument, tensor maps ([`Launch::mapping`]).

#[cfg(feature = "launches")]
pub mod manifest;
pub mod rows;

use super::{Access, Arg, Contract, DType, Dims};
use rows::{Head, Stage};
use std::collections::BTreeSet;

/// Bytes of a tensor map, which says where a matrix lies and how it is copied, panel by panel.
pub const MAP_BYTES: usize = 128;
/// Rows of a panel, and its columns of 16 bits.
pub const PANEL: u32 = 64;

/// Most blocks in the second and third dimension of a grid.
pub const MAX_BLOCKS_YZ: u32 = 65_535;

/// GPUs that a module is compiled for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// Capability 8.0 and everything newer.
    Sm80,
    /// Capability 9.0 and nothing else: warpgroup products, bulk copies.
    Sm90a,
}

impl Target {
    /// Whether a GPU of this capability runs it.
    pub const fn runs_on(self, capability: (u32, u32)) -> bool {
        match self {
            Target::Sm80 => capability.0 >= 8,
            Target::Sm90a => capability.0 == 9 && capability.1 == 0,
        }
    }
}

/// One `.cu` file, compiled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Module {
    /// Name of the file without ending, and of its PTX.
    pub name: &'static str,
    /// The file, from `kernels/src`.
    pub path: &'static str,
    /// PTX; empty without the feature `cuda`.
    pub ptx: &'static str,
    /// GPUs it runs on.
    pub target: Target,
}

/// One launch of a kernel.
#[derive(Clone, Copy)]
pub struct Launch {
    /// Name of the kernel in its module.
    pub entry: &'static str,
    /// Threads of a block, a multiple of 32.
    pub threads: u32,
    /// Blocks for given sizes.
    pub grid: fn(&Dims) -> [u32; 3],
    /// Bytes of dynamic shared memory of a block, if it has any.
    pub shared: Option<fn(&Dims) -> usize>,
    /// Whether its module has [`Launch::batch_entry`].
    pub batched: bool,
    /// Arguments that it writes; `None` for all that the op writes.
    pub writes: Option<&'static [&'static str]>,
    /// Arguments of 16-bit elements that it copies in bulk.
    pub maps: &'static [&'static str],
    /// How it is done to rows that another kernel holds.
    pub stage: Option<Stage>,
    /// The kernel that does the same by whole rows and goes on with stages.
    pub head: Option<Head>,
}

impl Launch {
    /// A launch without dynamic shared memory.
    pub const fn new(entry: &'static str, threads: u32, grid: fn(&Dims) -> [u32; 3]) -> Launch {
        Launch { entry, threads, grid, shared: None, batched: false, writes: None, maps: &[], stage: None, head: None }
    }

    /// The same launch with dynamic shared memory.
    pub const fn with_shared(self, shared: fn(&Dims) -> usize) -> Launch {
        Launch { shared: Some(shared), ..self }
    }

    /// The same kernel, which also runs many calls in one launch: `BATCHED` in its source.
    pub const fn in_batches(self) -> Launch {
        Launch { batched: true, ..self }
    }

    /// The same kernel, which of the op's arguments writes these alone, and a workspace. What it does not write need not
    /// wait for it.
    pub const fn writing(self, arguments: &'static [&'static str]) -> Launch {
        Launch { writes: Some(arguments), ..self }
    }

    /// The same kernel, which copies panels of some arguments in bulk: its second argument is a tensor map of each (`Maps` in
    /// `kernels/src/cuda/hopper.h`), zero for one whose rows do not begin at multiples of 16 bytes.
    pub const fn mapping(self, arguments: &'static [&'static str]) -> Launch {
        Launch { maps: arguments, ..self }
    }

    /// The same kernel, which is also a stage from one argument, or none, to another.
    pub const fn as_stage(self, from: Option<&'static str>, to: &'static str) -> Launch {
        Launch { stage: Some(Stage { from, to }), ..self }
    }

    /// The same kernel, which may be replaced by one that goes on with stages.
    pub const fn heading(self, head: Head) -> Launch {
        Launch { head: Some(head), ..self }
    }

    /// Name of the kernel that runs many calls; its argument is [`batch_bytes`].
    pub fn batch_entry(&self) -> String {
        format!("{}_batch", self.entry)
    }
}

/// One CUDA implementation.
#[derive(Clone, Copy)]
pub struct Cuda {
    /// How it works, not how good it is.
    pub name: &'static str,
    /// Where its kernels are.
    pub module: Module,
    /// Launches of one call, in order; each sees what the one before wrote.
    pub launches: &'static [Launch],
    /// Words of workspace for given sizes, if it uses one.
    pub work: Option<fn(&Dims) -> usize>,
    /// The one element type of [`Contract::typed_arg`] it is for; `None` for all that no variant of the op names.
    pub only: Option<DType>,
    /// Sizes it can compute; `None` for all.
    pub fits: Option<fn(&Dims) -> bool>,
    /// Sizes it is chosen for; `None` for all that fit.
    pub made_for: Option<fn(&Dims) -> bool>,
}

impl Cuda {
    /// For all sizes.
    pub const fn any(name: &'static str, module: Module, launches: &'static [Launch]) -> Cuda {
        Cuda { name, module, launches, work: None, only: None, fits: None, made_for: None }
    }

    /// The same kernels with a workspace.
    pub const fn with_work(self, work: fn(&Dims) -> usize) -> Cuda {
        Cuda { work: Some(work), ..self }
    }

    /// The same kernels, for calls alone whose [`Contract::typed_arg`] has this element type.
    pub const fn only(self, dtype: DType) -> Cuda {
        Cuda { only: Some(dtype), ..self }
    }

    /// The same kernels, for some sizes only.
    pub const fn fits(self, fits: fn(&Dims) -> bool) -> Cuda {
        Cuda { fits: Some(fits), ..self }
    }

    /// The same kernels, at other sizes only if they are asked for by name.
    pub const fn made_for(self, sizes: fn(&Dims) -> bool) -> Cuda {
        Cuda { made_for: Some(sizes), ..self }
    }

    /// Whether it may be chosen for these sizes, which it fits.
    pub fn suits(&self, dims: &Dims) -> bool {
        self.made_for.is_none_or(|sizes| sizes(dims))
    }
}

impl Contract {
    /// The variants that run a call on a GPU of this capability, plain first. `dtype` is that of [`Contract::typed_arg`].
    pub fn cuda_for<'a>(
        &'static self,
        dims: &'a Dims,
        dtype: DType,
        capability: (u32, u32),
    ) -> impl DoubleEndedIterator<Item = &'static Cuda> + 'a {
        let own = Some(dtype).filter(|_| self.cuda.iter().any(|v| v.only == Some(dtype)));
        let usual = own.is_some() || dtype == self.args[self.typed_arg()].dtypes[0];
        self.cuda.iter().filter(move |v| {
            usual && v.only == own && v.module.target.runs_on(capability) && v.fits.is_none_or(|fits| fits(dims))
        })
    }
}

/// A module from its path below `kernels/src/ops`, as `"gemm/gemm.cu"`, and the name of its PTX.
#[cfg(feature = "launches")]
macro_rules! module {
    ($name:literal, $path:literal) => {
        module!($name, $path, Sm80)
    };
    ($name:literal, $path:literal, $target:ident) => {
        crate::contract::cuda::Module {
            name: $name,
            path: concat!("ops/", $path),
            #[cfg(feature = "cuda")]
            ptx: include_str!(concat!("../../cuda/ptx/", $name, ".ptx")),
            #[cfg(not(feature = "cuda"))]
            ptx: "",
            target: crate::contract::cuda::Target::$target,
        }
    };
}
#[cfg(feature = "launches")]
pub(crate) use module;

/// Kernels that measure what a GPU does at most; the profiler has their contracts.
#[cfg(feature = "launches")]
pub const CEILINGS: Module = Module {
    name: "ceilings",
    path: "cuda/ceilings.cu",
    #[cfg(feature = "cuda")]
    ptx: include_str!("../cuda/ptx/ceilings.ptx"),
    #[cfg(not(feature = "cuda"))]
    ptx: "",
    target: Target::Sm80,
};

/// The CUDA column of a contract, empty in builds without it.
#[cfg(feature = "launches")]
macro_rules! cuda_variants {
    ($($variant:expr),* $(,)?) => { &[$($variant),*] };
}
/// The CUDA column of a contract, empty in builds without it.
#[cfg(not(feature = "launches"))]
macro_rules! cuda_variants {
    ($($variant:expr),* $(,)?) => {
        &[]
    };
}
pub(crate) use cuda_variants;

/// Blocks of `size` threads for `n` of them.
pub const fn line(n: usize, size: u32) -> [u32; 3] {
    // More than a grid holds is refused when a plan is bound.
    let blocks = n.div_ceil(size as usize);
    [if blocks > u32::MAX as usize { u32::MAX } else { blocks as u32 }, 1, 1]
}

/// Blocks of tiles of `width` columns and `height` rows over a matrix.
pub const fn grid(rows: usize, height: u32, cols: usize, width: u32) -> [u32; 3] {
    [cols.div_ceil(width as usize) as u32, rows.div_ceil(height as usize) as u32, 1]
}

/// A member of a kernel's struct.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// Type in C++.
    pub kind: String,
    /// Name.
    pub name: String,
    /// Its first byte.
    pub offset: usize,
}

/// Name of the struct of an op: `LayernormDxArgs`.
pub fn struct_name(op: &Contract) -> String {
    let upper = |word: &str| word[..1].to_uppercase() + &word[1..];
    op.name.split('_').map(upper).collect::<String>() + "Args"
}

/// The struct of an op is a template: some arguments have the type `T`, or that of what goes with it, because kernels are for
/// several.
pub fn is_template(op: &Contract) -> bool {
    op.args.iter().any(|arg| of_several(op, arg))
}

/// An argument has several types in the kernels of its op.
fn of_several(op: &Contract, arg: &Arg) -> bool {
    let has = |only: Option<DType>| only.is_some_and(|dtype| dtype != arg.dtypes[0] && arg.dtypes.contains(&dtype));
    op.cuda.iter().any(|variant| has(variant.only))
}

fn element(op: &Contract, arg: &Arg) -> &'static str {
    if of_several(op, arg) {
        let same = op.cuda.iter().filter_map(|variant| variant.only).all(|typed| arg.dtype_beside(typed) == typed);
        return if same { "T" } else { "Beside<T>" };
    }
    match arg.dtypes[0] {
        DType::F32 => "float",
        DType::F16 => "f16",
        DType::Bf16 => "bf16",
        DType::U32 | DType::Bits => "unsigned",
        DType::U16 => "unsigned short",
        DType::U8 => "unsigned char",
    }
}

fn letters(op: &Contract) -> impl Iterator<Item = char> {
    let mut seen = BTreeSet::new();
    let all = op.args.iter().flat_map(|arg| arg.dims).copied();
    all.filter(move |letter| !letter.is_ascii_digit() && seen.insert(*letter))
}

/// Members of the struct of an op, pointers first.
pub fn members(op: &Contract) -> Vec<Member> {
    let pointer = |arg: &Arg| {
        let constant = if arg.access == Access::Read { "const " } else { "" };
        (format!("{constant}{}*", element(op, arg)), arg.name.to_owned())
    };
    let pointers = op.args.iter().map(pointer).chain([("unsigned*".to_owned(), "work".to_owned())]);
    let words = letters(op).map(String::from).chain(op.scalars.iter().map(|s| (*s).to_owned()));
    let words = words.chain(op.args.iter().map(|arg| format!("{}_ld", arg.name)));
    let words = words.map(|name| ("unsigned".to_owned(), name));
    let mut offset = 0;
    let place = |(kind, name): (String, String)| {
        let size = if kind.ends_with('*') { 8 } else { 4 };
        offset += size;
        Member { kind, name, offset: offset - size }
    };
    pointers.chain(words).map(place).collect()
}

/// Where an argument lies in device memory.
#[derive(Clone, Copy, Debug)]
pub struct Place {
    /// Address of its first element.
    pub address: u64,
    /// Storage units between its rows.
    pub ld: u32,
}

/// The bytes of the struct of an op. `places` holds every argument, `None` where it is absent; letters that no present
/// argument has are 0.
pub fn argument_bytes(op: &Contract, dims: &Dims, places: &[Option<Place>], work: u64) -> Vec<u8> {
    let pointers = places.iter().map(|place| place.map_or(0, |place| place.address)).chain([work]);
    let mut bytes: Vec<u8> = pointers.flat_map(u64::to_ne_bytes).collect();
    let sizes = letters(op).map(|letter| dims.get(letter).unwrap_or(0));
    let scalars = (0..op.scalars.len()).map(|at| dims.scalar(at));
    let pitches = places.iter().map(|place| place.map_or(0, |place| place.ld));
    bytes.extend(sizes.chain(scalars).chain(pitches).flat_map(u32::to_ne_bytes));
    bytes.resize(bytes.len().next_multiple_of(8), 0);
    bytes
}

/// The part of one call in a batch: its first block, and the blocks of its own grid in x and y.
pub type Part = [u32; 3];

/// The bytes of the argument of a kernel that runs many calls: addresses of their structs and of as many [`Part`]s.
pub fn batch_bytes(calls: u64, parts: u64, count: u32) -> Vec<u8> {
    let words = [calls, parts, u64::from(count)];
    words.into_iter().flat_map(u64::to_ne_bytes).collect()
}

/// Text of `kernels/src/cuda/args.h`: the structs of some ops.
pub fn header(ops: &[&Contract]) -> String {
    let mut text = String::from(
        "// The argument of every kernel, one struct for each op. Made from the contracts by `cargo xtask ptx`.\n\
         //\n\
         // A pointer for every argument, null where it is absent; the workspace; sizes, 0 where no argument has the letter;\n\
         // scalars as raw bits; pitches in storage units (words for bits, elements otherwise).\n\
         #pragma once\n",
    );
    for op in ops {
        text += if is_template(op) { "\ntemplate <class T>\n" } else { "\n" };
        text += &format!("struct {} {{\n", struct_name(op));
        for Member { kind, name, .. } in members(op) {
            text += &format!("    {kind} {name};\n");
        }
        text += "};\n";
    }
    text + &rows::numbers()
}

#[cfg(all(test, feature = "launches"))]
mod tests {
    use super::*;
    use crate::ops;
    use crate::ops::OPS;

    #[test]
    fn the_header_is_that_of_the_contracts() {
        assert_eq!(header(OPS), include_str!("../cuda/args.h"), "run cargo xtask ptx");
    }

    #[test]
    fn members_have_names_of_their_own() {
        for op in OPS {
            let members = members(op);
            let names: BTreeSet<&str> = members.iter().map(|m| &*m.name).collect();
            assert_eq!(names.len(), members.len(), "{}: {members:?}", op.name);
        }
    }

    #[test]
    fn bytes_follow_the_members() {
        let op = &ops::gemm::GEMM;
        let members = members(op);
        let listed: Vec<_> = members.iter().map(|m| format!("{} {}", m.kind, m.name)).collect();
        let expected = "const T* x,const T* w,const float* bias,float* y,float* slope,unsigned* work,unsigned r,unsigned i,\
                        unsigned o,unsigned x_ld,unsigned w_ld,unsigned bias_ld,unsigned y_ld,unsigned slope_ld";
        assert_eq!(listed.join(","), expected);
        let place = |address, ld| Some(Place { address, ld });
        let bytes = argument_bytes(op, &Dims::new(&[]), &[place(7, 1), None, None, place(9, 5), None], 11);
        let word = |name: &str| members.iter().find(|m| m.name == name).expect("a member").offset;
        let at = |name| u32::from_ne_bytes(bytes[word(name)..][..4].try_into().expect("4 bytes"));
        assert_eq!([at("x"), at("w"), at("y"), at("work"), at("r"), at("y_ld")], [7, 0, 9, 11, 0, 5]);
        assert_eq!(bytes.len(), 80);
    }

    #[test]
    fn launches_are_of_whole_warps() {
        for (op, variant) in OPS.iter().flat_map(|op| op.cuda.iter().map(move |v| (op, v))) {
            assert!(!variant.launches.is_empty(), "{} {}", op.name, variant.name);
            for launch in variant.launches {
                assert!(launch.threads % 32 == 0 && (32..=1024).contains(&launch.threads), "{}", launch.entry);
                let half = |arg: &Arg| [DType::Bf16, DType::F16].iter().any(|dtype| arg.dtypes.contains(dtype));
                let halves = |name| op.args.iter().any(|arg| arg.name == name && half(arg));
                assert!(launch.maps.iter().all(|name| halves(*name)), "{}", launch.entry);
                assert!(launch.maps.is_empty() || !launch.batched, "{}: a batch has no maps", launch.entry);
            }
            let written = op.args.iter().filter(|arg| arg.access != Access::Read).map(|arg| arg.name);
            let all: BTreeSet<&str> = written.collect();
            let by = |launch: &Launch| launch.writes.map_or_else(|| all.clone(), |some| some.iter().copied().collect());
            let some: BTreeSet<&str> = variant.launches.iter().flat_map(by).collect();
            assert_eq!(some, all, "{} {}: arguments that its launches write", op.name, variant.name);
        }
    }

    #[test]
    fn targets_are_what_ptx_promises() {
        assert!(Target::Sm80.runs_on((8, 0)) && Target::Sm80.runs_on((12, 1)) && !Target::Sm80.runs_on((7, 5)));
        assert!(Target::Sm90a.runs_on((9, 0)) && !Target::Sm90a.runs_on((10, 0)) && !Target::Sm90a.runs_on((8, 9)));
    }
}
