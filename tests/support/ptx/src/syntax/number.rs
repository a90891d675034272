//! Constants as PTX writes them (PTX ISA section 4.5).

/// A constant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Literal {
    /// In two's complement.
    Integer(u64),
    /// Bits of an f32.
    Float32(u32),
    /// Bits of an f64.
    Float64(u64),
}

impl Literal {
    /// The constant behind a minus sign.
    pub(super) fn negate(self) -> Result<Self, String> {
        match self {
            Self::Integer(value) if value > i64::MIN.unsigned_abs() => {
                Err(format!("-{value} does not fit in 64 bits"))
            }
            Self::Integer(value) => Ok(Self::Integer(value.wrapping_neg())),
            Self::Float32(_) | Self::Float64(_) => {
                Err("a minus sign stands before bits of a float; set their highest bit instead".to_owned())
            }
        }
    }
}

/// Reads a constant without a sign.
pub(super) fn literal(text: &str) -> Result<Literal, String> {
    match text.get(..2) {
        Some("0f" | "0F") => bits(text, 8).map(|bits| Literal::Float32(bits as u32)),
        Some("0d" | "0D") => bits(text, 16).map(Literal::Float64),
        _ if text.contains('.') => {
            Err(format!("`{text}`: write a float as its bits, `0f` and 8 hexadecimal digits or `0d` and 16"))
        }
        _ => integer(text).map(Literal::Integer),
    }
}

fn bits(text: &str, n_digits: usize) -> Result<u64, String> {
    let digits = &text[2..];
    let value = u64::from_str_radix(digits, 16).ok().filter(|_| digits.len() == n_digits);
    value.ok_or_else(|| format!("`{text}` should have {n_digits} hexadecimal digits behind `{}`", &text[..2]))
}

fn integer(text: &str) -> Result<u64, String> {
    let digits = text.strip_suffix('U').unwrap_or(text);
    let (digits, radix, name) = match digits.get(..2) {
        Some("0x" | "0X") => (&digits[2..], 16, "hexadecimal"),
        Some("0b" | "0B") => (&digits[2..], 2, "binary"),
        Some(_) if digits.starts_with('0') => (&digits[1..], 8, "octal"),
        _ => (digits, 10, "decimal"),
    };
    u64::from_str_radix(digits, radix).map_err(|error| match error.kind() {
        std::num::IntErrorKind::PosOverflow => format!("`{text}` does not fit in 64 bits"),
        _ => format!("`{text}` is not a {name} integer"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn integers_in_four_bases() {
        for (text, value) in [
            ("0", 0),
            ("42", 42),
            ("42U", 42),
            ("0x1F", 31),
            ("0XffU", 255),
            ("017", 15),
            ("0b101", 5),
            ("18446744073709551615", u64::MAX),
        ] {
            assert_eq!(literal(text), Ok(Literal::Integer(value)), "{text}");
        }
        for text in ["0x", "08", "0b2", "1_0", "12a", "5UU", "18446744073709551616"] {
            assert!(literal(text).is_err(), "{text}");
        }
    }

    #[test]
    fn floats_are_bits() {
        assert_eq!(literal("0fBF800000"), Ok(Literal::Float32(0xBF80_0000)));
        assert_eq!(literal("0d3FF0000000000000"), Ok(Literal::Float64(0x3FF0_0000_0000_0000)));
        for text in ["0f", "0fBF80000", "0fBF8000000", "0d0", "0fzzzzzzzz", "1.5"] {
            assert!(literal(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_minus_sign_is_two_s_complement() {
        assert_eq!(Literal::Integer(1).negate(), Ok(Literal::Integer(u64::MAX)));
        assert_eq!(Literal::Integer(1 << 63).negate(), Ok(Literal::Integer(1 << 63)));
        assert!(Literal::Integer((1 << 63) + 1).negate().is_err());
        assert!(Literal::Float32(0).negate().is_err());
    }
}
