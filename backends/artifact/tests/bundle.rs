//! A program, its code and its constants go into an artefact and come back; one that does not fit itself is refused.

use skipc_artifact::Error;
use skipc_artifact::bundle::{self, Bundle, BundleCode};
use skipc_artifact::image::{HostArch, HostEntry, HostImage, HostLevel, HostTable};
use skipc_artifact::interface::{Binding, Bound, Interface, Role, RouterPorts};
use skipc_artifact::manifest::{Manifest, Promises};
use skipc_artifact::program::{
    ArenaPlace, Arg, Buffer, Constant, Entry, Extent, Function, Head, Launch, Program, RowBound, RowTile,
    SCORE, State, Step, Storage,
};
use skipc_artifact::reader::Artifact;
use skipc_artifact::section::ContentHash;
use skipc_artifact::target::{DType, Target};
use skipc_artifact::writer::Writer;

fn manifest() -> Manifest {
    Manifest {
        model: "tiny".into(),
        compiler: "0.1.0".into(),
        llvm: None,
        ptxas: None,
        flags: Vec::new(),
        spec_hash: ContentHash::of(b""),
        weights_hash: ContentHash::of(b""),
        targets: vec!["cpu".into()],
        promises: Promises { device_resident: true, causal: true },
    }
}

fn buffer(name: &str, dtype: DType, rows: RowBound, cols: u32, place: (u64, u64)) -> Buffer {
    let storage = at(place.0, place.1);
    Buffer { name: name.into(), dtype, rows, cols, storage, live: None }
}

/// A place in the arena.
fn at(fixed_offset: u64, row_offset: u64) -> Storage {
    Storage::Step(ArenaPlace { fixed_offset, row_offset })
}

/// Bytes of the constants.
const CONSTANTS: &[u8] = &[1; 1024];

fn bundle() -> Bundle {
    let (one, tokens) = (RowBound::Fixed(1), RowBound::Tokens);
    let buffers = vec![
        buffer("n", DType::U32, one, 1, (0, 0)),
        buffer("use_forced", DType::U32, one, 1, (256, 0)),
        buffer("tokens", DType::U32, tokens, 1, (512, 0)),
        buffer("positions", DType::U32, tokens, 1, (512, 4)),
        buffer("sequences", DType::U32, tokens, 1, (512, 8)),
        buffer("logits", DType::F32, tokens, 10, (512, 12)),
    ];
    let mut interface = Interface::from([
        (Role::TokenCount, 0),
        (Role::UseForced, 1),
        (Role::Tokens, 2),
        (Role::Positions, 3),
        (Role::Sequences, 4),
        (Role::Logits, 5),
    ]);
    interface.bind_router(0, RouterPorts::Constant(true));
    let step = Step {
        kernel: 0,
        args: vec![Arg::Buffer(2), Arg::Constant(0), Arg::Buffer(5), Arg::Buffer(0)],
        origin: "model".into(),
    };
    let score = Function {
        max_tokens: 100,
        max_positions: 50,
        vocab_size: 10,
        head: Head::Tokens,
        class_token: false,
        ranks_batch: false,
        logits: 10,
        fixed_bytes: 512,
        row_bytes: 52,
        buffers,
        steps: vec![step],
        interface,
    };
    let program = Program {
        target: Target::Cpu,
        dtype: DType::F32,
        constants: vec![Constant {
            name: "table".into(),
            dtype: DType::F32,
            rows: 10,
            cols: 10,
            offset: 256,
        }],
        constant_bytes: 1024,
        states: Vec::new(),
        state_fixed_bytes: 0,
        state_row_bytes: 0,
        entries: vec![Entry {
            symbol: "embed_10".into(),
            n_params: 4,
            writes: vec![2],
            extent: Extent::Counted { count: 3, at_most: 100 },
            launch: Launch::Host { tile_rows: 16, few_rows: None, scratch_bytes: 64, tiles: Vec::new() },
        }],
        functions: [(SCORE.to_owned(), score)].into(),
    };
    let entries = vec![HostEntry { name: "embed_10".into(), offset: 0 }];
    let table = HostTable { arch: HostArch::X86_64, level: HostLevel::Avx2, entries };
    let image = HostImage { code: vec![0xc3], table };
    Bundle { program, code: BundleCode::Host(vec![image]) }
}

