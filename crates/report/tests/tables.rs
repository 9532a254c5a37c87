//! Text and JSON of summaries made up here: layout, field names, nulls.
//!
//! Snapshots are in `tests/snapshots`. To accept a change that is meant, run with
//! `INSTA_UPDATE=always` and look at the difference.

use exitpath_analysis::table::{Figures, HandledBy, RowSummary, Variant, Verdict};
use exitpath_recording::{Bounds, Difference, Environment, Machine, Manifest, Plan, RowInfo};
use exitpath_report::{Style, json, views};

fn row(name: &str) -> RowSummary {
    let exactly = |exits| Bounds {
        min: exits,
        max: exits,
    };
    RowSummary {
        row: RowInfo {
            name: name.to_owned(),
            operation: format!("what {name} does"),
            reference: false,
            halts: false,
            interrupts: false,
            vcpus: 1,
            delay_ticks: 0,
            exits: exactly(1.0),
            userspace_exits: exactly(0.0),
            parameters: std::collections::BTreeMap::new(),
            rung: None,
            kick: None,
        },
        handled_by: Some(HandledBy::Kernel),
        exits_per_op: Some(1.0),
        userspace_exits_per_op: Some(0.0),
        figures: None,
        slope: None,
        samples: 0,
        interrupted: 0,
        runs: 0,
        cpus: 1,
        variants: Vec::new(),
        verdict: Verdict::Clean,
        notes: Vec::new(),
    }
}

fn skipped(name: &str, why: &str) -> RowSummary {
    RowSummary {
        handled_by: None,
        exits_per_op: None,
        userspace_exits_per_op: None,
        cpus: 0,
        verdict: Verdict::Skipped,
        notes: vec![why.to_owned()],
        ..row(name)
    }
}

fn variant(instructions: i64, samples: u64, seeds: &[u64]) -> Variant {
    Variant {
        instructions,
        samples,
        seeds: seeds.to_vec(),
        interrupted: false,
    }
}

/// A row of the lab with this value.
fn counted(name: &str, value: i64, variants: Vec<Variant>) -> RowSummary {
    RowSummary {
        figures: Some(Figures {
            floor: value as f64,
            median: value as f64,
            p99: value as f64,
            mean: value as f64,
            ci95: None,
        }),
        slope: Some(value as f64),
        samples: 750,
        runs: 3,
        variants,
        ..row(name)
    }
}

/// A row of a host with this median in ticks.
fn timed(name: &str, ticks: f64) -> RowSummary {
    RowSummary {
        figures: Some(Figures {
            floor: ticks - 60.0,
            median: ticks,
            p99: ticks * 1.5 + 200.0,
            mean: ticks + 31.3,
            ci95: Some((ticks + 22.4, ticks + 40.2)),
        }),
        slope: Some(ticks - 12.5),
        samples: 20_000,
        runs: 20,
        ..row(name)
    }
}

fn manifest(machine: Machine) -> Manifest {
    let lab = machine == Machine::Lab;
    let of = |lab_says: &str, host_says: &str| if lab { lab_says } else { host_says }.to_owned();
    Manifest {
        conditions: vec![exitpath_recording::Condition::base()],
        command: "measure".to_owned(),
        begun_unix_seconds: 1_750_000_000,
        machine,
        environment: Environment {
            arch: "x86_64".to_owned(),
            machine_kind: exitpath_recording::kind::SVM.to_owned(),
            kernel: of("6.1.0-56-amd64", "6.12.48"),
            cmdline: of("console=ttyS0 quiet", "root=/dev/sda1 ro isolcpus=2,3"),
            cpu: of("EPYC-Milan", "AMD EPYC 7313 16-Core Processor"),
            cpus: if lab { 2 } else { 32 },
            qemu: lab.then(|| "10.0.2".to_owned()),
            seeds: if lab { vec![1, 2, 3] } else { Vec::new() },
            tsc_khz: (!lab).then_some(2_994_375),
            exitpath: "exitpath 0.1.0".to_owned(),
            facts: [("kvm.modules".to_owned(), "kvm_amd".into())].into(),
        },
        plan: Plan {
            runs: 3,
            samples: 250,
            batches: 8,
            batch_length: 16,
            order_seed: 1,
        },
        rows: Vec::new(),
        warnings: vec!["governor: it is powersave → set it to performance".to_owned()],
    }
}

