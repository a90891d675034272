//! Copies of runs of memory and of tensor boxes that the machine makes on its own (PTX ISA sections 9.7.9.25.4 and
//! 9.7.9.27).

use super::async_copy::commit_groups;
use super::mbarrier;
use super::memory::At;
use crate::isa::tensor_map::{Inside, MAP_ALIGNMENT, Piece, TensorMap};
use crate::machine::Run;
use crate::machine::decode::{DecodeError, Decoder, Form, Kind};
use crate::machine::{
    AccessKind, Copying, FaultKind, Finding, Outcome, Pending, Pointee, Space, Stamp, Trouble, Turn, View,
};
use crate::registers::{Source32, lanes};
use crate::syntax::{Address, Instruction, Operand};

pub(crate) const FORMS: &[Form] = &[
    Form {
        syntax: "cp.async.bulk.{shared::cta,shared::cluster}.global.mbarrier::complete_tx::bytes",
        section: "9.7.9.25.4.1",
        kind: Kind::AsyncCopy,
        decode: load_run,
    },
    Form {
        syntax: "cp.async.bulk.tensor.{1d,2d,3d,4d,5d}.{shared::cta,shared::cluster}.global.{tile,}.mbarrier::complete_tx::bytes.{multicast::cluster,}",
        section: "9.7.9.27.1.2",
        kind: Kind::AsyncCopy,
        decode: load,
    },
    Form {
        syntax: "cp.async.bulk.tensor.{1d,2d,3d,4d,5d}.global.shared::cta.{tile,}.bulk_group",
        section: "9.7.9.27.1.2",
        kind: Kind::AsyncCopy,
        decode: store,
    },
    Form {
        syntax: "cp.async.bulk.global.shared::cta.bulk_group",
        section: "9.7.9.25.4.1",
        kind: Kind::AsyncCopy,
        decode: store_run,
    },
    Form { syntax: "cp.async.bulk.commit_group", section: "9.7.9.27.2.1", kind: Kind::Sync, decode: commit },
    Form {
        syntax: "cp.async.bulk.wait_group.{read,}",
        section: "9.7.9.27.2.2",
        kind: Kind::Sync,
        decode: wait,
    },
    Form {
        syntax: "prefetch.{param,}.tensormap",
        section: "9.7.9.15",
        kind: Kind::AsyncCopy,
        decode: prefetch,
    },
];

/// Bytes of which both addresses and the size of a run are multiples.
const RUN_UNIT: u32 = 16;

/// `[to], [from], size, [mbarrier]`.
fn load_run(decoder: &mut Decoder<'_>, instruction: &Instruction) -> Result<Run, DecodeError> {
    decoder.expect_operands(instruction, 4)?;
    let to = At::decode(decoder, &instruction.operands[0])?;
    let from = At::decode(decoder, &instruction.operands[1])?;
    let size = decoder.source32(&instruction.operands[2])?;
    let barrier = At::decode(decoder, &instruction.operands[3])?;
    Ok(Run::Turn(Box::new(move |turn| {
        let mask = turn.mask;
        let (to, from, barrier) = (to.get(turn)?, from.get(turn)?, barrier.get(turn)?);
        let sizes = turn.registers().get32(size, mask)?;
        for lane in lanes(mask) {
            let into = target(turn, lane, to[lane], barrier[lane])?;
            let piece = run_of(turn, lane, from[lane], (into.to, sizes[lane]))?;
            load_pieces(turn, lane, [piece], &[0], &into)?;
        }
        Ok(Outcome::Next)
    })))
}

/// `[to], [from], size`.
fn store_run(decoder: &mut Decoder<'_>, instruction: &Instruction) -> Result<Run, DecodeError> {
    decoder.expect_operands(instruction, 3)?;
    let to = At::decode(decoder, &instruction.operands[0])?;
    let from = At::decode(decoder, &instruction.operands[1])?;
    let size = decoder.source32(&instruction.operands[2])?;
    Ok(Run::Turn(Box::new(move |turn| {
        let mask = turn.mask;
        let (to, from) = (to.get(turn)?, from.get(turn)?);
        let sizes = turn.registers().get32(size, mask)?;
        for lane in lanes(mask) {
            let (block, shared) = turn.shared_block(lane as u32, from[lane])?;
            let piece = run_of(turn, lane, to[lane], (shared as u32, sizes[lane]))?;
            store_pieces(turn, lane, [piece], block)?;
        }
        Ok(Outcome::Next)
    })))
}

