//! The words that stand for the choices of a spec: each type of choices has one table, for reading, printing and `--json`.

/// A choice that is written as a word.
pub trait Word: Copy + PartialEq + 'static {
    /// Every choice with its word, in the order of the documentation.
    const WORDS: &'static [(&'static str, Self)];

    /// The word of this choice.
    fn word(self) -> &'static str {
        // Every choice is in the table (tested), so the default is never seen.
        Self::WORDS.iter().find(|(_, choice)| *choice == self).map_or("", |(word, _)| word)
    }
}

/// The words of types of choices, for reading, printing and `--json`.
macro_rules! words {
    ($($ty:ident { $($choice:ident = $word:literal),* $(,)? })*) => {$(
        impl $crate::frontend::language::words::Word for $ty {
            const WORDS: &'static [(&'static str, Self)] = &[$(($word, $ty::$choice)),*];
        }
        impl serde::Serialize for $ty {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str($crate::frontend::language::words::Word::word(*self))
            }
        }
        impl $ty {
            /// Fails to compile when a choice has no word.
            #[expect(dead_code, reason = "exists for the exhaustive match")]
            const fn has_word(self) {
                match self {
                    $($ty::$choice => (),)*
                }
            }
        }
    )*};
}

pub(in crate::frontend) use words;

/// The candidate nearest to what was written, if one is near enough to be meant.
pub(crate) fn nearest<'a>(written: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    /// Bytes of the longest words that are compared; names of tensors have half as many.
    const MAX_LEN: usize = 100;
    /// Candidates that are compared: with [`MAX_LEN`], milliseconds whatever the file holds.
    const MAX_CANDIDATES: usize = 2000;
    if written.len() > MAX_LEN {
        return None;
    }
    let lower = written.to_lowercase();
    let allowed = |candidate: &str| candidate.len().max(written.len()) / 3;
    let alike = |candidate: &&str| {
        candidate.len() <= MAX_LEN && candidate.len().abs_diff(written.len()) <= allowed(candidate)
    };
    let near = candidates.into_iter().filter(alike).take(MAX_CANDIDATES).filter_map(|candidate| {
        let distance = strsim::osa_distance(&lower, &candidate.to_lowercase());
        (distance <= allowed(candidate)).then_some((distance, candidate))
    });
    near.min_by_key(|(distance, _)| *distance).map(|(_, candidate)| candidate)
}

/// What other tools call a key of ours.
pub(super) fn translated(key: &str) -> Option<&'static str> {
    const NAMES: &[(&str, &str)] = &[
        ("hidden_size", "d_model"),
        ("n_embd", "d_model"),
        ("dim", "d_model"),
        ("max_position_embeddings", "max_positions"),
        ("rms_norm_eps", "norm_eps"),
        ("layer_norm_eps", "norm_eps"),
        ("tie_word_embeddings", "tie_embeddings"),
        ("n_heads", "heads"),
        ("num_heads", "heads"),
        ("num_attention_heads", "heads"),
        ("num_key_value_heads", "kv_heads"),
        ("hidden_dim", "d_ff"),
        ("intermediate_size", "d_ff"),
        ("hidden_act", "activation"),
    ];
    NAMES.iter().find(|(name, _)| *name == key).map(|(_, ours)| *ours)
}

/// A TOML string.
pub(in crate::frontend) fn text(value: &str) -> String {
    toml_edit::Value::from(value).to_string()
}

/// What a user wrote, in back-ticks, short and without control characters.
pub(crate) fn quoted(written: &str) -> String {
    const MAX_CHARS: usize = 60;
    let mut shown: String = written.chars().take(MAX_CHARS).flat_map(char::escape_debug).collect();
    if written.chars().nth(MAX_CHARS).is_some() {
        shown.push('…');
    }
    format!("`{shown}`")
}
