//! How often a rule names the task that is played, and what its mistakes cost.

use crate::args::{Explain, Rule};
use crate::files::{open_bank, print, read_json, write_output};
use crate::record::{TaskFile, quoted, task_path};
use crate::settings::SCHEMA;
use crate::summary::{Table, number, short};
use anyhow::{Result, bail};
use serde_json::{Value, json};
use std::path::Path;
use tsn::affinity::online::{Actions, Descriptor, Evidence, Router, Settings, Shape, Signature};
use tsn::agent::{Choose, signature_of};
use tsn::dt::autograd::engine::Device;
use tsn::dt::autograd::engine::kernels::philox::{Rng, Stream};
use tsn::dt::config::Config;
use tsn::recognise::{AFTER, Choice, Tally, signature, tally};
use tsn::{Agent, Bank, Task};

/// Two subnetworks are of one class if each scores within this share of the other on the other's task.
const CLASS: f64 = 0.02;
/// Confusion matrices of more tasks are left to JSON.
const SHOWN_TASKS: usize = 12;

/// How a rule did on every task.
pub(crate) struct Routing {
    rule: String,
    names: Vec<String>,
    /// Class of each task: the number of its first member.
    classes: Option<Vec<usize>>,
    tasks: Vec<Outcome>,
}

/// How a rule did on one task.
struct Outcome {
    /// `None` for a task that cannot be played.
    tally: Option<Tally>,
    score: Option<f64>,
    oracle: Option<f64>,
    /// Share of its episodes that are flagged if the bank does not hold it; `None` without other candidates.
    flagged_unseen: Option<f64>,
}

/// What playing needs.
pub(crate) struct Play<'a> {
    pub device: &'a Device,
    pub config: &'a Config,
    pub bank: &'a Bank,
    pub tasks: &'a [&'a Task],
    /// Mean scores with the task named.
    pub oracle: &'a [Option<f64>],
}

impl Play<'_> {
    /// Plays every task that has an environment by a rule.
    pub(crate) fn routed(&self, rule: Rule, episodes: u64, classes: bool) -> Result<Routing> {
        let mut agent = Agent::new(self.device, self.config, self.bank)?;
        let count = self.bank.tasks.len();
        let mut outcomes = Vec::new();
        for (number, task) in self.tasks.iter().enumerate() {
            let mut outcome = Outcome { tally: None, score: None, oracle: self.oracle[number], flagged_unseen: None };
            let Some(maker) = &task.environment else {
                outcomes.push(outcome);
                continue;
            };
            let mut env = maker(1)?;
            let signature = signature_of(&*env);
            let fire = task.fire(&*env);
            let candidates = Router::new(signature, self.bank.described(), Settings::default())?.tasks().to_vec();
            let (mut counts, mut total) = (Tally::new(count), 0.0);
            for episode in 0..episodes {
                let choose = match rule {
                    Rule::Affinity => Choose::Routed(Settings::default()),
                    Rule::Nearest => Choose::Routed(Settings { evidence: Evidence::Nearest, ..Settings::default() }),
                    Rule::First => Choose::Task(candidates[0]),
                    Rule::Recent => Choose::Task(candidates[candidates.len() - 1]),
                    Rule::Random => {
                        let mut rng = Rng::new(task.seed, Stream::Routing, [episode as u32, 3]);
                        Choose::Task(candidates[rng.below(candidates.len() as u64) as usize])
                    }
                    Rule::Oracle => Choose::Task(number),
                };
                agent.enter(signature, choose)?;
                let mut choices = Vec::new();
                let seed = task.seed.wrapping_add(episode);
                let played = agent.play(&mut *env, seed, task.clip_rewards, fire, |status| {
                    choices.push(Choice { task: status.task, unknown: status.unknown });
                })?;
                counts.add(&choices);
                total += played.score;
            }
            (outcome.tally, outcome.score) = (Some(counts), Some(total / episodes as f64));
            outcomes.push(outcome);
        }
        let classes = if classes { Some(self.classes(&mut agent, episodes)?) } else { None };
        let rule = format!("{rule:?}").to_lowercase();
        Ok(Routing { rule: format!("{rule}, in play"), names: names(self.bank), classes, tasks: outcomes })
    }

    /// Classes of tasks whose subnetworks can stand in for each other: connected pairs.
    fn classes(&self, agent: &mut Agent, episodes: u64) -> Result<Vec<usize>> {
        let count = self.bank.tasks.len();
        let mut scores = vec![vec![None; count]; count];
        for (on, task) in self.tasks.iter().enumerate() {
            let Some(maker) = &task.environment else { continue };
            let mut env = maker(1)?;
            let (signature, fire) = (signature_of(&*env), task.fire(&*env));
            let fitting =
                |u: usize| self.bank.tasks[u].online.as_ref().is_some_and(|o| o.descriptor.signature == signature);
            for (by, row) in scores.iter_mut().enumerate().filter(|(by, _)| fitting(*by)) {
                agent.enter(signature, Choose::Task(by))?;
                let mut total = 0.0;
                for episode in 0..episodes {
                    let seed = task.seed.wrapping_add(episode);
                    total += agent.play(&mut *env, seed, task.clip_rewards, fire, |_| ())?.score;
                }
                row[on] = Some(total / episodes as f64);
            }
        }
        Ok(classes_of(&scores))
    }
}

