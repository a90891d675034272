//! `skipc-run` can be carried to a GPU machine that has neither Rust nor LLVM nor the newest system.
#![cfg(target_os = "linux")]

use std::collections::BTreeSet;

/// Largest size in bytes. A release build has 3 MB; what would bring 20 is a compiler.
const SIZE_LIMIT: usize = 20 << 20;

/// The newest version of the C library that may be asked for: that of Debian 12 is 2.36, of Ubuntu 22.04 2.35.
const GLIBC_LIMIT: (u32, u32) = (2, 34);

/// The versions that a program's dynamic symbols name, as text somewhere in it.
fn glibc_versions(program: &[u8]) -> BTreeSet<(u32, u32)> {
    let prefix = b"GLIBC_";
    let starts = program.windows(prefix.len()).enumerate().filter(|(_, window)| window == prefix);
    let version = |at: usize| {
        let text: Vec<u8> = program[at..].iter().copied().take_while(|&byte| byte != 0).take(16).collect();
        let text = String::from_utf8(text).ok()?;
        let mut numbers = text.split('.').map(str::parse);
        Some((numbers.next()?.ok()?, numbers.next()?.ok()?))
    };
    starts.filter_map(|(at, _)| version(at + prefix.len())).collect()
}

#[test]
fn the_program_is_small_and_asks_for_an_old_c_library() {
    let program = std::fs::read(env!("CARGO_BIN_EXE_skipc-run")).unwrap();
    assert!(program.len() < SIZE_LIMIT, "{} bytes", program.len());
    let versions = glibc_versions(&program);
    let newest = versions.last().expect("a program for Linux names versions of its C library");
    assert!(*newest <= GLIBC_LIMIT, "it asks for GLIBC_{}.{}", newest.0, newest.1);
}

#[test]
fn the_check_sees_what_it_looks_for() {
    let versions = glibc_versions(b"\0GLIBC_2.2.5\0GLIBC_2.39\0GLIBC_PRIVATE\0");
    assert_eq!(versions.into_iter().collect::<Vec<_>>(), [(2, 2), (2, 39)]);
}
