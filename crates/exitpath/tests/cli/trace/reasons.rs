//! Exit reasons: measured ones against those the catalogue has, on a real kernel in the lab.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

use exitpath_exits::kicks::{KICKS, Part};
use exitpath_exits::ladder::{RUNGS, is_locking};
use exitpath_exits::{Group, ROWS, Row, find};
use serde_json::Value;

use crate::common::{Said, exitpath, linux_6_1, qemus};

/// Every row of one vCPU that may exit, but for those whose disks, or consumers that never run, make
/// an operation of many exits.
fn rows() -> Vec<&'static Row> {
    let own = ROWS
        .iter()
        .filter(|row| row.vcpus == 1 && row.exits.1 > 0.0);
    let rungs = RUNGS.iter().filter(|row| row.cpus == 1 && !is_locking(row));
    let kicks = KICKS.iter().filter(|row| {
        let part = row.kick.map(|kick| kick.part);
        !matches!(part, None | Some(Part::Disks | Part::Check))
    });
    own.chain(rungs).chain(kicks).collect()
}

/// Traces three rounds with seed 1 on Linux 6.1.
fn trace(qemu: &Path, rows: &[&str], out: &Path) -> Command {
    let mut command = exitpath(&["trace", "--kernel", "6.1", "--rounds", "3", "--seed", "1"]);
    command.args(rows).arg("--qemu").arg(qemu);
    command.arg("--out").arg(out);
    command
}

fn words(reasons: &Value) -> Vec<&str> {
    let reasons = reasons.as_array().expect("reasons are known").iter();
    reasons
        .map(|reason| reason["reason"].as_str().expect("a word"))
        .collect()
}

#[test]
fn every_row_exits_for_the_reasons_that_the_catalogue_gives() {
    if !linux_6_1() {
        return;
    }
    for (major, qemu) in qemus() {
        let dir = tempfile::tempdir().expect("a folder");
        let rows = rows();
        let names: Vec<&str> = rows.iter().map(|row| row.name).collect();
        let mut command = trace(&qemu, &names, &dir.path().join("reasons"));
        let said = Said::of(command.arg("--json"));
        assert_eq!(said.status, Some(0), "QEMU {major}: {}", said.stderr);
        let traced = said.json();
        let traced = traced.as_array().expect("several rows");
        let (mut told, mut wrong) = (0, Vec::new());
        for path in traced {
            let name = path["row"].as_str().expect("a name");
            let row = find(name).expect("a row");
            let measured = words(&path["exit_reasons"]);
            assert_eq!(path["exits"], measured.len(), "QEMU {major}: {path}");
            let measured: BTreeSet<&str> = measured.into_iter().collect();
            let given: BTreeSet<&str> = match (name, major) {
                // Of QEMU's own making: it tells the hypervisor of WBINVD.
                ("invd", ..=7) => ["wbinvd"].into(),
                _ => row.reasons.svm.iter().copied().collect(),
            };
            if measured != given {
                wrong.push((name, measured, given));
            }
            told += 1;
        }
        assert!(
            wrong.is_empty(),
            "QEMU {major}: row, measured, given: {wrong:?}"
        );
        // Those that emulated SVM handles without an exit, or that its CPU cannot do.
        let most = rows.iter().filter(|row| row.group != Group::Check).count();
        assert!(told + 12 >= most, "QEMU {major}: {told} of {most}");
    }
}

#[test]
fn a_round_tells_its_reasons_in_their_order() {
    if !linux_6_1() {
        return;
    }
    for (major, qemu) in qemus() {
        let dir = tempfile::tempdir().expect("a folder");
        let out = dir.path().join("traced");
        let rows = ["x2apic_self_ipi_sti_hlt", "pci-io-datamatch-eventfd"];
        let said = Said::of(&mut trace(&qemu, &rows, &out));
        assert_eq!(said.status, Some(0), "QEMU {major}: {}", said.stderr);
        for line in [
            "exits: msr (write), hlt, vintr, msr (write)",
            "exits: io (out 0xc008, 1 byte)",
        ] {
            let text = &said.stdout;
            assert!(text.lines().any(|it| it == line), "QEMU {major}: {text}");
        }
        let mut show = exitpath(&["trace", rows[1], "--json", "--recording"]);
        let path = Said::of(show.arg(&out)).json();
        let reason = &path["exit_reasons"][0];
        assert_eq!(
            (&reason["reason"], &reason["code"]),
            (&"io".into(), &0x7b.into())
        );
        // Out, one byte, 64-bit address size as QEMU has it, port 0xc008.
        let info1 = reason["info1"].as_u64().expect("a number");
        assert_eq!((info1 >> 16, info1 & 0x7f), (0xc008, 0x10), "{reason}");
        assert_eq!(words(&path["variants"][0]["exit_reasons"]), ["io"]);
    }
}
