//! What is special about a function: a set of these. Which function has which is the architecture's to say.

/// Passes control on and is no function of its own: a retpoline or a static call's trampoline.
pub(crate) const THUNK: u32 = 1 << 0;
/// Entered by an interrupt or an exception, through the IDT.
pub(crate) const IDT: u32 = 1 << 1;
/// Entered by an exception.
pub(crate) const EXCEPTION: u32 = 1 << 2;
/// Holds many entries of the IDT, one every few bytes.
pub(crate) const STUBS: u32 = 1 << 3;
/// Changes the kernel stack for another thread's.
pub(crate) const SWITCH: u32 = 1 << 4;
/// Moves the guest behind an instruction by emulating it, for lack of NRIPS.
pub(crate) const SKIPS: u32 = 1 << 5;
/// The instruction emulator.
pub(crate) const EMULATES: u32 = 1 << 6;
/// Handles an exit that came between two instructions.
pub(crate) const INTERRUPT_EXIT: u32 = 1 << 7;
/// Handles an exit for a nested page fault.
pub(crate) const MEMORY_EXIT: u32 = 1 << 8;
/// Handles an exit for an exception of the guest.
pub(crate) const EXCEPTION_EXIT: u32 = 1 << 9;
/// An exit handler by the table of phases.
pub(crate) const HANDLER: u32 = 1 << 10;
/// The guest's bracket.
pub(crate) const BRACKET: u32 = 1 << 11;
/// Has no name.
pub(crate) const UNNAMED: u32 = 1 << 12;
/// Hands over to the emulator what hardware with decode assists would have decoded.
pub(crate) const DECODE_ASSISTS: u32 = 1 << 13;
/// Fetches the guest's instruction from its memory.
pub(crate) const FETCHES: u32 = 1 << 14;
/// What functions jump to instead of returning, and the pieces of it.
pub(crate) const RETURN_THUNK: u32 = 1 << 15;
/// Calls the handler of an exit. For an interrupt's there is nothing to call: it was inlined.
pub(crate) const DISPATCHES: u32 = 1 << 16;
/// Any of those that decide something when they are entered.
pub(crate) const ON_ENTRY: u32 =
    INTERRUPT_EXIT | MEMORY_EXIT | EXCEPTION_EXIT | HANDLER | DISPATCHES;
