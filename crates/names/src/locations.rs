//! The source lines of a recording's instructions.

use exitpath_recording::{Instruction, Location, Space, Symbol};

use crate::cover::contains;
use crate::error::Result;
use crate::lines::Lines;

/// The places of instructions in source code, ordered by instruction and depth, as
/// [`exitpath_recording::Trace`] wants them.
///
/// `symbols` are the recording's, as [`crate::cover`] gives them. Each instruction is looked up in
/// the first of `lines` that has it; those that are in a symbol of the guest are left out, as they
/// would be taken for what the user has at the same address. Where debug information does not name
/// the function that an instruction is in (assembly, mostly), its symbol does.
///
/// # Errors
/// [`crate::Error::BadDebugInformation`].
pub fn locations(
    instructions: &[Instruction],
    symbols: &[Symbol],
    lines: &[Lines],
) -> Result<Vec<Location>> {
    let mut locations = Vec::new();
    for (id, instruction) in (0..).zip(instructions) {
        let address = instruction.address;
        if symbol_at(symbols, Space::Guest, address).is_some() {
            continue;
        }
        let mut frames = Vec::new();
        for file in lines {
            frames = file.locate(address)?;
            if !frames.is_empty() {
                break;
            }
        }
        for (depth, frame) in (0..).zip(frames) {
            let function = match frame.function.as_str() {
                "" if depth == 0 => [Space::Kernel, Space::User]
                    .into_iter()
                    .find_map(|space| symbol_at(symbols, space, address))
                    .map_or_else(String::new, |symbol| symbol.name.clone()),
                _ => frame.function,
            };
            locations.push(Location {
                instruction: id,
                depth,
                function,
                file: frame.file,
                line: frame.line,
            });
        }
    }
    Ok(locations)
}

/// The symbol that an address lies in.
fn symbol_at(symbols: &[Symbol], space: Space, address: u64) -> Option<&Symbol> {
    let behind = symbols.partition_point(|s| (s.space, s.address) <= (space, address));
    let symbol = symbols.get(behind.checked_sub(1)?)?;
    (symbol.space == space && contains(symbol, address)).then_some(symbol)
}
