//! What rules rewrote, as an artefact keeps it (`rewrites.json`) and as it is printed (`inspect --rewrites`,
//! `opt --explain`).

use std::collections::BTreeMap;
use std::fmt::Write;

use serde::{Deserialize, Serialize};
use skipc_passes::rewrite::explain::{self, Rewritten};

/// The section of an artefact.
pub const SECTION: &str = "rewrites.json";

/// Said once above explanations, for both kinds of numbers stand in them.
pub const LEGEND: &str = "Numbers before a colon are those of the graph that the passes return, \
    all others those of the graph that the rules saw.\n";

/// What was rewritten in one function.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OfFunction {
    /// Its name.
    pub function: String,
    /// The distinct regions that were rewritten.
    pub regions: Vec<Region>,
}

/// A region that was rewritten, once for all places where it differs in names alone.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Region {
    /// Where it lies in the model; names in the proofs are those of the first.
    pub places: Vec<Occurrence>,
    /// How often each rule applies in the proofs.
    pub rules: BTreeMap<String, u64>,
    /// Modelled nanoseconds of the source.
    pub ns_before: u64,
    /// Modelled nanoseconds of the chosen form.
    pub ns_after: u64,
    /// The form for high densities, if it is another.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub runner_up: Option<RunnerUp>,
    /// Whether nothing that the rules find is cheaper; else a limit was reached.
    pub is_cheapest: bool,
    /// Nodes of the e-graph.
    pub e_nodes: usize,
    /// Rounds of the rules.
    pub rounds: usize,
    /// Steps of the search.
    pub search_steps: usize,
    /// Every value that the source does not have.
    pub values: Vec<Value>,
}

/// The form that is cheapest where every row executes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunnerUp {
    /// Its modelled nanoseconds at the densities of the routers.
    pub ns: u64,
    /// From this share of the rows on, in thousandths, it is cheaper than the chosen form.
    pub break_even_permille: u32,
}

/// Where a region lies.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Occurrence {
    /// In the model, such as `blocks.3`.
    pub origin: String,
    /// For each of the region's values its number in the graph after the passes, if it is still there.
    pub results: Vec<Option<usize>>,
}

/// A value that rules made, with its proof.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Value {
    /// The node, over values of the graph that the rules saw.
    pub node: String,
    /// The value of that graph that it is equal to and stands for; parts of larger forms have none.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub equals: Option<String>,
    /// The applications of rules, in order.
    pub steps: Vec<Step>,
    /// The values that are named.
    pub values: Vec<String>,
}

/// An application of a rule.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Step {
    /// The rule.
    pub rule: String,
    /// Its file and line.
    pub place: String,
    /// What it says.
    pub says: String,
    /// The left side as it was found.
    pub before: String,
    /// The right side that it was made equal to.
    pub after: String,
}

/// The regions as they are kept.
pub fn regions(rewrites: &[Rewritten]) -> Vec<Region> {
    rewrites.iter().map(region).collect()
}

fn region(rewritten: &Rewritten) -> Region {
    let place = |location: &explain::Location| Occurrence {
        origin: location.origin.clone(),
        results: location.results.clone(),
    };
    let rules = rewritten.rules.iter().map(|(rule, count)| ((*rule).to_owned(), *count));
    Region {
        places: rewritten.places.iter().map(place).collect(),
        rules: rules.collect(),
        ns_before: rewritten.ns_before,
        ns_after: rewritten.ns_after,
        runner_up: rewritten.runner_up.as_ref().map(|other| RunnerUp {
            ns: other.ns,
            break_even_permille: (other.break_even.0 * 1000.0).round() as u32,
        }),
        is_cheapest: rewritten.is_cheapest,
        e_nodes: rewritten.n_nodes,
        rounds: rewritten.n_rounds,
        search_steps: rewritten.n_steps,
        values: (0..rewritten.chains.len()).filter_map(|chain| value(rewritten, chain, 0)).collect(),
    }
}

