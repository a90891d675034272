//! Faults of kernels that every target runs.
//!
//! Where a thread reads what another has yet to write, the schedule decides whether it comes too early (nothing is there
//! yet) or unordered (something is): such plants have a sign for each.

use skipc_ptx::machine::FaultKind::{
    Barrier, Deadlock, Divergence, Launch, Livelock, Misaligned, MissingWait, Operand, OutOfBounds, Race,
    RaceBetweenBlocks, ReadOnly, UninitialisedRegister, UninitialisedShared,
};

use super::hosts::{COPY, HALVES, MMA, REDUCE, ROWS, SWAP, words};
use super::plant::{ANYWHERE, Plant};

pub(crate) fn plants() -> Vec<Plant> {
    [copies(), memory(), barriers(), shuffles_and_matrices(), lists()].concat()
}

/// Asynchronous copies of threads.
fn copies() -> Vec<Plant> {
    const LOAD: &str = "ld.shared.v4.u32 {x0, x1, x2, x3}, [outof]";
    const COPY_INTO: &str = "@more cp.async";
    const FIRST_COPY: &str = "cp.async.cg.shared.global [own]";
    vec![
        Plant::new("copies that nothing waits for", &COPY, &[("\tcp.async.wait_group 1;\n", "")])
            .found(MissingWait, LOAD, "nothing has waited for its completion")
            .found(UninitialisedShared, LOAD, "nothing has been written there"),
        Plant::new("a wait for copies that is one group too lax", &COPY, &[("wait_group 1", "wait_group 2")])
            .found(MissingWait, LOAD, "a copy of thread"),
        Plant::new(
            "a barrier behind the wait for copies left out",
            &COPY,
            &[("\tbar.sync 0; // arrived\n", "")],
        )
        .found(MissingWait, LOAD, "a copy of thread")
        .found(UninitialisedShared, LOAD, "nothing has been written there"),
        Plant::new("a stage filled before all have read it", &COPY, &[("\tbar.sync 0; // free\n", "")])
            .found(Race, COPY_INTO, "is written after thread")
            .found(MissingWait, LOAD, "a copy of thread"),
        Plant::new(
            "stages that overlap",
            &COPY,
            &[("shl.b32 stage, stage, 10", "shl.b32 stage, stage, 9"), ("stage, 1024", "stage, 512")],
        )
        .found(MissingWait, COPY_INTO, "is written after a copy of thread")
        .found(MissingWait, FIRST_COPY, "is written after a copy of thread"),
        Plant::new("a copy to the middle of a chunk", &COPY, &[("[into]", "[into+8]")]).found(
            Misaligned,
            COPY_INTO,
            "of shared memory is not aligned to 16 bytes",
        ),
        Plant::new("a copy from the middle of a chunk", &COPY, &[("src, src, 1024", "src, src, 1032")])
            .found(Misaligned, COPY_INTO, "of `from` is not aligned to 16 bytes"),
        Plant::new(
            "a copy of more bytes than there are",
            &COPY,
            &[(
                "[src], 16;\n\tcp.async.commit_group;\n\tcp.async.wait",
                "[src], 16, own;\n\tcp.async.commit_group;\n\tcp.async.wait",
            )],
        )
        .found(Operand, COPY_INTO, "bytes of the 16 are to come from memory"),
        Plant::new("a tile too many", &COPY, &[("setp.lt.u32 more", "setp.le.u32 more")]).found(
            OutOfBounds,
            COPY_INTO,
            "of `from`, which has 10240",
        ),
        Plant::new("a loop without an end", &COPY, &[("@more bra LOOP", "bra LOOP")]).found(
            Livelock,
            ANYWHERE,
            "200000 instructions of warps, and the block has no end",
        ),
    ]
}

