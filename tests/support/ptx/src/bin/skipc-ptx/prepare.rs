//! From the command line to memory and a launch.

use skipc_ptx::isa::tensor_map::{DataType, Fill, TensorMap, Tiled};
use skipc_ptx::machine::{Arg, Buffer, Launch, Memory};
use skipc_ptx::syntax::Kernel;

use crate::Cli;
use crate::argument::{ArgumentSpec, MapSpec, Value};
use crate::data::{self, Element, Shape};
use crate::failure::Failure;

/// A buffer, as the command line knows it. Its place in the list is that in memory.
pub(crate) struct Named {
    pub(crate) name: String,
    pub(crate) kind: Option<(Element, Shape)>,
    address: u64,
    bytes: u64,
    /// Index of the argument that passes it.
    argument: Option<usize>,
}

/// All that a run begins with.
pub(crate) struct Prepared {
    pub(crate) kernel: String,
    pub(crate) launch: Launch,
    pub(crate) memory: Memory,
    pub(crate) buffers: Vec<Named>,
}

impl Prepared {
    /// Index of a buffer.
    pub(crate) fn buffer(&self, name: &str) -> Result<usize, Failure> {
        let found = self.buffers.iter().position(|buffer| buffer.name == name);
        found.ok_or_else(|| unknown_buffer(name, &self.buffers))
    }
}

fn unknown_buffer(name: &str, buffers: &[Named]) -> Failure {
    let names: Vec<&str> = buffers.iter().map(|buffer| buffer.name.as_str()).collect();
    let help = match names[..] {
        [] => "no argument is a buffer".to_owned(),
        _ => format!("the buffers are {}; name one with `--arg NAME=SPEC`", names.join(", ")),
    };
    Failure::new(format!("unknown buffer `{name}`")).help(help)
}

pub(crate) fn prepare(cli: &Cli, kernel: &Kernel) -> Result<Prepared, Failure> {
    if cli.arg.len() != kernel.params.len() {
        let what =
            format!("`{}` takes {} arguments, {} are given", kernel.name, kernel.params.len(), cli.arg.len());
        return Err(
            Failure::new(what).help(format!("its parameters are\n{}", crate::list::parameters(kernel)))
        );
    }
    let mut making = Making { memory: Memory::default(), buffers: Vec::new(), seed: cli.data_seed };
    for spec in &cli.buffer {
        let Some(name) = &spec.name else {
            return Err(Failure::new("a --buffer needs a name").help("write `--buffer NAME=SPEC`"));
        };
        if !matches!(spec.value, Value::Buffer(_)) {
            return Err(
                Failure::new(format!("`{name}` is not a buffer")).help("numbers and maps are for --arg")
            );
        }
        making.argument(spec, name, None)?;
    }
    let mut args = Vec::new();
    for (idx, (spec, param)) in cli.arg.iter().zip(&kernel.params).enumerate() {
        let name = spec.name.as_ref().unwrap_or(&param.name);
        let (arg, bytes) = making.argument(spec, name, Some(idx))?;
        if bytes != param.bytes {
            let what =
                format!("argument {idx} has {bytes} bytes, parameter `{}` has {}", param.name, param.bytes);
            let help = match param.bytes {
                4 => "write u32:, i32: or f32:",
                8 => "write u64:, i64: or a buffer",
                128 => "write map:BUFFER,TYPE,ROWSxCOLS,BOXROWSxBOXCOLS,SWIZZLE",
                _ => "no kind of argument has so many bytes",
            };
            return Err(Failure::new(what).help(help));
        }
        args.push(arg);
    }
    let Some(block) = cli.block.map(|extent| extent.0).or(kernel.threads) else {
        let what = format!("`{}` does not say how many threads a block has (.reqntid)", kernel.name);
        return Err(Failure::new(what).help("say it with --block, such as `--block 128`"));
    };
    let grid = cli.grid.0;
    let launch = Launch { grid, block, dynamic_shared: cli.shared, args, seed: 0, patience: cli.patience };
    Ok(Prepared { kernel: kernel.name.clone(), launch, memory: making.memory, buffers: making.buffers })
}

struct Making {
    memory: Memory,
    buffers: Vec<Named>,
    seed: u64,
}

impl Making {
    /// The argument with its number of bytes; a buffer is put into memory.
    fn argument(
        &mut self,
        spec: &ArgumentSpec,
        name: &str,
        argument: Option<usize>,
    ) -> Result<(Arg, u32), Failure> {
        match &spec.value {
            Value::Word(bits) => Ok((Arg::U32(*bits), 4)),
            Value::Double(bits) => Ok((Arg::U64(*bits), 8)),
            Value::Map(map) => self.map(map).map(|bytes| (Arg::Bytes(bytes), 128)),
            Value::Buffer(buffer) => {
                if self.buffers.iter().any(|other| other.name == name) {
                    return Err(Failure::new(format!("two buffers have the name `{name}`")));
                }
                // Buffers of one shape should not hold the same numbers.
                let seed = self.seed.wrapping_mul(0x9E37_79B9).wrapping_add(self.buffers.len() as u64 + 1);
                let made = data::make(buffer, seed.wrapping_mul(0x9E37_79B9_7F4A_7C15))?;
                let bytes = made.bytes.len() as u64;
                let in_memory =
                    Buffer { name: name.to_owned(), bytes: made.bytes, writable: buffer.writable };
                let address = self.memory.add(in_memory);
                self.buffers.push(Named { name: name.to_owned(), kind: made.kind, address, bytes, argument });
                Ok((Arg::U64(address), 8))
            }
        }
    }

    fn map(&self, map: &MapSpec) -> Result<Vec<u8>, Failure> {
        let index = map.buffer.parse().ok();
        let named =
            |buffer: &&Named| buffer.name == map.buffer || (index.is_some() && buffer.argument == index);
        let Some(buffer) = self.buffers.iter().find(named) else {
            return Err(unknown_buffer(&map.buffer, &self.buffers));
        };
        let [rows, cols] = map.shape;
        let size = map.element.bytes() as u64;
        let wanted = rows.checked_mul(cols).and_then(|n| n.checked_mul(size));
        if wanted.is_none_or(|wanted| wanted > buffer.bytes) {
            let what = format!(
                "a map of {rows}x{cols} {} over `{}`, which has {} bytes",
                map.element.name(),
                buffer.name,
                buffer.bytes
            );
            return Err(Failure::new(what).help("make the buffer larger, or the map smaller"));
        }
        let data_type = match map.element {
            Element::Bf16 => DataType::Bfloat16,
            Element::F16 => DataType::Float16,
            Element::F32 => DataType::Float32,
            Element::U32 => DataType::Uint32,
        };
        let encoded = TensorMap::encode(&Tiled {
            data_type,
            global_address: buffer.address,
            global_dim: &[cols, rows],
            global_strides: &[cols * size],
            box_dim: &[map.tile[1], map.tile[0]],
            element_strides: &[1, 1],
            swizzle: map.swizzle,
            fill: Fill::Zero,
        });
        match encoded {
            Ok(map) => Ok(map.to_bytes().to_vec()),
            Err(error) => Err(Failure::new(format!("the map over `{}`: {error}", buffer.name))
                .help("dimension 0 is the columns, dimension 1 the rows")),
        }
    }
}
