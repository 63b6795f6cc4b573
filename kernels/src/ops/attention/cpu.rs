//! Plain loops, one query at a time; one task per sequence.

use super::{Shape, draw};
use crate::contract::{Dims, Scratch};
use crate::operand::{Call, Real};
use crate::ops::dropout::Draw;

/// A row of scores per worker.
pub(super) fn scratch(d: &Dims) -> Scratch {
    Scratch { shared: 0, worker: d.size('t') }
}

fn dot<A: Real, B: Real>(a: &[A], b: &[B]) -> f32 {
    a.iter().zip(b).map(|(a, b)| (*a).into() * (*b).into()).sum()
}

fn factor(draw: Option<Draw>, element: u64) -> f32 {
    draw.map_or(1.0, |d| if d.keeps(element) { d.scale() } else { 0.0 })
}

pub(super) fn attention<T: Real>(c: &mut Call<'_>) {
    let (qkv, valid, rng) = (T::read(c, 0), c.u8(1), c.u32_opt(2));
    let (y, stats) = (c.f32_mut(3), c.f32_mut(4));
    let (shape, draw) = (Shape::new(c.dims), draw(rng.map(|r| r.row(0)), c.dims));
    let Shape { heads, t, .. } = shape;
    let outputs = (y.split_groups(t), stats.split_groups(t));
    c.pool.rows(outputs, 1, c.workers, |sequence, (mut y, mut stats), scores| {
        let (valid, part) = (valid.row(sequence), |p, of, head| &qkv.row(sequence * t + p)[shape.columns(of, head)]);
        for (q, head) in (0..t).flat_map(|q| (0..heads).map(move |head| (q, head))) {
            let visible = || (0..=q).filter(|p| valid[*p] != 0);
            let y = &mut y.row(q)[shape.columns(0, head)];
            y.fill(0.0);
            stats.row(q)[head] = 0.0;
            if visible().next().is_none() {
                continue;
            }
            let (mut top, mut sum) = (f32::NEG_INFINITY, 0.0);
            for p in visible() {
                scores[p] = dot(part(q, 0, head), part(p, 1, head)) * shape.scale();
                top = top.max(scores[p]);
            }
            for p in visible() {
                scores[p] = (scores[p] - top).exp();
                sum += scores[p];
            }
            stats.row(q)[head] = top + sum.ln();
            let first = shape.element(sequence, head, q);
            for p in visible() {
                let probability = scores[p] / sum * factor(draw, first + p as u64);
                y.iter_mut().zip(part(p, 2, head)).for_each(|(y, v)| *y += probability * (*v).into());
            }
        }
    });
}

pub(super) fn attention_dx<T: Real>(c: &mut Call<'_>) {
    let (qkv, valid, rng) = (T::read(c, 0), c.u8(1), c.u32_opt(2));
    let (y, stats, dy, dqkv) = (c.f32(3), c.f32(4), T::read(c, 5), c.f32_mut(6));
    let (shape, draw) = (Shape::new(c.dims), draw(rng.map(|r| r.row(0)), c.dims));
    let Shape { heads, t, d } = shape;
    c.pool.rows(dqkv.split_groups(t), 1, &mut [], |sequence, mut dqkv, _| {
        let (valid, part) = (valid.row(sequence), |p, of, head| &qkv.row(sequence * t + p)[shape.columns(of, head)]);
        (0..t).for_each(|p| dqkv.row(p).fill(0.0));
        for (q, head) in (0..t).flat_map(|q| (0..heads).map(move |head| (q, head))) {
            let row = sequence * t + q;
            let (query, dy) = (part(q, 0, head), &dy.row(row)[shape.columns(0, head)]);
            let dy_y = dot(dy, &y.row(row)[shape.columns(0, head)]);
            let first = shape.element(sequence, head, q);
            for p in (0..=q).filter(|p| valid[*p] != 0) {
                let (key, value) = (part(p, 1, head), part(p, 2, head));
                let probability = (dot(query, key) * shape.scale() - stats.row(row)[head]).exp();
                let factor = factor(draw, first + p as u64);
                let dlogit = probability * (factor * dot(dy, value) - dy_y) * shape.scale();
                let to = &mut dqkv.row(q)[shape.columns(0, head)];
                to.iter_mut().zip(key).for_each(|(to, k)| *to += dlogit * (*k).into());
                let (dk, dv) = (shape.columns(1, head).start, shape.columns(2, head).start);
                let to = dqkv.row(p);
                for i in 0..d {
                    to[dk + i] += dlogit * query[i].into();
                    to[dv + i] += factor * probability * dy[i].into();
                }
            }
        }
    });
}
