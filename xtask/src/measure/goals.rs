//! The goals of `benches/goals.csv`: how many times faster than some peers a case should be.

use anyhow::{Context, Result, ensure};

const FILE: &str = include_str!("../../../benches/goals.csv");

/// A line of the file.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Goal {
    /// Op and shape as `cargo xtask peers` names them.
    pub(crate) case: String,
    /// Time of the fastest of the peers over ours.
    pub(crate) ratio: f64,
    pub(crate) peers: Vec<String>,
}

/// All goals in the order of the file.
///
/// # Errors
/// Names the line that is not `case,ratio,peers`.
pub(crate) fn goals() -> Result<Vec<Goal>> {
    parse(FILE).context("benches/goals.csv")
}

fn parse(text: &str) -> Result<Vec<Goal>> {
    let mut goals: Vec<Goal> = Vec::new();
    let lines = text.lines().enumerate().filter(|(_, line)| !line.starts_with('#') && *line != "case,ratio,peers");
    for (at, line) in lines {
        let goal = one(line).with_context(|| format!("line {}: `{line}` is not case,ratio,peers", at + 1))?;
        ensure!(goals.iter().all(|other| other.case != goal.case), "line {}: {} twice", at + 1, goal.case);
        goals.push(goal);
    }
    Ok(goals)
}

fn one(line: &str) -> Option<Goal> {
    let [case, ratio, peers] = line.split(',').collect::<Vec<_>>()[..] else { return None };
    let ratio = ratio.parse().ok().filter(|ratio: &f64| *ratio > 0.0 && ratio.is_finite())?;
    let peers: Vec<String> = peers.split_whitespace().map(str::to_owned).collect();
    (case.contains(' ') && !peers.is_empty()).then(|| Goal { case: case.to_owned(), ratio, peers })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_is_read() {
        let goals = goals().unwrap();
        let goal = goals.iter().find(|goal| goal.case == "masked_gemm r3840_o128_i128_d10").unwrap();
        assert_eq!((goal.ratio, goal.peers.join(" ").as_str()), (4.4, "faer gemm torch_dense"));
    }

    #[test]
    fn what_is_no_goal_is_refused() {
        for text in ["gemm r1,2", "gemm r1,x,faer", "gemm r1,-1,faer", "gemm,1,faer", "gemm r1,1,", "gemm r1,1,a,b"] {
            assert!(parse(text).unwrap_err().to_string().contains("line 1"), "{text}");
        }
        assert!(parse("gemm r1,1,a\ngemm r1,2,a").unwrap_err().to_string().contains("twice"));
    }
}
