//! Placeholder for the page writer.
pub(crate) fn write(dir: &std::path::Path, _runs: &[std::path::PathBuf]) -> anyhow::Result<std::path::PathBuf> {
    Ok(dir.join("report.html"))
}
