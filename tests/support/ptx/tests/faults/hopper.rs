//! Faults of kernels with mbarriers, bulk copies, `wgmma` and clusters.

use skipc_ptx::machine::FaultKind::{
    Barrier, Deadlock, Descriptor, Divergence, Launch, Misaligned, MissingMbarrierFence, MissingProxyFence,
    MissingWait, MissingWgmmaFence, Operand, OutOfBounds, Race, RegisterInFlight, TensorMap,
    UninitialisedShared,
};

use super::hosts::{CLUSTER, RUNS, TMA, WGMMA, WGMMA_ONCE};
use super::plant::{ANYWHERE, Plant};
use super::tricky::{COPIES_ARRIVE, PAIRS, ROUND_TRIP};

const TMA_LOAD: &str = "mbarrier::complete_tx::bytes [at]";
const MULTICAST: &str = ".multicast::cluster [at]";
const TMA_STORE: &str = "bulk_group [to, {";
const READ: &str = "ld.shared.v4.u32 {x0, x1, x2, x3}, [at]";
const READ_RUN: &str = "ld.shared.v4.u32 {x0, x1, x2, x3}, [at]";
const WRITE: &str = "st.shared.v4.u32 [full], {x0";
const ANNOUNCE: &str = "mbarrier.arrive.expect_tx.shared.b64 _, [full]";
const MMA: &str = "da, db, add";

pub(crate) fn plants() -> Vec<Plant> {
    [
        phases(),
        mbarriers(),
        runs(),
        boxes(),
        stores(),
        operands(),
        groups(),
        descriptors(),
        clusters(),
        tricky(),
    ]
    .concat()
}

/// Bulk copies without tensor maps.
fn runs() -> Vec<Plant> {
    const FIRST: &str = "complete_tx::bytes [at], [from";
    vec![
        Plant::new("a run of no whole 16 bytes", &RUNS, &[("mov.u32 size, 256", "mov.u32 size, 250")]).found(
            Operand,
            FIRST,
            "250 bytes; a multiple of 16 is wanted",
        ),
        Plant::new("a run from between", &RUNS, &[("[from+256]", "[from+248]")]).found(Misaligned, FIRST, ""),
        Plant::new("a run to between", &RUNS, &[("[at], [from", "[at+8], [from")]).found(
            Misaligned,
            "[at+8], [from",
            "",
        ),
        Plant::new("a run from beyond", &RUNS, &[("[from+256]", "[from+272]")]).found(
            OutOfBounds,
            FIRST,
            "from",
        ),
        Plant::new("a run more than was announced", &RUNS, &[("[full], 512", "[full], 256")])
            .found(Barrier, ANYWHERE, "")
            .found(MissingWait, READ_RUN, "a bulk copy"),
        Plant::new("a run less than was announced", &RUNS, &[("[full], 512", "[full], 528")]).found(
            Deadlock,
            "ok, [full], 0",
            "16",
        ),
        Plant::new(
            "a run that is not waited for",
            &RUNS,
            &[("\tmbarrier.try_wait.parity.shared.b64 ok, [full], 0;\n\t@!ok bra DATA;\n", "")],
        )
        .found(MissingWait, READ_RUN, "a bulk copy")
        .found(UninitialisedShared, READ_RUN, "nothing has been written there"),
    ]
}

