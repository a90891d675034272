//! What kinds of work instructions are.

use serde::Serialize;

use crate::listing::Instruction;
use crate::rates;

/// What an instruction uses besides its place in the order of a warp.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Work {
    /// A matmul of a warp group, in the background: cycles of the tensor cores.
    GroupMatmul(u32),
    /// A matmul of a warp: cycles of its scheduler's tensor core.
    WarpMatmul(u32),
    /// An exponential, a reciprocal, a root …
    Special,
    /// A load of global memory: bytes of a thread.
    GlobalLoad(u32),
    /// A store to it.
    GlobalStore(u32),
    /// A load of shared memory: bytes of a thread.
    SharedLoad(u32),
    /// A store to it.
    SharedStore(u32),
    /// A copy of global to shared memory in the background, bytes of a thread.
    Copy(u32),
    /// A copy of a whole block of memory in the background.
    BulkCopy,
    /// A barrier of threads, or an operation on one in shared memory.
    Barrier,
    /// A fence: what came before is seen by others before what follows.
    Fence,
    /// Waits for matmuls of the warp group until at most so many groups of them are in flight.
    MatmulWait(u32),
    /// A call of a function.
    Call,
    /// Anything else whose latency is known.
    Other,
}

impl Work {
    pub(crate) fn of(instruction: &Instruction) -> Work {
        let bytes = || bytes(instruction);
        match instruction.name() {
            "HGMMA" | "QGMMA" | "IGMMA" => Work::GroupMatmul(matmul_cycles(instruction, 1)),
            "HMMA" | "IMMA" | "QMMA" => Work::WarpMatmul(matmul_cycles(instruction, rates::SCHEDULERS)),
            "MUFU" => Work::Special,
            "LDG" | "LD" | "ATOMG" | "ATOM" => Work::GlobalLoad(bytes()),
            "STG" | "ST" | "RED" | "REDG" => Work::GlobalStore(bytes()),
            "LDS" | "LDSM" | "ATOMS" => Work::SharedLoad(bytes()),
            "STS" | "STSM" => Work::SharedStore(bytes()),
            "LDGSTS" => Work::Copy(bytes()),
            "UBLKCP" | "UTMALDG" | "UTMASTG" | "UBLKRED" | "UTMAREDG" => Work::BulkCopy,
            "BAR" | "SYNCS" => Work::Barrier,
            "MEMBAR" | "FENCE" => Work::Fence,
            "WARPGROUP" if instruction.has("DEPBAR") => {
                let left = instruction.operands.last().and_then(|word| hexadecimal(word));
                Work::MatmulWait(left.unwrap_or(0))
            }
            "CALL" => Work::Call,
            _ => Work::Other,
        }
    }
}

/// Bytes of a thread, by the name's part; matrices of 8 × 8 elements of 16 bits are four bytes a thread each.
fn bytes(instruction: &Instruction) -> u32 {
    let name = instruction.name();
    if name == "LDSM" || name == "STSM" {
        return if instruction.has("4") {
            16
        } else if instruction.has("2") {
            8
        } else {
            4
        };
    }
    let sizes = [("128", 16), ("64", 8), ("U16", 2), ("S16", 2), ("U8", 1), ("S8", 1)];
    sizes.iter().find(|(part, _)| instruction.has(part)).map_or(4, |(_, bytes)| *bytes)
}

/// Rows, columns and inner extent of a matmul, by the part of its name that is `64x256x16` or `16816`.
pub(crate) fn shape(instruction: &Instruction) -> Option<[u32; 3]> {
    instruction.opcode.split('.').find_map(|part| {
        let sizes: Vec<u32> = part.split('x').map_while(|size| size.parse().ok()).collect();
        match sizes.as_slice() {
            [m, n, k] => Some([*m, *n, *k]),
            // Behind each other.
            [1688] => Some([16, 8, 8]),
            [16816] => Some([16, 8, 16]),
            [16832] => Some([16, 8, 32]),
            _ => None,
        }
    })
}

/// Cycles of a matmul on one of so many parts of the multiprocessor's tensor cores.
fn matmul_cycles(instruction: &Instruction, parts: u32) -> u32 {
    let [rows, columns, _] = shape(instruction).unwrap_or_default();
    (rows * columns * parts).div_ceil(rates::TENSOR_MACS_PER_FACTOR)
}

fn hexadecimal(word: &str) -> Option<u32> {
    u32::from_str_radix(word.strip_prefix("0x")?, 16).ok()
}

/// How many instructions there are of each kind that costs more than its place in the order.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Mix {
    /// All of them, but those that never do anything.
    pub instructions: u32,
    /// Matmuls of a warp group.
    pub group_matmuls: u32,
    /// Matmuls of a warp.
    pub warp_matmuls: u32,
    /// Exponentials, reciprocals, roots.
    pub special: u32,
    /// Loads of global memory.
    pub global_loads: u32,
    /// Bytes of a thread that they load.
    pub global_load_bytes: u32,
    /// Stores to global memory.
    pub global_stores: u32,
    /// Bytes of a thread that they store.
    pub global_store_bytes: u32,
    /// Loads of shared memory.
    pub shared_loads: u32,
    /// Stores to shared memory.
    pub shared_stores: u32,
    /// Bytes of a thread that both move.
    pub shared_bytes: u32,
    /// Copies of a thread from global to shared memory.
    pub copies: u32,
    /// Copies of whole blocks.
    pub bulk_copies: u32,
    /// Barriers, and operations on those in shared memory.
    pub barriers: u32,
    /// Fences.
    pub fences: u32,
    /// Calls.
    pub calls: u32,
}

impl Mix {
    pub(crate) fn add(&mut self, work: Work) {
        self.instructions += 1;
        let count = |what: &mut u32| *what += 1;
        match work {
            Work::GroupMatmul(_) => count(&mut self.group_matmuls),
            Work::WarpMatmul(_) => count(&mut self.warp_matmuls),
            Work::Special => count(&mut self.special),
            Work::GlobalLoad(bytes) => {
                count(&mut self.global_loads);
                self.global_load_bytes += bytes;
            }
            Work::GlobalStore(bytes) => {
                count(&mut self.global_stores);
                self.global_store_bytes += bytes;
            }
            Work::SharedLoad(bytes) => {
                count(&mut self.shared_loads);
                self.shared_bytes += bytes;
            }
            Work::SharedStore(bytes) => {
                count(&mut self.shared_stores);
                self.shared_bytes += bytes;
            }
            Work::Copy(_) => count(&mut self.copies),
            Work::BulkCopy => count(&mut self.bulk_copies),
            Work::Barrier => count(&mut self.barriers),
            Work::Fence => count(&mut self.fences),
            Work::Call => count(&mut self.calls),
            Work::MatmulWait(_) | Work::Other => {}
        }
    }
}
