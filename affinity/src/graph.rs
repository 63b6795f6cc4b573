//! The nearest task among many through a graph of neighbours (HNSW), with the feature `ann`.
//!
//! A static set of more than 10 000 tasks is what it is for: a query costs the logarithm of their number, the build costs
//! seconds to minutes. Vectors enter one after another in the order of the index; the graph names the nearest
//! [`VECTORS`], their owners are ranked exactly. Source: section 10.4 of the method; Malkov and Yashunin, "Efficient and
//! robust approximate nearest neighbor search using hierarchical navigable small world graphs" (2018); the crate
//! `hnsw_rs`.
//!
//! Determinism: levels come from a generator that the crate seeds with a constant, insertion runs on the calling thread,
//! and nothing is drawn in a search, so the same build, instruction set and order of tasks give the same answers. Another
//! version of the crate may draw other levels; another order of tasks is another graph.
//!
//! Memory: every distinct vector lies here twice, `8 d` bytes of `d` values, beside the index's own `4 d`: once in the
//! crate's links, once as the key that finds equal vectors again.
//!
//! ```
//! use tsn_affinity_math::graph::Graph;
//! use tsn_affinity_math::index::Index;
//!
//! let mut index = Index::new(2)?;
//! index.add(&[1.0, 0.0])?;
//! index.add(&[0.0, 1.0])?;
//! assert_eq!(Graph::new(&index)?.find(&index, &[0.1, 5.0])?.task, 1);
//! # Ok::<(), tsn_affinity_math::Error>(())
//! ```

use crate::error::{Error, Result};
use crate::index::{Found, Index, lanes, scale_query};
use hnsw_rs::prelude::{Distance, Hnsw};
use std::collections::BTreeSet;

/// Links of a vector in an upper layer; twice as many in the lowest.
pub const LINKS: usize = 16;
/// Vectors that are kept in view while one is inserted.
pub const BUILD: usize = 200;
/// Vectors that are kept in view during a query.
pub const SEARCH: usize = 64;
/// Nearest vectors whose owners are candidates.
pub const VECTORS: usize = 32;
/// Most tasks that are ranked exactly.
pub const TASKS: usize = 8;
/// Layers at most: all that the crate has.
const LAYERS: usize = 16;

/// A graph over the vectors of an [`Index`].
pub struct Graph {
    links: Hnsw<'static, f32, OneMinusCosine>,
    width: usize,
    tasks: usize,
    vectors: usize,
    /// Bits of the linked vectors. Equal ones are linked once, for their first owner: more of them than a vector has
    /// links would fill those of each other and cut everything else off. They are kept as long as the graph, to grow it:
    /// `4 d` bytes of each vector of `d` values beside those of the index and of the links, and its place in the tree.
    linked: BTreeSet<Vec<u32>>,
}

/// `max(0, 1 - <a, b>)` of vectors of length 1: rounding must not make it negative, which the crate refuses.
struct OneMinusCosine;

impl Distance<f32> for OneMinusCosine {
    fn eval(&self, a: &[f32], b: &[f32]) -> f32 {
        (1.0 - lanes(a, b)).max(0.0)
    }
}

impl Graph {
    /// Links all vectors of an index. Cost: about `n log n` cosines of a few hundred.
    ///
    /// # Errors
    /// [`Error::Size`] if there are 2^31 vectors or more.
    pub fn new(index: &Index) -> Result<Graph> {
        let links = Hnsw::new(LINKS, index.vectors(), LAYERS, BUILD, OneMinusCosine);
        let mut graph = Graph { links, width: index.width(), tasks: 0, vectors: 0, linked: BTreeSet::new() };
        graph.add(index)?;
        Ok(graph)
    }

    /// Links the vectors of those tasks of an index that came after the ones the graph has; says how many tasks. The
    /// graph that grew is the one that [`Graph::new`] makes of all.
    ///
    /// # Errors
    /// As [`Graph::new`], and [`Error::Length`] if the index has another width or fewer tasks.
    pub fn add(&mut self, index: &Index) -> Result<usize> {
        self.of_width(index)?;
        if index.tasks() < self.tasks {
            return Err(Error::Length { what: "index of the graph", expected: self.tasks, found: index.tasks() });
        }
        if i32::try_from(index.vectors()).is_err() {
            let why = format!("{} vectors, at most {}", index.vectors(), i32::MAX);
            return Err(Error::Size { what: "graph", why });
        }
        let added = index.tasks() - self.tasks;
        for task in self.tasks..index.tasks() {
            for vector in index.vectors_of(task).chunks_exact(self.width) {
                if self.linked.insert(vector.iter().map(|x| x.to_bits()).collect()) {
                    self.links.insert((vector, self.vectors));
                }
                self.vectors += 1;
            }
        }
        self.tasks = index.tasks();
        Ok(added)
    }

    /// Number of tasks.
    pub fn tasks(&self) -> usize {
        self.tasks
    }

