//! Plots as inline SVG: curves by plotters, heat maps and bars by hand.
//!
//! Text is left to the browser's own fonts. Colours: Okabe and Ito's set for lines, viridis for heat maps.

use std::fmt::Display;
use std::ops::Range;

use anyhow::anyhow;
use plotters::prelude::*;

use super::page::{count, escape, short};

/// Safe for colour-blind readers on white; yellow is left out as too pale for a line.
const PALETTE: [RGBColor; 7] = [
    RGBColor(0x00, 0x72, 0xb2),
    RGBColor(0xd5, 0x5e, 0x00),
    RGBColor(0x00, 0x9e, 0x73),
    RGBColor(0xcc, 0x79, 0xa7),
    RGBColor(0x44, 0x44, 0x44),
    RGBColor(0xe6, 0x9f, 0x00),
    RGBColor(0x56, 0xb4, 0xe9),
];
/// Style of a grey line.
pub(super) const GREY: usize = 4;
/// Dashes in screen pixels for lines beyond the first, second, ... seven.
const DASHES: [&[u32]; 3] = [&[], &[8, 4], &[2, 3]];
/// Viridis at equal distances.
const VIRIDIS: [[f64; 3]; 9] = [
    [68.0, 1.0, 84.0],
    [71.0, 45.0, 123.0],
    [59.0, 82.0, 139.0],
    [44.0, 114.0, 142.0],
    [33.0, 145.0, 140.0],
    [40.0, 174.0, 128.0],
    [94.0, 201.0, 98.0],
    [173.0, 220.0, 48.0],
    [253.0, 231.0, 37.0],
];
pub(super) const INK: &str = "#1b1f24";
pub(super) const FAINT: &str = "#57606a";
const GRID: RGBColor = RGBColor(0xe4, 0xe8, 0xec);
/// plotters places things on whole pixels, so curves are drawn larger than they are shown.
const OVERSAMPLE: u32 = 2;

/// A curve.
pub(super) struct Line {
    /// Which colour and dashes.
    pub(super) style: usize,
    pub(super) points: Vec<[f64; 2]>,
    /// `[x, low, high]`, or nothing.
    pub(super) band: Vec<[f64; 3]>,
}

/// Curves with axes.
pub(super) struct Curves<'a> {
    /// For readers that do not see it.
    pub(super) title: &'a str,
    pub(super) x: &'a str,
    pub(super) y: &'a str,
    /// Size on screen.
    pub(super) size: [u32; 2],
    /// A dot at every point.
    pub(super) dots: bool,
    /// A vertical line here.
    pub(super) mark: Option<f64>,
    /// Range that is always shown.
    pub(super) y_range: Option<[f64; 2]>,
}

