//! What survives a run: copies of shared weights, and for each task its masks and everything routing and acting need.
//!
//! In the file, tensors are `copy.C.weight.NAME`, `copy.C.occupied.NAME`, `task.T.mask.NAME`, `task.T.norm.NAME`,
//! `task.T.stat.NAME`, `task.T.extra.NAME`, `task.T.centres.NAME`, `task.T.codes.NAME`, `task.T.route.NAME`; everything
//! else is metadata: `format`, `copies`, `tasks`, `config.KEY`, `config_hash`, `parent`, `task.T.FIELD`, `task.T.note.KEY`.
//! Version 2 adds what routing without a task id needs ([`Online`]); a bank of version 1 is read and holds none of it.
//! Masks are U32 `[rows, words]` in the layout of [`BitMask`]; codes are 4 bits, the first in the low half of a byte.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use dt::autograd::engine::kernels::BitMask;

use crate::error::Error;
use crate::file::{TensorFile, short};
use crate::sha256::Sha256;
use codec::join;

mod codec;
mod model;
mod online;

pub use online::Online;

/// Newest format this build reads, and the one it writes.
pub const FORMAT_VERSION: u32 = 2;
/// Most centres of a codebook: a code has 4 bits.
pub const CENTRE_LIMIT: usize = 16;

/// Copies and tasks, as they lie on disk.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Bank {
    /// Settings of the run, serialised by the caller.
    pub config: BTreeMap<String, String>,
    /// Checksum of the bank this one grew from. [`Bank::open`] sets it to the checksum of the file.
    pub parent: Option<String>,
    /// Sets of shared weights.
    pub copies: Vec<CopyRecord>,
    /// Tasks, in the order they were learned.
    pub tasks: Vec<TaskRecord>,
}

/// One set of shared weights.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct CopyRecord {
    /// Weight tensors, in the order of the model. At least one.
    pub weights: Vec<Weight>,
}

/// One shared weight tensor, `[rows, cols]` row major.
#[derive(Clone, Debug, PartialEq)]
pub struct Weight {
    /// Name, unique in its copy.
    pub name: String,
    /// Output features; 1 for a bias.
    pub rows: u32,
    /// Input features.
    pub cols: u32,
    /// `rows * cols` values.
    pub values: Vec<f32>,
    /// For a masked tensor the union of the masks of all tasks of this copy; `None` for an unmasked one.
    pub occupied: Option<BitMask>,
}

/// Everything kept of one task.
#[derive(Clone, Debug, PartialEq)]
pub struct TaskRecord {
    /// Name, unique in the bank.
    pub name: String,
    /// Index of its copy.
    pub copy: usize,
    /// The earlier task the router picked.
    pub source: Option<usize>,
    /// One mask per masked tensor of the copy, in the order of [`CopyRecord::masked`].
    pub masks: Vec<BitMask>,
    /// The task's own LayerNorm weights and biases.
    pub norms: Vec<Named>,
    /// Mean of each observation component; empty if observations are not scaled.
    pub obs_mean: Vec<f32>,
    /// Standard deviation of each observation component; as long as `obs_mean`.
    pub obs_std: Vec<f32>,
    /// Divisor of returns to go, positive.
    pub rtg_scale: f64,
    /// Return asked for when acting.
    pub target_return: f64,
    /// What actions are.
    pub action: ActionKind,
    /// Share of each tensor the task's mask keeps, in `0..=1`.
    pub keep_ratio: f64,
    /// Mean of each latent component over the task memory; empty if not collected.
    pub latent_mean: Vec<f32>,
    /// Variance of each latent component; as long as `latent_mean`.
    pub latent_var: Vec<f32>,
    /// Further tensors: prototypes, dynamics.
    pub extra: Vec<Named>,
    /// Loss on its own validation data when it was finished (`A_self`), in the unit of the task's loss.
    pub own_loss: f64,
    /// Weights claimed first by this task: over all masked tensors, bits of its masks and of no earlier mask.
    pub claimed: u64,
    /// Quantised tensors.
    pub codebooks: Vec<Codebook>,
    /// How the task is recognised where it is not named; `None` in banks of format 1.
    pub online: Option<Online>,
    /// Anything else worth keeping.
    pub notes: BTreeMap<String, String>,
}

