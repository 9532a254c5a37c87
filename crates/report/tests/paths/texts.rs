use exitpath_analysis::path::{Count, Function, RowPath};
use exitpath_recording::fact::EXITS_UNREAD;
use exitpath_recording::{Exit, Trace};
use exitpath_report::views::Functions;
use exitpath_report::{Error, flame, json, views};

use crate::build::{cpuid, inl_from_qemu, manifest, with_instructions};

#[test]
fn a_path_that_the_kernel_answers() {
    let manifest = manifest();
    insta::assert_snapshot!(views::path(&manifest, &cpuid(), Functions::default()));
}

#[test]
fn a_path_that_user_space_answers_with_a_residual() {
    let manifest = manifest();
    insta::assert_snapshot!(views::path(&manifest, &inl_from_qemu(), Functions::All));
}

/// An exit of a round.
fn exit(code: u64, info1: u64, info2: u64) -> Exit {
    Exit {
        segment: 3,
        code,
        info1,
        info2,
    }
}

/// The path of a row that exits several times, and one of whose rounds was interrupted.
fn with_reasons() -> RowPath {
    let mut path = cpuid();
    let usual = vec![
        exit(0x7c, 1, 0),
        exit(0x78, 0, 0),
        exit(0x64, 0, 0),
        exit(0x7b, 0xc004_0010, 0x1000),
        exit(0x400, 6, 0xd000_0204),
        exit(0x123, 0, 0),
    ];
    path.exits = 6;
    path.exit_reasons = Some(usual.clone());
    // The same reasons, of another address.
    let mut elsewhere = usual.clone();
    elsewhere[4].info2 += 0x1000;
    let interrupted = vec![exit(0x60, 0, 0); 4];
    let reasons = [usual, interrupted, elsewhere];
    for (variant, reasons) in path.variants.iter_mut().zip(reasons) {
        variant.exit_reasons = Some(reasons);
    }
    path
}

#[test]
fn reasons_of_exits_are_in_the_header_and_where_variants_differ_in_them() {
    let text = views::path(&manifest(), &with_reasons(), Functions::default()).to_string();
    let line = "\nexits: msr (write), hlt, vintr, io (out 0xc004, 1 byte), npf (write of 0xd0000204), \
                0x123\n";
    assert!(text.contains(line), "{text}");
    let text: Vec<&str> = text.split_whitespace().collect();
    let text = text.join(" ");
    assert!(
        text.contains("(9,321 … 9,340) with exits interrupt × 4;"),
        "{text}"
    );
    assert_eq!(text.matches(" with exits").count(), 1, "{text}");
}

#[test]
fn reasons_that_are_not_known_are_not_made_up() {
    let nothing = views::path(&manifest(), &cpuid(), Functions::default()).to_string();
    assert!(!nothing.contains("\nexits:"), "{nothing}");
    let json = json::path(&manifest(), &cpuid(), None).render();
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert!(json["exit_reasons"].is_null());
    assert!(json.get("exit_reasons_unknown").is_none());

    let mut manifest = manifest();
    let facts = &mut manifest.environment.facts;
    facts.insert(EXITS_UNREAD.to_owned(), "this QEMU is\nmute".into());
    let why = views::path(&manifest, &cpuid(), Functions::default()).to_string();
    let line = "\nexits: their reasons are not known: this QEMU is mute\n";
    assert!(why.contains(line), "{why}");
    let json = json::path(&manifest, &cpuid(), None).render();
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(json["exit_reasons_unknown"], "this QEMU is mute");
}

#[test]
fn many_exits_are_counted() {
    let mut path = cpuid();
    path.exit_reasons = Some(
        (0..400)
            .flat_map(|_| [exit(0x7b, 0, 0), exit(0x7c, 0, 0)])
            .collect(),
    );
    let text = views::path(&manifest(), &path, Functions::default()).to_string();
    assert!(text.contains("… and 784 more\n"), "{text}");
}

