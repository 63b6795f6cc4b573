//! One self-contained page: rates over arithmetic intensity under the measured roofs, and a table of all rows.

use super::ceilings::{Ceilings, Compute};
use super::fingerprint::Fingerprint;
use super::output::time;
use super::row::{Outcome, Row};
use crate::report::page::{document, escape, table};
use anyhow::{Result, anyhow};
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};
use std::ops::Range;

/// Safe for colour-blind readers on white.
const COLORS: [RGBColor; 7] = [
    RGBColor(0x00, 0x72, 0xb2),
    RGBColor(0xd5, 0x5e, 0x00),
    RGBColor(0x00, 0x9e, 0x73),
    RGBColor(0xcc, 0x79, 0xa7),
    RGBColor(0x44, 0x44, 0x44),
    RGBColor(0xe6, 0x9f, 0x00),
    RGBColor(0x56, 0xb4, 0xe9),
];
const INK: RGBColor = RGBColor(0x1b, 0x1f, 0x24);
const FAINT: RGBColor = RGBColor(0x57, 0x60, 0x6a);
const GRID: RGBColor = RGBColor(0xe4, 0xe8, 0xec);
const SIZE: (u32, u32) = (1160, 640);
/// Where a point's number may stand, in pixels from the point; the first of them if nothing is free.
const PLACES: [(i32, i32); 10] =
    [(8, -7), (8, 6), (-22, -7), (-22, 6), (8, -20), (8, 19), (-22, -20), (-22, 19), (24, -7), (24, 6)];
/// A white rim keeps texts readable across lines.
const STYLE: &str = "<style>.op{white-space:nowrap;margin-right:16px}.dot{display:inline-block;width:10px;height:10px;
border-radius:5px;margin-right:6px}svg text{paint-order:stroke;stroke:#fff;stroke-width:4px;stroke-linejoin:round}</style>\n";

/// The page.
///
/// # Errors
/// Those of plotters.
pub(crate) fn page(fingerprint: &Fingerprint, outcomes: &[Outcome]) -> Result<String> {
    let rows: Vec<&Row> = outcomes
        .iter()
        .filter_map(|outcome| match outcome {
            Outcome::Done(row) => Some(&**row),
            Outcome::Failed(_) => None,
        })
        .collect();
    let mut ops: Vec<&str> = Vec::new();
    rows.iter().for_each(|row| {
        if !ops.contains(&row.op.as_str()) {
            ops.push(&row.op)
        }
    });
    let machine = fingerprint.text().lines().map(escape).collect::<Vec<_>>().join("<br/>");
    let mut body = format!("{STYLE}<h1>Roofline</h1>\n<p>{machine}</p>\n");
    body += "<p>Every point is a row of the table below: operations on kept weights per second, over operations per byte \
        that must move at least. Lines are this machine's limits, measured by the same run: multiply-adds in registers, \
        and reading from each level of memory. A point under the level that holds its data can go up by moving less or \
        computing faster; one at the top is done.</p>\n";
    for ceilings in &fingerprint.ceilings {
        let points: Vec<(usize, &Row)> = rows.iter().enumerate().map(|(at, row)| (at + 1, *row)).collect();
        let points: Vec<_> = points.into_iter().filter(|(_, r)| r.threads == ceilings.threads && plotted(r)).collect();
        body += &format!("<section><h2>{}</h2>\n", escape(&of(ceilings)));
        body += &key(&ops);
        body += &chart(ceilings, &points, &ops)?;
        body += "</section>\n";
    }
    body += &listing(&rows, outcomes);
    Ok(document("Roofline", &body))
}

/// Whose ceilings they are.
fn of(ceilings: &Ceilings) -> String {
    match (ceilings.device.as_str(), ceilings.threads) {
        ("cpu", 1) => "1 worker".to_owned(),
        ("cpu", n) => format!("{n} workers"),
        (adapter, _) => adapter.to_owned(),
    }
}

fn plotted(row: &Row) -> bool {
    row.gflops_effective > 0.0 && row.flop_per_byte > 0.0
}

fn color(ops: &[&str], op: &str) -> RGBColor {
    COLORS[ops.iter().position(|name| *name == op).unwrap_or(0) % COLORS.len()]
}

fn key(ops: &[&str]) -> String {
    let item = |op: &&str| {
        let RGBColor(r, g, b) = color(ops, op);
        format!(
            "<span class=\"op\"><span class=\"dot\" style=\"background:#{r:02x}{g:02x}{b:02x}\"></span>{}</span> ",
            escape(op)
        )
    };
    format!("<p>{}</p>\n", ops.iter().map(item).collect::<String>())
}

/// The compute roofs for the element types of the points, and the highest.
fn roofs<'a>(ceilings: &'a Ceilings, points: &[(usize, &Row)]) -> (Vec<&'a Compute>, f64) {
    let shown = |c: &&Compute| c.dtype == "f32" || points.iter().any(|(_, row)| row.dtype == c.dtype);
    let roofs: Vec<_> = ceilings.compute.iter().filter(shown).collect();
    let highest = roofs.iter().map(|c| c.gflops).fold(0.0, f64::max);
    (roofs, highest)
}

