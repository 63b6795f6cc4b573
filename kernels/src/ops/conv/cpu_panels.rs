//! One product routine for all three passes, with vectors along the outputs (`conv`, `conv_dw`) or channels (`conv_dx`).
//!
//! ```text
//! out[rows[m], v] += sum over k of  src[base[m] + steps[k]] * panel[k, v]        v: one vector or a few
//!
//! pass      m            k                src       base      steps     panel            out
//! conv      pixel        tap j            image     window    tap       w[j, o]          y as [pixel, o]
//! conv_dx   pixel        output o         dy        pixel     o*pixels  w[tap][o, c]     dx as [y, x, c], tap by tap
//! conv_dw   tap j        pixel            image     tap       window    dy as [pixel, o] dw as [j, o]
//! ```
//!
//! `src` is read in place, one broadcast per element, so no patch is ever copied. Only the panel and the result change
//! layout: weights once per call (mask bits applied there), `dy`, `y` and `dx` once per image, in cache. A panel is at
//! most as wide as one register tile and is cut along `k` into pieces that stay in L1.
//!
//! Order: a piece is summed with `k` ascending, then added to `out`; pieces ascend. `conv` starts from the bias,
//! `conv_dx` runs tap by tap, `conv_dw` image by image in a block, then block by block. Blocks depend on the number of
//! images only.

use super::Geometry;
use super::cpu::{Images, bits, finish_dw, kept, select};
use crate::contract::{Dims, Scratch};
use crate::operand::{Call, Mat, MatMut};

/// Most partial sums of `conv_dw`: enough for that many workers, and what bounds its workspace.
const BLOCKS: usize = 16;
/// Elements of a panel that are used before the next ones: 24 KiB, half of a 48 KiB L1 or three quarters of 32.
const PANEL: usize = 6144;
/// Longest chain of sums in a register. Chains of pieces then add up in `out`, which keeps rounding errors of long sums
/// near those of the plain variant.
const CHAIN: usize = 128;
/// Elements of a cache line; buffers start on one.
const LINE: usize = 16;

/// One product; see the module.
pub(super) struct Product<'a> {
    pub(super) src: &'a [f32],
    pub(super) base: &'a [u32],
    pub(super) steps: &'a [u32],
    /// `[steps.len(), width]` without gaps.
    pub(super) panel: &'a [f32],
    /// A multiple of the lanes, at most [`Kernels::width`].
    pub(super) width: usize,
    pub(super) out: &'a mut [f32],
    /// Row of `out` that belongs to each `base`; rows start `pitch` apart.
    pub(super) rows: &'a [u32],
    pub(super) pitch: usize,
    /// Memory that is needed next, fetched into L2 while this is computed.
    pub(super) next: &'a [u8],
}

/// What an instruction set brings.
pub(super) struct Kernels {
    /// Floats of a vector.
    pub(super) lanes: usize,
    /// Widest panel.
    pub(super) width: usize,
    pub(super) product: fn(Product<'_>),
    /// `to[c, r] = from[r, c]` for `rows x cols` elements, the pitches given after each.
    pub(super) transpose: fn(from: &[f32], from_ld: usize, to: &mut [f32], to_ld: usize, rows: usize, cols: usize),
    /// Bytes to fractions of 255.
    pub(super) widen: fn(from: &[u8], to: &mut [f32]),
}

impl Kernels {
    /// Panels that cover `n` columns: first column and width. Widths are whole vectors, so the last may reach past `n`.
    fn panels(&self, n: usize) -> impl Iterator<Item = (usize, usize)> + use<> {
        let (all, width) = (self.padded(n), self.width);
        (0..all).step_by(width).map(move |first| (first, width.min(all - first)))
    }

    /// `n` columns in whole vectors.
    fn padded(&self, n: usize) -> usize {
        n.next_multiple_of(self.lanes)
    }

    /// Adds the whole of a panel to `out`, piece by piece.
    fn add(&self, p: Product<'_>) {
        let piece = (PANEL / p.width).clamp(1, CHAIN);
        let pieces = p.steps.len().div_ceil(piece);
        for (nth, (steps, panel)) in p.steps.chunks(piece).zip(p.panel.chunks(piece * p.width)).enumerate() {
            (self.product)(Product { steps, panel, out: &mut *p.out, next: share(p.next, nth, pieces), ..p });
        }
    }

    pub(super) fn conv_scratch(&self, d: &Dims) -> Scratch {
        let (g, padded) = (Geometry::new(d), self.padded(d.size('o')));
        Scratch {
            shared: LINE + (padded + self.lanes) * g.taps() + padded + g.taps() + 2 * g.pixels(),
            worker: LINE + padded * g.pixels() + g.image(),
        }
    }