/// A run of bytes, of which both ends are at multiples of [`RUN_UNIT`].
fn run_of(turn: &Turn<'_>, lane: usize, global: u64, (shared, len): (u32, u32)) -> Result<Piece, Finding> {
    if !len.is_multiple_of(RUN_UNIT) {
        let what = format!("{len} bytes; a multiple of {RUN_UNIT} is wanted");
        return Err(turn.finding(FaultKind::Operand, what));
    }
    // It begins aligned, and then all of its parts do.
    turn.cluster.memory.place(lane as u32, global, len.min(RUN_UNIT), RUN_UNIT)?;
    Ok(Piece { shared, len, inside: Some(Inside { global, skip: 0, len }) })
}

/// `[map, {coordinates}]`.
struct Tensor {
    map: At,
    coordinates: Vec<Source32>,
}

fn tensor(decoder: &mut Decoder<'_>, operand: &Operand, opcode: &str) -> Result<Tensor, DecodeError> {
    let Operand::Address(Address { base, offset, coordinates }) = operand else {
        return Err(decoder.error("a tensor map with coordinates is wanted"));
    };
    let wanted =
        opcode.split('.').nth(4).and_then(|dim| dim.strip_suffix('d')).and_then(|dim| dim.parse().ok());
    if wanted != Some(coordinates.len()) {
        return Err(decoder.error(format!("{} coordinates", coordinates.len())));
    }
    let map = At::of_base(decoder, base, *offset)?;
    let coordinates = coordinates.iter().map(|item| decoder.source32(item)).collect::<Result<_, _>>()?;
    Ok(Tensor { map, coordinates })
}

impl Tensor {
    /// The map and the coordinates that a lane names.
    fn get(&self, turn: &mut Turn<'_>, lane: usize) -> Result<(TensorMap, Vec<i32>), Trouble> {
        let address = self.map.of_lane(turn, lane)?;
        let wrong = |what: String| Finding { kind: FaultKind::TensorMap, lane: lane as u32, what };
        if !address.is_multiple_of(MAP_ALIGNMENT) {
            return Err(wrong(format!(
                "the tensor map at {address:#x} is not aligned to {MAP_ALIGNMENT} bytes"
            ))
            .into());
        }
        let mut bytes = [0; 128];
        for (idx, part) in bytes.chunks_exact_mut(16).enumerate() {
            let place = turn.place(Space::Generic, lane, address + 16 * idx as u64, 16)?;
            part.copy_from_slice(turn.bytes_mut(place, 16));
        }
        let map = TensorMap::from_bytes(&bytes).map_err(|error| wrong(error.to_string()))?;
        let mut coordinates = Vec::with_capacity(self.coordinates.len());
        for source in &self.coordinates {
            coordinates.push(turn.registers().get32(*source, 1 << lane)?[lane] as i32);
        }
        if !map.starts_aligned(&coordinates) {
            return Err(wrong(format!(
                "the box at {coordinates:?} does not start at a multiple of 16 bytes"
            ))
            .into());
        }
        Ok((map, coordinates))
    }
}

fn load(decoder: &mut Decoder<'_>, instruction: &Instruction) -> Result<Run, DecodeError> {
    let is_multicast = instruction.opcode.ends_with(".multicast::cluster");
    decoder.expect_operands(instruction, if is_multicast { 4 } else { 3 })?;
    let to = At::decode(decoder, &instruction.operands[0])?;
    let tensor = tensor(decoder, &instruction.operands[1], &instruction.opcode)?;
    let barrier = At::decode(decoder, &instruction.operands[2])?;
    let blocks = instruction.operands.get(3).map(|operand| decoder.source32(operand)).transpose()?;
    Ok(Run::Turn(Box::new(move |turn| {
        let mask = turn.mask;
        let (to, barrier) = (to.get(turn)?, barrier.get(turn)?);
        for lane in lanes(mask) {
            let (map, coordinates) = tensor.get(turn, lane)?;
            let own = target(turn, lane, to[lane], barrier[lane])?;
            let targets: Vec<usize> = match blocks {
                None => vec![own.block],
                Some(blocks) => {
                    let mask = turn.registers().get32(blocks, 1 << lane)?[lane] & 0xFFFF;
                    lanes(mask).collect()
                }
            };
            if targets.is_empty() || targets.iter().any(|target| *target >= turn.cluster.blocks.len()) {
                let what = format!("blocks {targets:?} of a cluster of {}", turn.cluster.blocks.len());
                return Err(turn.finding(FaultKind::Operand, what).into());
            }
            for block in targets {
                load_box(turn, lane, &map, &coordinates, &Target { block, ..own })?;
            }
        }
        Ok(Outcome::Next)
    })))
}

/// Where a copy goes: a block of the cluster, an address in its shared memory, the offset of its mbarrier.
#[derive(Clone, Copy)]
struct Target {
    block: usize,
    to: u32,
    barrier: u32,
}