/// Room for all points and for the corner of every roof.
fn ranges(ceilings: &Ceilings, points: &[(usize, &Row)]) -> (Range<f64>, Range<f64>) {
    let (roofs, peak) = roofs(ceilings, points);
    let corner = |gbps: f64| peak / gbps.max(1e-9);
    let corners = ceilings.levels.iter().map(|level| corner(level.read_gbps));
    let (mut low, mut high) = (0.25f64, 64.0f64);
    for x in points.iter().map(|(_, row)| row.flop_per_byte).chain(corners) {
        (low, high) = (low.min(x / 1.5), high.max(x * 2.0));
    }
    let slow = roofs.iter().map(|c| c.gflops).fold(peak, f64::min) / 4.0;
    let floor = points.iter().map(|(_, row)| row.gflops_effective / 1.6).fold(slow, f64::min);
    (low..high, floor.max(1e-4)..peak * 2.0)
}

fn chart(ceilings: &Ceilings, points: &[(usize, &Row)], ops: &[&str]) -> Result<String> {
    let mut svg = String::new();
    draw(&mut svg, ceilings, points, ops).map_err(|error| anyhow!("roofline: {error}"))?;
    // plotters' root has a fixed size and no name; ours has a name and fits the page.
    let inner = svg.split_once('>').map_or("", |(_, rest)| rest);
    let (w, h) = SIZE;
    Ok(format!(
        "<div class=\"wide\"><svg viewBox=\"0 0 {w} {h}\" role=\"img\" style=\"width:{w}px;max-width:100%;min-width:760px\">\
         <title>Roofline, {}</title>\n{inner}</div>\n",
        escape(&of(ceilings))
    ))
}

fn draw(
    svg: &mut String,
    ceilings: &Ceilings,
    points: &[(usize, &Row)],
    ops: &[&str],
) -> Result<(), Box<dyn std::error::Error>> {
    let root = SVGBackend::with_string(svg, SIZE).into_drawing_area();
    let (xs, ys) = ranges(ceilings, points);
    let font = |size: f64, ink: RGBColor| ("sans-serif", size).into_font().color(&ink);
    let mut chart = ChartBuilder::on(&root)
        .margin(14)
        .x_label_area_size(44)
        .y_label_area_size(64)
        .build_cartesian_2d(xs.clone().log_scale(), ys.clone().log_scale())?;
    chart
        .configure_mesh()
        .light_line_style(TRANSPARENT)
        .bold_line_style(GRID)
        .axis_style(FAINT)
        .x_label_formatter(&|x| plain(*x))
        .y_label_formatter(&|y| plain(*y))
        .x_desc("operations per byte")
        .y_desc("GFLOP/s on kept weights")
        .label_style(font(14.0, FAINT))
        .axis_desc_style(font(15.0, INK))
        .draw()?;
    let (roofs, peak) = roofs(ceilings, points);
    let mut taken = Taken::default();
    points.iter().for_each(|(_, row)| {
        let (x, y) = chart.backend_coord(&(row.flop_per_byte, row.gflops_effective));
        taken.add([x - 5, y - 5, 10, 10]);
    });
    for compute in roofs {
        let from = ceilings.levels.iter().map(|l| compute.gflops / l.read_gbps.max(1e-9)).fold(xs.end, f64::min);
        let ends = [(from.max(xs.start), compute.gflops), (xs.end, compute.gflops)];
        chart.draw_series(LineSeries::new(ends, INK.stroke_width(2)))?;
        let dtype = if compute.dtype == "f32" { String::new() } else { format!(" {}", compute.dtype) };
        let text = format!("{}{dtype} {:.0} GFLOP/s", compute.isa, compute.gflops);
        // Two instruction sets may reach the same: names step to the left.
        let (x, y) = chart.backend_coord(&(xs.end, compute.gflops));
        let wide = width(&text);
        let left = taken.first((0..5).map(|step| [x - 4 - wide - step * (wide + 16), y - 17, wide, 14]));
        let style = font(14.0, INK).pos(Pos::new(HPos::Left, VPos::Top));
        root.draw(&Text::new(text, (left[0], left[1]), style))?;
    }
    for (nth, level) in ceilings.levels.iter().enumerate() {
        let (bandwidth, left) = (level.read_gbps.max(1e-9), xs.start.max(ys.start / level.read_gbps.max(1e-9)));
        let right = (peak / bandwidth).min(xs.end);
        let ends = [(left, left * bandwidth), (right, right * bandwidth)];
        chart.draw_series(LineSeries::new(ends, FAINT.stroke_width(2)))?;
        let text = format!("{} {:.0} GB/s", level.name, level.read_gbps);
        // Names step to the right, so that close roofs do not hide each other's.
        let places = (0..20).map(|step| {
            let share = (0.04 + 0.16 * nth as f64 + 0.045 * f64::from(step)).fract();
            let at = left * (right / left).powf(share);
            let (x, y) = chart.backend_coord(&(at, at * bandwidth));
            [x + 8, y + 2, width(&text), 14]
        });
        let [x, y, ..] = taken.first(places);
        let style = font(14.0, FAINT).pos(Pos::new(HPos::Left, VPos::Top));
        root.draw(&Text::new(text, (x, y), style))?;
    }
    for (number, row) in points {
        let at = (row.flop_per_byte, row.gflops_effective);
        let ink = color(ops, &row.op);
        // Hollow where the caches were cold.
        let style = if row.cache == "cold" { ink.stroke_width(2) } else { ink.filled() };
        let (x, y) = chart.backend_coord(&at);
        let [u, v, ..] = taken.first(PLACES.into_iter().map(|(dx, dy)| [x + dx, y + dy, 14, 11]));
        let number = Text::new(number.to_string(), (u - x, v - y), font(13.0, ink));
        chart.draw_series([EmptyElement::at(at) + Circle::new((0, 0), 5, style) + number])?;
    }
    root.present()?;
    Ok(())
}

