//! Tasks that a bank's run did not have.

mod common;

use common::{Folder, done, run};
use std::fs;

#[test]
fn a_bank_with_a_task_from_demonstrations_is_played() {
    let folder = Folder::new("adapt");
    done(&folder.0, "data make --suite cartpole_conflict --episodes 10 --out data");
    let list = fs::read_to_string(folder.path("data/tasks.json")).expect("a list");
    let mut tasks: Vec<serde_json::Value> = serde_json::from_str(&list).expect("JSON");
    let unseen = tasks.pop().expect("two tasks");
    let name = unseen["name"].as_str().expect("a name").to_owned();
    fs::write(folder.path("one.json"), serde_json::to_string(&tasks).expect("JSON")).expect("a file");
    let small = "--steps 2 --batch 4 --episodes 1 --width 32 --layers 1 --context 5 --no-reference -q";
    done(&folder.0, &format!("train --spec one.json --data data --out run {small}"));
    done(
        &folder.0,
        &format!(
            "adapt run/bank.safetensors --data data --task {name} --name other --steps 2 --episodes 1 --out two.safetensors"
        ),
    );
    let told = done(&folder.0, "eval two.safetensors --data data --episodes 1 --json -");
    let played: serde_json::Value = serde_json::from_str(&told).expect("JSON");
    let names: Vec<&str> =
        played["tasks"].as_array().expect("tasks").iter().filter_map(|t| t["name"].as_str()).collect();
    assert_eq!(names, ["P_default", "other"]);
    assert_eq!(played["tasks"][1]["scores"].as_array().map(Vec::len), Some(1));

    fs::remove_dir_all(folder.path("data").join(name)).expect("a folder");
    let gone = run(&folder.0, "eval two.safetensors --data data --episodes 1");
    assert_eq!(gone.status.code(), Some(2));
}
