//! Metrics against the numbers recorded by published runs.

use tsn::metrics::Scores;

/// Recorded metrics are rounded to four decimals, and so are the entries of the matrices they are recomputed from; a
/// difference of two means of such entries is off by at most three halves of the last place.
const ROUNDING: f64 = 1.5e-4;

#[test]
fn published_matrices() {
    let lines = include_str!("../fixtures/score-matrices.txt").lines().filter(|line| !line.starts_with('#'));
    let mut seen = 0;
    for line in lines {
        let fields: Vec<&str> = line.splitn(7, ' ').collect();
        let number = |at: usize| fields[at].parse::<f64>().expect("a recorded metric");
        let row = |row: &str| row.split(',').map(|entry| entry.parse().expect("a score")).collect();
        let rows: Vec<Vec<f64>> = fields[5].split(';').map(row).collect();
        let scores = Scores::new(&rows).expect("a square matrix");
        let pairs = [
            ("ACC", scores.acc(), number(1)),
            ("BWT", scores.bwt(), number(2)),
            ("Forgetting, all rows", scores.forgetting_official(), number(3)),
            ("Forgetting, rows i >= j", scores.forgetting(), number(4)),
        ];
        for (name, found, recorded) in pairs {
            let found = found.expect("complete matrices");
            assert!((found - recorded).abs() <= ROUNDING, "{name}: {found}, recorded {recorded}: {}", fields[6]);
        }
        seen += 1;
    }
    assert_eq!(seen, 55);
}
