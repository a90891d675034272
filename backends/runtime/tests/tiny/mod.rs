//! A model small enough to be written by hand, machine code included: the logits of a token are its row of a table,
//! and one router takes tokens with odd ids. Another function counts, in a state, the tokens of all its calls.
#![allow(dead_code, reason = "each test takes a part of it")]

use skipc_artifact::bundle::{Bundle, BundleCode};
use skipc_artifact::image::{HostArch, HostEntry, HostImage, HostLevel, HostTable};
use skipc_artifact::interface::{Interface, Role, RouterPorts};
use skipc_artifact::manifest::{Manifest, Promises};
use skipc_artifact::program::{
    ArenaPlace, Arg, Buffer, Constant, Entry, Extent, Function, Head, Launch, Program, RowBound, SCORE,
    State, Step, Storage,
};
use skipc_artifact::section::ContentHash;
use skipc_artifact::target::{DType, Target};
use skipc_artifact::writer::Writer;

/// Four kernels for x86-64, in Intel's notation.
///
/// ```text
/// table_4:  # (tokens, table, logits, count): rows begin..end of logits = table[tokens]
///     mov r9, [rdi];  mov r10, [rdi+8];  mov r11, [rdi+16]
/// 1:  cmp edx, ecx;  jae 2f
///     mov eax, edx;  mov r8d, [r9+rax*4];  shl r8, 4;  movups xmm0, [r10+r8]
///     shl rax, 4;  movups [r11+rax], xmm0;  inc edx;  jmp 1b
/// 2:  ret
/// odd_set:  # (tokens, use_forced, forced, mask, count, n): mask = forced or tokens & 1, count = sum of mask
///     mov r8, [rdi];  mov r9, [rdi+8];  mov r9d, [r9];  mov r10, [rdi+16];  mov r11, [rdi+24]
///     mov rcx, [rdi+40];  mov ecx, [rcx];  mov rdi, [rdi+32];  xor edx, edx;  xor esi, esi
/// 1:  cmp edx, ecx;  jae 3f
///     mov eax, [r8+rdx*4];  test r9d, r9d;  je 2f;  mov al, [r10+rdx]
/// 2:  and eax, 1;  mov [r11+rdx], al;  add esi, eax;  inc edx;  jmp 1b
/// 3:  mov [rdi], esi;  ret
/// stray:    # (n): writes one word behind its buffer
///     mov rax, [rdi];  mov dword ptr [rax+4], 1;  ret
/// count_up: # (seen, n): seen += n
///     mov rax, [rdi];  mov rcx, [rdi+8];  mov ecx, [rcx];  add [rax], ecx;  ret
/// ```
const CODE: [u8; 132] = [
    0x4c, 0x8b, 0x0f, 0x4c, 0x8b, 0x57, 0x08, 0x4c, 0x8b, 0x5f, 0x10, 0x39, 0xca, 0x73, 0x1c, 0x89, 0xd0,
    0x45, 0x8b, 0x04, 0x81, 0x49, 0xc1, 0xe0, 0x04, 0x43, 0x0f, 0x10, 0x04, 0x02, 0x48, 0xc1, 0xe0, 0x04,
    0x41, 0x0f, 0x11, 0x04, 0x03, 0xff, 0xc2, 0xeb, 0xe0, 0xc3, 0x4c, 0x8b, 0x07, 0x4c, 0x8b, 0x4f, 0x08,
    0x45, 0x8b, 0x09, 0x4c, 0x8b, 0x57, 0x10, 0x4c, 0x8b, 0x5f, 0x18, 0x48, 0x8b, 0x4f, 0x28, 0x8b, 0x09,
    0x48, 0x8b, 0x7f, 0x20, 0x31, 0xd2, 0x31, 0xf6, 0x39, 0xca, 0x73, 0x1a, 0x41, 0x8b, 0x04, 0x90, 0x45,
    0x85, 0xc9, 0x74, 0x04, 0x41, 0x8a, 0x04, 0x12, 0x83, 0xe0, 0x01, 0x41, 0x88, 0x04, 0x13, 0x01, 0xc6,
    0xff, 0xc2, 0xeb, 0xe2, 0x89, 0x37, 0xc3, 0x48, 0x8b, 0x07, 0xc7, 0x40, 0x04, 0x01, 0x00, 0x00, 0x00,
    0xc3, 0x48, 0x8b, 0x07, 0x48, 0x8b, 0x4f, 0x08, 0x8b, 0x09, 0x01, 0x08, 0xc3,
];

/// Row `t` of the table: the likeliest token after `t` is `(t + 1) % 4`.
pub(crate) fn logits_of(token: u32) -> [f32; 4] {
    let mut row = [0.25, -1.0, 0.5, f32::from(u8::try_from(token).unwrap()) / 8.0];
    row[(token as usize + 1) % 4] = 10.0;
    row
}

fn buffer(name: &str, dtype: DType, rows: RowBound, cols: u32, place: (u64, u64)) -> Buffer {
    let storage = Storage::Step(ArenaPlace { fixed_offset: place.0, row_offset: place.1 });
    Buffer { name: name.into(), dtype, rows, cols, storage, live: None }
}

fn entry(symbol: &str, (n_params, writes): (u32, &[u32]), extent: Extent, tile_rows: u32) -> Entry {
    Entry {
        symbol: symbol.into(),
        n_params,
        writes: writes.to_vec(),
        extent,
        launch: Launch::Host { tile_rows, few_rows: None, scratch_bytes: 100, tiles: Vec::new() },
    }
}

