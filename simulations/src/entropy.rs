//! Randomness from a seed, for everything that a thread does.
//!
//! Libraries draw randomness from the operating system: for their hash maps, keys, connection ids and
//! jitter. A run that is to be repeated must give them the same again. So this module defines the C
//! library's `getrandom` and `syscall` anew: on a thread that runs under [`seeded`] they answer from
//! its seed, on all others they ask the kernel as ever. Never part of the relay: only this crate links
//! it, and it is the only module of the workspace with unsafe code.
#![allow(unsafe_code)] // symbols of the C library can be defined in no other way

use std::cell::Cell;

thread_local! {
    /// The generator's state on a seeded thread. No destructor, no allocation: it is read below
    /// everything else, even while a thread ends.
    static STATE: Cell<Option<u64>> = const { Cell::new(None) };
}

/// Stack of a seeded thread: debug builds of TLS handshakes need more than the default.
const STACK_BYTES: usize = 8 << 20;

/// Held by tests whose runs must come out the same, and by those that would disturb them: runtimes and
/// TLS keep a little state that all threads of a process share.
#[cfg(test)]
pub(crate) static ALONE: parking_lot::Mutex<()> = parking_lot::Mutex::new(());

/// Runs `run` on a fresh thread, whose randomness all comes from `seed`. A panic goes on here.
///
/// Fresh, because threads keep hash keys and generators that were drawn before.
///
/// # Panics
/// If the system has no thread to give, and if `run` panics.
pub fn seeded<T: Send>(seed: u64, run: impl FnOnce() -> T + Send) -> T {
    std::thread::scope(|scope| {
        let body = || {
            STATE.set(Some(seed));
            run()
        };
        let thread = std::thread::Builder::new().stack_size(STACK_BYTES);
        let thread = thread.spawn_scoped(scope, body).expect("the system has a thread to give");
        thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

/// The next eight bytes of a `SplitMix64` generator.
fn next(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
    let mut mixed = *state;
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    mixed ^ (mixed >> 31)
}

/// Fills `buffer` from the thread's seed; `false` if the thread has none.
fn fill(buffer: &mut [u8]) -> bool {
    let Some(mut state) = STATE.get() else { return false };
    for chunk in buffer.chunks_mut(8) {
        chunk.copy_from_slice(&next(&mut state).to_le_bytes()[..chunk.len()]);
    }
    STATE.set(Some(state));
    true
}

/// The C library's `getrandom(2)`, for who calls it by name.
///
/// # Safety
/// `buffer` points to `len` bytes that may be written, as the original demands.
#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn getrandom(buffer: *mut u8, len: usize, flags: u32) -> isize {
    if STATE.get().is_some() && !buffer.is_null() {
        // SAFETY: the caller promises so, and nothing else refers to the bytes during the call.
        fill(unsafe { std::slice::from_raw_parts_mut(buffer, len) });
        return len.cast_signed();
    }
    let call = [buffer.expose_provenance(), len, flags as usize, 0, 0, 0];
    // SAFETY: the arguments are those of the original call.
    let written = unsafe { syscall_with_errno(libc::SYS_getrandom, call) };
    isize::try_from(written).unwrap_or(-1)
}

/// The C library's `syscall(2)`, for who asks for randomness by number.
///
/// # Safety
/// As the original: what the numbered call demands of its arguments.
#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
#[unsafe(no_mangle)]
#[allow(clippy::many_single_char_names)] // a call's six arguments have no other names
pub unsafe extern "C" fn syscall(
    number: libc::c_long,
    a: usize,
    b: usize,
    c: usize,
    d: usize,
    e: usize,
    f: usize,
) -> libc::c_long {
    if number == libc::SYS_getrandom && STATE.get().is_some() {
        let buffer = std::ptr::with_exposed_provenance_mut(a);
        // SAFETY: these are getrandom's arguments.
        return unsafe { getrandom(buffer, b, 0) } as libc::c_long;
    }
    // SAFETY: the caller's arguments, as they came.
    unsafe { syscall_with_errno(number, [a, b, c, d, e, f]) }
}

/// The kernel's answer as the C library gives it: −1 and `errno` for an error.
///
/// # Safety
/// What the numbered call demands of its arguments.
#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
#[allow(clippy::many_single_char_names)] // as above
unsafe fn syscall_with_errno(number: libc::c_long, arguments: [usize; 6]) -> libc::c_long {
    const ERRNO_MAX: i64 = 4095;
    let mut result = number;
    let [a, b, c, d, e, f] = arguments;
    // SAFETY: the x86-64 convention of Linux: number in rax, six arguments, rcx and r11 are lost.
    unsafe {
        std::arch::asm!(
            "syscall",
            inlateout("rax") result,
            in("rdi") a, in("rsi") b, in("rdx") c, in("r10") d, in("r8") e, in("r9") f,
            lateout("rcx") _, lateout("r11") _,
            options(nostack)
        );
    }
    if (-ERRNO_MAX..0).contains(&result) {
        // SAFETY: the C library's own place of this thread's errno.
        unsafe { *libc::__errno_location() = i32::try_from(-result).unwrap_or(libc::EINVAL) };
        return -1;
    }
    result
}

#[cfg(test)]
mod tests {
    use std::{collections::HashMap, hash::BuildHasher};

    use rand::Rng;

    use super::*;

    /// What a thread sees of randomness: a hash map's keys, the thread's generator, a long buffer.
    fn drawn(seed: u64) -> (u64, u64, Vec<u8>) {
        seeded(seed, || {
            let map: HashMap<u8, u8> = HashMap::new();
            let mut bytes = vec![0; 1000];
            rand::rng().fill(&mut bytes[..]);
            (map.hasher().hash_one(7), rand::rng().random(), bytes)
        })
    }

    #[test]
    fn one_seed_draws_the_same_on_every_thread() {
        assert_eq!(drawn(7), drawn(7));
        assert_ne!(drawn(7), drawn(8));
    }

    #[test]
    fn other_threads_ask_the_kernel() {
        let unseeded = || std::thread::spawn(|| rand::rng().random::<u64>()).join().ok();
        seeded(7, || assert_ne!(unseeded(), unseeded()));
    }

    #[test]
    #[cfg(all(target_os = "linux", target_arch = "x86_64"))]
    fn errors_of_the_kernel_come_back_as_errno() {
        // SAFETY: closing a descriptor that cannot exist changes nothing.
        let result = unsafe { syscall(libc::SYS_close, usize::MAX, 0, 0, 0, 0, 0) };
        assert_eq!(result, -1);
        assert_eq!(std::io::Error::last_os_error().raw_os_error(), Some(libc::EBADF));
    }

    #[test]
    #[should_panic(expected = "on purpose")]
    fn panics_go_on() {
        seeded(7, || panic!("on purpose"));
    }
}
