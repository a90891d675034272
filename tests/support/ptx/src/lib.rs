//! An executable model of PTX: loads a kernel's text, runs it on the CPU over real buffers, and finds what a
//! GPU would only show as a wrong number or a hang.
//!
//! A kernel is text ([`syntax`]), becomes a [`Program`](machine::Program) whose instructions are decoded and
//! whose variables are placed, and is [`run`](machine::run) with a [`Launch`](machine::Launch) over a
//! [`Memory`](machine::Memory). The result is [`Counters`](machine::Counters), or the first
//! [`Fault`](machine::Fault) with the line of the text, the block and the thread. What is not modelled is an
//! error when the kernel is loaded, never skipped: [`forms`] lists the instructions.
//!
//! The command `skipc-ptx` runs one kernel by hand: `skipc-ptx --help` says how arguments are written.
//!
//! ```
//! use std::sync::Arc;
//! use skipc_ptx::machine::{Arg, Buffer, Launch, Memory, Program, run};
//!
//! // Each thread stores its index.
//! let text = "
//!     .version 8.6
//!     .target sm_90a
//!     .visible .entry count(.param .u64 out)
//!     {
//!       .reg .b32 %r1;
//!       .reg .b64 %rd<4>;
//!       mov.u32 %r1, %tid.x;
//!       ld.param.b64 %rd1, [out];
//!       mul.wide.u32 %rd2, %r1, 4;
//!       add.s64 %rd3, %rd1, %rd2;
//!       st.global.b32 [%rd3], %r1;
//!       ret;
//!     }";
//! let program = Arc::new(Program::load(text, "count")?);
//! for seed in 0..8 {
//!     let mut memory = Memory::default();
//!     let out = memory.add(Buffer { name: "out".into(), bytes: vec![0xFF; 4 * 64], writable: true });
//!     let launch = Launch { seed, ..Launch::new([1, 1, 1], 64, vec![Arg::U64(out)]) };
//!     let counters = run(&program, &launch, &mut memory)?;
//!     assert_eq!(counters.global_stored, 4 * 64);
//!     let words = memory.buffers()[0].bytes.chunks_exact(4);
//!     assert!(words.enumerate().all(|(idx, word)| word == (idx as u32).to_le_bytes()));
//! }
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Spaces and addresses
//!
//! Addresses are numbers of 64 bits; a generic address tells its space.
//!
//! * *Shared memory* begins at 1024 in every block: variables with a size in the order of their declaration,
//!   then dynamic memory, which all `.extern` arrays name. Behind each variable lie 1024 bytes of nobody, so
//!   that what runs over its end is not in the next (with more than 27 variables they lie side by side). Bits
//!   24 and up of an address name another block of the cluster, as its rank plus 1; 0 is the own block.
//!   Before it is written, a byte is 0xFF and must not be read.
//! * *Parameters* begin at 2^40 and can only be read. Tensor maps lie among them as 128 bytes of the
//!   machine's own format ([`isa::tensor_map`]).
//! * *Global memory* is the caller's buffers. Each has 2^40 addresses to itself, from 16 · 2^40 on, so that
//!   no offset leads from one buffer into another. Their bytes count as written.
//!
//! Variables in other spaces than shared memory are errors. An access is aligned to its size, lies in one
//! buffer, and in the space that the instruction names; else it is a fault.
//!
//! # Lanes and fragments
//!
//! A warp has 32 lanes with registers side by side ([`registers`]), and one mark for each register and lane
//! whether it was written; reading one that was not is a fault. Lanes that stand at the same instruction are
//! a *fragment* and execute it together. A branch on which they part makes two fragments, which the scheduler
//! treats as if they were warps, and which meet again at the branch's immediate post-dominator ([`flow`]).
//! Nothing else brings them together, and nothing makes one wait for the other: independent thread
//! scheduling, as PTX promises no more.
//!
//! Instructions with `.aligned`, `bar.sync` among them, fail if lanes of the warp that have not ended are
//! elsewhere; shuffles and votes, if the lanes that they name are not those that execute them together.
//! Instructions of a warp group (`wgmma`, `setmaxnreg`) are executed by four warps one after the other; each
//! must come to the same ones, in the same order, with the same operands, with all its lanes.
//!
//! # Schedules and seeds
//!
//! A run is one of the possible interleavings, chosen by [`Launch::seed`](machine::Launch::seed); the same
//! seed is the same run everywhere. Clusters begin in order with seed 0, else in any, and one that has not
//! ended after 2^16 instructions, or with other seeds after fewer, lets the next begin or go on; at most 132
//! are under way. Within a cluster a fragment that can go on is chosen and has a turn of some
//! instructions:
//!
//! | seed | turn | a pending copy completes |
//! | --- | --- | --- |
//! | 0 | till it waits, ends or parts; the first fragment that can | once in 2 turns, the oldest |
//! | 4, 8, … | the same; any fragment | once in 2 turns, any |
//! | 1, 5, … | up to 4 instructions | once in 32 turns: late |
//! | 2, 6, … | up to 64 | before each turn: at once |
//! | 3, 7, … | up to 16 | once in 8 turns |
//!
//! With a seed other than 0 a wait on an mbarrier gives up in vain half of the time, as `try_wait` may. Races
//! and missing waits do not need the schedule that shows them as wrong bytes: they are found from what is
//! known (below). Schedules matter for deadlocks, for results that depend on order without a race, and for
//! code that only some orders reach.
//!
//! If nothing can go on and no copy is pending, that is a deadlock, and the fault lists who waits for what. A
//! cluster that executes more than [`patience`](machine::Launch::patience) instructions has no end.
//!
//! # What happens before what
//!
//! Every thread has a vector clock over all that touches memory in its cluster, the *agents*: the lanes of
//! each warp, their copies by `cp.async`, the reads and the writes of their bulk groups, the matrix
//! operations of each warp group, and each mbarrier for the copies that complete on it. Beside each piece of
//! shared and global memory stands its last write and the reads since. An access that conflicts with one that
//! its thread does not know of is a fault that names both lines. Knowledge travels by
//!
//! * the order of a thread's own instructions; two lanes of one warp are two threads;
//! * barriers: `bar` and `barrier` between those that arrive and those that wait, `bar.warp.sync` and
//!   `barrier.cluster` between their members;
//! * mbarriers: an arrival releases all that its thread knows, and a wait that finds its phase over acquires
//!   all that was released to it, with the copies that completed on it;
//! * waits for groups: `cp.async.wait_group`, `cp.async.bulk.wait_group` (with `.read` only for the reads)
//!   and `wgmma.wait_group` make what they wait for known to the threads that execute them, and to no others;
//! * places in memory: a store or an atomic that releases, or that a fence (`fence`, `membar`) of its thread
//!   lies before, leaves there what the thread knew and did until then, and atomics after it add to that. A
//!   load or an atomic that reads the place and acquires, or a fence of its thread behind it, makes that
//!   known. Scopes count: `.cta` reaches the block, `.cluster` the cluster, all others every thread.
//!
//! Strong accesses (atomics, and loads and stores with `.relaxed`, `.acquire`, `.release` or `.volatile`) do
//! not conflict with each other. A piece is as large as the smallest access of the kernel to that space, so
//! that accesses side by side do not conflict. Clusters know of each other's accesses through places in
//! memory alone.
//!
//! `ld.global.nc` reads what no thread writes while the kernel runs: a write of such a place, before or
//! after it, is a fault even if the two are ordered.
//!
//! ## Proxies
//!
//! Bulk copies and `wgmma` access memory through the async proxy, all others through the generic one. What
//! was written through the generic proxy may be used through the other only if a `fence.proxy.async` lies
//! behind the write, in the thread that wrote or in one that knew of the write, and the user knows of that
//! fence. The way back needs none: completion is enough. A new mbarrier needs `fence.mbarrier_init` or
//! `fence.proxy.async` behind it before a copy uses it.
//!
//! # What runs beside the threads
//!
//! A copy moves its bytes when it is issued, under the name of its own agent: whoever uses the target, or
//! writes the source, without having waited is at fault, so that nobody sees when the bytes really moved.
//! Bytes that an mbarrier counts are counted later, at a time that the scheduler chooses; those of a copy
//! whose phase is over by then were not announced, a fault.
//!
//! `wgmma.mma_async` computes when it is issued. Its accumulators belong to it until `wgmma.wait_group` gives
//! them back: reading one before is a fault. Its registers must not have been written since the last
//! `wgmma.fence`, and a register of A must not be written before the operation is waited for. Operands in
//! shared memory are read by the agent of the warp group.
//!
//! A block must not end while bulk copies read its shared memory or matrix operations are under way, nor
//! before other blocks of the cluster are known to be done with its shared memory.
//!
//! # Numbers
//!
//! Conversions and arithmetic are exact or rounded once, as PTX says, with one canonical NaN. Approximate
//! functions give the nearest number ([`isa::approx`]), which is within the documented error but not what
//! hardware gives. Sums of `mma` and `wgmma` are taken in f32 along K, one product after the other, each sum
//! rounded to nearest; order and roundings of hardware are not documented, and a test that compares should do
//! so within an error, or with whole numbers.
//!
//! # What is not checked
//!
//! * Time: nothing has a duration, and no counter is one.
//! * An accumulator that is written while an operation owns it, if no other `wgmma` uses it before the wait:
//!   the write is lost, as it may be on hardware.
//! * Weak memory beyond the order above. A run is sequentially consistent; a kernel without a fault has no
//!   race, for which that is enough. Places are known by where an access begins: a release is not seen by an
//!   acquire of another width that begins elsewhere.
//! * Strong accesses of threads that are not in each other's scope race, which is not found; what they order
//!   is right.
//! * Cache hints, prefetches, register counts (`setmaxnreg` is only checked for agreement), occupancy, and
//!   what the assembler may do with the text.
//! * A fault ends the run; those behind it are not seen.
//!
//! # Counters
//!
//! [`Counters`](machine::Counters) count what the text asks for, with schedule 0 always the same numbers;
//! loops that poll make more instructions in others.
//!
//! * An instruction of a warp counts if its guard holds in a lane, once for each fragment that executes it;
//!   instructions of threads are those lanes.
//! * A load, store or atomic of a warp, and a `cp.async` for its source, is one request to global memory; its
//!   sectors are the different 32-byte pieces that it touches. Atomics count as stores, parameters not at
//!   all.
//! * Requests to shared memory, of `ldmatrix`, `stmatrix` and targets of `cp.async` too, go in parts of 32
//!   lanes, 16 with 8 bytes each, 8 with 16 bytes each. A part needs as many passes as the fullest of the 32
//!   banks has different words; each pass after the first is a bank conflict.
//! * Bulk copies and operands of `wgmma` go by other ways than the threads' and make neither requests nor
//!   conflicts. A load counts all bytes of its box, a store those that lie in the tensor.
//! * A `wgmma.mma_async` counts once for each of the four warps, with a quarter of the multiply-adds.
//!
//! # Reading order
//!
//! [`syntax`] and [`flow`]; [`registers`]; [`machine`], which begins with [`decode`](machine::decode), `launch` and
//! `cluster`; `op/`, a file a family; [`isa`], facts that know nothing of the rest.

pub mod flow;
pub mod forms;
pub mod isa;
mod load;
pub mod machine;
pub mod op;
pub mod registers;
pub mod syntax;
