//! Sizes of a model, its parameters and how each starts.

use crate::error::{Error, Result};

/// What the model sees.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Observation {
    /// A vector of this length.
    Vector(u32),
    /// A stack of frames, bytes, oldest first.
    Image {
        /// Frames in the stack.
        channels: u32,
        /// Pixels.
        height: u32,
        /// Pixels.
        width: u32,
    },
}

/// What the model does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// One of `n` actions.
    Discrete(u32),
    /// A vector in `[-1, 1]^d`.
    Continuous(u32),
}

impl Action {
    /// Outputs of the head.
    pub fn outputs(self) -> u32 {
        match self {
            Action::Discrete(n) | Action::Continuous(n) => n,
        }
    }
}

/// How the absolute timestep enters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Time {
    /// A learned table, one row per timestep (`official`).
    Learned,
    /// A fixed sine table scaled to RMS 0.02. At amplitude 1 it would swamp the tokens, whose size is 0.02 to 0.2.
    Sinusoidal,
}

/// Sizes of a Decision Transformer. Source: method.md section 2.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Config {
    /// What the model sees.
    pub observation: Observation,
    /// What the model does.
    pub action: Action,
    /// Width of a token, `E`.
    pub width: u32,
    /// Blocks, `L`.
    pub layers: u32,
    /// Attention heads, `H`; divides the width.
    pub heads: u32,
    /// Steps in a window, `K`; three tokens each.
    pub context: u32,
    /// Dropout in training: embeddings, attention probabilities, residual branches.
    pub dropout: f32,
    /// Rows of the time table; later timesteps use the last row.
    pub max_ep_len: u32,
    /// How the timestep enters.
    pub time: Time,
    /// The action embedding is masked like a weight.
    pub include_embeddings: bool,
}

/// Starting values.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Init {
    /// Normal with mean 0 and this standard deviation.
    Normal(f64),
    /// Uniform in `[-b, b]`.
    Uniform(f64),
    /// One value.
    Constant(f32),
}

/// Role of a parameter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Weight or bias of a linear or convolution: maskable.
    Maskable,
    /// Weight or bias of a layer norm: shared or per task, never masked.
    Norm,
    /// The learned time table: shared, never masked.
    Time,
    /// An embedding that is left out of the masks.
    Shared,
}

/// A parameter as the configuration implies it.
#[derive(Clone, Debug, PartialEq)]
pub struct Spec {
    /// Name in the reference implementation's checkpoints (method.md 2.7).
    pub name: String,
    /// Rows: outputs, table rows, or 1.
    pub rows: u32,
    /// Columns: inputs, `cin * kh * kw`, or the length of a vector.
    pub cols: u32,
    /// What it is.
    pub role: Role,
    /// Starting values.
    pub init: Init,
    /// Starting values of its mask scores.
    pub score_init: Init,
}

impl Spec {
    /// Number of elements.
    pub fn len(&self) -> usize {
        self.rows as usize * self.cols as usize
    }

    /// True for a parameter of no elements.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// Convolutions of the image encoder: outputs, kernel, stride.
pub(crate) const CONVOLUTIONS: [(u32, u32, u32); 3] = [(32, 8, 4), (64, 4, 2), (64, 3, 1)];
const EMBEDDING_STD: f64 = 0.02;

impl Config {
    /// The standard model: width 128, 3 blocks, 4 heads, 20 steps, dropout 0.1, sinusoidal time.
    pub fn new(observation: Observation, action: Action) -> Config {
        Config {
            observation,
            action,
            width: 128,
            layers: 3,
            heads: 4,
            context: 20,
            dropout: 0.1,
            max_ep_len: 1000,
            time: Time::Sinusoidal,
            include_embeddings: true,
        }
    }