/// Phases, arrivals and bytes of a pipeline.
fn phases() -> Vec<Plant> {
    vec![
        Plant::new(
            "a reader that waits for the wrong parity",
            &TMA,
            &[(
                "\tand.b32 phase, phase, 1; // of the worker\n",
                "\tand.b32 phase, phase, 1;\n\txor.b32 phase, phase, 1; // of the worker\n",
            )],
        )
        .found(MissingWait, READ, "a bulk copy")
        .found(UninitialisedShared, READ, "nothing has been written there")
        .found(
            Deadlock,
            "ok, [empty], phase",
            "for parity 1 of the mbarrier at 4096, which is in phase 1",
        ),
        Plant::new("a loader that waits for the wrong parity", &TMA, &[("\txor.b32 phase, phase, 1;\n", "")])
            .found(
                Deadlock,
                "ok, [empty], phase",
                "for parity 0 of the mbarrier at 4112, which is in phase 0 and waits for 1 of 1 arrivals",
            ),
        Plant::new(
            "a loader that does not wait for room",
            &TMA,
            &[("\tmbarrier.try_wait.parity.shared.b64 ok, [empty], phase;\n\t@!ok bra ROOM;\n", "")],
        )
        .found(Barrier, ANNOUNCE, "1 arrivals where the phase waits for 0 more")
        .found(Race, TMA_LOAD, "is written after thread")
        .found(MissingWait, TMA_LOAD, "a bulk copy"),
        Plant::new("an arrival too few", &TMA, &[("[empties], 1", "[empties], 2")]).found(
            Deadlock,
            "ok, [empty], phase",
            "waits for 1 of 2 arrivals and 0 bytes",
        ),
        Plant::new(
            "arrivals of all lanes for one",
            &TMA,
            &[(
                "\t@rest bra STORED;\n\tmbarrier.arrive.shared.b64 _, [empty];\n",
                "\tmbarrier.arrive.shared.b64 _, [empty];\n\t@rest bra STORED;\n",
            )],
        )
        .found(
            Barrier,
            "mbarrier.arrive.shared.b64 _, [empty]",
            "32 arrivals where the phase waits for 1 more",
        ),
        Plant::new("fewer bytes announced than come", &TMA, &[("[full], 1024", "[full], 512")])
            .found(Deadlock, "ok, [empty], phase", "and -512 bytes")
            .found(Deadlock, "ok, [full], phase", "and -512 bytes"),
        Plant::new("more bytes announced than come", &TMA, &[("[full], 1024", "[full], 2048")])
            .found(Deadlock, "ok, [empty], phase", "and 1024 bytes")
            .found(Deadlock, "ok, [full], phase", "and 1024 bytes"),
        Plant::new(
            "bytes that are not announced",
            &TMA,
            &[(
                "mbarrier.arrive.expect_tx.shared.b64 _, [full], 1024",
                "mbarrier.arrive.shared.b64 _, [full]",
            )],
        )
        .found(MissingWait, READ, "a bulk copy")
        .found(UninitialisedShared, READ, "nothing has been written there"),
        // Schedule 0 never lets a wait give up, and in schedules 2 and 6 copies are complete at once.
        Plant::new("a wait that is asked once", &TMA, &[("\t@!ok bra DATA;\n", "")])
            .hidden_in(&[0, 2, 6])
            .found(Race, TMA_LOAD, "is written after thread")
            .found(MissingWait, READ, "a bulk copy")
            .found(UninitialisedShared, READ, "nothing has been written there"),
    ]
}

