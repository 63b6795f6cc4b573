//! The page in a browser, used as a person uses it: every task of the world for some seconds of simulated time, once by the
//! CPU and once by WebGPU.

use super::browser::Browser;
use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;
use std::cell::Cell;
use std::path::Path;
use std::thread::sleep;
use std::time::{Duration, Instant};

/// Simulated seconds that the pole has to stay up in each world.
const UPRIGHT_S: f64 = 10.0;
/// Steps of an episode after which the router has seen enough to name the task; one ends after 10 s, just when it is asked.
const SEEN: f64 = 10.0;
/// Patience with a slow machine, per world: a driver in software takes up to half a second a step on two busy cores.
const PATIENCE: Duration = Duration::from_secs(600);

/// What the page shows, by the ids of its elements.
struct Shown(Value);

/// Largest difference of a score by WebGPU from that by the CPU, relative to the score or to 1.
const ROUNDING: f64 = 1e-4;
/// Steps that both make, through two changes of the world.
const STEPS: u32 = 60;

/// Plays the page by the CPU, then by WebGPU, and leaves a picture of every world beside it.
pub(crate) fn run(index: &Path) -> Result<()> {
    let browser = Browser::open(&[])?;
    let shown = start(&browser, index)?;
    let told = shown.text("note").starts_with("The CPU decides") && shown.text("device").starts_with("CPU");
    ensure!(told, "without WebGPU the page shows {}", shown.0);
    worlds(&browser, index, "cpu")?;
    drop(browser);
    let browser = Browser::open(&["--enable-unsafe-webgpu", "--use-webgpu-adapter=swiftshader"])?;
    let shown = start(&browser, index)?;
    ensure!(shown.text("device").starts_with("WebGPU, "), "with WebGPU the page shows {}", shown.0);
    println!("{}", shown.text("device"));
    // Two players have the adapter for themselves.
    browser.click("#pause")?;
    same_scores(&browser)?;
    browser.click("#pause")?;
    let before = look(&browser)?.number("runs")?;
    worlds(&browser, index, "webgpu")?;
    let shown = look(&browser)?;
    let runs = shown.number("runs")? - before;
    println!("{runs} runs on WebGPU");
    // At least one for every step of 20 ms.
    let steps = UPRIGHT_S * 50.0 * shown.worlds().len() as f64;
    ensure!(runs >= steps && shown.text("device").starts_with("WebGPU, "), "{runs} runs; {}", shown.0);
    browser.click("#cpu")?;
    wait(&browser, "the CPU to take over", |shown| shown.text("device").starts_with("CPU"))?;
    Ok(())
}

/// Loads the page and waits until the agent plays.
fn start(browser: &Browser, index: &Path) -> Result<Shown> {
    browser.load(index)?;
    let shown = wait(browser, "the agent to start", |shown| {
        shown.text("state") == "failed" || shown.number("step").is_ok_and(|step| step > 0.0)
    })?;
    ensure!(shown.text("state") == "running", "{}", shown.text("problem"));
    browser.click("[data-speed='5']")?;
    Ok(shown)
}

/// Holds the scores of two players in equal worlds against each other, one by the CPU and one by WebGPU.
fn same_scores(browser: &Browser) -> Result<()> {
    let script = format!(
        "
        const both = [await load(7), await load(7)];
        const gpu = await openGpu(PLAN);
        both[1].use(gpu);
        let worst = 0, equal = 0;
        for (let step = 0; step < {STEPS}; step += 1) {{
            for (const player of both) {{
                if (step % 20 === 10) player.setWorld(step < 20 ? 1 : 0);
                await player.step();
            }}
            const [cpu, webgpu] = both.map((player) => [...player.outputs()]);
            cpu.forEach((score, at) => {{
                worst = Math.max(worst, Math.abs(score - webgpu[at]) / Math.max(1, Math.abs(score)));
            }});
            equal += both[0].view().force === both[1].view().force;
        }}
        const stayed = both[1].gpu === gpu;
        return {{ worst, equal, runs: gpu.runs, stayed }};"
    );
    let found = browser.run(&format!("return (async () => {{ {script} }})();"))?;
    let number = |name: &str| found[name].as_f64().with_context(|| format!("{name} of {found}"));
    let (worst, equal, runs) = (number("worst")?, number("equal")?, number("runs")?);
    let all = f64::from(STEPS);
    ensure!(found["stayed"] == true && runs >= all, "WebGPU did not run: {found}");
    ensure!(equal == all && worst <= ROUNDING, "the CPU and WebGPU disagree: {found}");
    println!("{equal} of {all} actions equal, scores within {worst:.1e}, {runs} runs");
    Ok(())
}

/// Every task of the world for [`UPRIGHT_S`] simulated seconds, and no complaint.
fn worlds(browser: &Browser, index: &Path, device: &str) -> Result<()> {
    let shown = look(browser)?;
    let worlds = shown.worlds();
    ensure!(worlds.len() >= 2, "the page has the worlds {worlds:?}, expected at least 2");
    // Back to the first one at the end: the start is no change.
    for at in (1..worlds.len()).chain([0]) {
        let (name, falls) = (worlds[at], look(browser)?.number("falls")?);
        let (begin, begun) = (Instant::now(), Cell::new(false));
        browser.click(&format!("#worlds button:nth-child({})", at + 1))?;
        let shown = wait(browser, "the pole to stay up", |shown| {
            // Until the next frame the page shows the world before, or its name and the time of the one before.
            let seconds = shown.number("upright").unwrap_or_default();
            begun.set(begun.get() || seconds < UPRIGHT_S / 2.0);
            let seen = shown.number("step").is_ok_and(|step| step >= SEEN);
            let upright = begun.get() && seen && shown.text("world") == name && seconds >= UPRIGHT_S;
            upright || shown.number("falls").is_ok_and(|now| now > falls) || shown.text("state") != "running"
        })?;
        let played = shown.text("routed");
        ensure!(shown.text("state") == "running", "{name}: {}", shown.text("problem"));
        ensure!(shown.number("falls")? == falls, "{name}: the pole fell within {UPRIGHT_S} s");
        ensure!(played == name, "{name}: the router names {played}");
        let picture = index.with_file_name(format!("{name}-{device}.png"));
        browser.picture(&picture)?;
        println!(
            "{name}, {device}: upright {} in {:.0} s, noticed after {}, decision {}; {}",
            shown.text("upright"),
            begin.elapsed().as_secs_f64(),
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
        const [problem, note] = ['problem', 'note'].map((id) => document.getElementById(id).textContent);
        const worlds = [...document.querySelectorAll('#worlds button')].map((button) => button.textContent);
        return { ...Object.fromEntries(cells), state: document.body.dataset.state ?? '', problem, note, worlds };";
    browser.run(script).map(Shown)
}

impl Shown {
    fn worlds(&self) -> Vec<&str> {
        self.0["worlds"].as_array().into_iter().flatten().filter_map(Value::as_str).collect()
    }

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
