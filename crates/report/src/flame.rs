//! Folded stacks of a traced path, and the flame graph drawn from them.

use std::collections::BTreeMap;
use std::fmt::Write;

use exitpath_analysis::path::{Count, Node, RowPath};
use exitpath_recording::{Manifest, Space};
use inferno::flamegraph::color::{BackgroundColor, Color, PaletteMap};
use inferno::flamegraph::{self, Options};

use crate::calls;
use crate::error::Error;
use crate::format::{none, of, plain, short, svm, thousands};

/// Which instructions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Which {
    /// All that were executed.
    All,
    /// Those that are no skip-emulation.
    Lean,
}

impl Which {
    fn of(self, count: Count) -> u64 {
        match self {
            Which::All => count.all,
            Which::Lean => count.lean,
        }
    }
}

/// Folded stacks: a line for each distinct stack with the instructions of its last function alone,
/// ordered by name. The sum over all lines is the path's total.
///
/// Names end in `_[k]` in the kernel and in `_[j]` in the guest, which the tools that draw such
/// stacks colour as kernel and as "jit" (`--colors java`) and take off again; they know no guest.
/// Blanks and semicolons in a name, which have a meaning there, are `_` and `:`.
pub fn folded(path: &RowPath, which: Which) -> String {
    stacks(path, which, Frame::folded)
}

/// The flame graph of a path as SVG, its widths in instructions.
///
/// Drawn twice from the same path it is the same to the byte: colours depend on names alone.
///
/// # Errors
///
/// [`Error::NoInstructions`] if there is nothing to draw, [`Error::FlameGraph`] if it cannot be
/// drawn.
pub fn svg(manifest: &Manifest, path: &RowPath) -> Result<String, Error> {
    let stacks = stacks(path, Which::All, Frame::drawn);
    if stacks.is_empty() {
        return Err(Error::NoInstructions {
            row: plain(&path.row),
        });
    }
    let mut palette = palette(path);
    let mut options = Options::default();
    options.title = format!(
        "{}: {} of a round{}{}",
        short(&path.row, ROW_WIDTH),
        of(path.total.all, "instruction", "instructions"),
        match path.total.all - path.value().all {
            0 => String::new(),
            // All of it is drawn.
            more => format!(" ({} beside its value)", thousands(more)),
        },
        match path.has_skip_emulation() {
            true => format!(", {} without skip-emulation", thousands(path.total.lean)),
            false => String::new(),
        },
    );
    let about = about(manifest, path);
    options.subtitle = Some(head(&about, SUBTITLE_WIDTH));
    options.notes = comment(&about);
    options.count_name = "instructions".to_owned();
    options.palette_map = Some(&mut palette);
    options.bgcolors = Some(BackgroundColor::Grey);
    // A single instruction may be what one is looking for.
    options.min_width = 0.0;
    let mut svg = Vec::new();
    let failed = |reason: String| Error::FlameGraph { reason };
    flamegraph::from_lines(&mut options, stacks.lines(), &mut svg)
        .map_err(|error| failed(error.to_string()))?;
    let svg = String::from_utf8(svg).map_err(|error| failed(error.to_string()))?;
    let skips = path.has_skip_emulation();
    let kinds = if skips { &KINDS[..] } else { &KINDS[..4] };
    Ok(with_legend(svg, kinds))
}

/// Characters of the row's name in the title.
const ROW_WIDTH: usize = 40;
/// Characters that fit below the title.
const SUBTITLE_WIDTH: usize = 160;

/// A frame of a stack.
struct Frame;

impl Frame {
    /// As others' tools read it.
    fn folded(node: &Node) -> String {
        let suffix = match node.space {
            Space::Kernel => "_[k]",
            Space::Guest => "_[j]",
            Space::User => "",
        };
        format!("{}{suffix}", name(node))
    }

    /// As it is drawn here. The suffix, which is not shown, makes a colour of its own possible for
    /// the same name in another place.
    fn drawn(node: &Node) -> String {
        if is_skip_emulation(node) {
            return format!("{}_[w]", name(node));
        }
        match node.space {
            Space::User => format!("{}_[i]", name(node)),
            _ => Frame::folded(node),
        }
    }
}

/// Whether there would be nothing of it without skip-emulation.
fn is_skip_emulation(node: &Node) -> bool {
    node.total.all > 0 && node.total.lean == 0
}

/// The function's name without what separates frames and counts.
fn name(node: &Node) -> String {
    let name: String = plain(&node.name)
        .chars()
        .map(|c| match c {
            ';' => ':',
            c if c.is_whitespace() => '_',
            // No XML may have these.
            '\u{fffe}' | '\u{ffff}' => '\u{fffd}',
            c => c,
        })
        .collect();
    if name.is_empty() {
        "?".to_owned()
    } else {
        name
    }
}