    pub(super) fn conv(&self, c: &mut Call<'_>) {
        let (g, x) = (Geometry::new(c.dims), Images::take(c, 0));
        let (w, mask, bias, bias_mask) = (c.f32(1), c.bits_opt(2), c.f32_opt(3), c.bits_opt(4));
        let y = c.f32_mut(5);
        let padded = self.padded(g.outputs);
        let (weights, rest) = aligned(c.shared).split_at_mut(padded * g.taps());
        let (start, rest) = rest.split_at_mut(padded);
        let (masked, rest) = rest.split_at_mut(self.lanes * g.taps());
        let (taps, rest) = table(rest, g.taps(), |j| g.tap_at(j));
        let (windows, rest) = table(rest, g.pixels(), |p| g.window_at(p));
        let (rows, _) = table(rest, g.pixels(), |p| p);
        start.fill(0.0);
        if let Some(bias) = &bias {
            (0..g.outputs).for_each(|o| start[o] = kept(bias.row(0), bits(&bias_mask, 0), o));
        }
        for (first, width) in self.panels(g.outputs) {
            let panel = &mut weights[first * g.taps()..][..width * g.taps()];
            if first + width > g.outputs {
                panel.fill(0.0);
            }
            for v in (0..width.min(g.outputs - first)).step_by(self.lanes) {
                let outputs = self.lanes.min(g.outputs - first - v);
                for (row, o) in masked.chunks_exact_mut(g.taps()).zip(first + v..first + v + outputs) {
                    keep(w.row(o), bits(&mask, o), row);
                }
                (self.transpose)(masked, g.taps(), &mut panel[v..], width, outputs, g.taps());
            }
        }
        let (weights, start) = (&*weights, &*start);
        let panels = self.panels(g.outputs).count();
        c.pool.rows(y.split(), 1, c.workers, |n, mut y, own| {
            let (out, rest) = aligned(own).split_at_mut(padded * g.pixels());
            let src = self.image(x, n, &mut rest[..g.image()]);
            out.chunks_exact_mut(padded).for_each(|row| row.copy_from_slice(start));
            for (first, width) in self.panels(g.outputs) {
                let panel = &weights[first * g.taps()..][..width * g.taps()];
                let (out, pitch) = (&mut out[first..], padded);
                let next = share(bytemuck::cast_slice(y.row(0)), first / self.width, panels);
                self.add(Product { src, base: windows, steps: taps, panel, width, out, rows, pitch, next });
            }
            (self.transpose)(out, padded, y.row(0), g.pixels(), g.pixels(), g.outputs);
        });
    }

    pub(super) fn conv_dx_scratch(&self, d: &Dims) -> Scratch {
        let g = Geometry::new(d);
        let padded = self.padded(g.channels);
        Scratch {
            shared: LINE + padded * g.kernel_h * g.kernel_w * g.outputs + g.taps() + 2 * g.pixels() + g.outputs,
            worker: LINE + padded * g.height * g.width,
        }
    }

    pub(super) fn conv_dx(&self, c: &mut Call<'_>) {
        let g = Geometry::new(c.dims);
        let (dy, w, mask) = (c.f32(0), c.f32(1), c.bits_opt(2));
        let dx = c.f32_mut(3);
        let (padded, area, kernel) = (self.padded(g.channels), g.height * g.width, g.kernel_h * g.kernel_w);
        let (weights, rest) = aligned(c.shared).split_at_mut(padded * kernel * g.outputs);
        let (masked, rest) = rest.split_at_mut(g.taps());
        let (pixels, rest) = table(rest, g.pixels(), |p| p);
        let (corners, rest) = table(rest, g.pixels(), |p| g.window_at(p));
        let (steps, _) = table(rest, g.outputs, |o| o * g.pixels());
        // [panel][tap][o, c]
        for (first, width) in self.panels(g.channels) {
            let panels = &mut weights[first * kernel * g.outputs..][..width * kernel * g.outputs];
            if first + width > g.channels {
                panels.fill(0.0);
            }
            let channels = width.min(g.channels - first);
            for o in 0..g.outputs {
                keep(w.row(o), bits(&mask, o), masked);
                let (from, to) = (&masked[first * kernel..], &mut panels[o * width..]);
                (self.transpose)(from, kernel, to, g.outputs * width, channels, kernel);
            }
        }
        let weights = &*weights;
        let products = self.panels(g.channels).count() * kernel;
        c.pool.rows(dx.split(), 1, c.workers, |n, mut dx, own| {
            let out = &mut aligned(own)[..padded * area];
            out.fill(0.0);
            for (first, width) in self.panels(g.channels) {
                let panels = &weights[first * kernel * g.outputs..][..width * kernel * g.outputs];
                for (tap, panel) in panels.chunks_exact(width * g.outputs).enumerate() {
                    let corner = tap / g.kernel_w * g.width + tap % g.kernel_w;
                    let out = &mut out[corner * padded + first..];
                    let (src, base, rows, pitch) = (dy.row(n), pixels, corners, padded);
                    let next = share(bytemuck::cast_slice(dx.row(0)), first / self.width * kernel + tap, products);
                    self.add(Product { src, base, steps, panel, width, out, rows, pitch, next });
                }
            }
            (self.transpose)(out, padded, dx.row(0), area, area, g.channels);
        });
    }

