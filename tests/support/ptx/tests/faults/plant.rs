//! A correct kernel, and a fault planted into it by small edits of its text.

use std::ops::Range;
use std::sync::Arc;

use skipc_ptx::machine::{Fault, FaultKind, Launch, Memory, Program, run};

/// A launch of a kernel, with what its buffers hold afterwards.
pub(crate) struct Setup {
    pub launch: Launch,
    pub memory: Memory,
    /// Index of a buffer, its bytes.
    pub expected: Vec<(usize, Vec<u8>)>,
}

/// How a kernel is run.
#[derive(Clone, Copy)]
pub(crate) enum Runner {
    /// As set up.
    Launch(fn() -> Setup),
    /// By a function of text and schedule, which says whether the result is right.
    Matmul(fn(&str, u64) -> Result<bool, Box<Fault>>),
}

/// A correct kernel.
pub(crate) struct Host {
    /// The kernel in the text.
    pub name: &'static str,
    pub text: &'static str,
    pub runner: Runner,
}

impl Host {
    /// Runs a text in place of the host's own; says whether the result is right.
    fn run(&self, text: &str, seed: u64, change: Option<fn(&mut Setup)>) -> Result<bool, Box<Fault>> {
        let setup = match self.runner {
            Runner::Matmul(matmul) => return matmul(text, seed),
            Runner::Launch(setup) => setup,
        };
        let mut setup = setup();
        if let Some(change) = change {
            change(&mut setup);
        }
        let program = Program::load(text, self.name).unwrap_or_else(|error| panic!("{}: {error}", self.name));
        let launch = Launch { seed, ..setup.launch };
        run(&Arc::new(program), &launch, &mut setup.memory)?;
        let buffers = setup.memory.buffers();
        Ok(setup.expected.iter().all(|(idx, bytes)| buffers[*idx].bytes == *bytes))
    }

    /// Runs it as it is.
    pub(crate) fn check(&self, seed: u64) -> Result<(), String> {
        match self.run(self.text, seed, None) {
            Ok(true) => Ok(()),
            Ok(false) => Err(format!("{}, schedule {seed}: a wrong result", self.name)),
            Err(fault) => Err(format!("{}: a false alarm: {fault}", self.name)),
        }
    }
}

/// Any line: where a fault is of no one instruction, but one has to be named.
pub(crate) const ANYWHERE: &str = "\n";

/// How a fault may show.
#[derive(Clone, Copy)]
struct Sign {
    kind: FaultKind,
    /// Part of the only line of the text that may be named; empty if none is.
    at: &'static str,
    /// Part of the message.
    says: &'static str,
}

/// A fault, in a kernel that is correct without it.
#[derive(Clone)]
pub(crate) struct Plant {
    /// What is wrong.
    pub name: &'static str,
    host: &'static Host,
    edits: Vec<(&'static str, &'static str)>,
    change: Option<fn(&mut Setup)>,
    /// One of these is found; if empty, only the result is wrong.
    signs: Vec<Sign>,
    /// Schedules in which it does not show.
    hidden: &'static [u64],
}

impl Plant {
    /// A fault that only makes the result wrong, until [`Plant::found`] says otherwise. What is replaced stands in the
    /// text once.
    pub(crate) fn new(
        name: &'static str,
        host: &'static Host,
        edits: &[(&'static str, &'static str)],
    ) -> Self {
        let (signs, edits) = (Vec::new(), edits.to_vec());
        Self { name, host, edits, change: None, signs, hidden: &[] }
    }

    /// Changes the launch as well.
    pub(crate) fn with(self, change: fn(&mut Setup)) -> Self {
        Self { change: Some(change), ..self }
    }

    /// It is found as this. Said more than once where the schedule decides which of two accesses comes last.
    pub(crate) fn found(mut self, kind: FaultKind, at: &'static str, says: &'static str) -> Self {
        self.signs.push(Sign { kind, at, says });
        self
    }

    /// It does not show in these schedules.
    pub(crate) fn hidden_in(self, hidden: &'static [u64]) -> Self {
        Self { hidden, ..self }
    }

    /// The kind as which it is found; none if only the result is wrong.
    pub(crate) fn main_kind(&self) -> Option<FaultKind> {
        self.signs.first().map(|sign| sign.kind)
    }

    fn text(&self) -> Result<String, String> {
        let mut text = self.host.text.to_owned();
        for (from, to) in &self.edits {
            let n = text.matches(from).count();
            if n != 1 {
                return Err(format!("{}: `{from}` stands in {} {n} times", self.name, self.host.name));
            }
            text = text.replacen(from, to, 1);
        }
        Ok(text)
    }

    /// Runs it, and says what is not as it has to be.
    pub(crate) fn check(&self, seeds: Range<u64>) -> Vec<String> {
        let text = match self.text() {
            Ok(text) => text,
            Err(wrong) => return vec![wrong],
        };
        let wrong = |seed| match self.host.run(&text, seed, self.change) {
            Ok(true) if self.hidden.contains(&seed) => None,
            Ok(right) => match (right, self.signs.is_empty()) {
                (false, true) => None,
                (true, _) => Some(format!("{}, schedule {seed}: not found", self.name)),
                (false, false) => Some(format!("{}, schedule {seed}: only a wrong result", self.name)),
            },
            Err(fault) => self.mismatch(&text, &fault),
        };
        seeds.filter_map(wrong).collect()
    }

    fn mismatch(&self, text: &str, fault: &Fault) -> Option<String> {
        for sign in self.signs.iter().filter(|sign| sign.kind == fault.kind && fault.what.contains(sign.says))
        {
            if sign.at == ANYWHERE {
                return None;
            }
            let mut lines =
                text.lines().zip(1_u32..).filter(|(line, _)| !sign.at.is_empty() && line.contains(sign.at));
            let place = (lines.next().map_or(0, |(_, number)| number), lines.next());
            if let (_, Some((_, other))) = place {
                return Some(format!("{}: `{}` stands in line {other} too", self.name, sign.at));
            }
            if place.0 == fault.line {
                return None;
            }
        }
        Some(format!("{}: found as {fault}", self.name))
    }
}
