//! Values of a `config.json`: what stands there, or what the family means where nothing does.

use std::collections::BTreeSet;

use super::aliases;
use super::families::{EXTENDED, FAMILIES, Family, HARMLESS, SWITCHES};
use crate::diagnostic::{Diagnostic, Diagnostics};
use crate::frontend::language::ast::{Ast, Entry, Table, ValueKind};
use crate::frontend::language::read::{Ctx, Fields};
use crate::frontend::language::words::{nearest, quoted};

/// A configuration that is read key by key. A reader that gives nothing has reported why.
pub(super) struct Config<'a> {
    pub(super) ctx: Ctx<'a>,
    pub(super) fields: Fields<'a>,
    pub(super) family: &'static Family,
    /// Keys that were asked for.
    read: BTreeSet<&'static str>,
    /// What is no error and its author should know.
    notes: Diagnostics,
}

/// The family that a configuration names, with the table that has its keys, and whether that is the part of a larger
/// model that reads text.
pub(super) fn family(ast: &Ast) -> Result<(&'static Family, &Table, bool), Diagnostics> {
    let mut ctx = Ctx::new(ast);
    let root = fields(&ast.root);
    let entry = ctx.required(root, "model_type", "\"model_type\": \"llama\"");
    let Some(entry) = entry else { return Err(ctx.found) };
    let Some(named) = ctx.name(entry) else { return Err(ctx.found) };
    if named == "gemma3" {
        let part = ctx.required(root, "text_config", "\"text_config\": { … }");
        let part = part.and_then(|entry| ctx.table("text_config", &entry.value, "\"text_config\": { … }"));
        let family = FAMILIES.iter().find(|family| family.model_type == "gemma3_text");
        return part.zip(family).map(|(table, family)| (family, table, true)).ok_or(ctx.found);
    }
    let extended = EXTENDED.iter().find(|(word, _)| *word == named).map(|(_, family)| *family);
    let of_name = extended.unwrap_or(&named);
    if let Some(family) = FAMILIES.iter().find(|family| family.model_type == of_name) {
        return Ok((family, &ast.root, false));
    }
    let (message, help) = (format!("the family {} is not known", quoted(&named)), known_families(&named));
    ctx.wrong("config::family", message, (&entry.value, "this family"), help);
    Err(ctx.found)
}

fn known_families(named: &str) -> String {
    let of_methods = || EXTENDED.iter().map(|(word, _)| *word);
    let known = || FAMILIES.iter().map(|family| family.model_type).chain(of_methods());
    match nearest(named, known()) {
        Some(near) => format!("did you mean `{near}`?"),
        None => format!("known are {}", known().collect::<Vec<_>>().join(", ")),
    }
}

fn fields(table: &Table) -> Fields<'_> {
    Fields { table, what: "the configuration", keys: &[] }
}