impl Curves<'_> {
    /// The plot, or `None` if no line has a point.
    ///
    /// # Errors
    /// Those of plotters.
    pub(super) fn draw(&self, lines: &[Line]) -> anyhow::Result<Option<String>> {
        if lines.iter().all(|line| line.points.is_empty()) {
            return Ok(None);
        }
        let [width, height] = self.size;
        let mut svg = String::new();
        self.draw_into(&mut svg, lines).map_err(|error| anyhow!("plot of {}: {error}", self.title))?;
        // plotters' root element has a fixed size and no name; ours has both, and fits the page.
        let inner = svg.split_once('>').map_or("", |(_, rest)| rest);
        let view = [width * OVERSAMPLE, height * OVERSAMPLE];
        Ok(Some(format!("{}{inner}</div>\n", open_scaled(self.title, f64::from(width), view))))
    }

    fn draw_into(&self, svg: &mut String, lines: &[Line]) -> Result<(), Box<dyn std::error::Error>> {
        let px = |screen: u32| screen * OVERSAMPLE;
        let root = SVGBackend::with_string(svg, (px(self.size[0]), px(self.size[1]))).into_drawing_area();
        let xs = lines.iter().flat_map(|line| line.points.iter().map(|point| point[0]));
        let ys = lines.iter().flat_map(|line| {
            let band = line.band.iter().flat_map(|[_, low, high]| [*low, *high]);
            line.points.iter().map(|point| point[1]).chain(band)
        });
        let (x_range, y_range) = (spread(xs, 0.02), spread(ys.chain(self.y_range.into_iter().flatten()), 0.06));
        let font = |size: u32, color: RGBColor| ("sans-serif", f64::from(px(size)) * 1.24).into_font().color(&color);
        let mut chart = ChartBuilder::on(&root)
            .margin_right(px(14))
            .margin_top(px(8))
            .x_label_area_size(px(38))
            .y_label_area_size(px(58))
            .build_cartesian_2d(x_range.clone(), y_range.clone())?;
        chart
            .configure_mesh()
            .light_line_style(TRANSPARENT)
            .bold_line_style(GRID.stroke_width(OVERSAMPLE))
            .axis_style(RGBColor(0x8c, 0x95, 0x9f).stroke_width(OVERSAMPLE))
            .x_labels(((x_range.end - x_range.start) as usize + 1).clamp(2, 8))
            .y_labels(6)
            .x_label_formatter(&|x| if x.fract() == 0.0 { count(*x) } else { String::new() })
            .y_label_formatter(&|y| short(if y.abs() < 1e-9 * (y_range.end - y_range.start) { 0.0 } else { *y }))
            .x_desc(self.x)
            .y_desc(self.y)
            .label_style(font(11, RGBColor(0x57, 0x60, 0x6a)))
            .axis_desc_style(font(12, RGBColor(0x1b, 0x1f, 0x24)))
            .draw()?;
        if let Some(x) = self.mark {
            let style = RGBColor(0x8c, 0x95, 0x9f).stroke_width(px(1));
            let ends = [(x, y_range.start), (x, y_range.end)];
            chart.draw_series(DashedLineSeries::new(ends, px(4), px(3), style))?;
        }
        for line in lines.iter().filter(|line| !line.band.is_empty()) {
            let top = line.band.iter().map(|[x, _, high]| (*x, *high));
            let bottom = line.band.iter().rev().map(|[x, low, _]| (*x, *low));
            let outline: Vec<(f64, f64)> = top.chain(bottom).collect();
            chart.draw_series([Polygon::new(outline, color(line.style).mix(0.16))])?;
        }
        for line in lines {
            let style = color(line.style).stroke_width(px(2));
            let points = line.points.iter().map(|[x, y]| (*x, *y));
            match dashes(line.style) {
                [on, off] => chart.draw_series(DashedLineSeries::new(points.clone(), px(*on), px(*off), style))?,
                _ => chart.draw_series(LineSeries::new(points.clone(), style))?,
            };
            if self.dots {
                chart.draw_series(points.map(|at| Circle::new(at, px(3), color(line.style).filled())))?;
            }
        }
        root.present()?;
        Ok(())
    }
}

/// Names of lines, with their colour and dashes. Empty for none.
pub(super) fn key<'a>(names: impl IntoIterator<Item = (usize, &'a str)>) -> String {
    let item = |(style, name): (usize, &str)| {
        let dash: Vec<String> = dashes(style).iter().map(u32::to_string).collect();
        format!(
            "<li><svg width=\"26\" height=\"10\" aria-hidden=\"true\"><line x1=\"1\" y1=\"5\" x2=\"25\" y2=\"5\" \
             stroke=\"{}\" stroke-width=\"3\" stroke-dasharray=\"{}\"/></svg>{}</li>",
            hex(color(style)),
            if dash.is_empty() { "none".into() } else { dash.join(" ") },
            escape(name)
        )
    };
    let items: String = names.into_iter().map(item).collect();
    format!("<ul class=\"key\">{items}</ul>\n")
}