/// Initialisation of mbarriers.
fn mbarriers() -> Vec<Plant> {
    const INIT_FENCE: (&str, &str) = ("\tfence.mbarrier_init.release.cluster;\n", "");
    vec![
        Plant::new("no fence behind the initialisation", &TMA, &[INIT_FENCE]).found(
            MissingMbarrierFence,
            TMA_LOAD,
            "the mbarrier at byte 4096 was initialised without",
        ),
        Plant::new(
            "an mbarrier without an initialisation",
            &TMA,
            &[("\tmbarrier.init.shared.b64 [empties+8], 1;\n", "")],
        )
        .found(Barrier, "ok, [empty], phase", "there is no mbarrier at byte 4120"),
        Plant::new("an mbarrier that is initialised twice", &TMA, &[("[fulls+8], 1", "[fulls], 2")]).found(
            Barrier,
            "[fulls], 2",
            "there is an mbarrier at byte 4096 already",
        ),
        Plant::new(
            "an initialisation that only its thread knows of",
            &TMA,
            &[("READY:\n\tbar.sync 0;\n", "READY:\n")],
        )
        .found(Race, "ok, [full], phase", "nothing orders the initialisation of the mbarrier at 4096")
        .found(Barrier, "ok, [full], phase", "there is no mbarrier at byte 4096"),
        Plant::new(
            "data behind an array, where an mbarrier is",
            &TMA,
            &[("[full], {x0", "[full+2048], {x0")],
        )
        .found(OutOfBounds, "[full+2048], {x0", "of `out`, which has 2048"),
        Plant::new("an mbarrier for no arrivals", &TMA, &[("[empties], 1", "[empties], 0")]).found(
            Barrier,
            "[empties], 0",
            "a count of 0",
        ),
        Plant::new("an mbarrier between two words", &TMA, &[("[fulls+8], 1", "[fulls+4], 1")]).found(
            Misaligned,
            "[fulls+4], 1",
            "not aligned to 8 bytes",
        ),
    ]
}

/// Tensor maps, coordinates and boxes.
fn boxes() -> Vec<Plant> {
    vec![
        Plant::new(
            "a box in the middle of a line",
            &TMA,
            &[(
                "\tadd.u32 at, at, stage;\n\tcp.async.bulk",
                "\tadd.u32 at, at, stage;\n\tadd.u32 at, at, 64;\n\tcp.async.bulk",
            )],
        )
        .found(TensorMap, TMA_LOAD, "no multiple of 128"),
        Plant::new("a box from the middle of a chunk", &TMA, &[("[from, {0, y}]", "[from, {2, y}]")]).found(
            TensorMap,
            TMA_LOAD,
            "the box at [2, 0] does not start at a multiple of 16 bytes",
        ),
        Plant::new("a box stored before its matrix", &TMA, &[("[to, {0, y}]", "[to, {-4, y}]")]).found(
            TensorMap,
            TMA_STORE,
            "a store to coordinate -4 of dimension 0",
        ),
        Plant::new(
            "a tensor map in the middle of a line",
            &TMA,
            &[("cvta.param.u64 from, from;", "add.u64 from, from, 16;")],
        )
        .found(TensorMap, TMA_LOAD, "is not aligned to 64 bytes"),
        Plant::new("half a tensor map", &TMA, &[("cvta.param.u64 from, from;", "add.u64 from, from, 64;")])
            .found(TensorMap, TMA_LOAD, "no tensor map"),
        Plant::new(
            "a box that no memory is left for",
            &TMA,
            &[(
                "\tadd.u32 at, at, stage;\n\tcp.async.bulk",
                "\tadd.u32 at, at, stage;\n\tadd.u32 at, at, 3584;\n\tcp.async.bulk",
            )],
        )
        .found(OutOfBounds, TMA_LOAD, "of `out`, which has 2048"),
    ]
}

/// Bulk stores.
fn stores() -> Vec<Plant> {
    vec![
        Plant::new("no proxy fence before a bulk store", &TMA, &[("\tfence.proxy.async.shared::cta;\n", "")])
            .found(MissingProxyFence, TMA_STORE, "no fence.proxy.async lies between"),
        Plant::new("no barrier before a bulk store", &TMA, &[("\tbar.warp.sync -1; // written\n", "")])
            .found(Race, TMA_STORE, "nothing orders the two"),
        Plant::new("a wait for bulk stores that is one group too lax", &TMA, &[("wait_group.read 1", "wait_group.read 2")])
            .found(MissingWait, WRITE, "is written after a bulk copy"),
        Plant::new("bulk stores that nothing waits for", &TMA, &[("\t@!rest cp.async.bulk.wait_group.read 1;\n", "")])
            .found(MissingWait, WRITE, "is written after a bulk copy"),
        Plant::new("an end before bulk stores have read", &TMA, &[("\t@!rest cp.async.bulk.wait_group.read 0;\n", "")])
            .found(MissingWait, "ret; // last", "the block ends while bulk copies read its shared memory"),
        Plant::new("room announced before all lanes have read", &TMA, &[("\t@!rest cp.async.bulk.wait_group.read 1;\n\tbar.warp.sync -1; // read\n", "\t@!rest mbarrier.arrive.shared.b64 _, [empty];\n\t@!rest cp.async.bulk.wait_group.read 1;\n\tbar.warp.sync -1;\n"), ("\tmbarrier.arrive.shared.b64 _, [empty];\n\tcp", "\tcp")])
            .found(Race, TMA_LOAD, "is written after thread"),
    ]
}

