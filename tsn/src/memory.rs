//! What a bank costs: bytes of weights, masks and extras, and the factor over one dense model.
//!
//! Masks and weights are counted from the records, not from a file, so headers and checksums are left out.

use dt::autograd::engine::kernels::BitMask;

use crate::bank::{ActionKind, Bank, Named, TaskRecord};

/// Bytes of a bank, by kind.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Memory {
    /// Weights of all copies, 4 bytes each, without the time embedding.
    pub weights: u64,
    /// Time embeddings of all copies.
    pub time_embedding: u64,
    /// Masks of all tasks as stored, rows padded to 32 bits.
    pub masks_stored: u64,
    /// The same masks without padding: per task, one bit per maskable weight, rounded up to whole bytes.
    pub masks_packed: u64,
    /// Entropy bound of the same masks: what an ideal coder of independent bits would need, rounded up per task.
    pub masks_entropy: u64,
    /// Occupied bits as stored. They are the union of the masks, so an agent can do without.
    pub occupied: u64,
    /// Per-task norms.
    pub norms: u64,
    /// Observation and latent statistics.
    pub statistics: u64,
    /// What recognises tasks that are not named.
    pub routing: u64,
    /// Prototypes and other extra tensors.
    pub extra: u64,
    /// Names, numbers, actions and notes of the task records.
    pub records: u64,
    /// Centres, and codes of 4 bits.
    pub codebooks: u64,
    /// Weights that codes replace, 4 bytes each: part of `weights`, not needed where codebooks are deployed.
    pub coded_weights: u64,
    /// One dense model: the weights of the first copy and the norms of its first task, without the time embedding.
    pub dense: u64,
    /// Time embedding of the first copy.
    pub dense_time_embedding: u64,
    /// Needed only while training: scores of one copy and two AdamW moments for its weights, scores and norms.
    pub training: u64,
    /// Trajectories of earlier tasks that cumulative training needs, too. They are not in a bank: whoever has the tasks
    /// counts them ([`crate::replay::buffer_bytes`]).
    pub replay: u64,
}

/// Whether the time embedding counts. Every factor must say so: it can be most of a model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TimeEmbedding {
    /// In both the bank and the dense model.
    Included,
    /// In neither.
    Excluded,
}

/// How masks are counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Masks {
    /// As in the file: padded rows, and occupied bits.
    Stored,
    /// Without padding and without the derivable occupied bits.
    Packed,
}

impl Memory {
    /// Counts a bank. `is_time_embedding` tells by name which weight tensors are time embeddings.
    pub fn of(bank: &Bank, is_time_embedding: impl Fn(&str) -> bool) -> Memory {
        let mut memory = Memory::default();
        for (c, copy) in bank.copies.iter().enumerate() {
            let (mut maskable, mut dense, mut time) = (0, 0, 0);
            for weight in &copy.weights {
                let bytes = 4 * weight.values.len() as u64;
                *(if is_time_embedding(&weight.name) { &mut time } else { &mut dense }) += bytes;
                if let Some(occupied) = &weight.occupied {
                    maskable += bytes;
                    memory.occupied += word_bytes(occupied);
                }
            }
            memory.weights += dense;
            memory.time_embedding += time;
            let first = bank.tasks.iter().find(|task| task.copy == c);
            let norms = first.map_or(0, |task| tensor_bytes(&task.norms));
            if c == 0 {
                (memory.dense, memory.dense_time_embedding) = (dense + norms, time);
            }
            // One score per maskable weight; weights, scores and norms have two moments each.
            memory.training = memory.training.max(maskable + 2 * (dense + time + maskable + norms));
        }
        for task in &bank.tasks {
            memory.masks_stored += task.masks.iter().map(word_bytes).sum::<u64>();
            memory.masks_entropy += (task.masks.iter().map(entropy_bits).sum::<f64>() / 8.0).ceil() as u64;
            memory.coded_weights += task.codebooks.iter().map(|book| 4 * book.codes.len() as u64).sum::<u64>();
            let own = Added::by(task);
            memory.masks_packed += own.masks;
            memory.norms += own.norms;
            memory.extra += own.extra;
            memory.routing += own.routing;
            memory.statistics += own.statistics;
            memory.records += own.records;
            memory.codebooks += own.codebooks;
        }
        memory
    }

    /// All bytes that must outlive training.
    pub fn persistent(&self, masks: Masks, time: TimeEmbedding) -> u64 {
        let masks = match masks {
            Masks::Stored => self.masks_stored + self.occupied,
            Masks::Packed => self.masks_packed,
        };
        let time = if time == TimeEmbedding::Included { self.time_embedding } else { 0 };
        let weights = self.weights + time + self.codebooks;
        weights + masks + self.norms + self.statistics + self.routing + self.extra + self.records
    }

