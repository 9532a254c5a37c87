//! Whose code a round runs through, under one VMM or several side by side.

use exitpath_analysis::path::{RowPath, Whose, parts};

use crate::format::{new_table, none, plain, signed, thousands, trimmed};

/// A table of the parts of a row's path under each of these VMMs: its name and the path. Where
/// there are two, with the difference of the first from the second.
pub fn parts_of(vmms: &[(&str, &RowPath)]) -> String {
    let mut header = vec!["from guest to guest".to_owned()];
    for (name, _) in vmms {
        header.extend([plain(name), "share".to_owned()]);
    }
    if vmms.len() == 2 {
        header.push("difference".to_owned());
    }
    let header: Vec<&str> = header.iter().map(String::as_str).collect();
    let mut table = new_table(&header, &[0]);
    let parts: Vec<_> = vmms.iter().map(|(_, path)| self::parts(path)).collect();
    let mut add = |name: &str, figures: &[u64]| {
        let mut row = vec![name.to_owned()];
        for (&figure, (_, path)) in figures.iter().zip(vmms) {
            row.extend([thousands(figure), share(figure, path.total.all)]);
        }
        if let &[one, two] = figures {
            row.push(signed(one.cast_signed() - two.cast_signed()));
        }
        table.add_row(row);
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
    add("total", &totals);
    trimmed(&table)
}

fn share(part: u64, whole: u64) -> String {
    if whole == 0 {
        return none();
    }
    format!("{:.1} %", 100.0 * part as f64 / whole as f64)
}
