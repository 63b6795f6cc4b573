//! WGSL sources of an op: text, what it is launched with, and the interface that every file follows.
//!
//! A file declares, in group 0: argument `n` of the contract as `var<storage, read_write>` at binding `n` under the
//! argument's name, as `array<f32>` for [`DType::F32`], `array<f16>` for [`DType::F16`] if it needs [`GpuFeature::F16`], and
//! `array<u32>` for everything else (two or four narrow elements, or 32 bits, to a word); a workspace, if it has one, as
//! `work: array<u32>` at [`WORK_BINDING`]; and `var<uniform> p: Params` at [`PARAMS_BINDING`]. `Params` has the members of
//! [`parameters`], in that order: 32 bits each, `u32`, or `f32` for a scalar that is a float. Everything is `read_write`
//! because all arguments lie in one arena, which a dispatch may use in one way only.
//!
//! One file serves f32 and f16 if it calls the type of its elements `Real` and converts what it reads; the text begins with
//! what `Real` is.
//!
//! WebGPU promises [`MAX_BINDINGS`] storage buffers and refuses bindings that overlap if one may be written. A source with
//! more arguments says what each dispatch uses ([`Wgsl::with_uses`]), and where arguments overlap, as in `add(x, x, y)` or
//! columns of one buffer, the device binds them once and [`shared`] makes the text that reads both from it.

use super::{Contract, DType, Dims};
use std::borrow::Cow;
use std::collections::BTreeSet;

/// Binding of the workspace.
pub const WORK_BINDING: u32 = 8;
/// Binding of [`parameters`].
pub const PARAMS_BINDING: u32 = 9;
/// Most storage buffers of one dispatch: WebGPU's default.
pub const MAX_BINDINGS: usize = 8;
/// Most workgroups in one dimension of a dispatch: WebGPU's default.
pub const MAX_GROUPS: u32 = 65_535;

/// Optional abilities of an adapter that a source needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GpuFeature {
    /// Subgroup operations.
    Subgroups,
    /// 16-bit floats in shaders.
    F16,
}

/// One dispatch of a source.
#[derive(Clone, Copy)]
pub struct Dispatch {
    /// Entry point.
    pub entry: &'static str,
    /// Workgroups for given sizes.
    pub groups: fn(&Dims) -> [u32; 3],
}

/// One WGSL implementation.
#[derive(Clone, Copy)]
pub struct Wgsl {
    /// How it works, not how good it is.
    pub name: &'static str,
    /// The file.
    pub text: &'static str,
    /// Dispatches of one call, in order; each sees what the one before wrote.
    pub dispatches: &'static [Dispatch],
    /// Words of workspace for given sizes, if it declares one.
    pub work: Option<fn(&Dims) -> usize>,
    /// The one element type of [`Contract::typed_arg`] it is for; `None` for all that no source of the op names.
    pub only: Option<DType>,
    /// What the adapter must have.
    pub needs: &'static [GpuFeature],
    /// Sizes it can compute; `None` for all.
    pub fits: Option<fn(&Dims) -> bool>,
    /// Of these, sizes it is made for; for others it runs only if it is asked for. `None` for all.
    pub made_for: Option<fn(&Dims) -> bool>,
    /// Storage bindings of each dispatch; `None` if all of them may use everything.
    pub uses: Option<&'static [&'static [u32]]>,
}

impl Wgsl {
    /// Runs on every adapter.
    pub const fn any(name: &'static str, text: &'static str, dispatches: &'static [Dispatch]) -> Wgsl {
        Wgsl { name, text, dispatches, work: None, only: None, needs: &[], fits: None, made_for: None, uses: None }
    }

    /// The same source with a workspace.
    pub const fn with_work(self, work: fn(&Dims) -> usize) -> Wgsl {
        Wgsl { work: Some(work), ..self }
    }

    /// The same source, for calls alone whose [`Contract::typed_arg`] has this element type.
    pub const fn only(self, dtype: DType) -> Wgsl {
        Wgsl { only: Some(dtype), ..self }
    }

    /// The same source, for adapters that have these abilities.
    pub const fn needs(self, features: &'static [GpuFeature]) -> Wgsl {
        Wgsl { needs: features, ..self }
    }

    /// The same source, for some sizes only.
    pub const fn fits(self, fits: fn(&Dims) -> bool) -> Wgsl {
        Wgsl { fits: Some(fits), ..self }
    }

    /// The same source, made for some of the sizes it can compute.
    pub const fn made_for(self, sizes: fn(&Dims) -> bool) -> Wgsl {
        Wgsl { made_for: Some(sizes), ..self }
    }