    /// As [`Memory::persistent`], with codes in place of the weights they stand for.
    pub fn persistent_coded(&self, masks: Masks, time: TimeEmbedding) -> u64 {
        self.persistent(masks, time).saturating_sub(self.coded_weights)
    }

    /// `memory_factor`: persistent bytes over the bytes of one dense model, or `None` for an empty bank.
    pub fn factor(&self, masks: Masks, time: TimeEmbedding) -> Option<f64> {
        let time_bytes = if time == TimeEmbedding::Included { self.dense_time_embedding } else { 0 };
        let dense = self.dense + time_bytes;
        (dense > 0).then(|| self.persistent(masks, time) as f64 / dense as f64)
    }
}

/// Bytes that one task added to a bank, by kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Added {
    /// Its masks, as [`Memory::masks_packed`] counts them.
    pub masks: u64,
    /// Weights that it was the first to take, 4 bytes each. They lie in the copy, which has as many bytes without them.
    pub claimed: u64,
    /// Its own norms.
    pub norms: u64,
    /// Observation and latent statistics.
    pub statistics: u64,
    /// What recognises it where it is not named.
    pub routing: u64,
    /// Prototypes and other extra tensors.
    pub extra: u64,
    /// Its record.
    pub records: u64,
    /// Centres and codes of its claimed weights.
    pub codebooks: u64,
}

impl Added {
    /// Counts a task's record.
    pub fn by(task: &TaskRecord) -> Added {
        let statistics = [&task.obs_mean, &task.obs_std, &task.latent_mean, &task.latent_var];
        let (ActionKind::Discrete { valid: used, .. } | ActionKind::Continuous { active: used, .. }) = &task.action;
        let notes = task.notes.iter().map(|(key, value)| key.len() + value.len()).sum::<usize>();
        let books = task.codebooks.iter();
        Added {
            masks: task.masks.iter().map(|mask| mask.len() as u64).sum::<u64>().div_ceil(8),
            claimed: 4 * task.claimed,
            norms: tensor_bytes(&task.norms),
            statistics: statistics.iter().map(|values| 4 * values.len() as u64).sum(),
            routing: task.online.as_ref().map_or(0, |online| online.bytes()),
            extra: tensor_bytes(&task.extra),
            // Copy, source, action kind and width: 4 bytes each; four f64 and the claimed count: 8 each.
            records: (task.name.len() + 4 * used.len() + notes + 4 * 4 + 5 * 8) as u64,
            codebooks: books.map(|b| 4 * b.centres.len() as u64 + (b.codes.len() as u64).div_ceil(2)).sum(),
        }
    }
}

/// Least bits an ideal coder of independent bits needs for a mask: `n (c log2(1/c) + (1-c) log2(1/(1-c)))`.
pub fn entropy_bits(mask: &BitMask) -> f64 {
    let (n, set) = (mask.len() as f64, mask.count() as f64);
    let part = |count: f64| if count > 0.0 { count * (n / count).log2() } else { 0.0 };
    part(set) + part(n - set)
}

fn word_bytes(mask: &BitMask) -> u64 {
    4 * mask.words().len() as u64
}

