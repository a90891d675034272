//! What `--max-new-tokens` of a run prints: rows continued by their likeliest tokens.

use std::io::Write;
use std::ops::ControlFlow;

use super::printer::Printer;
use crate::batch::Decisions;
use crate::decode;
use crate::error::Error;
use crate::generate::{Continuation, Row, greedy_row};
use crate::inputs::Sequences;
use crate::model::Model;
use crate::session::Session;

/// A run that continues rows.
pub(super) struct Greedy<'a, 'o> {
    pub(super) model: &'a Model,
    pub(super) session: &'a Session,
    /// New tokens of each row, at most.
    pub(super) count: u32,
    /// One summary at the end in place of texts and ids as they come.
    pub(super) json: bool,
    pub(super) out: &'a mut Printer<'o>,
    /// Takes what is no part of the result.
    pub(super) notes: &'a mut dyn Write,
}

impl Greedy<'_, '_> {
    /// Prints the prompt, whose bytes are `tokens`, and what follows, byte by byte as it comes.
    pub(super) fn text(mut self, prompt: &str, tokens: &[u32]) -> Result<Decisions, Error> {
        let row = Row { sequence: 0, tokens };
        let mut decoder = decode::of_slots(self.session.module(), self.model, 1)?;
        decoder.report_choices();
        row.check(decoder.limits())?;
        let (out, streams) = (&mut *self.out, !self.json);
        if streams {
            out.print(format_args!("{prompt}"))?;
        }
        let mut written = Ok(());
        let new = greedy_row(decoder.as_mut(), row, self.count, &mut |token| {
            if streams {
                // Several bytes may make one character.
                written = out.write(&[byte(token)]);
            }
            if written.is_err() || out.is_closed() {
                ControlFlow::Break(())
            } else {
                ControlFlow::Continue(())
            }
        })?;
        written?;
        if streams {
            out.print(format_args!("\n"))?;
        } else {
            let whole: Vec<u8> = prompt.bytes().chain(new.tokens.iter().map(|token| byte(*token))).collect();
            let mut summary = summary(row, &new);
            // The ids beside it say which bytes an unfinished character has.
            summary["text"] = String::from_utf8_lossy(&whole).into();
            self.print_json(&[summary])?;
        }
        self.say_end(&new, "it");
        Ok(self.decisions(new))
    }

    /// Prints one line of new token ids for each row; an empty row has nothing that could be continued, and an empty line.
    pub(super) fn rows(mut self, sequences: &Sequences) -> Result<Decisions, Error> {
        let rows = sequences.ids().enumerate().map(|(sequence, tokens)| Row { sequence, tokens });
        let rows: Vec<Row<'_>> = rows.collect();
        let mut decoder = decode::of_slots(self.session.module(), self.model, 1)?;
        decoder.report_choices();
        // Before anything is printed.
        rows.iter().try_for_each(|row| row.check(decoder.limits()))?;
        let (mut decisions, mut summaries) = (Decisions::default(), Vec::new());
        for row in rows {
            if self.out.is_closed() {
                break;
            }
            let new = match row.tokens.is_empty() {
                true => Continuation::default(),
                false => greedy_row(decoder.as_mut(), row, self.count, &mut |_| ControlFlow::Continue(()))?,
            };
            if self.json {
                summaries.push(summary(row, &new));
            } else {
                let words: Vec<_> = new.tokens.iter().map(ToString::to_string).collect();
                self.out.print(format_args!("{}\n", words.join(" ")))?;
            }
            self.say_end(&new, &format!("row {}", row.sequence));
            if !row.tokens.is_empty() {
                decisions.extend(self.decisions(new));
            }
        }
        if self.json {
            self.print_json(&summaries)?;
        }
        Ok(decisions)
    }

    fn decisions(&self, new: Continuation) -> Decisions {
        Decisions::new(self.session.function(), new.gates, &new.overflow, new.choices)
    }

    fn print_json(&mut self, sequences: &[serde_json::Value]) -> Result<(), Error> {
        let summary = serde_json::json!({"device": self.session.describe(), "sequences": sequences});
        self.out.print(format_args!("{summary}\n"))
    }

    /// Says that there was no room for more. Where nobody can read it, the run is none the worse.
    fn say_end(&mut self, new: &Continuation, row: &str) {
        if new.at_last_position && !self.json {
            let _ = writeln!(self.notes, "{row} ends at the model's last position");
        }
    }
}

/// What is said of a row in JSON, in the words of `skipc generate`.
fn summary(row: Row<'_>, new: &Continuation) -> serde_json::Value {
    serde_json::json!({
        "prompt_tokens": row.tokens.len(),
        "tokens": new.tokens,
        "at_last_position": new.at_last_position,
    })
}

/// The byte that a token of a model of bytes is.
fn byte(token: u32) -> u8 {
    u8::try_from(token).unwrap_or(b'?')
}
