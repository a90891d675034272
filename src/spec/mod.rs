//! The spec frontend: model spec (TOML) and weights (safetensors) to a resolved [`Model`](model::Model).

pub mod model;
