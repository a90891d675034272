//! Matmuls for Hopper: which form and tile they get, and what they take of a multiprocessor.

use std::collections::BTreeMap;

use skipc_sass::analysis::{self, LaunchShape};

use super::*;

/// The form that the MLIR text of a kernel names.
fn form(target: &str, kernel: &Kernel) -> String {
    let named = [("k".to_owned(), kernel)];
    let device = skipc_llvm::CudaTarget::parse(target).expect("a target");
    let lowered = crate::lower(device, &named, &HIGHEST).expect("code");
    let line = lowered.mlir.lines().find_map(|line| line.strip_prefix("// k: "));
    line.expect("a form").to_owned()
}

fn bounded(at_most: u32, kernel: Kernel) -> Kernel {
    Kernel { extent: Extent::Counted { count: 0, at_most }, ..kernel }
}

#[test]
fn tiles_fill_rounds_of_the_device() {
    let shapes = [
        // Many tiles: the widest one.
        (16_384, 2048, 8192, 256),
        (2048, 8192, 2048, 256),
        // 17 × 8 of the widest would take a second round for four of them.
        (2112, 8192, 2048, 192),
        (4096, 2048, 4096, 256),
        // Few rows: narrow tiles, so that more blocks have some.
        (128, 2048, 4096, 64),
        (1, 2048, 8192, 64),
        (512, 128, 384, 64),
    ];
    for (rows, k, n, cols) in shapes {
        let wanted = format!("persistent wgmma, tile of 128x{cols}, 4 stages");
        assert_eq!(form("sm_90a", &bounded(rows, plain(Bf16, k, n))), wanted, "{rows}x{k}x{n}");
    }
}

#[test]
fn matmuls_that_do_not_suit_wgmma_keep_the_plain_form() {
    let kernels = [
        ("sm_80", plain(Bf16, 128, 256), "mma.sync tile of 64x64"),
        ("sm_100a", plain(Bf16, 128, 256), "mma.sync tile of 64x64"),
        ("sm_90a", plain(F32, 128, 256), "multiply-add tile of 64x64"),
        // Rows of 70 bytes, and an operand that begins 8 bytes along them.
        ("sm_90a", plain(Bf16, 35, 256), "mma.sync tile of 64x64"),
        ("sm_90a", shifted(plain(Bf16, 64, 256), 4), "mma.sync tile of 64x64"),
        ("sm_90a", shifted(plain(Bf16, 64, 256), 8), "persistent wgmma, tile of 128x256, 4 stages"),
        // The score of a router alone.
        ("sm_90a", plain(Bf16, 128, 1), "mma.sync tile of 32x16"),
        // Heads of which no lane has both halves.
        ("sm_90a", attention_inputs(Bf16, 64, [4, 8], 3), "mma.sync tile of 64x64"),
        ("sm_90a", attention_inputs(Bf16, 64, [4, 16], 3), "persistent wgmma, tile of 128x64, 4 stages"),
    ];
    for (target, kernel, wanted) in kernels {
        assert_eq!(form(target, &kernel), wanted, "{} on {target}", kernel.describe());
    }
}

/// A matmul whose left operand begins some columns along a wider matrix.
fn shifted(mut kernel: Kernel, col: u32) -> Kernel {
    if let Body::Gemm(gemm) = &mut kernel.body {
        gemm.a.col = col;
        kernel.params[1].cols += col;
    }
    kernel
}

/// The kernel with its weights swizzled, but for those of narrow parts.
fn swizzled(mut kernel: Kernel) -> Kernel {
    let Body::Gemm(gemm) = &mut kernel.body else { panic!("a matmul") };
    let mut outputs = BTreeMap::<Slot, u32>::new();
    for part in gemm.parts.iter_mut().filter(|part| !part.is_narrow()) {
        part.layout = WeightLayout::Swizzled;
        for Sum { weight, row, .. } in &part.sums {
            let end = outputs.entry(*weight).or_default();
            *end = (*end).max(row + part.n);
        }
    }
    for (weight, outputs) in outputs {
        kernel.params[weight.0 as usize].cols = outputs * SWIZZLE_TERMS;
    }
    kernel
}

#[test]
fn weights_that_begin_within_a_swizzle_keep_the_plain_form() {
    let shifted = |row| {
        let mut kernel = swizzled(plain(Bf16, 128, 256));
        if let Body::Gemm(gemm) = &mut kernel.body {
            gemm.parts[0].sums[0].row = row;
            kernel.params[2].cols += 64 * row;
        }
        form("sm_90a", &kernel)
    };
    assert_eq!(shifted(8), "persistent wgmma, tile of 128x256, 4 stages");
    assert_eq!(shifted(4), "mma.sync tile of 64x64");
    assert_eq!(form("sm_80", &swizzled(plain(Bf16, 128, 256))), "mma.sync tile of 64x64");
}

