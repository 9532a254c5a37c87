//! What depends on the architecture of the lab's machine, each in a module of its own: a lab of another
//! architecture than this machine's is none that differs by `cfg`.

pub mod x86_64;