fn lab_rows() -> Vec<RowSummary> {
    let interrupted = Variant {
        interrupted: true,
        ..variant(16_705, 2, &[1, 3])
    };
    let all: &[u64] = &[1, 2, 3];
    vec![
        RowSummary {
            handled_by: Some(HandledBy::None),
            exits_per_op: Some(0.0),
            ..counted("empty", 0, vec![variant(0, 750, all)])
        },
        RowSummary {
            interrupted: 2,
            ..counted("cpuid", 3_159, vec![variant(3_159, 748, all), interrupted])
        },
        RowSummary {
            handled_by: Some(HandledBy::Userspace),
            userspace_exits_per_op: Some(1.0),
            ..counted("inl_from_qemu", 3_760, vec![variant(3_760, 750, all)])
        },
        RowSummary {
            handled_by: Some(HandledBy::Hardware),
            exits_per_op: Some(0.0),
            ..counted("mov_from_cr8", 1, vec![variant(1, 750, all)])
        },
        RowSummary {
            verdict: Verdict::Usable,
            notes: vec![
                "1700 and 1764 are equally frequent: the smaller one stands for the row".to_owned(),
            ],
            ..counted(
                "wr_ibrs_msr",
                1_700,
                vec![variant(1_700, 375, all), variant(1_764, 375, all)],
            )
        },
        RowSummary {
            cpus: 2,
            verdict: Verdict::Usable,
            notes: vec![
                "no value is in the majority: the median of 5 different ones, 46204 to 55393, \
                 stands for the row"
                    .to_owned(),
            ],
            ..counted(
                "ipi_halt",
                46_530,
                vec![
                    variant(46_204, 120, &[1, 2]),
                    variant(46_530, 110, all),
                    variant(47_001, 40, &[3]),
                    variant(46_204, 20, &[1]),
                    variant(55_393, 10, &[2]),
                ],
            )
        },
        RowSummary {
            verdict: Verdict::Void,
            exits_per_op: Some(0.0),
            notes: vec!["750 operations made 0.00 exits each, not 1".to_owned()],
            ..counted("xsetbv", 12, vec![variant(12, 750, all)])
        },
        skipped("rdpmc", "the guest's CPU has no performance counters"),
        skipped("rdtscp", "the guest's CPU has no performance counters"),
    ]
}

fn host_rows() -> Vec<RowSummary> {
    let noise = || vec!["the hypervisor below took CPU time away (steal)".to_owned()];
    vec![
        RowSummary {
            handled_by: Some(HandledBy::None),
            exits_per_op: Some(0.0),
            figures: Some(Figures {
                floor: -0.1,
                median: -0.0,
                p99: 4.0,
                mean: -0.4,
                ci95: Some((-1.9, 1.1)),
            }),
            ..timed("empty", 0.0)
        },
        RowSummary {
            verdict: Verdict::Usable,
            notes: noise(),
            ..timed("cpuid", 3_640.0)
        },
        RowSummary {
            handled_by: Some(HandledBy::Userspace),
            userspace_exits_per_op: Some(1.0),
            verdict: Verdict::Usable,
            notes: [
                noise(),
                vec!["a single run has no interval: use --runs 20".to_owned()],
            ]
            .concat(),
            figures: timed("", 8_231_000.0).figures.map(|figures| Figures {
                ci95: None,
                ..figures
            }),
            samples: 1_000,
            runs: 1,
            ..timed("inl_from_qemu", 0.0)
        },
        RowSummary {
            handled_by: None,
            exits_per_op: None,
            userspace_exits_per_op: None,
            verdict: Verdict::Void,
            notes: vec!["no progress for 2s after 0 operations".to_owned()],
            ..row("vmcall")
        },
        skipped("rdpmc", "the guest's CPU has no performance counters"),
    ]
}

