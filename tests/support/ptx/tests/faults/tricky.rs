//! Correct kernels that look like wrong ones.

use super::hosts::{SENTINEL, add, launch, noise, word_map, words};
use super::plant::{Host, Runner, Setup};
use skipc_ptx::machine::{Arg, Memory};

pub(crate) static HOSTS: [&Host; 12] = [
    &UNEVEN_LOOPS,
    &EARLY_EXIT,
    &NESTED,
    &IN_PLACE,
    &BROADCAST,
    &ATOMICS,
    &TICKETS,
    &BYTES,
    &RELAY,
    &COPIES_ARRIVE,
    &ROUND_TRIP,
    &PAIRS,
];

macro_rules! host {
    ($(#[$doc:meta])* $host:ident, $name:literal, $setup:path) => {
        host!($(#[$doc])* $host, $name, $setup, "tricky");
    };
    ($(#[$doc:meta])* $host:ident, $name:literal, $setup:path, $file:literal) => {
        $(#[$doc])*
        pub(crate) static $host: Host = Host {
            name: $name,
            text: include_str!(concat!("../kernels/faults/", $file, ".ptx")),
            runner: Runner::Launch($setup),
        };
    };
}

host!(
    /// Each lane goes round as often as its number says; then all meet at a barrier.
    UNEVEN_LOOPS, "uneven_loops", uneven_loops);
host!(
    /// Half of the lanes, and of the warps, end before a barrier and a shuffle of the rest.
    EARLY_EXIT, "early_exit", early_exit);
host!(
    /// Branches in branches in a loop, then a shuffle of all lanes.
    NESTED, "nested", nested);
host!(
    /// Threads read and write their own words again and again, in global and shared memory.
    IN_PLACE, "in_place", in_place);
host!(
    /// All threads of all blocks read one word, and one word of shared memory.
    BROADCAST, "broadcast", broadcast);
host!(
    /// All threads of all blocks add to one word, in shared memory and then in global.
    ATOMICS, "atomics", atomics);
host!(
    /// Blocks draw tickets, and write where these say.
    TICKETS, "tickets", tickets);
host!(
    /// Threads write neighbouring bytes, and read the words of them behind a barrier.
    BYTES, "bytes", bytes);
host!(
    /// A word goes from warp to warp, each round with a barrier of its own.
    RELAY, "relay", relay);

host!(
    /// Copies of threads arrive at an mbarrier on their own; two stages.
    COPIES_ARRIVE, "copies_arrive", copies_arrive, "tricky_hopper");
host!(
    /// Threads write what the machine loads, and read what it has stored. The mbarrier becomes data in the end.
    ROUND_TRIP, "round_trip", round_trip, "tricky_hopper");
host!(
    /// Two blocks load halves of tiles for each other, and tell each other when they have read them.
    PAIRS, "pairs", pairs, "tricky_hopper");

fn one(grid: u32, threads: u32, from: Vec<u8>, n: u32, expected: Vec<u8>) -> Setup {
    let mut memory = Memory::default();
    let at = add(&mut memory, "from", from, false);
    let to = add(&mut memory, "to", words(std::iter::repeat_n(SENTINEL, n as usize)), true);
    Setup {
        launch: launch(grid, threads, vec![Arg::U64(at), Arg::U64(to)]),
        memory,
        expected: vec![(1, expected)],
    }
}

fn uneven_loops() -> Setup {
    // The numbers of the mirrored thread, from 0 up to its own.
    let expected = words((0..64_u32).map(|t| (0..=(63 - t) % 32).map(|step| step + (63 - t)).sum::<u32>()));
    one(1, 64, words([0]), 64, expected)
}

fn early_exit() -> Setup {
    let expected = words((0..128_u32).map(|t| if t < 64 && t % 32 < 16 { t ^ 5 } else { SENTINEL }));
    one(1, 128, words([0]), 128, expected)
}

fn nested() -> Setup {
    let value = |t: u32| {
        let mut x = 0;
        for round in 0..4 {
            x += match (t & 1 == 0, t & round == 0) {
                (true, true) => 1,
                (true, false) => 10,
                (false, _) => 100,
            };
        }
        x
    };
    one(1, 32, words([0]), 32, words((0..32).map(|t| value(t ^ 3))))
}

fn in_place() -> Setup {
    one(2, 64, words([0]), 128, words((0..128).map(|t| SENTINEL + 4 * (t % 64 + 1))))
}

fn broadcast() -> Setup {
    one(3, 64, words([noise(1)]), 192, words((0..192).map(|t| noise(1) + noise(1) + t % 64)))
}

fn atomics() -> Setup {
    let mut setup = one(4, 64, words([0]), 1, words([256]));
    clear(&mut setup, 1);
    setup
}

fn tickets() -> Setup {
    // Places 1 to 4 are taken in an order that the schedule chooses, with a number that does not depend on it.
    let mut setup = one(4, 32, words([0]), 5, words([4, 77, 77, 77, 77]));
    clear(&mut setup, 5);
    setup
}

fn bytes() -> Setup {
    let word = |t: u32| u32::from_le_bytes([0, 1, 2, 3].map(|byte| ((t ^ 32) / 4 * 4 + byte) as u8));
    one(1, 64, words([0]), 64, words((0..64).map(word)))
}

fn relay() -> Setup {
    one(1, 128, words([5]), 1, words([5 + 1 + 2 + 3 + 4]))
}

fn copies_arrive() -> Setup {
    one(1, 64, words((0..640).map(noise)), 640, words((0..640).map(noise)))
}

fn round_trip() -> Setup {
    let mut memory = Memory::default();
    let scratch = add(&mut memory, "scratch", words([SENTINEL; 256]), true);
    let to = add(&mut memory, "to", words([SENTINEL; 256]), true);
    let word = |at: u32| at + if at.is_multiple_of(4) { 7 } else { 0 };
    let expected = vec![(0, words((0..256).map(word))), (1, words((0..256).map(|at| word(at ^ 3))))];
    let args = vec![word_map(scratch, 8), Arg::U64(scratch), Arg::U64(to)];
    Setup { launch: launch(1, 64, args), memory, expected }
}

fn pairs() -> Setup {
    let mut memory = Memory::default();
    let from = add(&mut memory, "from", words((0..80 * 32).map(noise)), false);
    let to = add(&mut memory, "to", words([SENTINEL; 64]), true);
    let sum = |at: u32| {
        let of = |step: u32| {
            let first = step * 512 + at % 32 * 4;
            noise(first + 1).wrapping_add(noise(first + 256 + 2)).wrapping_add(at / 32)
        };
        (0..5).map(of).fold(0_u32, u32::wrapping_add)
    };
    Setup {
        launch: launch(2, 64, vec![word_map(from, 80), Arg::U64(to)]),
        memory,
        expected: vec![(1, words((0..64).map(sum)))],
    }
}

/// Zeros in place of the sentinels.
fn clear(setup: &mut Setup, n: usize) {
    let mut memory = Memory::default();
    for mut buffer in std::mem::take(&mut setup.memory).into_buffers() {
        if buffer.writable {
            buffer.bytes = vec![0; 4 * n];
        }
        memory.add(buffer);
    }
    setup.memory = memory;
}
