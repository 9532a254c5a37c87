//! Which function an instruction belongs to, and what is special about some functions.

use std::collections::{HashMap, HashSet};

use exitpath_recording::{Space, Symbol, Trace, trace};

use super::arch::{Decoded, Flow, kernel_traits};
use super::phases::PhaseTable;
use super::traits;

/// Position of a function among [`Functions`].
pub(super) type FunctionId = u32;

/// The guest, as what VMRUN enters.
pub(super) const GUEST: FunctionId = 0;
/// Whatever the guest runs at addresses of the kernel's half without a name.
const GUEST_KERNEL: FunctionId = 1;

/// Unnamed instructions further apart than this, in bytes, are different functions: what was not
/// executed leaves gaps.
const GAP: u64 = 256;

/// A function, whatever it is named by.
#[derive(Debug, Clone)]
pub(super) struct FunctionInfo {
    pub(super) name: String,
    pub(super) module: String,
    pub(super) space: Space,
    pub(super) traits: u32,
    /// Its phase by the table: usually, and between an exit and its handler.
    pub(super) phase: [Option<usize>; 2],
}

impl FunctionInfo {
    pub(super) fn is(&self, traits: u32) -> bool {
        self.traits & traits != 0
    }
}

/// Where an instruction belongs.
#[derive(Debug, Clone, Copy)]
pub(super) struct Place {
    /// Its function if the host executes it.
    pub(super) host: FunctionId,
    /// Its function if the guest does.
    pub(super) guest: FunctionId,
    /// Whether it is its host function's first instruction.
    pub(super) starts: bool,
    /// Bytes from the beginning of its host function, or of the part of it that it is in.
    pub(super) offset: u64,
    /// Bytes from the beginning of its guest function.
    pub(super) guest_offset: u64,
    /// Whether it is in a part of its host function that the compiler has moved out of it.
    pub(super) cold: bool,
}

/// All functions of a trace.
pub(super) struct Functions {
    pub(super) infos: Vec<FunctionInfo>,
    /// By name, so that parts of one function (`foo` and `foo.cold`) are one.
    ids: HashMap<(Space, String, String), FunctionId>,
}

impl Functions {
    /// The functions of a trace, and of each instruction the ones it belongs to.
    pub(super) fn new(
        trace: &Trace,
        decoded: &[Decoded],
        used: &[bool],
        phases: &PhaseTable,
    ) -> (Functions, Vec<Place>) {
        let mut functions = Functions {
            infos: Vec::new(),
            ids: HashMap::new(),
        };
        functions.id(Space::Guest, trace::GUEST, trace::GUEST, 0);
        functions.id(
            Space::Guest,
            trace::GUEST,
            "0x8000000000000000",
            traits::UNNAMED,
        );
        let nowhere = Place {
            host: GUEST,
            guest: GUEST_KERNEL,
            starts: false,
            offset: 0,
            guest_offset: 0,
            cold: false,
        };
        let mut places = vec![nowhere; decoded.len()];
        let used: Vec<(usize, &Decoded)> = std::iter::zip(decoded, used)
            .enumerate()
            .filter(|(_, (_, used))| **used)
            .map(|(id, (decoded, _))| (id, decoded))
            .collect();
        functions.place_host(trace, &used, &mut places);
        functions.place_guest(trace, &used, &mut places);
        for info in &mut functions.infos {
            let phase = |exited| {
                phases.of(
                    named(&info.name, info.traits),
                    &info.module,
                    info.space,
                    exited,
                )
            };
            info.phase = [phase(false), phase(true)];
            if info.phase[0].is_some_and(|phase| phases.is_handler(phase)) {
                info.traits |= traits::HANDLER;
            }
        }
        (functions, places)
    }

    fn id(&mut self, space: Space, module: &str, name: &str, special: u32) -> FunctionId {
        let key = (space, module.to_owned(), name.to_owned());
        let infos = &mut self.infos;
        *self.ids.entry(key).or_insert_with(|| {
            infos.push(FunctionInfo {
                name: name.to_owned(),
                module: module.to_owned(),
                space,
                traits: special | traits_of(name, space),
                phase: [None; 2],
            });
            infos.len() as FunctionId - 1
        })
    }

    fn place_host(&mut self, trace: &Trace, used: &[(usize, &Decoded)], places: &mut [Place]) {
        let spaces = [Space::User, Space::Kernel].map(|space| Symbols::new(trace, space));
        let mut unnamed = Vec::new();
        let mut of_symbol = HashMap::new();
        for &(id, instruction) in used {
            let kernel = instruction.in_kernel();
            match spaces[usize::from(kernel)].find(instruction.address) {
                Ok(symbol) => {
                    let name = base_name(&symbol.name);
                    let function = *of_symbol
                        .entry(std::ptr::from_ref(symbol))
                        .or_insert_with(|| self.id(symbol.space, &symbol.module, name, 0));
                    let first = symbol.address == instruction.address;
                    places[id].host = function;
                    places[id].starts = first && name == symbol.name;
                    places[id].offset = instruction.address - symbol.address;
                    places[id].cold = name != symbol.name;
                }
                Err(behind) => unnamed.push((instruction, kernel, behind, id)),
            }
        }
        for (id, address, start) in regions(unnamed, used) {
            let space = if start >> 63 == 1 {
                Space::Kernel
            } else {
                Space::User
            };
            places[id].host = self.id(space, "", &format!("{start:#x}"), traits::UNNAMED);
            places[id].starts = address == start;
            places[id].offset = address.wrapping_sub(start);
        }
    }