/// What `ptxas` and the disassembly say: registers of a thread at the launch (consumers then take what producers give back),
/// bytes of shared memory, instructions of the tensor cores (four for each part, one for 16 elements of `k`), and of the code
/// behind the first part's main loop the cycles of a warp alone, the loads of global memory that it waits for, and its stores.
/// Spills, and matmuls that wait for each other, are errors of the compile.
const RESOURCES: &str = "\
rows      168 registers, 196672 bytes,  4 HGMMA, behind them   568 cycles,  0 waits,  64 stores
plain     168 registers, 196672 bytes,  4 HGMMA, behind them   564 cycles,  0 waits,  64 stores
pair      168 registers, 196672 bytes,  4 HGMMA, behind them  2960 cycles,  4 waits,  32 stores
scattered 168 registers, 196672 bytes,  4 HGMMA, behind them  2596 cycles,  6 waits,  64 stores
attention 168 registers, 196672 bytes, 12 HGMMA, behind them  2918 cycles,  9 waits,  64 stores
small     168 registers,  98368 bytes,  4 HGMMA, behind them  1748 cycles,  5 waits,  16 stores
";

#[test]
fn resources_are_as_they_were() {
    let kernels = [
        ("rows", plain(Bf16, 2048, 8192)),
        ("plain", swizzled(plain(Bf16, 2048, 8192))),
        ("pair", swizzled(pair(Bf16, 2048, 8192))),
        ("scattered", swizzled(scattered(Bf16, 8192, 2048))),
        ("attention", swizzled(attention_inputs(Bf16, 2048, [16, 128], 3))),
        ("small", swizzled(bounded(512, scattered(Bf16, 384, 128)))),
    ];
    let code = compile("cuda:sm_90a", &kernels.each_ref().map(|(_, kernel)| kernel.clone())).expect("code");
    let [Image::Cubin(cubin), Image::Ptx(_)] = code.images.as_slice() else { panic!("two images") };
    let text = skipc_sass::disassemble(cubin, &["-hex"]).expect("tests/setup.sh fetches nvdisasm");
    let functions = skipc_sass::listing::read(&text).expect("a listing");
    let mut table = String::new();
    for (idx, ((name, _), launch)) in kernels.iter().zip(&code.launches).enumerate() {
        let Launch::Cuda { registers, shared_bytes, threads, persistent: true, .. } = launch else {
            panic!("{launch:?}")
        };
        assert_eq!(*threads, 384);
        let function = skipc_sass::listing::find(&functions, &format!("k{idx}")).expect("its code");
        let shape = LaunchShape { threads: *threads, registers: *registers };
        let read = analysis::Kernel::of(function, shape);
        assert!(
            read.pool.expect("two roles").is_covered(),
            "{name}: registers that nobody gives are waited for"
        );
        let tensor: u32 = read.parts.iter().map(|part| part.mix.group_matmuls).sum();
        let behind = read.main_loop().and_then(|(_, behind)| behind).expect("stores behind the main loop");
        table += &format!(
            "{name:9} {registers} registers, {shared_bytes:6} bytes, {tensor:2} HGMMA, behind them {:5} cycles, {:2} waits, \
             {:3} stores\n",
            behind.alone, behind.global_waits, behind.mix.global_stores
        );
    }
    assert_eq!(table, RESOURCES);
}

/// A launch with fewer registers than the roles of its warps take is refused when the model is compiled, not when it hangs.
#[test]
fn registers_that_nobody_gives_are_refused() {
    let pool = 128 * (56 + 2 * 224);
    assert_eq!(super::super::missing_registers(pool, 168, 384), None);
    let message = super::super::missing_registers(pool, 160, 384).expect("too few");
    assert!(message.contains("64512 registers") && message.contains("61440"), "{message}");
    assert_eq!(super::super::missing_registers(0, 32, 128), None);
}

/// So many matmuls of one left operand, each with a weight and a result of its own.
fn alike((k, n): (u32, u32), n_parts: u32) -> Kernel {
    let mut params = vec![read("count", U32, 1), read("a", Bf16, k)];
    let mut parts = Vec::new();
    for part in 0..n_parts {
        let slot = params.len() as u32;
        params.push(read(&format!("w{part}"), Bf16, k));
        params.push(param(&format!("out{part}"), Bf16, n, Access::Write));
        parts.push(Part::of(n, &[Slot(slot)], store_sum(slot + 1)));
    }
    let kernel = Kernel { params, extent: counted(0), body: Body::Gemm(Gemm { a: dense(1), k, parts }) };
    bounded(1024, swizzled(kernel))
}

/// Code of parts of one shape is the same but for their operands. Were its ends put together, sums of several matmuls would
/// share registers, and `ptxas` would make each wait for the one before; that is an error of the compile.
#[test]
fn parts_of_one_shape_stay_apart() {
    let shapes = [(32, 32), (32, 16), (64, 64), (128, 32), (512, 64)];
    let kernels: Vec<Kernel> =
        shapes.iter().flat_map(|shape| (1..=4).map(|n_parts| alike(*shape, n_parts))).collect();
    for kernel in &kernels {
        assert!(form("sm_90a", kernel).starts_with("persistent wgmma"), "{}", kernel.describe());
    }
    compile("cuda:sm_90a", &kernels).expect("code");
}