    /// Up to [`TASKS`] owners of the nearest [`VECTORS`] vectors that the graph finds, with their exact cosines, best first;
    /// the lower task first on ties among them. Of tasks that share a vector, the graph sees the lowest by it. Of more
    /// than 32 vectors that are all but equal it may miss what lies elsewhere.
    ///
    /// # Errors
    /// [`Error::Length`] if the index holds other tasks or the query has another width, [`Error::Range`] if it has a
    /// value that is not finite, [`Error::Empty`] without tasks.
    pub fn nearest(&self, index: &Index, q: &[f32]) -> Result<Vec<Found>> {
        self.of_width(index)?;
        for (what, expected, found) in
            [("index of the graph", self.tasks, index.tasks()), ("query", self.width, q.len())]
        {
            if expected != found {
                return Err(Error::Length { what, expected, found });
            }
        }
        if self.tasks == 0 {
            return Err(Error::Empty { what: "index" });
        }
        let mut scaled = vec![0.0; q.len()];
        scale_query(q, &mut scaled)?;
        let mut owners: Vec<usize> = Vec::with_capacity(TASKS);
        for near in self.links.search(&scaled, VECTORS, SEARCH) {
            let owner = index.owner(near.d_id);
            if owners.len() < TASKS && !owners.contains(&owner) {
                owners.push(owner);
            }
        }
        let mut found: Vec<Found> = owners.iter().map(|task| index.best_of(&scaled, std::iter::once(*task))).collect();
        found.sort_by(|a, b| b.cosine.total_cmp(&a.cosine).then(a.task.cmp(&b.task)));
        Ok(found)
    }

    /// The first of [`Graph::nearest`].
    ///
    /// # Errors
    /// As [`Graph::nearest`].
    pub fn find(&self, index: &Index, q: &[f32]) -> Result<Found> {
        self.nearest(index, q)?.first().copied().ok_or(Error::Empty { what: "answer of the graph" })
    }

    fn of_width(&self, index: &Index) -> Result<()> {
        let (expected, found) = (self.width, index.width());
        if expected == found { Ok(()) } else { Err(Error::Length { what: "vectors of the index", expected, found }) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::index::{Search, synthetic, synthetic_queries};

    fn bits(graph: &Graph, index: &Index, q: &[f32]) -> Vec<(usize, u32)> {
        let each = q.chunks_exact(index.width()).flat_map(|q| graph.nearest(index, q).unwrap());
        each.map(|found| (found.task, found.cosine.to_bits())).collect()
    }

    #[test]
    fn it_agrees_with_exact_search() {
        for families in [Some(20), None] {
            let index = synthetic(400, 8, 32, families, 5).unwrap();
            let (q, _) = synthetic_queries(&index, 200, 6);
            let mut exact = vec![Found { task: 0, cosine: 0.0 }; 200];
            index.find(&mut index.searcher(Search::Exact, 200).unwrap(), &q, &mut exact).unwrap();
            let graph = Graph::new(&index).unwrap();
            let near: Vec<Vec<Found>> = q.chunks_exact(32).map(|q| graph.nearest(&index, q).unwrap()).collect();
            let agree = near.iter().zip(&exact).filter(|(near, exact)| near[0].task == exact.task).count();
            let recall = near.iter().zip(&exact).filter(|(near, e)| near.iter().any(|n| n.task == e.task)).count();
            assert!(agree >= 196 && recall >= 198, "{families:?}: {agree} and {recall} of 200");
            assert!(near.iter().all(|n| n.len() <= TASKS && n.is_sorted_by(|a, b| a.cosine >= b.cosine)));
        }
    }

    #[test]
    fn equal_builds_and_growth_give_equal_bits() {
        let index = synthetic(120, 4, 16, Some(6), 1).unwrap();
        let (q, _) = synthetic_queries(&index, 60, 2);
        let (first, again) = (Graph::new(&index).unwrap(), Graph::new(&index).unwrap());
        assert_eq!(bits(&first, &index, &q), bits(&again, &index, &q));
        let mut grown = Graph::new(&synthetic(50, 4, 16, Some(6), 1).unwrap()).unwrap();
        assert_eq!((grown.add(&index), grown.tasks()), (Ok(70), 120));
        assert_eq!(bits(&first, &index, &q), bits(&grown, &index, &q));
    }

    #[test]
    fn few_equal_and_zero_vectors_are_found() {
        let mut index = Index::new(2).unwrap();
        let empty = Graph::new(&index).unwrap();
        assert_eq!(empty.find(&index, &[1.0, 0.0]), Err(Error::Empty { what: "index" }));
        // Growing one task at a time passes every small size, and levels in any order.
        let mut graph = empty;
        for task in 0..40 {
            index.add(&[1.0 + task as f32, 0.0]).unwrap();
            assert_eq!(graph.add(&index), Ok(1));
            let found = graph.find(&index, &[3.0, 0.0]).unwrap();
            assert_eq!(found, Found { task: 0, cosine: 1.0 }, "{task}");
        }
        index.add(&[0.0, 0.0, 0.0, -2.0]).unwrap();
        graph.add(&index).unwrap();
        assert_eq!(graph.find(&index, &[0.0, -1e20]).unwrap(), Found { task: 40, cosine: 1.0 });
        assert_eq!(graph.find(&index, &[0.0, 0.0]).unwrap().cosine, 0.0);
    }

    #[test]
    fn bad_input_is_named() {
        let index = synthetic(5, 2, 3, None, 0).unwrap();
        let mut graph = Graph::new(&index).unwrap();
        for q in [[f32::NAN, 0.0, 0.0], [0.0, f32::INFINITY, 0.0]] {
            assert!(matches!(graph.find(&index, &q), Err(Error::Range { .. })));
        }
        assert!(matches!(graph.find(&index, &[0.0; 2]), Err(Error::Length { what: "query", .. })));
        let other = synthetic(6, 2, 3, None, 0).unwrap();
        assert!(matches!(graph.find(&other, &[0.0; 3]), Err(Error::Length { what: "index of the graph", .. })));
        assert!(matches!(graph.add(&synthetic(4, 2, 3, None, 0).unwrap()), Err(Error::Length { .. })));
        assert!(matches!(graph.add(&synthetic(9, 2, 4, None, 0).unwrap()), Err(Error::Length { .. })));
    }
}
