//! Faults planted into correct kernels: each is found in every schedule, as what it is and where it is, and the kernel
//! without it runs clean with the right result.

#[path = "faults/diverge.rs"]
mod diverge;
#[expect(dead_code, reason = "the tests of the matmuls use the rest")]
mod gemm;
#[path = "faults/handover.rs"]
mod handover;
#[path = "faults/hopper.rs"]
mod hopper;
#[path = "faults/hosts.rs"]
mod hosts;
#[path = "faults/matmuls.rs"]
mod matmuls;
#[path = "faults/plain.rs"]
mod plain;
#[path = "faults/plant.rs"]
mod plant;
#[path = "faults/tricky.rs"]
mod tricky;

use std::collections::BTreeMap;

use plant::{Host, Plant};
use skipc_ptx::machine::FaultKind;

/// Schedules that each kernel is run in.
const SCHEDULES: u64 = 8;

/// Schedules of the kernels that are likely to be wrongly accused.
const MANY_SCHEDULES: u64 = 32;

/// Kinds that a fault may have.
const KINDS: [FaultKind; 21] = [
    FaultKind::OutOfBounds,
    FaultKind::Misaligned,
    FaultKind::ReadOnly,
    FaultKind::UninitialisedRegister,
    FaultKind::UninitialisedShared,
    FaultKind::Race,
    FaultKind::RaceBetweenBlocks,
    FaultKind::NonCoherentLoad,
    FaultKind::MissingWait,
    FaultKind::MissingProxyFence,
    FaultKind::MissingMbarrierFence,
    FaultKind::RegisterInFlight,
    FaultKind::MissingWgmmaFence,
    FaultKind::Divergence,
    FaultKind::Deadlock,
    FaultKind::Livelock,
    FaultKind::Descriptor,
    FaultKind::TensorMap,
    FaultKind::Barrier,
    FaultKind::Launch,
    FaultKind::Operand,
];

fn all_plants() -> Vec<Plant> {
    [plain::plants(), hopper::plants(), handover::plants(), matmuls::plants()].concat()
}

/// All that is wrong with these, so that one run shows everything.
fn report(wrong: &[String]) {
    assert!(wrong.is_empty(), "{} wrong:\n{}", wrong.len(), wrong.join("\n"));
}

fn check_hosts(hosts: &[&Host], n_schedules: u64) {
    let runs = hosts.iter().flat_map(|host| (0..n_schedules).map(move |seed| (host, seed)));
    report(&runs.filter_map(|(host, seed)| host.check(seed).err()).collect::<Vec<_>>());
}

fn check_plants(plants: &[Plant]) {
    report(&plants.iter().flat_map(|plant| plant.check(0..SCHEDULES)).collect::<Vec<_>>());
}

#[test]
fn kernels_without_faults_run_clean() {
    check_hosts(&hosts::ALL, SCHEDULES);
}

#[test]
fn faults_of_plain_kernels_are_found() {
    check_plants(&plain::plants());
}

#[test]
fn faults_of_hopper_kernels_are_found() {
    check_plants(&hopper::plants());
}

#[test]
fn faults_between_blocks_that_wait_are_found() {
    check_plants(&handover::plants());
}

#[test]
fn faults_of_generated_matmuls_are_found() {
    check_hosts(&matmuls::HOSTS, 2);
    check_plants(&matmuls::plants());
}

#[test]
fn tricky_kernels_are_not_accused() {
    check_hosts(&tricky::HOSTS, MANY_SCHEDULES);
}

#[test]
fn lanes_that_part_meet_again() {
    diverge::check_all(false).unwrap_or_else(|wrong| panic!("{wrong}"));
}

#[test]
fn lanes_meet_again_though_some_end() {
    diverge::check_all(true).unwrap_or_else(|wrong| panic!("{wrong}"));
}

/// Each kind is planted, and no two plants have one name.
#[test]
fn every_kind_is_planted() {
    let plants = all_plants();
    let mut table: BTreeMap<&str, usize> = KINDS.iter().map(|kind| (kind.name(), 0)).collect();
    for plant in &plants {
        *table.entry(plant.main_kind().map_or("wrong result", FaultKind::name)).or_default() += 1;
    }
    for (kind, n) in &table {
        println!("{n:4} {kind}");
    }
    println!("{:4} in all", plants.len());
    let never: Vec<_> = table.iter().filter(|(_, n)| **n == 0).map(|(kind, _)| *kind).collect();
    assert!(never.is_empty(), "never planted: {never:?}");
    assert!(plants.len() >= 35, "{} plants", plants.len());
    let mut names: Vec<_> = plants.iter().map(|plant| plant.name).collect();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), plants.len(), "two plants with one name");
}
