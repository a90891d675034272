//! Barriers for threads and fences (PTX ISA sections 9.7.13.1 to 9.7.13.4).

use std::rc::Rc;

use crate::machine::Run;
use crate::machine::decode::{DecodeError, Decoder, Form, Kind};
use crate::machine::{FaultKind, Outcome, Scope, Trouble, Turn, View, Wait};
use crate::registers::{Mask, Source32, WARP, lanes};
use crate::syntax::Instruction;

pub(crate) const FORMS: &[Form] = &[
    Form { syntax: "{bar.sync,barrier.sync.aligned}", section: "9.7.13.1", kind: Kind::Sync, decode: sync },
    Form {
        syntax: "{bar.arrive,barrier.arrive.aligned}",
        section: "9.7.13.1",
        kind: Kind::Sync,
        decode: arrive,
    },
    Form { syntax: "bar.warp.sync", section: "9.7.13.2", kind: Kind::Sync, decode: warp_sync },
    Form {
        syntax: "barrier.cluster.arrive.{release,}.{aligned,}",
        section: "9.7.13.3",
        kind: Kind::Sync,
        decode: cluster_arrive,
    },
    Form {
        syntax: "barrier.cluster.wait.{acquire,}.{aligned,}",
        section: "9.7.13.3",
        kind: Kind::Sync,
        decode: cluster_wait,
    },
    Form {
        syntax: "fence.proxy.async.{shared::cta,shared::cluster,global,}",
        section: "9.7.13.4",
        kind: Kind::Sync,
        decode: fence_proxy_async,
    },
    Form {
        syntax: "fence.mbarrier_init.release.cluster",
        section: "9.7.13.4",
        kind: Kind::Sync,
        decode: fence_mbarrier_init,
    },
    Form {
        syntax: "fence.{sc,acq_rel,acquire,release,}.{cta,cluster,gpu,sys}",
        section: "9.7.13.4",
        kind: Kind::Sync,
        decode: fence,
    },
    Form { syntax: "membar.{cta,gl,sys}", section: "9.7.13.4", kind: Kind::Sync, decode: fence },
];

/// Barrier and number of threads.
fn operands(
    decoder: &mut Decoder<'_>,
    instruction: &Instruction,
) -> Result<(Source32, Option<Source32>), DecodeError> {
    match instruction.operands.as_slice() {
        [barrier] => Ok((decoder.source32(barrier)?, None)),
        [barrier, threads] => Ok((decoder.source32(barrier)?, Some(decoder.source32(threads)?))),
        other => Err(decoder.error(format!("{} operands, 1 or 2 wanted", other.len()))),
    }
}

fn sync(decoder: &mut Decoder<'_>, instruction: &Instruction) -> Result<Run, DecodeError> {
    let (barrier, threads) = operands(decoder, instruction)?;
    Ok(Run::Turn(Box::new(move |turn| reach(turn, barrier, threads, true))))
}

fn arrive(decoder: &mut Decoder<'_>, instruction: &Instruction) -> Result<Run, DecodeError> {
    let (barrier, threads) = operands(decoder, instruction)?;
    if threads.is_none() {
        return Err(decoder.error("the number of threads is missing"));
    }
    Ok(Run::Turn(Box::new(move |turn| reach(turn, barrier, threads, false))))
}

/// One value for all executing lanes.
fn uniform(turn: &mut Turn<'_>, source: Source32, what: &str) -> Result<u32, Trouble> {
    let mask = turn.mask;
    let values = turn.registers().get32(source, mask)?;
    let first = values[mask.trailing_zeros() as usize];
    if lanes(mask).any(|lane| values[lane] != first) {
        return Err(turn
            .finding(FaultKind::Barrier, format!("lanes of a warp name different {what}"))
            .into());
    }
    Ok(first)
}

fn reach(
    turn: &mut Turn<'_>,
    barrier: Source32,
    threads: Option<Source32>,
    waits: bool,
) -> Result<Outcome, Trouble> {
    all_lanes(turn)?;
    let id = uniform(turn, barrier, "barriers")?;
    let all = (turn.cluster.n_warps() * WARP) as u32;
    let expected = match threads {
        Some(threads) => uniform(turn, threads, "numbers of threads")?,
        None => all,
    };
    if id >= 16 {
        return Err(turn.finding(FaultKind::Barrier, format!("barrier {id}; there are 0 to 15")).into());
    }
    if expected == 0 || !expected.is_multiple_of(WARP as u32) || expected > all {
        let what = format!("{expected} threads; a multiple of 32 up to the {all} of the block is wanted");
        return Err(turn.finding(FaultKind::Barrier, what).into());
    }
    let view = turn.release();
    let block = turn.block;
    let state = &mut turn.cluster.blocks[block].barriers[id as usize];
    if state.arrived > 0 && state.expected != expected {
        let what =
            format!("barrier {id} is waited for with {expected} threads, by others with {}", state.expected);
        return Err(turn.finding(FaultKind::Barrier, what).into());
    }
    state.expected = expected;
    state.arrived += WARP as u32;
    state.view.join(&view);
    turn.cluster.counters.barriers += 1;
    if state.arrived < expected {
        return Ok(if waits { Outcome::Wait(Wait::Barrier(id)) } else { Outcome::Next });
    }
    let view = Rc::new(std::mem::take(&mut state.view));
    state.arrived = 0;
    for warp in &mut turn.cluster.blocks[block].warps {
        let waiting = warp.fragments.iter().filter(|fragment| fragment.wait == Some(Wait::Barrier(id)));
        let mask = waiting.fold(0, |mask, fragment| mask | fragment.mask);
        if mask != 0 {
            warp.share(mask, &view);
        }
    }
    if waits {
        let mask = turn.mask;
        turn.state().share(mask, &view);
    }
    turn.cluster.wake(block..block + 1, false, |wait| wait == Wait::Barrier(id));
    Ok(Outcome::Next)
}

