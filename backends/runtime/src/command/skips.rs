//! Text in colours that say how many routers executed each of its tokens.

use std::collections::VecDeque;
use std::fmt::Write as _;

use super::console::Console;
use crate::choices;
use crate::error::Error;

/// Colours of the 256 of a terminal, from few routers to all.
const RAMP: [u8; 6] = [33, 37, 71, 178, 208, 196];

/// Characters of the longest bar of the legend.
const BAR: u64 = 40;

/// Prints each token once it has run, which is a step after it was drawn.
#[derive(Debug, Default)]
pub(super) struct Skips {
    /// Texts of tokens that are not printed yet.
    texts: VecDeque<String>,
    /// How many routers executed the first of these.
    levels: VecDeque<usize>,
    /// How many tokens so many routers executed.
    histogram: Vec<u64>,
}

impl Skips {
    /// Takes the text of the next token.
    pub(super) fn push(&mut self, text: String) {
        self.texts.push_back(text);
    }

    /// Takes decisions about the next tokens, `[routers][tokens]`.
    pub(super) fn ran(&mut self, gates: &[Vec<u8>]) {
        self.histogram.resize(gates.len() + 1, 0);
        for at in 0..gates.first().map_or(0, Vec::len) {
            let level = gates.iter().filter(|gate| gate[at] != 0).count();
            self.histogram[level] += 1;
            self.levels.push_back(level);
        }
    }

    /// Prints what has run.
    ///
    /// # Errors
    ///
    /// What the console says.
    pub(super) fn print(&mut self, console: &mut Console<'_>) -> Result<(), Error> {
        while !self.texts.is_empty()
            && let Some(level) = self.levels.pop_front()
        {
            let text = self.texts.pop_front().unwrap_or_default();
            match console.has_colours() && !text.is_empty() {
                true => {
                    console.print(&format!("\x1b[38;5;{}m", self.colour(level)))?;
                    console.text(&text)?;
                    console.print("\x1b[0m")?;
                }
                false => console.text(&text)?,
            }
        }
        Ok(())
    }

    /// Prints the rest, which never ran.
    ///
    /// # Errors
    ///
    /// What the console says.
    pub(super) fn finish(&mut self, console: &mut Console<'_>) -> Result<(), Error> {
        self.print(console)?;
        let rest: String = self.texts.drain(..).collect();
        console.text(&rest)
    }

    /// Says what the colours mean, and how many tokens have each; and how many of them took each choice, by layer of experts.
    pub(super) fn legend(&self, console: &mut Console<'_>, loads: &[Vec<u64>]) {
        let routers = self.histogram.len().saturating_sub(1);
        let most = self.histogram.iter().copied().max().unwrap_or(0).max(1);
        let mut legend = String::new();
        for (level, count) in self.histogram.iter().enumerate().filter(|(_, count)| **count > 0) {
            let bar = "█".repeat((count * BAR).div_ceil(most) as usize);
            let bar = match console.has_colours() {
                true => format!("\x1b[38;5;{}m{bar}\x1b[0m", self.colour(level)),
                false => bar,
            };
            let _ = writeln!(legend, "{level:3} of {routers} routers executed  {bar} {count}");
        }
        for (layer, loads) in loads.iter().enumerate() {
            let _ = writeln!(legend, "experts {layer}  {}", choices::balance(loads));
        }
        console.say(&legend);
    }

    fn colour(&self, level: usize) -> u8 {
        let routers = self.histogram.len().saturating_sub(1).max(1);
        RAMP[(level * (RAMP.len() - 1)).div_ceil(routers).min(RAMP.len() - 1)]
    }
}
