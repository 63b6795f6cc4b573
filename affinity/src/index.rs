//! The nearest task among many, by cosine with the prototypes of each.
//!
//! [`Index`] holds vectors and their owners. The reference is exact search over all vectors; above
//! [`EXACT_VECTORS`] vectors the means of tasks are searched first and the best [`RERANK`] tasks exactly, which agrees
//! with it in the trials and needs no build. Clusters of tasks ([`crate::hierarchy`]) open fewer tasks where tasks come
//! in families; a graph ([`crate::graph`]) is for static sets of very many tasks. Ties go to the lower
//! task. Source: sections 10.4 and 10.5 of the method.

use crate::error::{Error, Result, in_range, rows_of};
use crate::single::Single;

/// Most vectors that are searched one by one unless the caller says otherwise.
pub const EXACT_VECTORS: usize = 16_000;
/// Tasks that are searched exactly after their means.
pub const RERANK: usize = 64;

/// How a query finds its task.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Search {
    /// Every vector.
    Exact,
    /// Means of tasks, then every vector of the best `open` tasks; with `open` equal to the number of tasks as exact.
    Means {
        /// Tasks that are searched exactly.
        open: usize,
    },
}

/// Vectors of tasks, of length 1, in the order of tasks.
#[derive(Clone, Debug)]
pub struct Index {
    width: usize,
    vectors: Vec<f32>,
    means: Vec<f32>,
    /// First vector of each task, then their number.
    starts: Vec<usize>,
}

/// A task that answers a query.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Found {
    /// Number of the task, in the order of [`Index::add`].
    pub task: usize,
    /// Its largest cosine with the query.
    pub cosine: f32,
}

/// Workspace for queries of one index: allocated once, for a fixed number of queries at a time.
pub struct Searcher {
    search: Search,
    queries: usize,
    tasks: usize,
    call: Single,
    /// The queries, of length 1.
    scaled: Vec<f32>,
    score: Vec<f32>,
    index: Vec<u32>,
}

impl Index {
    /// An index of vectors of `width` numbers.
    ///
    /// # Errors
    /// [`Error::Empty`] for no numbers.
    pub fn new(width: usize) -> Result<Index> {
        if width == 0 {
            return Err(Error::Empty { what: "width of an index" });
        }
        Ok(Index { width, vectors: Vec::new(), means: Vec::new(), starts: vec![0] })
    }

    /// Adds a task by its vectors `rows[m, width]` of any length and returns its number.
    ///
    /// # Errors
    /// [`Error::Empty`] without vectors, [`Error::Length`] if one is cut short, [`Error::Range`] if a value is not finite.
    pub fn add(&mut self, rows: &[f32]) -> Result<usize> {
        let each = rows_of("vectors of a task", rows, self.width)?;
        for value in rows {
            in_range("value of a vector", f64::from(*value), "the finite numbers", |_| true)?;
        }
        let mut sum = vec![0.0f64; self.width];
        for row in each {
            let first = self.vectors.len();
            self.vectors.extend(unit(row.iter().map(|x| f64::from(*x))));
            sum.iter_mut().zip(&self.vectors[first..]).for_each(|(sum, x)| *sum += f64::from(*x));
        }
        self.means.extend(unit(sum.iter().copied()));
        self.starts.push(self.vectors.len() / self.width);
        Ok(self.tasks() - 1)
    }

    /// Numbers of a vector.
    pub fn width(&self) -> usize {
        self.width
    }

    /// Number of tasks.
    pub fn tasks(&self) -> usize {
        self.starts.len() - 1
    }

    /// Vectors of a task.
    ///
    /// # Panics
    /// If there is no such task.
    pub fn vectors_of(&self, task: usize) -> &[f32] {
        &self.vectors[self.starts[task] * self.width..self.starts[task + 1] * self.width]
    }

    /// Direction of the sum of a task's vectors.
    ///
    /// # Panics
    /// If there is no such task.
    pub fn mean_of(&self, task: usize) -> &[f32] {
        &self.means[task * self.width..][..self.width]
    }

