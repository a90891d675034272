//! Decisions as a page: the text by depth, a map of tokens and routers, and the figures beside those of chance.

use std::fmt::Write;

use skipc_runtime::Trace;
use skipc_runtime::choices;
use skipc_runtime::words::counted;

use super::{Capacity, Comparison, LONGEST, Statistics};
use crate::report::html::{escaped, page, table};

/// Tokens that are drawn; figures are of all.
const DRAWN: usize = 2048;

/// What a page shows besides decisions.
pub struct About<'a> {
    /// Where the decisions come from, in words.
    pub source: String,
    /// What each router decides about; as many as there are routers, or none.
    pub routers: Vec<String>,
    /// The layers of experts; as many as there are, or none.
    pub experts: Vec<String>,
    /// The texts of the tokens, if they are at hand.
    pub texts: Option<&'a [String]>,
}

/// The whole page.
pub fn html(trace: &Trace, found: &Comparison, about: &About<'_>) -> String {
    let n = trace.n_tokens();
    let executed: usize = trace.gates.iter().flatten().filter(|bit| **bit != 0).count();
    let mean = executed as f64 / n.max(1) as f64;
    let mut body = format!(
        "<p class=\"lead\">{}. {} in {}, {}; a token is executed by {mean:.2} of them.</p>\n",
        escaped(&about.source),
        counted(n, "token"),
        counted(trace.lengths.len() as u64, "sequence"),
        counted(trace.gates.len() as u64, "router"),
    );
    if let Some(texts) = about.texts {
        body.push_str(&text(trace, texts));
    }
    body.push_str(&depths(found));
    body.push_str(&map(trace, about));
    body.push_str(&agreement(found, about));
    body.push_str(&skips(found));
    body.push_str(&capacities(found));
    if !trace.choices.is_empty() {
        body.push_str(&experts(trace, about));
    }
    page(&format!("Routing of {}", trace.provenance.model), &body)
}

/// From 0 to 5: how deep a token goes. It is shown by a colour and by the height of a bar below it.
fn level(depth: usize, routers: usize) -> usize {
    (depth * 5).div_ceil(routers.max(1)).min(5)
}

/// How many routers execute each token.
fn depth(trace: &Trace, token: usize) -> usize {
    trace.gates.iter().filter(|gate| gate.get(token).is_some_and(|bit| *bit != 0)).count()
}

fn text(trace: &Trace, texts: &[String]) -> String {
    let routers = trace.gates.len();
    let mut out = String::from(
        "<h2>The text by depth</h2>\n<p class=\"soft\">The more routers execute a token, the warmer its colour and the higher the bar below it.</p>\n<p class=\"legend\">",
    );
    for shown in 0..=routers {
        let _ = write!(out, "<span class=\"t d{}\">{shown}</span> ", level(shown, routers));
    }
    let _ = write!(out, "of {routers} routers</p>\n<div class=\"text\">");
    let mut from = 0;
    for length in &trace.lengths {
        out.push_str("<p>");
        for (token, text) in texts.iter().enumerate().skip(from).take(*length as usize) {
            if token >= DRAWN {
                break;
            }
            let depth = depth(trace, token);
            let level = level(depth, routers);
            let shown = escaped(text).replace('\n', "⏎<br>");
            let _ = write!(out, "<span class=\"t d{level}\" title=\"{depth} of {routers}\">{shown}</span>");
        }
        out.push_str("</p>\n");
        from += *length as usize;
    }
    out.push_str("</div>\n");
    out
}

/// A bar as wide as its share.
fn bar(share: f64) -> String {
    format!("<span class=\"bar inline\"><i style=\"width:{:.1}%\"></i></span>", 100.0 * share.min(1.0))
}

fn depths(found: &Comparison) -> String {
    let total: usize = found.trace.depths.iter().sum();
    let most = found.trace.depths.iter().chain(&found.random.depths).copied().max().unwrap_or(1).max(1);
    let rows = found.trace.depths.iter().zip(&found.random.depths).enumerate();
    let row = |(depth, (own, random)): (usize, (&usize, &usize))| {
        vec![
            format!("{depth} of {}", found.trace.depths.len() - 1),
            bar(*own as f64 / most as f64),
            own.to_string(),
            format!("{:.1} %", 100.0 * *own as f64 / total.max(1) as f64),
            format!("{random} by chance"),
        ]
    };
    format!("<h2>How deep tokens go</h2>\n{}", table(&["routers", "", "tokens", "share", ""], rows.map(row)))
}