/// Addresses, rights, values.
fn memory() -> Vec<Plant> {
    const STORE: &str = "st.global.v4.u32 [dst]";
    vec![
        Plant::new("a vector from the middle of a chunk", &COPY, &[("[outof]", "[outof+4]")]).found(
            Misaligned,
            "[outof+4]",
            "not aligned to 16 bytes",
        ),
        Plant::new("a result to memory that is only to be read", &COPY, &[("[p_to]", "[p_from]")]).found(
            ReadOnly,
            STORE,
            "of `from` is written",
        ),
        Plant::new("a sum without a beginning", &COPY, &[("\tmov.b32 s2, 0;\n", "")]).found(
            UninitialisedRegister,
            "add.u32 s2, s2, x2",
            "s2 is read before it was written",
        ),
        Plant::new("results of all blocks in one place", &COPY, &[("shl.b32 off, b, 10", "mov.b32 off, 0")])
            .found(RaceBetweenBlocks, STORE, "a thread of another block wrote it"),
        Plant::new("a number too many", &REDUCE, &[("setp.ge.u32 out, i, n", "setp.gt.u32 out, i, n")])
            .found(OutOfBounds, "ld.global.u32 sum, [from]", "bytes 1960..1964 of `from`, which has 1960"),
        Plant::new(
            "a sum of blocks without an atomic",
            &REDUCE,
            &[(
                "\tred.global.add.u32 [to], sum;",
                "\tld.global.u32 x, [to];\n\tadd.u32 x, x, sum;\n\tst.global.u32 [to], x;",
            )],
        )
        .found(RaceBetweenBlocks, "ld.global.u32 x, [to]", "no barrier joins the blocks"),
        Plant::new(
            "an atomic beside a plain store",
            &REDUCE,
            &[("\tred.global.add.u32 [to], sum;", "\tst.global.u32 [to], sum;")],
        )
        .found(RaceBetweenBlocks, "st.global.u32 [to], sum", "no barrier joins the blocks"),
        Plant::new("an argument too few", &COPY, &[]).with(|setup| setup.launch.args.truncate(2)).found(
            Launch,
            "",
            "3 parameters, 2 arguments",
        ),
        Plant::new("an argument of the wrong width", &COPY, &[])
            .with(|setup| setup.launch.args[2] = skipc_ptx::machine::Arg::U64(5))
            .found(Launch, "", "parameter 2 has 4 bytes, its argument 8"),
        Plant::new("blocks of the wrong size", &COPY, &[])
            .with(|setup| setup.launch.block = [32, 1, 1])
            .found(Launch, "", "the kernel wants blocks of [64, 1, 1] threads"),
    ]
}

/// Barriers of blocks and warps.
fn barriers() -> Vec<Plant> {
    const FAR: &str = "ld.shared.u32 x, [far]";
    vec![
        Plant::new("no barrier between the warps of a sum", &REDUCE, &[("\tbar.sync 0;\n", "")])
            .found(Race, "[base+4]", "nothing orders the two")
            .found(UninitialisedShared, "[base+4]", "byte 4 of shared memory is read"),
        Plant::new("no barrier between warps that swap", &SWAP, &[("\tbar.sync 0; // across\n", "")])
            .found(Race, FAR, "nothing orders the two")
            .found(Race, "[own], x; // number", "nothing orders the two")
            .found(Race, "[own], x; // neighbour", "nothing orders the two"),
        Plant::new("no barrier between lanes that swap", &SWAP, &[("\tbar.warp.sync -1; // written\n", "")])
            .found(Race, "[near]", "after thread"),
        Plant::new("no barrier before lanes write again", &SWAP, &[("\tbar.warp.sync -1; // read\n", "")])
            .found(Race, "// neighbour", "read it at line"),
        Plant::new(
            "a barrier for half of the lanes that come",
            &SWAP,
            &[("bar.warp.sync -1; // read", "bar.warp.sync 0xFFFF; // read")],
        )
        .found(Divergence, "bar.warp.sync 0xFFFF", "members 0x0000ffff"),
        Plant::new(
            "a barrier in a branch",
            &REDUCE,
            &[("STORED:\n\tbar.sync 0;\n", "\tbar.sync 0;\nSTORED:\n")],
        )
        .found(Divergence, "bar.sync 0", "lanes 0xfffffffe of the warp"),
        Plant::new("a barrier for three of four warps", &REDUCE, &[("bar.sync 0;", "bar.sync 0, 96;")])
            .found(Deadlock, "bar.sync 0, 96", "at barrier 0, where 32 of 96 threads are")
            .found(Race, "[base+4]", "nothing orders the two")
            .found(Race, "[base+8]", "nothing orders the two")
            .found(Race, "[base+12]", "nothing orders the two")
            .found(Race, "st.shared", "nothing orders the two")
            .found(UninitialisedShared, "[base+4]", "nothing has been written there")
            .found(UninitialisedShared, "[base+8]", "nothing has been written there")
            .found(UninitialisedShared, "[base+12]", "nothing has been written there"),
        Plant::new(
            "a barrier that two warps never reach",
            &REDUCE,
            &[(
                "STORED:\n\tbar.sync 0;\n",
                "STORED:\n\tsetp.ge.u32 rest, t, 64;\n\t@rest bra DONE;\n\tbar.sync 0;\n",
            )],
        )
        .found(Deadlock, "bar.sync 0", "at barrier 0, where 64 of 128 threads are"),
        Plant::new("a barrier for a part of a warp", &REDUCE, &[("bar.sync 0;", "bar.sync 0, 100;")]).found(
            Barrier,
            "bar.sync 0, 100",
            "100 threads",
        ),
        Plant::new("a barrier with two counts", &HALVES, &[("bar.arrive 1, 128", "bar.arrive 1, 96")])
            .found(Barrier, "bar.arrive 1, 96", "96 threads, by others with 128")
            .found(Barrier, "bar.sync 1, 128", "128 threads, by others with 96"),
        Plant::new("readers that never say that they have read", &HALVES, &[("\tbar.arrive 2, 128;\n", "")])
            .found(Deadlock, "bar.sync 2, 128", "at barrier 2, where 64 of 128 threads are"),
    ]
}

