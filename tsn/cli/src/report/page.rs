//! The frame of the page, and how texts, numbers and tables look in it.

/// What the columns and marks mean.
pub(super) const GLOSSARY: &str = r#"<section id="glossary"><h2>Definitions</h2>
<p>P[i][j] is the mean score on task j after learning task i. Tasks are numbered from 0, as in the run directory.</p>
<dl class="terms">
<dt>ACC</dt><dd>Mean of the last row of P, the measure &#8220;final&#8221;: score over all tasks at the end. In units of the score; higher is better.</dd>
<dt>BWT</dt><dd>Mean over all tasks but the last of P[last][j] &#8722; P[j][j]. Zero is no forgetting, negative is forgetting.</dd>
<dt>Forgetting</dt><dd>Mean over all tasks but the last of the best score since the task was learned, minus the final one.</dd>
<dt>Normalised score</dt><dd>(final score &#8722; random) / (trained alone &#8722; random), mean over tasks. 100 % is as good as a model
trained on that task alone.</dd>
<dt>Density</dt><dd>Share of the maskable weights in a task's mask. Newly claimed: share that no earlier task held.
Occupied: share of the copy held by all tasks so far.</dd>
<dt>Memory factor</dt><dd>Bytes that must outlive training over the bytes of one dense model, without and with the time embedding.</dd>
<dt>A, A&#8242;, A&#8243;</dt><dd>Action error of a new task under an earlier subnetwork. A&#8242; is scaled between the source's own error (0) and
chance (1); A&#8243; = A / chance: 0 is perfect, 1 is chance, above 1 is worse than chance.</dd>
<dt>L, L/E</dt><dd>Symmetric KL divergence of latents in nats, and per latent dimension.</dd>
<dt>Bit identical</dt><dd>Weights, norms, outputs and scores of every task are, bit for bit, those of when it was learned.
Dense strategies do not promise it.</dd>
<dt>Final, best, when learned</dt><dd>P[last][j], the largest P[i][j] since task j was learned, and P[j][j].</dd>
<dt>FWT</dt><dd>Mean over all tasks but the first of P[j&#8722;1][j] minus the score of an untrained model.</dd>
<dt>Success rate</dt><dd>Share of episodes that accomplish the task, where its environment defines that.</dd>
<dt>Interquartile mean</dt><dd>Mean of the middle half of the values of all runs and tasks.</dd>
<dt>&#177; and [ ]</dt><dd>Standard deviation over seeds, and the 95 % bootstrap interval (2000 resamples, the same every time).
Over seeds, but for the section on episodes.</dd>
</dl></section>
"#;

const STYLE: &str = "
*{box-sizing:border-box}
html{-webkit-text-size-adjust:100%}
body{margin:0;background:#fff;color:#1b1f24;font:15px/1.5 system-ui,-apple-system,'Segoe UI',Roboto,sans-serif}
main{max-width:1180px;margin:0 auto;padding:24px 20px 48px}
h1{font-size:26px;line-height:1.25;margin:0 0 14px;overflow-wrap:anywhere}
h2{font-size:20px;margin:38px 0 10px;padding-bottom:6px;border-bottom:2px solid #d0d7de;overflow-wrap:anywhere}
h3{font-size:15px;margin:0 0 6px}
p{margin:6px 0 10px;max-width:860px}
a{color:#0757a8}
.muted,figcaption,small{color:#57606a}
small{font-size:12px;white-space:nowrap}
nav{margin:14px 0 0}
nav a{margin-right:16px;display:inline-block}
dl.facts{display:grid;grid-template-columns:repeat(auto-fit,minmax(200px,1fr));gap:10px 24px;margin:0;padding:14px 16px;
background:#f6f8fa;border:1px solid #d0d7de;border-radius:8px}
dl.facts dt{font-size:12px;color:#57606a}
dl.facts dd{margin:0;font-weight:600;overflow-wrap:anywhere}
dl.terms{display:grid;grid-template-columns:150px 1fr;gap:6px 18px;max-width:1000px}
dl.terms dt{font-weight:600}
dl.terms dd{margin:0}
.note{margin:10px 0;padding:8px 14px;background:#fff8e5;border:1px solid #e3c46b;border-radius:6px;max-width:none}
.note ul{margin:0;padding-left:18px}
.wide{overflow-x:auto}
table{border-collapse:collapse;font-variant-numeric:tabular-nums;font-size:14px;min-width:100%}
th,td{padding:6px 10px;border-bottom:1px solid #e4e8ec;text-align:right;vertical-align:top;line-height:1.35}
th{font-size:12px;font-weight:600;color:#57606a;vertical-align:bottom;background:#f6f8fa}
th:first-child,td:first-child,.left{text-align:left}
td:first-child{font-weight:600;white-space:nowrap}
td{white-space:nowrap}
.texts table{min-width:0}
.texts th,.texts td{text-align:left;padding-right:26px}
#summary th,#summary td{padding:6px 7px}
#summary td:first-child{white-space:normal;min-width:110px}
.named td:nth-child(2),.named th:nth-child(2){text-align:left;white-space:normal}
.yes{color:#00664a;font-weight:600}
.no{color:#a83a00;font-weight:600}
details.run{margin:14px 0;border:1px solid #d0d7de;border-radius:8px}
details.run{min-width:0}
details.run>summary{padding:10px 16px;background:#f6f8fa;border-radius:8px;cursor:pointer;font-weight:600;overflow-wrap:anywhere}
details.run>div{padding:14px 16px}
details.more{margin:8px 0}
details.more>summary{cursor:pointer;color:#0757a8}
.grid{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,460px),1fr));gap:26px 30px;align-items:start}
.grid.small{grid-template-columns:repeat(auto-fill,minmax(min(100%,330px),1fr))}
.grid>*{min-width:0}
.block{margin:24px 0}
details.run>div>.block:first-child{margin-top:4px}
section>.grid{margin:10px 0 22px}
figure{margin:0}
.full{grid-column:1/-1}
figcaption{font-size:13px;margin-top:4px;max-width:860px}
svg{display:block;height:auto}
svg text{font-family:system-ui,-apple-system,'Segoe UI',Roboto,sans-serif;font-variant-numeric:tabular-nums}
.key{display:flex;flex-wrap:wrap;gap:2px 16px;font-size:13px;margin:2px 0 6px;padding:0;list-style:none}
.key li{display:flex;align-items:center;gap:6px;overflow-wrap:anywhere}
.key svg{flex:none}
@media(max-width:600px){main{padding:16px 12px 32px}h1{font-size:21px}details.run>div{padding:10px}
dl.facts{grid-template-columns:repeat(auto-fit,minmax(130px,1fr))}
dl.terms{grid-template-columns:1fr;gap:0}dl.terms dd{margin-bottom:8px}}
@media print{details.run{border:0}.wide{overflow:visible}}
";

/// A whole page. `title` is plain text, `body` is markup.
pub(crate) fn document(title: &str, body: &str) -> String {
    format!(
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\"/>\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\"/>\n<title>{}</title>\n\
         <style>{STYLE}</style>\n</head>\n<body>\n<main>\n{body}</main>\n</body>\n</html>\n",
        escape(title)
    )
}

/// Text for element content and quoted attributes; control characters, which no markup may hold, become spaces.
pub(crate) fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => out += "&amp;",
            '<' => out += "&lt;",
            '>' => out += "&gt;",
            '"' => out += "&quot;",
            '\'' => out += "&#39;",
            c if c.is_control() || matches!(c, '\u{fffe}' | '\u{ffff}') => out.push(' '),
            c => out.push(c),
        }
    }
    out
}

/// A table; cells are markup, the head is plain text.
pub(crate) fn table(head: &[&str], rows: &[Vec<String>]) -> String {
    let head: String = head.iter().map(|title| format!("<th>{}</th>", escape(title))).collect();
    let row = |cells: &Vec<String>| {
        let cells: String = cells.iter().map(|cell| format!("<td>{cell}</td>")).collect();
        format!("<tr>{cells}</tr>\n")
    };
    let rows: String = rows.iter().map(row).collect();
    format!("<div class=\"wide\"><table>\n<thead><tr>{head}</tr></thead>\n<tbody>\n{rows}</tbody></table></div>\n")
}

/// A figure with a title, a plot and a line below it; title and caption are plain text.
pub(super) fn figure(title: &str, plot: &str, caption: &str) -> String {
    let caption = match caption {
        "" => String::new(),
        caption => format!("<figcaption>{}</figcaption>", escape(caption)),
    };
    format!("<figure><h3>{}</h3>{plot}{caption}</figure>\n", escape(title))
}

/// A visible remark, in plain text; nothing if there is none.
pub(super) fn notes(notes: &[String]) -> String {
    let items: String = notes.iter().map(|note| format!("<li>{}</li>", escape(note))).collect();
    if items.is_empty() { items } else { format!("<div class=\"note\"><ul>{items}</ul></div>\n") }
}

/// What stands for an unknown value.
pub(super) const UNKNOWN: &str = "\u{2013}";

/// Formatted, or a dash.
pub(super) fn or_dash(value: Option<f64>, format: impl Fn(f64) -> String) -> String {
    value.map_or_else(|| UNKNOWN.into(), format)
}

/// About four significant digits, with a true minus.
pub(super) fn number(value: f64) -> String {
    digits(value, [0, 1, 2, 3])
}

/// About three significant digits: for cells and axes.
pub(super) fn short(value: f64) -> String {
    digits(value, [0, 0, 1, 2])
}

/// A count, or a mean of counts.
pub(super) fn count(value: f64) -> String {
    if value.fract() == 0.0 && value.abs() < 1e15 {
        return signed(value, |value| grouped(value as u64));
    }
    number(value)
}

/// A fraction in percent.
pub(super) fn percent(fraction: f64) -> String {
    let decimals = if fraction.abs() < 0.1 { 2 } else { 1 };
    signed(100.0 * fraction, |value| format!("{value:.decimals$}")) + " %"
}

/// Seconds in a readable unit.
pub(super) fn duration(seconds: f64) -> String {
    match seconds {
        s if s < 120.0 => format!("{} s", short(s)),
        s if s < 7200.0 => format!("{:.1} min", s / 60.0),
        s => format!("{:.1} h", s / 3600.0),
    }
}

/// Bytes in decimal units.
pub(super) fn bytes(count: f64) -> String {
    match count {
        b if b < 1e3 => format!("{b:.0} B"),
        b if b < 1e6 => format!("{} kB", short(b / 1e3)),
        b if b < 1e9 => format!("{} MB", short(b / 1e6)),
        b => format!("{} GB", short(b / 1e9)),
    }
}

/// Decimals for sizes from 1000, from 100, from 10, and below; very small and very large numbers get an exponent.
fn digits(value: f64, decimals: [usize; 4]) -> String {
    signed(value, |value| match value {
        0.0 => "0".into(),
        v if !(1e-3..1e7).contains(&v) => format!("{v:.2e}"),
        v if v >= 999.5 => grouped(v.round() as u64),
        v if v >= 100.0 => format!("{v:.*}", decimals[1]),
        v if v >= 10.0 => format!("{v:.*}", decimals[2]),
        v if v < 0.1 => format!("{v:.*}", decimals[3] + 1),
        v => format!("{v:.*}", decimals[3]),
    })
}

fn signed(value: f64, format: impl Fn(f64) -> String) -> String {
    let text = format(value.abs());
    let zero = !text.bytes().any(|byte| (b'1'..=b'9').contains(&byte));
    if value < 0.0 && !zero { format!("\u{2212}{text}") } else { text }
}

/// Thousands apart, by a narrow space that does not break.
fn grouped(value: u64) -> String {
    let text = value.to_string();
    let mut out = String::new();
    for (at, digit) in text.chars().enumerate() {
        if at > 0 && (text.len() - at).is_multiple_of(3) {
            out.push('\u{202f}');
        }
        out.push(digit);
    }
    out
}
