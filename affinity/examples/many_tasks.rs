//! Routing among up to 10 000 synthetic tasks: agreement with exact search, time per query and time to build, as a table.
//!
//! ```text
//! cargo run --release -p tsn-affinity-math --example many_tasks [-- QUERIES [TASKS ...]]
//! ```
//!
//! Times are those of the thread on a core where Linux tells them, so that other jobs on the machine do not count. They
//! come in ticks of some milliseconds: ask at least some hundred queries.
#![expect(clippy::print_stdout, reason = "a tool for the terminal")]

use std::error::Error;
use std::sync::LazyLock;
use std::time::Instant;
use tsn_affinity_math::graph::Graph;
use tsn_affinity_math::hierarchy::Clusters;
use tsn_affinity_math::index::{Found, Index, RERANK, Search, synthetic, synthetic_queries};

const WIDTH: usize = 64;
const PROTOTYPES: usize = 16;
/// Time is the median of so many rounds over all queries.
const ROUNDS: usize = 3;
/// A member is nearer to its family than halfway to a right angle.
const LIMIT: f64 = 0.6;

type Outcome<T> = Result<T, Box<dyn Error>>;

fn main() -> Outcome<()> {
    let numbers = std::env::args().skip(1).map(|n| n.parse()).collect::<Result<Vec<usize>, _>>()?;
    let queries = numbers.first().copied().unwrap_or(500);
    let sizes = if numbers.len() > 1 { &numbers[1..] } else { &[1000, 3000, 10_000] };
    println!(
        "Width {WIDTH}, {PROTOTYPES} prototypes per task, {queries} queries, one thread, one query at a time; seed 1."
    );
    println!("Cells: agreement with the exact decision, ms per query (median of {ROUNDS} rounds), ratio to exact.\n");
    let mut head = vec!["T, structure", "exact, ms", "true task", "means, best 8", "means, best 64"];
    head.extend(["clusters, open 2", "open 8", "of, build s", "graph", "recall@8", "build s"]);
    println!("| {} |\n|{}", head.join(" | "), "---|".repeat(head.len()));
    for tasks in sizes {
        for families in [Some((*tasks as f64).sqrt() as usize), None] {
            println!("{}", row(*tasks, families, queries)?);
        }
    }
    Ok(())
}

/// One line of the table: every search on the same queries, one after another.
fn row(tasks: usize, families: Option<usize>, queries: usize) -> Outcome<String> {
    let index = synthetic(tasks, PROTOTYPES, WIDTH, families, 1)?;
    let (q, truth) = synthetic_queries(&index, queries, 2);
    let exact = by_index(&index, Search::Exact, &q)?;
    let cell = |(found, ms): (Vec<usize>, f64)| format!("{:.3}, {ms:.3}, {:.2}", share(&found, &exact.0), ms / exact.1);
    let mut cells = vec![format!("{:.3}", exact.1), format!("{:.3}", share(&exact.0, &truth))];
    for open in [8, RERANK] {
        cells.push(cell(by_index(&index, Search::Means { open }, &q)?));
    }
    let begin = seconds();
    let clusters = clusters(&index)?;
    let build = seconds() - begin;
    for open in [2, 8] {
        cells.push(cell(time(&q, |q| Ok(clusters.find(&index, q, open)?.task))?));
    }
    cells.push(format!("{}, {build:.1}", clusters.members().len()));
    drop(clusters);
    let begin = seconds();
    let graph = Graph::new(&index)?;
    let build = seconds() - begin;
    cells.push(cell(time(&q, |q| Ok(graph.find(&index, q)?.task))?));
    let mut seen = 0;
    for (q, exact) in q.chunks_exact(WIDTH).zip(&exact.0) {
        seen += usize::from(graph.nearest(&index, q)?.iter().any(|near| near.task == *exact));
    }
    cells.extend([format!("{:.3}", seen as f64 / queries as f64), format!("{build:.1}")]);
    let structure = families.map_or_else(|| "iid".to_owned(), |n| format!("{n} families"));
    Ok(format!("| {tasks}, {structure} | {} |", cells.join(" | ")))
}

/// Average linkage of the cosine distances between means.
fn clusters(index: &Index) -> Outcome<Clusters> {
    let n = index.tasks();
    let mut distance = vec![0.0; n * n];
    for (a, row) in distance.chunks_exact_mut(n).enumerate() {
        for (b, d) in row.iter_mut().enumerate() {
            let cosine: f32 = index.mean_of(a).iter().zip(index.mean_of(b)).map(|(x, y)| x * y).sum();
            *d = (1.0 - f64::from(cosine)).max(0.0);
        }
    }
    Ok(Clusters::new(index, &distance, LIMIT)?)
}

fn by_index(index: &Index, search: Search, q: &[f32]) -> Outcome<(Vec<usize>, f64)> {
    let mut searcher = index.searcher(search, 1)?;
    let mut one = [Found { task: 0, cosine: 0.0 }];
    time(q, |q| {
        index.find(&mut searcher, q, &mut one)?;
        Ok(one[0].task)
    })
}

/// The answers, and the median over rounds of the mean time of a query in milliseconds.
fn time(q: &[f32], mut find: impl FnMut(&[f32]) -> Outcome<usize>) -> Outcome<(Vec<usize>, f64)> {
    let (mut found, mut rounds) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        let begin = seconds();
        found = q.chunks_exact(WIDTH).map(&mut find).collect::<Outcome<Vec<usize>>>()?;
        rounds.push(1e3 * (seconds() - begin) / (q.len() / WIDTH).max(1) as f64);
    }
    rounds.sort_by(f64::total_cmp);
    Ok((found, rounds[ROUNDS / 2]))
}

/// Seconds that this thread ran, or since the first call where the system does not tell.
fn seconds() -> f64 {
    static FIRST: LazyLock<Instant> = LazyLock::new(Instant::now);
    let ran = std::fs::read_to_string("/proc/thread-self/schedstat").ok();
    let ns = ran.as_deref().and_then(|text| text.split(' ').next()?.parse::<f64>().ok());
    ns.map_or_else(|| FIRST.elapsed().as_secs_f64(), |ns| 1e-9 * ns)
}

fn share(a: &[usize], b: &[usize]) -> f64 {
    a.iter().zip(b).filter(|(a, b)| a == b).count() as f64 / a.len().max(1) as f64
}
