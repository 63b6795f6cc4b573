//! The nearest task among many through a graph of neighbours (HNSW).
//!
//! A static set of more than 10 000 tasks is what it is for: a query costs the logarithm of their number, the build costs
//! seconds to minutes. Vectors enter one after another in the order of the index. Each has a level, drawn so that a layer
//! holds a sixteenth of the one below it, and links to near vectors in every layer up to its level. A search walks down the
//! layers, each time from the nearest vector it found in the one above; the owners of the nearest [`VECTORS`] of the lowest
//! layer are ranked exactly. Source: section 10.4 of the method; Malkov and Yashunin, "Efficient and robust approximate
//! nearest neighbor search using hierarchical navigable small world graphs" (2018).
//!
//! Determinism: a vector's level is a function of its number, insertion runs on the calling thread, and nothing is drawn in
//! a search, so the same build, instruction set and order of tasks give the same answers; another order of tasks is another
//! graph.
//!
//! Memory: 64 to 128 bytes of links for each vector and two lists' heads; the vectors themselves are those of the index.
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
use engine::kernels::philox::{Rng, Stream};
use std::cmp::{Ordering, Reverse};
use std::collections::BinaryHeap;

/// Links that a vector begins with in each of its layers, and the most it has in an upper one; twice as many in the lowest.
pub const LINKS: usize = 16;
/// Vectors that are kept in view while one is inserted.
pub const BUILD: usize = 200;
/// Vectors that are kept in view during a query.
pub const SEARCH: usize = 64;
/// Nearest vectors whose owners are candidates.
pub const VECTORS: usize = 32;
/// Most tasks that are ranked exactly.
pub const TASKS: usize = 8;

/// A graph over the vectors of an [`Index`].
pub struct Graph {
    width: usize,
    tasks: usize,
    /// `links[vector][layer]`: numbers of vectors. A vector that is equal to an earlier one has no layers and is not found:
    /// its first owner stands for it. More equal vectors than a vector has links would fill those of each other and cut
    /// everything else off.
    links: Vec<Vec<Vec<u32>>>,
    /// The first vector of the highest level, where every search begins.
    top: u32,
}

/// A vector as seen from another one. The nearer is the greater; the lower number on ties.
#[derive(Clone, Copy, PartialEq)]
struct Near {
    cosine: f32,
    vector: u32,
}

impl Eq for Near {}

impl Ord for Near {
    fn cmp(&self, other: &Near) -> Ordering {
        self.cosine.total_cmp(&other.cosine).then(other.vector.cmp(&self.vector))
    }
}

