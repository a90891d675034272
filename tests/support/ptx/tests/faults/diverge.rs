//! Random structured programs: lanes part in branches and loops in many ways. All that have not ended have to meet at each
//! barrier of the outermost level, and each has to compute what it would alone.
//!
//! Lanes end at the outermost level only. Where one may end inside of a branch, the paths of that branch meet at the end of
//! the kernel and nowhere before (`skipc_ptx::flow`), and a barrier behind it is a divergence to the machine.

use std::fmt::Write;
use std::sync::Arc;

use skipc_ptx::machine::{Arg, Memory, Program, run};

use super::hosts::{SENTINEL, add, launch, words};

/// Programs, each run in as many schedules.
const PROGRAMS: u64 = 150;
const SCHEDULES: u64 = 4;

/// Threads of the block.
const THREADS: u32 = 64;

/// Deepest nesting.
const DEPTH: u32 = 4;

enum Statement {
    /// Adds a number, with a factor, so that order matters.
    Step(u32),
    /// By a bit of the lane's hash.
    If(u32, Vec<Statement>, Vec<Statement>),
    /// As often as two bits of the hash say, and once more.
    Loop(u32, Vec<Statement>),
    /// Goes out of the innermost loop or branch, by bits of the hash.
    Leave(u32),
    /// Ends the lane, by four bits of the hash.
    End(u32),
    /// A barrier of the block; at the outermost level only.
    Barrier,
}

/// How a list of statements was left.
#[derive(PartialEq)]
enum Exit {
    Through,
    Left,
    Ended,
}

struct Random(u64);

impl Random {
    fn below(&mut self, n: u32) -> u32 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        ((self.0 >> 33) % u64::from(n)) as u32
    }
}

fn list(random: &mut Random, depth: u32, ends: bool) -> Vec<Statement> {
    let n = 1 + random.below(3);
    (0..n).map(|_| statement(random, depth, ends)).collect()
}

fn statement(random: &mut Random, depth: u32, ends: bool) -> Statement {
    let bit = random.below(28);
    let choice = if depth == DEPTH { 0 } else { random.below(7) };
    match choice {
        1 | 2 => Statement::If(bit, list(random, depth + 1, ends), list(random, depth + 1, ends)),
        3 | 4 => Statement::Loop(bit, list(random, depth + 1, ends)),
        5 if depth > 0 => Statement::Leave(bit),
        6 if ends && depth == 0 => Statement::End(bit),
        _ => Statement::Step(random.below(1000)),
    }
}

fn hash(t: u32) -> u32 {
    t.wrapping_mul(0x9E37_79B9) ^ 0x5A5A_1234
}

/// What one lane computes.
fn alone(statements: &[Statement], h: u32, x: &mut u32) -> Exit {
    for statement in statements {
        match statement {
            Statement::Step(number) => *x = x.wrapping_mul(3).wrapping_add(*number),
            Statement::Barrier => {}
            Statement::Leave(bit) if h >> bit & 3 == 3 => return Exit::Left,
            Statement::End(bit) if h >> bit & 15 == 15 => return Exit::Ended,
            Statement::Leave(_) | Statement::End(_) => {}
            Statement::If(bit, then, other) => {
                if alone(if h >> bit & 1 == 1 { then } else { other }, h, x) == Exit::Ended {
                    return Exit::Ended;
                }
            }
            Statement::Loop(bit, body) => {
                for _ in 0..=(h >> bit & 3) {
                    match alone(body, h, x) {
                        Exit::Ended => return Exit::Ended,
                        Exit::Left => break,
                        Exit::Through => {}
                    }
                }
            }
        }
    }
    Exit::Through
}

#[derive(Default)]
struct Text {
    out: String,
    n_labels: u32,
}

impl Text {
    fn line(&mut self, line: &str) {
        writeln!(self.out, "\t{line}").expect("a string takes all");
    }

    fn label(&mut self) -> String {
        self.n_labels += 1;
        format!("L{}", self.n_labels)
    }

    fn place(&mut self, label: &str) {
        writeln!(self.out, "{label}:").expect("a string takes all");
    }