/// What `wgmma` reads: copies, their waits and fences.
fn operands() -> Vec<Plant> {
    vec![
        Plant::new(
            "no proxy fence behind copies of threads",
            &WGMMA,
            &[("\tfence.proxy.async.shared::cta;\n", "")],
        )
        .found(MissingProxyFence, MMA, "no fence.proxy.async lies between"),
        Plant::new(
            "a proxy fence before the copies are complete",
            &WGMMA,
            &[(
                "\tcp.async.wait_group 0;\n\tfence.proxy.async.shared::cta;\n",
                "\tfence.proxy.async.shared::cta;\n\tcp.async.wait_group 0;\n",
            )],
        )
        .found(MissingProxyFence, MMA, "no fence.proxy.async lies between"),
        Plant::new(
            "copies of threads that nothing waits for before wgmma",
            &WGMMA,
            &[("\tcp.async.wait_group 0;\n", "")],
        )
        .found(MissingWait, MMA, "a copy of thread"),
        Plant::new(
            "bulk copies that nothing waits for before wgmma",
            &WGMMA,
            &[("\tmbarrier.try_wait.parity.shared.b64 ok, [bar], phase;\n\t@!ok bra DATA;\n", "")],
        )
        .found(MissingWait, MMA, "a bulk copy"),
        Plant::new(
            "no barrier between copies of threads and wgmma",
            &WGMMA,
            &[("\tbar.sync 0; // staged\n", "")],
        )
        .found(MissingWait, MMA, "a copy of thread")
        .found(UninitialisedShared, MMA, "nothing has been written there"),
    ]
}

