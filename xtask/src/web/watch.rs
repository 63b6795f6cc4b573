//! The page in a browser, used as a person uses it: every task of the world for ten seconds of simulated time.

use super::browser::Browser;
use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;
use std::path::Path;
use std::thread::sleep;
use std::time::{Duration, Instant};

/// Simulated seconds that the pole has to stay up in each world.
const UPRIGHT_S: f64 = 10.0;
/// Patience with a slow machine, per world.
const PATIENCE: Duration = Duration::from_secs(120);

/// What the page shows, by the ids of its elements.
struct Shown(Value);

/// Plays the page and leaves a picture of every world beside it.
pub(crate) fn run(index: &Path) -> Result<()> {
    let browser = Browser::open(&[])?;
    browser.load(index)?;
    let start = wait(&browser, "the agent to start", |shown| !shown.text("state").is_empty())?;
    ensure!(start.text("state") == "running", "{}", start.text("problem"));
    browser.click("[data-speed='5']")?;
    let worlds = look(&browser)?.0["worlds"].clone();
    let worlds: Vec<&str> = worlds.as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    ensure!(worlds.len() >= 2, "the page has the worlds {worlds:?}, expected at least 2");
    // Back to the first one at the end: the start is no change.
    for at in (1..worlds.len()).chain([0]) {
        let (name, falls) = (worlds[at], look(&browser)?.number("falls")?);
        browser.click(&format!("#worlds button:nth-child({})", at + 1))?;
        let shown = wait(&browser, "ten seconds of simulated time", |shown| {
            // Until the next frame the page shows the world before.
            let upright = shown.text("world") == name && shown.number("upright").is_ok_and(|s| s >= UPRIGHT_S);
            upright || shown.number("falls").is_ok_and(|now| now > falls) || shown.text("state") != "running"
        })?;
        let played = shown.text("routed");
        ensure!(shown.text("state") == "running", "{name}: {}", shown.text("problem"));
        ensure!(shown.number("falls")? == falls, "{name}: the pole fell within {UPRIGHT_S} s");
        ensure!(played == name, "{name}: the router names {played}");
        let picture = index.with_file_name(format!("{name}.png"));
        browser.picture(&picture)?;
        println!(
            "{name}: upright {}, noticed after {}, decision {}; {}",
            shown.text("upright"),
            shown.text("noticed"),
            shown.text("decision"),
            picture.display()
        );
    }
    let complaints = browser.complaints()?;
    ensure!(complaints.is_empty(), "the browser complains: {}", complaints.join("; "));
    Ok(())
}

fn wait(browser: &Browser, what: &str, done: impl Fn(&Shown) -> bool) -> Result<Shown> {
    let begin = Instant::now();
    loop {
        let shown = look(browser)?;
        if done(&shown) {
            return Ok(shown);
        }
        if begin.elapsed() > PATIENCE {
            bail!("waited {PATIENCE:?} for {what}; the page shows {}", shown.0);
        }
        sleep(Duration::from_millis(100));
    }
}

fn look(browser: &Browser) -> Result<Shown> {
    let script = "
        const cells = [...document.querySelectorAll('td')].map((cell) => [cell.id, cell.textContent]);
        const problem = document.getElementById('problem').textContent;
        const worlds = [...document.querySelectorAll('#worlds button')].map((button) => button.textContent);
        return { ...Object.fromEntries(cells), state: document.body.dataset.state ?? '', problem, worlds };";
    browser.run(script).map(Shown)
}

impl Shown {
    fn text(&self, id: &str) -> &str {
        self.0[id].as_str().unwrap_or_default()
    }

    /// The number that a cell begins with.
    fn number(&self, id: &str) -> Result<f64> {
        let text = self.text(id);
        let word = text.split_whitespace().next().unwrap_or_default();
        word.parse().with_context(|| format!("{id} is {text:?}, which does not begin with a number"))
    }
}
