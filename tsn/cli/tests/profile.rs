//! `profile` as a user meets it: every output parsed back, learned masks, and what is refused.

mod common;

use common::{Folder, done, run, texts};
use serde_json::Value;
use std::fs::read_to_string;

/// Short enough for a test; the figures mean nothing.
const SHORT: &str = "--warm-up-ms 1 --measure-ms 2";

fn lines(text: &str) -> Vec<Value> {
    text.lines().map(|line| serde_json::from_str(line).expect("an object per line")).collect()
}

#[test]
fn every_output_is_read_back() {
    let folder = Folder::new("profile-outputs");
    let words = "profile masked_gemm --r 9 --o 32:64:32 --i 40 --density 0.5,0.1 --cache both --threads 1,2 \
                 --json rows.json --csv rows.csv --html rows.html";
    let table = done(&folder.0, &format!("{words} {SHORT}"));
    assert!(table.lines().all(|line| line.chars().count() <= 120), "{table}");
    assert!(table.contains("r9_o32_i40_d50_w2_cold"), "{table}");

    let all = lines(&read_to_string(folder.path("rows.json")).expect("a file"));
    assert!(all.iter().all(|line| line["schema"] == 1));
    let (first, rows) = all.split_first().expect("a fingerprint");
    assert_eq!(first["reason"], "fingerprint");
    for key in ["cpu_model", "isa", "governor", "compiler", "revision", "date", "program_version"] {
        assert!(first[key].is_string(), "{key}");
    }
    assert!(first["caches"]["l1d"].is_u64() && first["ceilings"].as_array().is_some_and(|c| c.len() == 2));
    assert_eq!(rows.len(), 2 * 2 * 2 * 2);
    for row in rows {
        row_is_complete(row);
    }
    let one = rows.iter().find(|row| row["threads"] == 1 && row["cache"] == "warm" && row["shape"]["o"] == 64);
    let id = one.and_then(|row| row["id"].as_str()).expect("the row");
    assert!(id.starts_with("masked_gemm/cpu_f32_") && id.ends_with("/r9_o64_i40_d50"), "{id}");

    let csv = read_to_string(folder.path("rows.csv")).expect("a file");
    let mut csv = csv.lines().filter(|line| !line.starts_with('#'));
    let head = csv.next().expect("a head").split(',').count();
    let counts: Vec<usize> = csv.map(|line| line.split(',').count()).collect();
    assert_eq!(counts, [head; 16]);

    let html = read_to_string(folder.path("rows.html")).expect("a file");
    let options = roxmltree::ParsingOptions { allow_dtd: true, ..Default::default() };
    let page = roxmltree::Document::parse_with_options(&html, options).expect("well-formed markup");
    let named = |name: &'static str| page.descendants().filter(move |node| node.has_tag_name(name));
    assert_eq!(named("svg").count(), 2);
    assert_eq!(named("circle").count(), 16);
    assert_eq!(named("tbody").next().map(|body| body.children().filter(|n| n.has_tag_name("tr")).count()), Some(16));
    let loads = |node: &roxmltree::Node<'_, '_>| node.has_attribute("src") || node.has_attribute("href");
    assert!(!page.descendants().any(|node| loads(&node)), "the page needs nothing else");
}

