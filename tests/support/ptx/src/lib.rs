//! An executable model of PTX: loads a kernel's text, runs it on the CPU over real buffers, and finds what a GPU would
//! only show as a wrong number or a hang.

pub mod decode;
pub mod flow;
pub mod forms;
pub mod isa;
pub mod machine;
pub mod op;
pub mod registers;
pub mod syntax;
