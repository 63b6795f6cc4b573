//! Reports on made-up run directories, read back by a strict parser.

use std::path::{Path, PathBuf};
use std::{env, fs, process};

use roxmltree::{Document, ParsingOptions};
use serde_json::{Value, json};

use super::page::{bytes, duration, number, percent, short};
use super::{Report, write};
use tsn::metrics::{Scores, summarise};

const NASTY: &str = "<b>\"5 & 6\"</b> 'x'";

/// A directory that is gone after the test.
struct Folder(PathBuf);

impl Folder {
    fn new(test: &str) -> Folder {
        let path = env::temp_dir().join(format!("tsn-report-{}-{test}", process::id()));
        let _ = fs::remove_dir_all(&path);
        fs::create_dir_all(&path).unwrap();
        Folder(path)
    }

    fn put(&self, run: &str, file: &str, value: &Value) -> PathBuf {
        let dir = self.0.join(run);
        fs::create_dir_all(&dir).unwrap();
        fs::write(dir.join(file), serde_json::to_string_pretty(value).unwrap()).unwrap();
        dir
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Numbers in 0..1 that differ but are the same every time.
fn noise(a: usize, b: usize, c: u64) -> f64 {
    let mixed = (a as u64 * 7919 + b as u64 * 104_729 + c * 1_299_709 + 12_345).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (mixed >> 40) as f64 / (1u64 << 24) as f64
}

/// `P[i][j]`: masked strategies keep what they learned, naive loses some of it with every later task.
fn score(strategy: &str, after: usize, on: usize, seed: u64) -> f64 {
    let learned = 420.0 + 80.0 * noise(on, 1, seed);
    match () {
        () if after < on => 20.0 + 120.0 * noise(after, on, seed),
        () if strategy == "naive" => {
            (learned * 0.72f64.powi((after - on) as i32) + 30.0 * noise(after, on, seed)).min(500.0)
        }
        () => learned,
    }
}

/// Scores of four episodes whose mean is a score.
fn episodes(mean: f64) -> [f64; 4] {
    [-6.0, -2.0, 3.0, 5.0].map(|off| mean + off)
}

fn tasks(count: usize) -> Vec<String> {
    let pole = |at: usize| format!("cartpole_g{}_l{:.2}", 8 + 2 * at, 0.5 + 0.05 * at as f64);
    (0..count).map(|at| if at == 1 { NASTY.to_owned() } else { pole(at) }).collect()
}

/// A complete run directory.
fn sample(folder: &Folder, strategy: &str, count: usize, seed: u64) -> PathBuf {
    let run = format!("cartpole_{count}__{strategy}__demo__r{seed:03}__20260504-093000");
    let names = tasks(count);
    let masked = strategy != "naive";
    let p = |after: usize, on: usize| score(strategy, after, on, seed);
    let per_task = |value: &dyn Fn(usize) -> f64| (0..count).map(value).collect::<Vec<f64>>();
    let last = count - 1;
    let mean = |values: &[f64]| values.iter().sum::<f64>() / values.len() as f64;
    let learned_diff: Vec<f64> = (0..last).map(|on| p(last, on) - p(on, on)).collect();
    let norm = per_task(&|on| (p(last, on) - 22.0) / (495.0 - 22.0));
    let settings = json!({"strategy": strategy, "mode": "action", "keep_ratio": 0.08, "steps": 500, "batch": 64,
        "lr": 2e-3, "seed": seed, "profile": "corrected", "max_copies": null});
    let config = json!({"schema": 1, "suite": format!("cartpole_{count}"), "strategy": strategy, "mode": "action",
        "seed": seed, "device": "cpu", "threads": 2, "program_version": "0.1.0", "git_commit": "dac569a",
        "started": format!("2026-05-04T09:3{seed}:00Z"), "data_source": "generated", "tasks": names});
    folder.put(&run, "config.json", &config);
    let claimed = per_task(&|task| if masked { 0.08 * (1.0 - 0.5 * f64::from(u8::from(task > 0))) } else { 1.0 });
    let results = json!({
        "schema": 1, "name": strategy, "suite": format!("cartpole_{count}"), "task_names": names,
        "perf_matrix": (0..count).map(|after| per_task(&|on| p(after, on))).collect::<Vec<_>>(),
        "metrics": {
            "ACC": mean(&per_task(&|on| p(last, on))), "BWT": mean(&learned_diff), "Forgetting": -mean(&learned_diff),
            "avg_score": mean(&norm), "norm": norm,
            "memory_factor": if masked { 1.31 + 0.001 * seed as f64 } else { 1.0 },
            "memory_factor_with_te": if masked { 1.26 } else { 1.0 },
        },
        "references": {"random": per_task(&|_| 22.0), "single": per_task(&|_| 495.0), "untrained": null},
        "density": per_task(&|_| if masked { 0.08 } else { 1.0 }),
        "newly_claimed": claimed,
        "occupied": per_task(&|task| if masked { claimed[..=task].iter().sum() } else { 1.0 }),
        "copies": 1, "task_copy": vec![0; count], "disagreement": per_task(&|task| 0.01 + 0.02 * noise(task, 3, seed)),
        "own_loss": per_task(&|task| 0.05 + 0.05 * noise(task, 4, seed)),
        "time_per_task_s": per_task(&|task| 31.0 + 9.0 * noise(task, 5, seed)),
        "bit_identical": if masked { json!(true) } else { Value::Null },
        "memory": {"weights": 2_443_280, "time_embedding": 25_600, "masks_stored": 81_000 * count,
            "masks_packed": 76_353 * count, "masks_entropy": 30_700 * count, "occupied": 81_000, "norms": 7_168 * count,
            "statistics": 1_232 * count, "extra": 0, "records": 130 * count, "codebooks": 0, "coded_weights": 0,
            "dense": 2_450_448, "dense_time_embedding": 25_600, "training": 7_330_000},
        "episode_scores": (0..count).map(|after| (0..count).map(|on| episodes(p(after, on))).collect()).collect::<Vec<Vec<_>>>(),
        "memory_per_task": (0..count).map(|task| json!({"masks_packed": 76_353, "routing": 900 + task, "codebooks": 0,
            "claimed_weights": 48_000 / (task + 1)})).collect::<Vec<_>>(),
        "seed": seed, "wall_s": 251.5, "complete": true, "settings": settings,
    });
    folder.put(&run, "results.json", &results);
    let loss = |task: usize, step: usize| {
        0.05 + 0.64 * (-(step as f64) / (60.0 + 10.0 * task as f64)).exp() + 0.03 * noise(step, task, seed)
    };
    let steps: Vec<Value> = (0..count)
        .map(|task| {
            let losses: Vec<Value> = (0..100).map(|at| json!([at * 5, loss(task, at * 5)])).collect();
            json!({"task": task, "ACC": 1.0, "BWT": null, "Forgetting": null, "losses": losses})
        })
        .collect();
    folder.put(&run, "per_step.json", &json!(steps));
    let routes: Vec<Value> = (0..count)
        .map(|task| {
            let ratio = |earlier: usize| 0.25 + 2.4 * noise(task, earlier + 9, seed);
            let source = (0..task).min_by(|a, b| ratio(*a).total_cmp(&ratio(*b)));
            let one = |earlier: usize| {
                let a = ratio(earlier);
                json!({"task": earlier, "copy": 0, "action": 0.693 * a, "own_error": 0.06, "scaled_error": (a - 0.1) / 0.9,
                    "chance_ratio": a, "latent": 12.5 * a, "latent_per_dim": 0.1 * a, "cosine": null, "kl": null, "score": a})
            };
            json!({"name": names[task], "copy": 0, "source": source, "created": task == 0,
                "warm_start": source.is_some_and(|source| ratio(source) < 1.0),
                "scores": (0..task).filter(|_| masked).map(one).collect::<Vec<_>>()})
        })
        .collect();
    folder.put(&run, "routing.json", &json!(routes))
}

/// Adds success rates: a share of the score.
fn with_success(run: &Path) {
    let file = run.join("results.json");
    let mut results: Value = serde_json::from_slice(&fs::read(&file).unwrap()).unwrap();
    let rate = |score: &Value| json!(score.as_f64().unwrap() / 1000.0);
    let row = |row: &Value| Value::from(row.as_array().unwrap().iter().map(rate).collect::<Vec<_>>());
    let rows = results["perf_matrix"].as_array().unwrap().iter().map(row).collect::<Vec<_>>();
    results["success_matrix"] = Value::from(rows);
    fs::write(&file, results.to_string()).unwrap();
}

/// A run on recorded data alone: nothing was played, and most files are missing.
fn data_only(folder: &Folder) -> PathBuf {
    let results = json!({
        "schema": 1, "name": "tsn_affinity", "suite": "logs", "task_names": ["push", "slide", "reach"],
        "perf_matrix": vec![vec![Value::Null; 3]; 3], "metrics": {"ACC": null, "norm": null}, "references": null,
        "density": [0.08, 0.08, null], "bit_identical": true, "own_loss": [0.1, 0.2, 0.3], "seed": 1, "complete": false,
    });
    folder.put("logs__tsn_affinity", "results.json", &results)
}

/// Writes a report, parses it, and returns its markup and all its text.
fn report(folder: &Folder, runs: &[PathBuf]) -> (String, String) {
    let path = write(&folder.0.join("out"), runs).unwrap();
    assert_eq!(path, folder.0.join("out/report.html"));
    let html = fs::read_to_string(&path).unwrap();
    let text = check(&html);
    (html, text)
}

/// Well formed, self-contained, links that lead somewhere; returns the text.
fn check(html: &str) -> String {
    let options = ParsingOptions { allow_dtd: true, ..ParsingOptions::default() };
    let document = Document::parse_with_options(html, options).unwrap();
    for node in document.descendants().filter(|node| node.is_element()) {
        let name = node.tag_name().name();
        assert!(!["script", "img", "link", "iframe", "object"].contains(&name), "{name}");
        for attribute in node.attributes() {
            let value = attribute.value();
            assert!(!attribute.name().starts_with("on") && attribute.name() != "src", "{}", attribute.name());
            assert!(!value.contains("NaN") && !value.contains("inf"), "{name} {}: {value}", attribute.name());
            if let Some(id) = value.strip_prefix('#').filter(|_| attribute.name() == "href") {
                assert!(document.descendants().any(|node| node.attribute("id") == Some(id)), "no {id}");
            }
        }
    }
    assert!(!html.contains("http:") && !html.contains("https:") && !html.contains("url("));
    let text = document.descendants().filter(|node| node.is_text()).filter_map(|node| node.text());
    text.collect::<Vec<_>>().join("\n")
}

fn plots(html: &str, title: &str) -> usize {
    html.matches(&format!("<title>{title}</title>")).count()
}

#[test]
fn two_strategies_three_tasks() {
    let folder = Folder::new("three");
    let runs = [sample(&folder, "tsn", 3, 0), sample(&folder, "naive", 3, 0)];
    let (html, text) = report(&folder, &runs);
    for part in ["tsn", "naive", "cartpole_3", "cpu", "dac569a", "2026-05-04 09:30 UTC", "1.31", "1.26"] {
        assert!(text.contains(part), "{part}");
    }
    for name in tasks(3) {
        assert!(text.contains(&name), "{name}");
    }
    assert!(!html.contains("<b>") && !html.contains(NASTY));
    assert!(html.contains("<span class=\"yes\">yes</span>"), "bit identical");
    assert_eq!(plots(&html, "Score matrix"), 2);
    assert_eq!(plots(&html, "Learning curves"), 2);
    assert_eq!(plots(&html, "Affinity: chance ratio A\u{2033}"), 1, "naive routes nothing");
    for title in ["Capacity after each task", "Time per task", "Memory"] {
        assert_eq!(plots(&html, title), 2, "{title}");
    }
    // Raw and normalised.
    assert_eq!(html.matches("(zero shot)</title>").count(), 2 * 2 * 3);
    assert_eq!(html.matches(", the source</title>").count(), 2);
    assert!(text.contains("Strategies compared"));
    let acc = number((0..3).map(|on| score("naive", 2, on, 0)).sum::<f64>() / 3.0);
    assert!(text.contains(&acc), "{acc}");
}

#[test]
fn seeds_share_a_row() {
    let folder = Folder::new("seven");
    let mut runs: Vec<PathBuf> = (0..3).map(|seed| sample(&folder, "tsn_affinity", 7, seed)).collect();
    let once = report(&folder, &runs[..1]).0;
    runs.extend((0..2).map(|seed| sample(&folder, "naive", 7, seed)));
    let (html, text) = report(&folder, &runs);
    assert!(!once.contains("<polygon") && html.contains("<polygon"), "bands need several seeds");
    assert!(text.contains("\u{b1}") && text.contains("3 of 3 runs"));
    assert_eq!(html.matches("<section id=\"strategy-").count(), 2);
    assert_eq!(html.matches("<details class=\"run\"").count(), 5);
    assert!(once.contains("open=\"open\"") && !html.contains("open=\"open\""), "many runs start folded");
    for name in tasks(7) {
        assert!(text.contains(&name), "{name}");
    }
}

type Metric = fn(&Scores) -> Option<f64>;

/// Every number again, from the matrices and by the library's own metrics.
#[test]
fn statistics_are_those_of_the_matrices() {
    let folder = Folder::new("statistics");
    let seeds = [0, 1, 2];
    let mut runs: Vec<PathBuf> = seeds.iter().map(|seed| sample(&folder, "tsn", 3, *seed)).collect();
    runs.extend(seeds[1..].iter().map(|seed| sample(&folder, "naive", 3, *seed)));
    runs.iter().for_each(|run| with_success(run));
    let report = Report::read(&runs).unwrap();
    let json: Value = serde_json::from_str(&report.json().unwrap()).unwrap();
    let find = |kind: &str, strategy: &str, scores: &str, measure: &str| {
        let rows = json["statistics"].as_array().unwrap().iter();
        let mut rows = rows.filter(|row| {
            (&row["kind"], &row["strategy"], &row["scores"], &row["measure"])
                == (&json!(kind), &json!(strategy), &json!(scores), &json!(measure))
        });
        let row = rows.next().unwrap_or_else(|| panic!("{kind} {strategy} {scores} {measure}")).clone();
        assert!(kind == "task" || rows.next().is_none(), "{kind} {measure} twice");
        row
    };
    let matrix = |strategy: &str, seed: u64| -> Vec<Vec<f64>> {
        (0..3).map(|after| (0..3).map(|on| score(strategy, after, on, seed)).collect()).collect()
    };
    let close = |row: &Value, key: &str, expected: f64| {
        let found = row[key].as_f64().unwrap();
        assert!((found - expected).abs() < 1e-9 * (1.0 + expected.abs()), "{key}: {found} against {expected}");
    };
    for (strategy, seeds) in [("tsn", &seeds[..]), ("naive", &seeds[1..])] {
        let all: Vec<Scores> = seeds.iter().map(|seed| Scores::new(&matrix(strategy, *seed)).unwrap()).collect();
        let metrics: [(&str, Metric); 4] =
            [("final", Scores::acc), ("best", Scores::best), ("bwt", Scores::bwt), ("forgetting", Scores::forgetting)];
        for (measure, metric) in metrics {
            let values: Vec<f64> = all.iter().map(|scores| metric(scores).unwrap()).collect();
            let over = summarise(&[values], 1, 0).unwrap();
            for (version, factor) in [("raw", 1.0), ("success", 1e-3)] {
                let row = find("mean", strategy, version, measure);
                close(&row, "mean", factor * over.mean);
                close(&row, "std", factor * over.std);
                assert_eq!(row["runs"], json!(seeds.len()));
                let [low, high] = [0, 1].map(|end| row["mean_interval"][end].as_f64().unwrap());
                assert!(low <= factor * over.mean + 1e-9 && factor * over.mean <= high + 1e-9, "{low} {high}");
            }
            let shift = if measure == "final" || measure == "best" { 22.0 } else { 0.0 };
            close(&find("mean", strategy, "normalised", measure), "mean", (over.mean - shift) / (495.0 - 22.0));
        }
    }
    // Seeds 1 and 2 alone have both strategies.
    let difference = find("difference", "tsn", "raw", "final");
    let last = |strategy: &str, seed: u64| matrix(strategy, seed)[2].iter().sum::<f64>() / 3.0;
    let pairs = [1, 2].map(|seed| last("tsn", seed) - last("naive", seed));
    close(&difference, "mean", (pairs[0] + pairs[1]) / 2.0);
    close(&difference, "std", (pairs[0] - pairs[1]).abs() / 2f64.sqrt());
    assert_eq!((&difference["against"], &difference["runs"]), (&json!("naive"), &json!(2)));
    assert!(difference["mean_interval"][0].as_f64().unwrap() > 0.0, "tsn keeps what naive loses");

    let csv = report.csv();
    assert_eq!(csv, Report::read(&runs).unwrap().csv(), "the same every time");
    let columns = csv.lines().next().unwrap().split(',').count();
    assert_eq!(csv.lines().count(), 1 + json["statistics"].as_array().unwrap().len());
    let mut reader = csv::Reader::from_reader(csv.as_bytes());
    assert!(reader.records().all(|row| row.unwrap().len() == columns));
    let (html, text) = self::report(&folder, &runs);
    assert_eq!(plots(&html, "Success matrix"), 5);
    assert_eq!(plots(&html, "Mean success rate on the tasks learned so far"), 1);
    for part in ["Paired differences", "Interquartile mean", "Success rates", "when learned", "best"] {
        assert!(text.contains(part), "{part}");
    }
    assert_eq!(fs::read_to_string(folder.0.join("out/report.csv")).unwrap(), csv);
    // One run has no spread to draw an interval from.
    let one = Report::read(&runs[..1]).unwrap().csv();
    let line = one.lines().find(|line| line.starts_with("mean,cartpole_3,tsn,,raw,final,,1,3,")).unwrap();
    assert!(line.contains(",,,,") && line.ends_with(",,"), "{line}");
}

/// Episodes are drawn within a task of a run: neither seeds nor tasks widen their interval.
#[test]
fn intervals_over_episodes_stand_apart() {
    let folder = Folder::new("episodes");
    let runs: Vec<PathBuf> = (0..2).map(|seed| sample(&folder, "tsn", 3, seed)).collect();
    let report = Report::read(&runs).unwrap();
    let json: Value = serde_json::from_str(&report.json().unwrap()).unwrap();
    let all = json["statistics"].as_array().unwrap();
    let of = |kind: &str| -> Vec<&Value> { all.iter().filter(|row| row["kind"] == kind).collect() };
    let finals =
        |task: usize| -> Vec<Vec<f64>> { (0..2).map(|seed| episodes(score("tsn", 2, task, seed)).to_vec()).collect() };
    let strata: Vec<Vec<f64>> = (0..2).flat_map(|run| (0..3).map(move |task| finals(task)[run].clone())).collect();
    let expected = summarise(&strata, 2000, 0).unwrap();
    let [row] = of("episodes")[..] else { panic!("one row for all tasks") };
    assert_eq!((&row["runs"], &row["values"], &row["std"]), (&json!(2), &json!(24), &Value::Null));
    assert_eq!((&row["mean"], &row["mean_interval"]), (&json!(expected.mean), &json!(expected.mean_interval)));
    let width = expected.mean_interval[1] - expected.mean_interval[0];
    assert!(width < 6.0, "{width}: four episodes are within 11 of each other");
    for (task, row) in of("task_episodes").into_iter().enumerate() {
        let one = summarise(&finals(task), 2000, 0).unwrap();
        assert_eq!((&row["task"], &row["values"]), (&json!(tasks(3)[task]), &json!(8)));
        assert_eq!((&row["std"], &row["mean_interval"]), (&json!(one.std), &json!(one.mean_interval)));
    }
    assert_eq!(of("task_episodes").len(), 3);
    let added =
        all.iter().find(|row| row["measure"] == "added_claimed_weights_bytes" && row["kind"] == "task").unwrap();
    assert_eq!(added["mean"], json!(48_000.0));
    assert_eq!(json["runs"][0]["memory_per_task"][2]["claimed_weights"], json!(16_000));
    assert_eq!(json["runs"][1]["episode_scores"][0], json!(finals(0)[1]));
    let (html, text) = self::report(&folder, &runs);
    assert!(text.contains("Final scores over episodes") && text.contains("newly claimed weights"));
    assert_eq!(plots(&html, "Memory that each task added"), 2);
    assert!(!text.contains("codebooks"), "no task has one");
    // A run from before episodes were recorded has neither.
    let file = runs[0].join("results.json");
    let mut old: Value = serde_json::from_slice(&fs::read(&file).unwrap()).unwrap();
    for key in ["episode_scores", "memory_per_task"] {
        old.as_object_mut().unwrap().remove(key).unwrap();
    }
    fs::write(&file, old.to_string()).unwrap();
    let csv = Report::read(&runs[..1]).unwrap().csv();
    assert!(!csv.contains("episodes") && !csv.contains("added_"));
}

/// A record of another program has names and a matrix alone; it stands beside ours, as its own strategy.
#[test]
fn imported_records() {
    let folder = Folder::new("imported");
    let ours = sample(&folder, "naive", 3, 0);
    let record = json!({"schema": 1, "name": "naive", "suite": "cartpole_3", "task_names": tasks(3), "seed": 0,
        "perf_matrix": [[10, 0, 0], [4, 20, 0], [1, 2, 30]], "imported": {"from": "elsewhere"}, "settings": {}});
    let theirs = folder.put("other", "results.json", &record);
    let (_, text) = report(&folder, &[ours.clone(), theirs.clone()]);
    assert!(text.contains("naive (imported)") && text.contains("Imported from elsewhere"));
    assert!(!text.contains("per_step.json is missing"));
    let csv = Report::read(&[ours, theirs]).unwrap().csv();
    let has = |start: &str| assert!(csv.lines().any(|line| line.starts_with(start)), "{start}");
    has("mean,cartpole_3,naive (imported),,raw,final,,1,3,11.000000");
    has("mean,cartpole_3,naive (imported),,raw,bwt,,1,2,-13.500000");
    has("mean,cartpole_3,naive (imported),,raw,forgetting,,1,2,13.500000");
    has("difference,cartpole_3,naive,naive (imported),raw,final,");
}

/// Different settings are different rows, named by what differs; so are other lists of tasks.
#[test]
fn settings_split_groups() {
    let folder = Folder::new("settings");
    let runs = [sample(&folder, "tsn", 3, 0), sample(&folder, "tsn", 3, 1), sample(&folder, "tsn", 4, 0)];
    let file = runs[1].join("results.json");
    let changed = fs::read_to_string(&file).unwrap().replace("\"keep_ratio\": 0.08", "\"keep_ratio\": 0.25");
    fs::write(&file, changed).unwrap();
    let (html, text) = report(&folder, &runs);
    assert_eq!(html.matches("<section id=\"strategy-").count(), 3);
    assert!(text.contains("cartpole_3: tsn (keep_ratio 0.25)") && text.contains("cartpole_4: tsn"));
}

/// What baselines are set to and how much data there is are settings as others are; a run that is there twice counts once.
#[test]
fn nested_settings_split_groups_and_copies_do_not_count() {
    let folder = Folder::new("nested");
    let runs = [0, 1, 2].map(|seed| sample(&folder, "ewc", 3, seed));
    let change = |run: &Path, seed: u64, strength: u64, episodes: u64| {
        let file = run.join("results.json");
        let mut results: Value = serde_json::from_slice(&fs::read(&file).unwrap()).unwrap();
        results["settings"]["baseline"] = json!({"strength": strength});
        results["settings"]["data"] = json!({"episodes": episodes, "seed": seed});
        fs::write(file, results.to_string()).unwrap();
    };
    change(&runs[0], 0, 50, 5);
    change(&runs[1], 1, 50, 5);
    change(&runs[2], 2, 1000, 40);
    let (html, text) = report(&folder, &runs);
    assert_eq!(html.matches("<section id=\"strategy-").count(), 2);
    assert!(
        text.contains("ewc (data_episodes 5, strength 50)") && text.contains("ewc (data_episodes 40, strength 1000)")
    );
    let twice = [runs[0].clone(), runs[1].clone(), runs[0].clone()];
    assert_eq!(Report::read(&twice).unwrap().runs(), 2);
}

#[test]
fn data_alone() {
    let folder = Folder::new("data");
    let (html, text) = report(&folder, &[data_only(&folder)]);
    for part in ["push", "slide", "reach", "tsn_affinity", "No task was played", "not complete"] {
        assert!(text.contains(part), "{part}");
    }
    for file in ["config.json", "per_step.json", "routing.json"] {
        assert!(text.contains(&format!("{file} is missing")), "{file}");
    }
    assert_eq!(plots(&html, "Score matrix") + plots(&html, "Learning curves"), 0);
    assert_eq!(plots(&html, "Capacity after each task"), 1);
}

/// Entries of a wrong kind or size leave the page whole.
#[test]
fn odd_entries() {
    let folder = Folder::new("odd");
    let cases = [
        json!({}),
        json!([]),
        json!({"task_names": "x", "perf_matrix": 7, "metrics": [], "memory": {"weights": "many"}, "copies": []}),
        json!({"task_names": ["\u{0}\u{1b}"], "perf_matrix": [[1e308, -1e308], [1e99, 3], []], "density": [1e99, -4]}),
        json!({"task_names": ["a", "b"], "perf_matrix": [[1e17, 0], [1.0000000000000002e17, 0]], "name": NASTY}),
        json!({"task_names": [], "memory": {"weights": -5, "new <item>": 3}}),
    ];
    for (at, results) in cases.iter().enumerate() {
        let run = folder.put(&format!("run{at}"), "results.json", results);
        folder.put(&format!("run{at}"), "per_step.json", &json!([{"losses": [[0, 1e99], [1], "x", [2, null]]}, 5, {}]));
        folder.put(
            &format!("run{at}"),
            "routing.json",
            &json!([{"scores": [{"task": 99}, {"task": 0, "score": 1}]}, 1]),
        );
        report(&folder, &[run]);
    }
}

#[test]
fn broken_files_are_named() {
    let folder = Folder::new("broken");
    let run = sample(&folder, "tsn", 3, 0);
    fs::write(run.join("routing.json"), "[{\"name\": ").unwrap();
    let message = format!("{:#}", write(&folder.0, std::slice::from_ref(&run)).unwrap_err());
    assert!(message.contains("routing.json") && message.contains("JSON"), "{message}");
    fs::remove_file(run.join("results.json")).unwrap();
    let message = write(&folder.0, &[run]).unwrap_err().to_string();
    assert!(message.contains("results.json"), "{message}");
    assert!(write(&folder.0, &[]).is_err());
    assert!(!Path::new(&folder.0.join("report.html")).exists());
}

#[test]
fn formats() {
    let numbers = [(0.0, "0"), (-0.0001, "\u{2212}1.00e-4"), (-12.345, "\u{2212}12.35"), (499.96, "500.0")];
    for (value, text) in numbers {
        assert_eq!(number(value), text);
    }
    assert_eq!((number(12_345.6).as_str(), number(999.97).as_str()), ("12\u{202f}346", "1\u{202f}000"));
    assert_eq!((short(499.6).as_str(), short(0.04321).as_str(), number(0.04321).as_str()), ("500", "0.043", "0.0432"));
    assert_eq!(
        (percent(0.0843).as_str(), percent(-1e-9).as_str(), percent(1.0).as_str()),
        ("8.43 %", "0.00 %", "100.0 %")
    );
    assert_eq!(
        (duration(31.4).as_str(), duration(600.0).as_str(), duration(9000.0).as_str()),
        ("31.4 s", "10.0 min", "2.5 h")
    );
    assert_eq!((bytes(12.0).as_str(), bytes(2_443_280.0).as_str()), ("12 B", "2.44 MB"));
}