/// A named tensor without a mask.
#[derive(Clone, Debug, PartialEq)]
pub struct Named {
    /// Name, unique in its list.
    pub name: String,
    /// Sizes, outermost first.
    pub shape: Vec<u64>,
    /// Values, row major.
    pub values: Vec<f32>,
}

impl Named {
    /// A vector.
    pub fn vector(name: impl Into<String>, values: Vec<f32>) -> Named {
        Named { name: name.into(), shape: vec![values.len() as u64], values }
    }
}

/// What the actions of a task are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ActionKind {
    /// One of `n` actions, of which `valid` exist in this task (ascending, not empty).
    Discrete {
        /// Width of the head.
        n: u32,
        /// Actions of the task.
        valid: Vec<u32>,
    },
    /// A vector of `d` numbers, of which `active` are used (ascending, not empty).
    Continuous {
        /// Width of the head.
        d: u32,
        /// Used components.
        active: Vec<u32>,
    },
}

/// The newly claimed weights of one tensor as codes into at most 16 centres.
#[derive(Clone, Debug, PartialEq)]
pub struct Codebook {
    /// Name of the weight tensor.
    pub tensor: String,
    /// Centres; the stored weights hold exactly these values.
    pub centres: Vec<f32>,
    /// One code per newly claimed weight, row major.
    pub codes: Vec<u8>,
}

impl CopyRecord {
    /// The masked tensors with their occupied bits, in order.
    pub fn masked(&self) -> impl Iterator<Item = (&Weight, &BitMask)> {
        self.weights.iter().filter_map(|weight| Some((weight, weight.occupied.as_ref()?)))
    }
}

impl Bank {
    /// Reads a bank.
    ///
    /// # Errors
    /// [`Error::Io`], [`Error::File`] as [`TensorFile::open`]; [`Error::Version`] for a newer format; [`Error::Bank`] if
    /// its parts contradict each other.
    pub fn open(path: &Path) -> Result<Bank, Error> {
        Bank::from_file(TensorFile::open(path)?)
    }

    /// Writes the bank, replacing an old file in one step, and returns the checksum of the file.
    ///
    /// # Errors
    /// [`Error::Bank`] if the bank would be refused by [`Bank::open`]; [`Error::Io`], [`Error::File`] as
    /// [`TensorWriter::save`](crate::TensorWriter::save).
    pub fn save(&self, path: &Path) -> Result<String, Error> {
        self.to_writer()?.save(path)
    }

    /// SHA-256 of the configuration, as 64 hexadecimal digits.
    pub fn config_hash(&self) -> String {
        let mut hash = Sha256::new();
        for text in self.config.iter().flat_map(|(key, value)| [key, value]) {
            // Lengths first: `ab` and `c` must not hash like `a` and `bc`.
            hash.update(&(text.len() as u64).to_le_bytes());
            hash.update(text.as_bytes());
        }
        hash.finish_hex()
    }

    /// The bits each mask of a task was first to claim, in the order of [`CopyRecord::masked`].
    ///
    /// # Errors
    /// [`Error::Range`] if there is no such task, [`Error::Bank`] if masks contradict each other.
    pub fn newly_claimed(&self, task: usize) -> Result<Vec<BitMask>, Error> {
        let mut found = None;
        self.walk_claims(|at, new| {
            if at == task {
                found = Some(new.to_vec());
            }
            Ok(())
        })?;
        found.ok_or_else(|| Error::Range {
            what: "task",
            expected: format!("below {}", self.tasks.len()),
            found: task.to_string(),
        })
    }

    /// All promises the fields make.
    ///
    /// # Errors
    /// [`Error::Bank`] naming the first one broken.
    pub fn check(&self) -> Result<(), Error> {
        for (c, copy) in self.copies.iter().enumerate() {
            check_copy(c, copy)?;
        }
        unique("tasks", self.tasks.iter().map(|task| &*task.name))?;
        for (t, task) in self.tasks.iter().enumerate() {
            self.check_task(t, task)?;
        }
        let occupied = self.walk_claims(|t, new| self.check_claims(t, new))?;
        for (c, (copy, masks)) in self.copies.iter().zip(&occupied).enumerate() {
            for ((weight, stored), union) in copy.masked().zip(masks) {
                if stored != union {
                    let entry = format!("copy {c}, occupied {:?}", short(&weight.name));
                    let expected = format!("the union of its tasks' masks, {} bits", union.count());
                    return Err(Error::bank(entry, expected, format!("{} bits", stored.count())));
                }
            }
        }
        Ok(())
    }