/// The target that a lane names.
fn target(turn: &mut Turn<'_>, lane: usize, to: u64, barrier: u64) -> Result<Target, Trouble> {
    let (block, to) = turn.shared_block(lane as u32, to)?;
    let (of, barrier) = mbarrier::place(turn, lane, barrier)?;
    if of != block {
        let what = "the mbarrier is in another block than what is copied";
        return Err(turn.finding(FaultKind::Barrier, what).into());
    }
    Ok(Target { block, to: to as u32, barrier })
}

fn load_box(
    turn: &mut Turn<'_>,
    lane: usize,
    map: &TensorMap,
    coordinates: &[i32],
    target: &Target,
) -> Result<(), Finding> {
    let wrong = |what: String| Finding { kind: FaultKind::TensorMap, lane: lane as u32, what };
    let pieces = map.boxes(coordinates, target.to).map_err(|error| wrong(error.to_string()))?;
    load_pieces(turn, lane, pieces, &map.fill_bytes(), target)
}

/// Copies pieces for an mbarrier; what they lack in global memory is filled.
fn load_pieces(
    turn: &mut Turn<'_>,
    lane: usize,
    pieces: impl IntoIterator<Item = Piece>,
    fill: &[u8],
    target: &Target,
) -> Result<(), Finding> {
    let Target { block, barrier, .. } = *target;
    turn.use_mbarrier(lane, block, barrier)?;
    let mbarrier = &turn.cluster.blocks[block].shared.mbarriers[&barrier];
    if !mbarrier.fenced {
        let barrier = turn.own(barrier.into());
        let what = format!(
            "the mbarrier at byte {barrier} was initialised without a fence.mbarrier_init or fence.proxy.async behind it"
        );
        return Err(Finding { kind: FaultKind::MissingMbarrierFence, lane: lane as u32, what });
    }
    let (agent, time, phase) = (mbarrier.agent, mbarrier.time(), mbarrier.phase);
    let cluster = turn.cluster.number;
    let stamp = Stamp { agent, kind: AccessKind::Bulk, cluster, time, lanes: 1, at: turn.at };
    let view = turn.state().view(lane);
    let mut bytes = 0;
    for piece in pieces {
        let mut data: Vec<u8> = fill.iter().copied().cycle().take(piece.len as usize).collect();
        read_piece(turn, lane, &piece, stamp, &view, &mut data)?;
        for (idx, part) in data.chunks(16).enumerate() {
            let address = u64::from(piece.shared) + 16 * idx as u64;
            let shared = &turn.cluster.blocks[block].shared;
            let offset = shared.place(lane as u32, address, part.len() as u32, 16)?;
            let place = Pointee::Shared(block, offset);
            turn.note_write(place, lane, part.len(), &turn.access_as(stamp, 1 << lane, &view))?;
            turn.bytes_mut(place, part.len()).copy_from_slice(part);
        }
        bytes += piece.len;
    }
    turn.cluster.counters.copied_in += u64::from(bytes);
    let at = turn.at;
    turn.cluster.pending.push(Pending::Transaction { block, offset: barrier, bytes, phase, at });
    Ok(())
}

/// Bytes of global memory that are looked at together: the least alignment of a row of a tensor.
const PART: u32 = 16;

/// Reads the part of a piece that lies in the tensor.
fn read_piece(
    turn: &mut Turn<'_>,
    lane: usize,
    piece: &Piece,
    stamp: Stamp,
    view: &View,
    data: &mut [u8],
) -> Result<(), Finding> {
    let Some(inside) = piece.inside else { return Ok(()) };
    for (global, at, n) in parts(inside.global, inside.len) {
        let (buffer, offset) = turn.cluster.memory.place(lane as u32, global, n, 1)?;
        turn.note_read((buffer, offset), lane, n as usize, &turn.access_as(stamp, 1 << lane, view))?;
        let from = &turn.cluster.memory.buffer(buffer).bytes[offset..offset + n as usize];
        let to = (inside.skip + at) as usize;
        data[to..to + n as usize].copy_from_slice(from);
    }
    Ok(())
}

/// Cuts a stretch of global memory at multiples of 16: address, offset in the stretch, bytes.
fn parts(address: u64, bytes: u32) -> impl Iterator<Item = (u64, u32, u32)> {
    let mut done = 0;
    std::iter::from_fn(move || {
        if done == bytes {
            return None;
        }
        let from = address + u64::from(done);
        let n = (PART - (from % u64::from(PART)) as u32).min(bytes - done);
        done += n;
        Some((from, done - n, n))
    })
}

