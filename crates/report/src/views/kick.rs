//! Notifications: kicks, many ioeventfds, disks, completions.

use exitpath_analysis::kick::{Against, Estimate, Finding, Kicks, Line, Shape, Trend};
use exitpath_analysis::table::Verdict;
use exitpath_recording::{Manifest, counter};

use super::environment::{environment, tone};
use crate::document::{Cell, Column, Document, Scale, Table, Unit};
use crate::format::{count, none, of, plain};
use crate::words;

/// The tables, each with what it says, the notes, and what it all holds for.
pub fn kick(manifest: &Manifest, kicks: &Kicks) -> Document {
    let unit = Scale::of(manifest);
    let mut text = Document::new();
    kicked(&mut text, &unit, kicks);
    scaling(&mut text, &unit, kicks);
    disks(&mut text, &unit, kicks);
    completions(&mut text, &unit, kicks);
    checks(&mut text, kicks);
    notes(&mut text, kicks);
    if kicks
        .lines()
        .any(|line| line.summary.verdict == Verdict::Void)
    {
        text.lines("void: the value does not mean what the row's name says\n");
    }
    environment(&mut text, manifest);
    text.warnings(&manifest.warnings);
    text
}

impl Scale {
    /// The value, and on a host its interval.
    fn show(&self, line: Option<&Line>) -> Cell {
        let value = line.and_then(|line| line.value);
        Cell::known(value, |value| with_interval(value, self.factor))
    }

    /// A value in a sentence.
    fn said(&self, ticks: f64) -> String {
        self.factor
            .map_or_else(none, |factor| count(ticks * factor))
    }
}

fn with_interval(estimate: Estimate, factor: Option<f64>) -> Cell {
    Cell::known(factor, |factor| {
        let rounded = |ticks: f64| Cell::Rounded(ticks * factor);
        let range = |(lo, hi)| Cell::range(rounded(lo), rounded(hi));
        Cell::estimate(rounded(estimate.value), estimate.ci95.map(range))
    })
}

/// Exits for one operation, and those of them that return to the VMM.
fn exits(line: &Line) -> [Cell; 2] {
    let summary = &line.summary;
    let exits = [summary.exits_per_op, summary.userspace_exits_per_op];
    exits.map(|exits| Cell::known(exits, Cell::Hundredths))
}

fn samples(line: &Line) -> Cell {
    Cell::Whole(line.summary.samples)
}

fn kicked(text: &mut Document, unit: &Scale, kicks: &Kicks) {
    if kicks.kicks.is_empty() {
        return;
    }
    let of = unit.unit();
    let mut table = Table::new([
        Column::words("kick"),
        Column::figures("exits", Unit::Count),
        Column::figures("user", Unit::Count),
        Column::figures("nobody waits", of),
        Column::figures("consumer waits", of),
        Column::figures("until the consumer runs", of),
        Column::figures("n", Unit::Count),
        Column::words("verdict"),
    ])
    .leaving(&[
        "n",
        "user",
        "exits",
        "until the consumer runs",
        "consumer waits",
    ]);
    for kick in &kicks.kicks {
        let cost = &kick.cost;
        let [exits, to_user] = exits(cost);
        let cells = [
            Cell::name(&cost.info.how),
            exits,
            to_user,
            unit.show(Some(cost)),
            unit.show(kick.waited.as_ref()),
            unit.show(kick.wakeup.as_ref()),
            samples(cost),
            words::verdict(kick.verdict()).into(),
        ];
        table.toned(tone(kick.verdict()), cells);
    }
    text.table(table);
    text.note(format!(
            "{}: what the guest waits while nobody, and while a thread in read() of the eventfd, waits \
             for the kick; and from the kick until that thread (for a user exit: the device's handler \
             on the vCPU's thread) has read the clock",
            unit.unit().name()
        ));
    let same_cpu = |line: &Line| {
        line.witness
            .get(counter::KICK_SAME_CPU)
            .is_some_and(|&n| n > 0)
    };
    let first = |line: &Line| line.witness.get(counter::KICK_FIFO).is_some_and(|&n| n > 0);
    let waiting = kicks.kicks.iter().filter_map(|kick| kick.wakeup.as_ref());
    let waiting: Vec<&Line> = waiting
        .filter(|line| line.witness.contains_key(counter::KICK_SAME_CPU))
        .collect();
    if !waiting.is_empty() {
        text.note(
            if waiting.iter().all(|line| same_cpu(line) && first(line)) {
                "the consumer shares the vCPU's CPU and takes it over when it is woken (SCHED_FIFO)"
            } else if waiting.iter().all(|line| same_cpu(line)) {
                "the consumer shares the vCPU's CPU and runs when the scheduler lets it"
            } else {
                "the consumer runs on another CPU than the vCPU"
            },
        );
    }
    user_exits(text, unit, kicks);
    text.space();
}