fn row_is_complete(row: &Value) {
    assert_eq!((&row["reason"], &row["unit"]), (&"benchmark-complete".into(), &"ns".into()));
    let texts = ["id", "op", "backend", "dtype", "variant", "device", "mask_kind", "cache", "verified", "timer"];
    texts.iter().for_each(|key| assert!(row[key].is_string(), "{key}: {row}"));
    let figures = [
        "density",
        "min_ns",
        "p20_ns",
        "p80_ns",
        "rel_stdev",
        "gflops_dense",
        "gflops_effective",
        "gbps",
        "percent_compute",
        "percent_bandwidth",
        "flop_per_byte",
        "error",
        "tolerance",
        "host_ns",
        "seed",
        "threads",
    ];
    figures.iter().for_each(|key| assert!(row[key].is_number(), "{key}: {row}"));
    for key in ["typical", "mean", "median", "median_abs_dev"] {
        let bound = |name: &str| row[key][name].as_f64().expect("a number");
        assert!(bound("lower_bound") <= bound("upper_bound") && row[key]["unit"] == "ns", "{key}: {row}");
    }
    let samples = row["measured_values"].as_array().map(Vec::len).expect("samples");
    assert!((5..=1000).contains(&samples) && row["iteration_count"].as_array().map(Vec::len) == Some(samples));
    let units: Vec<&Value> = row["throughput"].as_array().expect("work").iter().map(|t| &t["unit"]).collect();
    assert_eq!(units, ["elements", "bytes"]);
    assert!(row["error"].as_f64() <= row["tolerance"].as_f64());
    for key in ["clock_mhz_before", "clock_mhz_after"] {
        assert!(row[key].is_null() || row[key].is_number(), "{key}: {row}");
    }
}

#[test]
fn a_failed_case_says_why_and_fails_the_command() {
    let folder = Folder::new("profile-failed");
    let output = run(&folder.0, &format!("profile cosine_topk --n 2 --m 3,20 --d 8 --json - {SHORT}"));
    let (out, err) = texts(&output);
    assert_eq!(output.status.code(), Some(1), "{err}");
    assert!(err.contains("1 of 2 cases failed"), "{err}");
    let all = lines(&out);
    assert_eq!([&all[1]["reason"], &all[2]["reason"]], ["benchmark-failed", "benchmark-complete"]);
    assert!(all[1]["why"].as_str().is_some_and(|why| why.contains("m = 3")), "{}", all[1]);
}

#[test]
fn masks_of_a_bank_are_profiled() {
    let folder = Folder::new("profile-bank");
    let small = "--width 32 --layers 1 --context 5 --data-episodes 10 --steps 2 --batch 4 --episodes 1 --no-reference";
    done(&folder.0, &format!("train --suite cartpole_conflict {small} --out run -q"));
    let words = "profile masked_gemm --r 5 --mask bank:run/bank.safetensors:Q_flipped_actions --json -";
    let all = lines(&done(&folder.0, &format!("{words} {SHORT}")));
    assert!(all.len() > 3, "a row per matrix");
    for row in &all[1..] {
        row_is_complete(row);
        assert!(row["mask_kind"].as_str().is_some_and(|kind| kind.starts_with("Q_flipped_actions.")), "{row}");
        assert!(row["density"].as_f64().is_some_and(|d| (0.0..0.5).contains(&d)), "{row}");
    }
}

#[test]
fn one_launch_without_clocks() {
    let folder = Folder::new("profile-once");
    for flag in ["--once", "--profile"] {
        let out = done(&folder.0, &format!("profile gemm_dw --r 20 --o 16 --i 16 {flag}"));
        assert!(out.starts_with("gemm_dw/cpu_f32_") && out.contains("r20_o16_i16_d100"), "{out}");
        assert_eq!(out.lines().count(), 1);
    }
}

#[test]
fn the_list_names_ops_letters_and_variants() {
    let folder = Folder::new("profile-list");
    let out = done(&folder.0, "profile --list");
    for text in ["masked_gemm\n", "letters  r=3840 o=128 i=128  density 0.5", "variants plain", "mask[o,i]", "kmeans\n"]
    {
        assert!(out.contains(text), "{text}: {out}");
    }
}