fn store(decoder: &mut Decoder<'_>, instruction: &Instruction) -> Result<Run, DecodeError> {
    decoder.expect_operands(instruction, 2)?;
    let tensor = tensor(decoder, &instruction.operands[0], &instruction.opcode)?;
    let from = At::decode(decoder, &instruction.operands[1])?;
    Ok(Run::Turn(Box::new(move |turn| {
        let mask = turn.mask;
        let from = from.get(turn)?;
        for lane in lanes(mask) {
            let (map, coordinates) = tensor.get(turn, lane)?;
            let (block, from) = turn.shared_block(lane as u32, from[lane])?;
            store_box(turn, lane, &map, &coordinates, (block, from as u32))?;
        }
        Ok(Outcome::Next)
    })))
}

fn store_box(
    turn: &mut Turn<'_>,
    lane: usize,
    map: &TensorMap,
    coordinates: &[i32],
    (block, from): (usize, u32),
) -> Result<(), Finding> {
    let wrong = |what: String| Finding { kind: FaultKind::TensorMap, lane: lane as u32, what };
    map.check_store(coordinates).map_err(|error| wrong(error.to_string()))?;
    let pieces = map.boxes(coordinates, from).map_err(|error| wrong(error.to_string()))?;
    store_pieces(turn, lane, pieces, block)
}

/// Copies pieces of a block's shared memory, for a group; what lies outside of global memory is left out.
fn store_pieces(
    turn: &mut Turn<'_>,
    lane: usize,
    pieces: impl IntoIterator<Item = Piece>,
    block: usize,
) -> Result<(), Finding> {
    let cluster = turn.cluster.number;
    let warp = turn.warp_in_cluster();
    let time = turn.state().groups(Copying::Bulk)[lane].issue();
    let (reads, writes) = (turn.cluster.agents.bulk_groups(warp), turn.cluster.agents.bulk_writes(warp));
    let stamp = |agent| Stamp { agent, kind: AccessKind::Bulk, cluster, time, lanes: 1 << lane, at: turn.at };
    let (read, write) = (stamp(reads), stamp(writes));
    let view = turn.state().view(lane);
    let mut copied = 0;
    for piece in pieces {
        let mut data = vec![0; piece.len as usize];
        for (idx, part) in data.chunks_mut(16).enumerate() {
            let address = u64::from(piece.shared) + 16 * idx as u64;
            let access = turn.access_as(read, 1 << lane, &view);
            let shared = &mut turn.cluster.blocks[block].shared;
            let offset = shared.place(lane as u32, address, part.len() as u32, 16)?;
            let noted = shared.shadow.read_initialised(offset, part.len(), &access);
            part.copy_from_slice(&shared.bytes[offset..offset + part.len()]);
            noted.map_err(|problem| turn.read_problem(lane, &problem))?;
        }
        let Some(inside) = piece.inside else { continue };
        copied += u64::from(inside.len);
        for (global, at, n) in parts(inside.global, inside.len) {
            let (buffer, offset) = turn.cluster.memory.place(lane as u32, global, n, 1)?;
            let place = Pointee::Global(buffer, offset);
            turn.note_write(place, lane, n as usize, &turn.access_as(write, 1 << lane, &view))?;
            let from = (inside.skip + at) as usize;
            turn.bytes_mut(place, n as usize).copy_from_slice(&data[from..from + n as usize]);
        }
    }
    turn.cluster.counters.copied_out += copied;
    Ok(())
}

fn commit(decoder: &mut Decoder<'_>, instruction: &Instruction) -> Result<Run, DecodeError> {
    commit_groups(decoder, instruction, Copying::Bulk)
}

fn wait(decoder: &mut Decoder<'_>, instruction: &Instruction) -> Result<Run, DecodeError> {
    decoder.expect_operands(instruction, 1)?;
    let left = decoder.constant(&instruction.operands[0])? as u32;
    let reads_only = instruction.opcode.ends_with(".read");
    Ok(Run::Turn(Box::new(move |turn| {
        let warp = turn.warp_in_cluster();
        let agents = [turn.cluster.agents.bulk_groups(warp), turn.cluster.agents.bulk_writes(warp)];
        let complete = if reads_only { &agents[..1] } else { &agents[..] };
        let mask = turn.mask;
        turn.state().complete(Copying::Bulk, mask, left, complete);
        Ok(Outcome::Next)
    })))
}

fn prefetch(decoder: &mut Decoder<'_>, instruction: &Instruction) -> Result<Run, DecodeError> {
    decoder.expect_operands(instruction, 1)?;
    let map = At::decode(decoder, &instruction.operands[0])?;
    Ok(Run::Turn(Box::new(move |turn| {
        let addresses = map.get(turn)?;
        for lane in lanes(turn.mask) {
            turn.place(Space::Generic, lane, addresses[lane], 16)?;
        }
        Ok(Outcome::Next)
    })))
}