/// What an ioeventfd saves, and what the fast bus does, of what was measured.
fn user_exits(text: &mut Document, unit: &Scale, kicks: &Kicks) {
    let share = |against: &Against| {
        let interval = against
            .ci95
            .map_or_else(String::new, |(lo, hi)| format!(" [{lo:.2} … {hi:.2}]"));
        format!("{:.2}{interval} of it", against.share)
    };
    for against in &kicks.against {
        let bus = against.to.split(',').next().unwrap_or_default();
        let (eventfd, user) = against.values;
        text.note(format!(
            "{}: an ioeventfd that nobody waits for costs {} against {} of a user exit, {}",
            plain(bus),
            unit.said(eventfd),
            unit.said(user),
            share(against)
        ));
    }
    if let Some(fast) = &kicks.fast_bus {
        let says = match fast.taken {
            Some(true) => "by its cost, KVM took its fast MMIO bus",
            Some(false) => {
                "by its cost, KVM decoded the instruction all the same; its fast MMIO bus needs an EPT \
                 misconfiguration (Intel), or AMD's next RIP and a kernel that uses it"
            }
            None => "whether KVM took its fast MMIO bus is undecided: more --runs",
        };
        let (any, some) = fast.against.values;
        text.note(format!(
            "MMIO of length 0: {} against {} with a length, {}: {says}",
            unit.said(any),
            unit.said(some),
            share(&fast.against)
        ));
    }
}

fn scaling(text: &mut Document, unit: &Scale, kicks: &Kicks) {
    if kicks.scaling.is_empty() {
        return;
    }
    let mut ways: Vec<&str> = Vec::new();
    let mut numbers: Vec<u32> = Vec::new();
    for line in &kicks.scaling {
        if !ways.contains(&line.info.how.as_str()) {
            ways.push(&line.info.how);
        }
        numbers.extend(line.info.eventfds);
    }
    numbers.sort_unstable();
    numbers.dedup();
    let titles: Vec<String> = ways.iter().map(|way| plain(way)).collect();
    let leaving: Vec<&str> = ["n"]
        .into_iter()
        .chain(titles.iter().map(String::as_str).rev())
        .collect();
    let mut columns = vec![Column::figures("ioeventfds", Unit::Count)];
    columns.extend(titles.iter().map(|way| Column::figures(way, unit.unit())));
    columns.push(Column::figures("n", Unit::Count));
    columns.push(Column::words("verdict"));
    let mut table = Table::new(columns).leaving(&leaving);
    for number in numbers {
        let mut cells = vec![Cell::Whole(number.into())];
        let of_way = |way: &&str| {
            kicks
                .scaling
                .iter()
                .find(|line| line.info.eventfds == Some(number) && line.info.how == **way)
        };
        let lines: Vec<Option<&Line>> = ways.iter().map(of_way).collect();
        cells.extend(lines.iter().map(|line| unit.show(*line)));
        let known = || lines.iter().flatten();
        let n = known().map(|line| line.summary.samples).min();
        cells.push(Cell::known(n, Cell::Whole));
        let worst = known().map(|line| line.summary.verdict).max();
        cells.push(Cell::known(worst, |verdict| words::verdict(verdict).into()));
        table.toned(worst.map_or_else(Default::default, tone), cells);
    }
    text.table(table);
    text.note(format!(
            "{}: a kick of the last one, which has the highest address or value and was registered last; \
             nobody waits for it",
            unit.unit().name()
        ));
    let refused = kicks.scaling.iter().any(|line| line.value.is_none());
    if !refused {
        text.note("KVM refused none of these; exitpath's own limit is 4,096, and each takes one open file here");
    }
    for trend in &kicks.trends {
        text.note(trend_line(unit, trend));
    }
    text.space();
}

fn trend_line(unit: &Scale, trend: &Trend) -> String {
    let factor = unit.factor.unwrap_or(f64::NAN);
    let (least, most) = trend.eventfds;
    let (first, last) = trend.values;
    let says = match trend.shape {
        Shape::Flat if unit.lab => "flat".to_owned(),
        Shape::Flat => "flat (2 %)".to_owned(),
        Shape::Logarithmic => "not flat, each doubling adds about the same".to_owned(),
        Shape::Steeper => "not flat, it grows with their number".to_owned(),
        Shape::Unclear => "how it grows cannot be told from these".to_owned(),
        Shape::Undecided { needs_runs } => {
            format!("undecided whether it is flat (2 %): {}", more(needs_runs))
        }
    };
    let interval = trend.difference.ci95.map_or_else(String::new, |(lo, hi)| {
        format!(" (difference {:+.1} … {:+.1})", lo * factor, hi * factor)
    });
    format!(
        "{}: {says}: {} with {least}, {} with {most}{interval}: {:+.1} {} per doubling, {:+.3} for each one more",
        plain(&trend.how),
        unit.said(first),
        unit.said(last),
        trend.per_doubling * factor,
        unit.unit().name(),
        trend.per_eventfd * factor
    )
}