    /// Number of vectors.
    pub(crate) fn vectors(&self) -> usize {
        self.vectors.len() / self.width
    }

    /// Number of vectors of the first `tasks` tasks.
    pub(crate) fn vectors_before(&self, tasks: usize) -> usize {
        self.starts[tasks]
    }

    /// A vector by its number.
    pub(crate) fn vector(&self, number: usize) -> &[f32] {
        &self.vectors[number * self.width..][..self.width]
    }

    /// Owner of a vector.
    pub(crate) fn owner(&self, vector: usize) -> usize {
        self.starts.partition_point(|start| *start <= vector) - 1
    }

    /// The search that its size asks for.
    pub fn standard(&self) -> Search {
        let few = self.starts.last().is_none_or(|n| *n <= EXACT_VECTORS);
        if few { Search::Exact } else { Search::Means { open: RERANK } }
    }

    /// Prepares a search of `queries` queries at a time.
    ///
    /// # Errors
    /// [`Error::Empty`] without tasks, queries or opened tasks; [`Error::Size`] for sizes no kernel takes.
    pub fn searcher(&self, search: Search, queries: usize) -> Result<Searcher> {
        if self.tasks() == 0 || queries == 0 {
            return Err(Error::Empty { what: if queries == 0 { "list of queries" } else { "index" } });
        }
        let (rows, best) = match search {
            Search::Exact => (self.starts[self.tasks()], 1),
            Search::Means { open: 0 } => return Err(Error::Empty { what: "list of opened tasks" }),
            Search::Means { open } => (self.tasks(), open.min(self.tasks())),
        };
        let call = Single::topk(queries, rows, self.width, best)?;
        let (score, index) = (vec![0.0; queries * best], vec![0; queries * best]);
        let scaled = vec![0.0; queries * self.width];
        Ok(Searcher { search, queries, tasks: self.tasks(), call, scaled, score, index })
    }

    /// The nearest task of each of `q[queries, width]`. Deterministic; allocates nothing.
    ///
    /// # Errors
    /// [`Error::Length`] if `q`, `found` or the searcher are for other sizes, [`Error::Range`] if a value is not finite.
    pub fn find(&self, searcher: &mut Searcher, q: &[f32], found: &mut [Found]) -> Result<()> {
        let Searcher { search, queries, tasks, call, scaled, score, index } = searcher;
        for (what, expected, given) in [
            ("queries", *queries * self.width, q.len()),
            ("list of answers", *queries, found.len()),
            ("index of the searcher", *tasks, self.tasks()),
        ] {
            if expected != given {
                return Err(Error::Length { what, expected, found: given });
            }
        }
        for (q, to) in q.chunks_exact(self.width).zip(scaled.chunks_exact_mut(self.width)) {
            scale_query(q, to)?;
        }
        match search {
            Search::Exact => {
                call.select(scaled, &self.vectors, score, index);
                for ((found, score), vector) in found.iter_mut().zip(&*score).zip(&*index) {
                    *found = Found { task: self.owner(*vector as usize), cosine: *score };
                }
            }
            Search::Means { .. } => {
                call.select(scaled, &self.means, score, index);
                let best = index.len() / *queries;
                for ((found, q), tasks) in
                    found.iter_mut().zip(scaled.chunks_exact(self.width)).zip(index.chunks_exact(best))
                {
                    *found = self.best_of(q, tasks.iter().map(|task| *task as usize));
                }
            }
        }
        Ok(())
    }

    /// The nearest of some tasks, at least one, to a query of [`scale_query`].
    pub(crate) fn best_of(&self, q: &[f32], tasks: impl Iterator<Item = usize>) -> Found {
        let mut best = Found { task: usize::MAX, cosine: f32::NEG_INFINITY };
        for task in tasks {
            let cosines = self.vectors_of(task).chunks_exact(self.width).map(|p| lanes(q, p));
            let cosine = cosines.fold(f32::NEG_INFINITY, f32::max);
            if cosine > best.cosine || cosine == best.cosine && task < best.task {
                best = Found { task, cosine };
            }
        }
        best
    }
}

