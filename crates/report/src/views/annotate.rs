//! The executed instructions of a function, with their source where it is known.

use exitpath_analysis::path::{Executed, Function, RowPath};
use exitpath_recording::{Location, Manifest, Space, Symbol, Trace};

use super::path::{header, with_lean};
use crate::document::{Block, Document, Listed, Listing};
use crate::error::Error;
use crate::format::{of, plain, space};

/// Names proposed for one that is not there.
const PROPOSED: usize = 8;

/// Every executed instruction of the functions of this name, in the order of their addresses, with
/// how often each ran in a round. `⋮` stands for bytes that were not executed.
///
/// `trace` is the one the path is from.
///
/// # Errors
///
/// [`Error::UnknownFunction`] if there is none of that name.
pub fn annotate(
    manifest: &Manifest,
    path: &RowPath,
    trace: &Trace,
    function: &str,
) -> Result<Document, Error> {
    let mut text = header(manifest, path);
    let mut found = false;
    for (i, this) in path.functions.iter().enumerate() {
        if this.name == function {
            found = true;
            let executed: Vec<&Executed> = path
                .instructions
                .iter()
                .filter(|executed| executed.function == i)
                .collect();
            text.space();
            one(&mut text, this, &executed, trace, path.has_skip_emulation());
        }
    }
    if found {
        Ok(text)
    } else {
        Err(Error::UnknownFunction {
            name: plain(function),
            row: plain(&path.row),
            near: near(&path.functions, function),
        })
    }
}

fn one(
    text: &mut Document,
    function: &Function,
    executed: &[&Executed],
    trace: &Trace,
    lean: bool,
) {
    let module = match function.module.as_str() {
        "" => String::new(),
        module => format!(" [{}]", plain(module)),
    };
    text.lines(&format!(
        "{}{module}, {}, {}: own {}, total {}, {}\n",
        plain(&function.name),
        space(function.space),
        plain(&function.phase),
        with_lean(function.own),
        with_lean(function.total),
        of(function.calls.all, "call", "calls"),
    ));
    let mut lines = Lines {
        listing: Listing::default(),
        trace,
        name: &function.name,
        range: None,
        end: None,
        source: &[],
        lean,
    };
    for executed in executed {
        lines.instruction(executed);
    }
    lines.finish();
    text.push(Block::Listing(lines.listing));
}

/// The lines on a function's instructions, and what the last of them was.
struct Lines<'a> {
    listing: Listing,
    trace: &'a Trace,
    /// The function's.
    name: &'a str,
    /// The symbol it lay in: compilers put what they think unlikely into one of its own.
    range: Option<&'a Symbol>,
    /// The address behind it, where its length is known.
    end: Option<u64>,
    /// Its source.
    source: &'a [Location],
    /// Whether to tell what is without skip-emulation.
    lean: bool,
}

impl Lines<'_> {
    fn push(&mut self, line: Listed) {
        self.listing.lines.push(line);
    }

    fn instruction(&mut self, executed: &Executed) {
        let range = symbol(self.trace, executed.space, executed.address);
        if range != self.range {
            self.finish();
            self.range = range;
            if let Some(range) = range.filter(|range| range.name != self.name) {
                self.push(Listed::Symbol(plain(&range.name)));
            }
            self.end = range.map(|range| range.address);
        }
        self.gap(executed.address);
        self.source(executed.id);

        self.push(Listed::Instruction {
            // Its bytes were executed, so that 0 should not happen: it would be a hole.
            times: Some(executed.times.all).filter(|&times| times > 0),
            lean: self.lean.then_some(executed.times.lean),
            address: executed.address,
            offset: range.map(|range| executed.address - range.address),
            text: format!("{}{}", plain(&executed.text), target(self.trace, executed)),
        });
        let bytes = self.trace.instructions.get(executed.id as usize);
        self.end = bytes.map(|i| executed.address.saturating_add(i.bytes.len() as u64));
    }

    /// Says how much was left out before this address.
    fn gap(&mut self, next: u64) {
        let Some(gap) = self.end.and_then(|end| next.checked_sub(end)) else {
            return;
        };
        if gap > 0 {
            self.push(Listed::Gap(gap));
            // What follows was come to from elsewhere: say again where it is.
            self.source = &[];
        }
    }

    /// What is left of the last symbol.
    fn finish(&mut self) {
        if let Some(range) = self.range {
            self.gap(range.address.saturating_add(range.size));
        }
    }
}