/// The first task of each task's class, from `scores[by][on]`.
fn classes_of(scores: &[Vec<Option<f64>>]) -> Vec<usize> {
    let stands_in = |by: usize, on: usize| match (scores[by][on], scores[on][on]) {
        (Some(other), Some(own)) => other >= own - CLASS * own.abs(),
        _ => false,
    };
    let mut class: Vec<usize> = (0..scores.len()).collect();
    for u in 0..scores.len() {
        for v in 0..u {
            if stands_in(u, v) && stands_in(v, u) {
                let (from, to) = (class[u].max(class[v]), class[u].min(class[v]));
                class.iter_mut().filter(|c| **c == from).for_each(|c| *c = to);
            }
        }
    }
    class
}

/// Routes the held-out logged episodes of every task.
pub(crate) fn logged(bank: &Bank, tasks: &[&Task], evidence: Evidence, pixels_only: bool) -> Result<Routing> {
    let settings = Settings { evidence, ..Settings::default() };
    // Without the number of actions, all tasks of frames are candidates for each other.
    let widest = bank.described().map(|(_, d)| d.signature.actions.len()).max().unwrap_or(1);
    let seen = |signature: Signature| match signature.observation {
        Shape::Frame { .. } if pixels_only => Signature { actions: Actions::Discrete(widest), ..signature },
        _ => signature,
    };
    let described: Vec<(usize, Descriptor)> = bank
        .described()
        .map(|(t, d)| (t, Descriptor { signature: seen(d.signature), content: d.content.clone() }))
        .collect();
    let mut outcomes = Vec::new();
    for (number, task) in tasks.iter().enumerate() {
        let signature = seen(signature(task));
        let all = described.iter().map(|(t, d)| (*t, d));
        let counts = tally(&Router::new(signature, all.clone(), settings)?, task, tasks.len())?;
        let flagged_unseen = match Router::new(signature, all.filter(|(t, _)| *t != number), settings) {
            Ok(others) => {
                let counts = tally(&others, task, tasks.len())?;
                Some(counts.unknown_episodes as f64 / counts.episodes.max(1) as f64)
            }
            // Its environment gives it away.
            Err(_) => None,
        };
        outcomes.push(Outcome { tally: Some(counts), score: None, oracle: None, flagged_unseen });
    }
    let rule = if evidence == Evidence::Nearest { "nearest" } else { "affinity" };
    let pixels = if pixels_only { ", by pixels only" } else { "" };
    Ok(Routing {
        rule: format!("{rule}, on held-out data{pixels}"),
        names: names(bank),
        classes: None,
        tasks: outcomes,
    })
}

fn names(bank: &Bank) -> Vec<String> {
    bank.tasks.iter().map(|t| t.name.clone()).collect()
}

impl Routing {
    fn same_class(&self, a: usize, b: usize) -> bool {
        a == b || self.classes.as_ref().is_some_and(|classes| classes[a] == classes[b])
    }

    /// Shares of right choices of a task: over states, then after each count of transitions.
    fn shares(&self, number: usize, tally: &Tally, by_class: bool) -> [Option<f64>; 5] {
        let right = |task: usize| if by_class { self.same_class(task, number) } else { task == number };
        let after = |at: usize| Tally::share(&tally.after[at], right);
        [Tally::share(&tally.states, right), after(0), after(1), after(2), after(3)]
    }