#[test]
fn the_labs_text() {
    insta::assert_snapshot!(views::table(&manifest(Machine::Lab), &lab_rows()));
}

#[test]
fn a_hosts_text() {
    insta::assert_snapshot!(views::table(&manifest(Machine::Host), &host_rows()));
}

#[test]
fn a_host_whose_tsc_frequency_is_unknown_has_cycles_only() {
    let mut manifest = manifest(Machine::Host);
    manifest.environment.tsc_khz = None;
    let rows = [timed("cpuid", 3_640.0)];
    insta::assert_snapshot!(views::table(&manifest, &rows));
    let table = json::table(&manifest, &rows, None);
    let table: serde_json::Value = serde_json::from_str(&table.render()).unwrap();
    let row = &table["rows"][0];
    for figure in ["floor", "median", "p99", "mean", "ci95", "slope"] {
        assert!(row[figure].is_null(), "{row}");
    }
    assert_eq!(row["cycles"]["median"], 3_640.0);
    assert_eq!(table["unit"], "ns");
}

#[test]
fn the_labs_json() {
    let rows = lab_rows();
    let rows = [rows[1].clone(), rows[7].clone()];
    insta::assert_snapshot!(json::table(&manifest(Machine::Lab), &rows, None).render());
}

#[test]
fn a_hosts_json() {
    let rows = host_rows();
    let place = Some("/tmp/recording".to_owned());
    let rows = [rows[1].clone(), rows[3].clone()];
    insta::assert_snapshot!(json::table(&manifest(Machine::Host), &rows, place).render());
}

#[test]
fn every_row_of_the_json_has_every_field_that_was_promised() {
    for (machine, rows) in [(Machine::Lab, lab_rows()), (Machine::Host, host_rows())] {
        let manifest = manifest(machine);
        let table = json::table(&manifest, &rows, None).render();
        let table: serde_json::Value = serde_json::from_str(&table).unwrap();
        for key in ["machine", "unit", "environment", "rows", "warnings"] {
            assert!(!table[key].is_null(), "{key}");
        }
        for key in [
            "kernel", "cmdline", "cpu", "cpus", "qemu", "seeds", "tsc_khz",
        ] {
            let environment = table["environment"].as_object().unwrap();
            assert!(environment.contains_key(key), "{key}");
        }
        for row in table["rows"].as_array().unwrap() {
            let row = row.as_object().unwrap();
            for key in [
                "name",
                "handled_by",
                "exits_per_op",
                "userspace_exits_per_op",
                "floor",
                "median",
                "p99",
                "mean",
                "ci95",
                "samples",
                "runs",
                "variants",
                "verdict",
                "notes",
            ] {
                assert!(row.contains_key(key), "{key}");
            }
            assert!(machine == Machine::Host || row["ci95"].is_null());
            assert_eq!(machine == Machine::Host, row.contains_key("cycles"));
            if row["verdict"] == "skipped" {
                for key in [
                    "handled_by",
                    "exits_per_op",
                    "floor",
                    "median",
                    "p99",
                    "mean",
                    "ci95",
                ] {
                    assert!(row[key].is_null(), "{key}");
                }
                assert!(!row["notes"].as_array().unwrap().is_empty());
            }
        }
    }
}