fn shuffles_and_matrices() -> Vec<Plant> {
    const LOAD_A: &str = "x4.shared.b16 {a0";
    vec![
        Plant::new(
            "a shuffle without all lanes",
            &REDUCE,
            &[(
                "LOADED:\n\tshfl.sync.down.b32 x, sum, 16, 31, -1;\n",
                "\tshfl.sync.down.b32 x, sum, 16, 31, -1;\nLOADED:\n",
            )],
        )
        .found(Divergence, "x, sum, 16", ""),
        Plant::new(
            "two fragments of A swapped",
            &MMA,
            &[("}, {a0, a1, a2, a3}, {b0", "}, {a0, a2, a1, a3}, {b0")],
        ),
        Plant::new(
            "a lane map of D that is off",
            &MMA,
            &[("st.global.v2.b32 [to], {d0, d1}", "st.global.v2.b32 [to], {d1, d0}")],
        ),
        Plant::new("no barrier before matrices are loaded", &MMA, &[("\tbar.warp.sync -1;\n", "")]).found(
            Race,
            LOAD_A,
            "nothing orders the two",
        ),
        Plant::new(
            "a pad that was never written",
            &MMA,
            &[("half, half, 4; // of A", "half, half, 5; // of A")],
        )
        .found(UninitialisedShared, LOAD_A, "byte 32 of shared memory is read"),
        Plant::new(
            "rows of matrices with an odd pitch",
            &MMA,
            &[("row, 48, at_a; // loaded", "row, 40, at_a; // loaded")],
        )
        .found(Misaligned, LOAD_A, "not aligned to 16 bytes"),
        Plant::new(
            "half a warp at a matrix load",
            &MMA,
            &[("\tldmatrix.sync.aligned.m8n8.x2", "\t@b_too ldmatrix.sync.aligned.m8n8.x2")],
        )
        .found(Divergence, "@b_too ldmatrix", "lanes 0xffff0000"),
        Plant::new("sums of matrices without a beginning", &MMA, &[("\tmov.b32 d1, 0;\n", "")]).found(
            UninitialisedRegister,
            "mma.sync",
            "d1 is read before it was written",
        ),
    ]
}

/// Lists of rows.
fn lists() -> Vec<Plant> {
    const LIST: &str = "st.shared.u32 [slot], row";
    const LISTED: &str = "ld.shared.u32 row, [slot]";
    const STORE: &str = "st.global.u32 [at], x";
    vec![
        Plant::new("a row behind the count", &ROWS, &[("setp.ge.u32 skip", "setp.gt.u32 skip")]),
        Plant::new(
            "an entry behind the list",
            &ROWS,
            &[("setp.ge.u32 out, idx, length", "setp.gt.u32 out, idx, length")],
        )
        .found(OutOfBounds, "ld.global.u32 row, [at]", "bytes 44..48 of `list`, which has 44"),
        Plant::new("a list that is read too early", &ROWS, &[("\tbar.sync 0; // listed\n", "")])
            .found(Race, LISTED, "nothing orders the two")
            .found(Race, LIST, "nothing orders the two")
            .found(UninitialisedShared, LISTED, "nothing has been written there"),
        Plant::new("the list of the step before", &ROWS, &[("\tbar.sync 0; // used\n", "")])
            .found(Race, LIST, "read it at line")
            .found(Race, LISTED, "wrote it at line"),
        Plant::new("a row listed twice, for two blocks", &ROWS, &[])
            .with(|setup| {
                // Entries 0 to 3 are of the first block, 4 to 7 of the second.
                let rows = [0, 1, 2, 3, 4, 2, 5, 6, 7, 8, 9];
                let mut memory = skipc_ptx::machine::Memory::default();
                for (idx, mut buffer) in
                    std::mem::take(&mut setup.memory).into_buffers().into_iter().enumerate()
                {
                    if idx == 2 {
                        buffer.bytes = words(rows);
                    }
                    memory.add(buffer);
                }
                setup.memory = memory;
            })
            .found(RaceBetweenBlocks, STORE, "a thread of another block wrote it"),
    ]
}