impl Lines<'_> {
    /// Says which lines an instruction is from, where those are others than the last one's.
    fn source(&mut self, instruction: u32) {
        let source = locations(self.trace, instruction);
        let same = |(a, b): &(&Location, &Location)| {
            (&a.function, &a.file, a.line) == (&b.function, &b.file, b.line)
        };
        let known = self.source.iter().zip(source).take_while(same).count();
        let changed = if known == source.len() && known < self.source.len() {
            // Back from an inlined function to the very line it is in.
            known.saturating_sub(1)
        } else {
            known
        };
        for location in source.iter().skip(changed) {
            let depth = location.depth.min(20) as usize;
            let place = match (location.file.as_str(), location.line) {
                ("", _) => String::new(),
                (file, 0) => plain(file),
                (file, line) => format!("{}:{line}", plain(file)),
            };
            let name = plain(&location.function);
            let what = match (depth, place.as_str()) {
                (0, "") => continue,
                (0, place) => place.to_owned(),
                (_, "") => format!("inlined {name}"),
                (_, place) => format!("inlined {name}, {place}"),
            };
            self.push(Listed::Source(depth, what));
        }
        self.source = source;
    }
}

/// The source lines of an instruction, outermost first.
fn locations(trace: &Trace, instruction: u32) -> &[Location] {
    let locations = &trace.locations;
    let from = locations.partition_point(|location| location.instruction < instruction);
    let to = locations.partition_point(|location| location.instruction <= instruction);
    locations.get(from..to).unwrap_or_default()
}

/// The symbol that an address lies in.
fn symbol(trace: &Trace, space: Space, address: u64) -> Option<&Symbol> {
    let behind = trace
        .symbols
        .partition_point(|symbol| (symbol.space, symbol.address) <= (space, address));
    let symbol = trace.symbols.get(behind.checked_sub(1)?)?;
    let inside = symbol.space == space && address - symbol.address < symbol.size;
    inside.then_some(symbol)
}

/// Where a jump or a call goes, as ` <name+0x…>`, if it says an address and that has a name.
fn target(trace: &Trace, executed: &Executed) -> String {
    let text = executed.text.as_str();
    let operand = text.split_whitespace().next_back().unwrap_or_default();
    let address = operand
        .strip_prefix("0x")
        .filter(|_| text.starts_with("call") || text.starts_with('j'))
        .and_then(|digits| u64::from_str_radix(digits, 16).ok());
    let Some((address, symbol)) =
        address.and_then(|address| Some((address, symbol(trace, executed.space, address)?)))
    else {
        return String::new();
    };
    match address - symbol.address {
        0 => format!(" <{}>", plain(&symbol.name)),
        offset => format!(" <{}+{offset:#x}>", plain(&symbol.name)),
    }
}

/// Names that contain the one asked for or differ in a few letters, the nearest first; where there
/// are none, those with most instructions.
fn near(functions: &[Function], name: &str) -> Vec<String> {
    let wanted = name.to_lowercase();
    let mut near: Vec<(usize, &str)> = functions
        .iter()
        .filter_map(|function| {
            let other = function.name.to_lowercase();
            let distance = distance(&wanted, &other);
            let related =
                !wanted.is_empty() && (other.contains(&wanted) || wanted.contains(&other));
            (related || distance <= wanted.chars().count() / 3)
                .then_some((distance, &*function.name))
        })
        .collect();
    near.sort();
    let mut names: Vec<String> = Vec::new();
    let most = functions.iter().map(|function| &*function.name);
    let proposed: Vec<&str> = match near.as_slice() {
        [] => most.collect(),
        near => near.iter().map(|&(_, name)| name).collect(),
    };
    for name in proposed.into_iter().map(plain) {
        if !names.contains(&name) && names.len() < PROPOSED {
            names.push(name);
        }
    }
    names
}

/// Letters to insert, remove or exchange to make one word of the other (Levenshtein).
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.chars().enumerate() {
        let mut diagonal = i;
        let mut left = i + 1;
        for (j, y) in b.iter().enumerate() {
            let above = row[j + 1];
            let exchanged = diagonal + usize::from(x != *y);
            row[j] = left;
            left = exchanged.min(above + 1).min(left + 1);
            diagonal = above;
        }
        row[b.len()] = left;
    }
    row.last().copied().unwrap_or_default()
}
