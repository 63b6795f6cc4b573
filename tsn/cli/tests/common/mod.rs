//! What the tests of the program share: a folder of their own, and the binary.
#![allow(dead_code, reason = "every test file uses its own part")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// A folder that is removed at the end of a test.
pub(crate) struct Folder(pub PathBuf);

impl Folder {
    pub(crate) fn new(name: &str) -> Folder {
        let path = std::env::temp_dir().join(format!("tsn-affinity-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        fs::create_dir_all(&path).expect("a folder for the test");
        Folder(path)
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// The program, to be run in a folder.
pub(crate) fn program(folder: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tsn-affinity"));
    command.current_dir(folder);
    command
}

/// Runs the program with words separated by spaces.
pub(crate) fn run(folder: &Path, words: &str) -> Output {
    program(folder).args(words.split_whitespace()).output().expect("the program starts")
}

/// Runs the program and expects success.
pub(crate) fn done(folder: &Path, words: &str) -> String {
    let output = run(folder, words);
    let (out, err) = texts(&output);
    assert!(output.status.success(), "{words}: {:?}\n{out}{err}", output.status);
    out
}

/// Writes the parameters of a golden model with the names they have in a checkpoint of the reference.
pub(crate) fn golden_checkpoint(name: &str, to: &Path) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures/golden");
    let bytes = fs::read(folder.join(format!("{name}.safetensors"))).expect("a golden model");
    let file = safetensors::SafeTensors::deserialize(&bytes).expect("a safetensors file");
    let all = file.tensors();
    let parameters = all.into_iter().filter_map(|(name, view)| Some((name.strip_prefix("param.")?.to_owned(), view)));
    fs::write(to, safetensors::serialize(parameters, None).expect("tensors")).expect("a file");
}

pub(crate) fn texts(output: &Output) -> (String, String) {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (text(&output.stdout), text(&output.stderr))
}