/// Writes a query scaled to length 1: however long it is, its products with vectors of length 1 are finite.
pub(crate) fn scale_query(q: &[f32], to: &mut [f32]) -> Result<()> {
    for value in q {
        in_range("value of a query", f64::from(*value), "the finite numbers", |_| true)?;
    }
    to.iter_mut().zip(unit(q.iter().map(|x| f64::from(*x)))).for_each(|(to, x)| *to = x);
    Ok(())
}

/// Inner product in 16 partial sums, which the compiler keeps in vector registers, and their sum by halves.
pub(crate) fn lanes(a: &[f32], b: &[f32]) -> f32 {
    let mut sum = [0.0f32; 16];
    let (a, rest_a) = a.as_chunks::<16>();
    let (b, rest_b) = b.as_chunks::<16>();
    for (a, b) in a.iter().zip(b) {
        for ((sum, x), y) in sum.iter_mut().zip(a).zip(b) {
            *sum += x * y;
        }
    }
    for half in [8, 4, 2, 1] {
        (0..half).for_each(|j| sum[j] += sum[j + half]);
    }
    sum[0] + rest_a.iter().zip(rest_b).map(|(x, y)| x * y).sum::<f32>()
}

/// A vector scaled to length 1, in f64; zero stays zero.
pub(crate) fn unit(row: impl Iterator<Item = f64> + Clone) -> impl Iterator<Item = f32> {
    let length = row.clone().map(|x| x * x).sum::<f64>().sqrt().max(1e-8);
    row.map(move |x| (x / length) as f32)
}

/// Synthetic tasks for trials: `m` unit vectors each around a centre of their own. With `families` the centres lie around
/// that many directions, else anywhere. Deterministic in the seed.
///
/// # Errors
/// [`Error::Empty`] for no numbers or no vectors.
pub fn synthetic(tasks: usize, m: usize, width: usize, families: Option<usize>, seed: u64) -> Result<Index> {
    use engine::kernels::philox::{Rng, Stream};
    let mut index = Index::new(width)?;
    let normal = |place: [u32; 2]| {
        let mut rng = Rng::new(seed, Stream::Data, place);
        (0..width).map(move |_| rng.normal() as f32).collect::<Vec<f32>>()
    };
    let spread = |centre: &[f32], noise: &[f32], by: f32| -> Vec<f32> {
        centre.iter().zip(noise).map(|(c, x)| c + by * x).collect()
    };
    for t in 0..tasks {
        let own = normal([t as u32, 0]);
        let centre = match families {
            Some(families) => spread(&normal([(t % families.max(1)) as u32, 1]), &own, 0.6),
            None => own,
        };
        let rows: Vec<f32> = (0..m).flat_map(|k| spread(&centre, &normal([t as u32, 2 + k as u32]), 0.7)).collect();
        index.add(&rows)?;
    }
    Ok(index)
}

