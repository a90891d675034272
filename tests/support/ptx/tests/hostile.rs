//! Texts that try to make the machine itself fail: each gives a result or a fault, never a panic.

use std::sync::Arc;

use skipc_ptx::machine::{Arg, Buffer, Fault, FaultKind, Launch, Memory, Program, run};

/// Instructions that a kernel without an end executes.
const PATIENCE: u64 = 20_000_000;

const DECLARATIONS: &str = ".reg .b16 %h<8>; .reg .b32 %r<8>; .reg .b64 %d<8>; .reg .f32 %f<8>; .reg .pred %p<4>; \
                            .shared .align 16 .b8 shared[1024];";

/// A kernel that stores what `body` leaves in `%r0` as its thread's word.
fn kernel(body: &str) -> String {
    format!(
        ".version 8.6\n.target sm_90a\n.entry k(.param .u64 out) {{ {DECLARATIONS}
         mov.b32 %r7, %tid.x; ld.param.b64 %d7, [out]; mad.wide.u32 %d7, %r7, 4, %d7;
         {body}
         st.global.b32 [%d7], %r0; ret; }}"
    )
}

/// The words of a block's threads, `u32::MAX` for those that stored none.
fn words(body: &str, threads: u32) -> Result<Vec<u32>, Box<Fault>> {
    let program = Program::load(&kernel(body), "k").unwrap_or_else(|error| panic!("{error}\n{body}"));
    let mut memory = Memory::default();
    let bytes = vec![0xFF; 4 * threads as usize];
    let out = memory.add(Buffer { name: "out".into(), bytes, writable: true });
    let launch = Launch { patience: PATIENCE, ..Launch::new([1; 3], threads, vec![Arg::U64(out)]) };
    run(&Arc::new(program), &launch, &mut memory)?;
    let words = memory.buffers()[0].bytes.chunks_exact(4);
    Ok(words.map(|word| u32::from_le_bytes([word[0], word[1], word[2], word[3]])).collect())
}

fn fault(body: &str, threads: u32) -> Fault {
    *words(body, threads).expect_err(body)
}

#[test]
fn a_full_member_mask_waits_only_for_the_lanes_that_a_last_warp_has() {
    let body = "mov.b32 %r1, 1; setp.ne.u32 %p1, %r1, 0;
                vote.sync.ballot.b32 %r2, %p1, -1; vote.sync.all.pred %p2, %p1, -1;
                shfl.sync.bfly.b32 %r3, %r7, 8, 31, -1; redux.sync.add.u32 %r4, %r1, -1;
                elect.sync %r5|%p3, -1; popc.b32 %r2, %r2; selp.b32 %r6, 1000, 0, %p2;
                mad.lo.u32 %r0, %r3, 10000, %r6; add.u32 %r0, %r0, %r2; add.u32 %r0, %r0, %r4; add.u32 %r0, %r0, %r5;";
    let wanted = (0..48).map(|thread| (thread ^ 8) * 10_000 + 1000 + 2 * if thread < 32 { 32 } else { 16 });
    assert_eq!(words(body, 48), Ok(wanted.collect()));
}

#[test]
fn a_full_member_mask_waits_only_for_the_lanes_that_have_not_ended() {
    let body = "setp.lt.u32 %p1, %r7, 10; @%p1 exit; vote.sync.ballot.b32 %r0, %p1, -1;
                setp.ge.u32 %p1, %r7, 10; vote.sync.ballot.b32 %r0, %p1, -1;";
    let wanted = (0..32).map(|thread| if thread < 10 { u32::MAX } else { 0xFFFF_FC00 });
    assert_eq!(words(body, 32), Ok(wanted.collect()));
    // FIXME: lanes that end on a path of their own end before the others in no order that is promised; the
    // vote should wait until they have, and only then tell the lanes that are elsewhere for good.
    let body = "setp.lt.u32 %p1, %r7, 10; @%p1 bra OUT; setp.ge.u32 %p1, %r7, 10;
                vote.sync.ballot.b32 %r0, %p1, -1; bra ON; OUT: ret; ON: add.u32 %r0, %r0, 0;";
    let found = words(body, 32);
    assert!(found.is_err_and(|fault| fault.kind == FaultKind::Divergence));
}