/// `wgmma`: fences, groups, who takes part.
fn groups() -> Vec<Plant> {
    const WAIT: (&str, &str) = ("\twgmma.wait_group.sync.aligned 0;\n", "");
    const COPY: &str = "[into], [a0]";
    const B: &str = "[tile_b], [map";
    vec![
        Plant::new("no wgmma.fence", &WGMMA, &[("\twgmma.fence.sync.aligned;\n", "")]).found(
            MissingWgmmaFence,
            MMA,
            "no wgmma.fence comes before the first",
        ),
        Plant::new(
            "a sum moved behind the wgmma.fence",
            &WGMMA,
            &[("wgmma.fence.sync.aligned;\n", "wgmma.fence.sync.aligned;\n\tmov.b32 d3, d3;\n")],
        )
        .found(MissingWgmmaFence, MMA, "d3 was written after the last wgmma.fence"),
        Plant::new("sums read while wgmma owns them", &WGMMA_ONCE, &[WAIT]).found(
            RegisterInFlight,
            "[to], {d0, d1}",
            "d0 belongs to a wgmma.mma_async that has not been waited for",
        ),
        Plant::new(
            "sums read after a wait that is one group too lax",
            &WGMMA_ONCE,
            &[("wait_group.sync.aligned 0", "wait_group.sync.aligned 1")],
        )
        .found(RegisterInFlight, "[to], {d0, d1}", "d0 belongs to a wgmma.mma_async"),
        Plant::new(
            "sums read though their group is still open",
            &WGMMA_ONCE,
            &[("\twgmma.commit_group.sync.aligned;\n", "")],
        )
        .found(RegisterInFlight, "[to], {d0, d1}", "d0 belongs to a wgmma.mma_async"),
        Plant::new(
            "a sum written while wgmma owns it",
            &WGMMA,
            &[("\twgmma.wait_group", "\tmov.b32 d5, 0;\n\twgmma.wait_group")],
        )
        .found(RegisterInFlight, "wgmma.wait_group", "d5 was written while a wgmma.mma_async"),
        Plant::new(
            "a sum written between two matrix operations",
            &WGMMA,
            &[("\tadd.u64 ea, da, 2;\n", "\tadd.u64 ea, da, 2;\n\tmov.b32 d5, 0;\n")],
        )
        .found(
            MissingWgmmaFence,
            "{d0, d1, d2, d3, d4, d5, d6, d7}, ea, eb, add, 1, 1, 0, 0; // second",
            "d5 was written after the last wgmma.fence",
        ),
        Plant::new("tiles written over while wgmma reads them", &WGMMA, &[WAIT])
            .found(MissingWait, COPY, "after a wgmma of warp")
            .found(MissingWait, B, "after a wgmma of warp"),
        Plant::new(
            "half a warp group at wgmma",
            &WGMMA_ONCE,
            &[
                ("\twgmma.fence.sync", "\tsetp.ge.u32 more, t, 64;\n\t@more bra USED;\n\twgmma.fence.sync"),
                ("\tbar.sync 0; // used\n", "USED:\n\tbar.sync 0; // used\n"),
            ],
        )
        .found(
            Divergence,
            "wgmma.fence.sync",
            "a warp of the group does not come to this instruction",
        ),
        Plant::new(
            "half a warp at wgmma",
            &WGMMA,
            &[(
                "\twgmma.commit_group",
                "\tand.b32 x, t, 16;\n\tsetp.eq.u32 more, x, 0;\n\t@more wgmma.commit_group",
            )],
        )
        .found(Divergence, "@more wgmma.commit_group", "lanes 0xffff0000"),
    ]
}

/// What descriptors say.
fn descriptors() -> Vec<Plant> {
    const A: &str = "or.b64 da, da, 0x4000004000010000";
    const B: &str = "or.b64 db, db, 0x4000004000010000";
    vec![
        Plant::new("a descriptor with the wrong stride", &WGMMA, &[(A, "or.b64 da, da, 0x4000002000010000")]),
        Plant::new("a descriptor without a swizzle", &WGMMA, &[(B, "or.b64 db, db, 0x0000004000010000")]),
        Plant::new("copies of threads without a swizzle", &WGMMA, &[("xor.b32 chunk, chunk, x", "mov.b32 chunk, chunk")]),
        Plant::new("a step of K that is too short", &WGMMA, &[("add.u64 ea, da, 2", "add.u64 ea, da, 1")]),
        Plant::new("a descriptor with bits of no field", &WGMMA, &[(A, "or.b64 da, da, 0x400000400001C000")])
            .found(Descriptor, MMA, "bits that belong to no field"),
        Plant::new("a descriptor that leads out of shared memory", &WGMMA, &[(B, "or.b64 db, db, 0x4000200000010000")])
            .found(Descriptor, MMA, "the descriptor leads to bytes"),
        Plant::new("a descriptor of whole addresses", &WGMMA, &[("\tshr.u32 x, x, 4;\n\tcvt.u64.u32 db, x;", "\tcvt.u64.u32 db, x;")])
            .found(Descriptor, MMA, "the descriptor leads to bytes"),
        Plant::new("a descriptor of each warp", &WGMMA, &[("\tmov.u32 i, 0;\n", "\tmov.u32 i, 0;\n\tshr.u32 x, t, 5;\n\tshl.b32 x, x, 1;\n\tcvt.u64.u32 wide, x;\n\tadd.u64 da, da, wide;\n")])
            .found(Divergence, MMA, "with different operands")
            .found(Descriptor, ANYWHERE, "of `tile_a`, which has 8192"),
        Plant::new("a descriptor of each lane", &WGMMA, &[("\tmov.u32 i, 0;\n", "\tmov.u32 i, 0;\n\tand.b32 x, t, 1;\n\tshl.b32 x, x, 1;\n\tcvt.u64.u32 wide, x;\n\tadd.u64 da, da, wide;\n")])
            .found(Descriptor, MMA, "lanes of a warp have different descriptors"),
    ]
}