#[test]
fn a_line_of_the_labs_text_fits_in_150_columns() {
    let seeds: Vec<u64> = (10..30).collect();
    let wide = RowSummary {
        handled_by: Some(HandledBy::Userspace),
        exits_per_op: Some(1_234.56),
        userspace_exits_per_op: Some(16.0),
        samples: 65_536,
        interrupted: 12_345,
        verdict: Verdict::Skipped,
        notes: vec!["a note with many words ".repeat(20), "word".repeat(50)],
        ..counted(
            "x2apic_self_ipi_tpr_sti_nop",
            28_000_133,
            (0..500)
                .map(|i| variant(28_000_000 + i, 65, &seeds[1..]))
                .collect(),
        )
    };
    let rows: Vec<RowSummary> = (0..60)
        .map(|i| RowSummary {
            cpus: 1 + i % 2,
            row: RowInfo {
                name: format!("{}_{i}", &wide.row.name[..24]),
                ..wide.row.clone()
            },
            ..wide.clone()
        })
        .collect();
    let mut manifest = manifest(Machine::Lab);
    manifest.environment.seeds = seeds;
    manifest.warnings = vec!["something that takes many words to explain ".repeat(9)];
    let text = views::table(&manifest, &rows).to_string();
    for line in text.lines().filter(|line| !line.contains("wordword")) {
        assert!(
            line.chars().count() <= 150,
            "{}: {line}",
            line.chars().count()
        );
        assert_eq!(line.trim_end(), line);
    }
}

#[test]
fn a_recording_cannot_move_the_terminals_cursor() {
    let evil = "\u{1b}[2J\r\nfake  1.00\u{7}\u{9b}31m";
    let mut rows = vec![counted(evil, 5, vec![]), counted("cpuid", 5, vec![])];
    rows[0].notes = vec![evil.to_owned()];
    for machine in [Machine::Lab, Machine::Host] {
        let mut manifest = manifest(machine);
        let environment = &mut manifest.environment;
        environment.kernel = evil.to_owned();
        environment.cmdline = evil.to_owned();
        environment.cpu = evil.to_owned();
        environment.qemu = Some(evil.to_owned());
        manifest.warnings = vec![evil.to_owned()];
        let text = views::table(&manifest, &rows).to_string();
        assert!(
            text.chars().all(|c| c == '\n' || !c.is_control()),
            "{text:?}"
        );
        assert!(
            !text.lines().any(|line| line.starts_with("fake")),
            "{text:?}"
        );
    }
}

#[test]
fn what_differs_in_the_kernel_is_said_of_it() {
    let mut manifest = manifest(Machine::Lab);
    let [condition] = manifest.conditions.as_mut_slice() else {
        panic!("there is one condition");
    };
    let word = |text: &str| text.to_owned();
    condition.differs = vec![
        Difference::Tracer(word("kvm/kvm_exit")),
        Difference::Patch {
            function: word("kfree"),
            returns: None,
        },
        Difference::Delay { ticks: 1 },
        Difference::Parameter {
            module: word("kvm"),
            name: word("halt_poll_ns"),
            value: word("0"),
        },
    ];
    let text = views::table(&manifest, &[]).to_string();
    let expected = "Linux 6.1.0-56-amd64, without kfree, kvm/kvm_exit traced, a delay of 1 tick after each exit, \
                    kvm.halt_poll_ns=0, command line: ";
    assert!(text.contains(expected), "{text}");
}

#[test]
fn an_empty_table_is_a_header_and_an_environment() {
    for machine in [Machine::Lab, Machine::Host] {
        let text = views::table(&manifest(machine), &[]).to_string();
        assert!(text.lines().count() >= 4, "{text}");
    }
}

#[test]
fn no_number_makes_the_text_fail() {
    for value in [
        f64::MAX,
        f64::MIN,
        f64::NAN,
        f64::INFINITY,
        -0.04,
        99.96,
        1e-300,
    ] {
        let mut row = timed("x", value);
        row.exits_per_op = Some(value.abs());
        for machine in [Machine::Lab, Machine::Host] {
            let text = views::table(&manifest(machine), &[row.clone()]).to_string();
            assert!(!text.contains("-0.0"), "{text}");
            json::table(&manifest(machine), &[row.clone()], None).render();
        }
    }
}

