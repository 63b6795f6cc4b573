//! Lists and ranges: `60,1280`, `128:512:128` (from, to, step), `64:4096:*2` (from, to, factor), mixed by commas.

use std::str::FromStr;

/// Most values of one list.
const MOST: usize = 1000;
/// Largest size of one letter.
const LARGEST: f64 = (1u32 << 30) as f64;

/// Sizes of one letter.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Sizes(pub Vec<u32>);

impl FromStr for Sizes {
    type Err = String;

    fn from_str(text: &str) -> Result<Sizes, String> {
        let size = |x: f64| match x.fract() == 0.0 && (1.0..=LARGEST).contains(&x) {
            true => Ok(x as u32),
            false => Err(format!("{x} is not a whole number from 1 to {LARGEST}")),
        };
        expand(text)?.into_iter().map(size).collect::<Result<_, _>>().map(Sizes)
    }
}

/// Shares of the weights that masks keep.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Densities(pub Vec<f64>);

impl FromStr for Densities {
    type Err = String;

    fn from_str(text: &str) -> Result<Densities, String> {
        let share = |x: f64| match (0.0..=1.0).contains(&x) {
            true => Ok(x),
            false => Err(format!("density {x} is outside 0..=1")),
        };
        expand(text)?.into_iter().map(share).collect::<Result<_, _>>().map(Densities)
    }
}

/// All values of a list in the order written.
fn expand(text: &str) -> Result<Vec<f64>, String> {
    let mut values = Vec::new();
    for item in text.split(',') {
        match item.split(':').collect::<Vec<_>>()[..] {
            [one] => values.push(number(one)?),
            [from, to, step] => range(number(from)?, number(to)?, step, &mut values)?,
            _ => return Err(format!("`{item}` is neither a number nor from:to:step nor from:to:*factor")),
        }
        if values.len() > MOST {
            return Err(format!("more than {MOST} values"));
        }
    }
    Ok(values)
}

/// Both ends belong to a range.
fn range(from: f64, to: f64, step: &str, values: &mut Vec<f64>) -> Result<(), String> {
    let (factor, step) = match step.strip_prefix('*') {
        Some(factor) => (true, number(factor)?),
        None => (false, number(step)?),
    };
    if from > to || from <= 0.0 || (factor && step <= 1.0) || (!factor && step <= 0.0) {
        return Err("a range goes up from a positive number: from:to:step or from:to:*factor".into());
    }
    for nth in 0..=MOST {
        let value = if factor { from * step.powi(nth as i32) } else { from + nth as f64 * step };
        // Forgives the rounding of decimal fractions.
        if value > to * (1.0 + 1e-9) {
            return Ok(());
        }
        values.push(value.min(to));
    }
    Err(format!("more than {MOST} values"))
}

fn number(text: &str) -> Result<f64, String> {
    match text.trim().parse::<f64>() {
        Ok(x) if x.is_finite() => Ok(x),
        _ => Err(format!("`{text}` is not a number")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sizes(text: &str) -> Result<Vec<u32>, String> {
        text.parse::<Sizes>().map(|s| s.0)
    }

    #[test]
    fn lists_and_ranges() {
        assert_eq!(sizes("60,1280,3840"), Ok(vec![60, 1280, 3840]));
        assert_eq!(sizes("128:512:128"), Ok(vec![128, 256, 384, 512]));
        assert_eq!(sizes("64:1024:*2,7"), Ok(vec![64, 128, 256, 512, 1024, 7]));
        assert_eq!(sizes("5:7:3"), Ok(vec![5]));
        assert_eq!("0.1:0.5:0.1".parse::<Densities>().map(|d| d.0.len()), Ok(5));
        assert_eq!("0.02,1,0".parse(), Ok(Densities(vec![0.02, 1.0, 0.0])));
    }

    #[test]
    fn what_is_refused() {
        for text in [
            "",
            "a",
            "1.5",
            "0",
            "-1",
            "1,,2",
            "1:2",
            "1:2:3:4",
            "9:3:1",
            "1:9:0",
            "1:9:*1",
            "1:9999999:1",
            "nan",
            "1e30",
            "1:9:-1",
        ] {
            assert!(sizes(text).is_err(), "{text}");
        }
        assert!("1.01".parse::<Densities>().is_err());
    }
}