#[test]
fn a_bundle_comes_back() {
    let made = bundle();
    let mut writer = Writer::new(manifest());
    made.clone().write(&mut writer, CONSTANTS).unwrap();
    let artifact = Artifact::parse(writer.to_bytes().unwrap()).unwrap();
    assert_eq!(bundle::targets(&artifact), [Target::Cpu]);
    let program = bundle::read_program(&artifact, &Target::Cpu).unwrap();
    assert_eq!(program, made.program);
    assert_eq!(bundle::read_constants(&artifact, &program).unwrap(), CONSTANTS);
    let (code, table) = bundle::read_host_code(&artifact, &program, HostLevel::Avx2).unwrap().unwrap();
    let BundleCode::Host(images) = &made.code else { unreachable!("made above") };
    assert_eq!((code, &table), (&images[0].code[..], &images[0].table));
    assert!(bundle::read_host_code(&artifact, &program, HostLevel::Avx512).unwrap().is_none());
    let cuda = Target::Cuda("sm_90a".into());
    assert!(matches!(bundle::read_program(&artifact, &cuda), Err(Error::Missing { .. })));
}

#[test]
fn a_cuda_bundle_comes_back() {
    let mut made = bundle();
    made.program.target = Target::Cuda("sm_90a".into());
    made.program.entries[0].launch = Launch::Cuda {
        tiles: vec![RowTile { from: 0, rows: 16, across: 1 }],
        threads: 128,
        shared_bytes: 0,
        registers: 32,
        static_shared_bytes: 0,
        persistent: true,
        segments: 0,
    };
    made.code = BundleCode::Cuda { ptx: ".version 9.0".into(), cubin: None };
    let mut writer = Writer::new(manifest());
    made.clone().write(&mut writer, CONSTANTS).unwrap();
    let artifact = Artifact::parse(writer.to_bytes().unwrap()).unwrap();
    assert_eq!(bundle::targets(&artifact), [made.program.target.clone()]);
    let (ptx, cubin) = bundle::read_cuda_code(&artifact, &made.program).unwrap();
    assert_eq!((ptx, cubin), (&b".version 9.0"[..], None));
}

/// The function of the bundle.
fn score(bundle: &mut Bundle) -> &mut Function {
    bundle.program.functions.get_mut(SCORE).expect("it scores")
}

/// A file of some megabytes has room for so many.
#[test]
fn many_kernels_and_routers_take_no_longer_each() {
    const MANY: u32 = 60_000;
    let mut made = bundle();
    let entry = made.program.entries[0].clone();
    let names: Vec<String> = (0..MANY).map(|at| format!("kernel_{at}")).collect();
    made.program.entries.extend(names.iter().map(|name| Entry { symbol: name.clone(), ..entry.clone() }));
    let BundleCode::Host(images) = &mut made.code else { panic!("host code") };
    let known = names.iter().rev().map(|name| HostEntry { name: name.clone(), offset: 0 });
    images[0].table.entries.extend(known);
    let function = score(&mut made);
    let routers = (1..MANY).map(|router| Bound {
        role: Role::Decision { router },
        to: Binding::Always(true),
        count: None,
    });
    function.interface.ports.extend(routers);
    let begun = std::time::Instant::now();
    let mut writer = Writer::new(manifest());
    made.clone().write(&mut writer, CONSTANTS).unwrap();
    let artifact = Artifact::parse(writer.to_bytes().unwrap()).unwrap();
    let program = bundle::read_program(&artifact, &Target::Cpu).unwrap();
    assert_eq!(score(&mut made).interface.routers().len(), MANY as usize);
    let (_, table) = bundle::read_host_code(&artifact, &program, HostLevel::Avx2).unwrap().unwrap();
    assert_eq!(table.offsets(&program).unwrap().len(), MANY as usize + 1);
    // Tenths of a second, and a minute if each looks at all others.
    assert!(begun.elapsed() < std::time::Duration::from_secs(10), "{:?}", begun.elapsed());
}

/// Lets a router with a capacity decide, whose wanted rows this buffer counts.
fn limit(bundle: &mut Bundle, wanted: u32) {
    let function = score(bundle);
    function.buffers.push(buffer("mask", DType::U8, RowBound::Tokens, 1, (512, 0)));
    let routed = RouterPorts::Routed { decision: 6, forced: 6, executed: 0, wanted: Some(wanted) };
    function.interface.bind_router(0, routed);
}

#[test]
fn a_capacity_comes_back() {
    let mut made = bundle();
    limit(&mut made, 1);
    let mut writer = Writer::new(manifest());
    made.clone().write(&mut writer, CONSTANTS).unwrap();
    let artifact = Artifact::parse(writer.to_bytes().unwrap()).unwrap();
    assert_eq!(bundle::read_program(&artifact, &Target::Cpu).unwrap(), made.program);
}

