//! PTX text as a tree: what LLVM and inline assembly write reads as it should, and no text does harm.

use proptest::prelude::*;

use skipc_ptx::syntax::{
    Address, Base, Guard, Instruction, Kernel, Module, Operand, Param, RegisterClass, RegisterId, Variable,
    VariableSpace, parse,
};

/// One of each form of text.
const PIPELINE: &str = include_str!("kernels/pipeline.ptx");

const HEAD: &str = ".version 8.6\n.target sm_90a\n.address_size 64\n";

/// A module with one kernel; the body begins in line 5.
fn module_of(body: &str) -> String {
    format!("{HEAD}.visible .entry k(.param .u64 a) {{\n{body}\n}}\n")
}

fn kernel(body: &str) -> Kernel {
    let mut module = parse(&module_of(body)).expect("a right text");
    module.kernels.pop().expect("one kernel")
}

fn error(text: &str) -> String {
    parse(text).expect_err("a wrong text").to_string()
}

/// The error of a body, whose first line counts as line 1.
fn body_error(body: &str) -> String {
    let error = parse(&module_of(body)).expect_err("a wrong body");
    format!("line {}: {}", error.line - 4, error.what)
}

fn pipeline() -> Module {
    parse(PIPELINE).expect("the fixture")
}

/// The instruction of the fixture that begins so.
fn instruction<'k>(kernel: &'k Kernel, start: &str) -> &'k Instruction {
    kernel.instructions.iter().find(|instruction| instruction.text.starts_with(start)).expect(start)
}

fn register(kernel: &Kernel, name: &str) -> Operand {
    let idx = kernel.registers.iter().position(|register| register.name == name).expect(name);
    Operand::Register(RegisterId(idx as u32))
}

#[test]
fn a_module_has_its_head_and_variables() {
    let module = pipeline();
    assert_eq!(module.version, (8, 6));
    assert_eq!(module.target, "sm_90a");
    let names: Vec<&str> = module.variables.iter().map(|variable| variable.name.as_str()).collect();
    assert_eq!(names, ["smem", "table", "words", "wide", "counter", "scale", "outside"]);
    let [smem, table, words, wide, counter, scale, outside] = &module.variables[..] else {
        panic!("seven variables")
    };
    let space = VariableSpace::Shared;
    let dynamic = Variable { space, name: "smem".to_owned(), align: 1024, bytes: None, init: Vec::new() };
    assert_eq!(*smem, dynamic);
    assert_eq!((table.bytes, &table.init[..]), (Some(16), &[1, 2, 3, 255][..]));
    assert_eq!(words.init, [1, 0, 0, 0, 254, 255, 255, 255, 0, 0, 0x80, 0xBF]);
    assert_eq!((wide.bytes, wide.space, wide.init.len()), (Some(16), VariableSpace::Const, 16));
    assert_eq!((counter.bytes, counter.init.len()), (Some(4), 0));
    assert_eq!((scale.align, &scale.init[..]), (4, &1.5_f32.to_le_bytes()[..]));
    assert_eq!((outside.space, outside.align, outside.bytes), (VariableSpace::Shared, 16, Some(64)));
}

#[test]
fn a_kernel_has_its_parameters_extents_and_registers() {
    let module = pipeline();
    let [kernel, small] = &module.kernels[..] else { panic!("two kernels") };
    assert_eq!((kernel.name.as_str(), small.name.as_str()), ("pipeline", "small"));
    let param = |name: &str, align, bytes| Param { name: name.to_owned(), align, bytes };
    assert_eq!(
        kernel.params,
        [
            param("pipeline_param_0", 8, 8),
            param("pipeline_param_1", 64, 128),
            param("pipeline_param_2", 4, 4),
            param("pipeline_param_3", 8, 8),
        ]
    );
    assert_eq!((kernel.threads, kernel.cluster), (Some([384, 1, 1]), Some([2, 1, 1])));
    assert_eq!((small.threads, small.cluster), (None, None));
    let count = |class| kernel.registers.iter().filter(|register| register.class == class).count();
    // Each of the three blocks of inline assembly brings a predicate.
    assert_eq!(count(RegisterClass::Predicate), 4 + 3);
    assert_eq!(count(RegisterClass::B16), 4);
    assert_eq!(count(RegisterClass::B32), 24 + 3);
    assert_eq!(count(RegisterClass::B64), 1 + 8);
    let names: Vec<&str> = kernel.variables.iter().map(|variable| variable.name.as_str()).collect();
    assert_eq!(names, ["__local_depot0", "buf"]);
}