/// A value of a region with the names of one of its places.
pub fn value(rewritten: &Rewritten, chain: usize, place: usize) -> Option<Value> {
    let explain::ChainText { node, equals, steps, values } = rewritten.chain(chain, place)?;
    let step = |step: explain::StepText| Step {
        rule: step.rule.to_owned(),
        place: format!("{}:{}", step.place.0, step.place.1),
        says: step.says.to_owned(),
        before: step.before,
        after: step.after,
    };
    Some(Value { node, equals, steps: steps.into_iter().map(step).collect(), values })
}

impl Region {
    /// The region with all that was changed in it.
    pub fn text(&self) -> String {
        let origin = |place: &Occurrence| match place.origin.as_str() {
            "" => "the graph".to_owned(),
            origin => origin.to_owned(),
        };
        let places: Vec<String> = self.places.iter().map(origin).collect();
        let rules: Vec<String> = self.rules.iter().map(|(rule, count)| format!("{rule} × {count}")).collect();
        let saved = 100.0 * (1.0 - self.ns_after as f64 / (self.ns_before.max(1)) as f64);
        let found = match self.is_cheapest {
            true => "nothing that the rules find is cheaper",
            false => "the search was cut short, something cheaper may exist",
        };
        let mut out = format!(
            "{}\n  {}\n  {} ns → {} ns modelled ({saved:.1} % less), {found}\n  {} e-nodes, {} rounds, {} search steps\n",
            places.join(", "),
            rules.join(", "),
            self.ns_before,
            self.ns_after,
            self.e_nodes,
            self.rounds,
            self.search_steps,
        );
        if let Some(RunnerUp { ns, break_even_permille }) = self.runner_up {
            let density = f64::from(break_even_permille) / 1000.0;
            let _ = writeln!(
                out,
                "  runner-up: {ns} ns at these densities, cheaper from density {density:.3} on"
            );
        }
        for group in self.groups() {
            let values: Vec<(String, &Value)> =
                group.into_iter().map(|idx| (self.name(idx), &self.values[idx])).collect();
            let _ = write!(out, "\n{}", text(&values));
        }
        out
    }

    /// What a value is called after the passes, at the place whose names stand in the proofs.
    fn name(&self, idx: usize) -> String {
        let result = self.places.first().and_then(|place| place.results.get(idx).copied().flatten());
        result.map_or("gone since".to_owned(), |number| format!("%{number}"))
    }

    /// The values by their proofs, which several may share: parts of one right side.
    fn groups(&self) -> Vec<Vec<usize>> {
        let mut groups: Vec<Vec<usize>> = Vec::new();
        for (idx, value) in self.values.iter().enumerate() {
            let known = groups.iter_mut().find(|group| self.values[group[0]].steps == value.steps);
            match known {
                Some(group) => group.push(idx),
                None => groups.push(vec![idx]),
            }
        }
        groups
    }
}

/// Values that have the same proof, each with its name.
pub fn text(values: &[(String, &Value)]) -> String {
    let mut out = String::new();
    for (name, value) in values {
        let equals = value.equals.as_ref().map_or(String::new(), |equals| format!("  (stands for {equals})"));
        let _ = writeln!(out, "{name}: {}{equals}", value.node);
    }
    let steps = values.first().map_or(&[][..], |(_, value)| &value.steps);
    for (idx, step) in steps.iter().enumerate() {
        let _ = writeln!(out, "  {}. {}  ({})", idx + 1, step.rule, step.place);
        let _ = writeln!(out, "       {}", step.says);
        let _ = writeln!(out, "     before  {}", step.before);
        let _ = writeln!(out, "     after   {}", step.after);
    }
    let number = |line: &str| {
        let digits = line.trim_start_matches('%').split(|char: char| !char.is_ascii_digit()).next();
        digits.and_then(|digits| digits.parse::<usize>().ok())
    };
    let mut named: Vec<&String> = values.iter().flat_map(|(_, value)| &value.values).collect();
    named.sort_by_key(|line| (number(line), *line));
    named.dedup();
    for (idx, line) in named.into_iter().enumerate() {
        let _ = writeln!(out, "  {}  {line}", if idx == 0 { "where" } else { "     " });
    }
    out
}
