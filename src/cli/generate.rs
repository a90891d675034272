//! `skipc generate`: continues texts and sequences of tokens, and says what that touched.

use std::io::{IsTerminal, Write};

use serde_json::{Value, json};
use skipc_artifact::program::STEP;
use skipc_plan::traffic::ByMemory;
use skipc_runtime::command::{self, Console, GenerateArgs, Meter};
use skipc_runtime::decode::StepRecord;
use skipc_runtime::decode::metered::Event;

use crate::bench::decode::{Step, Touched};
use crate::error::Error;

pub(super) fn run(args: &GenerateArgs, json: bool, out: &mut dyn Write) -> Result<String, Error> {
    let args = GenerateArgs { json: json || args.json, ..args.clone() };
    let (model, module) = args.load()?;
    let has_steps = module.program().function(STEP).is_some();
    let mut meter = match has_steps {
        true => Some(Bytes::new(Touched::new(&model, module.program())?)),
        false => None,
    };
    let mut err = std::io::stderr();
    let mut console = Console::new(out, &mut err, std::io::stdout().is_terminal());
    let meter = meter.as_mut().map(|meter| meter as &mut dyn Meter);
    command::generate(&args, (&model, &module), meter, &mut console)?;
    Ok(String::new())
}

/// Bytes that steps of continuations touched, drafts included, those of prompts left out.
struct Bytes {
    touched: Touched,
    /// Tokens of these steps, but for those that were taken back.
    tokens: u64,
    /// The last step was one of these.
    counts: bool,
    sum: ByMemory,
    /// What it would have been if every router had executed every token of the same steps.
    dense: ByMemory,
    executed: u64,
    decided: u64,
}

impl Bytes {
    fn new(touched: Touched) -> Bytes {
        let (sum, dense) = (ByMemory::default(), ByMemory::default());
        Bytes { touched, tokens: 0, counts: false, sum, dense, executed: 0, decided: 0 }
    }

    /// Bytes a token: of weights, of caches, and of both if all had executed.
    fn a_token(&self) -> [f64; 3] {
        let dense = self.dense.constants + self.dense.states;
        [self.sum.constants, self.sum.states, dense].map(|bytes| bytes as f64 / self.tokens.max(1) as f64)
    }

    fn step(&mut self, record: &StepRecord) {
        let StepRecord { tokens, logit_rows, seen, executed, computed } = record;
        self.executed += executed.iter().map(|count| u64::from(*count)).sum::<u64>();
        self.decided += u64::from(*tokens) * executed.len() as u64;
        self.counts = tokens == logit_rows && *tokens > 0;
        if !self.counts {
            return;
        }
        let seen = (seen / u64::from(*tokens)) as u32;
        let share = self.executed as f64 / self.decided.max(1) as f64;
        let kept = (f64::from(seen) * share).round() as u32;
        let step = Step { tokens: *tokens, logit_rows: *logit_rows, executed, computed, seen, kept };
        add(&mut self.sum, self.touched.bytes(&step));
        let all = vec![*tokens; executed.len()];
        add(
            &mut self.dense,
            self.touched.bytes(&Step { executed: &all, computed: &all, kept: seen, ..step }),
        );
        self.tokens += u64::from(*tokens);
    }
}

fn add(sum: &mut ByMemory, bytes: ByMemory) {
    sum.constants += bytes.constants;
    sum.states += bytes.states;
    sum.arena += bytes.arena;
}

impl Meter for Bytes {
    fn note(&mut self, event: &Event) {
        match event {
            Event::Ran(record) => self.step(record),
            Event::TookBack(tokens) if self.counts => {
                self.tokens = self.tokens.saturating_sub(u64::from(*tokens));
            }
            Event::TookBack(_) => {}
        }
    }

    fn json(&self) -> (&'static str, Value) {
        let [weights, caches, all] = self.a_token();
        ("bytes_a_token", json!({"weights": weights, "caches": caches, "if_all_executed": all}))
    }

    fn text(&self) -> Option<String> {
        if self.tokens == 0 {
            return None;
        }
        let [weights, caches, all] = self.a_token().map(|bytes| bytes / 1e6);
        let touched = weights + caches;
        Some(format!(
            "a new token touched {touched:.2} MB, {caches:.2} of it in caches, instead of {all:.2} MB if all executed"
        ))
    }
}