#[test]
fn operands_read_as_they_are_written() {
    let module = pipeline();
    let kernel = &module.kernels[0];
    let operands = |start| &instruction(kernel, start).operands;
    let reg = |name| register(kernel, name);
    let id = |name| match register(kernel, name) {
        Operand::Register(id) => id,
        _ => unreachable!("`register` gives registers"),
    };
    let pair = |a, b| Operand::Pair(Box::new(a), Box::new(b));
    let address = |base, offset| Operand::Address(Address { base, offset, coordinates: Vec::new() });
    let symbol = |name: &str| Base::Symbol(name.to_owned());

    assert_eq!(*operands("mov.u32 %r1"), [reg("%r1"), Operand::Special("%tid.x".to_owned())]);
    assert_eq!(*operands("mov.b32 %r2"), [reg("%r2"), Operand::Integer(32)]);
    assert_eq!(*operands("mov.b64 %rd2"), [reg("%rd2"), Operand::Symbol("pipeline_param_1".to_owned())]);
    assert_eq!(operands("ld.global.b32 %r3")[1], address(symbol("table"), 4));
    let minus_five = Operand::Integer(5_u64.wrapping_neg());
    let both = pair(reg("%p1"), reg("%p2"));
    assert_eq!(*operands("setp.lt"), [both, reg("%r1"), minus_five, Operand::Not(id("%p3"))]);
    assert_eq!(
        operands("elect.sync _")[..],
        [pair(Operand::Sink, reg("%p3")), Operand::Integer(0xFFFF_FFFF)]
    );
    assert_eq!(operands("mbarrier.arrive.shared::cta")[0], Operand::Sink);
    assert_eq!(operands("mov.b32 {")[0], Operand::List(vec![reg("%rs1"), reg("%rs2")]));
    let coordinates = vec![reg("%r4"), Operand::Integer(0)];
    let map = Operand::Address(Address { base: Base::Register(id("%rd2")), offset: 0, coordinates });
    let copy = operands("cp.async.bulk.tensor.2d.shared::cluster");
    assert_eq!((&copy[1], copy.len()), (&map, 4));
    assert_eq!(operands("red.global")[..], [address(Base::Register(id("%rd1")), 16), reg("last")]);
    assert_eq!(*operands("st.global.b32"), [address(Base::Constant(16), 0), Operand::Float32(0x3F80_0000)]);
    assert_eq!(operands("mma.sync").len(), 4);
}

#[test]
fn an_instruction_knows_its_place_and_its_text() {
    let module = pipeline();
    let kernel = &module.kernels[0];
    let lines: Vec<&str> = PIPELINE.lines().collect();
    for instruction in &kernel.instructions {
        let line = lines[instruction.line as usize - 1];
        assert!(line.contains(&instruction.opcode), "`{}` is not in `{line}`", instruction.opcode);
    }
    let wgmma = "wgmma.mma_async.sync.aligned.m64n24k16.f32.bf16.bf16 {%r5, … 12 registers}, %rd1, %rd2, p, 1, 1, 0, 0";
    assert_eq!(instruction(kernel, "wgmma").text, wgmma);
    let mma = "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%r5, %r6, %r7, %r8}, {%r9, %r10, %r11, %r12}, {%r9, %r10}, {%r5, %r6, %r7, %r8}";
    assert_eq!(instruction(kernel, "mma").text, mma);
    let branch = instruction(kernel, "@!%p3 bra");
    let Operand::Register(p3) = register(kernel, "%p3") else { unreachable!("`register` gives registers") };
    assert_eq!(branch.guard, Some(Guard { register: p3, negated: true }));
    assert_eq!((branch.text.as_str(), branch.opcode.as_str()), ("@!%p3 bra $L__BB0_2", "bra"));
}

#[test]
fn a_label_is_the_instruction_behind_it() {
    let kernel = kernel("bra END;\nA: B: bra A; { bra B; C: } bra A; { bra END; }\nEND:");
    let targets: Vec<&Operand> = kernel.instructions.iter().map(|branch| &branch.operands[0]).collect();
    let expected = [5, 1, 1, 1, 5].map(Operand::Label);
    assert_eq!(targets, expected.iter().collect::<Vec<_>>());
}