/// A cell of a heat map.
#[derive(Clone, Default)]
pub(super) struct Cell {
    /// Place in the colour range, 0 to 1; grey if unknown.
    pub(super) shade: Option<f64>,
    /// Printed in the cell.
    pub(super) text: String,
    /// Shown while the pointer rests on it.
    pub(super) hint: String,
    pub(super) mark: Mark,
}

/// What is special about a cell.
#[derive(Clone, Copy, Default, PartialEq)]
pub(super) enum Mark {
    #[default]
    None,
    /// Framed.
    Chosen,
    /// Pale, with a dashed frame.
    ZeroShot,
    /// Not drawn.
    Absent,
}

/// A table of coloured cells.
pub(super) struct HeatMap<'a> {
    pub(super) title: &'a str,
    pub(super) x: &'a str,
    pub(super) y: &'a str,
    pub(super) columns: &'a [String],
    pub(super) rows: &'a [String],
    pub(super) cells: &'a [Vec<Cell>],
    /// Texts at both ends of the colour bar.
    pub(super) ends: [&'a str; 2],
}

impl HeatMap<'_> {
    /// The plot.
    pub(super) fn draw(&self) -> String {
        const CELL: [f64; 2] = [58.0, 32.0];
        let left = 32.0 + text_width(self.rows, 12.0);
        // Names stand on their columns at an angle, so the last one reaches beyond it.
        let names = text_width(self.columns, 12.0);
        let level = names <= CELL[0] - 4.0;
        let (rise, reach) = if level { (14.0, 0.0) } else { (names * 0.5 + 16.0, names * 0.87 - CELL[0] * 0.5 + 12.0) };
        let top = 22.0 + rise;
        let grid = [CELL[0] * self.columns.len() as f64, CELL[1] * self.rows.len() as f64];
        let width = left + grid[0].max(240.0) + f64::max(reach, 4.0);
        let height = top + grid[1] + 44.0;
        let mut svg = open(self.title, width, [width, height]);
        svg += &label([left + grid[0] / 2.0, 14.0], "middle", FAINT, "", self.x);
        let middle = top + grid[1] / 2.0;
        let turn = format!("transform=\"rotate(-90 12 {middle:.1})\"");
        svg += &label([12.0, middle + 4.0], "middle", FAINT, &turn, self.y);
        for (at, name) in self.columns.iter().enumerate() {
            let x = left + CELL[0] * (at as f64 + 0.5);
            let y = top - 6.0;
            let turn = format!("transform=\"rotate(-30 {x:.1} {y:.1})\"");
            let (anchor, extra) = if level { ("middle", "") } else { ("start", turn.as_str()) };
            svg += &label([x, y], anchor, INK, extra, &clipped(name));
        }
        for (at, (name, cells)) in self.rows.iter().zip(self.cells).enumerate() {
            let y = top + CELL[1] * at as f64;
            svg += &label([left - 8.0, y + CELL[1] / 2.0 + 4.0], "end", INK, "", &clipped(name));
            for (column, cell) in cells.iter().enumerate().filter(|(_, cell)| cell.mark != Mark::Absent) {
                svg += &drawn(cell, [left + CELL[0] * column as f64, y], CELL);
            }
        }
        svg += &self.bar([left, top + grid[1] + 14.0], grid[0].clamp(240.0, 320.0));
        svg + "</svg></div>\n"
    }

    fn bar(&self, at: [f64; 2], width: f64) -> String {
        const STEPS: usize = 32;
        let step = width / STEPS as f64;
        let block = |k: usize| {
            let fill = hex(viridis(k as f64 / (STEPS - 1) as f64));
            let x = at[0] + step * k as f64;
            format!("<rect x=\"{x:.1}\" y=\"{:.1}\" width=\"{:.1}\" height=\"8\" fill=\"{fill}\"/>", at[1], step + 0.5)
        };
        let blocks: String = (0..STEPS).map(block).collect();
        let [low, high] = self.ends;
        blocks
            + &label([at[0], at[1] + 22.0], "start", FAINT, "", low)
            + &label([at[0] + width, at[1] + 22.0], "end", FAINT, "", high)
    }
}

