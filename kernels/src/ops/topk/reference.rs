//! The meaning by sorting.

use crate::reference::Reference;

pub(super) fn topk(r: &mut Reference) {
    let (score, candidates, base, k) = (r.f(0), r.u(1), r.u(2), r.u(3)[0] as usize);
    let keep_ties = r.dims.scalar(0) == 1;
    let key = |at: usize| (score[at] as f32).to_bits() & 0x7FFF_FFFF;
    let mut order: Vec<usize> = (0..score.len()).filter(|at| candidates.get(*at).is_none_or(|b| *b == 1)).collect();
    order.sort_by_key(|at| (std::cmp::Reverse(key(*at)), *at));
    let mut kept = k.min(order.len());
    while keep_ties && kept > 0 && kept < order.len() && key(order[kept]) == key(order[kept - 1]) {
        kept += 1;
    }
    let mut mask: Vec<u32> = (0..score.len()).map(|at| base.get(at).copied().unwrap_or(0)).collect();
    order[..kept].iter().for_each(|at| mask[*at] = 1);
    r.put_u(4, mask);
}