#[test]
fn blocks_hide_names_and_reuse_labels() {
    let block = "{ .reg .pred P; W: @P bra.uni D; bra.uni W; D: }";
    let kernel = kernel(&format!(".reg .pred P;\n{block}\n{block}\n@P bra W; W: ret;"));
    let branches = kernel.instructions.iter().filter(|instruction| !instruction.operands.is_empty());
    let seen: Vec<(Option<u32>, &Operand)> =
        branches.map(|branch| (branch.guard.map(|guard| guard.register.0), &branch.operands[0])).collect();
    let label = Operand::Label;
    assert_eq!(
        seen,
        [
            (Some(1), &label(2)),
            (None, &label(0)),
            (Some(2), &label(4)),
            (None, &label(2)),
            (Some(0), &label(5))
        ]
    );
}

#[test]
fn wrong_names_are_errors() {
    assert_eq!(
        body_error("mov.b32 %r1, 0;"),
        "line 1: `%r1` is not declared; declare it with `.reg` before this line"
    );
    assert!(
        body_error("\nld.param.b64 b, [c];")
            .starts_with("line 2: `b` is not declared; declare it with `.reg`,")
    );
    assert!(body_error(".reg .b32 %r<2>;\nmov.b32 %r2, 0;").starts_with("line 2: `%r2` is not declared"));
    assert!(body_error("{ .reg .b32 x; }\nmov.b32 x, 0;").starts_with("line 2: `x` is not declared"));
    assert!(body_error(".reg .b32 x;\nmov.b32 x, %tid;").starts_with("line 2: `%tid` is not declared"));
    assert_eq!(
        body_error("ret;\nbra NOWHERE;"),
        "line 2: no label `NOWHERE`: put `NOWHERE:` into this block or one around it"
    );
    assert!(body_error("bra X; { X: ret; }").starts_with("line 1: no label `X`"));
    assert!(body_error("X: ret;\nX: ret;").starts_with("line 2: the label `X` is already taken"));
    assert!(
        body_error(".reg .b32 %r<3>;\n.reg .b64 %r2;").starts_with("line 2: the name `%r2` is already taken")
    );
    assert!(body_error(".reg .b32 x;\n@x ret;").starts_with("line 2: `x` is not a predicate"));
    assert!(body_error(".reg .b32 x;\nX: mov.b32 x, X;").contains("may only stand behind `bra`"));
    assert!(body_error("{ .shared .b8 s[4]; }\n{ .shared .b8 s[4]; }").starts_with("line 2: a variable `s`"));
}

#[test]
fn broken_statements_are_errors() {
    let registers = ".reg .b32 x, y;\n";
    let broken = |body: &str| body_error(&format!("{registers}{body}"));
    assert_eq!(broken("mov.b32 x, y\nret;"), "line 2: put a `;` behind `y`, where the statement ends");
    assert_eq!(broken("ret"), "line 2: put a `;` behind `ret`, where the statement ends");
    assert_eq!(
        broken("bar.warp\nmov.b32 x, y;"),
        "line 2: put a `;` behind `bar.warp`, where the statement ends"
    );
    assert_eq!(broken("ret }"), "line 2: `}` is unexpected: an operand, or `;`, is wanted");
    assert_eq!(
        broken("mov.b32 x y;"),
        "line 2: `y` is unexpected: `,` before one more operand, or `;`, is wanted"
    );
    assert_eq!(broken("mov.b32 x, ;"), "line 2: `;` is unexpected: an operand is wanted");
    assert_eq!(broken("mov.b32 x, {y, {y}};"), "line 2: `{` is unexpected: an operand is wanted");
    assert!(broken("ld.b32 x, [y;").contains("`]` is wanted"));
    assert!(broken("ld.b32 x, [0f00000000];").contains("an address begins with"));
    assert!(broken("ld.b32 x, [y+9223372036854775807+1];").contains("does not fit in 64 bits"));
    assert!(broken("mov.b32 x, a+4;").contains("add in an instruction before this one"));
    assert!(broken("mov.b32 x, 1.5;").contains("write a float as its bits"));
    assert!(broken("mov.b32 x, -0f3F800000;").contains("set their highest bit"));
    assert!(broken(";").contains("an instruction, a label, a declaration or a block is wanted"));
    assert!(broken(".reg .b8 z;").contains("a type of registers"));
    assert!(broken("call f, (x);").starts_with("line 2: the machine runs no `call`"));
    assert!(broken("x: ret;").contains("already taken"));
}