impl<'a> Config<'a> {
    pub(super) fn new(ast: &'a Ast, table: &'a Table, family: &'static Family) -> Config<'a> {
        Config {
            ctx: Ctx::new(ast),
            fields: fields(table),
            family,
            read: BTreeSet::new(),
            notes: Diagnostics::default(),
        }
    }

    /// What stands behind a key; `null` is something.
    pub(super) fn entry(&mut self, key: &'static str) -> Option<&'a Entry> {
        self.read.insert(key);
        self.fields.table.get(key)
    }

    /// A value that must be there.
    pub(super) fn required<T>(
        &mut self,
        key: &'static str,
        read: impl FnOnce(&mut Ctx<'a>, &Entry) -> Option<T>,
    ) -> Option<T> {
        self.read.insert(key);
        let entry = self.ctx.required(self.fields, key, &format!("{key:?}: …"))?;
        read(&mut self.ctx, entry)
    }

    /// A value with a default.
    pub(super) fn value<T>(
        &mut self,
        key: &'static str,
        default: T,
        read: impl FnOnce(&mut Ctx<'a>, &Entry) -> Option<T>,
    ) -> Option<T> {
        match self.entry(key) {
            None => Some(default),
            Some(entry) => read(&mut self.ctx, entry),
        }
    }

    /// A value that `null` takes away.
    pub(super) fn nullable<T>(
        &mut self,
        key: &'static str,
        default: Option<T>,
        read: impl FnOnce(&mut Ctx<'a>, &Entry) -> Option<T>,
    ) -> Option<Option<T>> {
        match self.entry(key) {
            None => Some(default),
            Some(entry) if matches!(entry.value.kind, ValueKind::Null) => Some(None),
            Some(entry) => read(&mut self.ctx, entry).map(Some),
        }
    }

    /// A flag; `null` is false.
    pub(super) fn flag(&mut self, key: &'static str, default: bool) -> Option<bool> {
        let read = |ctx: &mut Ctx<'a>, entry: &Entry| ctx.flag(entry);
        Some(self.nullable(key, Some(default), read)?.unwrap_or(false))
    }

    /// Says what a value is read as, if that is not what it says.
    pub(super) fn note(&mut self, entry: &Entry, message: String) {
        let note = Diagnostic::warning("config::alias", message);
        self.notes.push(note.at(self.ctx.source, entry.value.span.clone(), "this value"));
    }

    /// Says what the code of a checkpoint computes and the model does not.
    pub(super) fn differs(&mut self, entry: &Entry, message: String) {
        let note = Diagnostic::warning("config::differs", message);
        self.notes.push(note.at(self.ctx.source, entry.key_span.clone(), "by this key"));
    }

    /// Reports what is read and cannot be done.
    pub(super) fn unsupported(&mut self, entry: &Entry, what: &str) {
        unsupported(&mut self.ctx, entry, what);
    }

    /// Refuses what would change the model in a way that skipc does not know. Gives what is wrong, and notes; nothing else is
    /// read after this.
    pub(super) fn finish(mut self) -> (Diagnostics, Diagnostics) {
        for (key, taken, what) in SWITCHES {
            if let Some(entry) = self.entry(key)
                && !matches!(entry.value.kind, ValueKind::Null)
                && self.ctx.flag(entry).is_some_and(|flag| flag != *taken)
            {
                self.unsupported(entry, what);
            }
        }
        let quantised = self.nullable("quantization_config", None, |_, entry| Some(entry.clone()));
        if let Some(Some(entry)) = quantised {
            self.unsupported(&entry, "quantised weights; take the checkpoint in f32, bf16 or f16");
        }
        let unread = self.unread();
        (self.ctx.found, self.notes.and(unread))
    }

    /// One note that lists the keys which mean nothing to the family.
    fn unread(&self) -> Diagnostics {
        let is_unread = |entry: &&Entry| {
            let key = entry.key.as_str();
            !self.read.contains(key)
                && !HARMLESS.contains(&key)
                && !aliases::KEYS.contains(&key)
                && key != "skip_config"
        };
        let unread: Vec<&Entry> = self.fields.table.entries.iter().filter(is_unread).collect();
        let Some(first) = unread.first() else { return Diagnostics::default() };
        let names: Vec<String> = unread.iter().map(|entry| quoted(&entry.key)).collect();
        let message = format!(
            "ignored, as the family {} has no such keys: {}",
            self.family.model_type,
            names.join(", ")
        );
        Diagnostic::warning("config::ignored", message)
            .at(self.ctx.source, first.key_span.clone(), "the first of them")
            .into()
    }
}

/// Reports what is read and cannot be done.
pub(super) fn unsupported(ctx: &mut Ctx<'_>, entry: &Entry, what: &str) {
    let message = format!("`{}` asks for {what}", entry.key);
    ctx.wrong(
        "config::unsupported",
        message,
        (&entry.value, "not supported"),
        "this model cannot be compiled yet".to_owned(),
    );
}
