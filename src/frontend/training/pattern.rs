//! Patterns over names of tensors: `*` stands for any text, `?` for one character, `[abc]` and `[!abc]` for one of some
//! characters or of the others, as in Python's fnmatch.

use serde::Serialize;

/// A list of patterns, each with the place where it was written kept by who read it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct Patterns(pub Vec<String>);

impl Patterns {
    /// Of these.
    pub fn of(patterns: &[&str]) -> Patterns {
        Patterns(patterns.iter().map(|pattern| (*pattern).to_owned()).collect())
    }

    /// Whether one of them matches the name.
    pub fn matches(&self, name: &str) -> bool {
        self.0.iter().any(|pattern| matches(pattern, name))
    }

    /// The first that matches none of the names.
    pub fn idle<'a>(&self, names: impl Iterator<Item = &'a str> + Clone) -> Option<&str> {
        self.0.iter().map(String::as_str).find(|pattern| !names.clone().any(|name| matches(pattern, name)))
    }
}

/// Whether a pattern matches a whole name.
fn matches(pattern: &str, name: &str) -> bool {
    let (pattern, name): (Vec<char>, Vec<char>) = (pattern.chars().collect(), name.chars().collect());
    // Goes back to the last star alone: an earlier one can take no more than that one.
    let (mut at, mut from, mut star) = (0, 0, None);
    while from < name.len() {
        match step(&pattern[at..], name[from]) {
            Step::Star => {
                star = Some((at, from));
                at += 1;
            }
            Step::Over(length) => (at, from) = (at + length, from + 1),
            Step::Other => match star {
                Some((begin, taken)) => {
                    star = Some((begin, taken + 1));
                    (at, from) = (begin + 1, taken + 1);
                }
                None => return false,
            },
        }
    }
    pattern[at..].iter().all(|c| *c == '*')
}

/// What the beginning of a pattern says of a character.
enum Step {
    /// It may be any, and more.
    Star,
    /// So many characters of the pattern allow it.
    Over(usize),
    /// It is another.
    Other,
}

fn step(pattern: &[char], c: char) -> Step {
    match pattern {
        ['*', ..] => Step::Star,
        ['?', ..] => Step::Over(1),
        ['[', rest @ ..] => {
            let negated = rest.first() == Some(&'!');
            let rest = &rest[usize::from(negated)..];
            // A bracket that stands first is one of the characters.
            let Some(end) = rest.iter().skip(1).position(|c| *c == ']').map(|end| end + 1) else {
                return if c == '[' { Step::Over(1) } else { Step::Other };
            };
            match one_of(&rest[..end], c) != negated {
                true => Step::Over(2 + usize::from(negated) + end),
                false => Step::Other,
            }
        }
        [own, ..] if *own == c => Step::Over(1),
        _ => Step::Other,
    }
}

/// Whether a character is in a list of characters and ranges.
fn one_of(mut list: &[char], c: char) -> bool {
    loop {
        list = match list {
            [low, '-', high, rest @ ..] if (*low..=*high).contains(&c) || rest.is_empty() => {
                return (*low..=*high).contains(&c);
            }
            [_, '-', _, rest @ ..] => rest,
            [one, ..] if *one == c => return true,
            [_, rest @ ..] => rest,
            [] => return false,
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_match_as_those_of_python() {
        for (pattern, name, wanted) in [
            ("*", "", true),
            ("*norm*", "blocks.0.layers.1.norm.weight", true),
            ("*.bias", "lm_head.bias", true),
            ("*.bias", "bias", false),
            ("blocks.2.*", "blocks.22.router.weight", false),
            ("blocks.?.*", "blocks.2.router.weight", true),
            ("*.router.*", "blocks.0.router.weight", true),
            ("a*b*c", "aXbYbZc", true),
            ("a*b*c", "aXbYbZ", false),
            ("blocks.[0-3].*", "blocks.2.x", true),
            ("blocks.[!0-3].*", "blocks.2.x", false),
            ("blocks.[13].*", "blocks.2.x", false),
            ("[", "[", true),
            ("[]]", "]", true),
            ("", "", true),
            ("", "x", false),
        ] {
            assert_eq!(matches(pattern, name), wanted, "{pattern} {name}");
        }
    }
}