/// Blocks of a cluster.
fn clusters() -> Vec<Plant> {
    vec![
        Plant::new("a multicast to a block that is not there", &CLUSTER, &[("both, 3", "both, 7")]).found(
            Operand,
            MULTICAST,
            "blocks [0, 1, 2] of a cluster of 2",
        ),
        Plant::new("a multicast to one block only", &CLUSTER, &[("both, 3", "both, 1")])
            .found(Deadlock, ANYWHERE, "which is in phase 0 and waits for 0 of 1 arrivals and 2048 bytes"),
        Plant::new("a multicast before the other block is ready", &CLUSTER, &[("\tbarrier.cluster.arrive.release.aligned; // ready\n\tbarrier.cluster.wait.acquire.aligned; // ready\n", "\tbar.warp.sync -1;\n")])
            .found(Race, MULTICAST, "nothing orders the initialisation of the mbarrier")
            .found(Barrier, MULTICAST, "there is no mbarrier at byte 2176"),
        Plant::new("a number of the other block taken too early", &CLUSTER, &[("\tbarrier.cluster.arrive.release.aligned; // summed\n\tbarrier.cluster.wait.acquire.aligned; // summed\n", "")])
            .found(Race, "ld.shared::cluster.u32 sum", "nothing orders the two")
            .found(UninitialisedShared, "ld.shared::cluster.u32 sum", "nothing has been written there"),
        Plant::new("a barrier of the cluster that is not waited for", &CLUSTER, &[("\tbarrier.cluster.wait.acquire.aligned; // summed\n", "")])
            .found(Race, "ld.shared::cluster.u32 sum", "nothing orders the two")
            .found(UninitialisedShared, "ld.shared::cluster.u32 sum", "nothing has been written there")
            .found(Barrier, "arrive.release.aligned; // taken", "arrives twice"),
        Plant::new("one block that leaves a barrier of the cluster out", &CLUSTER, &[("\tbarrier.cluster.arrive.release.aligned; // taken\n\tbarrier.cluster.wait.acquire.aligned; // taken\n", "\tsetp.eq.u32 other, rank, 0;\n\t@other bra TAKEN;\n\tbarrier.cluster.arrive.release.aligned; // taken\n\tbarrier.cluster.wait.acquire.aligned; // taken\nTAKEN:\n")])
            .found(Deadlock, "wait.acquire.aligned; // taken", "for the cluster, of which 32 threads arrived"),
        Plant::new("a block of the cluster that is not there", &CLUSTER, &[("xor.b32 peer, rank, 1", "add.u32 peer, rank, 2")])
            .found(Operand, "mapa", "of a cluster of 2"),
        Plant::new("a grid that is not made of clusters", &CLUSTER, &[])
            .with(|setup| setup.launch.grid = [3, 1, 1])
            .found(Launch, "", "is not made of clusters of [2, 1, 1]"),
        Plant::new("a block that ends while the other reads it", &CLUSTER, &[("\tbarrier.cluster.arrive.release.aligned; // taken\n\tbarrier.cluster.wait.acquire.aligned; // taken\n", "")])
            .found(Race, "ld.shared::cluster.u32 sum", "nothing orders it before the end of that block"),
    ]
}