#[test]
fn the_json_has_reasons_of_exits() {
    let path = with_reasons();
    let json = json::path(&manifest(), &path, None).render();
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    let first = serde_json::json!({"reason": "msr", "code": 0x7c, "info1": 1, "info2": 0});
    assert_eq!(json["exit_reasons"][0], first);
    assert_eq!(json["exit_reasons"][5]["reason"], "0x123");
    assert_eq!(json["exit_reasons"].as_array().unwrap().len(), 6);
    assert_eq!(
        json["variants"][1]["exit_reasons"][0]["reason"],
        "interrupt"
    );
}

/// Numbers of a line, without separators.
fn numbers(line: &str) -> Vec<u64> {
    line.split_whitespace()
        .filter_map(|word| word.replace(',', "").parse().ok())
        .collect()
}

#[test]
fn functions_left_out_are_summed() {
    let path = cpuid();
    let shown = views::path(&manifest(), &path, Functions::Top(3)).to_string();
    let rest = shown.lines().find(|line| line.contains("… and")).unwrap();
    let left_out: u64 = path.functions[3..].iter().map(|f| f.own.all).sum();
    let lean: u64 = path.functions[3..].iter().map(|f| f.own.lean).sum();
    let number = path.functions.len() as u64 - 3;
    assert_eq!(numbers(rest), [number, left_out, lean], "{rest}");

    let all = views::path(&manifest(), &path, Functions::All).to_string();
    assert!(!all.contains("… and"), "{all}");
    for function in &path.functions {
        assert!(all.contains(&function.name), "{all}");
    }
    // One more fits where the line on it would be.
    let one_less = Functions::Top(path.functions.len() - 1);
    assert_eq!(views::path(&manifest(), &path, one_less).to_string(), all);
}

#[test]
fn a_path_with_many_functions_and_variants_fits_in_a_screens_width() {
    let mut path = cpuid();
    let function = Function {
        name: format!("<alloc::vec::Vec<{}> as Drop>::drop", "x".repeat(200)),
        module: "virtualization_module".to_owned(),
        own: Count {
            all: 2_800_133,
            lean: 2_800_000,
        },
        total: Count {
            all: 2_800_133,
            lean: 2_800_000,
        },
        calls: Count {
            all: 100_000,
            lean: 100_000,
        },
        ..path.functions[0].clone()
    };
    path.functions = vec![function; 500];
    path.variants = (0..400).flat_map(|_| cpuid().variants).collect();
    let text = views::path(&manifest(), &path, Functions::default()).to_string();
    assert!(text.lines().count() < 60, "{text}");
    for line in text.lines() {
        assert!(line.chars().count() <= 150, "{line}");
        assert_eq!(line.trim_end(), line);
    }
}

#[test]
fn seeds_are_listed_with_their_values() {
    let at = |seed, all| {
        let mut path = cpuid();
        path.seed = Some(seed);
        path.total.all = all;
        path
    };
    let lean = cpuid().total.lean;
    assert_eq!(lean, 2_442);
    assert_eq!(
        views::seeds(&[at(1, 3_000), at(2, 3_014), at(3, 3_000)]),
        "seeds 1 3: 3,000 (2,442 lean)\nseed 2: 3,014 (2,442 lean)\n"
    );
}

#[test]
fn the_json() {
    let path = cpuid();
    let manifest = manifest();
    let place = Some("/tmp/recording".to_owned());
    insta::assert_snapshot!(json::path(&manifest, &path, place).render());
}