/// Fails unless all lanes of the warp that have not ended execute the instruction together, as `.aligned` asks.
pub(crate) fn all_lanes(turn: &mut Turn<'_>) -> Result<(), Trouble> {
    let missing: Mask = turn.registers().alive & !turn.mask;
    if missing == 0 {
        return Ok(());
    }
    let what = format!("lanes {missing:#010x} of the warp do not execute it with the others");
    Err(turn.finding(FaultKind::Divergence, what).into())
}

fn warp_sync(decoder: &mut Decoder<'_>, instruction: &Instruction) -> Result<Run, DecodeError> {
    decoder.expect_operands(instruction, 1)?;
    let members = decoder.source32(&instruction.operands[0])?;
    Ok(Run::Turn(Box::new(move |turn| {
        let members = uniform(turn, members, "members")?;
        let wanted = members & turn.registers().alive;
        if wanted & !turn.mask != 0 || turn.mask & !members != 0 {
            let what = format!("members {members:#010x}, executing {:#010x}", turn.mask);
            return Err(turn.finding(FaultKind::Divergence, what).into());
        }
        let view = turn.release();
        turn.acquire(&view);
        Ok(Outcome::Next)
    })))
}

fn cluster_arrive(decoder: &mut Decoder<'_>, instruction: &Instruction) -> Result<Run, DecodeError> {
    decoder.expect_operands(instruction, 0)?;
    let aligned = instruction.opcode.ends_with(".aligned");
    Ok(Run::Turn(Box::new(move |turn| {
        if aligned {
            all_lanes(turn)?;
        }
        let view = turn.release();
        let mask = turn.mask;
        let all = turn.cluster.blocks.len() as u32 * turn.cluster.shape.n_threads;
        let generation = turn.cluster.barrier.generation;
        let state = turn.state();
        if let Some(lane) = lanes(mask).find(|lane| state.cluster_arrivals[*lane] > generation) {
            let what = format!("lane {lane} arrives twice without barrier.cluster.wait between");
            return Err(turn.finding(FaultKind::Barrier, what).into());
        }
        lanes(mask).for_each(|lane| state.cluster_arrivals[lane] = generation + 1);
        let barrier = &mut turn.cluster.barrier;
        barrier.view.join(&view);
        barrier.arrived += mask.count_ones();
        if barrier.arrived == all {
            (barrier.arrived, barrier.generation) = (0, barrier.generation + 1);
            barrier.completed = std::mem::take(&mut barrier.view);
            let n = turn.cluster.blocks.len();
            turn.cluster.wake(0..n, true, |wait| wait == Wait::Cluster);
        }
        Ok(Outcome::Next)
    })))
}

fn cluster_wait(decoder: &mut Decoder<'_>, instruction: &Instruction) -> Result<Run, DecodeError> {
    decoder.expect_operands(instruction, 0)?;
    let aligned = instruction.opcode.ends_with(".aligned");
    Ok(Run::Turn(Box::new(move |turn| {
        if aligned {
            all_lanes(turn)?;
        }
        let generation = turn.cluster.barrier.generation;
        let mask = turn.mask;
        let state = turn.state();
        if lanes(mask).any(|lane| state.cluster_arrivals[lane] > generation) {
            return Ok(Outcome::Wait(Wait::Cluster));
        }
        let view = turn.cluster.barrier.completed.clone();
        turn.acquire(&view);
        Ok(Outcome::Next)
    })))
}

fn fence_proxy_async(decoder: &mut Decoder<'_>, instruction: &Instruction) -> Result<Run, DecodeError> {
    decoder.expect_operands(instruction, 0)?;
    Ok(Run::Turn(Box::new(|turn| {
        let agent = turn.cluster.agents.warp(turn.warp_in_cluster());
        let mask = turn.mask;
        let state = turn.state();
        let time = state.time;
        state.learn(mask, |lanes, view| {
            let View { known, fenced } = view;
            fenced.join(known);
            fenced.raise(agent, lanes, time);
        });
        state.time += 1;
        fence_inits(turn);
        Ok(Outcome::Next)
    })))
}

fn fence_mbarrier_init(decoder: &mut Decoder<'_>, instruction: &Instruction) -> Result<Run, DecodeError> {
    decoder.expect_operands(instruction, 0)?;
    Ok(Run::Turn(Box::new(|turn| {
        fence_inits(turn);
        Ok(Outcome::Next)
    })))
}

/// A fence for memory; `membar` is `fence.sc`, and `fence` without more `fence.acq_rel`.
fn fence(decoder: &mut Decoder<'_>, instruction: &Instruction) -> Result<Run, DecodeError> {
    decoder.expect_operands(instruction, 0)?;
    let opcode = &instruction.opcode;
    let has = |word: &str| opcode.split('.').any(|part| part == word);
    let (acquires, releases) = (!has("release"), !has("acquire"));
    let scope = Scope::of_opcode(opcode);
    Ok(Run::Turn(Box::new(move |turn| {
        turn.fence(scope, acquires, releases);
        Ok(Outcome::Next)
    })))
}

/// Makes the mbarriers that the executing threads initialised ready for the async proxy and for other threads.
fn fence_inits(turn: &mut Turn<'_>) {
    let agent = turn.cluster.agents.warp(turn.warp_in_cluster());
    let mask = turn.mask;
    for block in &mut turn.cluster.blocks {
        for mbarrier in block.shared.mbarriers.values_mut() {
            if mbarrier.init.agent == agent && mbarrier.init.lanes & mask != 0 {
                mbarrier.fenced = true;
            }
        }
    }
}