    /// Aligned tables.
    pub(crate) fn text(&self) -> String {
        let mut text =
            format!("\nrouting by {}: right choices, per state and per episode after n transitions\n", self.rule);
        let percent = |share: Option<f64>| share.map_or_else(|| "-".to_owned(), |s| format!("{:.1} %", 100.0 * s));
        let mut table = Table::default();
        let mut head = vec!["task", "episodes", "states", "n = 0", "1", "5", "20", "unknown"];
        let (played, left_out) =
            (self.tasks.iter().any(|t| t.score.is_some()), self.tasks.iter().any(|t| t.flagged_unseen.is_some()));
        head.extend(if played { &["score", "oracle"][..] } else { &[] });
        head.extend(if left_out { &["unknown if left out"][..] } else { &[] });
        table.row(head.into_iter().map(str::to_owned).collect());
        let ways: &[bool] = if self.classes.is_some() { &[false, true] } else { &[false] };
        for by_class in ways {
            for (number, outcome) in self.tasks.iter().enumerate() {
                let Some(tally) = &outcome.tally else { continue };
                let name = short(&self.names[number]);
                let mut row =
                    vec![if *by_class { format!("{name} (class)") } else { name }, tally.episodes.to_string()];
                row.extend(self.shares(number, tally, *by_class).map(percent));
                row.push(percent(Some(tally.unknown_episodes as f64 / tally.episodes.max(1) as f64)));
                if played {
                    row.extend([number_of(outcome.score), number_of(outcome.oracle)]);
                }
                if left_out {
                    row.push(percent(outcome.flagged_unseen));
                }
                table.row(row);
            }
        }
        text.push_str(&table.text());
        text.push_str(&self.total());
        if self.names.len() <= SHOWN_TASKS {
            let mut table = Table::default();
            let mut head = vec!["played, chosen".to_owned()];
            head.extend(self.names.iter().map(|n| short(n)));
            table.row(head);
            for (number, outcome) in self.tasks.iter().enumerate() {
                let Some(tally) = &outcome.tally else { continue };
                let mut row = vec![short(&self.names[number])];
                row.extend(tally.after[3].iter().map(u64::to_string));
                table.row(row);
            }
            text.push_str("\nepisodes by the choice after 20 transitions\n");
            text.push_str(&table.text());
        }
        text
    }

    /// Means over tasks.
    fn total(&self) -> String {
        let shares: Vec<[Option<f64>; 5]> = self.means(false);
        let percent = |share: Option<f64>| share.map_or_else(|| "-".to_owned(), |s| format!("{:.2} %", 100.0 * s));
        let line = |shares: &[Option<f64>; 5], what: &str| {
            let [states, first, one, five, twenty] = shares.map(percent);
            format!(
                "  all tasks{what}: states {states}; episodes {first} at the start, {one} after 1, {five} after 5, {twenty} after 20\n"
            )
        };
        let mut text: String = shares.iter().map(|s| line(s, "")).collect();
        if self.classes.is_some() {
            text.extend(self.means(true).iter().map(|s| line(s, " by class")));
        }
        if let Some((score, oracle)) = self.scores() {
            let share = if oracle == 0.0 { None } else { Some(score / oracle) };
            text.push_str(&format!("  mean score {score:.2}, {oracle:.2} with the oracle ({})\n", percent(share)));
        }
        text
    }

    /// Shares over all episodes of all tasks; empty if nothing was routed.
    fn means(&self, by_class: bool) -> Vec<[Option<f64>; 5]> {
        let rows = self.tasks.iter().enumerate().filter_map(|(number, o)| Some((number, o.tally.as_ref()?)));
        let (mut hits, mut all) = ([0.0; 5], [0.0; 5]);
        for (number, tally) in rows {
            let states: u64 = tally.states.iter().sum();
            for (at, share) in self.shares(number, tally, by_class).into_iter().enumerate() {
                let n = if at == 0 { states } else { tally.episodes } as f64;
                hits[at] += share.unwrap_or(0.0) * n;
                all[at] += n;
            }
        }
        if all[1] == 0.0 { Vec::new() } else { vec![std::array::from_fn(|at| Some(hits[at] / all[at]))] }
    }

    /// Mean scores over the tasks that were played, by the rule and with the task named.
    fn scores(&self) -> Option<(f64, f64)> {
        let pairs: Vec<(f64, f64)> = self.tasks.iter().filter_map(|t| Some((t.score?, t.oracle?))).collect();
        let n = pairs.len() as f64;
        let sum = pairs.iter().fold((0.0, 0.0), |sum, pair| (sum.0 + pair.0, sum.1 + pair.1));
        (!pairs.is_empty()).then(|| (sum.0 / n, sum.1 / n))
    }

