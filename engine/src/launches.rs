//! A plan as dispatches of WGSL: which source every call runs, where its arguments lie, what is bound and written. No
//! device is needed; whoever has one (`backend/webgpu`, or a page) makes buffers and pipelines of it.
//!
//! All arguments lie in two arenas, each cut into chunks that an adapter can allocate; what a dispatch binds is a range of
//! one of them. Arguments that overlap share a binding ([`Shares`]).

mod share;

use crate::error::{Error, Result};
use crate::layout::{Layout, Place, Space, View, Work, lay_out, view};
use crate::plan::{Life, Plan, RecordedCall};
use kernels::contract::wgsl::{MAX_BINDINGS, MAX_GROUPS, WORK_BINDING, parameter_values, shared};
use kernels::{GpuFeature, Wgsl};
use share::{Bind, Shares};
use std::borrow::Cow;

/// What an adapter can do, and what is wanted of it.
pub struct Adapter<'a> {
    /// Largest buffer, in bytes: no argument crosses a multiple of it.
    pub chunk_bytes: usize,
    /// Largest binding, in bytes.
    pub binding_bytes: u64,
    /// Abilities.
    pub has: &'a dyn Fn(GpuFeature) -> bool,
    /// Of these abilities, those that it is slow at: what needs one runs only if wanted, or if nothing else can.
    pub slow: &'a [GpuFeature],
    /// The variant that runs wherever an op has it for the call at hand; else the best one.
    pub variant: Option<&'a str>,
}

/// A plan for an adapter.
pub struct Launches {
    /// Bytes of the arena of states, and of the one of everything else.
    pub arena_bytes: [usize; 2],
    /// In the order of the plan.
    pub calls: Vec<Call>,
    pub(crate) places: Vec<Place>,
}

/// A call of the plan.
pub struct Call {
    /// What runs it.
    pub source: &'static Wgsl,
    /// Values of `Params`.
    pub params: Vec<u32>,
    /// In order; each sees what the one before wrote.
    pub launches: Vec<Launch>,
    /// Arguments that are bound with another one, and that one.
    pub(crate) pairs: Vec<(u32, u32)>,
    /// Arguments as they are placed, for whoever reads them back.
    #[cfg(feature = "wgpu")]
    pub(crate) views: Vec<Option<View>>,
}

/// A dispatch.
pub struct Launch {
    /// Entry point.
    pub entry: &'static str,
    /// Workgroups, none of them 0.
    pub groups: [u32; 3],
    /// Storage bindings and their ranges, ascending; `None` for an argument without elements, where anything may be bound.
    pub binds: Vec<(u32, Option<Range>)>,
}

/// A range of an arena.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Range {
    /// 0 for states, 1 for everything else.
    pub arena: usize,
    /// First byte, a multiple of 256.
    pub at: usize,
    /// Length, a multiple of 4.
    pub bytes: usize,
}

impl Call {
    /// The text to compile.
    pub fn text(&self) -> Cow<'static, str> {
        shared(self.source.text, &self.pairs)
    }
}

impl Launches {
    /// Chooses sources, places buffers.
    ///
    /// # Errors
    /// [`Error::NoKernel`] lists what has no source for this adapter; [`Error::Memory`]; [`Error::Limit`] names what is
    /// larger than a buffer, a binding or a dispatch.
    pub fn new(plan: &Plan, adapter: &Adapter<'_>) -> Result<Launches> {
        let sources = plan.choose("wgpu", |call| best(plan, call, adapter))?;
        let need = |(call, (recorded, source)): (usize, (&RecordedCall, &&'static Wgsl))| {
            // A declared workspace is bound even if these sizes need none.
            source.work.map(|work| Work::of(call, work(&recorded.dims).max(1).saturating_mul(4)))
        };
        let works: Vec<Work> = plan.calls.iter().zip(&sources).enumerate().filter_map(need).collect();
        let Layout { places, works: offsets, state_bytes, step_bytes } = lay_out(plan, &works, adapter.chunk_bytes)?;
        let mut calls = Vec::new();
        for (call, (recorded, source)) in plan.calls.iter().zip(sources).enumerate() {
            let views: Vec<Option<View>> = recorded.args.iter().map(|s| s.map(|s| view(plan, &places, &s))).collect();
            let work = works.iter().position(|w| w.call == call).map(|nth| Bind {
                space: Space::Step,
                at: offsets[nth],
                bytes: works[nth].bytes,
            });
            let shares = Shares::of(&views);
            within_limits(plan, recorded, adapter.binding_bytes, &shares.binds, work.as_ref())?;
            let launches = launches(recorded, source, &shares, work.as_ref())?;
            let params = params(recorded, &views, &shares.binds);
            calls.push(Call {
                source,
                params,
                launches,
                pairs: shares.pairs(),
                #[cfg(feature = "wgpu")]
                views,
            });
        }
        Ok(Launches { arena_bytes: [state_bytes, step_bytes], calls, places })
    }

    /// Names and places of what the host may write and read.
    pub fn named<'a>(&'a self, plan: &'a Plan) -> impl Iterator<Item = (&'a str, Life, Range)> {
        plan.names.iter().map(|(name, buffer)| {
            let (info, place) = (&plan.buffers[buffer.0 as usize], self.places[buffer.0 as usize]);
            (name.as_str(), info.life, range(&Bind { space: place.space, at: place.at, bytes: info.bytes() }))
        })
    }
}

