//! Whole models: forward pass, gradients, and the optimiser steps of the learner's own plan.

use super::case::Case;
use super::{Result, keep};
use autograd::{AdamW, Mask, Param, Select, Tape, Trainable, adamw_step};
use dt::config::{Action, Config, Observation, Role, Spec, Time};
use dt::data::batch::NO_TARGET;
use dt::model::{Params, Windows, input, record, record_loss};
use dt::train::{output, plan_masks, plan_step};
use engine::{Device, Plan, Program};
use kernels::BitMask;
use serde_json::Value;

/// What a case says of its model.
struct Model<'a> {
    case: &'a Case,
    config: Config,
    batch: usize,
    /// Ratio of the masks; absent for a dense model.
    keep_ratio: Option<f64>,
    /// Half of the entries belong to an earlier task.
    second_task: bool,
}

pub(super) fn run(case: &Case, device: &Device) -> Result<()> {
    let model = Model::read(case)?;
    let mut gradients = model.plan_gradients()?.bind(device)?;
    model.write_parameters(&mut gradients)?;
    model.feed(&mut gradients, 0)?;
    gradients.run()?;
    model.check_first_step(&gradients)?;

    let options = AdamW {
        weight_decay: case.number("weight_decay")? as f32,
        max_norm: match case.meta.get("grad_clip") {
            Some(Value::Null) => None,
            _ => Some(case.number("grad_clip")? as f32),
        },
        ..AdamW::default()
    };
    let mut training =
        plan_step(&model.config, model.batch as u32, &options, |spec| model.trained(spec))?.bind(device)?;
    model.write_parameters(&mut training)?;
    let (mut losses, mut norms) = (Vec::new(), Vec::new());
    for step in 0..case.size("steps")? {
        model.feed(&mut training, step % case.size("n_batches")?)?;
        let values = adamw_step(case.number("lr")?, options.beta1, options.beta2, step as u64 + 1);
        training.write("step", &values)?;
        training.run()?;
        losses.extend(training.read_vec::<f32>(output::LOSS)?);
        norms.extend(training.read_vec::<f32>(output::GRAD_NORM)?);
    }
    case.check("losses", &losses)?;
    case.check("grad_norms", &norms)?;
    model.check_last_state(&training)?;

    let mut masks = plan_masks(&model.config, |spec| model.trained(spec))?.bind(device)?;
    masks.adopt_state(&training)?;
    masks.run()?;
    model.check_masks("mask_after", &masks)
}

