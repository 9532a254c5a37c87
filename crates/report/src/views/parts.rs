//! Whose code a round runs through, under one VMM or several side by side.

use exitpath_analysis::path::{RowPath, Whose, parts};

use crate::document::{Cell, Column, Document, Table, Unit};
use crate::format::plain;

/// A table of the parts of a row's path under each of these VMMs: its name and the path. Where
/// there are two, with the difference of the first from the second.
pub fn parts_of(vmms: &[(&str, &RowPath)]) -> Document {
    let mut columns = vec![Column::words("from guest to guest")];
    for (name, _) in vmms {
        columns.push(Column::figures(plain(name), Unit::Instructions));
        columns.push(Column::figures(Unit::Share.name(), Unit::Share));
    }
    if vmms.len() == 2 {
        columns.push(Column::figures("difference", Unit::Instructions));
    }
    let mut table = Table::new(columns);
    let parts: Vec<_> = vmms.iter().map(|(_, path)| self::parts(path)).collect();
    let mut add = |name: &str, figures: &[u64]| {
        let mut row: Vec<Cell> = vec![name.into()];
        for (&figure, (_, path)) in figures.iter().zip(vmms) {
            row.extend([Cell::Whole(figure), Cell::Share(figure, path.total.all)]);
        }
        if let &[one, two] = figures {
            row.push(Cell::Signed(one.cast_signed() - two.cast_signed()));
        }
        table.row(row);
    };
    for whose in Whose::ALL {
        let figures: Vec<u64> = parts
            .iter()
            .map(|parts| parts[whose as usize].instructions.all)
            .collect();
        if figures.iter().any(|&figure| figure > 0) {
            add(whose.name(), &figures);
        }
    }
    let totals: Vec<u64> = parts
        .iter()
        .map(|parts| parts.iter().map(|part| part.instructions.all).sum())
        .collect();
    if vmms.iter().any(|(_, path)| path.subtracts()) {
        add("executed", &totals);
        let of = |figure: fn(&RowPath) -> u64| -> Vec<u64> {
            vmms.iter().map(|(_, path)| figure(path)).collect()
        };
        let surrounding = of(|path| path.baseline.all);
        if surrounding.iter().any(|&figure| figure > 0) {
            add(
                "- what surrounds the operation, measured by itself",
                &surrounding,
            );
        }
        let delays = of(|path| path.delay);
        if delays.iter().any(|&figure| figure > 0) {
            add("- the row's own delay, in which the guest waits", &delays);
        }
        add("total", &of(|path| path.value().all));
    } else {
        add("total", &totals);
    }
    let mut text = Document::new();
    text.table(table);
    text
}

/// Whose code a round runs through under a VMM of this command, and under exitpath's own beside it.
pub fn under(vmm: &str, path: &RowPath, own: Option<&RowPath>) -> Document {
    let program = vmm.split_whitespace().next().unwrap_or_default();
    let name = program.rsplit('/').next().unwrap_or_default();
    let mut columns = vec![(name, path)];
    columns.extend(own.map(|own| ("exitpath's own VMM", own)));
    let mut text = Document::new();
    text.space();
    text.append(parts_of(&columns));
    text.lines(&format!("under: {}\n", plain(vmm)));
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use exitpath_analysis::path::{Count, Entered, Node, Step};
    use exitpath_recording::Space;

    fn round(vmm: u64) -> RowPath {
        let node = |space, module: &str| Node {
            parent: 0,
            name: "f".to_owned(),
            module: module.to_owned(),
            space,
            cpu: 0,
            entered: Entered::Call,
            calls: 1,
            own: Count::default(),
            total: Count::default(),
            phase: String::new(),
        };
        let step = |node, instructions| Step {
            node,
            instructions,
            skipped: false,
        };
        RowPath {
            tree: vec![node(Space::Kernel, "kvm"), node(Space::User, "vmm")],
            steps: vec![step(0, 100), step(1, vmm), step(0, 1000)],
            total: Count {
                all: 1100 + vmm,
                lean: 1100 + vmm,
            },
            ..RowPath::default()
        }
    }

    #[test]
    fn two_vmms_stand_side_by_side() {
        let text = parts_of(&[("qe\u{1b}mu", &round(900)), ("ours", &round(100))]);
        let lines: Vec<String> = text
            .to_string()
            .lines()
            .map(|line| line.split_whitespace().collect::<Vec<_>>().join(" "))
            .collect();
        assert_eq!(
            lines,
            [
                "from guest to guest qe mu share ours share difference",
                "kernel, before user space 100 5.0 % 100 8.3 % 0",
                "VMM 900 45.0 % 100 8.3 % 800",
                "kernel, after user space 1,000 50.0 % 1,000 83.3 % 0",
                "total 2,000 100.0 % 1,200 100.0 % 800",
            ]
        );
    }

    #[test]
    fn one_stands_alone() {
        let text = parts_of(&[("ours", &round(0))]).to_string();
        assert!(
            !text.contains("difference") && !text.contains("VMM"),
            "{text}"
        );
    }
}
