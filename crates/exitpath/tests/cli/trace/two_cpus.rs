//! Rows of two CPUs: each CPU's part of a round is told apart, and all of it is explained.

use serde_json::Value;

use super::{list, number};
use crate::common::{Said, exitpath, qemus};

/// The paths of these rows, one seed and 20 rounds, with this QEMU.
fn traced(qemu: &std::path::Path, rows: &[&str]) -> Said {
    let dir = tempfile::tempdir().expect("a folder");
    let args = ["trace", "--json", "--rounds", "20", "--seed", "1", "--qemu"];
    let mut command = exitpath(&args);
    command
        .arg(qemu)
        .arg("--out")
        .arg(dir.path().join("recording"));
    Said::of(command.args(rows))
}

#[test]
fn an_ipi_is_followed_from_one_cpu_to_the_other() {
    for (major, qemu) in qemus() {
        let rows = ["ipi", "ipi_halt", "moved", "locking_global_2"];
        let said = traced(&qemu, &rows);
        if major < 10 {
            said.fails(3, &["ipi is traced on two CPUs", "lab qemu --fetch"]);
            continue;
        }
        assert_eq!(said.status, Some(0), "{}", said.stderr);
        let paths = said.json();
        let paths = paths.as_array().expect("several rows");
        assert_eq!(paths.len(), rows.len());
        for path in paths {
            let name = &path["row"];
            assert_eq!(number(path, "cpus"), 2, "{name}");
            assert_eq!(path["residual"], 0, "{name}");
            assert_eq!(path["rounds_with_residual"], 0, "{name}");
            let turns = list(path, "turns");
            let sum: i64 = turns.iter().map(|turn| number(turn, "instructions")).sum();
            if !turns.is_empty() {
                assert_eq!(sum, number(path, "executed"), "{name}");
            }
        }
        let ipi = &paths[0];
        let cpus: Vec<i64> = list(ipi, "turns")
            .iter()
            .map(|turn| number(turn, "cpu"))
            .collect();
        assert_eq!(cpus, [0, 1, 0], "sent, taken, and seen");
        // The sender's write; that it interrupts the receiver, and the receiver's end of interrupt.
        let reasons: Vec<&Value> = list(ipi, "exit_reasons")
            .iter()
            .map(|exit| &exit["reason"])
            .collect();
        assert_eq!(reasons, ["msr", "interrupt", "msr"]);
    }
}
