//! Routing among up to 10 000 synthetic tasks: agreement with exact search and time per query, as a table.
//!
//! ```text
//! cargo run --release -p tsn-affinity-math --example many_tasks [-- QUERIES] > benches/results/2026-11-many-tasks.md
//! ```
#![expect(clippy::print_stdout, reason = "a tool for the terminal")]

use std::error::Error;
use std::time::Instant;
use tsn_affinity_math::cosine;
use tsn_affinity_math::hierarchy::Clusters;
use tsn_affinity_math::index::{Found, Index, Search, synthetic, synthetic_queries};

const WIDTH: usize = 64;
const PROTOTYPES: usize = 16;
/// Time is the least of so many rounds over all queries.
const ROUNDS: usize = 3;
/// Most tasks that are clustered: average linkage takes the cube of their number.
const MOST_CLUSTERED: usize = 1000;

fn main() -> Result<(), Box<dyn Error>> {
    let queries: usize = std::env::args().nth(1).map_or(Ok(500), |n| n.parse())?;
    println!("# Routing among many tasks\n");
    println!(
        "Width {WIDTH}, {PROTOTYPES} prototypes per task, {queries} queries, one thread, one query at a time; seed 1."
    );
    println!(
        "\"families\" are about sqrt(T) groups of tasks, \"iid\" has none. Agreement is the share of queries whose"
    );
    println!(
        "task is that of exact search; times are milliseconds per query, least of {ROUNDS} rounds. \"clusters\" opens 2, then"
    );
    println!("8, of those that average linkage finds (made for up to {MOST_CLUSTERED} tasks).");
    println!("Command: `cargo run --release -p tsn-affinity-math --example many_tasks -- {queries}`.\n");
    println!(
        "| T, structure | exact, ms | true task | means, best 8: agreement, ms | means, best 64 | clusters, open 2 | open 8 |"
    );
    println!("|---|---|---|---|---|---|---|");
    for tasks in [100, 1000, 3000, 10_000] {
        for families in [Some((tasks as f64).sqrt() as usize), None] {
            row(tasks, families, queries)?;
        }
    }
    Ok(())
}

fn row(tasks: usize, families: Option<usize>, queries: usize) -> Result<(), Box<dyn Error>> {
    let index = synthetic(tasks, PROTOTYPES, WIDTH, families, 1)?;
    let (q, truth) = synthetic_queries(&index, queries, 2);
    let (exact, exact_ms) = search(&index, Search::Exact, &q)?;
    let cell = |(found, ms): (Vec<usize>, f64)| format!("{:.3}, {ms:.3}", share(&found, &exact));
    let mut cells = vec![format!("{exact_ms:.3}"), format!("{:.3}", share(&exact, &truth))];
    for open in [8, 64] {
        cells.push(cell(search(&index, Search::Means { open }, &q)?));
    }
    if tasks <= MOST_CLUSTERED {
        let mut distance = vec![0.0; tasks * tasks];
        for (at, d) in distance.iter_mut().enumerate() {
            *d = (1.0 - cosine(index.mean_of(at / tasks), index.mean_of(at % tasks))?).max(0.0);
        }
        // A member is nearer to its family than halfway to a right angle.
        let clusters = Clusters::new(&index, &distance, 0.6)?;
        for open in [2, 8] {
            let (mut found, mut least) = (Vec::new(), f64::INFINITY);
            for _ in 0..ROUNDS {
                let begin = Instant::now();
                let each = q.chunks_exact(WIDTH).map(|q| Ok(clusters.find(&index, q, open)?.task));
                found = each.collect::<Result<Vec<usize>, Box<dyn Error>>>()?;
                least = least.min(begin.elapsed().as_secs_f64());
            }
            let cell = cell((found, 1e3 * least / queries as f64));
            cells.push(format!("{cell}, of {}", clusters.members().len()));
        }
    } else {
        cells.extend(["-".to_owned(), "-".to_owned()]);
    }
    let structure = families.map_or_else(|| "iid".to_owned(), |n| format!("{n} families"));
    println!("| {tasks}, {structure} | {} |", cells.join(" | "));
    Ok(())
}

fn search(index: &Index, search: Search, q: &[f32]) -> Result<(Vec<usize>, f64), Box<dyn Error>> {
    let mut searcher = index.searcher(search, 1)?;
    let mut one = [Found { task: 0, cosine: 0.0 }];
    let (mut found, mut least) = (Vec::new(), f64::INFINITY);
    for _ in 0..ROUNDS {
        found.clear();
        let begin = Instant::now();
        for q in q.chunks_exact(WIDTH) {
            index.find(&mut searcher, q, &mut one)?;
            found.push(one[0].task);
        }
        least = least.min(begin.elapsed().as_secs_f64());
    }
    Ok((found, 1e3 * least / (q.len() / WIDTH) as f64))
}

fn share(a: &[usize], b: &[usize]) -> f64 {
    a.iter().zip(b).filter(|(a, b)| a == b).count() as f64 / a.len().max(1) as f64
}
