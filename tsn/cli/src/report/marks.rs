//! Means with their intervals on one axis, in groups: one group per row, one mark per series.

use super::page::{escape, short};
use super::plots::{FAINT, INK, clipped, color, hex, label, open, text_width};

/// A mean and its interval.
pub(super) struct Spot {
    /// Which colour.
    pub(super) style: usize,
    pub(super) place: f64,
    pub(super) interval: Option<[f64; 2]>,
    /// Printed to the right.
    pub(super) text: String,
}

/// A named group of marks.
pub(super) struct MarkRow {
    pub(super) name: String,
    pub(super) spots: Vec<Spot>,
}

/// Rows of marks over an axis that includes zero.
pub(super) struct Marks<'a> {
    pub(super) title: &'a str,
    pub(super) x: &'a str,
    pub(super) rows: Vec<MarkRow>,
}

impl Marks<'_> {
    /// The plot, or `None` without a mark.
    pub(super) fn draw(&self) -> Option<String> {
        const WIDTH: f64 = 540.0;
        const TEXT: f64 = 62.0;
        const STEP: f64 = 14.0;
        let spots = || self.rows.iter().flat_map(|row| &row.spots);
        spots().next()?;
        let ends = spots().flat_map(|spot| spot.interval.unwrap_or([spot.place; 2]));
        let [low, high] = ends.fold([0.0, 0.0], |[low, high], end| [f64::min(low, end), f64::max(high, end)]);
        let ticks = ticks(low, high);
        let (low, high) = (low.min(ticks[0]), high.max(ticks[ticks.len() - 1]));
        let names: Vec<String> = self.rows.iter().map(|row| row.name.clone()).collect();
        let left = 14.0 + text_width(&names, 12.0);
        let x = |value: f64| left + (value - low) / (high - low) * (WIDTH - left - TEXT);
        let most = self.rows.iter().map(|row| row.spots.len()).max().unwrap_or(0);
        let height = (most as f64 * STEP + 10.0) * self.rows.len() as f64;
        let mut svg = open(self.title, WIDTH, [WIDTH, height + 44.0]);
        for tick in &ticks {
            let (at, ink) = (x(*tick), if *tick == 0.0 { "#8c959f" } else { "#e4e8ec" });
            svg += &format!(
                "<line x1=\"{at:.1}\" y1=\"0\" x2=\"{at:.1}\" y2=\"{height:.1}\" stroke=\"{ink}\" stroke-width=\"1\"/>\n"
            );
            svg += &label([at, height + 16.0], "middle", FAINT, "font-size=\"11\"", &short(*tick));
        }
        svg += &label([(x(low) + x(high)) / 2.0, height + 36.0], "middle", INK, "", self.x);
        for (at, row) in self.rows.iter().enumerate() {
            let top = 5.0 + (most as f64 * STEP + 10.0) * at as f64;
            let middle = top + most as f64 * STEP / 2.0;
            svg += &label([left - 10.0, middle + 4.0], "end", INK, "", &clipped(&row.name));
            for (k, spot) in row.spots.iter().enumerate() {
                svg += &drawn(spot, &x, top + STEP * (k as f64 + 0.5), WIDTH - TEXT);
            }
        }
        Some(svg + "</svg></div>\n")
    }
}

fn drawn(spot: &Spot, x: &dyn Fn(f64) -> f64, y: f64, right: f64) -> String {
    let (ink, at) = (hex(color(spot.style)), x(spot.place));
    let bar = spot.interval.map_or_else(String::new, |[low, high]| {
        format!(
            "<line x1=\"{:.1}\" y1=\"{y:.1}\" x2=\"{:.1}\" y2=\"{y:.1}\" stroke=\"{ink}\" stroke-width=\"2\"/>",
            x(low),
            x(high)
        )
    });
    let text = escape(&spot.text);
    format!("<g><title>{text}</title>{bar}<circle cx=\"{at:.1}\" cy=\"{y:.1}\" r=\"4\" fill=\"{ink}\"/>\n")
        + &label([right + 8.0, y + 3.5], "start", &ink, "font-size=\"11\"", &spot.text)
        + "</g>\n"
}

/// Three to eight round numbers that reach over the range; the range holds zero.
fn ticks(low: f64, high: f64) -> Vec<f64> {
    let range = if high > low { high - low } else { 1.0 };
    let size = 10f64.powf((range / 5.0).log10().floor());
    let step = [1.0, 2.0, 5.0, 10.0].map(|times| times * size).into_iter().find(|step| range / step <= 6.0);
    let step = step.unwrap_or(10.0 * size);
    let (first, last) = ((low / step).floor(), (high / step).ceil().max((low / step).floor() + 1.0));
    (0..=(last - first) as usize).map(|at| (first + at as f64) * step).collect()
}

#[cfg(test)]
mod tests {
    use super::ticks;

    #[test]
    fn ticks_are_round_and_reach_over_the_range() {
        assert_eq!(ticks(0.0, 1.0), [0.0, 0.2, 0.4, 0.6000000000000001, 0.8, 1.0]);
        assert_eq!(ticks(-13.9, 0.0), [-15.0, -10.0, -5.0, 0.0]);
        assert_eq!(ticks(0.0, 0.0), [0.0, 0.2]);
        for (low, high) in [(-1e90, 1e99), (0.0, 1e-12), (-3.0, 1700.0)] {
            let all = ticks(low, high);
            assert!(
                (2..=9).contains(&all.len()) && all[0] <= low && all[all.len() - 1] >= high * (1.0 - 1e-12),
                "{all:?}"
            );
        }
    }
}