/// A row for each router, a column for each token; runs of executed tokens are one rectangle.
fn map(trace: &Trace, about: &About<'_>) -> String {
    let n = trace.gates.first().map_or(0, Vec::len).min(DRAWN);
    let (cell, height, left) = (if n > 600 { 2 } else { 6 }, 16, 130);
    let width = left + cell * n + 10;
    let total = height * trace.gates.len() + 24;
    let mut out = format!(
        "<h2>Tokens and routers</h2>\n<p class=\"soft\">A row for each router, from left to right the tokens; filled where a router executes. Lines are borders of sequences.{}</p>\n<div class=\"drawing\"><svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width}\" height=\"{total}\" viewBox=\"0 0 {width} {total}\" role=\"img\" aria-label=\"decisions\">",
        if trace.n_tokens() as usize > n { format!(" The first {n} tokens.") } else { String::new() }
    );
    for (router, gate) in trace.gates.iter().enumerate() {
        let y = height * router + 4;
        let _ = write!(out, "<text x=\"4\" y=\"{}\">{}</text>", y + 11, escaped(&name(about, router)));
        let mut token = 0;
        while token < n {
            let run = gate[token..n].iter().take_while(|bit| **bit != 0).count();
            if run > 0 {
                let (x, w) = (left + cell * token, cell * run);
                let _ = write!(
                    out,
                    "<rect class=\"ran\" x=\"{x}\" y=\"{y}\" width=\"{w}\" height=\"{}\"/>",
                    height - 3
                );
            }
            token += run.max(1);
        }
    }
    let mut end = 0;
    for length in &trace.lengths {
        end += *length as usize;
        if end < n {
            let x = left + cell * end;
            let _ = write!(out, "<line class=\"axis\" x1=\"{x}\" x2=\"{x}\" y1=\"0\" y2=\"{total}\"/>");
        }
    }
    for token in (0..n).step_by((n / 8).max(1)) {
        let _ = write!(
            out,
            "<text class=\"dim\" x=\"{}\" y=\"{}\">{token}</text>",
            left + cell * token,
            total - 6
        );
    }
    out + "</svg></div>\n"
}

fn name(about: &About<'_>, router: usize) -> String {
    about.routers.get(router).cloned().unwrap_or_else(|| format!("gate.{router}"))
}

fn agreement(found: &Comparison, about: &About<'_>) -> String {
    let Comparison { trace, random } = found;
    let names: Vec<String> = (0..trace.agreement.len()).map(|router| name(about, router)).collect();
    let mut header = vec!["", "executes"];
    header.extend(names.iter().map(String::as_str));
    let rows = trace.agreement.iter().zip(&random.agreement).enumerate().map(|(router, (own, by_chance))| {
        let mut row = vec![
            format!("<code>{}</code>", escaped(&names[router])),
            format!("{:.1} %", 100.0 * trace.densities[router]),
        ];
        row.extend(own.iter().zip(by_chance).enumerate().map(|(other, (own, by_chance))| {
            if other == router {
                return "·".to_owned();
            }
            let more = 100.0 * (own - by_chance);
            let class = if more > 1.0 {
                "added"
            } else if more < -1.0 {
                "gone"
            } else {
                "soft"
            };
            format!("{:.0} % <span class=\"{class}\">{more:+.0}</span>", 100.0 * own)
        }));
        row
    });
    format!(
        "<h2>Who decides alike</h2>\n<p class=\"soft\">The share of tokens about which two routers decide alike, and by how much that is more than by chance, in points.</p>\n{}",
        table(&header, rows)
    )
}

