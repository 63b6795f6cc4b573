//! Some episodes of a task as trajectories of their own.

use super::episodes::{Actions, Episodes, Observations, Rewards};
use crate::env::ObsShape;
use crate::error::Error;

impl Episodes {
    /// Some of the episodes, in the order of `list`, with their observations in memory; rewards stay as they count here.
    ///
    /// # Errors
    /// As [`Episodes::new`] for an empty list; [`Error::Disk`] if rows in a file cannot be read.
    ///
    /// # Panics
    /// If there is no such episode.
    pub fn subset(&self, list: &[usize]) -> Result<Episodes, Error> {
        let rows: Vec<usize> = list.iter().flat_map(|e| self.rows_of(*e)).collect();
        let shape = self.observations().shape();
        let mut values = vec![0.0; rows.len() * shape.values()];
        for (row, to) in rows.iter().zip(values.chunks_exact_mut(shape.values())) {
            self.observations().read_row(*row, to);
        }
        self.intact()?;
        let observations = match shape {
            ObsShape::Vector { dim } => Observations::Vectors { dim, values },
            ObsShape::Frame { height, width } => {
                // Pixels were read as whole numbers from 0 to 255.
                Observations::Frames { height, width, bytes: values.iter().map(|pixel| *pixel as u8).collect() }
            }
        };
        let actions = match self.actions() {
            Actions::Discrete { count, ids } => {
                Actions::Discrete { count: *count, ids: rows.iter().map(|row| ids[*row]).collect() }
            }
            Actions::Continuous { dim, values } => {
                let each = rows.iter().flat_map(|row| &values[row * dim..(row + 1) * dim]);
                Actions::Continuous { dim: *dim, values: each.copied().collect() }
            }
        };
        let rewards = rows.iter().map(|row| self.rewards()[*row]).collect();
        let lengths: Vec<u32> = list.iter().map(|e| self.rows_of(*e).len() as u32).collect();
        Episodes::new(observations, actions, rewards, &lengths, Rewards::AsStored)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_subset_holds_the_rows_of_its_episodes_in_order() {
        let observations = Observations::Vectors { dim: 2, values: (0..12).map(|v| v as f32).collect() };
        let actions = Actions::Discrete { count: 3, ids: vec![0, 1, 2, 0, 1, 2] };
        let rewards = vec![1.0, 2.0, 4.0, 8.0, 16.0, 32.0];
        let all = Episodes::new(observations, actions, rewards, &[1, 3, 2], Rewards::AsStored).unwrap();
        let some = all.subset(&[2, 0]).unwrap();
        assert_eq!((some.count(), some.rows_of(0), some.rows_of(1)), (2, 0..2, 2..3));
        assert_eq!(some.observations().row(0), [8.0, 9.0]);
        assert_eq!(some.actions(), &Actions::Discrete { count: 3, ids: vec![1, 2, 0] });
        assert_eq!(some.returns_to_go(), [48.0, 32.0, 1.0]);
        assert_eq!(all.subset(&[0, 1, 2]).unwrap(), all);
        assert!(all.subset(&[]).is_err());

        let observations = Observations::Frames { height: 1, width: 2, bytes: vec![0, 255, 7, 8] };
        let actions = Actions::Continuous { dim: 2, values: vec![1.0, 2.0, 3.0, 4.0] };
        let all = Episodes::new(observations, actions, vec![0.0; 2], &[1, 1], Rewards::AsStored).unwrap();
        let last = all.subset(&[1]).unwrap();
        assert_eq!(last.observations(), &Observations::Frames { height: 1, width: 2, bytes: vec![7, 8] });
        assert_eq!(last.actions(), &Actions::Continuous { dim: 2, values: vec![3.0, 4.0] });
    }
}