/// The source that is wanted for a call, or the best one.
fn best(plan: &Plan, call: &RecordedCall, adapter: &Adapter<'_>) -> Option<&'static Wgsl> {
    let all = || call.op.wgsl_for(&call.dims, plan.first_dtype(call), adapter.has);
    let wanted = adapter.variant.and_then(|name| all().find(|source| source.name == name));
    wanted.or_else(|| Wgsl::best(all(), &call.dims, adapter.slow))
}

fn within_limits(
    plan: &Plan,
    call: &RecordedCall,
    limit: u64,
    binds: &[Option<Bind>],
    work: Option<&Bind>,
) -> Result<()> {
    let name = |arg: usize| {
        let buffer = call.args[arg].map_or("", |s| plan.buffers[s.buffer.0 as usize].name.as_str());
        format!("bytes of {} \"{buffer}\" of {}", call.op.args[arg].name, call.op.name)
    };
    for (arg, bind) in binds.iter().enumerate() {
        if let Some(bind) = bind.as_ref().filter(|b| b.bytes as u64 > limit) {
            return Err(Error::Limit { what: name(arg), found: bind.bytes as u64, limit });
        }
    }
    if let Some(work) = work.filter(|w| w.bytes as u64 > limit) {
        let what = format!("bytes of the workspace of {}", call.op.name);
        return Err(Error::Limit { what, found: work.bytes as u64, limit });
    }
    Ok(())
}

/// The dispatches of a call that have something to do.
fn launches(call: &RecordedCall, source: &'static Wgsl, shares: &Shares, work: Option<&Bind>) -> Result<Vec<Launch>> {
    let mut launches = Vec::new();
    for (nth, dispatch) in source.dispatches.iter().enumerate() {
        let groups = (dispatch.groups)(&call.dims);
        if groups.contains(&0) {
            continue;
        }
        if let Some(most) = groups.iter().find(|n| **n > MAX_GROUPS) {
            let (what, limit) = (format!("workgroups of {}", call.op.name), u64::from(MAX_GROUPS));
            return Err(Error::Limit { what, found: u64::from(*most), limit });
        }
        let bindings = shares.bindings(&source.bindings(call.op.args.len(), nth));
        if bindings.len() > MAX_BINDINGS {
            let what = format!("storage buffers of {} {}", call.op.name, dispatch.entry);
            return Err(Error::Limit { what, found: bindings.len() as u64, limit: MAX_BINDINGS as u64 });
        }
        let bound = |binding: u32| match binding {
            WORK_BINDING => work.map(range),
            arg => shares.binds[arg as usize].as_ref().map(range),
        };
        let binds = bindings.into_iter().map(|binding| (binding, bound(binding))).collect();
        launches.push(Launch { entry: dispatch.entry, groups, binds });
    }
    Ok(launches)
}

fn range(bind: &Bind) -> Range {
    let arena = usize::from(bind.space != Space::State);
    Range { arena, at: bind.at, bytes: bind.bytes.next_multiple_of(4) }
}

fn params(call: &RecordedCall, views: &[Option<View>], binds: &[Option<Bind>]) -> Vec<u32> {
    let place = |(view, bind): (&View, &Option<Bind>)| {
        let units = bind.map_or(0, |bind| (view.at - bind.at) / view.dtype.unit_bytes());
        [units as u32, view.ld as u32]
    };
    let places = views.iter().zip(binds).map(|(view, bind)| view.as_ref().map(|view| place((view, bind))));
    parameter_values(call.op, &call.dims, &places.collect::<Vec<Option<[u32; 2]>>>())
}