/// What a narrow terminal shows, of all rows of the table's kinds.
#[test]
fn a_terminal_gets_what_fits() {
    for (name, machine, rows) in [
        ("lab", Machine::Lab, lab_rows()),
        ("host", Machine::Host, host_rows()),
    ] {
        let text = views::table(&manifest(machine), &rows);
        for width in [80, 100] {
            let style = Style {
                width: Some(width),
                colour: false,
            };
            let shown = text.laid_out(&style);
            for line in shown.lines() {
                assert!(
                    line.chars().count() <= width,
                    "{}: {line}",
                    line.chars().count()
                );
            }
            insta::assert_snapshot!(format!("{name}_at_{width}"), shown);
        }
        // Without a limit it is what a pipe gets.
        assert_eq!(text.laid_out(&Style::default()), text.to_string());
    }
}

/// What is not clean stands out; without its colours the text is the same.
#[test]
fn colours_mark_what_is_not_clean_and_nothing_else() {
    let text = views::table(&manifest(Machine::Lab), &lab_rows());
    let coloured = Style {
        width: Some(100),
        colour: true,
    };
    let plain = Style {
        colour: false,
        ..coloured
    };
    let (coloured, plain) = (text.laid_out(&coloured), text.laid_out(&plain));
    assert!(!plain.contains('\u{1b}'), "{plain}");
    let mut marked = 0;
    for (coloured, plain) in coloured.lines().zip(plain.lines()) {
        if coloured == plain {
            let verdict = plain
                .split_whitespace()
                .find(|word| ["void", "usable"].contains(word));
            assert_eq!(verdict, None, "{plain}");
        } else {
            marked += 1;
            let code = coloured.split(['[', 'm']).nth(1).expect("a colour");
            let is = |word: &str| plain.split_whitespace().any(|other| other == word);
            let expected = match () {
                () if is("void") => "31",
                () if is("usable") || plain.starts_with("warning:") => "33",
                () if is("skipped") => "2",
                () => panic!("{plain}"),
            };
            assert_eq!(code, expected, "{coloured}");
            assert_eq!(coloured, format!("\u{1b}[{code}m{plain}\u{1b}[0m"));
        }
    }
    assert!(marked >= 5, "{coloured}");
}

/// However narrow a terminal is, a row's name, its value and its verdict are there, and whole numbers.
#[test]
fn no_width_breaks_a_number() {
    let whole = views::table(&manifest(Machine::Lab), &lab_rows()).to_string();
    for width in 1..160 {
        let style = Style {
            width: Some(width),
            colour: false,
        };
        let shown = views::table(&manifest(Machine::Lab), &lab_rows()).laid_out(&style);
        for row in lab_rows() {
            let Some(figures) = row.figures else { continue };
            let line = whole
                .lines()
                .find(|line| line.trim_start().starts_with(&row.row.name));
            let value = figures.median as u64;
            assert!(line.is_some() && value < 1_000_000);
            let thousands = match value {
                0..1000 => value.to_string(),
                _ => format!("{},{:03}", value / 1000, value % 1000),
            };
            let has = |line: &str| line.split_whitespace().any(|word| word == thousands);
            assert!(shown.lines().any(has), "{width}: {thousands} in\n{shown}");
        }
    }
}

/// An older QEMU's table says what a newer one would change, and how to get it.
#[test]
fn an_old_qemu_is_said_to_be_one() {
    let says = |machine, qemu: &str| {
        let mut manifest = manifest(machine);
        manifest.environment.qemu = Some(qemu.to_owned());
        views::table(&manifest, &lab_rows())
            .to_string()
            .contains("lab qemu --fetch")
    };
    assert!(says(Machine::Lab, "7.2.22 (Debian 1:7.2+dfsg-7)"));
    assert!(says(Machine::Lab, "9.1.0"));
    assert!(!says(Machine::Lab, "10.0.2 (Debian 1:10.0.2+ds-2)"));
    assert!(!says(Machine::Lab, "nonsense"));
    assert!(!says(Machine::Host, "7.2.22"));
}
