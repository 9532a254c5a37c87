//! A traced path on about one screen.

use std::fmt::Write;

use exitpath_analysis::path::{Count, Function, RowPath, Turn, Variant, turns};
use exitpath_recording::{Exit, Manifest};

use crate::document::{Cell, Column, Document, Table, Tone, Unit};
use crate::format::{machine, none, of, plain, short, subject, thousands};
use crate::reasons;

/// Columns for a function's name.
const NAME_WIDTH: usize = 42;
/// Columns for the name of a module.
const MODULE_WIDTH: usize = 20;
/// Functions named beside a class of instructions; the rest are counted.
const CLASS_FUNCTIONS: usize = 3;
/// Variants that are described; the rest are counted.
const VARIANTS: usize = 8;

/// How many functions are shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Functions {
    /// Those with most instructions of their own, and one line on the rest.
    Top(usize),
    /// All.
    All,
}

impl Functions {
    /// How many of so many.
    pub(crate) fn shown(self, all: usize) -> usize {
        match self {
            // A line that says there is one more takes as much room as that one.
            Functions::Top(number) if number + 1 < all => number,
            _ => all,
        }
    }
}

impl Default for Functions {
    fn default() -> Self {
        Functions::Top(25)
    }
}

/// The path: what was traced on what, then where the instructions are by purpose, by function and
/// by class, and what other paths the row took.
///
/// All figures are instructions per round.
pub fn path(manifest: &Manifest, path: &RowPath, functions: Functions) -> Document {
    let mut text = header(manifest, path);
    text.space();
    text.table(phases(path));
    let rounds = thousands(path.rounds as u64);
    if path.idle() > 0 {
        text.note(format!(
            "the residual is no work: the lab's CPU had nothing to run and halted {} in the round; \
                 its clock went on, and no instruction ran",
            of(path.halts(), "time", "times"),
        ));
    } else if path.rounds_with_residual > 0 {
        let with = thousands(path.rounds_with_residual as u64);
        text.note(format!(
            "{with} of {rounds} rounds have a residual: instructions that nothing explains"
        ));
    }
    if path.rounds_with_empty_residual > 0 {
        let with = thousands(path.rounds_with_empty_residual as u64);
        text.note(format!(
            "{with} of {rounds} rounds have one in the bracket without the operation"
        ));
    }
    let turns = turns(path);
    if !turns.is_empty() {
        text.space();
        text.table(taken(&turns, functions));
        text.note("the lab's CPUs take turns, and one clock goes by all of them: on real CPUs, what does not wait for another turn is at its time");
    }
    if !path.functions.is_empty() {
        text.space();
        text.table(self::functions(path, functions));
        if path
            .functions
            .iter()
            .any(|function| function.calls.all == 0)
        {
            text.note(
                "calls –: it was entered before the round began, and waited in it for the guest",
            );
        }
    }
    if !path.classes.is_empty() {
        text.space();
        text.table(classes(path));
        let unused = path.classes.iter().filter(|class| class.count.all == 0);
        let unused: Vec<&str> = unused.map(|class| class.class).collect();
        if !unused.is_empty() {
            text.note(format!(" none: {}", unused.join(", ")));
        }
    }
    text.space();
    text.note(variants(path));
    let artefacts: Vec<String> = path
        .artefacts
        .iter()
        .map(|artefact| {
            let instructions = thousands(artefact.instructions);
            format!("{} {instructions}", plain(&artefact.what))
        })
        .collect();
    if !artefacts.is_empty() {
        let artefacts = artefacts.join("; ");
        text.note(format!("only because the CPU is emulated: {artefacts}"));
    }
    text
}

/// Which values the row's paths had: a path for each seed, of the same recording.
///
/// A line for each distinct value, with its seeds; nothing is averaged.
pub fn seeds(paths: &[RowPath]) -> String {
    let mut values: Vec<(Count, Vec<String>)> = Vec::new();
    for path in paths {
        let seed = seed(path);
        match values.iter_mut().find(|(value, _)| *value == path.value()) {
            Some((_, seeds)) => seeds.push(seed),
            None => values.push((path.value(), vec![seed])),
        }
    }
    let mut text = String::new();
    for (total, seeds) in values {
        let word = if seeds.len() == 1 { "seed" } else { "seeds" };
        let _ = writeln!(text, "{word} {}: {}", seeds.join(" "), with_lean(total));
    }
    text
}

/// A count, and what it is without skip-emulation where that differs.
pub(super) fn with_lean(count: Count) -> String {
    match count.all == count.lean {
        true => thousands(count.all),
        false => format!("{} ({} lean)", thousands(count.all), thousands(count.lean)),
    }
}

fn seed(path: &RowPath) -> String {
    path.seed.map_or_else(none, |seed| seed.to_string())
}

