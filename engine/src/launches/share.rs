//! Which arguments of a call are bound together: WebGPU refuses bindings that overlap if one may be written, and all may.

use crate::arena::ALIGN;
use crate::layout::{Space, View};

/// A range of one arena that a kernel is given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Bind {
    pub(super) space: Space,
    pub(super) at: usize,
    pub(super) bytes: usize,
}

impl Bind {
    /// What is bound for a view: it starts where bindings may, and ends at a whole word. Nothing for one without elements,
    /// which may lie where another argument does.
    fn of(view: &View) -> Option<Bind> {
        let at = view.at / ALIGN * ALIGN;
        let bytes = (view.end() - at).next_multiple_of(4);
        (view.units > 0).then_some(Bind { space: view.space, at, bytes })
    }

    fn end(&self) -> usize {
        self.at + self.bytes
    }

    fn meets(&self, other: &Bind) -> bool {
        self.space == other.space && self.at < other.end() && other.at < self.end()
    }

    fn with(&self, other: &Bind) -> Bind {
        let at = self.at.min(other.at);
        Bind { space: self.space, at, bytes: self.end().max(other.end()) - at }
    }
}

/// The bindings of a call: arguments whose ranges meet have one, under the number of the first of them.
pub(super) struct Shares {
    /// Of every argument, the one that it is bound with; itself if it is alone or the first.
    pub(super) leads: Vec<usize>,
    /// What is bound for every argument; that of its lead. `None` where there is no element.
    pub(super) binds: Vec<Option<Bind>>,
}

impl Shares {
    pub(super) fn of(views: &[Option<View>]) -> Shares {
        let mut binds: Vec<Option<Bind>> = views.iter().map(|view| view.as_ref().and_then(Bind::of)).collect();
        let mut leads: Vec<usize> = (0..views.len()).collect();
        // A range that grows may meet another one.
        while let Some((first, second)) = meeting(&leads, &binds) {
            let both = binds[first].zip(binds[second]).map(|(a, b)| a.with(&b));
            for arg in 0..leads.len() {
                if leads[arg] == first || leads[arg] == second {
                    (leads[arg], binds[arg]) = (first, both);
                }
            }
        }
        Shares { leads, binds }
    }

    /// Arguments that are bound with another one, and that one.
    pub(super) fn pairs(&self) -> Vec<(u32, u32)> {
        let all = (0..).zip(&self.leads).map(|(arg, lead)| (arg, *lead as u32));
        all.filter(|(arg, lead)| arg != lead).collect()
    }

    /// Bindings of a dispatch that uses `uses`.
    pub(super) fn bindings(&self, uses: &[u32]) -> Vec<u32> {
        let lead = |binding: &u32| self.leads.get(*binding as usize).map_or(*binding, |lead| *lead as u32);
        let mut all: Vec<u32> = uses.iter().map(lead).collect();
        all.sort_unstable();
        all.dedup();
        all
    }
}

/// Two leads, the lower first, whose ranges meet.
fn meeting(leads: &[usize], binds: &[Option<Bind>]) -> Option<(usize, usize)> {
    let is_lead = |arg: &usize| leads[*arg] == *arg;
    let meets = |a: usize, b: usize| binds[a].zip(binds[b]).is_some_and(|(a, b)| a.meets(&b));
    let seconds = (0..leads.len()).filter(is_lead);
    seconds.into_iter().find_map(|b| (0..b).filter(is_lead).find(|a| meets(*a, b)).map(|a| (a, b)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use kernels::DType;

    fn view(space: Space, at: usize, units: usize) -> Option<View> {
        Some(View { space, at, units, rows: 1, cols: units, ld: units, dtype: DType::F32 })
    }

    #[test]
    fn what_meets_is_bound_once() {
        let views = [
            view(Space::Step, 0, 64),
            view(Space::State, 0, 64),
            None,
            view(Space::Step, 256, 65),
            // Another slice of the third word behind, in the same 256 bytes.
            view(Space::Step, 520, 2),
            view(Space::Step, 0, 64),
            view(Space::Step, 1024, 1),
            view(Space::Step, 256, 0),
        ];
        let shares = Shares::of(&views);
        assert_eq!(shares.leads, [0, 1, 2, 3, 3, 0, 6, 7]);
        assert_eq!(shares.pairs(), [(4, 3), (5, 0)]);
        assert_eq!(shares.binds[4], Some(Bind { space: Space::Step, at: 256, bytes: 272 }));
        assert_eq!([shares.binds[2], shares.binds[7]], [None, None]);
        assert_eq!(shares.bindings(&[0, 3, 4, 5, 8]), [0, 3, 8]);
    }

    #[test]
    fn what_is_bound_never_meets() {
        // Ranges chained to each other become one; whatever the order.
        for order in [[0usize, 1, 2], [2, 0, 1], [1, 2, 0]] {
            let mut views = vec![view(Space::Step, 0, 128), view(Space::Step, 1024, 64), view(Space::Step, 256, 200)];
            views = order.iter().map(|at| views[*at]).collect();
            let shares = Shares::of(&views);
            assert_eq!(shares.leads, [0, 0, 0], "{order:?}");
            assert_eq!(shares.binds[2], Some(Bind { space: Space::Step, at: 0, bytes: 1280 }));
        }
    }
}
