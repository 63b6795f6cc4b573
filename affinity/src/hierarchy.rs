//! Clusters of tasks: average linkage on a matrix of distances, a medoid for each cluster, and routing that opens the
//! best clusters only. Source: section 10.5 of the method.

use crate::error::{Error, Result, in_range};
use crate::index::{Found, Index, lanes, scale_query, unit};

/// Tasks grouped by distance. A task joins the cluster of the nearest medoid, or founds one; when their number has
/// doubled since the last time, all are clustered anew.
#[derive(Clone, Debug, PartialEq)]
pub struct Clusters {
    /// Two clusters closer than this on average are one.
    limit: f64,
    members: Vec<Vec<usize>>,
    medoids: Vec<usize>,
    /// Direction of the sum of the means of each cluster's members, each of `width` numbers.
    centres: Vec<Vec<f32>>,
    width: usize,
    tasks: usize,
    /// Tasks when all were clustered last.
    clustered: usize,
}

impl Clusters {
    /// Clusters the `n` tasks of an index by `distance[n, n]` with average linkage, cut at `limit`. Ties: the pair of
    /// lower tasks first.
    ///
    /// The matrix is taken as symmetric: `(u, v)` and `(v, u)` are averaged. Cost O(n²) for most matrices, O(n³)
    /// at worst; twice the matrix in memory.
    ///
    /// # Errors
    /// [`Error::Length`] if the matrix is not that of the index's tasks, [`Error::Range`] for a distance or limit that
    /// is negative or not finite.
    pub fn new(index: &Index, distance: &[f64], limit: f64) -> Result<Clusters> {
        in_range("cluster limit", limit, "the numbers from 0", |v| v >= 0.0)?;
        let (members, medoids, centres) = (Vec::new(), Vec::new(), Vec::new());
        let width = index.width();
        let mut clusters = Clusters { limit, members, medoids, centres, width, tasks: 0, clustered: 0 };
        clusters.rebuild(index, distance)?;
        Ok(clusters)
    }

    /// Adds the last of the `n` tasks of an index to clusters of the others, given `distance[n, n]`; true if all were
    /// clustered anew.
    ///
    /// # Errors
    /// As [`Clusters::new`], and [`Error::Length`] if other than one task is new.
    pub fn add(&mut self, index: &Index, distance: &[f64]) -> Result<bool> {
        let n = side(index, distance)?;
        self.of_width(index)?;
        if n != self.tasks + 1 {
            return Err(Error::Length { what: "side of the distances", expected: self.tasks + 1, found: n });
        }
        if n >= 2 * self.clustered {
            self.rebuild(index, distance)?;
            return Ok(true);
        }
        let new = self.tasks;
        let far = |medoid: &usize| between(distance, n, *medoid, new);
        let nearest = (0..self.medoids.len()).min_by(|a, b| far(&self.medoids[*a]).total_cmp(&far(&self.medoids[*b])));
        match nearest.filter(|c| far(&self.medoids[*c]) < self.limit) {
            Some(c) => {
                self.members[c].push(new);
                self.medoids[c] = medoid(distance, n, &self.members[c]);
                self.centres[c] = centre(index, &self.members[c]);
            }
            None => {
                self.members.push(vec![new]);
                self.medoids.push(new);
                self.centres.push(centre(index, &[new]));
            }
        }
        self.tasks = n;
        Ok(false)
    }

    fn rebuild(&mut self, index: &Index, distance: &[f64]) -> Result<()> {
        let n = side(index, distance)?;
        // Mean distances between clusters, kept up to date by the weighted average of Lance and Williams.
        let mut mean: Vec<f64> = (0..n * n).map(|at| between(distance, n, at / n, at % n)).collect();
        let mut members: Vec<Vec<usize>> = (0..n).map(|task| vec![task]).collect();
        let mut alive: Vec<usize> = (0..n).collect();
        // The nearest later cluster of each: a merge changes few of them, so that n² steps do for most matrices.
        let nearest_of = |mean: &[f64], alive: &[usize], a: usize| {
            let later = &alive[alive.partition_point(|b| *b <= a)..];
            let best = later.iter().map(|b| (mean[a * n + b], *b)).min_by(|x, y| x.0.total_cmp(&y.0));
            best.unwrap_or((f64::INFINITY, n))
        };
        let mut nearest: Vec<(f64, usize)> = (0..n).map(|a| nearest_of(&mean, &alive, a)).collect();
        loop {
            let best = alive.iter().map(|a| (nearest[*a].0, *a)).min_by(|x, y| x.0.total_cmp(&y.0));
            let Some((_, a)) = best.filter(|(d, _)| *d < self.limit) else { break };
            let b = nearest[a].1;
            let (of_a, of_b) = (members[a].len() as f64, members[b].len() as f64);
            for c in alive.iter().filter(|c| **c != a && **c != b) {
                let joined = (of_a * mean[a * n + c] + of_b * mean[b * n + c]) / (of_a + of_b);
                (mean[a * n + c], mean[c * n + a]) = (joined, joined);
            }
            let moved = std::mem::take(&mut members[b]);
            members[a].extend(moved);
            alive.retain(|c| *c != b);
            for c in alive.iter().copied().filter(|c| *c < b) {
                let (least, at) = nearest[c];
                let d = mean[c * n + a];
                if c == a || at == a || at == b {
                    nearest[c] = nearest_of(&mean, &alive, c);
                } else if c < a && (d < least || d == least && a < at) {
                    nearest[c] = (d, a);
                }
            }
        }
        members.retain(|list| !list.is_empty());
        members.iter_mut().for_each(|list| list.sort_unstable());
        self.medoids = members.iter().map(|list| medoid(distance, n, list)).collect();
        self.centres = members.iter().map(|list| centre(index, list)).collect();
        (self.members, self.tasks, self.clustered) = (members, n, n);
        Ok(())
    }