#[test]
fn lanes_that_have_ended_or_never_were_are_no_source() {
    for (body, threads) in [
        ("shfl.sync.bfly.b32 %r0, %r7, 16, 31, -1;", 48),
        ("setp.eq.u32 %p1, %r7, 5; @%p1 exit; shfl.sync.idx.b32 %r0, %r7, 5, 31, -1;", 32),
    ] {
        let fault = fault(body, threads);
        assert_eq!(fault.kind, FaultKind::Divergence, "{fault}");
        assert!(fault.what.contains("which does not execute it"), "{fault}");
    }
}

/// Values at the ends of all types, in all lanes: also those that do not execute are computed.
#[test]
fn arithmetic_of_any_values_goes_on() {
    const VALUES: [u32; 9] = [0, 1, 31, 32, 255, 256, 0x7FFF_FFFF, 0x8000_0000, 0xFFFF_FFFF];
    const THREE: &str = "bfe.u32 bfe.s32 mad.lo.s32 mad.hi.s32 mad.hi.u32 prmt.b32 shf.l.wrap.b32 shf.l.clamp.b32 \
                         shf.r.wrap.b32 shf.r.clamp.b32";
    const TWO: &str = "div.s32 div.u32 rem.s32 rem.u32 shl.b32 shr.s32 shr.u32 add.sat.s32 sub.sat.s32 mul.hi.s32 \
                       min.relu.s32 max.relu.s32";
    let mut body = String::from("mov.b32 %r0, 0; setp.eq.u32 %p1, %r7, 99;");
    for a in VALUES {
        body += &format!("mov.b32 %r1, {a}; cvt.u16.u32 %h1, %r1; cvt.s64.s32 %d1, %r1; abs.s32 %r5, %r1; neg.s32 %r5, %r1;
                          cvt.rn.f32.s32 %f1, %r1; mov.b32 %f2, %r1; cvt.rzi.s64.f32 %d3, %f2; cvt.rna.tf32.f32 %r5, %f2;
                          cvt.rz.f16.f32 %h3, %f2; cvt.rz.bf16.f32 %h3, %f2; cvt.rpi.u16.f32 %h3, %f2; cvt.rz.f32.s64 %f3, %d1;\n");
        for b in VALUES {
            body += &format!("mov.b32 %r2, {b}; cvt.u16.u32 %h2, %r2; cvt.s64.s32 %d2, %r2;
                              div.s16 %h3, %h1, %h2; rem.s16 %h3, %h1, %h2; div.s64 %d3, %d1, %d2; rem.s64 %d3, %d1, %d2;
                              shl.b16 %h3, %h1, %r2; shr.s16 %h3, %h1, %r2; shl.b64 %d3, %d1, %r2; shr.s64 %d3, %d1, %r2;\n");
            for name in TWO.split(' ') {
                body += &format!("{name} %r5, %r1, %r2; @%p1 {name} %r5, %r1, %r2;\n");
            }
            for c in VALUES {
                body += &format!(
                    "bfi.b32 %r5, %r1, %r2, {b}, {c}; bfi.b64 %d3, %d1, %d2, {b}, {c}; \
                                  bfe.s64 %d3, %d1, {b}, {c}; bfe.u64 %d3, %d1, {b}, {c};\n"
                );
                for name in THREE.split(' ') {
                    body += &format!("{name} %r5, %r1, %r2, {c};\n");
                }
            }
        }
    }
    assert_eq!(words(&body, 40), Ok(vec![0; 40]));
}

#[test]
fn any_shuffle_reads_a_lane_that_is_there() {
    for mode in ["up", "down", "bfly", "idx"] {
        for b in [0_u32, 1, 31, 32, u32::MAX] {
            for c in [0_u32, 31, 0x1F1F, 0x1F00, 0x0A05, u32::MAX] {
                let body = format!(
                    "mov.b32 %r1, {b}; mov.b32 %r2, {c}; shfl.sync.{mode}.b32 %r0, %r7, %r1, %r2, -1;"
                );
                assert!(words(&body, 32).is_ok_and(|words| words.iter().all(|lane| *lane < 32)), "{body}");
            }
        }
    }
}

#[test]
fn addresses_at_the_ends_are_out_of_bounds() {
    for address in
        [0, 1, 1 << 24, u64::from(u32::MAX), 1 << 32, (1 << 40) - 1, (1 << 41) - 1, u64::MAX, u64::MAX - 63]
    {
        for access in [
            "ld.v4.b32 {%r1, %r2, %r3, %r4}, [%d1];",
            "ld.shared.b64 %d2, [%d1];",
            "ld.param.b64 %d2, [%d1];",
            "st.global.b8 [%d1+-1], %r7;",
            "atom.global.add.u64 %d2, [%d1+9223372036854775807], 1;",
            "cp.async.ca.shared.global [shared], [%d1], 16, 3;",
            "mbarrier.inval.shared.b64 [%d1];",
            "prefetch.tensormap [%d1];",
            "cp.async.bulk.tensor.1d.global.shared::cta.bulk_group [%d1, {%r7}], [shared];",
        ] {
            let body = format!("mov.b64 %d1, {address}; mov.b32 %r0, 0; {access}");
            let fault = fault(&body, 1);
            assert!(
                matches!(
                    fault.kind,
                    FaultKind::OutOfBounds
                        | FaultKind::Misaligned
                        | FaultKind::TensorMap
                        | FaultKind::Barrier
                ),
                "{fault}"
            );
        }
    }
}

#[test]
fn counts_of_an_mbarrier_have_an_end() {
    let init = "mov.b32 %r0, -1; setp.eq.u32 %p1, %r7, 0;
                @%p1 mbarrier.init.shared.b64 [shared], 1048575; bar.sync 0;";
    for arrive in [
        "mbarrier.arrive.shared.b64 _, [shared], %r0;",
        "mbarrier.arrive.expect_tx.shared.b64 _, [shared], %r0;",
    ] {
        let fault = fault(&format!("{init} {arrive}"), 32);
        assert_eq!(fault.kind, FaultKind::Barrier, "{fault}");
        assert!(fault.what.starts_with("a count of 4294967295"), "{fault}");
    }
    let fault =
        fault(&format!("{init} mov.b32 %r0, 1048575; mbarrier.arrive.shared.b64 _, [shared], %r0;"), 32);
    assert!(fault.what.contains("33554400 arrivals"), "{fault}");
}

#[test]
fn mbarriers_cannot_be_initialised_without_end() {
    let body = "L: mbarrier.init.shared.b64 [shared], 1; mbarrier.inval.shared.b64 [shared]; bra L;";
    let fault = fault(body, 1);
    assert!(fault.kind == FaultKind::Barrier && fault.what.contains("tells no more apart"), "{fault}");
}

#[test]
fn sizes_without_measure_are_refused() {
    let load = |head: &str, body: &str| {
        Program::load(&format!(".version 8.6\n.target sm_90a\n.entry k {head} {{ {body} ret; }}"), "k")
    };
    let large = "(.param .align 2147483648 .b8 a[4294967295], .param .align 2147483648 .b8 b[4294967295])";
    let error = load(large, "").err().map(|error| error.to_string()).unwrap_or_default();
    assert!(error.starts_with("parameter `a` ends at byte 4294967295"), "{error}");
    for (head, body, wanted) in [
        (
            "",
            ".shared .b64 a[2305843009213693951]; .shared .align 2147483648 .b8 b[18446744073709551615];",
            "4294967295 bytes",
        ),
        (".reqnctapercluster 65536, 65536, 65536", "", "at most 8"),
        (".reqnctapercluster 4294967295, 4294967295, 4294967295", "", "at most 8"),
    ] {
        let program = load(head, body).unwrap_or_else(|error| panic!("{error}"));
        let launch = Launch::new([1; 3], 32, Vec::new());
        let fault = run(&Arc::new(program), &launch, &mut Memory::default()).expect_err(head);
        assert!(fault.kind == FaultKind::Launch && fault.what.contains(wanted), "{fault}");
    }
}