    fn place_guest(&mut self, trace: &Trace, used: &[(usize, &Decoded)], places: &mut [Place]) {
        let symbols = Symbols::new(trace, Space::Guest);
        let mut unnamed = Vec::new();
        for &(id, instruction) in used {
            match symbols.find(instruction.address) {
                Ok(symbol) => {
                    places[id].guest = self.id(Space::Guest, &symbol.module, &symbol.name, 0);
                    places[id].guest_offset = instruction.address - symbol.address;
                }
                Err(_) if instruction.in_kernel() => places[id].guest = GUEST_KERNEL,
                Err(behind) => unnamed.push((instruction, false, behind, id)),
            }
        }
        for (id, address, start) in regions(unnamed, used) {
            let name = format!("{start:#x}");
            places[id].guest = self.id(Space::Guest, trace::GUEST, &name, traits::UNNAMED);
            places[id].guest_offset = address.wrapping_sub(start);
        }
    }
}

/// The symbols of one space, by address.
struct Symbols<'a> {
    sorted: Vec<&'a Symbol>,
}

impl<'a> Symbols<'a> {
    fn new(trace: &'a Trace, space: Space) -> Symbols<'a> {
        let mut sorted: Vec<&Symbol> = trace.symbols.iter().filter(|s| s.space == space).collect();
        sorted.sort_by_key(|symbol| symbol.address);
        Symbols { sorted }
    }

    /// The symbol an address is in, or else the number of symbols before it.
    fn find(&self, address: u64) -> Result<&'a Symbol, usize> {
        let behind = self
            .sorted
            .partition_point(|symbol| symbol.address <= address);
        match behind.checked_sub(1).map(|last| self.sorted[last]) {
            Some(symbol) if address - symbol.address < symbol.size => Ok(symbol),
            _ => Err(behind),
        }
    }
}

/// Makes functions of instructions without a name, each given with whether it is in the kernel, symbols
/// before it, and its id: those close together with no symbol between and none of them the target of a
/// call. Gives id, address, and the address of the function's first one.
fn regions(
    mut unnamed: Vec<(&Decoded, bool, usize, usize)>,
    used: &[(usize, &Decoded)],
) -> Vec<(usize, u64, u64)> {
    unnamed.sort_unstable_by_key(|&(decoded, kernel, behind, id)| {
        (decoded.address, kernel, behind, id)
    });
    let calls = used.iter().filter(|(_, d)| d.flow == Flow::Call);
    let called: HashSet<u64> = if unnamed.is_empty() {
        HashSet::new()
    } else {
        calls.map(|(_, call)| call.target).collect()
    };
    let mut start = 0;
    let mut last: Option<(u64, bool, usize)> = None;
    let place = |(decoded, kernel, behind, id): (&Decoded, bool, usize, usize)| {
        let address = decoded.address;
        let goes_on = last.is_some_and(|(end, in_kernel, symbols)| {
            let near = address < end || address - end < GAP;
            near && in_kernel == kernel && symbols == behind && !called.contains(&address)
        });
        // Two instructions may be at one address: code that was changed, or guest and host.
        if !goes_on && address != start {
            start = address;
        }
        last = Some((decoded.next, kernel, behind));
        (id, address, start)
    };
    unnamed.into_iter().map(place).collect()
}

/// The function a symbol is part of: compilers move what is seldom executed out of `foo` into
/// `foo.cold`.
fn base_name(name: &str) -> &str {
    let mut base = name;
    while let Some(at) = base.rfind(".cold") {
        let rest = &base[at + ".cold".len()..];
        let number = rest.strip_prefix('.').unwrap_or(rest);
        if at == 0 || !number.bytes().all(|c| c.is_ascii_digit()) {
            break;
        }
        base = &base[..at];
    }
    base
}

/// What the table of phases is asked with: an address is no name.
fn named(name: &str, special: u32) -> &str {
    if special & traits::UNNAMED != 0 {
        "0x"
    } else {
        name
    }
}

fn traits_of(name: &str, space: Space) -> u32 {
    match space {
        Space::Guest if name == trace::BRACKET => traits::BRACKET,
        Space::Guest => 0,
        Space::User if name.ends_with("@plt") => traits::THUNK,
        Space::User => 0,
        Space::Kernel => kernel_traits(name),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cold_parts_belong_to_their_function() {
        for (name, base) in [
            ("foo", "foo"),
            ("foo.cold", "foo"),
            ("foo.cold.12", "foo"),
            ("foo.part.0.cold", "foo.part.0"),
            ("foo.constprop.0", "foo.constprop.0"),
            ("foo.colder", "foo.colder"),
            (".cold", ".cold"),
        ] {
            assert_eq!(base_name(name), base);
        }
    }
}