    /// `p` says whether all bits of `mask` at `bit` of the hash are set.
    fn test(&mut self, bit: u32, mask: u32) {
        self.line(&format!("shr.u32 y, h, {bit};"));
        self.line(&format!("and.b32 y, y, {mask};"));
        self.line(&format!("setp.eq.s32 p, y, {mask};"));
    }

    /// Statements at a depth, that leave to a label.
    fn list(&mut self, statements: &[Statement], depth: u32, out: &str) {
        for statement in statements {
            match statement {
                Statement::Step(number) => self.line(&format!("mad.lo.s32 x, x, 3, {number};")),
                Statement::Barrier => self.line("bar.sync 0;"),
                Statement::Leave(bit) => {
                    self.test(*bit, 3);
                    self.line(&format!("@p bra {out};"));
                }
                Statement::End(bit) => {
                    self.test(*bit, 15);
                    self.line("@p ret;");
                }
                Statement::If(bit, then, other) => {
                    let (no, end) = (self.label(), self.label());
                    self.test(*bit, 1);
                    self.line(&format!("@!p bra {no};"));
                    self.list(then, depth + 1, &end);
                    self.line(&format!("bra {end};"));
                    self.place(&no);
                    self.list(other, depth + 1, &end);
                    self.place(&end);
                }
                Statement::Loop(bit, body) => {
                    let (head, end) = (self.label(), self.label());
                    self.line(&format!("shr.u32 n{depth}, h, {bit};"));
                    self.line(&format!("and.b32 n{depth}, n{depth}, 3;"));
                    self.place(&head);
                    self.list(body, depth + 1, &end);
                    self.line(&format!("add.s32 n{depth}, n{depth}, -1;"));
                    self.line(&format!("setp.ge.s32 p, n{depth}, 0;"));
                    self.line(&format!("@p bra {head};"));
                    self.place(&end);
                }
            }
        }
    }
}

fn kernel(statements: &[Statement]) -> String {
    let mut text = Text::default();
    text.line("mov.u32 t, %tid.x;");
    text.line("mul.lo.s32 h, t, 0x9E3779B9;");
    text.line("xor.b32 h, h, 0x5A5A1234;");
    text.line("mov.b32 x, 0;");
    text.list(statements, 0, "NOWHERE");
    text.line("ld.param.u64 to, [p_to];");
    text.line("mul.wide.u32 wide, t, 4;");
    text.line("add.s64 to, to, wide;");
    text.line("st.global.u32 [to], x;");
    text.line("ret;");
    format!(
        ".version 8.0\n.target sm_80\n.address_size 64\n.visible .entry random(.param .u64 p_to)\n.reqntid {THREADS}, 1, 1\n{{\n\
         \t.reg .pred p;\n\t.reg .b32 t, h, x, y, n<8>;\n\t.reg .b64 to, wide;\n{}}}\n",
        text.out
    )
}

/// What is wrong with a random program.
fn check(number: u64, ends: bool) -> Result<(), String> {
    let mut random = Random(number * 77 + 1);
    let mut statements = Vec::new();
    for _ in 0..4 {
        statements.push(statement(&mut random, 0, ends));
        statements.push(Statement::Barrier);
    }
    let text = kernel(&statements);
    let program = Arc::new(Program::load(&text, "random").map_err(|error| format!("{error}\n{text}"))?);
    let alone = |t: u32| {
        let mut x = 0;
        let exit = alone(&statements, hash(t), &mut x);
        if exit == Exit::Ended { SENTINEL } else { x }
    };
    let expected = words((0..THREADS).map(alone));
    for seed in 0..SCHEDULES {
        let mut memory = Memory::default();
        let to = add(&mut memory, "to", words([SENTINEL; THREADS as usize]), true);
        let mut launch = launch(1, THREADS, vec![Arg::U64(to)]);
        launch.seed = seed;
        run(&program, &launch, &mut memory).map_err(|fault| format!("program {number}: {fault}\n{text}"))?;
        if memory.buffers()[0].bytes != expected {
            return Err(format!("program {number}, schedule {seed}: a wrong result\n{text}"));
        }
    }
    Ok(())
}

/// The first program that goes wrong, of those in which lanes end early or of the others.
pub(crate) fn check_all(ends: bool) -> Result<(), String> {
    (0..PROGRAMS).try_for_each(|number| check(number, ends))
}
