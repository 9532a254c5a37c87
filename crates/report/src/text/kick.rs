//! Notifications: kicks, many ioeventfds, disks, completions.

use std::fmt::Write;

use exitpath_analysis::kick::{Against, Estimate, Finding, Kicks, Line, Shape, Trend};
use exitpath_analysis::table::Verdict;
use exitpath_recording::{Manifest, counter};

use super::{push_environment, tone};
use crate::format::{Unit, count, none, of, plain};
use crate::layout::{Text, new_table, push_warnings, push_wrapped};
use crate::words;

/// The tables, each with what it says, the notes, and what it all holds for.
pub fn kick(manifest: &Manifest, kicks: &Kicks) -> Text {
    let unit = Unit::of(manifest);
    let mut text = Text::new();
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
        text.push_str("void: the value does not mean what the row's name says\n");
    }
    push_environment(&mut text, manifest);
    push_warnings(&mut text, &manifest.warnings);
    text
}

impl Unit {
    fn name(&self) -> &'static str {
        if self.lab { "instructions" } else { "ns" }
    }

    /// The value, and on a host its interval.
    fn show(&self, line: Option<&Line>) -> String {
        line.and_then(|line| line.value)
            .map_or_else(none, |value| self.with_interval(value, self.factor))
    }

    fn with_interval(&self, estimate: Estimate, factor: Option<f64>) -> String {
        let Some(factor) = factor else { return none() };
        let value = count(estimate.value * factor);
        match estimate.ci95 {
            Some((lo, hi)) => format!("{value} [{} … {}]", count(lo * factor), count(hi * factor)),
            None => value,
        }
    }
}

fn samples(line: &Line) -> String {
    count(line.summary.samples as f64)
}

fn per_op(exits: Option<f64>) -> String {
    exits.map_or_else(none, |exits| format!("{:.2}", exits + 0.0))
}

fn kicked(text: &mut Text, unit: &Unit, kicks: &Kicks) {
    if kicks.kicks.is_empty() {
        return;
    }
    let header = [
        "kick",
        "exits",
        "user",
        "nobody waits",
        "consumer waits",
        "until the consumer runs",
        "n",
        "verdict",
    ];
    let leaving = [
        "n",
        "user",
        "exits",
        "until the consumer runs",
        "consumer waits",
    ];
    let mut table = new_table(&header, &[0, 7]).leaving(&leaving);
    for kick in &kicks.kicks {
        let cost = &kick.cost;
        let cells = [
            plain(&cost.info.how),
            per_op(cost.summary.exits_per_op),
            per_op(cost.summary.userspace_exits_per_op),
            unit.show(Some(cost)),
            unit.show(kick.waited.as_ref()),
            unit.show(kick.wakeup.as_ref()),
            samples(cost),
            words::verdict(kick.verdict()).to_owned(),
        ];
        table.add_toned(tone(kick.verdict()), cells);
    }
    text.table(table);
    push_wrapped(
        text,
        &format!(
            "{}: what the guest waits while nobody, and while a thread in read() of the eventfd, waits \
             for the kick; and from the kick until that thread (for a user exit: the device's handler \
             on the vCPU's thread) has read the clock",
            unit.name()
        ),
    );
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
        push_wrapped(
            text,
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
    text.push('\n');
}

/// What an ioeventfd saves, and what the fast bus does, of what was measured.
fn user_exits(text: &mut Text, unit: &Unit, kicks: &Kicks) {
    let share = |against: &Against| {
        let interval = against
            .ci95
            .map_or_else(String::new, |(lo, hi)| format!(" [{lo:.2} … {hi:.2}]"));
        format!("{:.2}{interval} of it", against.share)
    };
    for against in &kicks.against {
        let bus = against.to.split(',').next().unwrap_or_default();
        let (eventfd, user) = against.values;
        push_wrapped(
            text,
            &format!(
                "{}: an ioeventfd that nobody waits for costs {} against {} of a user exit, {}",
                plain(bus),
                unit.value(eventfd),
                unit.value(user),
                share(against)
            ),
        );
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
        push_wrapped(
            text,
            &format!(
                "MMIO of length 0: {} against {} with a length, {}: {says}",
                unit.value(any),
                unit.value(some),
                share(&fast.against)
            ),
        );
    }
}

fn scaling(text: &mut Text, unit: &Unit, kicks: &Kicks) {
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
    let mut header = vec!["ioeventfds"];
    header.extend(titles.iter().map(String::as_str));
    header.extend(["n", "verdict"]);
    let leaving: Vec<&str> = ["n"]
        .into_iter()
        .chain(titles.iter().map(String::as_str).rev())
        .collect();
    let mut table = new_table(&header, &[header.len() - 1]).leaving(&leaving);
    for number in numbers {
        let mut cells = vec![count(f64::from(number))];
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
        cells.push(n.map_or_else(none, |n| count(n as f64)));
        let worst = known().map(|line| line.summary.verdict).max();
        cells.push(worst.map_or_else(none, |verdict| words::verdict(verdict).to_owned()));
        table.add_toned(worst.map_or_else(Default::default, tone), cells);
    }
    text.table(table);
    push_wrapped(
        text,
        &format!(
            "{}: a kick of the last one, which has the highest address or value and was registered last; \
             nobody waits for it",
            unit.name()
        ),
    );
    let refused = kicks.scaling.iter().any(|line| line.value.is_none());
    if !refused {
        push_wrapped(
            text,
            "KVM refused none of these; exitpath's own limit is 4,096, and each takes one open file here",
        );
    }
    for trend in &kicks.trends {
        push_wrapped(text, &trend_line(unit, trend));
    }
    text.push('\n');
}

fn trend_line(unit: &Unit, trend: &Trend) -> String {
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
        unit.value(first),
        unit.value(last),
        trend.per_doubling * factor,
        unit.name(),
        trend.per_eventfd * factor
    )
}