/// Writes the bundle after an edit; what is refused says `expect`.
fn refused(expect: &str, edit: impl FnOnce(&mut Bundle)) {
    let mut made = bundle();
    edit(&mut made);
    let error = made.write(&mut Writer::new(manifest()), CONSTANTS).expect_err(expect).to_string();
    assert!(error.contains(expect), "{error:?} does not say {expect:?}");
}

#[test]
fn a_program_that_does_not_fit_itself_is_refused() {
    refused("constants", |it| it.program.constant_bytes = 1000);
    refused("constant `table`", |it| it.program.constants[0].offset = 255);
    refused("constant `table`", |it| it.program.constants[0].rows = u32::MAX);
    refused("constant `table`", |it| it.program.constants[0].offset = u64::MAX - 255);
    refused("arena", |it| score(it).row_bytes = u64::MAX / 2);
    refused("buffer `logits`", |it| score(it).row_bytes = 51);
    refused("buffer `logits`", |it| score(it).buffers[5].cols = u32::MAX);
    refused("buffer `n`", |it| score(it).buffers[0].storage = at(u64::MAX, 0));
    refused("not aligned", |it| score(it).buffers[3].storage = at(512, 2));
    refused("kernel 1", |it| score(it).steps[0].kernel = 1);
    refused("3 pointers", |it| score(it).steps[0].args.truncate(3));
    refused("Buffer(9)", |it| score(it).steps[0].args[0] = Arg::Buffer(9));
    refused("other than a u32", |it| score(it).steps[0].args[3] = Arg::Buffer(5));
    refused("parameter 4", |it| it.program.entries[0].extent = Extent::Counted { count: 4, at_most: 1 });
    refused("writes to parameter 4", |it| it.program.entries[0].writes.push(4));
    refused("works on", |it| it.program.entries[0].extent = Extent::Fixed(u32::MAX));
    refused("for each row of the caches", |it| it.program.state_row_bytes = 1 << 31);
    refused("no entry `other`", |it| it.program.entries[0].symbol = "other".into());
    refused("not on cuda", |it| it.program.target = Target::Cuda("sm_80".into()));
    refused("`logits`", |it| score(it).logits = 11);
    refused("`wanted of router 0` is buffer 77", |it| limit(it, 77));
    refused("`wanted of router 0` is buffer 2", |it| limit(it, 2));
    refused("outside its image", |it| {
        let BundleCode::Host(images) = &mut it.code else { unreachable!("made above") };
        images[0].table.entries[0].offset = 1;
    });
}

#[test]
fn an_interface_that_is_not_what_its_roles_say_is_refused() {
    let bind = |it: &mut Bundle, role, idx| score(it).interface.bind(role, Binding::Buffer(idx));
    refused("`decision of router 0` is buffer 77", |it| {
        let routed = RouterPorts::Routed { decision: 77, forced: 0, executed: 0, wanted: None };
        score(it).interface.bind_router(0, routed);
    });
    refused("`decision of router 1` belongs to a router whose ports are not all there", |it| {
        limit(it, 1);
        bind(it, Role::Decision { router: 1 }, 6);
    });
    refused("two ports `tokens`", |it| {
        score(it).interface.ports.push(Bound { role: Role::Tokens, to: Binding::Buffer(2), count: None });
    });
    refused("`logits` is bound to a constant", |it| {
        score(it).interface.bind(Role::Logits, Binding::Always(true));
    });
    refused("no port `n_tokens`", |it| score(it).interface.ports.retain(|it| it.role != Role::TokenCount));
    refused("no port `use_forced`", |it| {
        limit(it, 1);
        score(it).interface.ports.retain(|it| it.role != Role::UseForced);
    });
    refused("`parameter w` is a constant", |it| bind(it, Role::Parameter { name: "w".into() }, 2));
}

/// Gives the function a set that the caller chooses, and an input and a result with its rows.
fn choose(bundle: &mut Bundle) {
    let interface = &mut score(bundle).interface;
    let [set, rows] = ["set", "rows"].map(|name| Role::Input { name: name.to_owned() });
    interface.bind_rows(set, 2, 1);
    interface.bind(Role::SetCount { name: "set".to_owned() }, Binding::Buffer(1));
    interface.bind_rows(rows, 3, 1);
    interface.bind_rows(Role::Result { name: "rows".to_owned() }, 5, 1);
}

