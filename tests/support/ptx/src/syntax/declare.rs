//! Declarations: registers, variables, parameters (PTX ISA sections 5.1 to 5.4).

use super::number::Literal;
use super::parse::Reader;
use super::scope::Meaning;
use super::{Kernel, Param, Register, RegisterClass, RegisterId, SyntaxError, Variable, VariableSpace};

/// Registers of all kernels of a module. Our largest kernels have two thousand each; the limit keeps `%r<4000000000>`
/// from taking all memory.
const REGISTER_LIMIT: u64 = 1 << 20;

/// The state space that a directive names, if variables may be declared there.
pub(super) fn variable_space(directive: &str) -> Option<VariableSpace> {
    Some(match directive {
        ".shared" => VariableSpace::Shared,
        ".global" => VariableSpace::Global,
        ".const" => VariableSpace::Const,
        ".local" => VariableSpace::Local,
        _ => return None,
    })
}

fn register_class(ty: &str) -> Option<RegisterClass> {
    Some(match ty {
        ".pred" => RegisterClass::Predicate,
        ".b16" | ".u16" | ".s16" | ".f16" | ".bf16" => RegisterClass::B16,
        ".b32" | ".u32" | ".s32" | ".f32" | ".f16x2" | ".bf16x2" => RegisterClass::B32,
        ".b64" | ".u64" | ".s64" | ".f64" => RegisterClass::B64,
        _ => return None,
    })
}

/// Size of an element in memory.
fn element_bytes(ty: &str) -> Option<u32> {
    match (ty, register_class(ty)) {
        (".b8" | ".u8" | ".s8", _) => Some(1),
        (_, Some(RegisterClass::B16)) => Some(2),
        (_, Some(RegisterClass::B32)) => Some(4),
        (_, Some(RegisterClass::B64)) => Some(8),
        (_, Some(RegisterClass::Predicate) | None) => None,
    }
}

