//! One file without references to others: style, scripts, module, bank and plan are put into the page.

use anyhow::{Context, Result, ensure};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use std::path::Path;

/// The page of `tsn/web/page` with everything inside.
pub(crate) fn assemble(root: &Path, module: &[u8], bank: &[u8], plan: &str) -> Result<String> {
    let read = |name: &str| {
        let path = root.join("tsn/web/page").join(name);
        std::fs::read_to_string(&path).with_context(|| path.display().to_string())
    };
    let parts = [
        ("style", read("style.css")?),
        ("script", read("page.js")?),
        ("gpu", read("gpu.js")?),
        ("module", STANDARD.encode(module)),
        ("bank", STANDARD.encode(bank)),
        // Nothing in it ends the script.
        ("plan", plan.replace('<', "\\u003c")),
    ];
    fill(&read("index.html")?, &parts)
}

/// Replaces the one `/*{name}*/` of each part.
fn fill(page: &str, parts: &[(&str, String)]) -> Result<String> {
    let mut page = page.to_owned();
    for (name, text) in parts {
        let mark = format!("/*{{{name}}}*/");
        let found = page.matches(&mark).count();
        ensure!(found == 1, "index.html has {found} marks {mark}, expected 1");
        page = page.replacen(&mark, text, 1);
    }
    Ok(page)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_mark_is_filled_once() {
        let part = |name: &'static str, text: &str| (name, text.to_owned());
        let page = fill("<a>/*{x}*/</a> /*{y}*/", &[part("x", "1"), part("y", "2")]).unwrap();
        assert_eq!(page, "<a>1</a> 2");
        assert!(fill("/*{x}*/", &[part("y", "2")]).unwrap_err().to_string().contains("0 marks /*{y}*/"));
        assert!(fill("/*{x}*/ /*{x}*/", &[part("x", "2")]).is_err());
    }
}