#[test]
fn what_is_refused() {
    let folder = Folder::new("profile-refused");
    for (words, expected) in [
        ("profile", "<OP>"),
        ("profile masked_gem", "did you mean `masked_gemm`"),
        ("profile gemm --q 4", "it has --r, --o, --i"),
        ("profile gemm --r 0", "whole number"),
        ("profile gemm --r 9:1:1", "goes up"),
        ("profile gemm --density 0.5", "has no mask"),
        ("profile masked_gemm --density 1.5", "outside 0..=1"),
        ("profile masked_gemm --mask 4:2", "N <= M <= 32"),
        ("profile masked_gemm --mask 2:4 --density 0.5", "--mask 2:4 fixes the density"),
        ("profile masked_gemm --mask bank:none.safetensors", "none.safetensors"),
        ("profile gemm --variant best", "it has plain"),
        ("profile gemm --dtype u8", "--dtype may be f32"),
        ("profile gemm --device cuda", "cuda"),
        ("profile gemm --cash cold", "--cache"),
        ("profile --suite quick --filter nothing_like_this", "leaves no case"),
        ("profile --suite quick --r 3", "its own sizes"),
        ("profile gemm --r 1:1000:1 --o 1:1000:1", "10000 cases"),
        ("profile cosine_topk --n 2 --m 3,4 --d 8", "no case is possible: cosine_topk: k is 10"),
        ("profile gemm --r 1000000000 --i 1000000000", "no case is possible: gemm r1000000000"),
    ] {
        let output = run(&folder.0, words);
        let (_, err) = texts(&output);
        assert_eq!(output.status.code(), Some(2), "{words}: {err}");
        assert!(err.contains(expected), "{words}: {err}");
    }
}

#[test]
fn a_table_is_used_recorded_and_checked() {
    let folder = Folder::new("profile-tune");
    let first = &lines(&done(&folder.0, &format!("profile gelu --r 9 --json - {SHORT}")))[0];
    assert_eq!(first["crossover"], "shipped");
    // Masked products have no variant of their own for bf16 instructions.
    let isa = first["isa"].as_str().expect("a name").trim_end_matches("_bf16");
    let entry = |op| serde_json::json!({"op": op, "isa": isa, "rows_up_to": null, "width_up_to": null, "lists_below_keep": 1.0});
    let entries = ["masked_gemm", "masked_gemm_dx", "masked_gemm_dw"].map(entry);
    let table =
        serde_json::json!({"schema": 1, "machine": first, "kernel_hash": first["kernel_hash"], "entries": entries});
    std::fs::write(folder.path("table.json"), table.to_string()).expect("a file");
    let all = lines(&done(&folder.0, &format!("profile masked_gemm --r 9 --tune table.json --json - {SHORT}")));
    assert_eq!(all[0]["crossover"], "table.json");
    row_is_complete(&all[1]);
    // A run keeps its table, so that resume and eval compute the same bits without the file.
    let small = "--width 32 --layers 1 --context 5 --data-episodes 10 --steps 2 --batch 4 --episodes 1 --no-reference";
    done(&folder.0, &format!("train --suite cartpole_conflict {small} --tune table.json --out run -q"));
    let config: Value =
        serde_json::from_str(&read_to_string(folder.path("run/config.json")).expect("a file")).expect("JSON");
    assert_eq!(config["crossover"]["entries"], table["entries"]);
    std::fs::rename(folder.path("table.json"), folder.path("moved.json")).expect("a name");
    done(&folder.0, "resume run -q");
    done(&folder.0, "eval run/bank.safetensors --episodes 1 --tune moved.json");
    let other = table.to_string().replace(first["kernel_hash"].as_str().expect("text"), "0123");
    std::fs::write(folder.path("other.json"), other).expect("a file");
    for command in ["profile gelu", "eval run/bank.safetensors", "train --suite demo --out new"] {
        for (words, expected) in [
            ("--tune other.json", "other.json: kernel_hash is 0123"),
            ("--tune none.json", "none.json"),
            ("--tune run/config.json", "no crossover table"),
            ("--tune moved.json --deterministic", "cannot be used with"),
        ] {
            let output = run(&folder.0, &format!("{command} {words}"));
            let (_, err) = texts(&output);
            assert_eq!(output.status.code(), Some(2), "{command} {words}: {err}");
            assert!(err.contains(expected), "{command} {words}: {err}");
        }
    }
    assert!(!folder.path("new").exists());
}