fn tensor_bytes(tensors: &[Named]) -> u64 {
    tensors.iter().map(|tensor| 4 * tensor.values.len() as u64).sum()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::bank::{Codebook, CopyRecord, TaskRecord, Weight};

    /// Linear layers `(outputs, inputs)` with bias or without, shared by both benchmarks.
    fn bank(observations: &[(u32, u32)], actions: u32, ae: [u32; 2], head_inputs: u32, steps: u32, obs: usize) -> Bank {
        let mut sizes: Vec<[u32; 2]> = Vec::new();
        for (o, i) in observations {
            sizes.extend([[*o, *i], [1, *o]]);
        }
        sizes.extend([[128, 128], [128, 1], ae, [actions, head_inputs], [1, actions]]);
        for _ in 0..3 {
            sizes.extend([[384, 128], [128, 128], [512, 128], [128, 512]]);
        }
        let mut weights: Vec<Weight> = Vec::new();
        for (at, [rows, cols]) in sizes.iter().copied().enumerate() {
            let values = vec![0.0; (rows * cols) as usize];
            let occupied = Some(BitMask::ones(rows, cols));
            weights.push(Weight { name: format!("w{at}"), rows, cols, values, occupied });
        }
        let time = Weight {
            name: "te".into(),
            rows: steps,
            cols: 128,
            values: vec![0.0; (steps * 128) as usize],
            occupied: None,
        };
        let masks: Vec<BitMask> = sizes.iter().map(|[rows, cols]| BitMask::ones(*rows, *cols)).collect();
        weights.push(time);
        let tasks = (0..10).map(|t| TaskRecord {
            name: format!("t{t}"),
            copy: 0,
            source: None,
            masks: masks.clone(),
            norms: vec![Named::vector("ln", vec![1.0; 1280])],
            obs_mean: vec![0.0; obs],
            obs_std: vec![1.0; obs],
            rtg_scale: 1.0,
            target_return: 1.0,
            action: ActionKind::Discrete { n: actions, valid: (0..actions).collect() },
            keep_ratio: 0.5,
            latent_mean: vec![0.0; 128],
            latent_var: vec![1.0; 128],
            extra: Vec::new(),
            own_loss: 0.0,
            claimed: if t == 0 { masks.iter().map(|m| m.count() as u64).sum() } else { 0 },
            codebooks: Vec::new(),
            online: None,
            notes: BTreeMap::new(),
        });
        Bank { tasks: tasks.collect(), copies: vec![CopyRecord { weights }], ..Bank::default() }
    }

    fn maskable(bank: &Bank) -> usize {
        bank.copies[0].masked().map(|(weight, _)| weight.values.len()).sum()
    }

    #[test]
    fn atari() {
        let convolutions = [(32, 4 * 64), (64, 32 * 16), (64, 64 * 9), (128, 3136)];
        let bank = bank(&convolutions, 18, [18, 128], 128, 27_001, 0);
        bank.check().unwrap();
        assert_eq!(maskable(&bank), 1_090_482);
        let memory = Memory::of(&bank, |name| name == "te");
        assert_eq!(memory.dense, 4 * (1_090_482 + 1_280));
        assert_eq!(memory.dense + memory.dense_time_embedding, 4 * 4_547_890);
        assert_eq!(memory.masks_packed, 10 * 136_311);
        assert_eq!((memory.norms, memory.statistics), (10 * 5_120, 10 * 1_024));
        assert!(memory.masks_stored >= memory.masks_packed && memory.occupied * 10 == memory.masks_stored);
        assert_eq!(memory.training, 4 * 1_090_482 + 8 * (4_547_890 + 1_090_482));
        // Masks add 10/32; norms, statistics and records the rest.
        let factor = memory.factor(Masks::Packed, TimeEmbedding::Excluded).unwrap();
        assert!((1.31..1.33).contains(&factor), "{factor}");
        let whole = memory.factor(Masks::Packed, TimeEmbedding::Included).unwrap();
        assert!((1.07..1.09).contains(&whole), "{whole}");
        let stored = memory.factor(Masks::Stored, TimeEmbedding::Excluded).unwrap();
        assert!(factor < stored && stored < 1.4, "{stored}");
    }

    #[test]
    fn panda() {
        let bank = bank(&[(128, 26)], 4, [128, 4], 128, 50, 26);
        assert_eq!(maskable(&bank), 610_820);
        let memory = Memory::of(&bank, |name| name == "te");
        assert_eq!(memory.dense + memory.dense_time_embedding, 4 * 618_500);
        assert_eq!(memory.masks_packed, 10 * 76_353);
        assert_eq!(memory.statistics, 10 * (8 * 26 + 1_024));
        let factor = memory.factor(Masks::Packed, TimeEmbedding::Excluded).unwrap();
        assert!((1.31..1.35).contains(&factor), "{factor}");
    }

    #[test]
    fn entropy() {
        let half = BitMask::from_flags(10, 100, (0..1000).map(|i| i % 2 == 0));
        assert_eq!(entropy_bits(&half), 1000.0);
        let sparse = BitMask::from_flags(1, 100, (0..100).map(|i| i < 8));
        assert!((entropy_bits(&sparse) / 100.0 - 0.402).abs() < 5e-4);
        assert_eq!(entropy_bits(&BitMask::ones(3, 5)) + entropy_bits(&BitMask::zeros(0, 5)), 0.0);
    }

    #[test]
    fn codes_replace_weights() {
        let mut bank = bank(&[(128, 26)], 4, [128, 4], 128, 50, 26);
        let plain = Memory::of(&bank, |name| name == "te");
        let book = Codebook { tensor: "w0".into(), centres: vec![0.0; 16], codes: vec![0; 128 * 26] };
        bank.tasks[0].codebooks.push(book);
        bank.check().unwrap();
        let coded = Memory::of(&bank, |name| name == "te");
        let (masks, time) = (Masks::Packed, TimeEmbedding::Included);
        let saved = plain.persistent(masks, time) - coded.persistent_coded(masks, time);
        assert_eq!(saved, 128 * 26 * 4 - 128 * 26 / 2 - 64);
        assert_eq!(Memory::of(&Bank::default(), |_| false).factor(masks, time), None);
    }
}