    /// A table of a line for each rule and task; what is not known is empty. `after_5` is the share of episodes whose choice is
    /// right after 5 transitions.
    pub(crate) fn csv(all: &[Routing]) -> String {
        let cell = |value: Option<f64>| format!(",{}", value.map_or_else(String::new, |value| format!("{value:.6}")));
        let mut text = String::from("rule,task,episodes,score,oracle,states,after_0,after_1,after_5,after_20\n");
        for routing in all {
            for (number, (name, o)) in routing.names.iter().zip(&routing.tasks).enumerate() {
                let tally = o.tally.as_ref();
                let episodes = tally.map_or_else(String::new, |t| t.episodes.to_string());
                let shares = tally.map_or([None; 5], |t| routing.shares(number, t, false));
                let cells: String = [o.score, o.oracle].into_iter().chain(shares).map(cell).collect();
                text += &format!("{},{},{episodes}{cells}\n", quoted(&routing.rule), quoted(name));
            }
        }
        text
    }

    /// All of it, for scripts.
    pub(crate) fn json(&self) -> Value {
        let shares = |shares: [Option<f64>; 5]| {
            let [states, first, one, five, twenty] = shares;
            json!({"states": states, "after": {"0": first, "1": one, "5": five, "20": twenty}})
        };
        let task = |(number, o): (usize, &Outcome)| {
            let tally = o.tally.as_ref();
            json!({
                "name": self.names[number], "episodes": tally.map(|t| t.episodes),
                "reached": tally.map(|t| t.reached), "by_task": tally.map(|t| shares(self.shares(number, t, false))),
                "by_class": tally.filter(|_| self.classes.is_some()).map(|t| shares(self.shares(number, t, true))),
                "chosen_states": tally.map(|t| &t.states), "chosen_episodes": tally.map(|t| &t.after[3]),
                "unknown_states": tally.map(|t| t.unknown_states), "unknown_episodes": tally.map(|t| t.unknown_episodes),
                "unknown_if_left_out": o.flagged_unseen, "score": o.score, "oracle": o.oracle,
            })
        };
        json!({
            "rule": self.rule, "after": AFTER, "task_names": self.names, "classes": self.classes,
            "tasks": self.tasks.iter().enumerate().map(task).collect::<Vec<_>>(),
            "all": self.means(false).into_iter().next().map(shares),
            "all_by_class": self.means(true).into_iter().next().filter(|_| self.classes.is_some()).map(shares),
            "score": self.scores().map(|s| s.0), "oracle": self.scores().map(|s| s.1),
        })
    }
}

fn number_of(score: Option<f64>) -> String {
    number(score, 1)
}

/// Why each task of a bank was learned where it is.
pub(crate) fn sources(args: &Explain) -> Result<()> {
    let bank = open_bank(&args.bank)?;
    if bank.tasks.is_empty() {
        bail!("{}: the bank holds no task", args.bank.display());
    }
    let folder = args.bank.parent().unwrap_or(Path::new("."));
    let mut files = Vec::new();
    for number in 0..bank.tasks.len() {
        let path = task_path(folder, number);
        if !path.is_file() {
            bail!(
                "{}: the scores of each decision lie in the run directory, beside the bank; name a logged episode with --task NAME",
                path.display()
            );
        }
        files.push(read_json::<TaskFile>(&path)?);
    }
    if let Some(path) = &args.json {
        let document = json!({"schema": SCHEMA, "tasks": files});
        return write_output(path, &(serde_json::to_string_pretty(&document)? + "\n"));
    }
    let mut table = Table::default();
    table.row(["task", "earlier task", "copy", "action error", "score", "picked"].map(str::to_owned).to_vec());
    for (record, file) in bank.tasks.iter().zip(&files) {
        if file.scores.is_empty() {
            let none = || "-".to_owned();
            table.row(vec![short(&record.name), none(), record.copy.to_string(), none(), none(), none()]);
        }
        for row in &file.scores {
            let name = bank.tasks.get(row.task).map_or_else(|| "unknown".to_owned(), |t| short(&t.name));
            let picked = if record.source == Some(row.task) { "yes" } else { "-" }.to_owned();
            let figures = [number(row.action, 4), number(Some(row.score), 4)];
            let [action, score] = figures;
            table.row(vec![short(&record.name), name, record.copy.to_string(), action, score, picked]);
        }
    }
    print(&table.text())
}

#[cfg(test)]
mod tests {
    use super::classes_of;

    #[test]
    fn classes_are_mutual_and_connected() {
        let row = |list: [f64; 4]| list.map(|s| (s >= 0.0).then_some(s)).to_vec();
        // 0 and 1 stand in for each other, 1 and 2 too; 3 plays 0 well, but nobody plays 3.
        let scores = [
            row([100.0, 99.0, 10.0, 0.0]),
            row([98.5, 100.0, 99.0, 0.0]),
            row([10.0, 98.0, 100.0, 0.0]),
            row([100.0, -1.0, -1.0, 50.0]),
        ];
        assert_eq!(classes_of(&scores), [0, 0, 0, 3]);
    }
}
