//! The kernel's own list of its symbols.

use exitpath_recording::{Space, Symbol};

use crate::alias;
use crate::error::{Error, Result};

/// Name of the module of what is in the kernel's image.
pub const VMLINUX: &str = "vmlinux";

/// Most bytes of a symbol that none of the same module follows. Longer than any function; what is
/// behind a module's last function is padding or data and not executed.
const LONGEST_LAST: u64 = 64 << 10;

/// One line, of whatever kind of symbol.
struct Line<'a> {
    address: u64,
    /// nm's letter.
    kind: char,
    name: &'a str,
    module: &'a str,
}

/// The functions in the text of `/proc/kallsyms`, in the order of their addresses, without overlap.
///
/// Functions are the symbols of kinds `t`, `T`, `w` and `W` (text and weak; `v` and `V` are weak
/// data), without the marks that a linker script sets at the ends of sections, such as `_stext`,
/// `_etext` and `__noinstr_text_start`. Labels inside of assembly, such as
/// `entry_SYSCALL_64_after_hwframe`, cannot be told from functions and are taken for such.
///
/// A list without sizes: a symbol reaches up to the next one of any kind, mark or module, and the
/// last one of a module over at most 64 KiB. Of several names of an address, one without
/// `__pfx_`, `__cfi_` and `__UNIQUE_ID_` is taken before one with, then one that is no piece
/// (`f.cold`), then a global one (in a module: an exported one), then the one with fewer leading
/// underscores, then the shorter one, then the alphabetically first one.
///
/// # Errors
/// [`Error::HiddenAddresses`] if all addresses are 0, [`Error::NoKernelSymbols`] if there is no
/// function in the text. Lines that are none of kallsyms' are passed over.
pub fn kallsyms(text: &str) -> Result<Vec<Symbol>> {
    let mut lines: Vec<Line<'_>> = text.lines().filter_map(parse).collect();
    let functions = lines.iter().filter(|line| is_function(line));
    if functions.clone().next().is_none() {
        let why = match lines.len() {
            0 => "it is empty".to_owned(),
            n => format!("it has {n} other symbols"),
        };
        return Err(Error::NoKernelSymbols { why });
    }
    if functions.clone().all(|line| line.address == 0) {
        return Err(Error::HiddenAddresses);
    }
    // At one address the functions come first, the best name of them at the front.
    lines.sort_by(|a, b| {
        let order = a.address.cmp(&b.address);
        let order = order.then_with(|| is_function(b).cmp(&is_function(a)));
        order.then_with(|| alias::compare((a.name, is_global(a)), (b.name, is_global(b))))
    });
    let mut symbols = Vec::new();
    let mut groups = lines.chunk_by(|a, b| a.address == b.address).peekable();
    while let Some(group) = groups.next() {
        let best = &group[0];
        if !is_function(best) || best.address == 0 {
            continue;
        }
        let next = groups.peek().map(|next| &next[0]);
        let longest = match next {
            Some(next) if next.module == best.module => u64::MAX,
            _ => LONGEST_LAST,
        };
        let size = next.map_or(u64::MAX, |next| next.address - best.address);
        symbols.push(Symbol {
            space: Space::Kernel,
            address: best.address,
            size: size.min(longest).min(u64::MAX - best.address),
            name: best.name.into(),
            module: best.module.into(),
            condition: None,
        });
    }
    Ok(symbols)
}

/// `ffffffffc03a3bb0 t __svm_vcpu_run [kvm_amd]`, with a tab before the module.
fn parse(line: &str) -> Option<Line<'_>> {
    let mut words = line.split_ascii_whitespace();
    let address = u64::from_str_radix(words.next()?, 16).ok()?;
    let mut kinds = words.next()?.chars();
    let (Some(kind), None) = (kinds.next(), kinds.next()) else {
        return None;
    };
    let name = words.next()?;
    let module = match words.next() {
        Some(module) => module.strip_prefix('[')?.strip_suffix(']')?,
        None => VMLINUX,
    };
    Some(Line {
        address,
        kind,
        name,
        module,
    })
}

fn is_function(line: &Line<'_>) -> bool {
    matches!(line.kind, 't' | 'T' | 'w' | 'W') && !is_mark(line.name)
}

/// Uppercase is global in the kernel's image and exported in a module. Weak ones count as global.
fn is_global(line: &Line<'_>) -> bool {
    line.kind.is_ascii_uppercase() || line.kind == 'w'
}

/// Whether a name is a linker script's, for the start or end of a section.
fn is_mark(name: &str) -> bool {
    const MARKS: [&str; 8] = [
        "_text",
        "_stext",
        "_etext",
        "_sinittext",
        "_einittext",
        "__pi__text",
        "__indirect_thunk_start",
        "__indirect_thunk_end",
    ];
    let of_a_section =
        || name.starts_with("__") && (name.ends_with("_text_start") || name.ends_with("_text_end"));
    MARKS.contains(&name) || of_a_section()
}