/// A table for each layer of experts: how many tokens each choice has.
fn experts(trace: &Trace, about: &About<'_>) -> String {
    let mut out = String::from(
        "<h2>What experts have</h2>\n<p class=\"soft\">How many tokens took each choice: experts first, then choices that give nothing, then those that give their input. A token may take several.</p>\n",
    );
    for (idx, layer) in trace.choices.iter().enumerate() {
        let loads = layer.loads();
        let name = about.experts.get(idx).cloned().unwrap_or_else(|| format!("choices.{idx}"));
        let balance = match choices::highest_over_mean(&loads) {
            Some(most) => format!("The highest has {most:.2} times the mean."),
            None => "Nobody chose.".to_owned(),
        };
        let _ = write!(out, "<h3><code>{}</code></h3>\n<p>{balance}</p>\n", escaped(&name));
        let most = loads.iter().copied().max().unwrap_or(0).max(1);
        let row = |(choice, load): (usize, &u64)| {
            vec![
                choice.to_string(),
                bar(*load as f64 / most as f64),
                load.to_string(),
                format!("{:.1} %", 100.0 * *load as f64 / layer.n_tokens().max(1) as f64),
            ]
        };
        let rows = loads.iter().enumerate().map(row);
        out.push_str(&table(&["choice", "", "tokens", "of all"], rows));
    }
    out
}

fn skips(found: &Comparison) -> String {
    let section = |title: &str, text: &str, of: fn(&Statistics) -> &Vec<usize>| {
        let (own, random) = (of(&found.trace), of(&found.random));
        let most = own.iter().chain(random).copied().max().unwrap_or(1).max(1);
        let longest =
            own.iter().zip(random).rposition(|(own, random)| *own + *random > 0).map_or(0, |at| at + 1);
        let row = |idx: usize| {
            let length =
                if idx + 1 == LONGEST { format!("{LONGEST} and more") } else { (idx + 1).to_string() };
            vec![
                length,
                bar(own[idx] as f64 / most as f64),
                own[idx].to_string(),
                format!("{} by chance", random[idx]),
            ]
        };
        format!(
            "<h2>{title}</h2>\n<p class=\"soft\">{text}</p>\n{}",
            table(&["length", "", "runs", ""], (0..longest).map(row))
        )
    };
    let layers = section(
        "How many layers a token skips in a row",
        "Within a run the token does not change, so all its routers can be asked at once.",
        |of| &of.layer_runs,
    );
    let tokens = section(
        "How many tokens a layer skips in a row",
        "With lazy keys and values so many tokens wait, and are computed together when one executes.",
        |of| &of.token_runs,
    );
    layers + &tokens
}

fn capacities(found: &Comparison) -> String {
    let pairs = found.trace.capacities.iter().zip(&found.random.capacities);
    let percent = |share: f64| format!("{:.1} %", 100.0 * share);
    let row = |(own, random): (&Capacity, &Capacity)| {
        vec![
            own.group_size.to_string(),
            own.factor.to_string(),
            percent(own.overflows),
            percent(own.lost),
            bar(own.lost * 4.0),
            percent(random.lost),
            percent(own.slots),
        ]
    };
    // The cheapest that loses next to nothing.
    let kept = found.trace.capacities.iter().filter(|it| it.lost < 0.01);
    let best = kept.min_by(|a, b| a.slots.total_cmp(&b.slots));
    let advice = match best {
        Some(Capacity { group_size, factor, slots, lost, .. }) => format!(
            "<p><b>Of these, <code>group_size = {group_size}</code> with <code>capacity_factor = {factor:?}</code> has the fewest slots ({}) and loses less than 1 % ({}).</b></p>",
            percent(*slots),
            percent(*lost)
        ),
        None if found.trace.capacities.is_empty() => "<p>No sequence is as long as a group.</p>".to_owned(),
        None => {
            "<p><b>Each of these loses more than 1 % of the tokens that want to execute.</b></p>".to_owned()
        }
    };
    format!(
        "<h2>What a capacity would lose</h2>\n<p class=\"soft\">Groups of so many tokens with ⌈size · density · factor⌉ slots, each router by its own density; routers that do not decide are left out.</p>\n{advice}{}",
        table(
            &[
                "group size",
                "factor",
                "groups that overflow",
                "tokens lost",
                "",
                "by chance",
                "slots a token"
            ],
            pairs.map(row)
        )
    )
}