impl<'a> Model<'a> {
    fn read(case: &'a Case) -> Result<Model<'a>> {
        let kind = case.meta.get("model").and_then(Value::as_str).unwrap_or_default();
        let actions = "batch0.actions";
        let (observation, action) = match kind {
            "cartpole" => {
                let [.., n] = case.axes::<3>("batch0.obs")?;
                (Observation::Vector(n as u32), Action::Discrete(case.size("n_actions")? as u32))
            }
            "panda" => {
                let [.., n] = case.axes::<3>("batch0.obs")?;
                let [.., width] = case.axes::<3>(actions)?;
                case.agree("act_dim", width)?;
                (Observation::Vector(n as u32), Action::Continuous(width as u32))
            }
            "atari" => {
                let [_, _, channels, height, width] = case.axes("batch0.obs")?.map(|n: usize| n as u32);
                case.agree("C", channels as usize)?;
                (Observation::Image { channels, height, width }, Action::Discrete(case.size("n_actions")? as u32))
            }
            other => return Err(format!("unknown kind of model \"{other}\"").into()),
        };
        let [batch, context] = case.axes("batch0.mask")?;
        case.agree("B", batch)?;
        case.agree("K", context)?;
        if let Observation::Vector(n) = observation {
            case.agree("obs_dim", n as usize)?;
        }
        let tsn = case.meta.get("tsn").filter(|tsn| !tsn.is_null());
        let keep_ratio = match tsn.map(|tsn| tsn.get("keep_ratio").and_then(Value::as_f64)) {
            Some(None) => return Err("parameter `tsn` has no keep_ratio".to_owned().into()),
            Some(ratio) => ratio,
            None => None,
        };
        let flag = |value: Option<&Value>| value.and_then(Value::as_bool).unwrap_or(false);
        let config = Config {
            width: case.size("d_model")? as u32,
            layers: case.size("n_layers")? as u32,
            heads: case.size("n_heads")? as u32,
            context: context as u32,
            dropout: 0.0,
            max_ep_len: case.size("max_ep_len")? as u32,
            time: Time::Learned,
            include_embeddings: flag(tsn.and_then(|tsn| tsn.get("include_embeddings"))),
            ..Config::new(observation, action)
        };
        config.validate()?;
        let second_task = flag(case.meta.get("second_task"));
        if second_task && keep_ratio.is_none() {
            return Err("parameter `second_task` needs masks, but `tsn` is null".to_owned().into());
        }
        Ok(Model { case, config, batch, keep_ratio, second_task })
    }

    fn masked(&self, spec: &Spec) -> bool {
        self.keep_ratio.is_some() && spec.role == Role::Maskable
    }

    /// The parameter with all its gradients.
    fn differentiated(&self, spec: &Spec) -> Param {
        let mask = match (self.masked(spec), self.second_task) {
            (false, _) => Mask::Dense,
            (true, false) => Mask::Learned(Select::Any),
            (true, true) => Mask::Learned(Select::Free),
        };
        let param = Param::new(&spec.name, spec.rows, spec.cols, mask, Trainable::All);
        Param { ties: true, restrict_score: false, ..param }
    }

    /// The parameter as it is trained: a second task changes free entries and scores only.
    fn trained(&self, spec: &Spec) -> Param {
        let trainable = match (self.second_task, self.masked(spec)) {
            (false, _) => Trainable::All,
            (true, true) => Trainable::Free,
            (true, false) => Trainable::Frozen,
        };
        Param { trainable, ..self.differentiated(spec) }
    }

    /// Loss, predictions and every gradient, with nothing frozen.
    fn plan_gradients(&self) -> Result<Plan> {
        let mut tape = Tape::new();
        let params = Params::declare(&mut tape, &self.config, |spec| self.differentiated(spec));
        tape.form_masks()?;
        let windows = Windows { batch: self.batch as u32, steps: self.config.context, dropout: 0.0 };
        let forward = record(&mut tape, &self.config, &params, windows)?;
        let loss = record_loss(&mut tape, &self.config, forward.output)?;
        tape.backward(loss)?;
        tape.output(loss, output::LOSS);
        tape.output(forward.output, output::OUTPUT);
        for spec in self.config.parameters() {
            let id = params.named(&spec.name);
            let score = self.masked(&spec).then(|| (format!("{}.score", spec.name), tape.score_grad(id)));
            for (name, grad) in [Some((spec.name.clone(), tape.grad(id))), score].into_iter().flatten() {
                let grad = grad.ok_or_else(|| format!("the tape has no gradient of {name}"))?;
                tape.output(grad, &format!("grad.{name}"));
            }
        }
        Ok(tape.finish()?)
    }

    /// Weights, scores, free entries and mask sizes, and what the loss needs.
    fn write_parameters(&self, program: &mut Program) -> Result<()> {
        let case = self.case;
        for spec in self.config.parameters() {
            let tensor = format!("param.{}", spec.name);
            if case.weight(&tensor)? != [spec.rows, spec.cols] {
                let shape = case.shape(&tensor)?;
                return Err(format!("tensor `{tensor}` is {shape:?}, expected {} x {}", spec.rows, spec.cols).into());
            }
            program.write(&spec.name, case.f32s(&tensor)?)?;
            let (Some(ratio), true) = (self.keep_ratio, self.masked(&spec)) else { continue };
            program.write(&format!("{}.score", spec.name), case.f32s(&format!("param.{}", score(&spec.name)))?)?;
            let mut candidates = spec.len();
            if self.second_task {
                let occupied = case.flags(&format!("occupied.{}", spec.name))?;
                if occupied.len() != spec.len() {
                    return Err(format!("tensor `occupied.{}` has {} entries", spec.name, occupied.len()).into());
                }
                let free = BitMask::from_flags(spec.rows, spec.cols, occupied.iter().map(|o| !o));
                candidates = free.count();
                program.write(&format!("{}.free", spec.name), free.words())?;
            }
            program.write(&format!("{}.k", spec.name), &[keep(ratio, candidates)])?;
        }
        match self.config.action {
            Action::Discrete(n) => program.write(input::ALLOWED, BitMask::ones(1, n).words())?,
            Action::Continuous(n) => {
                let active = match case.meta.get("dim_mask").and_then(Value::as_array) {
                    Some(active) => active.iter().map(|v| v.as_f64().unwrap_or(f64::NAN) as f32).collect(),
                    None => vec![1.0; n as usize],
                };
                program.write(input::ACTIVE, &active)?;
            }
        }
        Ok(())
    }

    fn feed(&self, program: &mut Program, batch: usize) -> Result<()> {
        let case = self.case;
        let name = |part: &str| format!("batch{batch}.{part}");
        match self.config.observation {
            Observation::Image { .. } => program.write(input::OBS, &case.bytes(&name("obs"))?)?,
            Observation::Vector(_) => program.write(input::OBS, &self.standardised(&name("obs"))?)?,
        }
        let scale = case.number("rtg_scale")?;
        let rtg: Vec<f32> = case.f32s(&name("rtg"))?.iter().map(|r| (f64::from(*r) / scale) as f32).collect();
        program.write(input::RTG, &rtg)?;
        let last = i64::from(self.config.max_ep_len) - 1;
        let timesteps: Vec<u32> = case.ints(&name("timesteps"))?.iter().map(|t| (*t).clamp(0, last) as u32).collect();
        program.write(input::TIMESTEPS, &timesteps)?;
        let valid = case.flags(&name("mask"))?;
        let tokens: Vec<u8> = valid.iter().flat_map(|v| [u8::from(*v); 3]).collect();
        program.write(input::VALID, &tokens)?;
        match self.config.action {
            Action::Discrete(n) => {
                let actions = case.ints(&name("actions"))?;
                if let Some(bad) = actions.iter().find(|a| !(-1..i64::from(n)).contains(a)) {
                    return Err(
                        format!("tensor `{}` holds {bad}, which is none of {n} actions", name("actions")).into()
                    );
                }
                let ids: Vec<u32> = actions.iter().map(|a| (*a).max(0) as u32).collect();
                program.write(input::ACTIONS, &ids)?;
                let targets: Vec<u32> = actions.iter().map(|a| u32::try_from(*a).unwrap_or(NO_TARGET)).collect();
                program.write(input::TARGET, &targets)?;
            }
            Action::Continuous(_) => {
                let actions = case.f32s(&name("actions"))?;
                program.write(input::ACTIONS, actions)?;
                program.write(input::TARGET, actions)?;
                let valid: Vec<u8> = valid.iter().map(|v| u8::from(*v)).collect();
                program.write(input::STEP_VALID, &valid)?;
            }
        }
        Ok(())
    }

    /// Observations, minus the mean and over the deviation where the case states them.
    fn standardised(&self, name: &str) -> Result<Vec<f32>> {
        let obs = self.case.f32s(name)?;
        if !self.case.has("param.obs_mean") {
            return Ok(obs.to_vec());
        }
        let (mean, std) = (self.case.f32s("param.obs_mean")?, self.case.f32s("param.obs_std")?);
        let n = self.config.observation_len() as usize;
        if [mean.len(), std.len()] != [n, n] {
            return Err(format!("tensors `param.obs_mean` and `param.obs_std` do not hold {n} values").into());
        }
        let scaled =
            |(at, o): (usize, &f32)| ((f64::from(*o) - f64::from(mean[at % n])) / f64::from(std[at % n])) as f32;
        Ok(obs.iter().enumerate().map(scaled).collect())
    }

    /// Predictions, loss, gradients and masks at the initial weights.
    fn check_first_step(&self, program: &Program) -> Result<()> {
        let case = self.case;
        let valid = case.flags("batch0.mask")?;
        let outputs = self.config.action.outputs() as usize;
        case.check_where("logits", &program.read_vec(output::OUTPUT)?, |at| valid[at / outputs])?;
        case.check("loss", &program.read_vec(output::LOSS)?)?;
        for spec in self.config.parameters() {
            let own = &spec.name;
            case.check(&format!("grad.{own}"), &program.read_vec(&format!("grad.{own}"))?)?;
            if self.masked(&spec) {
                let grad = program.read_vec(&format!("grad.{own}.score"))?;
                case.check(&format!("grad.{}", score(own)), &grad)?;
            }
        }
        self.check_masks("mask0", program)
    }

    /// Parameters after the last step; frozen ones have kept every bit.
    fn check_last_state(&self, program: &Program) -> Result<()> {
        let case = self.case;
        for spec in self.config.parameters() {
            let own = &spec.name;
            let after: Vec<f32> = program.read_vec(own)?;
            case.check(&format!("after.{own}"), &after)?;
            if self.masked(&spec) {
                case.check(&format!("after.{}", score(own)), &program.read_vec(&format!("{own}.score"))?)?;
            }
            if self.second_task {
                let before = case.f32s(&format!("param.{own}"))?;
                let frozen = match self.masked(&spec) {
                    true => case.flags(&format!("occupied.{own}"))?,
                    false => vec![true; spec.len()],
                };
                let same = |at: usize| !frozen[at] || before[at].to_bits() == after[at].to_bits();
                if let Some(at) = (0..spec.len()).find(|at| !same(*at)) {
                    case.fail(format!("{own}[{at}] is frozen but went from {:e} to {:e}", before[at], after[at]));
                }
            }
        }
        Ok(())
    }

    fn check_masks(&self, prefix: &str, program: &Program) -> Result<()> {
        for spec in self.config.parameters().iter().filter(|spec| self.masked(spec)) {
            let words = program.read_vec(&format!("{}.mask", spec.name))?;
            let mask = BitMask::from_words(spec.rows, spec.cols, words)
                .ok_or_else(|| format!("the mask of {} has pad bits set", spec.name))?;
            self.case.check_ints(&format!("{prefix}.{}", spec.name), mask.flags().map(i64::from))?;
        }
        Ok(())
    }
}

/// Name of a parameter's score in the cases.
fn score(name: &str) -> String {
    match name.strip_suffix(".bias") {
        Some(layer) => format!("{layer}.bias_score"),
        None => format!("{}.score", name.strip_suffix(".weight").unwrap_or(name)),
    }
}