    /// Checks every size.
    ///
    /// # Errors
    /// [`Error::Config`] names the field, the value and what is allowed.
    pub fn validate(&self) -> Result<()> {
        let within = |field: &'static str, value: u32, low: u32, high: u32| match (low..=high).contains(&value) {
            true => Ok(()),
            false => Err(Error::Config { field, found: value.to_string(), expected: format!("{low} to {high}") }),
        };
        within("width", self.width, 1, 8192)?;
        within("layers", self.layers, 1, 96)?;
        within("heads", self.heads, 1, self.width)?;
        within("context", self.context, 1, 1365)?;
        within("max_ep_len", self.max_ep_len, 1, 10_000_000)?;
        within("actions", self.action.outputs(), 1, 65_536)?;
        if !self.width.is_multiple_of(self.heads) {
            let expected = format!("a divisor of width {}", self.width);
            return Err(Error::Config { field: "heads", found: self.heads.to_string(), expected });
        }
        if !(0.0..1.0).contains(&self.dropout) {
            let found = self.dropout.to_string();
            return Err(Error::Config { field: "dropout", found, expected: "0 <= dropout < 1".into() });
        }
        match self.observation {
            Observation::Vector(n) => within("observation length", n, 1, 1 << 20),
            Observation::Image { channels, height, width } => {
                within("channels", channels, 1, 64)?;
                // The three convolutions leave nothing of a smaller image.
                within("image height", height, 36, 4096)?;
                within("image width", width, 36, 4096)
            }
        }
    }

    /// Every parameter in a fixed order: encoder, embeddings, blocks, head.
    pub fn parameters(&self) -> Vec<Spec> {
        let e = self.width;
        let mut list = Vec::new();
        self.encoder_parameters(&mut list);
        list.push(backbone("dt.re.weight".into(), e, 1));
        list.push(backbone("dt.se.weight".into(), e, e));
        match self.action {
            Action::Discrete(n) => {
                let score_init = Init::Normal(EMBEDDING_STD);
                let role = if self.include_embeddings { Role::Maskable } else { Role::Shared };
                list.push(Spec { score_init, role, ..backbone("dt.ae.weight".into(), n, e) });
            }
            Action::Continuous(d) => list.push(backbone("dt.ae.weight".into(), e, d)),
        }
        if self.time == Time::Learned {
            list.push(Spec { role: Role::Time, ..backbone("dt.te.weight".into(), self.max_ep_len, e) });
        }
        list.push(norm("dt.ln_e.weight".into(), e, 1.0));
        for l in 0..self.layers {
            let name = |part: &str| format!("dt.h.{l}.{part}.weight");
            list.push(norm(name("ln1"), e, 1.0));
            list.push(backbone(name("attn.c_attn"), 3 * e, e));
            let init = Init::Normal(EMBEDDING_STD / (2.0 * f64::from(self.layers)).sqrt());
            list.push(Spec { init, ..backbone(name("attn.c_proj"), e, e) });
            list.push(norm(name("ln2"), e, 1.0));
            list.push(backbone(name("mlp.fc"), 4 * e, e));
            list.push(backbone(name("mlp.proj"), e, 4 * e));
        }
        list.push(norm("dt.ln_f.weight".into(), e, 1.0));
        let outputs = self.action.outputs();
        list.push(backbone("dt.act_head.weight".into(), outputs, e));
        let score_init = bound(e);
        let init = Init::Constant(0.0);
        list.push(Spec { init, score_init, ..backbone("dt.act_head.bias".into(), 1, outputs) });
        list
    }

    fn encoder_parameters(&self, list: &mut Vec<Spec>) {
        let e = self.width;
        let mut layer = |name: &str, outputs: u32, inputs: u32| {
            let (init, score_init) = (bound(inputs), bound(inputs));
            let weight = backbone(format!("{name}.weight"), outputs, inputs);
            list.push(Spec { init, score_init, ..weight });
            list.push(Spec { init, score_init, ..backbone(format!("{name}.bias"), 1, outputs) });
        };
        let last = match self.observation {
            Observation::Vector(n) => {
                layer("obs_enc.net.0", e, n);
                "obs_enc.net.2"
            }
            Observation::Image { channels, .. } => {
                let mut inputs = channels;
                for (at, (outputs, kernel, _)) in CONVOLUTIONS.into_iter().enumerate() {
                    layer(&format!("obs_enc.cnn.{}", 2 * at), outputs, inputs * kernel * kernel);
                    inputs = outputs;
                }
                layer("obs_enc.proj.1", e, self.flattened());
                "obs_enc.proj.3"
            }
        };
        list.push(norm(format!("{last}.weight"), e, 1.0));
        list.push(norm(format!("{last}.bias"), e, 0.0));
    }

    /// Length of the flattened output of the last convolution; 0 for vectors.
    pub fn flattened(&self) -> u32 {
        let Observation::Image { mut height, mut width, .. } = self.observation else { return 0 };
        let mut outputs = 0;
        for (channels, kernel, stride) in CONVOLUTIONS {
            height = (height - kernel) / stride + 1;
            width = (width - kernel) / stride + 1;
            outputs = channels;
        }
        outputs * height * width
    }

