//! The command line program.

#[cfg_attr(not(test), expect(dead_code, reason = "no subcommand writes a report"))]
mod report;

fn main() {}