/// What every view begins with: what was traced, on what, and what the figures are.
pub(super) fn header(manifest: &Manifest, path: &RowPath) -> Document {
    let row = plain(&path.row);
    let operation = manifest.rows.iter().find(|row| row.name == path.row);
    let mut text = Document::new();
    text.fact(match operation {
        Some(info) => format!("{row}: {}", plain(&info.operation)),
        None => row,
    });
    let seeds: Vec<u64> = path.seed.into_iter().collect();
    text.fact(machine(manifest, path.cpus, &seeds));
    text.fact(subject(manifest));
    text.warnings(&manifest.warnings);
    text.note(format!(
        "figures: instructions of one round, not time; of the most frequent path in {}, with {}{}",
        of(path.rounds as u64, "round", "rounds"),
        of(path.exits, "exit", "exits"),
        match path.baseline_exits {
            0 => String::new(),
            n => format!(", {} of what surrounds the operation", thousands(n)),
        },
    ));
    if let Some(exits) = reasons::line(manifest, path.exit_reasons.as_deref()) {
        text.note(exits);
    }
    if path.has_skip_emulation() {
        text.note(
            "lean: without skip-emulation, which KVM needs only because the lab's CPU has no NRIPS",
        );
    }
    text
}

/// Both figures.
pub(super) fn both(count: Count) -> [Cell; 2] {
    [Cell::Whole(count.all), Cell::Whole(count.lean)]
}

fn phases(path: &RowPath) -> Table {
    let mut table = Table::new([
        Column::words("phase"),
        Column::figures(Unit::Instructions.name(), Unit::Instructions),
        Column::figures(Unit::Share.name(), Unit::Share),
        Column::figures("lean", Unit::Instructions),
        Column::figures("lean share", Unit::Share),
    ])
    .leaving(&["lean share", "share"]);
    let total = path.total;
    let mut add = |name: Cell, count: Count| {
        let [all, lean] = both(count);
        table.row([
            name,
            all,
            Cell::Share(count.all, total.all),
            lean,
            Cell::Share(count.lean, total.lean),
        ]);
    };
    for phase in &path.phases {
        add(Cell::name(&phase.name), phase.instructions);
    }
    let executed = match path.subtracts() {
        true => "executed",
        false => "total",
    };
    add(executed.into(), total);
    if path.subtracts() {
        let mut without = |name: &str, count: Count| {
            let [all, lean] = both(count);
            table.row([name.into(), all, Cell::Empty, lean]);
        };
        for (name, count) in subtracted(path) {
            without(name, count);
        }
        without("total", path.value());
    }
    let mut add = |name: &str, value: u64| {
        table.row([name.into(), Cell::Whole(value)]);
    };
    add("- by the guest's clock", path.guest_timed);
    add("- intercepted, not in its clock", path.intercepted);
    let tone = match path.residual {
        0 => Tone::Plain,
        _ => Tone::Bad,
    };
    table.toned(tone, ["= residual".into(), Cell::Signed(path.residual)]);
    lean_where_it_differs(path, table)
}

/// The table without what is said without skip-emulation, where there is none.
fn lean_where_it_differs(path: &RowPath, table: Table) -> Table {
    if path.has_skip_emulation() {
        return table;
    }
    table.without(&["lean", "lean share", "lean own", "lean total", "lean calls"])
}

/// Whose turn it was, in their order.
fn taken(turns: &[Turn], shown: Functions) -> Table {
    let mut table = Table::new([
        Column::words("CPU"),
        Column::figures("from", Unit::Instructions),
        Column::figures(Unit::Instructions.name(), Unit::Instructions),
        Column::figures("in the guest", Unit::Instructions),
        Column::names("begins in", NAME_WIDTH),
        Column::names("ends in", NAME_WIDTH),
    ])
    .leaving(&["from", "in the guest"]);
    let (some, rest) = turns.split_at(shown.shown(turns.len()));
    for turn in some {
        table.row([
            turn.cpu.to_string().into(),
            Cell::Whole(turn.begin),
            Cell::Whole(turn.instructions),
            Cell::Whole(turn.guest),
            Cell::name(&turn.first),
            Cell::name(&turn.last),
        ]);
    }
    if !rest.is_empty() {
        let of = |count: fn(&Turn) -> u64| Cell::Whole(rest.iter().map(count).sum());
        table.row([
            format!("… {} more", thousands(rest.len() as u64)).into(),
            Cell::Empty,
            of(|turn| turn.instructions),
            of(|turn| turn.guest),
        ]);
    }
    table
}

/// What the row's value does not have of what was executed.
pub(super) fn subtracted(path: &RowPath) -> Vec<(&'static str, Count)> {
    let delay = Count {
        all: path.delay,
        lean: path.delay,
    };
    let parts = [
        (
            "- what surrounds the operation, measured by itself",
            path.baseline,
        ),
        ("- the row's own delay, in which the guest waits", delay),
    ];
    parts
        .into_iter()
        .filter(|(_, count)| count.all > 0)
        .collect()
}

