//! Reals as JSON can hold them, which has no infinities: those are written as text.

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use crate::pointwise::Real;

#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum Written {
    Finite(f64),
    /// `inf`, `-inf` or `NaN`.
    Other(String),
}

pub(crate) fn serialize<S: Serializer>(real: &Real, serializer: S) -> Result<S::Ok, S::Error> {
    let written = if real.is_finite() { Written::Finite(real.0) } else { Written::Other(real.0.to_string()) };
    written.serialize(serializer)
}

pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Real, D::Error> {
    match Written::deserialize(deserializer)? {
        Written::Finite(real) => Ok(real.into()),
        Written::Other(text) => text.parse::<f64>().map(Real::from).map_err(de::Error::custom),
    }
}
