//! Exits of live virtual machines: a table for each, those whose exits take most first.

use exitpath_analysis::live::{Reason, by_time, quantile, reasons};
use exitpath_recording::live::{Kept, Live, Part, Vm};

use crate::document::{Cell, Column, Document, Table, Unit};

/// All of them.
pub fn live(live: &Live) -> Document {
    let mut text = Document::new();
    for vm in by_time(live) {
        if !text.blocks.is_empty() {
            text.space();
        }
        of_vm(&mut text, live, vm);
    }
    if live.vms.is_empty() {
        text.note(format!(
            "in {:.1} s no virtual machine was seen to exit",
            live.seconds
        ));
        return text;
    }
    text.space();
    text.fact(
        "times: from when KVM has noted the exit to the next entry, without the hardware's transitions and the code next to them; shares: of the \
         time of all its vCPUs",
    );
    text.fact(match live.kept {
        Kept::Light => "kernel: with time in user space, asleep and preempted, which is not told apart (--keep usual does)",
        Kept::Usual => "userspace: from when the vCPU was put last to the entry, with KVM_RUN's way back to the guest (--keep exact leaves that out)",
        Kept::Exact => "userspace: from KVM_RUN's return to the next one",
    });
    for (what, count) in live.lost.named() {
        text.warnings(&[format!("{what}: {count}")]);
    }
    text
}

fn of_vm(text: &mut Document, live: &Live, vm: &Vm) {
    let name = vm
        .name
        .as_ref()
        .map_or(String::new(), |name| format!(" {name}"));
    let ended = vm.vcpus.iter().filter(|vcpu| vcpu.ended).count();
    let ended = match ended {
        0 => String::new(),
        ended => format!(", {ended} of them ended"),
    };
    let vcpus = match vm.vcpus.len() {
        1 => "1 vCPU".to_owned(),
        several => format!("{several} vCPUs"),
    };
    text.note(format!(
        "process {}{name}: {vcpus}{ended}, {:.1} s",
        vm.pid, live.seconds
    ));
    let vcpus: std::collections::BTreeSet<u32> = vm.vcpus.iter().map(|vcpu| vcpu.id).collect();
    let whole = (live.seconds * 1e9 * vcpus.len() as f64) as u64;
    let mut columns = vec![
        Column::words("reason"),
        Column::figures("exits", Unit::Count),
        Column::figures("per second", Unit::PerSecond),
        Column::figures("userspace", Unit::Count),
        Column::figures("of all time", Unit::Share),
    ];
    let all = reasons(vm);
    let has = |part: Part| all.iter().any(|reason| reason.part(part).sum_ns > 0);
    let parts: Vec<Part> = Part::ALL.into_iter().filter(|part| has(*part)).collect();
    let histograms = live.kept != Kept::Light;
    for part in &parts {
        columns.push(Column::figures(title(*part), Unit::Share));
        if histograms && matches!(part, Part::Kernel | Part::Userspace) {
            columns.push(Column::figures("p50", Unit::Nanoseconds));
            columns.push(Column::figures("p99", Unit::Nanoseconds));
        }
    }
    let mut table = Table::new(columns);
    for reason in &all {
        table.row(row(reason, &parts, histograms, live.seconds, whole));
    }
    text.table(table);
    let untimed = all.iter().filter(|reason| reason.untimed > 0);
    let untimed: Vec<String> = untimed
        .map(|reason| format!("{} {}", reason.reason, reason.untimed))
        .collect();
    if !untimed.is_empty() {
        text.fact(format!(
            "without a time, as KVM entered again at once, in its inner loop, or the guest's TSC is scaled: {}",
            untimed.join(", ")
        ));
    }
}

fn row(reason: &Reason, parts: &[Part], histograms: bool, seconds: f64, whole: u64) -> Vec<Cell> {
    let mut cells = vec![
        Cell::name(&reason.reason),
        Cell::Whole(reason.count),
        Cell::Rounded(reason.count as f64 / seconds),
        Cell::Whole(reason.through_userspace),
        Cell::Share(reason.sum_ns(), whole),
    ];
    for part in parts {
        let durations = reason.part(*part);
        cells.push(Cell::Share(durations.sum_ns, whole));
        if histograms && matches!(part, Part::Kernel | Part::Userspace) {
            for share in [0.5, 0.99] {
                let known = quantile(durations, share);
                cells.push(known.map_or(Cell::Empty, Cell::Rounded));
            }
        }
    }
    cells
}

fn title(part: Part) -> &'static str {
    match part {
        Part::Kernel => "kernel",
        Part::Userspace => "in userspace",
        Part::Asleep => "asleep",
        Part::Polling => "polling",
        Part::Preempted => "preempted",
    }
}