#[test]
fn the_json_has_every_field_that_was_promised() {
    for path in [cpuid(), inl_from_qemu()] {
        let manifest = manifest();
        let json = json::path(&manifest, &path, None).render();
        let json: serde_json::Value = serde_json::from_str(&json).unwrap();
        for key in ["row", "unit", "environment"] {
            assert!(!json[key].is_null(), "{key}");
        }
        for key in [
            "rounds",
            "total",
            "guest_timed",
            "intercepted",
            "residual",
            "total_without_skip_emulation",
        ] {
            assert!(json[key].is_i64(), "{key}");
        }
        let fields: [(&str, &[&str]); 5] = [
            ("phases", &["name", "instructions"]),
            ("functions", &["name", "module", "self", "total", "calls"]),
            ("classes", &["class", "count"]),
            ("variants", &["rounds", "total", "differs_by"]),
            ("emulated_cpu_artefacts", &["what", "instructions"]),
        ];
        for (list, keys) in fields {
            for item in json[list].as_array().unwrap() {
                for key in keys {
                    assert!(!item[key].is_null(), "{list}: {key}");
                }
            }
        }
        let sum = |list: &str, key: &str| -> u64 {
            let items = json[list].as_array().unwrap().iter();
            items.map(|item| item[key].as_u64().unwrap()).sum()
        };
        assert_eq!(sum("phases", "instructions"), path.total.all);
        assert_eq!(sum("phases", "without_skip_emulation"), path.total.lean);
        assert_eq!(sum("functions", "self"), path.total.all);
    }
}

#[test]
fn trees() {
    let manifest = manifest();
    insta::assert_snapshot!("tree_of_cpuid", views::tree(&manifest, &cpuid(), 0));
    insta::assert_snapshot!("tree_of_inl", views::tree(&manifest, &inl_from_qemu(), 0));
    insta::assert_snapshot!("tree_from_50", views::tree(&manifest, &cpuid(), 50));
}

#[test]
fn a_tree_says_where_its_instructions_are_whatever_is_hidden() {
    let path = cpuid();
    let own: Vec<u64> = views::tree(&manifest(), &path, 0)
        .to_string()
        .lines()
        .skip_while(|line| !line.contains("own"))
        .skip(1)
        .map(|line| numbers(line)[0])
        .collect();
    assert_eq!(own.len(), path.tree.len());
    assert_eq!(own.iter().sum::<u64>(), path.total.all);

    let nothing = views::tree(&manifest(), &path, u64::MAX).to_string();
    let last = nothing.lines().last().unwrap();
    assert_eq!(
        numbers(last),
        [path.total.all, path.total.lean, 1],
        "{last}"
    );
}

#[test]
fn an_annotated_function() {
    let mut path = cpuid();
    let trace = with_instructions(&mut path);
    let text = views::annotate(&manifest(), &path, &trace, "kvm_pmu_trigger_event")
        .unwrap()
        .to_string();
    insta::assert_snapshot!(text);
}

#[test]
fn an_annotation_needs_neither_symbols_nor_lines() {
    let mut path = cpuid();
    with_instructions(&mut path);
    let name = "kvm_pmu_trigger_event";
    let text = views::annotate(&manifest(), &path, &Trace::default(), name)
        .unwrap()
        .to_string();
    assert!(text.contains("push %rbp"), "{text}");
    // Nor is what has no instructions recorded an error.
    let text = views::annotate(&manifest(), &path, &Trace::default(), "kvm_cpuid")
        .unwrap()
        .to_string();
    assert!(text.contains("kvm_cpuid [kvm]"), "{text}");
}

fn near(path: &RowPath, name: &str) -> Vec<String> {
    match views::annotate(&manifest(), path, &Trace::default(), name) {
        Err(Error::UnknownFunction { near, .. }) => near,
        other => panic!("{other:?}"),
    }
}

#[test]
fn an_unknown_function_is_an_error_that_names_others() {
    let path = cpuid();
    assert_eq!(near(&path, "kvm_cpiud"), ["kvm_cpuid"]);
    assert_eq!(
        near(&path, "SVM_VCPU_RUN"),
        ["svm_vcpu_run", "__svm_vcpu_run"]
    );
    // Nothing is like it: those with most instructions.
    let most: Vec<&String> = path.functions[..8].iter().map(|f| &f.name).collect();
    assert_eq!(near(&path, "zzz").iter().collect::<Vec<_>>(), most);
    assert_eq!(near(&path, "").len(), 8);
    let error = views::annotate(&manifest(), &path, &Trace::default(), "kvm_cpiud").unwrap_err();
    assert_eq!(
        error.to_string(),
        "cpuid executed no function kvm_cpiud: try one of kvm_cpuid"
    );
}