#[test]
fn rows_of_a_set_are_counted_by_a_buffer_that_can() {
    let mut made = bundle();
    choose(&mut made);
    made.write(&mut Writer::new(manifest()), CONSTANTS).unwrap();
    let named = |name: &str| Role::Input { name: name.to_owned() };
    refused("`rows of set set` belongs to no input that is a set", |it| {
        choose(it);
        score(it).interface.ports.retain(|port| port.role != named("set"));
    });
    refused("`rows of set set` belongs to no input that is a set", |it| {
        choose(it);
        score(it).interface.bind_rows(named("set"), 5, 1);
    });
    refused("`mask of set other` belongs to no input that is a set", |it| {
        choose(it);
        let mask = Role::SetMask { name: "other".to_owned() };
        score(it).buffers.push(buffer("mask", DType::U8, RowBound::Tokens, 1, (512, 48)));
        score(it).interface.bind(mask, Binding::Buffer(6));
    });
    refused("`input rows` has the rows of a set that the caller does not give", |it| {
        choose(it);
        score(it).interface.bind_rows(named("rows"), 3, 0);
    });
    refused("`result rows` is counted by buffer 4, which cannot count it", |it| {
        choose(it);
        score(it).interface.bind_rows(Role::Result { name: "rows".to_owned() }, 5, 4);
    });
    refused("`n_tokens` is counted by buffer 1, but has no rows of a set", |it| {
        choose(it);
        score(it).interface.bind_rows(Role::TokenCount, 0, 1);
    });
    refused("`logits` is counted by buffer 1, but has no rows of a set", |it| {
        choose(it);
        let logits = score(it).interface.buffer(&Role::Logits).expect("it scores");
        score(it).interface.bind_rows(Role::Logits, logits, 1);
    });
    refused("`rows of set set` is counted by buffer 99, but has no rows of a set", |it| {
        choose(it);
        score(it).interface.bind_rows(Role::SetCount { name: "set".to_owned() }, 1, 99);
    });
    refused("`rows of set twin` is the buffer of another set, too", |it| {
        choose(it);
        score(it).interface.bind_rows(named("twin"), 2, 1);
        score(it).interface.bind(Role::SetCount { name: "twin".to_owned() }, Binding::Buffer(1));
    });
}

/// Gives the function a state of two counts.
fn keep(bundle: &mut Bundle) {
    let (name, dtype, rows) = ("seen".to_owned(), DType::U32, RowBound::Fixed(2));
    bundle.program.states.push(State {
        name: name.clone(),
        dtype,
        rows: RowBound::Fixed(2),
        cols: 1,
        place: ArenaPlace::default(),
    });
    bundle.program.state_fixed_bytes = 8;
    let function = score(bundle);
    let storage = Storage::State(0);
    function.buffers.push(Buffer { name: name.clone(), dtype, rows, cols: 1, storage, live: None });
    function.interface.bind(Role::State { name }, Binding::Buffer(6));
}

#[test]
fn states_lie_by_themselves() {
    let mut made = bundle();
    keep(&mut made);
    made.clone().write(&mut Writer::new(manifest()), CONSTANTS).unwrap();
    refused("state `seen` does not lie by itself", |it| {
        keep(it);
        it.program.state_fixed_bytes = 7;
    });
    refused("state `seen` does not lie by itself", |it| {
        keep(it);
        it.program.states[0].place.fixed_offset = 128;
    });
    refused("two states `seen`", |it| {
        keep(it);
        it.program.states.push(State {
            place: ArenaPlace { fixed_offset: 256, row_offset: 0 },
            ..it.program.states[0].clone()
        });
        it.program.state_fixed_bytes = 264;
    });
    refused("is not what state 0 is", |it| {
        keep(it);
        score(it).buffers[6].cols = 2;
    });
    refused("a state without a port", |it| {
        keep(it);
        score(it).interface.ports.retain(|it| !matches!(it.role, Role::State { .. }));
    });
    refused("`state seen` is buffer 0, which is not it", |it| {
        keep(it);
        score(it).interface.bind(Role::State { name: "seen".into() }, Binding::Buffer(0));
        score(it).buffers.pop();
    });
    refused("`prompt state seen` is buffer 6, which has no row for each token", |it| {
        keep(it);
        let port = score(it).interface.ports.iter_mut().find(|port| port.role.state_name().is_some());
        port.expect("the state's port").role = Role::PromptState { name: "seen".into() };
    });
    refused("`tokens` is buffer 6", |it| {
        keep(it);
        score(it).interface.bind(Role::Tokens, Binding::Buffer(6));
    });
}

#[test]
fn functions_have_names_and_there_is_one() {
    refused("no function", |it| it.program.functions.clear());
    refused("a-z", |it| {
        let function = score(it).clone();
        it.program.functions.insert("Score it".into(), function);
    });
}
