//! Every kernel kind as compiled code, checked by the plan's kernel interpreter.
//!
//! The object goes the way it goes in an artefact: laid into an image, mapped, called through the ABI. Outputs are
//! poisoned, operands stand between guards, and tiles run all at once, one by one backwards, and on two threads.

mod attention;
mod case;
mod compact;
mod functions;
mod gemm;
mod object;
mod rowwise;