impl PartialOrd for Near {
    fn partial_cmp(&self, other: &Near) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Graph {
    /// Links all vectors of an index. Cost: some thousand cosines for each.
    ///
    /// # Errors
    /// [`Error::Size`] if there are 2^32 vectors or more.
    pub fn new(index: &Index) -> Result<Graph> {
        let mut graph = Graph { width: index.width(), tasks: 0, links: Vec::new(), top: 0 };
        graph.add(index)?;
        Ok(graph)
    }

    /// Links the vectors of those tasks of an index that came after the ones the graph has; says how many tasks. The
    /// graph that grew is the one that [`Graph::new`] makes of all.
    ///
    /// # Errors
    /// As [`Graph::new`], and [`Error::Length`] if the index has another width, fewer tasks or fewer vectors of them.
    pub fn add(&mut self, index: &Index) -> Result<usize> {
        self.of_width(index)?;
        if index.tasks() < self.tasks {
            return Err(Error::Length { what: "index of the graph", expected: self.tasks, found: index.tasks() });
        }
        self.of_vectors(index.vectors_before(self.tasks))?;
        let Ok(vectors) = u32::try_from(index.vectors()) else {
            let why = format!("{} vectors, at most {}", index.vectors(), u32::MAX);
            return Err(Error::Size { what: "graph", why });
        };
        for vector in self.links.len() as u32..vectors {
            self.link(index, vector);
        }
        let added = index.tasks() - self.tasks;
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
    /// [`Error::Length`] if the index holds another number of tasks or vectors or the query has another width,
    /// [`Error::Range`] if it has a value that is not finite, [`Error::Empty`] without tasks.
    pub fn nearest(&self, index: &Index, q: &[f32]) -> Result<Vec<Found>> {
        self.of_width(index)?;
        for (what, expected, found) in
            [("index of the graph", self.tasks, index.tasks()), ("query", self.width, q.len())]
        {
            if expected != found {
                return Err(Error::Length { what, expected, found });
            }
        }
        self.of_vectors(index.vectors())?;
        if self.tasks == 0 {
            return Err(Error::Empty { what: "index" });
        }
        let mut scaled = vec![0.0; q.len()];
        scale_query(q, &mut scaled)?;
        let start = self.descend(index, &scaled, 0);
        let mut owners: Vec<usize> = Vec::with_capacity(TASKS);
        for near in self.walk(index, &scaled, &[start], 0, SEARCH).iter().take(VECTORS) {
            let owner = index.owner(near.vector as usize);
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

    /// The tasks of the graph have as many vectors as it links: another index of as many tasks may have fewer.
    fn of_vectors(&self, found: usize) -> Result<()> {
        let expected = self.links.len();
        if expected == found { Ok(()) } else { Err(Error::Length { what: "vectors of the graph", expected, found }) }
    }

    /// Enters the next vector: links to near vectors that lie in different directions from it, and back.
    fn link(&mut self, index: &Index, vector: u32) {
        let own = index.vector(vector as usize);
        let mut layers = vec![Vec::new(); level(vector) + 1];
        if vector > 0 {
            let mut near = vec![self.descend(index, own, layers.len() - 1)];
            for layer in (0..layers.len().min(self.layers())).rev() {
                near = self.walk(index, own, &near, layer, BUILD);
                if near.iter().any(|n| index.vector(n.vector as usize) == own) {
                    self.links.push(Vec::new());
                    return;
                }
                layers[layer] = spread(index, &near, LINKS);
            }
        }
        for (layer, links) in layers.iter().enumerate() {
            links.iter().for_each(|from| self.link_back(index, layer, *from, vector));
        }
        if layers.len() > self.layers() {
            self.top = vector;
        }
        self.links.push(layers);
    }

    /// A link in one direction; if that is one too many, those that lie in different directions stay.
    fn link_back(&mut self, index: &Index, layer: usize, from: u32, to: u32) {
        let most = if layer == 0 { 2 * LINKS } else { LINKS };
        let links = &mut self.links[from as usize][layer];
        links.push(to);
        if links.len() > most {
            let own = index.vector(from as usize);
            let mut near: Vec<Near> = links.iter().map(|to| seen_from(index, own, *to)).collect();
            near.sort_unstable_by(|a, b| b.cmp(a));
            *links = spread(index, &near, most);
        }
    }

    fn layers(&self) -> usize {
        self.links.get(self.top as usize).map_or(0, Vec::len)
    }

    /// The nearest vector to `q` that is found in the layers above `layer`, or where a search begins if there are none.
    fn descend(&self, index: &Index, q: &[f32], layer: usize) -> Near {
        let begin = seen_from(index, q, self.top);
        (layer + 1..self.layers()).rev().fold(begin, |near, layer| self.walk(index, q, &[near], layer, 1)[0])
    }

    /// The nearest `keep` vectors to `q` that a walk along the links of a layer finds, nearest first. It goes on from the
    /// nearest one whose links were not followed yet, until that is farther than all that are kept.
    fn walk(&self, index: &Index, q: &[f32], from: &[Near], layer: usize, keep: usize) -> Vec<Near> {
        let mut met = vec![0u64; self.links.len().div_ceil(64)];
        let mut meet = |vector: u32| {
            let (word, bit) = (&mut met[vector as usize / 64], 1 << (vector % 64));
            let first = *word & bit == 0;
            *word |= bit;
            first
        };
        let mut open: BinaryHeap<Near> = from.iter().copied().collect();
        let mut kept: BinaryHeap<Reverse<Near>> = from.iter().copied().map(Reverse).collect();
        from.iter().for_each(|near| _ = meet(near.vector));
        while let Some(near) = open.pop() {
            if kept.len() >= keep && kept.peek().is_some_and(|Reverse(last)| near < *last) {
                break;
            }
            for next in &self.links[near.vector as usize][layer] {
                if !meet(*next) {
                    continue;
                }
                let next = seen_from(index, q, *next);
                if kept.len() < keep || kept.peek().is_some_and(|Reverse(last)| next > *last) {
                    open.push(next);
                    kept.push(Reverse(next));
                    if kept.len() > keep {
                        kept.pop();
                    }
                }
            }
        }
        // Ascending in `Reverse` is from the nearest on.
        kept.into_sorted_vec().into_iter().map(|Reverse(near)| near).collect()
    }
}

fn seen_from(index: &Index, q: &[f32], vector: u32) -> Near {
    Near { cosine: lanes(q, index.vector(vector as usize)), vector }
}

/// Up to `most` of the vectors near another one, nearest first, without those that are as near to one taken before.
fn spread(index: &Index, near: &[Near], most: usize) -> Vec<u32> {
    let mut taken: Vec<u32> = Vec::with_capacity(most);
    for Near { cosine, vector } in near {
        let own = index.vector(*vector as usize);
        if taken.len() < most && taken.iter().all(|other| lanes(own, index.vector(*other as usize)) < *cosine) {
            taken.push(*vector);
        }
    }
    taken
}

/// The highest layer of a vector: each is left for the next one with probability 1 / [`LINKS`].
fn level(vector: u32) -> usize {
    let mut rng = Rng::new(0, Stream::Routing, [vector, 0]);
    (0..15).take_while(|_| rng.below(LINKS as u64) == 0).count()
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
        // As many tasks, or more, of fewer vectors: their numbers are not those of the links.
        let fewer = |tasks| synthetic(tasks, 1, 3, None, 0).unwrap();
        let refused =
            |result| matches!(result, Err(Error::Length { what: "vectors of the graph", expected: 10, found: 5 }));
        assert!(refused(graph.find(&fewer(5), &[0.0; 3]).map(|found| found.task)));
        assert!(refused(graph.add(&fewer(9))));
        assert!(matches!(graph.add(&synthetic(9, 2, 4, None, 0).unwrap()), Err(Error::Length { .. })));
    }
}
