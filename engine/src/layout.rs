//! Where a plan's buffers lie in the arenas of a program.

use crate::arena::{ALIGN, Span, place, within_chunk};
use crate::error::{Error, Result};
use crate::plan::{BufferInfo, Life, Plan, Slice, span};
use kernels::DType;

/// Which arena something lies in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Space {
    State,
    Step,
    /// What variants prepared from arguments that no call writes.
    Prepared,
}

/// The first byte of something.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place {
    pub(crate) space: Space,
    pub(crate) at: usize,
}

/// A placed argument: a range of an arena seen as a matrix.
#[derive(Clone, Copy, Debug)]
pub(crate) struct View {
    pub(crate) space: Space,
    /// First byte.
    pub(crate) at: usize,
    /// Storage units from the first to the last element.
    pub(crate) units: usize,
    pub(crate) rows: usize,
    pub(crate) cols: usize,
    pub(crate) ld: usize,
    pub(crate) dtype: DType,
}

impl View {
    pub(crate) fn end(&self) -> usize {
        self.at + self.units * self.dtype.unit_bytes()
    }
}

/// Memory that a call needs for itself, in the step arena.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Work {
    pub(crate) call: usize,
    /// When it is used, first and last, as [`BufferInfo::used`] counts.
    pub(crate) used: (usize, usize),
    pub(crate) bytes: usize,
}

impl Work {
    /// Of a call that runs at its place in the plan.
    pub(crate) fn of(call: usize, bytes: usize) -> Work {
        Work { call, used: (call, call), bytes }
    }
}

/// Places of all buffers, offsets of all workspaces, sizes of both arenas.
pub(crate) struct Layout {
    pub(crate) places: Vec<Place>,
    pub(crate) works: Vec<usize>,
    pub(crate) state_bytes: usize,
    pub(crate) step_bytes: usize,
}

/// States lie in the order of their declaration; everything else shares the step arena by its lifetime. Nothing crosses a
/// multiple of `chunk`, which is a multiple of [`ALIGN`].
///
/// # Errors
/// [`Error::Memory`] if no address space holds the sizes; [`Error::Limit`] names a buffer or a workspace that no chunk
/// holds.
pub(crate) fn lay_out(plan: &Plan, works: &[Work], chunk: usize) -> Result<Layout> {
    let placed = |b: &&BufferInfo| b.life != Life::Temp || b.used.is_some();
    let sizes = || plan.buffers.iter().filter(placed).map(BufferInfo::bytes).chain(works.iter().map(|w| w.bytes));
    addressable(sizes())?;
    let over = |bytes: usize| bytes > chunk;
    let buffer = plan.buffers.iter().filter(placed).find(|b| over(b.bytes()));
    let work = || works.iter().find(|w| over(w.bytes));
    let buffer = buffer.map(|b| (format!("bytes of buffer \"{}\"", b.name), b.bytes()));
    let of_work = |w: &Work| (format!("bytes of the workspace of {}", plan.calls[w.call].op.name), w.bytes);
    if let Some((what, bytes)) = buffer.or_else(|| work().map(of_work)) {
        return Err(Error::Limit { what, found: bytes as u64, limit: chunk as u64 });
    }
    let mut places = vec![Place { space: Space::Step, at: 0 }; plan.buffers.len()];
    let mut state_bytes = 0usize;
    let (mut spans, mut owners) = (Vec::new(), Vec::new());
    let end = usize::MAX;
    for (at, info) in plan.buffers.iter().enumerate() {
        let (first, last) = match (info.life, info.used) {
            // Nothing lies anywhere, also behind the end of the arena.
            (Life::State, _) if info.bytes() == 0 => {
                places[at].space = Space::State;
                continue;
            }
            (Life::State, _) => {
                state_bytes = within_chunk(state_bytes, info.bytes(), chunk);
                places[at] = Place { space: Space::State, at: state_bytes };
                state_bytes += info.bytes().next_multiple_of(ALIGN);
                continue;
            }
            (Life::Input, _) => (0, end),
            (Life::Output, used) => (used.map_or(0, |u| u.0), end),
            (Life::Temp, Some(used)) => used,
            (Life::Temp, None) => continue,
        };
        spans.push(Span { first, last, bytes: info.bytes() });
        owners.push(at);
    }
    spans.extend(works.iter().map(|w| Span { first: w.used.0, last: w.used.1, bytes: w.bytes }));
    let (offsets, step_bytes) = place(&spans, chunk);
    for (owner, offset) in owners.iter().zip(&offsets) {
        places[*owner].at = *offset;
    }
    Ok(Layout { places, works: offsets[owners.len()..].to_vec(), state_bytes, step_bytes })
}

/// Sizes whose sum, with gaps for alignment, is an offset: nothing computed from them overflows.
pub(crate) fn addressable(mut sizes: impl Iterator<Item = usize>) -> Result<()> {
    let sum = sizes.try_fold(0usize, |sum, size| sum.checked_add(size.checked_next_multiple_of(ALIGN)?));
    match sum.is_some_and(|sum| sum <= isize::MAX as usize) {
        true => Ok(()),
        false => Err(Error::Memory { bytes: sum.unwrap_or(usize::MAX) }),
    }
}

/// A slice as a range of its arena.
pub(crate) fn view(plan: &Plan, places: &[Place], slice: &Slice) -> View {
    let info = &plan.buffers[slice.buffer.0 as usize];
    let Place { space, at } = places[slice.buffer.0 as usize];
    let (begin, end) = span(slice, info.dtype).unwrap_or((0, 0));
    View {
        space,
        at: if begin == end { 0 } else { at + begin * info.dtype.unit_bytes() },
        units: end - begin,
        rows: slice.rows as usize,
        cols: slice.cols as usize,
        // Rows of no columns lie nowhere, so that no kernel looks for the second one behind the end.
        ld: if begin == end { 0 } else { slice.ld as usize },
        dtype: info.dtype,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::Builder;
    use kernels::ops;

    #[test]
    fn what_no_chunk_holds_is_named() {
        let mut plan = Builder::new();
        let [x, y] = [("x", Life::Input), ("y", Life::Output)].map(|(name, life)| {
            let buffer = plan.buffer(name, DType::F32, 10, 10, life);
            plan.whole(buffer)
        });
        plan.call(&ops::pointwise::ADD, &[Some(x), Some(x), Some(y)], &[]).expect("shapes agree");
        let plan = plan.finish().expect("names differ");
        let work = [Work::of(0, 2000)];
        assert!(lay_out(&plan, &work, 2048).is_ok());
        for (chunk, text) in [
            (1024, "bytes of the workspace of add: 2000 is over the device's limit of 1024"),
            (256, "bytes of buffer \"x\": 400 is over the device's limit of 256"),
        ] {
            let error = lay_out(&plan, &work, chunk).err().expect("too large");
            assert_eq!(error.to_string(), text);
        }
    }
}
