//! What leaves the backend.

use skipc_artifact::image::HostArch;
use skipc_artifact::object_image;
use skipc_artifact::program::Extent;
use skipc_artifact::target::DType;
use skipc_cranelift::Cranelift;
use skipc_plan::codegen::{Code, Codegen as _, CodegenError, Image};
use skipc_plan::kernel::{Body, Gemm, Kernel, Part, Rowwise};
use skipc_plan::pointwise::{Inst, Pointwise, Reg, Store, Unary};

use crate::case::{Case, dense};

fn gemm(weight_type: DType) -> Kernel {
    let mut case = Case::default();
    let a = case.reals(weight_type, 4, 8);
    let weight = case.reals(weight_type, 12, 8);
    let c = case.output(DType::F32, 4, 12);
    let epilogue = Pointwise {
        code: vec![Inst::Acc(0), Inst::Unary(Unary::Silu, Reg(0))],
        stores: vec![Store { to: dense(c), value: Reg(1) }],
    };
    let gemm = Gemm { a: dense(a), k: 8, parts: vec![Part::of(12, &[weight], epilogue)] };
    Kernel { params: case.params, extent: Extent::Fixed(4), body: Body::Gemm(gemm) }
}

fn embed() -> Kernel {
    let mut case = Case::default();
    let (ids, table) = (case.indices(&[0]), case.reals(DType::Bf16, 3, 5));
    let out = case.output(DType::Bf16, 1, 5);
    let embed = Rowwise::Embed { cols: 5, ids: dense(ids), n_ids: 3, table, out };
    Kernel { params: case.params, extent: Extent::Fixed(1), body: Body::Rowwise(embed) }
}

fn compile(arch: HostArch) -> Code {
    let (gemm, embed) = (gemm(DType::F32), embed());
    Cranelift::new(arch).unwrap().compile(&[("first".into(), &gemm), ("second".into(), &embed)]).unwrap()
}

#[test]
fn the_same_kernels_give_the_same_bytes() {
    assert_eq!(compile(HostArch::X86_64), compile(HostArch::X86_64));
}

#[test]
fn both_architectures_need_nothing_from_outside() {
    for arch in [HostArch::X86_64, HostArch::Aarch64] {
        let code = compile(arch);
        let [Image::HostObject { level: Cranelift::LEVEL, object }] = code.images.as_slice() else {
            panic!("one object")
        };
        let image = object_image::link(object, Cranelift::LEVEL).unwrap();
        let names: Vec<&str> = image.table.entries.iter().map(|entry| entry.name.as_str()).collect();
        assert_eq!((image.table.arch, names), (arch, vec!["first", "second"]));
    }
}

#[test]
fn the_listing_shows_each_kernel() {
    let code = compile(HostArch::X86_64);
    let [(stage, listing)] = code.stages.as_slice() else { panic!("one stage") };
    assert_eq!(stage, "clif");
    assert!(
        listing.starts_with("; first\nfunction %first(")
            && listing.contains("\n\n; second\nfunction %second("),
        "{listing}"
    );
}

#[test]
fn bf16_weights_are_refused_by_name() {
    let kernel = gemm(DType::Bf16);
    let refused = Cranelift::new(HostArch::X86_64).unwrap().compile(&[("k".into(), &kernel)]).unwrap_err();
    let CodegenError::Unsupported { kernel, why, .. } = refused else { panic!("{refused}") };
    assert_eq!(
        (kernel.as_str(), why.as_str()),
        ("k", "bf16 matmul on the Cranelift backend; use --dtype cpu=f32")
    );
}

#[test]
fn a_malformed_kernel_is_an_error() {
    let mut kernel = embed();
    kernel.params.truncate(1);
    let refused = Cranelift::new(HostArch::X86_64).unwrap().compile(&[("k".into(), &kernel)]).unwrap_err();
    assert!(matches!(refused, CodegenError::Internal { .. }), "{refused}");
}
