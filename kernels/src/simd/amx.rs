//! Whether this process may use matrix tiles (AMX).
#![expect(unsafe_code, reason = "a system call and a register that no safe function reads")]

use std::sync::OnceLock;

/// True if the CPU multiplies tiles of bf16 and the system saves them for this process.
///
/// Linux grants them to a process that asks, for all its threads; this asks, once. Where it does not grant them there are
/// none, and they are not looked for on other systems.
pub(super) fn available() -> bool {
    static AVAILABLE: OnceLock<bool> = OnceLock::new();
    *AVAILABLE.get_or_init(|| cpu_has_tiles() && system_saves_tiles() && granted())
}

fn cpu_has_tiles() -> bool {
    const BF16: u32 = 1 << 22;
    const TILE: u32 = 1 << 24;
    let features = std::arch::x86_64::__cpuid_count(7, 0).edx;
    if features & (BF16 | TILE) != BF16 | TILE {
        return false;
    }
    // Palette 1: bytes of a row, tiles, rows.
    let palette = std::arch::x86_64::__cpuid_count(0x1D, 1);
    (palette.ebx & 0xFFFF, palette.ebx >> 16, palette.ecx & 0xFFFF) == (64, 8, 16)
}

/// Called on CPUs with AVX-512, which have the register.
fn system_saves_tiles() -> bool {
    const TILES: u32 = 3 << 17;
    let low: u32;
    // SAFETY: systems that let AVX-512 run have set the bit that makes this register readable.
    unsafe { std::arch::asm!("xgetbv", in("ecx") 0, out("eax") low, out("edx") _, options(nomem, nostack)) }
    low & TILES == TILES
}

#[cfg(target_os = "linux")]
fn granted() -> bool {
    const GET_PERMISSION: u64 = 0x1022;
    const REQUEST_PERMISSION: u64 = 0x1023;
    const TILE_DATA: u64 = 18;
    let mut granted = 0u64;
    // A filter of system calls may answer zero and do nothing: what was granted is read.
    let asked = arch_prctl(REQUEST_PERMISSION, TILE_DATA) == 0;
    asked
        && arch_prctl(GET_PERMISSION, (&raw mut granted).expose_provenance() as u64) == 0
        && granted >> TILE_DATA & 1 == 1
}

#[cfg(target_os = "linux")]
fn arch_prctl(code: u64, argument: u64) -> i64 {
    const ARCH_PRCTL: i64 = 158;
    let answer: i64;
    // SAFETY: the two requests above change what the process may use, and one word that is named; registers that the system
    // writes are listed.
    unsafe {
        std::arch::asm!(
            "syscall",
            inlateout("rax") ARCH_PRCTL => answer,
            in("rdi") code,
            in("rsi") argument,
            out("rcx") _,
            out("r11") _,
            options(nostack)
        );
    }
    answer
}

#[cfg(not(target_os = "linux"))]
fn granted() -> bool {
    false
}