/// How many runs more would decide.
fn more(runs: usize) -> String {
    format!("{} more --runs", count(runs as f64))
}

fn disks(text: &mut Document, unit: &Scale, kicks: &Kicks) {
    if kicks.disks.is_empty() {
        return;
    }
    let mut table = Table::new([
        Column::figures("disks", Unit::Count),
        Column::words("I/O threads"),
        Column::figures(
            match unit.lab {
                true => "requests per 10⁹ instructions",
                false => "requests per second",
            },
            Unit::PerSecond,
        ),
        Column::figures("requests", Unit::Count),
        Column::figures("completed", Unit::Count),
        Column::figures("wake-ups", Unit::Count),
        Column::figures("n", Unit::Count),
        Column::words("verdict"),
    ])
    .leaving(&["n", "requests", "completed", "wake-ups"]);
    let witness = |line: &Line, name: &str| {
        let witness = line.witness.get(name).copied();
        Cell::known(witness, |value| Cell::Rounded(value as f64))
    };
    for line in &kicks.disks {
        let cells = [
            Cell::known(line.info.disks, |disks| Cell::Whole(disks.into())),
            Cell::name(&line.info.how),
            Cell::known(line.value, |rate| with_interval(rate, Some(1.0))),
            witness(line, counter::DISK_REQUESTED),
            witness(line, counter::DISK_COMPLETED),
            witness(line, counter::DISK_WAKEUPS),
            samples(line),
            words::verdict(line.summary.verdict).into(),
        ];
        table.toned(tone(line.summary.verdict), cells);
    }
    text.table(table);
    text.note(if unit.lab {
        "all disks together; one CPU, which the guest and the I/O threads share: a thread each \
             cannot run beside another there, and each request is served before the next is made"
    } else {
        "by the guest's clock, all disks together; one vCPU makes all requests, and each is an exit"
    });
    text.note("a disk is a file in memory (memfd): no storage is measured");
    for ratio in &kicks.ratios {
        let says = match ratio.finding {
            Finding::Same => "no difference (5 %)".to_owned(),
            Finding::More => "a thread each does more".to_owned(),
            Finding::Less => "one shared does more".to_owned(),
            Finding::Undecided { needs_blocks } => format!("undecided: {}", more(needs_blocks)),
        };
        let interval = ratio
            .ci95
            .map_or_else(String::new, |(lo, hi)| format!(" [{lo:.3} … {hi:.3}]"));
        text.lines(&format!(
            "{}: each to shared {:.3}{interval}: {says}\n",
            of(ratio.disks.into(), "disk", "disks"),
            ratio.each_to_shared
        ));
    }
    text.space();
}

fn completions(text: &mut Document, unit: &Scale, kicks: &Kicks) {
    if kicks.completions.is_empty() {
        return;
    }
    let mut table = Table::new([
        Column::words("completion"),
        Column::figures("exits", Unit::Count),
        Column::figures("user", Unit::Count),
        Column::figures(unit.unit().name(), unit.unit()),
        Column::figures("n", Unit::Count),
        Column::words("verdict"),
    ])
    .leaving(&["n", "user", "exits"]);
    for line in &kicks.completions {
        let [exits, to_user] = exits(line);
        let cells = [
            Cell::name(&line.info.how),
            exits,
            to_user,
            unit.show(Some(line)),
            samples(line),
            words::verdict(line.summary.verdict).into(),
        ];
        table.toned(tone(line.summary.verdict), cells);
    }
    text.table(table);
    text.note(format!(
        "{}: from the guest's port write until its interrupt handler has returned, the end of \
             interrupt included, which may be an exit (see exits); none: the user exit alone; \
             KVM_INTERRUPT: a VM without interrupt controllers, so without an end of interrupt",
        unit.unit().name()
    ));
    text.space();
}

fn checks(text: &mut Document, kicks: &Kicks) {
    for line in &kicks.checks {
        let why = line.summary.notes.first().map_or("", String::as_str);
        let verdict = words::verdict(line.summary.verdict);
        text.note(format!(
            "{}: {verdict}: {}",
            plain(&line.info.how),
            plain(why)
        ));
    }
}

fn notes(text: &mut Document, kicks: &Kicks) {
    // One reason often holds for many rows: say it once.
    let mut said: Vec<&str> = Vec::new();
    for note in kicks.lines().flat_map(|line| &line.summary.notes) {
        if said.contains(&note.as_str()) {
            continue;
        }
        said.push(note);
        let of = kicks
            .lines()
            .filter(|line| line.summary.notes.contains(note));
        let names: Vec<String> = of.map(|line| plain(&line.summary.row.name)).collect();
        let whose = match names.as_slice() {
            [first, second, third, rest @ ..] if !rest.is_empty() => {
                format!("{first}, {second}, {third} and {} more", rest.len())
            }
            few => few.join(", "),
        };
        text.note(format!("{whose}: {}", plain(note)));
    }
}
