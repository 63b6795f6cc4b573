//! A GPU without memory. In a process of its own: the one test takes address space from all threads.

use engine::{Builder, DType, Device, Error, Life, Plan};
use kernels::ops;
use std::process::Command;

/// Left for everything but the plan's arenas.
const ROOM: u64 = 1 << 30;

/// `rows` of 4 KiB, added to themselves.
fn doubled(rows: u32) -> Plan {
    let mut plan = Builder::new();
    let [x, y] =
        [("x", Life::State), ("y", Life::Output)].map(|(name, life)| plan.buffer(name, DType::F32, rows, 1024, life));
    let [x, y] = [x, y].map(|buffer| plan.whole(buffer));
    plan.call(&ops::pointwise::ADD, &[Some(x), Some(x), Some(y)], &[]).expect("shapes agree");
    for name in 0..64 {
        plan.buffer(format!("more {name}"), DType::F32, rows, 1024, Life::State);
    }
    plan.finish().expect("names differ")
}

/// Address space of this process, in bytes, where Linux says it.
fn taken() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmSize:"))?;
    Some(line.trim().trim_end_matches(" kB").parse::<u64>().ok()? << 10)
}

/// Sets the most address space of this process; false if there is no program for it.
fn limit(bytes: &str) -> bool {
    // The soft limit: it can be lifted again.
    let limit = format!("--as={bytes}:");
    Command::new("prlimit").args(["--pid", &std::process::id().to_string(), &limit]).status().is_ok_and(|s| s.success())
}

/// A driver in software takes its memory from the process, so that a limit of the process is one of the device.
#[test]
fn a_device_without_memory_is_an_error_and_goes_on() {
    let device = match Device::open("wgpu") {
        Ok(Device::Wgpu(gpu)) if gpu.info().kind == "Cpu" => Device::Wgpu(gpu),
        Ok(_) => return eprintln!("not run: this GPU has memory of its own"),
        Err(error) => {
            let required = std::env::var("REQUIRE").unwrap_or_default();
            assert!(!required.split(',').any(|name| name.trim() == "wgpu"), "REQUIRE names wgpu: {error}");
            return eprintln!("not run: {error}");
        }
    };
    let mut small = doubled(1).bind(&device).expect("a small plan");
    let Some(taken) = taken() else { return eprintln!("not run: no /proc") };
    // 65 states of 64 MiB.
    let large = doubled(16 << 10);
    if !limit(&(taken + ROOM).to_string()) {
        return eprintln!("not run: no prlimit");
    }
    let refused = large.bind(&device).map(|_| ());
    assert!(limit("unlimited"), "the limit can be lifted");
    assert!(matches!(refused, Err(Error::Memory { bytes }) if bytes >= 65 << 26), "{refused:?}");
    small.write("x", &[1.5f32; 1024]).expect("1024 elements");
    small.run().expect("not lost");
    assert_eq!(small.read_vec::<f32>("y").expect("an output"), [3.0; 1024]);
}