    /// The same source, whose dispatches use these storage bindings alone, a list for each.
    pub const fn with_uses(self, uses: &'static [&'static [u32]]) -> Wgsl {
        Wgsl { uses: Some(uses), ..self }
    }

    /// The last of some sources, plain first, that is made for these sizes and needs nothing the adapter is slow at; without
    /// such a one, the last of all.
    pub fn best(
        sources: impl Iterator<Item = &'static Wgsl>,
        dims: &Dims,
        slow: &[GpuFeature],
    ) -> Option<&'static Wgsl> {
        let suits = |source: &&Wgsl| {
            source.made_for.is_none_or(|sizes| sizes(dims)) && !source.needs.iter().any(|need| slow.contains(need))
        };
        sources.max_by_key(suits)
    }

    /// Storage bindings of a dispatch, ascending, for an op with a number of arguments.
    pub fn bindings(&self, args: usize, dispatch: usize) -> Vec<u32> {
        match self.uses {
            Some(uses) => uses[dispatch].to_vec(),
            None => (0..args as u32).chain(self.work.map(|_| WORK_BINDING)).collect(),
        }
    }
}

impl Contract {
    /// The sources that run a call on an adapter with these abilities, plain first. `dtype` is that of
    /// [`Contract::typed_arg`].
    pub fn wgsl_for<'a>(
        &'static self,
        dims: &'a Dims,
        dtype: DType,
        has: &'a dyn Fn(GpuFeature) -> bool,
    ) -> impl DoubleEndedIterator<Item = &'static Wgsl> + 'a {
        let own = Some(dtype).filter(|_| self.wgsl.iter().any(|s| s.only == Some(dtype)));
        let usual = own.is_some() || dtype == self.args[self.typed_arg()].dtypes[0];
        self.wgsl.iter().filter(move |s| {
            usual && s.only == own && s.needs.iter().all(|f| has(*f)) && s.fits.is_none_or(|fits| fits(dims))
        })
    }
}

/// Members of `Params`: every letter of the contract in order of first use, every scalar, for every argument
/// its first storage unit `<name>_at` and its pitch `<name>_ld` in storage units (words for bits, elements otherwise),
/// and `present`, whose bit `n` says that argument `n` is there.
pub fn parameters(op: &Contract) -> Vec<String> {
    let mut seen = BTreeSet::new();
    let letters = op.args.iter().flat_map(|arg| arg.dims).filter(|l| !l.is_ascii_digit() && seen.insert(**l));
    let places = op.args.iter().flat_map(|arg| [format!("{}_at", arg.name), format!("{}_ld", arg.name)]);
    let names = letters.map(char::to_string).chain(op.scalars.iter().map(|s| (*s).to_owned())).chain(places);
    names.chain(["present".to_owned()]).collect()
}

/// Values of [`parameters`]: `places` holds first unit and pitch of every argument, `None` where it is absent.
pub fn parameter_values(op: &Contract, dims: &Dims, places: &[Option<[u32; 2]>]) -> Vec<u32> {
    let mut seen = BTreeSet::new();
    let letters = op.args.iter().flat_map(|arg| arg.dims).filter(|l| !l.is_ascii_digit() && seen.insert(**l));
    let mut values: Vec<u32> = letters.map(|l| dims.get(*l).unwrap_or(0)).collect();
    values.extend((0..op.scalars.len()).map(|at| dims.scalar(at)));
    values.extend(places.iter().flat_map(|place| place.unwrap_or([0, 0])));
    values.push(places.iter().zip(0..).map(|(place, n)| u32::from(place.is_some()) << n).sum());
    values
}

/// A text in which argument `from` of every pair is read and written through the variable of argument `to`: what lies in
/// one buffer is bound once. Both have the same element type.
pub fn shared<'a>(text: &'a str, pairs: &[(u32, u32)]) -> Cow<'a, str> {
    let mut text = Cow::Borrowed(text);
    for (from, to) in pairs {
        let names = [from, to].map(|binding| variable(&text, *binding).map(str::to_owned));
        if let [Some(from), Some(to)] = names {
            text = Cow::Owned(indexed_instead(&text, &from, &to));
        }
    }
    text
}

/// Name of the storage variable at a binding, as the text declares it.
pub fn variable(text: &str, binding: u32) -> Option<&str> {
    let declared = text.split_once(&format!("@binding({binding}) var<storage, read_write> "))?.1;
    declared.split_once(':').map(|(name, _)| name)
}

/// Replaces `from[` by `to[` wherever `from` is a whole name.
fn indexed_instead(text: &str, from: &str, to: &str) -> String {
    let wanted = format!("{from}[");
    let mut pieces = text.split(&wanted).peekable();
    let mut out = String::with_capacity(text.len());
    while let Some(piece) = pieces.next() {
        out += piece;
        if pieces.peek().is_some() {
            let within = out.ends_with(|c: char| c.is_ascii_alphanumeric() || c == '_' || c == '.');
            out += if within { &wanted } else { to };
            out += if within { "" } else { "[" };
        }
    }
    out
}

