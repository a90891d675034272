//! Random numbers by place: no state, so that nothing depends on who draws first.

/// Output `place` of SplitMix64 (Steele et al. 2014) in a stream of its own.
pub(crate) fn random(seed: u64, stream: u64, place: u64) -> u64 {
    const GOLDEN: u64 = 0x9E37_79B9_7F4A_7C15;
    let mix = |z: u64| {
        let z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    };
    let state = mix(mix(seed.wrapping_add(GOLDEN)).wrapping_add(stream.wrapping_mul(GOLDEN)));
    mix(state.wrapping_add(place.wrapping_add(1).wrapping_mul(GOLDEN)))
}
