//! Where things are, inside a lab and between it and its machine.

/// Folder of the modules in the initramfs.
pub const MODULES: &str = "/lab/modules";
/// The list of the modules to load, in order: a line `NAME PARAMETERS` each, whose file is `NAME.ko` in [`MODULES`].
pub const ORDER: &str = "/lab/order";
/// What became of the modules: a line `NAME ERROR` each, with the error's number, 0 for none.
pub const LOADED: &str = "/lab/loaded";
/// The program that goes on once the payload is unpacked.
pub const INIT: &str = "/init";
/// Name of the payload among the files of QEMU's firmware configuration.
pub const PAYLOAD: &str = "opt/org.exitpath/payload";
/// Name of the plan among them, for a program that stops until it has one.
pub const PLAN: &str = "opt/org.exitpath/plan";
/// What is in the place of either while there is none.
pub const NOTHING: &[u8] = b"none";
/// The port of the console of results.
pub const CONSOLE_PORT: u16 = 0xe9;
/// The port by which the machine is stopped, and what is written to it (QEMU's `docs/specs/pvpanic.rst`).
pub const STOP_PORT: u16 = 0x505;
/// See [`STOP_PORT`].
pub const STOP: u8 = 1;
/// The first port of QEMU's firmware configuration: what is selected. Behind it the port to read, and from 4 on where
/// the device is told what to write where.
pub const FIRMWARE_PORT: u16 = 0x510;