    /// Elements of one observation.
    pub fn observation_len(&self) -> u32 {
        match self.observation {
            Observation::Vector(n) => n,
            Observation::Image { channels, height, width } => channels * height * width,
        }
    }

    /// The sinusoidal time table, `max_ep_len x width`, RMS 0.02.
    ///
    /// Source: Vaswani et al. (2017), section 3.5, for the frequencies.
    pub fn time_table(&self) -> Vec<f32> {
        let e = self.width as usize;
        let mut table = vec![0.0; self.max_ep_len as usize * e];
        let periods: Vec<f64> = (0..e).map(|j| 10_000f64.powf((j / 2 * 2) as f64 / e as f64)).collect();
        for (t, row) in table.chunks_exact_mut(e).enumerate() {
            for (j, (value, period)) in row.iter_mut().zip(&periods).enumerate() {
                let angle = t as f64 / period;
                let wave = if j % 2 == 0 { angle.sin() } else { angle.cos() };
                *value = (0.02 * std::f64::consts::SQRT_2 * wave) as f32;
            }
        }
        table
    }
}

fn bound(fan_in: u32) -> Init {
    Init::Uniform(1.0 / f64::from(fan_in).sqrt())
}

/// A masked backbone matrix: N(0, 0.02²), scores as a linear's.
fn backbone(name: String, rows: u32, cols: u32) -> Spec {
    let init = Init::Normal(EMBEDDING_STD);
    Spec { name, rows, cols, role: Role::Maskable, init, score_init: bound(cols) }
}

fn norm(name: String, width: u32, value: f32) -> Spec {
    let init = Init::Constant(value);
    Spec { name, rows: 1, cols: width, role: Role::Norm, init, score_init: Init::Constant(0.0) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn count(config: &Config, role: Role) -> usize {
        config.parameters().iter().filter(|s| s.role == role).map(Spec::len).sum()
    }

    #[test]
    fn atari_counts() {
        let image = Observation::Image { channels: 4, height: 84, width: 84 };
        let config = Config { max_ep_len: 27_001, time: Time::Learned, ..Config::new(image, Action::Discrete(18)) };
        let of = |prefix: &str| -> usize {
            config.parameters().iter().filter(|s| s.name.starts_with(prefix)).map(Spec::len).sum()
        };
        assert_eq!([of("obs_enc.cnn.0"), of("obs_enc.cnn.2"), of("obs_enc.cnn.4")], [8_224, 32_832, 36_928]);
        assert_eq!(of("obs_enc.proj.1"), 401_536);
        assert_eq!([of("dt.se"), of("dt.re"), of("dt.ae"), of("dt.act_head")], [16_384, 128, 2_304, 2_322]);
        assert_eq!(count(&config, Role::Maskable), 1_090_482);
        assert_eq!(count(&config, Role::Norm), 1_280);
        assert_eq!(count(&config, Role::Time), 3_456_128);
        let dense: usize = config.parameters().iter().map(Spec::len).sum();
        assert_eq!([dense, dense + count(&config, Role::Maskable)], [4_547_890, 5_638_372]);
    }

    #[test]
    fn panda_counts() {
        let base = Config::new(Observation::Vector(26), Action::Continuous(4));
        let config = Config { heads: 1, max_ep_len: 50, time: Time::Learned, ..base };
        assert_eq!(count(&config, Role::Maskable), 610_820);
        assert_eq!([count(&config, Role::Norm), count(&config, Role::Time)], [1_280, 6_400]);
        let dense: usize = config.parameters().iter().map(Spec::len).sum();
        assert_eq!([dense, dense + count(&config, Role::Maskable)], [618_500, 1_229_320]);
    }

    #[test]
    fn time_table_has_rms_002() {
        let config = Config { max_ep_len: 500, ..Config::new(Observation::Vector(4), Action::Discrete(2)) };
        let table = config.time_table();
        let rms = (table.iter().map(|v| f64::from(*v).powi(2)).sum::<f64>() / table.len() as f64).sqrt();
        assert!((rms - 0.02).abs() < 1e-6, "{rms}");
    }

    #[test]
    fn bad_sizes_are_named() {
        let config = Config { heads: 3, ..Config::new(Observation::Vector(4), Action::Discrete(2)) };
        let message = config.validate().unwrap_err().to_string();
        assert!(message.contains("heads") && message.contains('3') && message.contains("128"), "{message}");
    }
}