/// How many runs more would decide.
fn more(runs: usize) -> String {
    format!("{} more --runs", count(runs as f64))
}

fn disks(text: &mut Text, unit: &Unit, kicks: &Kicks) {
    if kicks.disks.is_empty() {
        return;
    }
    let mut table = new_table(
        &[
            "disks",
            "I/O threads",
            if unit.lab {
                "requests per 10⁹ instructions"
            } else {
                "requests per second"
            },
            "requests",
            "completed",
            "wake-ups",
            "n",
            "verdict",
        ],
        &[1, 7],
    )
    .leaving(&["n", "requests", "completed", "wake-ups"]);
    let witness = |line: &Line, name: &str| {
        line.witness
            .get(name)
            .map_or_else(none, |&value| count(value as f64))
    };
    for line in &kicks.disks {
        let cells = [
            line.info.disks.map_or_else(none, |disks| disks.to_string()),
            plain(&line.info.how),
            line.value
                .map_or_else(none, |rate| unit.with_interval(rate, Some(1.0))),
            witness(line, counter::DISK_REQUESTED),
            witness(line, counter::DISK_COMPLETED),
            witness(line, counter::DISK_WAKEUPS),
            samples(line),
            words::verdict(line.summary.verdict).to_owned(),
        ];
        table.add_toned(tone(line.summary.verdict), cells);
    }
    text.table(table);
    push_wrapped(
        text,
        if unit.lab {
            "all disks together; one CPU, which the guest and the I/O threads share: a thread each \
             cannot run beside another there, and each request is served before the next is made"
        } else {
            "by the guest's clock, all disks together; one vCPU makes all requests, and each is an exit"
        },
    );
    push_wrapped(
        text,
        "a disk is a file in memory (memfd): no storage is measured",
    );
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
        let _ = writeln!(
            text,
            "{}: each to shared {:.3}{interval}: {says}",
            of(ratio.disks.into(), "disk", "disks"),
            ratio.each_to_shared
        );
    }
    text.push('\n');
}

fn completions(text: &mut Text, unit: &Unit, kicks: &Kicks) {
    if kicks.completions.is_empty() {
        return;
    }
    let header = ["completion", "exits", "user", unit.name(), "n", "verdict"];
    let mut table = new_table(&header, &[0, 5]).leaving(&["n", "user", "exits"]);
    for line in &kicks.completions {
        let cells = [
            plain(&line.info.how),
            per_op(line.summary.exits_per_op),
            per_op(line.summary.userspace_exits_per_op),
            unit.show(Some(line)),
            samples(line),
            words::verdict(line.summary.verdict).to_owned(),
        ];
        table.add_toned(tone(line.summary.verdict), cells);
    }
    text.table(table);
    push_wrapped(
        text,
        &format!(
            "{}: from the guest's port write until its interrupt handler has returned, the end of \
             interrupt included, which may be an exit (see exits); none: the user exit alone; \
             KVM_INTERRUPT: a VM without interrupt controllers, so without an end of interrupt",
            unit.name()
        ),
    );
    text.push('\n');
}

fn checks(text: &mut Text, kicks: &Kicks) {
    for line in &kicks.checks {
        let why = line.summary.notes.first().map_or("", String::as_str);
        let verdict = words::verdict(line.summary.verdict);
        push_wrapped(
            text,
            &format!("{}: {verdict}: {}", plain(&line.info.how), plain(why)),
        );
    }
}

fn notes(text: &mut Text, kicks: &Kicks) {
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
        push_wrapped(text, &format!("{whose}: {}", plain(note)));
    }
}
