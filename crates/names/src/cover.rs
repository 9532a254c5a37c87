//! Of many symbols, those that a recording's instructions lie in.

use std::cmp::Reverse;

use exitpath_recording::{Instruction, Space, Symbol};

use crate::alias;

/// The symbols that some instruction lies in, ordered by space and address, without overlap
/// within a space: what [`exitpath_recording::Trace`] wants.
///
/// An address with its sign bit set is the kernel's. Any other is the guest's or the user's, which
/// an address alone does not tell: symbols of both are kept if it lies in them. Instructions count
/// by their first byte.
///
/// Where symbols overlap, one that lies within another is dropped, and one that another begins
/// inside of ends there. Of two with the same range the better name is kept, as in [`crate::elf`].
pub fn cover(symbols: Vec<Symbol>, instructions: &[Instruction]) -> Vec<Symbol> {
    let mut addresses: Vec<u64> = instructions.iter().map(|i| i.address).collect();
    addresses.sort_unstable();
    let mut symbols = resolve(symbols);
    symbols.retain(|symbol| {
        let at_or_behind = addresses.partition_point(|address| *address < symbol.address);
        addresses.get(at_or_behind).is_some_and(|address| {
            let in_kernel = address.cast_signed() < 0;
            in_kernel == (symbol.space == Space::Kernel) && contains(symbol, *address)
        })
    });
    symbols
}

/// Orders symbols and takes their overlaps away.
pub(crate) fn resolve(mut symbols: Vec<Symbol>) -> Vec<Symbol> {
    symbols.sort_by(|a, b| {
        let key = |s: &Symbol| (s.space, s.address, Reverse(s.size));
        let order = key(a).cmp(&key(b));
        let order = order.then_with(|| alias::compare((&a.name, true), (&b.name, true)));
        order.then_with(|| a.module.cmp(&b.module))
    });
    let mut kept: Vec<Symbol> = Vec::with_capacity(symbols.len());
    // Sorted by start, so that whatever overlaps the next one overlaps the last that was kept:
    // the ends of those kept only grow.
    for symbol in symbols {
        if symbol.size == 0 {
            continue;
        }
        if let Some(last) = kept.last_mut().filter(|last| last.space == symbol.space) {
            if end(&symbol) <= end(last) {
                continue;
            }
            // Not 0: of two with one start the longer came first.
            last.size = last.size.min(symbol.address - last.address);
        }
        kept.push(symbol);
    }
    kept
}

pub(crate) fn contains(symbol: &Symbol, address: u64) -> bool {
    address >= symbol.address && address - symbol.address < symbol.size
}

fn end(symbol: &Symbol) -> u64 {
    symbol.address.saturating_add(symbol.size)
}