/// Queries near vectors of random tasks of an index, `[n, width]`, and those tasks. Deterministic in the seed.
pub fn synthetic_queries(index: &Index, n: usize, seed: u64) -> (Vec<f32>, Vec<usize>) {
    use engine::kernels::philox::{Rng, Stream};
    let mut rng = Rng::new(seed, Stream::Data, [u32::MAX, 0]);
    let (mut q, mut tasks) = (Vec::with_capacity(n * index.width), Vec::with_capacity(n));
    for _ in 0..n {
        let task = rng.below(index.tasks() as u64) as usize;
        tasks.push(task);
        let rows = index.vectors_of(task);
        let row = rng.below((rows.len() / index.width) as u64) as usize;
        let scale = 0.6 / (index.width as f64).sqrt();
        q.extend(rows[row * index.width..][..index.width].iter().map(|x| x + (scale * rng.normal()) as f32));
    }
    (q, tasks)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::{any, prop_assert_eq, proptest};

    fn scaled(q: &[f32]) -> Vec<f32> {
        unit(q.iter().map(|x| f64::from(*x))).collect()
    }

    fn find(index: &Index, search: Search, q: &[f32]) -> Vec<usize> {
        let n = q.len() / index.width();
        let mut found = vec![Found { task: 0, cosine: 0.0 }; n];
        index.find(&mut index.searcher(search, n).unwrap(), q, &mut found).unwrap();
        found.iter().map(|f| f.task).collect()
    }

    #[test]
    fn exact_is_the_definition() {
        let index = synthetic(40, 5, 19, Some(4), 3).unwrap();
        let (q, _) = synthetic_queries(&index, 30, 4);
        let exact = find(&index, Search::Exact, &q);
        for (q, task) in q.chunks_exact(19).zip(&exact) {
            assert_eq!(index.best_of(&scaled(q), 0..40).task, *task);
        }
        assert_eq!(find(&index, Search::Means { open: 40 }, &q), exact);
        assert_eq!(index.standard(), Search::Exact);
        assert_eq!(synthetic(2001, 8, 2, None, 0).unwrap().standard(), Search::Means { open: RERANK });
    }

    #[test]
    fn queries_of_any_length_find_their_task() {
        let mut index = Index::new(2).unwrap();
        for row in [[1.0, 1.0], [1.0, -1.0], [f32::MIN, f32::MAX]] {
            index.add(&row).unwrap();
        }
        for long in [1e-6, 1.0, 1e25, f32::MAX] {
            for search in [Search::Exact, Search::Means { open: 1 }, Search::Means { open: 3 }] {
                assert_eq!(
                    find(&index, search, &[long, -long, long, long, -long, long]),
                    [1, 0, 2],
                    "{long} {search:?}"
                );
            }
        }
    }

    #[test]
    fn bad_input_is_named() {
        assert!(Index::new(0).is_err());
        let mut index = Index::new(2).unwrap();
        assert!(index.searcher(Search::Exact, 1).is_err());
        assert!(index.add(&[]).is_err() && index.add(&[1.0]).is_err() && index.add(&[1.0, f32::NAN]).is_err());
        assert_eq!(index.add(&[0.0, 0.0, 3.0, 4.0]), Ok(0));
        assert_eq!(index.vectors_of(0), [0.0, 0.0, 0.6, 0.8]);
        assert!(index.searcher(Search::Exact, 0).is_err() && index.searcher(Search::Means { open: 0 }, 1).is_err());
        let mut searcher = index.searcher(Search::Exact, 1).unwrap();
        let mut found = [Found { task: 9, cosine: 0.0 }];
        assert!(index.find(&mut searcher, &[1.0], &mut found).is_err());
        assert!(index.find(&mut searcher, &[1.0, f32::INFINITY], &mut found).is_err());
        assert!(index.find(&mut searcher, &[1.0, 0.0], &mut []).is_err());
        index.find(&mut searcher, &[6.0, 8.0], &mut found).unwrap();
        assert_eq!(found, [Found { task: 0, cosine: 1.0 }]);
        // A searcher of a smaller index does not read past it.
        index.add(&[1.0, 0.0]).unwrap();
        assert!(index.find(&mut searcher, &[1.0, 0.0], &mut found).is_err());
    }

    proptest! {
        #[test]
        fn opening_every_task_is_exact(tasks in 1usize..30, m in 1usize..5, width in 1usize..40, seed in any::<u64>()) {
            let index = synthetic(tasks, m, width, Some(3), seed).unwrap();
            let (q, _) = synthetic_queries(&index, 8, seed);
            let cosines = |found: Vec<usize>| -> Vec<f32> {
                // Tasks may tie to rounding (in one dimension all do): what must agree is how near they are.
                let near = |(q, task): (&[f32], &usize)| (index.best_of(&scaled(q), std::iter::once(*task)).cosine * 1e4).round();
                q.chunks_exact(width).zip(&found).map(near).collect()
            };
            let (exact, all) = (find(&index, Search::Exact, &q), find(&index, Search::Means { open: tasks }, &q));
            prop_assert_eq!(cosines(exact), cosines(all));
        }
    }
}