fn stacks(path: &RowPath, which: Which, frame: fn(&Node) -> String) -> String {
    // A function called and tail-called from the same place are two nodes of one name.
    let mut counts: BTreeMap<String, u64> = BTreeMap::new();
    let children = calls::children(&path.tree);
    let mut todo = vec![(0, String::new())];
    while let Some((i, stack)) = todo.pop() {
        let (Some(node), Some(below)) = (path.tree.get(i), children.get(i)) else {
            continue;
        };
        let own = which.of(node.own);
        if own > 0 {
            // What belongs to no function stays visible.
            let stack = if i == 0 { "?" } else { &stack };
            let count = counts.entry(stack.to_owned()).or_default();
            *count = count.saturating_add(own);
        }
        for &child in below {
            let Some(node) = path.tree.get(child) else {
                continue;
            };
            let separator = if stack.is_empty() { "" } else { ";" };
            todo.push((child, format!("{stack}{separator}{}", frame(node))));
        }
    }
    let mut text = String::new();
    for (stack, count) in counts {
        let _ = writeln!(text, "{stack} {count}");
    }
    text
}

/// Kinds of frames: what the legend calls them, and their colour at its darkest.
const KINDS: [(&str, Color); 5] = [
    ("guest", rgb(75, 170, 75)),
    ("user space", rgb(80, 130, 190)),
    ("kvm modules", rgb(195, 95, 10)),
    ("rest of the kernel", rgb(190, 160, 20)),
    ("skip-emulation", rgb(150, 150, 150)),
];

const fn rgb(r: u8, g: u8, b: u8) -> Color {
    Color { r, g, b }
}

fn kind(node: &Node) -> usize {
    match node.space {
        _ if is_skip_emulation(node) => 4,
        Space::Guest => 0,
        Space::User => 1,
        Space::Kernel if node.module.starts_with("kvm") => 2,
        Space::Kernel => 3,
    }
}

/// A colour for each name. Neighbours differ a little, and a name is the same in every graph.
fn palette(path: &RowPath) -> PaletteMap {
    let mut palette = PaletteMap::default();
    let white = rgb(245, 245, 245);
    palette.insert("", white);
    palette.insert("?", white);
    for node in path.tree.iter().skip(1) {
        let frame = Frame::drawn(node);
        let lighter = shade(&frame);
        let Color { r, g, b } = KINDS[kind(node)].1;
        let [r, g, b] = [r, g, b].map(|part| part.saturating_add(lighter));
        palette.insert(frame, rgb(r, g, b));
    }
    palette
}

/// A number below 64 that depends on the name alone: its FNV-1a hash.
fn shade(name: &str) -> u8 {
    let hash = name.bytes().fold(0x811c_9dc5_u32, |hash, byte| {
        (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193)
    });
    (hash >> 26) as u8
}

/// What the figures hold for, in one line.
fn about(manifest: &Manifest, path: &RowPath) -> String {
    let environment = &manifest.environment;
    let qemu = environment.qemu.as_deref().map_or_else(none, plain);
    let seed = path.seed.map_or_else(none, |seed| seed.to_string());
    format!(
        "Linux {}, -cpu {}{}, {}, QEMU {qemu}, seed {seed}, command line: {}",
        plain(&environment.kernel),
        plain(&environment.cpu),
        svm(manifest),
        of(path.cpus.into(), "CPU", "CPUs"),
        plain(&environment.cmdline)
    )
}

/// The beginning of a long text.
fn head(text: &str, width: usize) -> String {
    if text.chars().count() <= width {
        return text.to_owned();
    }
    let kept: String = text.chars().take(width.saturating_sub(1)).collect();
    format!("{kept}…")
}

/// Without what would end a comment in XML.
fn comment(text: &str) -> String {
    text.replace('-', "\u{2010}")
}

/// The picture with a line that says what the colours of these kinds mean, between the title and the line below it:
/// the library has no place for that.
fn with_legend(mut svg: String, kinds: &[(&str, Color)]) -> String {
    let Some(end) = svg.rfind("</svg>") else {
        return svg;
    };
    let mut legend = String::from("<text id=\"legend\" x=\"50%\" y=\"37\" text-anchor=\"middle\">");
    for (i, (name, Color { r, g, b })) in kinds.iter().enumerate() {
        let gap = if i == 0 { "" } else { " \u{2003}" };
        let _ = write!(
            legend,
            "{gap}<tspan fill=\"rgb({r},{g},{b})\">■</tspan> {name}"
        );
    }
    legend.push_str("</text>");
    svg.insert_str(end, &legend);
    svg
}
