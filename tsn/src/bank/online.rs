//! What a task keeps so that it can be recognised and played without being named: a versioned part of a bank.
//!
//! In the file: metadata `task.T.route` is `VERSION SIGNATURE` and `task.T.route.clip_rewards` is 0 or 1; tensors are
//! `task.T.route.NAME`, f32 but for `places`, u32, which is absent where entries keep their place.

use super::{Bank, TaskRecord};
use crate::error::Error;
use crate::file::{TensorFile, TensorWriter, short};
use affinity::online::{Content, Descriptor, Dynamics, FrameContent, Shape, Signature, VectorContent};

/// Newest version of the part this build reads, and the one it writes.
const VERSION: u32 = 1;
/// Names of its tensors.
pub(super) const NAMES: [&str; 9] =
    ["mean", "var", "first_mean", "first_var", "weight", "covariance", "prototypes", "calibration", "places"];

/// How a task looks from outside, and how its observations and rewards enter the model.
#[derive(Clone, Debug, PartialEq)]
pub struct Online {
    /// How it is recognised.
    pub descriptor: Descriptor,
    /// Places of raw observation entries in the model's observation; empty if each keeps its own.
    pub places: Vec<u32>,
    /// Rewards count by their sign.
    pub clip_rewards: bool,
}

impl Online {
    /// Bytes of its numbers.
    pub fn bytes(&self) -> u64 {
        4 * (self.descriptor.values() + self.places.len()) as u64
    }
}

pub(super) fn write(file: &mut TensorWriter, t: usize, online: &Online) {
    let Online { descriptor, places, clip_rewards } = online;
    file.meta(format!("task.{t}.route"), format!("{VERSION} {}", descriptor.signature));
    file.meta(format!("task.{t}.route.clip_rewards"), u8::from(*clip_rewards).to_string());
    let mut add = |name: &str, columns: usize, values: &[f32]| {
        let shape = [(values.len() / columns.max(1)) as u64, columns as u64];
        file.add(format!("task.{t}.route.{name}"), &shape[usize::from(columns == values.len())..], values);
    };
    match &descriptor.content {
        Content::Vector(content) => {
            let d = content.mean.len();
            add("mean", d, &content.mean);
            add("var", d, &content.var);
            add("first_mean", d, &content.first_mean);
            add("first_var", d, &content.first_var);
            if let Some(dynamics) = &content.dynamics {
                add("weight", dynamics.weight.len() / d.max(1), &dynamics.weight);
                add("covariance", d, &dynamics.covariance);
            }
        }
        Content::Frame(content) => {
            add("prototypes", content.prototypes.len(), &content.prototypes);
            add("calibration", 2, &[content.mean, content.sd]);
        }
    }
    if !places.is_empty() {
        file.add(format!("task.{t}.route.places"), &[places.len() as u64], places);
    }
}

/// The part of a task; `None` in a bank of an earlier version.
pub(super) fn read(file: &TensorFile, t: usize) -> Result<Option<Online>, Error> {
    let key = format!("task.{t}.route");
    let Some(text) = file.metadata(&key) else { return Ok(None) };
    let (version, signature) = text.split_once(' ').unwrap_or((text, ""));
    match version.parse() {
        Ok(1..=VERSION) => {}
        Ok(found) => {
            let expected = format!("version {VERSION}; open it with a newer build");
            return Err(Error::bank(key, expected, u32::to_string(&found)));
        }
        Err(_) => return Err(Error::bank(key, format!("{VERSION} and a signature"), short(text))),
    }
    let signature: Signature = signature
        .parse()
        .map_err(|_| Error::bank(key.clone(), "a signature such as \"vector 4 discrete 2\"", short(text)))?;
    let values = |name: &str| -> Result<Vec<f32>, Error> { Ok(file.values(file.tensor(&format!("{key}.{name}"))?)?) };
    let holds = |name: &str| file.tensor(&format!("{key}.{name}")).is_ok();
    let content = match signature.observation {
        Shape::Vector(_) => Content::Vector(VectorContent {
            mean: values("mean")?,
            var: values("var")?,
            first_mean: values("first_mean")?,
            first_var: values("first_var")?,
            dynamics: match holds("weight") {
                true => Some(Dynamics { weight: values("weight")?, covariance: values("covariance")? }),
                false => None,
            },
        }),
        Shape::Frame { .. } => {
            let calibration = values("calibration")?;
            let [mean, sd] = calibration[..] else {
                return Err(Error::bank(format!("{key}.calibration"), "2 values", calibration.len().to_string()));
            };
            Content::Frame(FrameContent { prototypes: values("prototypes")?, mean, sd })
        }
    };
    let places = match holds("places") {
        true => file.values(file.tensor(&format!("{key}.places"))?)?,
        false => Vec::new(),
    };
    let clip_rewards = match file.metadata(&format!("{key}.clip_rewards")) {
        Some("0") => false,
        Some("1") => true,
        other => {
            return Err(Error::bank(format!("{key}.clip_rewards"), "0 or 1", short(other.unwrap_or("none"))));
        }
    };
    Ok(Some(Online { descriptor: Descriptor { signature, content }, places, clip_rewards }))
}

pub(super) fn check(t: usize, task: &TaskRecord) -> Result<(), Error> {
    let Some(online) = &task.online else { return Ok(()) };
    let entry = |part: &str| format!("task {t} {:?}, {part}", short(&task.name));
    online
        .descriptor
        .check()
        .map_err(|e| Error::bank(entry("route"), "a descriptor that fits its signature", e.to_string()))?;
    if online.places.is_empty() {
        return Ok(());
    }
    let expected = match online.descriptor.signature.observation {
        Shape::Vector(d) => d,
        Shape::Frame { .. } => 0,
    };
    let mut sorted = online.places.clone();
    sorted.sort_unstable();
    sorted.dedup();
    if online.places.len() != expected || sorted.len() != expected {
        let expected = format!("{expected} different places, one per entry of an observation, or none");
        return Err(Error::bank(entry("places"), expected, format!("{:?}", online.places)));
    }
    Ok(())
}

impl Bank {
    /// Tasks that can be recognised, with their numbers.
    pub fn described(&self) -> impl Iterator<Item = (usize, &Descriptor)> + Clone {
        self.tasks.iter().enumerate().filter_map(|(t, task)| Some((t, &task.online.as_ref()?.descriptor)))
    }
}
