//! Headless Chromium through chromedriver, by the WebDriver protocol: JSON over HTTP on this machine.

use anyhow::{Context, Result, bail};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};

/// A running driver with one window; both end with this value.
pub(crate) struct Browser {
    driver: Child,
    /// Kept open: the driver writes to it.
    _output: BufReader<ChildStdout>,
    session: String,
}

impl Browser {
    /// Starts driver and browser. `flags` are added to Chromium's command line.
    ///
    /// # Errors
    /// What is not installed, or does not start.
    pub(crate) fn open(flags: &[&str]) -> Result<Browser> {
        let install = "chromedriver not found; on Debian `apt-get install chromium chromium-driver`";
        let mut driver = Command::new("chromedriver")
            .arg("--port=0")
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .context(install)?;
        let mut output = BufReader::new(driver.stdout.take().context("chromedriver has no output")?);
        let port = match port(&mut output) {
            Ok(port) => port,
            Err(error) => {
                let _ = driver.kill();
                let _ = driver.wait();
                return Err(error);
            }
        };
        let mut browser = Browser { driver, _output: output, session: format!("http://127.0.0.1:{port}/session") };
        // The sandbox needs rights that root in a container does not have; the page is our own.
        let usual = ["--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--window-size=1100,1100"];
        let options = json!({ "args": usual.iter().chain(flags).collect::<Vec<_>>() });
        let wanted = json!({ "capabilities": { "alwaysMatch": {
            "browserName": "chrome",
            // A browser without a GPU takes its time to compile kernels.
            "timeouts": { "script": 120_000 },
            "goog:chromeOptions": options,
            "goog:loggingPrefs": { "browser": "ALL" },
        } } });
        let session = browser.post("", &wanted).context("chromedriver could not start Chromium")?;
        let id = session["sessionId"].as_str().context("chromedriver names no session")?;
        browser.session += &format!("/{id}");
        Ok(browser)
    }

    /// Loads a file.
    pub(crate) fn load(&self, file: &Path) -> Result<()> {
        self.post("/url", &json!({ "url": format!("file://{}", file.display()) })).map(|_| ())
    }

    /// Value of a JavaScript function body.
    pub(crate) fn run(&self, script: &str) -> Result<Value> {
        self.post("/execute/sync", &json!({ "script": script, "args": [] }))
    }

    /// Clicks the first element of a CSS selector, as a person would.
    pub(crate) fn click(&self, selector: &str) -> Result<()> {
        let found = self.post("/element", &json!({ "using": "css selector", "value": selector }))?;
        let id = found.as_object().and_then(|o| o.values().next()).and_then(Value::as_str).context("no element")?;
        self.post(&format!("/element/{id}/click"), &json!({})).map(|_| ())
    }

    /// Writes a PNG of the window.
    pub(crate) fn picture(&self, to: &Path) -> Result<()> {
        let answer = self.get("/screenshot")?;
        let text = answer.as_str().context("the picture is no text")?;
        std::fs::write(to, STANDARD.decode(text)?).with_context(|| to.display().to_string())
    }

    /// What the page and the browser complained about so far.
    pub(crate) fn complaints(&self) -> Result<Vec<String>> {
        let log = self.post("/se/log", &json!({ "type": "browser" }))?;
        let entries = log.as_array().context("the log is no list")?.iter();
        let severe = entries.filter(|entry| entry["level"] == "SEVERE");
        Ok(severe.map(|entry| entry["message"].as_str().unwrap_or_default().to_owned()).collect())
    }

    fn get(&self, path: &str) -> Result<Value> {
        value(path, agent().get(format!("{}{path}", self.session)).call()?)
    }

    fn post(&self, path: &str, body: &Value) -> Result<Value> {
        let request = agent().post(format!("{}{path}", self.session)).header("content-type", "application/json");
        value(path, request.send(body.to_string())?)
    }
}

/// Errors of the driver come with a body that says more than their status.
fn agent() -> ureq::Agent {
    ureq::Agent::config_builder().http_status_as_error(false).build().into()
}

fn value(path: &str, mut response: ureq::http::Response<ureq::Body>) -> Result<Value> {
    let text = response.body_mut().with_config().limit(64 << 20).read_to_string()?;
    let answer: Value = serde_json::from_str(&text).with_context(|| format!("chromedriver says {text:?}"))?;
    let value = answer["value"].clone();
    if let Some(error) = value["error"].as_str() {
        bail!("{path}: {error}: {}", value["message"].as_str().unwrap_or_default());
    }
    Ok(value)
}

impl Drop for Browser {
    fn drop(&mut self) {
        // Ends the browser; the driver alone would leave it.
        let _ = agent().delete(&self.session).call();
        let _ = self.driver.kill();
        let _ = self.driver.wait();
    }
}

/// The port that the driver chose, from what it prints.
fn port(output: &mut impl BufRead) -> Result<u16> {
    let mut line = String::new();
    while output.read_line(&mut line)? > 0 {
        if let Some((_, rest)) = line.split_once("started successfully on port ") {
            return rest.trim().trim_end_matches('.').parse().context("chromedriver's port");
        }
        line.clear();
    }
    bail!("chromedriver ended before it opened a port")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_port_is_read_from_what_the_driver_prints() {
        let text = "Starting ChromeDriver 1\nChromeDriver was started successfully on port 43035.\nmore";
        assert_eq!(port(&mut text.as_bytes()).unwrap(), 43035);
        assert!(port(&mut "Starting".as_bytes()).is_err());
    }
}