impl Reader<'_> {
    /// `.reg .b32 %r<8>, a;`
    pub(super) fn registers(&mut self, kernel: &mut Kernel) -> Result<(), SyntaxError> {
        self.cursor.expect(".reg")?;
        let wanted = self.cursor.wanted("a type of registers: `.pred`, or one of 16, 32 or 64 bits,");
        let class = register_class(self.cursor.text_at(0)).ok_or(wanted)?;
        self.cursor.next();
        loop {
            let line = self.cursor.line();
            let name = self.cursor.name("the name of a register")?;
            if self.cursor.eat("<") {
                let n = self.cursor.count("a number of registers")?;
                self.cursor.expect(">")?;
                self.spend_registers(n, line)?;
                for idx in 0..n {
                    self.register(kernel, format!("{name}{idx}"), class, line)?;
                }
            } else {
                self.spend_registers(1, line)?;
                self.register(kernel, name.to_owned(), class, line)?;
            }
            if !self.cursor.eat(",") {
                return self.cursor.expect_end("`;`, or a comma before one more register,");
            }
        }
    }

    fn spend_registers(&mut self, n: u64, line: u32) -> Result<(), SyntaxError> {
        self.n_registers = self.n_registers.saturating_add(n);
        if self.n_registers > REGISTER_LIMIT {
            let what = format!("{n} more registers exceed the {REGISTER_LIMIT} of a module; declare fewer");
            return Err(SyntaxError { line, what });
        }
        Ok(())
    }

    fn register(
        &mut self,
        kernel: &mut Kernel,
        name: String,
        class: RegisterClass,
        line: u32,
    ) -> Result<(), SyntaxError> {
        let id = RegisterId(kernel.registers.len() as u32);
        self.scopes.declare(name.clone(), Meaning::Register(id, class), line)?;
        kernel.registers.push(Register { name, class });
        Ok(())
    }

    /// `.shared .align 16 .b8 buf[1024];`, `.global .b32 table[2] = {1, 2};`
    pub(super) fn variable(&mut self, is_extern: bool) -> Result<Variable, SyntaxError> {
        let wanted = self.cursor.wanted("a state space");
        let space = variable_space(self.cursor.directive("a state space")?).ok_or(wanted)?;
        let align = self.alignment()?;
        let element = self.element()?;
        let line = self.cursor.line();
        let name = self.cursor.name("the name of a variable")?.to_owned();
        let (mut bytes, is_open) = self.extent(element)?;
        let mut init = Vec::new();
        if self.cursor.text_at(0) == "=" {
            if !matches!(space, VariableSpace::Global | VariableSpace::Const) {
                return Err(self.cursor.error("only `.global` and `.const` variables have initial values"));
            }
            self.cursor.next();
            init = self.initial(element)?;
            let n = init.len() as u64;
            if !is_open && n > bytes {
                let what = format!("{n} bytes of initial values do not fit into the {bytes} of `{name}`");
                return Err(SyntaxError { line, what });
            }
            bytes = bytes.max(n);
        } else if is_open && !is_extern {
            let what = format!("`{name}[]` has no size; write one, or make it `.extern .shared`");
            return Err(SyntaxError { line, what });
        }
        self.cursor.expect_end("`;`")?;
        self.scopes.declare_symbol(&name, line)?;
        let bytes = (!is_open || !init.is_empty()).then_some(bytes);
        Ok(Variable { space, name, align: align.unwrap_or(element), bytes, init })
    }

    /// `.param .u64 .ptr .global .align 1 p`, `.param .align 64 .b8 p[128]`
    pub(super) fn param(&mut self) -> Result<Param, SyntaxError> {
        self.cursor.expect(".param")?;
        let align = self.alignment()?;
        let element = self.element()?;
        if self.cursor.eat(".ptr") {
            // What it points to is the caller's promise; the machine checks each access instead.
            if variable_space(self.cursor.text_at(0)).is_some() {
                self.cursor.next();
            }
            self.alignment()?;
        }
        let line = self.cursor.line();
        let name = self.cursor.name("the name of a parameter")?.to_owned();
        let (bytes, is_open) = self.extent(element)?;
        let bytes = u32::try_from(bytes).ok().filter(|_| !is_open);
        let what = || format!("parameter `{name}` needs a size below 4 GiB");
        let bytes = bytes.ok_or_else(|| SyntaxError { line, what: what() })?;
        self.scopes.declare_symbol(&name, line)?;
        Ok(Param { name, align: align.unwrap_or(element), bytes })
    }

    /// `.align n`, if it is there.
    fn alignment(&mut self) -> Result<Option<u32>, SyntaxError> {
        if !self.cursor.eat(".align") {
            return Ok(None);
        }
        let line = self.cursor.line();
        let align = self.cursor.count32("an alignment in bytes")?;
        if align.is_power_of_two() {
            return Ok(Some(align));
        }
        Err(SyntaxError { line, what: format!("{align} is not an alignment; write a power of two") })
    }

    /// Size of the elements of a variable.
    fn element(&mut self) -> Result<u32, SyntaxError> {
        let wanted = self.cursor.wanted("a type of 8, 16, 32 or 64 bits such as `.b32`");
        let bytes = element_bytes(self.cursor.text_at(0)).ok_or(wanted)?;
        self.cursor.next();
        Ok(bytes)
    }

    /// Size in bytes by the dimensions behind a name, and whether the only one is left open.
    fn extent(&mut self, element: u32) -> Result<(u64, bool), SyntaxError> {
        let mut bytes = u64::from(element);
        if self.cursor.text_at(0) == "[" && self.cursor.text_at(1) == "]" {
            self.cursor.next();
            self.cursor.next();
            return Ok((0, true));
        }
        while self.cursor.eat("[") {
            let line = self.cursor.line();
            let n = self.cursor.count("a number of elements")?;
            let what = || "this array is larger than any memory".to_owned();
            bytes = bytes.checked_mul(n).ok_or_else(|| SyntaxError { line, what: what() })?;
            self.cursor.expect("]")?;
        }
        Ok((bytes, false))
    }

    /// `{1, 2}` or `1`, as bytes.
    fn initial(&mut self, element: u32) -> Result<Vec<u8>, SyntaxError> {
        let mut bytes = Vec::new();
        if !self.cursor.eat("{") {
            self.initial_element(element, &mut bytes)?;
            return Ok(bytes);
        }
        loop {
            self.initial_element(element, &mut bytes)?;
            if !self.cursor.eat(",") {
                self.cursor.expect("}")?;
                return Ok(bytes);
            }
        }
    }

    fn initial_element(&mut self, element: u32, bytes: &mut Vec<u8>) -> Result<(), SyntaxError> {
        if !self.cursor.at_number() {
            return Err(self.cursor.wanted("a number (the machine takes no addresses as initial values)"));
        }
        let line = self.cursor.line();
        let bits = 8 * element;
        let (value, fits) = match self.cursor.number()? {
            Literal::Integer(value) => {
                // Signed and unsigned readings are both in use.
                let unsigned = value.checked_shr(bits).unwrap_or(0) == 0;
                let high = (value as i64) >> (bits - 1);
                (value, unsigned || high == -1)
            }
            Literal::Float32(bits32) => (u64::from(bits32), element == 4),
            Literal::Float64(bits64) => (bits64, element == 8),
        };
        if !fits {
            let what = format!("this initial value does not fit into an element of {bits} bits");
            return Err(SyntaxError { line, what });
        }
        bytes.extend_from_slice(&value.to_le_bytes()[..element as usize]);
        Ok(())
    }
}