#[test]
fn a_recording_cannot_move_the_terminals_cursor() {
    let evil = || "\u{1b}[2J\r\nfake  1.00\u{7}\u{9b}31m".to_owned();
    let mut path = cpuid();
    let mut trace = with_instructions(&mut path);
    path.row = evil();
    for phase in &mut path.phases {
        phase.name = evil();
    }
    for function in &mut path.functions {
        (function.name, function.module, function.phase) = (evil(), evil(), evil());
    }
    for node in &mut path.tree {
        (node.name, node.module, node.phase) = (evil(), evil(), evil());
    }
    for function in path.classes.iter_mut().flat_map(|c| &mut c.functions) {
        function.0 = evil();
    }
    for variant in &mut path.variants {
        variant.differs_by = evil();
    }
    for artefact in &mut path.artefacts {
        artefact.what = evil();
    }
    for executed in &mut path.instructions {
        executed.text = evil();
    }
    for symbol in &mut trace.symbols {
        symbol.name = evil();
    }
    for location in &mut trace.locations {
        (location.function, location.file) = (evil(), evil());
    }
    let manifest = manifest();
    for text in [
        views::path(&manifest, &path, Functions::All).to_string(),
        views::tree(&manifest, &path, 0).to_string(),
        views::annotate(&manifest, &path, &trace, &evil())
            .unwrap()
            .to_string(),
        flame::folded(&path, flame::Which::All),
        views::annotate(&manifest, &path, &trace, "none")
            .unwrap_err()
            .to_string(),
    ] {
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

/// A return thunk is in every phase: the one it is in most does not stand for all.
#[test]
fn a_function_in_several_phases_is_said_to_be() {
    let mut path = cpuid();
    let function = path.functions[0].clone();
    let shown = |path: &RowPath| {
        let text = views::path(&manifest(), path, Functions::All).to_string();
        let line = text
            .lines()
            .find(|line| line.trim_start().starts_with(&function.name));
        line.expect("its line").to_owned()
    };
    assert!(!shown(&path).ends_with("more"), "{}", shown(&path));
    let node = path
        .tree
        .iter()
        .find(|node| node.name == function.name && node.own.all > 0);
    let mut elsewhere = node.expect("it has instructions").clone();
    elsewhere.phase = "another".to_owned();
    path.tree.push(elsewhere.clone());
    path.tree.push(elsewhere);
    let expected = format!("{} and 1 more", function.phase);
    assert!(shown(&path).ends_with(&expected), "{}", shown(&path));
}

#[test]
fn what_a_row_subtracts_is_shown_and_its_total_is_what_is_measured() {
    let mut path = cpuid();
    let executed = path.total.all;
    path.delay = 100;
    (path.baseline.all, path.baseline.lean, path.baseline_exits) = (30, 20, 1);
    path.guest_timed = executed - 131;
    let text = views::path(&manifest(), &path, Functions::default()).to_string();
    let line = |name: &str| -> Vec<String> {
        let line = text
            .lines()
            .find(|line| line.trim_start().starts_with(name));
        let line = line.unwrap_or_else(|| panic!("no {name} in {text}"));
        let figures = line.trim_start()[name.len()..].split_whitespace();
        figures.map(|figure| figure.replace(',', "")).collect()
    };
    assert_eq!(line("executed")[0], executed.to_string());
    assert_eq!(
        line("- what surrounds the operation, measured by itself"),
        ["30", "20"]
    );
    assert_eq!(
        line("- the row's own delay, in which the guest waits"),
        ["100", "100"]
    );
    assert_eq!(line("total")[0], (executed - 130).to_string());
    assert_eq!(
        line("- by the guest's clock"),
        [(executed - 131).to_string()]
    );
    let words = text.split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(
        words.contains("1 of what surrounds the operation"),
        "{text}"
    );
    let object = json::path(&manifest(), &path, None).render();
    let object: serde_json::Value = serde_json::from_str(&object).unwrap();
    let number = |name: &str| object[name].as_u64().unwrap();
    assert_eq!(
        number("total") + number("baseline") + number("delay"),
        executed
    );
    assert_eq!(
        number("total"),
        number("guest_timed") + number("intercepted")
    );
}
