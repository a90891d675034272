//! Bodies of kernels: blocks, labels, declarations, instructions.

use super::declare::variable_space;
use super::lex::TokenKind;
use super::parse::Reader;
use super::scope::{Jump, Meaning};
use super::source::one_line;
use super::special::is_special;
use super::{Guard, Instruction, Kernel, Operand, RegisterClass, RegisterId, SyntaxError};

impl Reader<'_> {
    /// The body in braces. The kernel's own scope is open already, since its parameters are in it.
    pub(super) fn body(&mut self, kernel: &mut Kernel) -> Result<(), SyntaxError> {
        let opened = self.cursor.line();
        self.cursor.expect("{")?;
        loop {
            let Some(token) = self.cursor.peek() else {
                let (line, name) = (self.scopes.opened_at().max(opened), &kernel.name);
                let what = format!("the text ends inside of kernel `{name}`: this `{{` has no `}}`");
                return Err(SyntaxError { line, what });
            };
            match token.text {
                "{" => {
                    self.scopes.open(token.line)?;
                    self.cursor.next();
                }
                "}" => {
                    self.cursor.next();
                    for (from, target) in self.scopes.close()? {
                        kernel.instructions[from].operands = vec![Operand::Label(target)];
                    }
                    if self.scopes.depth() == 1 {
                        return Ok(());
                    }
                }
                _ => self.statement(token.kind, kernel)?,
            }
        }
    }

    fn statement(&mut self, kind: TokenKind, kernel: &mut Kernel) -> Result<(), SyntaxError> {
        match self.cursor.text_at(0) {
            ".reg" => self.registers(kernel),
            ".pragma" => self.pragma(),
            ".loc" | ".file" => {
                self.cursor.skip_line();
                Ok(())
            }
            word if variable_space(word).is_some() => {
                kernel.variables.push(self.variable(false)?);
                Ok(())
            }
            _ if kind == TokenKind::Word && self.cursor.text_at(1) == ":" => {
                let line = self.cursor.line();
                let name = self.cursor.name("a label without modifiers")?.to_owned();
                self.cursor.expect(":")?;
                self.scopes.declare(name, Meaning::Label(kernel.instructions.len()), line)
            }
            "@" => self.instruction(kernel),
            _ if kind == TokenKind::Word => self.instruction(kernel),
            _ => Err(self.cursor.wanted("an instruction, a label, a declaration or a block")),
        }
    }

    fn instruction(&mut self, kernel: &mut Kernel) -> Result<(), SyntaxError> {
        let mark = self.cursor.mark();
        let guard = self.guard()?;
        let line = self.cursor.line();
        let opcode = match self.cursor.peek() {
            Some(token) if token.kind == TokenKind::Word && !token.text.starts_with('%') => token.text,
            _ => return Err(self.cursor.wanted("the name of an instruction")),
        };
        if opcode == "call" || opcode.starts_with("call.") {
            return Err(self.cursor.error("the machine runs no `call`: inline the function into the kernel"));
        }
        self.cursor.next();
        let mut operands = Vec::new();
        if opcode == "bra" || opcode == "bra.uni" {
            let to = self.cursor.name("the label to go to")?;
            self.scopes.jump(Jump { from: kernel.instructions.len(), to, line });
        } else if !self.at_end_of_name(line) {
            operands.push(self.operand()?);
            while self.cursor.eat(",") {
                operands.push(self.operand()?);
            }
        }
        let text = one_line(self.cursor.since(mark));
        let wanted =
            if operands.is_empty() { "an operand, or `;`," } else { "`,` before one more operand, or `;`," };
        self.cursor.expect_end(wanted)?;
        kernel.instructions.push(Instruction { line, guard, opcode: opcode.to_owned(), operands, text });
        Ok(())
    }

    /// Whether the name of an instruction in this line has no operands. A `}`, or a name with modifiers in another line,
    /// is none: there a `;` is missing.
    fn at_end_of_name(&self, line: u32) -> bool {
        match self.cursor.peek() {
            None => true,
            Some(next) if next.kind == TokenKind::Word => {
                next.line > line && next.text.contains('.') && !is_special(next.text)
            }
            Some(next) => matches!(next.text, ";" | "}"),
        }
    }

    /// `@p` or `@!p`
    fn guard(&mut self) -> Result<Option<Guard>, SyntaxError> {
        if !self.cursor.eat("@") {
            return Ok(None);
        }
        let negated = self.cursor.eat("!");
        let register = self.predicate()?;
        Ok(Some(Guard { register, negated }))
    }

    /// A register that is a predicate.
    pub(super) fn predicate(&mut self) -> Result<RegisterId, SyntaxError> {
        let line = self.cursor.line();
        let name = self.cursor.name("a predicate")?;
        match self.scopes.find(name) {
            Some(Meaning::Register(id, RegisterClass::Predicate)) => Ok(id),
            Some(_) => {
                let what =
                    format!("`{name}` is not a predicate; only a register of type `.pred` may stand here");
                Err(SyntaxError { line, what })
            }
            None => Err(self.undeclared(name, line)),
        }
    }
}