fn score() -> Function {
    let (one, tokens) = (RowBound::Fixed(1), RowBound::Tokens);
    let step =
        |kernel, args: &[Arg], origin: &str| Step { kernel, args: args.to_vec(), origin: origin.into() };
    let [n, forced, count] = [0, 1, 2].map(Arg::Buffer);
    let mut interface = Interface::from([
        (Role::TokenCount, 0),
        (Role::UseForced, 1),
        (Role::Tokens, 3),
        (Role::Positions, 4),
        (Role::Sequences, 5),
        (Role::Logits, 6),
    ]);
    let routed = RouterPorts::Routed { decision: 7, forced: 8, executed: 2, wanted: None };
    for (router, ports) in (0..).zip([RouterPorts::Constant(true), routed, RouterPorts::Constant(false)]) {
        interface.bind_router(router, ports);
    }
    Function {
        max_tokens: 100,
        max_positions: 50,
        vocab_size: 4,
        head: Head::Tokens,
        class_token: false,
        ranks_batch: false,
        logits: 4,
        fixed_bytes: 768,
        row_bytes: 36,
        buffers: vec![
            buffer("n", DType::U32, one, 1, (0, 0)),
            buffer("use_forced", DType::U32, one, 1, (256, 0)),
            buffer("count", DType::U32, one, 1, (512, 0)),
            buffer("tokens", DType::U32, tokens, 1, (768, 0)),
            buffer("positions", DType::U32, tokens, 1, (768, 4)),
            buffer("sequences", DType::U32, tokens, 1, (768, 8)),
            buffer("logits", DType::F32, tokens, 4, (768, 12)),
            buffer("mask", DType::U8, tokens, 1, (768, 28)),
            buffer("forced", DType::U8, tokens, 1, (768, 32)),
        ],
        steps: vec![
            step(0, &[Arg::Buffer(3), Arg::Constant(0), Arg::Buffer(6), n], "lm_head"),
            step(1, &[Arg::Buffer(3), forced, Arg::Buffer(8), Arg::Buffer(7), count, n], "blocks.0.router"),
        ],
        interface,
    }
}

/// The model for the CPU.
pub(crate) fn bundle() -> Bundle {
    let program = Program {
        target: Target::Cpu,
        dtype: DType::F32,
        constants: vec![Constant { name: "table".into(), dtype: DType::F32, rows: 4, cols: 4, offset: 0 }],
        constant_bytes: 64,
        states: Vec::new(),
        state_fixed_bytes: 0,
        state_row_bytes: 0,
        entries: vec![
            entry("table_4", (4, &[2]), Extent::Counted { count: 3, at_most: 100 }, 1),
            entry("odd_set", (6, &[3, 4]), Extent::Counted { count: 5, at_most: 100 }, 0),
            entry("stray", (1, &[0]), Extent::Fixed(1), 0),
        ],
        functions: [(SCORE.to_owned(), score())].into(),
    };
    let entries = [("table_4", 0), ("odd_set", 0x2c), ("stray", 0x6d), ("count_up", 0x78)];
    let entries = entries.map(|(name, offset)| HostEntry { name: name.into(), offset }).to_vec();
    let table_of = HostTable { arch: HostArch::X86_64, level: HostLevel::Baseline, entries };
    let image = HostImage { code: CODE.to_vec(), table: table_of };
    Bundle { program, code: BundleCode::Host(vec![image]) }
}

/// The name of the state.
pub(crate) const SEEN: &str = "seen";

/// The model with the function `count`.
pub(crate) fn counting() -> Bundle {
    let mut bundle = bundle();
    let program = &mut bundle.program;
    let (dtype, rows, role) = (DType::U32, RowBound::Fixed(1), Role::State { name: SEEN.into() });
    program.states = vec![State {
        name: SEEN.into(),
        dtype,
        rows: RowBound::Fixed(1),
        cols: 1,
        place: ArenaPlace::default(),
    }];
    program.state_fixed_bytes = 256;
    program.entries.push(entry("count_up", (2, &[0]), Extent::Fixed(1), 0));
    let seen = Buffer { name: SEEN.into(), dtype, rows, cols: 1, storage: Storage::State(0), live: None };
    let args = vec![Arg::Buffer(1), Arg::Buffer(0)];
    let count = Function {
        buffers: vec![buffer("n", DType::U32, rows, 1, (0, 0)), seen],
        steps: vec![Step { kernel: 3, args, origin: "count".into() }],
        interface: Interface::from([(Role::TokenCount, 0), (role, 1)]),
        fixed_bytes: 4,
        row_bytes: 0,
        ..score()
    };
    program.functions.insert("count".into(), count);
    bundle
}

/// The function of the bundle.
pub(crate) fn function(bundle: &mut Bundle) -> &mut Function {
    bundle.program.functions.get_mut(SCORE).unwrap()
}

/// The bundle as an artefact.
pub(crate) fn artifact(bundle: Bundle) -> Vec<u8> {
    let mut writer = Writer::new(Manifest {
        model: "tiny".into(),
        compiler: "0.1.0".into(),
        llvm: None,
        ptxas: None,
        flags: Vec::new(),
        spec_hash: ContentHash::of(b""),
        weights_hash: ContentHash::of(b""),
        targets: vec![bundle.program.target.to_string()],
        promises: Promises { device_resident: true, causal: true },
    });
    let table: Vec<u8> = (0..4).flat_map(logits_of).flat_map(f32::to_ne_bytes).collect();
    bundle.write(&mut writer, table).unwrap();
    writer.to_bytes().unwrap()
}