#[test]
fn broken_modules_are_errors() {
    assert_eq!(error(""), "line 1: the text ends too early: `.version` is wanted");
    assert!(error(".version 8\n.target sm_80").contains("a version such as `8.6`"));
    assert!(error(".version 8.6\n.target sm_80\n.address_size 32").starts_with("line 3: `32` is unexpected"));
    let broken = |items: &str| error(&format!("{HEAD}{items}"));
    assert!(broken(".visible .func f() { ret; }").starts_with("line 4: the machine runs no functions"));
    assert!(broken(".entry k() { ret; }\n}").starts_with("line 5: `}` is unexpected"));
    assert_eq!(
        broken(".entry k() {\n{\nret; }"),
        "line 4: the text ends inside of kernel `k`: this `{` has no `}`"
    );
    assert!(broken(".entry k() {\n{\nret;").starts_with("line 5: the text ends inside"));
    assert!(broken(".entry k() { }\n.entry k() { }").starts_with("line 5: a kernel `k` is there already"));
    assert!(broken(".entry k() .what { }").contains("a fact about the kernel"));
    assert!(broken(".entry k() .reqntid 0 { }").contains("an extent of 0"));
    assert!(broken(".entry k(.param .b8 p[]) { }").contains("needs a size"));
    assert!(broken(".shared .b8 s[];").contains("`s[]` has no size"));
    assert!(broken(".shared .b8 s[4] = {1};").contains("only `.global` and `.const`"));
    assert!(broken(".global .b8 g[1] = {1, 2};").contains("do not fit into the 1 of `g`"));
    assert!(broken(".global .b8 g = 256;").contains("an element of 8 bits"));
    assert!(broken(".global .b64 g = generic(h);").contains("no addresses as initial values"));
    assert!(broken(".global .align 3 .b8 g;").contains("3 is not an alignment"));
    assert!(broken(".global .b32 g[4611686018427387904];").contains("larger than any memory"));
    assert!(broken(".global .b32 g;\n.global .b32 g;").starts_with("line 5: a variable `g`"));
    assert!(broken(".pragma nounroll;").contains("between double quotes"));
    assert!(broken(".section .debug {\n.b8 1").starts_with("line 4: this `{` has no `}`"));
}

#[test]
fn sizes_that_a_text_claims_take_no_memory() {
    assert!(body_error(".reg .b32 %r<4000000000>;").contains("declare fewer"));
    assert!(body_error(&"{".repeat(64)).contains("nested deeper than 64"));
    let text = format!("{HEAD}.global .b32 g[1000000000000];");
    assert_eq!(parse(&text).expect("a large variable").variables[0].bytes, Some(4_000_000_000_000));
    // Brackets inside each other are refused, not followed.
    assert!(body_error(&format!("mov.b32 {}", "{".repeat(100_000))).contains("an operand is wanted"));
}

/// Puts `piece` over `len` bytes at `at`, all moved to borders of characters.
fn mutate(at: usize, len: usize, piece: &str) -> String {
    let border = |at: usize| (0..=at.min(PIPELINE.len())).rev().find(|&at| PIPELINE.is_char_boundary(at));
    let (start, end) = (border(at).unwrap_or(0), border(at.saturating_add(len)).unwrap_or(0));
    format!("{}{piece}{}", &PIPELINE[..start], &PIPELINE[end..])
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 4000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_text_does_harm(
        at in 0..PIPELINE.len(),
        len in 0..40_usize,
        piece in prop_oneof![
            "[-a-z0-9.,;:{}()<>|!@%=+\"/* \\[\\]\n]{0,6}",
            "\\PC{0,3}",
            Just("%r<99999999999999999999>".to_owned()),
        ],
        cut in proptest::bool::weighted(0.3),
    ) {
        let mut text = mutate(at, len, &piece);
        if cut {
            let end = (0..=at).rev().find(|&at| text.is_char_boundary(at)).unwrap_or(0);
            text.truncate(end);
        }
        if let Err(error) = parse(&text) {
            prop_assert!(error.line >= 1 && error.line as usize <= text.lines().count().max(1), "{error}");
        }
    }
}