    fn check_task(&self, t: usize, task: &TaskRecord) -> Result<(), Error> {
        let entry = |part: &str| format!("task {t} {:?}, {part}", short(&task.name));
        let Some(copy) = self.copies.get(task.copy) else {
            return Err(Error::bank(entry("copy"), format!("below {}", self.copies.len()), task.copy.to_string()));
        };
        if let Some(source) = task.source.filter(|source| *source >= t) {
            return Err(Error::bank(entry("source"), "an earlier task", source.to_string()));
        }
        let masked = copy.masked().count();
        if task.masks.len() != masked {
            let expected = format!("{masked}, one per masked tensor of copy {}", task.copy);
            return Err(Error::bank(entry("number of masks"), expected, task.masks.len().to_string()));
        }
        for ((weight, _), mask) in copy.masked().zip(&task.masks) {
            same_shape(&entry(&format!("mask {:?}", short(&weight.name))), weight, mask)?;
        }
        for (part, list) in [("norms", &task.norms), ("extra tensors", &task.extra)] {
            unique(&entry(part), list.iter().map(|named| &*named.name))?;
            for named in list {
                let size = named.shape.iter().try_fold(1u64, |n, size| n.checked_mul(*size));
                if size != Some(named.values.len() as u64) {
                    let expected = format!("a shape of {} values", named.values.len());
                    return Err(Error::bank(entry(&short(&named.name)), expected, format!("{:?}", named.shape)));
                }
            }
        }
        for (part, mean, spread) in
            [("obs_std", &task.obs_mean, &task.obs_std), ("latent_var", &task.latent_mean, &task.latent_var)]
        {
            if mean.len() != spread.len() {
                let expected = format!("{} values, one per mean", mean.len());
                return Err(Error::bank(entry(part), expected, spread.len().to_string()));
            }
        }
        if !(task.rtg_scale.is_finite() && task.rtg_scale > 0.0) {
            return Err(Error::bank(entry("rtg_scale"), "a positive number", task.rtg_scale.to_string()));
        }
        if !task.target_return.is_finite() {
            return Err(Error::bank(entry("target_return"), "a finite number", task.target_return.to_string()));
        }
        if !(0.0..=1.0).contains(&task.keep_ratio) {
            return Err(Error::bank(entry("keep_ratio"), "0..=1", task.keep_ratio.to_string()));
        }
        let (width, used) = match &task.action {
            ActionKind::Discrete { n, valid } => (*n, valid),
            ActionKind::Continuous { d, active } => (*d, active),
        };
        let ascending = used.windows(2).all(|pair| pair[0] < pair[1]);
        if !ascending || used.last().is_none_or(|last| *last >= width) {
            let expected = format!("at least one, ascending, below {width}");
            return Err(Error::bank(entry("actions"), expected, short(&join(used))));
        }
        online::check(t, task)?;
        unique(&entry("codebooks"), task.codebooks.iter().map(|book| &*book.tensor))
    }

