//! A call of a function on the PTX machine, by roles.

use skipc_artifact::interface::{Binding, Role};
use skipc_artifact::program::SCORE;

use super::ptx_model::{Memories, PtxModel};

impl PtxModel {
    /// As the runtime's call on a state: the bytes of these roles, for the inputs that a caller gives, of `SCORE`.
    pub(crate) fn call_roles(
        &self,
        (n, given): (u32, &[(Role, Vec<u8>)]),
        wanted: &[Role],
        memories: &mut Memories,
        seed: u64,
    ) -> Vec<Vec<u8>> {
        let function = self.function(SCORE);
        let interface = &function.interface;
        let mut inputs = vec![
            (Role::TokenCount, n.to_le_bytes().to_vec()),
            (Role::UseForced, vec![0; 4]),
            (Role::UseForcedChoices, vec![0; 4]),
        ];
        for (role, bytes) in given {
            let Role::Input { name } = role else { continue };
            if interface.given_set(role).is_none() {
                continue;
            }
            let mut mask = vec![0; n as usize];
            bytes.as_chunks().0.iter().for_each(|row| mask[u32::from_le_bytes(*row) as usize] = 1);
            let count = (bytes.len() as u32 / 4).to_le_bytes().to_vec();
            inputs.push((Role::SetCount { name: name.clone() }, count));
            inputs.push((Role::SetMask { name: name.clone() }, mask));
        }
        inputs.extend(given.iter().cloned());
        self.begin(function, n, &inputs, memories);
        self.steps(function, memories, seed);
        let mut result = |role: &Role| {
            let idx = match interface.binding(role) {
                Some(Binding::Buffer(idx)) => idx,
                Some(Binding::Always(executes)) => return vec![u8::from(executes); n as usize],
                None => panic!("no port `{role}`"),
            };
            let rows = interface.count(role).map_or(n, |count| {
                let word = self.used(function, count, n, memories);
                u32::from_le_bytes(word.try_into().expect("a count"))
            });
            self.used(function, idx, rows, memories)
        };
        wanted.iter().map(&mut result).collect()
    }
}