    fn of_width(&self, index: &Index) -> Result<()> {
        let (expected, found) = (self.width, index.width());
        if expected == found { Ok(()) } else { Err(Error::Length { what: "vectors of the index", expected, found }) }
    }

    /// Members of each cluster.
    pub fn members(&self) -> &[Vec<usize>] {
        &self.members
    }

    /// The member of each cluster that is closest to the others.
    pub fn medoids(&self) -> &[usize] {
        &self.medoids
    }

    /// The nearest task to a query among the members of the `open` clusters whose mean prototype is nearest. With as many
    /// as there are clusters this is the nearest task of all.
    ///
    /// # Errors
    /// [`Error::Length`] if the index holds other tasks or the query has another width; [`Error::Range`] if it has a
    /// value that is not finite; [`Error::Empty`] if nothing is opened.
    pub fn find(&self, index: &Index, q: &[f32], open: usize) -> Result<Found> {
        self.of_width(index)?;
        for (what, expected, found) in
            [("index of the clusters", self.tasks, index.tasks()), ("query", index.width(), q.len())]
        {
            if expected != found {
                return Err(Error::Length { what, expected, found });
            }
        }
        if open == 0 || self.members.is_empty() {
            return Err(Error::Empty { what: "list of opened clusters" });
        }
        let mut scaled = vec![0.0; q.len()];
        scale_query(q, &mut scaled)?;
        let cosine = |(c, centre): (usize, &Vec<f32>)| (lanes(&scaled, centre), c);
        let mut order: Vec<(f32, usize)> = self.centres.iter().enumerate().map(cosine).collect();
        order.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
        Ok(index.best_of(&scaled, order.iter().take(open).flat_map(|(_, c)| self.members[*c].iter().copied())))
    }
}

/// Direction of the sum of the means of some tasks.
fn centre(index: &Index, members: &[usize]) -> Vec<f32> {
    let sum = |j: usize| members.iter().map(|task| f64::from(index.mean_of(*task)[j])).sum::<f64>();
    let sums: Vec<f64> = (0..index.width()).map(sum).collect();
    unit(sums.into_iter()).collect()
}

fn between(distance: &[f64], n: usize, a: usize, b: usize) -> f64 {
    0.5 * (distance[a * n + b] + distance[b * n + a])
}

/// The member of least summed distance, the lower one on ties.
fn medoid(distance: &[f64], n: usize, members: &[usize]) -> usize {
    let sum = |task: &usize| members.iter().map(|other| between(distance, n, *task, *other)).sum::<f64>();
    members.iter().copied().min_by(|a, b| sum(a).total_cmp(&sum(b))).unwrap_or(0)
}