/// Each of the kernels that look wrong, made wrong.
fn tricky() -> Vec<Plant> {
    const LOAD: &str = "mbarrier::complete_tx::bytes [board]";
    const COPIED: &str = "[at]; // copied";
    const BOX_STORE: &str = "bulk_group [map, {0, 0}], [board]";
    vec![
        Plant::new("an arrival before the copies of its thread", &COPIES_ARRIVE, &[("cp.async.mbarrier.arrive.noinc.shared.b64 [full]", "mbarrier.arrive.shared.b64 _, [full]")])
            .found(MissingWait, COPIED, "a copy of thread"),
        Plant::new("copies that arrive and were counted twice", &COPIES_ARRIVE, &[(".noinc", "")])
            .found(Deadlock, ANYWHERE, "of the mbarrier at 10"),
        Plant::new("copies that do not arrive", &COPIES_ARRIVE, &[("\tcp.async.mbarrier.arrive.noinc.shared.b64 [full];\n", "")])
            .found(Deadlock, ANYWHERE, "waits for 32 of 32 arrivals"),
        Plant::new("a chunk read before its reader said so", &COPIES_ARRIVE, &[("\tld.shared.v4.u32 {x0, x1, x2, x3}, [at]; // copied\n\tmbarrier.arrive.shared.b64 _, [empty];\n", "\tmbarrier.arrive.shared.b64 _, [empty];\n\tld.shared.v4.u32 {x0, x1, x2, x3}, [at]; // copied\n")])
            .found(Race, "cp.async.cg", "is written after thread")
            .found(MissingWait, COPIED, "a copy of thread"),
        Plant::new("no proxy fence between a store of threads and a bulk load", &ROUND_TRIP, &[("\tfence.proxy.async.global;\n", "")])
            .found(MissingProxyFence, LOAD, "of scratch is read"),
        Plant::new("no barrier between a store of threads and a bulk load", &ROUND_TRIP, &[("\tbar.sync 0; // scratch\n", "\tbar.warp.sync -1;\n")])
            .found(Race, LOAD, "of scratch is read")
            .found(Race, "[scratch], {x0", "of scratch is written")
            .found(MissingWait, "[scratch], {x0", "of scratch is written")
            .found(Race, "ok, [full], 0", "nothing orders the initialisation")
            .found(Barrier, "ok, [full], 0", "there is no mbarrier"),
        Plant::new("a bulk store's result after a wait for its reads", &ROUND_TRIP, &[("wait_group 0", "wait_group.read 0")])
            .found(MissingWait, "ld.global.v4", "a bulk copy of thread 0 wrote it"),
        Plant::new("a bulk store that nothing waits for", &ROUND_TRIP, &[("\tcp.async.bulk.wait_group 0;\n", "")])
            .found(MissingWait, "ld.global.v4", "a bulk copy of thread 0 wrote it"),
        Plant::new("data over an mbarrier that is still one", &ROUND_TRIP, &[("\t@!other mbarrier.inval.shared.b64 [full];\n", "")])
            .found(Barrier, "@!other st.shared.b64 [at]", "hold the mbarrier at 1024"),
        Plant::new("a box that is stored from where it is loaded", &ROUND_TRIP, &[("\tbar.sync 0; // changed\n", "")])
            .found(Race, BOX_STORE, "nothing orders the two")
            .found(Race, "st.shared.v4", "nothing orders the two")
            .found(MissingWait, "st.shared.v4", "a bulk copy of thread 0 read it"),
        Plant::new("room that only the own block announces", &PAIRS, &[("[far]; // other", "[empty]; // other")])
            .found(Race, MULTICAST, "is written after thread")
            .found(Barrier, ANYWHERE, "arrivals where the phase waits for 0 more")
            .found(MissingWait, MULTICAST, "a bulk copy")
            .found(MissingWait, READ, "a bulk copy"),
        Plant::new("room that only the other block announces", &PAIRS, &[("\tmbarrier.arrive.release.cluster.shared::cluster.b64 _, [far]; // own\n", "")])
            .found(Deadlock, ANYWHERE, "waits for 1 of 2 arrivals"),
    ]
}