/// Workgroups of `size` invocations for `n` of them, in as few rows as fit [`MAX_GROUPS`]. A kernel counts them as
/// `id.y * groups.x * size + id.x` and stops at `n`.
pub const fn line(n: usize, size: u32) -> [u32; 3] {
    let groups = n.div_ceil(size as usize);
    let rows = groups.div_ceil(MAX_GROUPS as usize);
    if rows == 0 {
        return [0, 1, 1];
    }
    [groups.div_ceil(rows) as u32, rows as u32, 1]
}

/// Workgroups of tiles of `width` columns and `height` rows over a matrix.
pub const fn grid(rows: usize, height: u32, cols: usize, width: u32) -> [u32; 3] {
    [cols.div_ceil(width as usize) as u32, rows.div_ceil(height as usize) as u32, 1]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops;

    #[test]
    fn parameters_name_letters_scalars_and_places() {
        let names = parameters(&ops::masked_gemm::MASKED_GEMM_DX);
        let expected = "r o i dy_at dy_ld w_at w_ld mask_at mask_ld dx_at dx_ld slope_at slope_ld present";
        assert_eq!(names.join(" "), expected);
        let dims = Dims::new(&[]);
        let values =
            parameter_values(&ops::masked_gemm::MASKED_GEMM_DX, &dims, &[Some([7, 9]), None, None, None, None]);
        assert_eq!(values.len(), names.len());
        assert_eq!((values[3], values[4], values[13]), (7, 9, 1));
        for op in ops::OPS {
            assert!(parameters(op).len() <= 64, "{}: parameters outgrow 256 bytes", op.name);
        }
    }

    #[test]
    fn the_best_source_is_the_last_one_that_suits() {
        static ALL: [Wgsl; 4] = [
            Wgsl::any("plain", "", &[]),
            Wgsl::any("tiled", "", &[]).made_for(|d| d.size('r') > 16),
            Wgsl::any("subgroups", "", &[]).needs(&[GpuFeature::Subgroups]),
            Wgsl::any("halves", "", &[]).needs(&[GpuFeature::F16, GpuFeature::Subgroups]),
        ];
        let sizes = |rows| {
            let mut dims = Dims::new(&[]);
            dims.bind('r', rows).expect("not bound yet");
            dims
        };
        let best = |from: usize, count: usize, rows: u32, slow: &[GpuFeature]| {
            Wgsl::best(ALL[from..count].iter(), &sizes(rows), slow).map(|source| source.name)
        };
        assert_eq!(
            [best(0, 0, 64, &[]), best(0, 2, 64, &[]), best(0, 2, 1, &[])],
            [None, Some("tiled"), Some("plain")]
        );
        assert_eq!([best(0, 3, 64, &[]), best(0, 3, 1, &[])], [Some("subgroups"); 2]);
        let slow = [GpuFeature::Subgroups];
        assert_eq!([best(0, 4, 64, &slow), best(0, 4, 1, &slow)], [Some("tiled"), Some("plain")]);
        assert_eq!(best(0, 4, 1, &[GpuFeature::F16]), Some("subgroups"));
        // Slow is better than not at all.
        assert_eq!(best(2, 4, 1, &slow), Some("halves"));
    }

    #[test]
    fn one_variable_stands_for_another() {
        let text = "@group(0) @binding(0) var<storage, read_write> x: array<f32>;\n\
                    @group(0) @binding(2) var<storage, read_write> x_: array<f32>;\n\
                    let y = x[0] + ax[1] + a.x[2] + x_[3] * x[x[4]] - fox[x[5]];";
        let (head, body) = text.rsplit_once('\n').expect("three lines");
        assert_eq!(shared(text, &[]), text);
        assert_eq!([variable(text, 0), variable(text, 2), variable(text, 1)], [Some("x"), Some("x_"), None]);
        let one = shared(text, &[(0, 2)]);
        assert_eq!(one, format!("{head}\nlet y = x_[0] + ax[1] + a.x[2] + x_[3] * x_[x_[4]] - fox[x_[5]];"));
        assert_eq!(shared(text, &[(2, 0)]), format!("{head}\n{}", body.replace("x_[", "x[")));
    }

    #[test]
    fn lines_cover_and_stay_within_limits() {
        for (n, size) in
            [(0, 64), (1, 64), (64, 64), (65, 64), (65_535 * 64, 64), (65_535 * 64 + 1, 64), (1 << 31, 256)]
        {
            let [x, y, z] = line(n, size);
            assert!(x <= MAX_GROUPS && y <= MAX_GROUPS && z == 1);
            assert!(x as usize * y as usize * size as usize >= n);
        }
        assert_eq!(grid(33, 16, 16, 16), [1, 3, 1]);
    }
}