fn functions(path: &RowPath, shown: Functions) -> Table {
    let mut table = Table::new([
        Column::names("function", NAME_WIDTH),
        Column::names("module", MODULE_WIDTH),
        Column::figures("own", Unit::Instructions),
        Column::figures("lean own", Unit::Instructions),
        Column::figures("total", Unit::Instructions),
        Column::figures("lean total", Unit::Instructions),
        Column::figures("calls", Unit::Count),
        Column::figures("lean calls", Unit::Count),
        Column::words("phase"),
    ])
    .leaving(&[
        "lean calls",
        "lean total",
        "module",
        "calls",
        "lean own",
        "phase",
    ]);
    let (top, rest) = path.functions.split_at(shown.shown(path.functions.len()));
    for function in top {
        let [own, own_lean] = both(function.own);
        let [total, total_lean] = both(function.total);
        let [calls, calls_lean] = match function.calls.all {
            0 => [Cell::Unknown, Cell::Unknown],
            _ => both(function.calls),
        };
        table.row([
            Cell::name(&function.name),
            Cell::name(&function.module),
            own,
            own_lean,
            total,
            total_lean,
            calls,
            calls_lean,
            phase(path, function).into(),
        ]);
    }
    if !rest.is_empty() {
        let [own, lean] = both(sum(rest));
        let more = format!("… and {} more", thousands(rest.len() as u64));
        table.row([more.into(), Cell::Empty, own, lean]);
    }
    lean_where_it_differs(path, table)
}

/// The phase that most of a function's own instructions count for, and how many others some of them do:
/// what is called from everywhere, as a return thunk is, counts for its callers' phases.
fn phase(path: &RowPath, function: &Function) -> String {
    let own = path.tree.iter().filter(|node| {
        node.name == function.name && node.module == function.module && node.own.all > 0
    });
    let mut others: Vec<&str> = own.map(|node| node.phase.as_str()).collect();
    others.sort_unstable();
    others.dedup();
    others.retain(|other| *other != function.phase);
    match others.len() {
        0 => plain(&function.phase),
        more => format!("{} and {more} more", plain(&function.phase)),
    }
}

fn sum(functions: &[Function]) -> Count {
    Count {
        all: functions.iter().map(|function| function.own.all).sum(),
        lean: functions.iter().map(|function| function.own.lean).sum(),
    }
}

fn classes(path: &RowPath) -> Table {
    let mut table = Table::new([
        Column::words("class"),
        Column::figures(Unit::Count.name(), Unit::Count),
        Column::figures("lean", Unit::Count),
        Column::words("in"),
    ])
    .leaving(&["lean"]);
    for class in path.classes.iter().filter(|class| class.count.all > 0) {
        let [all, lean] = both(class.count);
        let mut functions: Vec<String> = class
            .functions
            .iter()
            .take(CLASS_FUNCTIONS)
            .map(|(name, number)| format!("{} {}", short(name, NAME_WIDTH), thousands(*number)))
            .collect();
        if class.functions.len() > CLASS_FUNCTIONS {
            let more = class.functions.len() - CLASS_FUNCTIONS;
            functions.push(format!("{} more", thousands(more as u64)));
        }
        table.row([class.class.into(), all, lean, functions.join(", ").into()]);
    }
    lean_where_it_differs(path, table)
}

/// The groups of rounds in one line. The first is A; what the others have beyond it is named.
fn variants(path: &RowPath) -> String {
    let usual = path.variants.first();
    let usual = usual.and_then(|usual| usual.exit_reasons.as_deref());
    let described = path.variants.iter().take(VARIANTS);
    let mut described: Vec<String> = described.map(|it| variant(it, usual)).collect();
    if let Some(rest) = path
        .variants
        .get(VARIANTS..)
        .filter(|rest| !rest.is_empty())
    {
        let rounds: usize = rest.iter().map(|variant| variant.rounds).sum();
        described.push(format!(
            "{} more of {}",
            thousands(rest.len() as u64),
            of(rounds as u64, "round", "rounds")
        ));
    }
    format!("rounds × variant instructions: {}", described.join("; "))
}

fn variant(variant: &Variant, usual: Option<&[Exit]>) -> String {
    let difference = match plain(&variant.differs_by) {
        difference if difference.is_empty() => difference,
        difference if difference.starts_with(['+', '-']) => format!(" {difference} ="),
        difference => format!(", {difference} ="),
    };
    let mut text = format!(
        "{} × A{difference} {}",
        thousands(variant.rounds as u64),
        thousands(variant.total)
    );
    let (least, most) = variant.range;
    if least != most {
        let _ = write!(text, " ({} … {})", thousands(least), thousands(most));
    }
    if let (Some(usual), Some(exits)) = (usual, &variant.exit_reasons)
        && reasons::differ(exits, usual)
    {
        let _ = write!(text, " with exits {}", reasons::list(exits, false));
    }
    text
}
