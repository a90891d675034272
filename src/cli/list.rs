//! `skipc targets`, `skipc passes`, `skipc rules`, `skipc ops`: what there is.

use std::fmt::Write;

use serde_json::{Value, json};
use skipc_ir::ops;

use super::inspect::new_table;
use super::to_json;
use crate::driver::backends;
use crate::error::Error;

pub(super) fn targets(json: bool) -> Result<String, Error> {
    let targets = backends::targets();
    if json {
        return to_json(&targets);
    }
    let mut table = new_table(&["target", "devices", "precision", "checked", "in this build"]);
    for target in targets {
        let built = if target.built { "yes" } else { "no" };
        table.add_row([
            target.name,
            target.devices,
            target.dtypes.join(", "),
            target.tier.to_owned(),
            built.to_owned(),
        ]);
    }
    Ok(format!("{table}\n"))
}

pub(super) fn passes(json: bool) -> Result<String, Error> {
    let default = skipc_passes::default_pipeline();
    if json {
        let passes: Vec<Value> = skipc_passes::TABLE
            .iter()
            .map(|pass| json!({"name": pass.name, "doc": pass.doc.trim()}))
            .collect();
        return to_json(&json!({"passes": passes, "default": default}));
    }
    let mut out = String::new();
    for pass in skipc_passes::TABLE {
        let _ = writeln!(out, "{}", pass.name);
        pass.doc.trim().lines().for_each(|line| {
            let _ = writeln!(out, "    {}", line.trim());
        });
    }
    let _ = writeln!(out, "default: {}", default.join(","));
    Ok(out)
}

pub(super) fn rules(json: bool) -> Result<String, Error> {
    let rules = skipc_passes::rewrite::rules::all;
    if json {
        let rules: Vec<Value> = rules()
            .map(|rule| {
                let (file, line) = rule.place;
                json!({
                    "name": rule.name,
                    "says": rule.says,
                    "why": rule.why.trim(),
                    "if": rule.condition,
                    "place": format!("{file}:{line}"),
                })
            })
            .collect();
        return to_json(&rules);
    }
    let mut out = String::new();
    for rule in rules() {
        let (file, line) = rule.place;
        let _ = writeln!(out, "{}  ({file}:{line})", rule.name);
        let _ = writeln!(out, "    {}", rule.says);
        let _ = writeln!(out, "    {}", rule.why.trim());
        let _ = writeln!(out, "    if {}", rule.condition);
    }
    Ok(out)
}

pub(super) fn ops(json: bool) -> Result<String, Error> {
    if json {
        let ops: Vec<Value> = ops::table()
            .into_iter()
            .map(|op| {
                let attrs: Vec<Value> =
                    op.attrs.iter().map(|(name, kind)| json!({"name": name, "kind": kind})).collect();
                json!({"name": op.name, "operands": op.operands, "attributes": attrs, "doc": op.doc.trim()})
            })
            .collect();
        return to_json(&ops);
    }
    let mut out = String::new();
    for op in ops::table() {
        let attrs: Vec<String> = op.attrs.iter().map(|(name, kind)| format!("{name}: {kind}")).collect();
        let attrs = if attrs.is_empty() { String::new() } else { format!(" {{{}}}", attrs.join(", ")) };
        let _ = writeln!(out, "{} ({}){attrs}", op.name, op.operands.join(", "));
        op.doc.trim().lines().for_each(|line| {
            let _ = writeln!(out, "    {}", line.trim());
        });
    }
    Ok(out)
}