/// Where programs find no adapter this reports itself as not run; `REQUIRE=wgpu` makes that a failure.
#[cfg(feature = "wgpu")]
#[test]
fn kernels_of_a_gpu_are_timed_by_its_clock() {
    let folder = Folder::new("profile-gpu");
    let words =
        "profile gemm,masked_gemm,layernorm --r 33 --device wgpu --variant all --json rows.json --html rows.html";
    let output = run(&folder.0, &format!("{words} {SHORT}"));
    let (table, err) = texts(&output);
    if err.contains("no adapter") {
        let required = std::env::var("REQUIRE").unwrap_or_default();
        assert!(!required.split(',').any(|name| name.trim() == "wgpu"), "REQUIRE names wgpu: {err}");
        eprintln!("not run: {err}");
        return;
    }
    assert_eq!(output.status.code(), Some(0), "{err}");
    assert!(table.lines().all(|line| line.chars().count() <= 120), "{table}");
    let all = lines(&read_to_string(folder.path("rows.json")).expect("a file"));
    let (first, rows) = all.split_first().expect("a fingerprint");
    assert!(first["gpu"].is_string() && first["driver"].is_string(), "{first}");
    let ceilings = first["ceilings"].as_array().expect("ceilings");
    assert_eq!((ceilings.len(), &ceilings[0]["device"]), (1, &first["gpu"]));
    assert!(ceilings[0]["compute"][0]["gflops"].as_f64() > Some(0.0), "{first}");
    assert!(ceilings[0]["levels"][0]["read_gbps"].as_f64() > Some(0.0), "{first}");
    let variants: Vec<String> = rows.iter().map(|row| format!("{} {}", row["op"], row["variant"])).collect();
    assert_eq!(variants.iter().filter(|v| v.contains("tiled")).count(), 2, "{variants:?}");
    for row in rows {
        row_is_complete(row);
        assert_eq!(
            [&row["backend"], &row["device"], &row["timer"]],
            [&"wgpu".into(), &first["gpu"], &"timestamps".into()]
        );
        assert!(row["host_ns"].as_f64() > Some(0.0) && row["min_ns"].as_f64() > Some(0.0), "{row}");
        assert!(row["id"].as_str().is_some_and(|id| id.contains("/wgpu_f32_")), "{row}");
    }
    assert!(read_to_string(folder.path("rows.html")).expect("a file").contains("<svg"));
    for (words, expected) in [
        ("gemm --variant tiles_avx512", "it has plain, tiled"),
        ("gemm --threads 2", "--threads is for the cpu"),
        ("gemm --device wgpu:999", "wgpu:999"),
    ] {
        let device = if words.contains("--device") { "" } else { "--device wgpu" };
        let output = run(&folder.0, &format!("profile {words} {device}"));
        let (_, err) = texts(&output);
        assert_eq!(output.status.code(), Some(2), "{words}: {err}");
        assert!(err.contains(expected), "{words}: {err}");
    }
    done(&folder.0, &format!("profile gelu --r 20 --c 16 --device wgpu --cache both --json cold.json {SHORT}"));
    let rows = lines(&read_to_string(folder.path("cold.json")).expect("a file"));
    let caches: Vec<_> = rows[1..].iter().map(|row| row["cache"].as_str()).collect();
    assert_eq!(caches, [Some("warm"), Some("cold")]);
    let out = done(&folder.0, "profile gelu --r 20 --c 16 --device wgpu --once");
    assert!(out.starts_with("gelu/wgpu_f32_plain/r20_c16"), "{out}");
}

#[cfg(not(feature = "wgpu"))]
#[test]
fn a_program_without_gpus_says_so() {
    let folder = Folder::new("profile-no-gpu");
    let output = run(&folder.0, "profile gemm --device wgpu");
    let (_, err) = texts(&output);
    assert_eq!(output.status.code(), Some(2), "{err}");
    assert!(err.contains("wgpu"), "{err}");
}