/// Tasks of an index, if these are the distances between them.
fn side(index: &Index, distance: &[f64]) -> Result<usize> {
    let n = index.tasks();
    if n * n != distance.len() {
        return Err(Error::Length { what: "matrix of distances", expected: n * n, found: distance.len() });
    }
    for d in distance {
        in_range("distance", *d, "the numbers from 0", |d| d >= 0.0)?;
    }
    Ok(n)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::index::{synthetic, synthetic_queries};

    fn line(points: &[f64]) -> Vec<f64> {
        points.iter().flat_map(|a| points.iter().map(move |b| (a - b).abs())).collect()
    }

    /// So many tasks in one dimension: what is clustered is their distances.
    fn tasks(n: usize) -> Index {
        let mut index = Index::new(1).unwrap();
        (0..n).for_each(|task| _ = index.add(&[task as f32]).unwrap());
        index
    }

    #[test]
    fn average_linkage_by_hand() {
        let points = [0.0, 10.0, 1.0, 11.0, 2.0, 30.0];
        let new = |distance: &[f64], limit| Clusters::new(&tasks(distance.len().isqrt()), distance, limit);
        let clusters = new(&line(&points), 5.0).unwrap();
        assert_eq!(clusters.members(), [vec![0, 2, 4], vec![1, 3], vec![5]]);
        assert_eq!(clusters.medoids(), [2, 1, 5]);
        assert_eq!(new(&line(&points), 0.0).unwrap().members().len(), 6);
        assert_eq!(new(&line(&points), 100.0).unwrap().members().len(), 1);
        assert!(new(&[], 1.0).unwrap().members().is_empty());
        assert!(new(&[0.0; 3], 1.0).is_err() && new(&[-1.0], 1.0).is_err());
        assert!(new(&[f64::NAN], 1.0).is_err() && new(&[0.0], f64::NAN).is_err());
    }

    /// Average linkage by its definition: means over all pairs of members, formed anew for every merge.
    fn by_definition(distance: &[f64], n: usize, limit: f64) -> Vec<Vec<usize>> {
        let mut groups: Vec<Vec<usize>> = (0..n).map(|task| vec![task]).collect();
        loop {
            let mean = |a: &[usize], b: &[usize]| {
                let pairs = a.iter().flat_map(|u| b.iter().map(|v| between(distance, n, *u, *v)));
                pairs.sum::<f64>() / (a.len() * b.len()) as f64
            };
            let pairs = (0..groups.len()).flat_map(|a| (a + 1..groups.len()).map(move |b| (a, b)));
            let best = pairs.map(|(a, b)| (mean(&groups[a], &groups[b]), a, b)).min_by(|x, y| x.0.total_cmp(&y.0));
            let Some((_, a, b)) = best.filter(|(d, ..)| *d < limit) else { break };
            let moved = groups.remove(b);
            groups[a].extend(moved);
        }
        groups.iter_mut().for_each(|group| group.sort_unstable());
        groups
    }

    #[test]
    fn linkage_is_its_definition() {
        use engine::kernels::philox::{Rng, Stream};
        for n in 2..40u32 {
            let mut rng = Rng::new(7, Stream::Data, [n, 0]);
            let distance: Vec<f64> = (0..n * n).map(|_| rng.uniform(0.0, 1.0)).collect();
            let n = n as usize;
            for limit in [0.3, 0.45, 0.5] {
                let clusters = Clusters::new(&tasks(n), &distance, limit).unwrap();
                assert_eq!(clusters.members(), by_definition(&distance, n, limit), "{n} {limit}");
            }
        }
    }

    #[test]
    fn tasks_are_added_and_clustered_anew_when_they_double() {
        let points = [0.0, 10.0, 1.0, 11.0, 2.0, 30.0];
        let mut clusters = Clusters::new(&tasks(3), &line(&points[..3]), 5.0).unwrap();
        assert_eq!(clusters.add(&tasks(4), &line(&points[..4])), Ok(false));
        assert_eq!(clusters.members(), [vec![0, 2], vec![1, 3]]);
        assert_eq!(clusters.add(&tasks(5), &line(&points[..5])), Ok(false));
        assert_eq!(clusters.medoids(), [2, 1]);
        assert_eq!(clusters.add(&tasks(6), &line(&points)), Ok(true));
        assert_eq!(clusters, Clusters::new(&tasks(6), &line(&points), 5.0).unwrap());
        assert!(clusters.add(&tasks(6), &line(&points)).is_err());
    }

    #[test]
    fn opening_every_cluster_is_flat() {
        let index = synthetic(36, 4, 16, Some(6), 1).unwrap();
        let mean = |t| index.mean_of(t);
        let distance: Vec<f64> = (0..36 * 36)
            .map(|at| (1.0 - crate::stats::cosine(mean(at / 36), mean(at % 36)).unwrap()).max(0.0))
            .collect();
        let clusters = Clusters::new(&index, &distance, 0.5).unwrap();
        assert!((2..36).contains(&clusters.members().len()), "{}", clusters.members().len());
        let all = clusters.members().len();
        for q in synthetic_queries(&index, 40, 2).0.chunks_exact(16) {
            let mut scaled = [0.0; 16];
            scale_query(q, &mut scaled).unwrap();
            assert_eq!(clusters.find(&index, q, all).unwrap(), index.best_of(&scaled, 0..36));
        }
        assert!(clusters.find(&index, &[0.0; 16], 0).is_err() && clusters.find(&index, &[0.0; 15], 1).is_err());
        assert!(
            clusters.find(&index, &[f32::NAN; 16], 1).is_err() && clusters.find(&index, &[f32::MAX; 16], 1).is_ok()
        );

        let first: Vec<f64> = distance.chunks_exact(36).take(35).flat_map(|row| row[..35].to_vec()).collect();
        let mut grown = Clusters::new(&synthetic(35, 4, 16, Some(6), 1).unwrap(), &first, 0.5).unwrap();
        assert_eq!(grown.add(&index, &distance), Ok(false));
        let centres: Vec<Vec<f32>> = grown.members.iter().map(|list| centre(&index, list)).collect();
        assert_eq!(grown.centres, centres);
        assert!(grown.find(&tasks(36), &[1.0], 1).is_err(), "vectors of another width");
    }
}
