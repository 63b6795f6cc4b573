//! A file is replaced in one step: faults on the way keep the old one, and errors name the path.

use crate::samples::directory;
use std::fs;
use std::io;
use tsn::bank::Bank;
use tsn::file::{Step, replace_file, replace_file_with};

/// The k-th operation fails, for every k: the old file stays whole, the error has a path and the cause, nothing is left
/// behind.
#[test]
fn faults_while_writing_keep_the_old_file() {
    let folder = directory("faults");
    let path = folder.join("bank.tsn");
    let (old, new) = (vec![1u8; 10], vec![2u8; (2 << 20) + 5]);
    for has_old in [true, false] {
        let mut steps = Vec::new();
        for k in 0.. {
            let _ = fs::remove_file(&path);
            if has_old {
                fs::write(&path, &old).expect("writable");
            }
            steps.clear();
            let saved = replace_file_with(&path, &new, &mut |step| {
                steps.push(step);
                if steps.len() > k { Err(io::Error::other("injected: disk full")) } else { Ok(()) }
            });
            let names: Vec<_> =
                fs::read_dir(&folder).expect("readable").map(|e| e.expect("entry").file_name()).collect();
            let found = fs::read(&path).ok();
            let Err(error) = saved else {
                assert_eq!(found.as_ref(), Some(&new));
                break;
            };
            let text = error.to_string();
            assert!(text.contains("injected: disk full") && text.contains("formats-faults"), "{text}");
            if steps.last() == Some(&Step::SyncDirectory) {
                assert_eq!(found.as_ref(), Some(&new), "whole once renamed");
            } else {
                assert_eq!(found.as_ref(), has_old.then_some(&old), "after {steps:?}");
            }
            assert_eq!(names.len(), usize::from(found.is_some()), "left behind after {steps:?}: {names:?}");
        }
        use Step::{Create, Permissions, Rename, Sync, SyncDirectory, Write};
        let all = [Create, Permissions, Write, Write, Write, Sync, Rename, SyncDirectory];
        let expected: Vec<Step> = all.into_iter().filter(|step| has_old || *step != Permissions).collect();
        assert_eq!(steps, expected);
    }
}

#[test]
fn errors_of_the_system_name_the_path() {
    let folder = directory("system");
    let missing = folder.join("none").join("bank.tsn");
    let text = replace_file(&missing, b"x").expect_err("no such directory").to_string();
    assert!(text.contains("none") && text.contains("create"), "{text}");
    let text = replace_file(&folder, b"x").expect_err("a directory").to_string();
    assert!(text.contains("formats-system"), "{text}");
    assert_eq!(fs::read_dir(&folder).expect("still there").count(), 0);
    let text = Bank::open(&missing).expect_err("no such file").to_string();
    assert!(text.contains("none") && text.contains("cannot read"), "{text}");
    let text = Bank::open(&folder).expect_err("a directory").to_string();
    assert!(text.contains("not a regular file"), "{text}");
    assert!(replace_file(std::path::Path::new("/"), b"x").is_err());
}

#[cfg(unix)]
#[test]
fn permissions_and_links_are_kept() {
    use std::os::unix::fs::{PermissionsExt as _, symlink};
    let folder = directory("permissions");
    let (path, link) = (folder.join("bank.tsn"), folder.join("link.tsn"));
    fs::write(&path, b"old").expect("writable");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).expect("set");
    symlink(&path, &link).expect("linked");
    replace_file(&link, b"new").expect("replaced");
    assert_eq!(fs::read(&path).expect("readable"), b"new");
    assert_eq!(fs::metadata(&path).expect("there").permissions().mode() & 0o777, 0o600);
    assert!(fs::symlink_metadata(&link).expect("there").is_symlink());
}
