//! Whether this process may use matrix tiles (AMX).
#![expect(unsafe_code, reason = "a system call and a register that no safe function reads")]

use std::sync::OnceLock;

/// True if the CPU multiplies tiles of bf16 and the kernel saves them for this process.
///
/// Linux grants them to a process that asks, once, for all its threads; this asks. Without an answer there are none: they
/// are not looked for on other systems.
pub(super) fn available() -> bool {
    static AVAILABLE: OnceLock<bool> = OnceLock::new();
    *AVAILABLE.get_or_init(|| cpu_has_tiles() && system_saves_tiles() && granted())
}

fn cpu_has_tiles() -> bool {
    const BF16: u32 = 1 << 22;
    const TILE: u32 = 1 << 24;
    let leaf = std::arch::x86_64::__cpuid_count(7, 0);
    leaf.edx & (BF16 | TILE) == BF16 | TILE
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
    const ARCH_PRCTL: i64 = 158;
    const ARCH_REQ_XCOMP_PERM: i64 = 0x1023;
    const TILE_DATA: i64 = 18;
    let answer: i64;
    // SAFETY: this call changes nothing but what the process may use; registers that it writes are listed.
    unsafe {
        std::arch::asm!(
            "syscall",
            inlateout("rax") ARCH_PRCTL => answer,
            in("rdi") ARCH_REQ_XCOMP_PERM,
            in("rsi") TILE_DATA,
            out("rcx") _,
            out("r11") _,
            options(nostack)
        );
    }
    answer == 0
}

#[cfg(not(target_os = "linux"))]
fn granted() -> bool {
    false
}