/// Pixels that a text of 14 points takes, rather too many.
fn width(text: &str) -> i32 {
    7 * text.len() as i32
}

/// Boxes that hold something already: left, top, width, height.
#[derive(Default)]
struct Taken(Vec<[i32; 4]>);

impl Taken {
    fn add(&mut self, at: [i32; 4]) {
        self.0.push(at);
    }

    /// The first box that hides nothing, or the first of all; it is taken from now on.
    fn first(&mut self, places: impl Iterator<Item = [i32; 4]> + Clone) -> [i32; 4] {
        let apart = |a: &[i32; 4], b: &[i32; 4]| {
            a[0] + a[2] <= b[0] || b[0] + b[2] <= a[0] || a[1] + a[3] <= b[1] || b[1] + b[3] <= a[1]
        };
        let free = places.clone().find(|place| self.0.iter().all(|other| apart(place, other)));
        let place = free.or_else(|| places.clone().next()).unwrap_or_default();
        self.add(place);
        place
    }
}

/// A power of ten or a number between, short.
fn plain(x: f64) -> String {
    if x >= 1.0 { format!("{x:.0}") } else { format!("{}", (x * 1e4).round() / 1e4) }
}

fn listing(rows: &[&Row], outcomes: &[Outcome]) -> String {
    let head = [
        "case",
        "#",
        "median",
        "p20",
        "p80",
        "sd",
        "GFLOP/s dense",
        "kept",
        "GB/s",
        "of peak",
        "of memory",
        "flop/byte",
        "error",
        "tolerance",
        "checked",
    ];
    let cells: Vec<Vec<String>> = rows
        .iter()
        .enumerate()
        .map(|(at, r)| {
            let number = |x: Option<f64>| x.map_or_else(|| "-".to_owned(), |x| format!("{x:.1e}"));
            vec![
                escape(&r.id),
                (at + 1).to_string(),
                time(r.median.estimate),
                time(r.p20_ns),
                time(r.p80_ns),
                format!("{:.1} %", 100.0 * r.rel_stdev),
                format!("{:.1}", r.gflops_dense),
                format!("{:.1}", r.gflops_effective),
                format!("{:.1}", r.gbps),
                format!("{:.0} %", r.percent_compute),
                format!("{:.0} % {}", r.percent_bandwidth, r.bandwidth_level),
                format!("{:.2}", r.flop_per_byte),
                number(r.error),
                number(r.tolerance),
                escape(&r.verified),
            ]
        })
        .collect();
    let failed: Vec<Vec<String>> = outcomes
        .iter()
        .filter_map(|outcome| match outcome {
            Outcome::Failed(failed) => Some(vec![escape(&failed.id), escape(&failed.why)]),
            Outcome::Done(_) => None,
        })
        .collect();
    let mut text = format!("<section><h2>Rows</h2>\n{}</section>\n", table(&head, &cells));
    if !failed.is_empty() {
        text += &format!("<section><h2>Failed</h2>\n{}</section>\n", table(&["case", "why"], &failed));
    }
    text + "<p class=\"muted\">Hollow points had cold caches. Rows without arithmetic have no point.</p>\n"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_give_way_to_each_other() {
        let mut taken = Taken::default();
        let places = [[0, 0, 10, 10], [5, 5, 10, 10], [20, 0, 10, 10]];
        let mut next = || taken.first(places.into_iter());
        assert_eq!([next(), next()], [places[0], places[2]]);
        // Nothing is left.
        assert_eq!(next(), places[0]);
    }
}