    pub(super) fn conv_dw_scratch(&self, d: &Dims) -> Scratch {
        let (g, padded) = (Geometry::new(d), self.padded(d.size('o')));
        let blocks = blocks(d.size('n')).0;
        Scratch {
            shared: LINE + blocks.max(1) * padded * g.taps() + 2 * g.taps() + g.pixels(),
            worker: LINE + padded * g.pixels() + g.image(),
        }
    }

    pub(super) fn conv_dw(&self, c: &mut Call<'_>) {
        let g = Geometry::new(c.dims);
        let (dy, x) = (c.f32(0), Images::take(c, 1));
        let padded = self.padded(g.outputs);
        let (blocks, size) = blocks(dy.rows);
        let sum = padded * g.taps();
        let (partial, rest) = aligned(std::mem::take(&mut c.shared)).split_at_mut(blocks.max(1) * sum);
        let (taps, rest) = table(rest, g.taps(), |j| g.tap_at(j));
        let (rows, rest) = table(rest, g.taps(), |j| j);
        let (windows, _) = table(rest, g.pixels(), |p| g.window_at(p));
        // The block that stays empty without images is the result.
        partial[..sum].fill(0.0);
        let parts = MatMut::dense(&mut partial[..blocks * sum], blocks, sum);
        let panels = self.panels(g.outputs).count();
        c.pool.rows(parts.split(), 1, c.workers, |block, mut part, own| {
            let (turned, rest) = aligned(own).split_at_mut(padded * g.pixels());
            let part = part.row(0);
            part.fill(0.0);
            for n in block * size..dy.rows.min((block + 1) * size) {
                let src = self.image(x, n, &mut rest[..g.image()]);
                for (first, width) in self.panels(g.outputs) {
                    let outputs = width.min(g.outputs - first);
                    let panel = &mut turned[first * g.pixels()..][..width * g.pixels()];
                    if outputs < width {
                        panel.fill(0.0);
                    }
                    (self.transpose)(&dy.row(n)[first * g.pixels()..], g.pixels(), panel, width, outputs, g.pixels());
                    let (out, pitch) = (&mut part[first..], padded);
                    // The next image's dy; beyond the block it is another worker's.
                    let ahead = (n + 1).min(dy.rows - 1);
                    let next = share(bytemuck::cast_slice(dy.row(ahead)), first / self.width, panels);
                    self.add(Product { src, base: taps, steps: windows, panel, width, out, rows, pitch, next });
                }
            }
        });
        let (total, others) = partial.split_at_mut(sum);
        for other in others.chunks_exact(sum) {
            total.iter_mut().zip(other).for_each(|(t, v)| *t += v);
        }
        finish_dw::<f32>(c, |o, j| total[j * padded + o]);
    }

    /// Image `n` as floats: in place, or converted into `room`.
    fn image<'a>(&self, x: Images<'a>, n: usize, room: &'a mut [f32]) -> &'a [f32] {
        match x {
            Images::Floats(x) => Mat::row(&x, n),
            Images::Bytes(x) => {
                (self.widen)(x.row(n), room);
                room
            }
        }
    }
}

/// Effective weights of one output: zero, and not read into a sum, where the bit is clear.
fn keep(w: &[f32], mask: Option<&[u32]>, to: &mut [f32]) {
    let Some(mask) = mask else { return to.copy_from_slice(w) };
    for ((w, to), word) in w.chunks(32).zip(to.chunks_mut(32)).zip(mask) {
        for (at, (w, to)) in w.iter().zip(to).enumerate() {
            *to = select(*w, word >> at & 1);
        }
    }
}

/// Part `nth` of `count` about equal parts.
pub(super) fn share(bytes: &[u8], nth: usize, count: usize) -> &[u8] {
    &bytes[bytes.len() * nth / count..bytes.len() * (nth + 1) / count]
}

/// Number of blocks that `n` images are summed in, and images of a block.
fn blocks(n: usize) -> (usize, usize) {
    let size = n.div_ceil(BLOCKS).max(1);
    (n.div_ceil(size), size)
}

/// The part of a buffer from its first whole cache line on, shorter by at most a line.
fn aligned(buffer: &mut [f32]) -> &mut [f32] {
    let skip = buffer.as_ptr().align_offset(LINE * size_of::<f32>()).min(LINE);
    &mut buffer[skip..]
}

/// Cuts a table of `len` offsets from a buffer.
fn table(buffer: &mut [f32], len: usize, at: impl Fn(usize) -> usize) -> (&[u32], &mut [f32]) {
    let (table, rest) = buffer.split_at_mut(len);
    let table: &mut [u32] = bytemuck::cast_slice_mut(table);
    // Offsets lie inside arguments, whose sizes are u32.
    table.iter_mut().enumerate().for_each(|(i, slot)| *slot = at(i) as u32);
    (table, rest)
}
