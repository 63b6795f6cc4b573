//! What a run has come to so far: `results.json`, from the matrices, the reports and the bank.

use super::{Run, known};
use crate::record::{Metrics, ReferenceScores, Results, TaskFile, square, write_all};
use crate::settings::SCHEMA;
use anyhow::Result;
use std::collections::BTreeMap;
use tsn::Bank;
use tsn::memory::{Added, Masks, Memory, TimeEmbedding};
use tsn::metrics::References;
use tsn::replay::buffer_bytes;

impl Run<'_> {
    /// The results so far.
    pub(crate) fn results(&self) -> Result<Results> {
        let settings = &self.config.settings;
        let rows = self.sequence.matrix.iter().map(|row| row.iter().map(|s| known(*s)).collect());
        let perf_matrix: Vec<Vec<Option<f64>>> = rows.collect();
        let of = |value: fn(&TaskFile) -> f64| self.files.iter().map(value).collect::<Vec<f64>>();
        let end = self.end.clone().unwrap_or_default();
        let memory = self.memory();
        let references_done = !self.config.reference || self.references.single.len() == self.tasks.len();
        Ok(Results {
            schema: SCHEMA,
            name: settings.strategy.clone(),
            suite: settings.suite.clone(),
            task_names: settings.task_names(),
            metrics: self.metrics(&perf_matrix, &memory)?,
            perf_matrix,
            loss_matrix: self.loss_matrix.clone(),
            success_matrix: self.success_matrix(),
            episode_scores: self.episode_scores(),
            references: self.references.clone(),
            density: of(|f| f.density),
            newly_claimed: of(|f| f.newly_claimed),
            occupied: of(|f| f.occupied),
            copies: self.sequence.learner.bank.copies.len(),
            task_copy: self.files.iter().map(|f| f.copy).collect(),
            sources: self.files.iter().map(|f| f.source).collect(),
            disagreement: end.disagreement,
            disagreement_logged: end.disagreement_logged,
            own_loss: of(|f| f.held_out_loss),
            final_loss: end.loss,
            constant_loss: of(|f| f.constant_loss),
            time_per_task_s: of(|f| f.time_s),
            bit_identical: end.bit_identical,
            memory: bytes(&memory),
            memory_per_task: deployed(&self.sequence.learner.bank)
                .tasks
                .iter()
                .map(|task| added(&Added::by(task)))
                .collect(),
            seed: settings.seed,
            wall_s: self.wall_before + self.begin.elapsed().as_secs_f64(),
            complete: self.end.is_some() && references_done,
            settings: settings.clone(),
        })
    }

    /// Success rates, or nothing if no task defines success.
    fn success_matrix(&self) -> Vec<Vec<Option<f64>>> {
        let defined = self.success_matrix.iter().flatten().any(Option::is_some);
        if defined { self.success_matrix.clone() } else { Vec::new() }
    }

    /// Scores of every episode, or nothing if no task can be played.
    fn episode_scores(&self) -> Vec<Vec<Vec<Option<f64>>>> {
        let played = self.episode_scores.iter().flatten().any(|episodes| !episodes.is_empty());
        if played { self.episode_scores.clone() } else { Vec::new() }
    }

    /// Writes the results so far.
    pub(crate) fn write(&self) -> Result<()> {
        write_all(&self.dir, &self.results()?, &self.files)
    }

    /// What the bank costs once training is over.
    pub(crate) fn memory(&self) -> Memory {
        let learner = &self.sequence.learner;
        let replay = buffer_bytes(&self.tasks[..self.files.len()], &learner.options);
        Memory { replay, ..deployed_memory(&learner.bank) }
    }

    fn metrics(&self, rows: &[Vec<Option<f64>>], memory: &Memory) -> Result<Metrics> {
        let scores = square(rows, self.tasks.len())?;
        let all = |list: &[Option<f64>]| {
            let value = |j: usize| list.get(j).copied().flatten().unwrap_or(f64::NAN);
            (0..self.tasks.len()).map(value).collect()
        };
        let ReferenceScores { random, single, untrained, .. } = &self.references;
        let references = References { random: all(random), single: all(single), untrained: all(untrained) };
        Ok(Metrics {
            ACC: scores.acc(),
            BWT: scores.bwt(),
            Forgetting: scores.forgetting(),
            forgetting_official: scores.forgetting_official(),
            forgetting_diag: scores.forgetting_diag(),
            FWT: scores.fwt(&references),
            avg_score: scores.avg_score(&references),
            forget_pct: scores.forget_pct(&references),
            intransigence: scores.intransigence(&references),
            memory_factor: memory.factor(Masks::Packed, TimeEmbedding::Excluded),
            memory_factor_with_te: memory.factor(Masks::Packed, TimeEmbedding::Included),
            norm: scores.norm(&references),
            norm_ref: scores.norm_ref(&references),
            gap: scores.gap(&references),
            retention: scores.retention(&references),
        })
    }
}

/// Memory of a bank without what only training needs: the optimiser moments that a single dense model carries on.
pub(crate) fn deployed_memory(bank: &Bank) -> Memory {
    Memory::of(&deployed(bank), |name| name == "dt.te.weight")
}

fn deployed(bank: &Bank) -> Bank {
    let mut bank = bank.clone();
    for task in &mut bank.tasks {
        task.extra.retain(|named| !(named.name.ends_with(".m") || named.name.ends_with(".v")));
    }
    bank
}

/// Bytes per item, as `results.json` has them.
pub(crate) fn bytes(memory: &Memory) -> BTreeMap<String, u64> {
    let items = [
        ("weights", memory.weights),
        ("time_embedding", memory.time_embedding),
        ("masks_stored", memory.masks_stored),
        ("masks_packed", memory.masks_packed),
        ("masks_entropy", memory.masks_entropy),
        ("occupied", memory.occupied),
        ("norms", memory.norms),
        ("statistics", memory.statistics),
        ("routing", memory.routing),
        ("extra", memory.extra),
        ("replay", memory.replay),
        ("records", memory.records),
        ("codebooks", memory.codebooks),
        ("coded_weights", memory.coded_weights),
        ("dense", memory.dense),
        ("dense_time_embedding", memory.dense_time_embedding),
        ("training", memory.training),
    ];
    items.into_iter().map(|(name, bytes)| (name.to_owned(), bytes)).collect()
}

/// Bytes per item that a task added, as `results.json` has them.
fn added(own: &Added) -> BTreeMap<String, u64> {
    let items = [
        ("masks_packed", own.masks),
        ("claimed_weights", own.claimed),
        ("norms", own.norms),
        ("statistics", own.statistics),
        ("routing", own.routing),
        ("extra", own.extra),
        ("records", own.records),
        ("codebooks", own.codebooks),
    ];
    items.into_iter().map(|(name, bytes)| (name.to_owned(), bytes)).collect()
}
