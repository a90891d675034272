//! A program, its code and its constants go into an artefact and come back; one that does not fit itself is refused.

use skipc_artifact::Error;
use skipc_artifact::bundle::{self, Bundle, BundleCode};
use skipc_artifact::image::{HostArch, HostEntry, HostImage, HostLevel, HostTable};
use skipc_artifact::manifest::{Manifest, Promises};
use skipc_artifact::program::{
    Arg, Buffer, Constant, Entry, Extent, Gate, Io, Launch, Layout, Place, Program, Purpose, RowBound,
    RowTile, Step,
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
    let place = Place { fixed_offset: place.0, row_offset: place.1 };
    Buffer { name: name.into(), dtype, rows, cols, place, live: None }
}

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
    let io = Io {
        n_tokens: 0,
        use_forced: 1,
        tokens: 2,
        positions: 3,
        sequences: 4,
        logits: 5,
        gates: vec![Gate::Constant(true)],
    };
    let step = Step {
        kernel: 0,
        args: vec![Arg::Buffer(2), Arg::Constant(0), Arg::Buffer(5), Arg::Buffer(0)],
        origin: "model".into(),
    };
    let layout = Layout {
        max_tokens: 100,
        max_positions: 50,
        vocab_size: 10,
        fixed_bytes: 512,
        row_bytes: 52,
        buffers,
        steps: vec![step],
        io,
    };
    let program = Program {
        target: Target::Cpu,
        purpose: Purpose::Score,
        dtype: DType::F32,
        layout,
        constants: vec![Constant {
            name: "table".into(),
            dtype: DType::F32,
            rows: 10,
            cols: 10,
            offset: 256,
        }],
        constant_bytes: 1024,
        entries: vec![Entry {
            symbol: "embed_10".into(),
            n_params: 4,
            extent: Extent::Counted { count: 3, at_most: 100 },
            launch: Launch::Host { tile_rows: 16, few_rows: None, scratch_bytes: 64, tiles: Vec::new() },
        }],
    };
    let entries = vec![HostEntry { name: "embed_10".into(), offset: 0 }];
    let table = HostTable { arch: HostArch::X86_64, level: HostLevel::Avx2, entries };
    let image = HostImage { code: vec![0xc3], table };
    Bundle { program, constants: vec![1; 1024], code: BundleCode::Host(vec![image]) }
}

#[test]
fn a_bundle_comes_back() {
    let made = bundle();
    let mut writer = Writer::new(manifest());
    made.clone().write(&mut writer).unwrap();
    let artifact = Artifact::parse(writer.to_bytes().unwrap()).unwrap();
    assert_eq!(bundle::targets(&artifact), [Target::Cpu]);
    let program = bundle::read_program(&artifact, &Target::Cpu, Purpose::Score).unwrap();
    assert_eq!(program, made.program);
    assert_eq!(bundle::read_constants(&artifact, &program).unwrap(), made.constants);
    let (code, table) = bundle::read_host_code(&artifact, &program, HostLevel::Avx2).unwrap().unwrap();
    let BundleCode::Host(images) = &made.code else { unreachable!("made above") };
    assert_eq!((code, &table), (&images[0].code[..], &images[0].table));
    assert!(bundle::read_host_code(&artifact, &program, HostLevel::Avx512).unwrap().is_none());
    let cuda = Target::Cuda("sm_90a".into());
    assert!(matches!(bundle::read_program(&artifact, &cuda, Purpose::Score), Err(Error::Missing { .. })));
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
    };
    made.code = BundleCode::Cuda { ptx: ".version 9.0".into(), cubin: None };
    let mut writer = Writer::new(manifest());
    made.clone().write(&mut writer).unwrap();
    let artifact = Artifact::parse(writer.to_bytes().unwrap()).unwrap();
    assert_eq!(bundle::targets(&artifact), [made.program.target.clone()]);
    let (ptx, cubin) = bundle::read_cuda_code(&artifact, &made.program).unwrap();
    assert_eq!((ptx, cubin), (&b".version 9.0"[..], None));
}

/// Lets a router with a capacity decide, whose wanted rows this buffer counts.
fn limit(bundle: &mut Bundle, wanted: u32) {
    let layout = &mut bundle.program.layout;
    layout.buffers.push(buffer("mask", DType::U8, RowBound::Tokens, 1, (512, 0)));
    layout.io.gates[0] = Gate::Routed { mask: 6, forced: 6, count: 0, wanted: Some(wanted) };
}

#[test]
fn a_capacity_comes_back() {
    let mut made = bundle();
    limit(&mut made, 1);
    let mut writer = Writer::new(manifest());
    made.clone().write(&mut writer).unwrap();
    let artifact = Artifact::parse(writer.to_bytes().unwrap()).unwrap();
    assert_eq!(bundle::read_program(&artifact, &Target::Cpu, Purpose::Score).unwrap(), made.program);
}

/// Writes the bundle after an edit; what is refused says `expect`.
fn refused(expect: &str, edit: impl FnOnce(&mut Bundle)) {
    let mut made = bundle();
    edit(&mut made);
    let error = made.write(&mut Writer::new(manifest())).expect_err(expect).to_string();
    assert!(error.contains(expect), "{error:?} does not say {expect:?}");
}

#[test]
fn a_program_that_does_not_fit_itself_is_refused() {
    refused("constants", |it| it.constants.truncate(1000));
    refused("constant `table`", |it| it.program.constants[0].offset = 255);
    refused("constant `table`", |it| it.program.constants[0].rows = u32::MAX);
    refused("constant `table`", |it| it.program.constants[0].offset = u64::MAX - 255);
    refused("arena", |it| it.program.layout.row_bytes = u64::MAX / 2);
    refused("buffer `logits`", |it| it.program.layout.row_bytes = 51);
    refused("buffer `logits`", |it| it.program.layout.buffers[5].cols = u32::MAX);
    refused("buffer `n`", |it| it.program.layout.buffers[0].place.fixed_offset = u64::MAX);
    refused("not aligned", |it| it.program.layout.buffers[3].place.row_offset = 2);
    refused("kernel 1", |it| it.program.layout.steps[0].kernel = 1);
    refused("3 pointers", |it| it.program.layout.steps[0].args.truncate(3));
    refused("Buffer(9)", |it| it.program.layout.steps[0].args[0] = Arg::Buffer(9));
    refused("other than a u32", |it| it.program.layout.steps[0].args[3] = Arg::Buffer(5));
    refused("parameter 4", |it| it.program.entries[0].extent = Extent::Counted { count: 4, at_most: 1 });
    refused("no entry `other`", |it| it.program.entries[0].symbol = "other".into());
    refused("not on cuda", |it| it.program.target = Target::Cuda("sm_80".into()));
    refused("`logits`", |it| it.program.layout.vocab_size = 11);
    refused("`mask`", |it| {
        it.program.layout.io.gates[0] = Gate::Routed { mask: 77, forced: 0, count: 0, wanted: None };
    });
    refused("`wanted` is buffer 77", |it| limit(it, 77));
    refused("`wanted` is buffer 2", |it| limit(it, 2));
    refused("outside its image", |it| {
        let BundleCode::Host(images) = &mut it.code else { unreachable!("made above") };
        images[0].table.entries[0].offset = 1;
    });
}