    /// The count and the codebooks of a task against the bits it claimed.
    fn check_claims(&self, t: usize, new: &[BitMask]) -> Result<(), Error> {
        let task = &self.tasks[t];
        let entry = |part: &str| format!("task {t} {:?}, {part}", short(&task.name));
        let claimed: u64 = new.iter().map(|mask| mask.count() as u64).sum();
        if claimed != task.claimed {
            return Err(Error::bank(entry("claimed"), format!("{claimed}, from the masks"), task.claimed.to_string()));
        }
        for book in &task.codebooks {
            let part = format!("codebook {:?}", short(&book.tensor));
            let mut masked = self.copies[task.copy].masked().zip(new);
            let Some(((weight, _), new)) = masked.find(|((weight, _), _)| weight.name == book.tensor) else {
                return Err(Error::bank(entry(&part), "the name of a masked tensor", "another"));
            };
            if !(1..=CENTRE_LIMIT).contains(&book.centres.len()) {
                let expected = format!("1..={CENTRE_LIMIT} centres");
                return Err(Error::bank(entry(&part), expected, book.centres.len().to_string()));
            }
            if book.codes.len() != new.count() {
                let expected = format!("{} codes, one per newly claimed weight", new.count());
                return Err(Error::bank(entry(&part), expected, book.codes.len().to_string()));
            }
            // Values first: they end where a mask of many empty rows goes on.
            let claimed = weight.values.iter().zip(new.flags()).filter(|(_, flag)| *flag).map(|(value, _)| value);
            for (code, value) in book.codes.iter().zip(claimed) {
                match book.centres.get(usize::from(*code)) {
                    Some(centre) if centre.to_bits() == value.to_bits() => {}
                    Some(centre) => {
                        let expected = format!("weight {centre:?}, centre {code}");
                        return Err(Error::bank(entry(&part), expected, format!("{value:?}")));
                    }
                    None => {
                        let expected = format!("codes below {}", book.centres.len());
                        return Err(Error::bank(entry(&part), expected, code.to_string()));
                    }
                }
            }
        }
        Ok(())
    }

    /// Calls `visit` with each task's newly claimed bits, in order, and returns the union of masks per copy.
    fn walk_claims(
        &self,
        mut visit: impl FnMut(usize, &[BitMask]) -> Result<(), Error>,
    ) -> Result<Vec<Vec<BitMask>>, Error> {
        let empty = |copy: &CopyRecord| copy.masked().map(|(w, _)| BitMask::zeros(w.rows, w.cols)).collect();
        let mut occupied: Vec<Vec<BitMask>> = self.copies.iter().map(empty).collect();
        for (t, task) in self.tasks.iter().enumerate() {
            let entry = || format!("task {t} {:?}, masks", short(&task.name));
            let Some(union) = occupied.get_mut(task.copy).filter(|union| union.len() == task.masks.len()) else {
                return Err(Error::bank(entry(), "one per masked tensor of its copy", task.masks.len().to_string()));
            };
            let mut new = Vec::with_capacity(union.len());
            for (union, mask) in union.iter_mut().zip(&task.masks) {
                if (union.rows(), union.cols()) != (mask.rows(), mask.cols()) {
                    let shape = |mask: &BitMask| format!("[{}, {}]", mask.rows(), mask.cols());
                    return Err(Error::bank(entry(), shape(union), shape(mask)));
                }
                new.push(mask.and_not(union));
                *union = union.or(mask);
            }
            visit(t, &new)?;
        }
        Ok(occupied)
    }
}

fn check_copy(c: usize, copy: &CopyRecord) -> Result<(), Error> {
    if copy.weights.is_empty() {
        return Err(Error::bank(format!("copy {c}"), "at least one weight tensor", "none"));
    }
    unique(&format!("copy {c}, weights"), copy.weights.iter().map(|weight| &*weight.name))?;
    for weight in &copy.weights {
        let entry = |part: &str| format!("copy {c}, {part} {:?}", short(&weight.name));
        if u64::from(weight.rows) * u64::from(weight.cols) != weight.values.len() as u64 {
            let expected = format!("{} x {} values", weight.rows, weight.cols);
            return Err(Error::bank(entry("weight"), expected, weight.values.len().to_string()));
        }
        if let Some(occupied) = &weight.occupied {
            same_shape(&entry("occupied"), weight, occupied)?;
        }
    }
    Ok(())
}

fn same_shape(entry: &str, weight: &Weight, mask: &BitMask) -> Result<(), Error> {
    if (mask.rows(), mask.cols()) == (weight.rows, weight.cols) {
        return Ok(());
    }
    let expected = format!("[{}, {}], the shape of the weight", weight.rows, weight.cols);
    Err(Error::bank(entry, expected, format!("[{}, {}]", mask.rows(), mask.cols())))
}

fn unique<'a>(entry: &str, names: impl Iterator<Item = &'a str>) -> Result<(), Error> {
    let mut seen = BTreeSet::new();
    for name in names {
        if !seen.insert(name) {
            return Err(Error::bank(entry, "unique names", format!("{:?} twice", short(name))));
        }
    }
    Ok(())
}
