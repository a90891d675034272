//! Text to tree: the outermost level, modules.

use std::collections::BTreeSet;

use super::cursor::Cursor;
use super::declare::variable_space;
use super::number::{Literal, literal};
use super::scope::Scopes;
use super::{Module, lex};

/// Why a text is not PTX that the machine can read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {what}")]
pub struct SyntaxError {
    /// From 1.
    pub line: u32,
    /// What is wrong.
    pub what: String,
}

/// Reads a module.
///
/// # Errors
/// The first place that is not understood.
pub fn parse(text: &str) -> Result<Module, SyntaxError> {
    let mut reader = Reader { cursor: Cursor::new(text)?, scopes: Scopes::new(), n_registers: 0 };
    let mut module = reader.head()?;
    let mut kernels = BTreeSet::new();
    while reader.cursor.peek().is_some() {
        reader.item(&mut module, &mut kernels)?;
    }
    Ok(module)
}

/// What reading goes by. Its methods stand with the levels of the grammar: here modules, then kernels, bodies,
/// declarations, operands.
pub(super) struct Reader<'t> {
    /// Place in the text.
    pub(super) cursor: Cursor<'t>,
    /// What names stand for at that place.
    pub(super) scopes: Scopes<'t>,
    /// Registers of all kernels up to there.
    pub(super) n_registers: u64,
}

impl Reader<'_> {
    /// `.version`, `.target` and `.address_size`, which begin a module in this order.
    fn head(&mut self) -> Result<Module, SyntaxError> {
        self.cursor.expect(".version")?;
        let version = self.version()?;
        self.cursor.expect(".target")?;
        let target = self.cursor.name("an architecture such as `sm_90a`")?.to_owned();
        while self.cursor.eat(",") {
            // `debug` and texture modes change nothing here.
            self.cursor.name("an option of the target")?;
        }
        if self.cursor.eat(".address_size") && !self.cursor.eat("64") {
            return Err(self.cursor.wanted("`64`, the only size of addresses that the machine has,"));
        }
        Ok(Module { version, target, variables: Vec::new(), kernels: Vec::new() })
    }

    /// Major and minor with a dot between them.
    fn version(&mut self) -> Result<(u32, u32), SyntaxError> {
        let wanted = self.cursor.wanted("a version such as `8.6`");
        let Some(token) = self.cursor.next() else { return Err(wanted) };
        let (major, minor) = token.text.split_once('.').unwrap_or((token.text, ""));
        let part = |digits: &str| match literal(digits) {
            Ok(Literal::Integer(value)) => u32::try_from(value).ok(),
            _ => None,
        };
        match (part(major), part(minor)) {
            (Some(major), Some(minor)) if token.kind == lex::TokenKind::Number => Ok((major, minor)),
            _ => Err(wanted),
        }
    }

    /// A kernel, a variable, or what debuggers want.
    fn item(&mut self, module: &mut Module, kernels: &mut BTreeSet<String>) -> Result<(), SyntaxError> {
        let line = self.cursor.line();
        let mut is_extern = false;
        while let linkage @ (".visible" | ".extern" | ".weak" | ".common") = self.cursor.text_at(0) {
            is_extern |= linkage == ".extern";
            self.cursor.next();
        }
        match self.cursor.text_at(0) {
            ".entry" if is_extern => Err(self.cursor.error("a kernel has a body; take `.extern` away")),
            ".entry" => {
                let kernel = self.kernel()?;
                if !kernels.insert(kernel.name.clone()) {
                    let what =
                        format!("a kernel `{}` is there already; give this one another name", kernel.name);
                    return Err(SyntaxError { line, what });
                }
                module.kernels.push(kernel);
                Ok(())
            }
            ".func" => {
                Err(self.cursor.error("the machine runs no functions: inline this `.func` into its kernels"))
            }
            ".file" | ".loc" => {
                self.cursor.skip_line();
                Ok(())
            }
            ".section" => {
                self.cursor.next();
                self.cursor.directive("the name of a section")?;
                self.cursor.skip_braces()
            }
            ".pragma" => self.pragma(),
            word if variable_space(word).is_some() => {
                module.variables.push(self.variable(is_extern)?);
                Ok(())
            }
            _ => Err(self.cursor.wanted("`.entry`, or a variable such as `.shared .b8 a[16];`,")),
        }
    }

    /// `.pragma "…";`
    pub(super) fn pragma(&mut self) -> Result<(), SyntaxError> {
        self.cursor.expect(".pragma")?;
        loop {
            match self.cursor.next() {
                Some(token) if token.kind == lex::TokenKind::Quoted => {}
                _ => return Err(self.cursor.error("a pragma is a text between double quotes")),
            }
            if !self.cursor.eat(",") {
                return self.cursor.expect_end("`;`");
            }
        }
    }
}