fn drawn(cell: &Cell, at: [f64; 2], size: [f64; 2]) -> String {
    let [x, y] = [at[0] + 1.0, at[1] + 1.0];
    let [width, height] = [size[0] - 2.0, size[1] - 2.0];
    let full = cell.shade.map_or(RGBColor(0xec, 0xef, 0xf2), viridis);
    let fill = if cell.mark == Mark::ZeroShot { paler(full) } else { full };
    let rect = |inset: f64, style: &str| {
        format!(
            "<rect x=\"{:.1}\" y=\"{:.1}\" width=\"{:.1}\" height=\"{:.1}\" rx=\"2\" {style}/>",
            x + inset,
            y + inset,
            width - 2.0 * inset,
            height - 2.0 * inset
        )
    };
    let mut svg = format!("<g><title>{}</title>", escape(&cell.hint));
    svg += &rect(0.0, &format!("fill=\"{}\"", hex(fill)));
    match cell.mark {
        Mark::Chosen => {
            svg += &rect(1.0, "fill=\"none\" stroke=\"#ffffff\" stroke-width=\"5\"");
            svg += &rect(0.0, "fill=\"none\" stroke=\"#000000\" stroke-width=\"2.5\"");
        }
        Mark::ZeroShot => {
            svg += &rect(0.5, "fill=\"none\" stroke=\"#6e7781\" stroke-dasharray=\"3 2\"");
        }
        Mark::None | Mark::Absent => {}
    }
    let ink = if luminance(fill) > 0.32 { "#000000" } else { "#ffffff" };
    let weight = if cell.mark == Mark::Chosen { "font-weight=\"700\"" } else { "" };
    svg += &label([x + width / 2.0, y + height / 2.0 + 4.0], "middle", ink, weight, &cell.text);
    svg + "</g>\n"
}

/// Name of a row, and per bar its style, length and text.
pub(super) type BarRow = (String, Vec<(usize, f64, String)>);

/// Bars from the left, in groups: one group per row, one bar per series.
pub(super) struct Bars<'a> {
    pub(super) title: &'a str,
    pub(super) rows: Vec<BarRow>,
    /// Length that fills the width; the longest bar if larger.
    pub(super) full: f64,
}

impl Bars<'_> {
    /// The plot.
    pub(super) fn draw(&self) -> String {
        const WIDTH: f64 = 540.0;
        const TEXT: f64 = 74.0;
        let names: Vec<String> = self.rows.iter().map(|(name, _)| name.clone()).collect();
        let left = 12.0 + text_width(&names, 12.0);
        let longest = self.rows.iter().flat_map(|(_, bars)| bars).map(|(_, length, _)| *length);
        let full = longest.fold(self.full, f64::max).max(f64::MIN_POSITIVE);
        let most = self.rows.iter().map(|(_, bars)| bars.len()).max().unwrap_or(0);
        let thick = if most > 1 { 11.0 } else { 16.0 };
        let step = most as f64 * thick + 9.0;
        let mut svg = open(self.title, WIDTH, [WIDTH, step * self.rows.len() as f64 + 4.0]);
        for (at, (name, bars)) in self.rows.iter().enumerate() {
            let top = 4.0 + step * at as f64;
            let middle = top + thick * most as f64 / 2.0;
            svg += &label([left - 8.0, middle + 4.0], "end", INK, "", &clipped(name));
            for (k, (style, length, text)) in bars.iter().enumerate() {
                let y = top + thick * k as f64;
                let long = (length.max(0.0) / full * (WIDTH - left - TEXT)).max(1.0);
                svg += &format!(
                    "<rect x=\"{left:.1}\" y=\"{y:.1}\" width=\"{long:.1}\" height=\"{:.1}\" fill=\"{}\"/>",
                    thick - 1.0,
                    hex(color(*style))
                );
                let text_y = y + thick / 2.0 + 3.5;
                svg += &label([left + long + 5.0, text_y], "start", INK, "font-size=\"11\"", text);
            }
        }
        svg + "</svg></div>\n"
    }
}

