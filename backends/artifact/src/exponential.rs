//! The numbers of the exponential and of what is made of it, in f32 without fused multiply-adds. The runtime's helpers and
//! code that LLVM makes compute the same formulas from them and give the same bits.

/// `1.5 · 2²³`: a number of this size has a last place of 1, so adding it rounds to an integer, whose two's
/// complement then stands in the low bits.
pub const ROUNDER: f32 = 12_582_912.0;

/// `ln 2` in two parts: nine bits, so that products with exponents are exact, and the rest.
pub const LN_2: [f32; 2] = [355.0 / 512.0, -2.121_944_4e-4];

/// Minimax polynomial for `(eʳ − 1 − r) / r²` with weight `r² / eʳ` on `|r| ≤ 0.5025 · ln 2`; the error of `eʳ` stays
/// below `2⁻²⁸` of its value. Highest power first.
pub const EXP_TAIL: [f32; 5] = [0.001_381_388, 0.008_369_064, 0.041_668_423, 0.166_665_18, 0.499_999_94];

/// Below, `|x| · e^x` is 0 in f32; further down, exponents would no longer fit.
pub const EXP_LOW: f32 = -110.0;

/// Down to here `e^x` is a normal number with some room.
pub const EXP_NORMAL: f32 = -86.5;

/// `c + c₃ · x²` times `x` is `2u` of GELU, `u = √(2/π) · (x + 0.044715 x³)`; `c` and `c₃`.
pub const GELU: [f32; 2] = [ROOT as f32, (ROOT * 0.044_715) as f32];

/// `√(8/π)`.
const ROOT: f64 = 1.595_769_121_605_730_7;

/// `tanh x = x + x³ · p(x²)` below [`TANH_SMALL`]; highest power first (Moshier, Cephes, single precision).
pub const TANH: [f32; 5] = [-0.005_704_988_7, 0.020_639_088, -0.053_739_715, 0.133_314_42, -0.333_332_8];

/// From here on `1 − 2t / (1 + t)` with `t = e^−2|x|` loses nothing.
pub const TANH_SMALL: f32 = 0.625;

/// `erfc z = t · e^(p(t) − z²)` with `t = 1 / (1 + z / 2)`, within `1.2e-7` of its value for every `z ≥ 0`; highest power
/// first (Press et al., Numerical Recipes, 6.2).
pub const ERFC: [f32; 10] = [
    0.170_872_77,
    -0.822_152_23,
    1.488_515_9,
    -1.135_204,
    0.278_868_07,
    -0.186_288_06,
    0.096_784_18,
    0.374_091_96,
    1.000_023_7,
    -1.265_512_2,
];

/// A line `a − b · s` within 0.05 of `1 / s` for `s` from 1 to 2; `a` and `b`.
pub const RECIPROCAL: [f32; 2] = [1.457, 0.5];