/// Name of a task or a bar, as long as a plot has room for.
pub(super) fn clipped(name: &str) -> String {
    const ROOM: usize = 26;
    if name.chars().count() <= ROOM {
        return name.to_owned();
    }
    // Both ends tell tasks of one family apart.
    let characters: Vec<char> = name.chars().collect();
    let (head, tail) = (&characters[..ROOM / 2], &characters[characters.len() - ROOM / 2 + 1..]);
    head.iter().chain(&['\u{2026}']).chain(tail).collect()
}

/// Width of the widest clipped name, guessed: there is no font to ask.
pub(super) fn text_width(names: &[String], size: f64) -> f64 {
    let longest = names.iter().map(|name| clipped(name).chars().count()).max().unwrap_or(0);
    longest as f64 * size * 0.58
}

/// Opens a plot: it shrinks a little on a narrow screen, then scrolls in its own box.
pub(super) fn open(title: &str, width: f64, view: [f64; 2]) -> String {
    open_scaled(title, width, view.map(|length| format!("{length:.0}")))
}

fn open_scaled(title: &str, width: f64, [w, h]: [impl Display; 2]) -> String {
    let least = width * 0.8;
    format!(
        "<div class=\"wide\"><svg viewBox=\"0 0 {w} {h}\" role=\"img\" \
         style=\"width:{width:.0}px;max-width:100%;min-width:{least:.0}px\"><title>{}</title>\n",
        escape(title)
    )
}

pub(super) fn label(at: [f64; 2], anchor: &str, ink: &str, extra: &str, text: &str) -> String {
    let size = if extra.contains("font-size") { "" } else { "font-size=\"12\" " };
    format!(
        "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"{anchor}\" fill=\"{ink}\" {size}{extra}>{}</text>\n",
        at[0],
        at[1],
        escape(text)
    )
}

/// Smallest and largest value with a margin, never empty: plotters steps through it and must get ahead.
fn spread(values: impl Iterator<Item = f64>, margin: f64) -> Range<f64> {
    let (low, high) = values.fold((f64::MAX, f64::MIN), |(low, high), value| (low.min(value), high.max(value)));
    let least = 1e-6 * low.abs().max(high.abs());
    let gap = if high - low > least { (high - low) * margin } else { f64::max(low.abs() * 0.05, 0.5) };
    low - gap..high + gap
}

pub(super) fn color(style: usize) -> RGBColor {
    PALETTE[style % PALETTE.len()]
}

fn dashes(style: usize) -> &'static [u32] {
    DASHES[style / PALETTE.len() % DASHES.len()]
}

pub(super) fn hex(RGBColor(r, g, b): RGBColor) -> String {
    format!("#{r:02x}{g:02x}{b:02x}")
}

/// Colour at a place from 0 to 1.
fn viridis(place: f64) -> RGBColor {
    let place = place.clamp(0.0, 1.0) * (VIRIDIS.len() - 1) as f64;
    let low = (place as usize).min(VIRIDIS.len() - 2);
    let part = place - low as f64;
    let mixed: [f64; 3] = std::array::from_fn(|k| VIRIDIS[low][k] * (1.0 - part) + VIRIDIS[low + 1][k] * part);
    let [r, g, b] = mixed.map(|channel| channel.round() as u8);
    RGBColor(r, g, b)
}

fn paler(RGBColor(r, g, b): RGBColor) -> RGBColor {
    let mix = |channel: u8| (0.35 * f64::from(channel) + 0.65 * 255.0) as u8;
    RGBColor(mix(r), mix(g), mix(b))
}

/// Relative luminance: 0 is black, 1 is white.
fn luminance(RGBColor(r, g, b): RGBColor) -> f64 {
    let linear = |channel: u8| (f64::from(channel) / 255.0).powf(2.2);
    0.2126 * linear(r) + 0.7152 * linear(g) + 0.0722 * linear(b)
}
