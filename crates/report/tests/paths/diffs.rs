use exitpath_analysis::path::diff::{
    Change, ClassDiff, FunctionDiff, Incomparable, InstructionDiff, PathDiff, PhaseDiff, RowDiff,
    SeedDiff, Side, Verdict,
};
use exitpath_recording::{Manifest, Space};
use exitpath_report::views::Functions;
use exitpath_report::{json, views};

use crate::build;

fn function(name: &str, a: u64, b: u64, change: Change) -> FunctionDiff {
    FunctionDiff {
        name: name.to_owned(),
        module: "kvm".to_owned(),
        a,
        b,
        delta: b as i64 - a as i64,
        total: (a + 10, b + 10),
        calls: (a.min(1), b.min(1)),
        change,
        space: Space::Kernel,
    }
}

fn phase(name: &str, a: u64, b: u64) -> PhaseDiff {
    PhaseDiff {
        name: name.to_owned(),
        a,
        b,
        delta: b as i64 - a as i64,
    }
}

fn verdict(different: bool) -> Verdict {
    if different {
        Verdict::Different
    } else {
        Verdict::Same
    }
}

fn row(name: &str, a: u64, b: u64, functions: Vec<FunctionDiff>) -> RowDiff {
    let delta = b as i64 - a as i64;
    RowDiff {
        name: name.to_owned(),
        a,
        b,
        delta,
        seeds_agreeing: 3,
        seeds: [1, 2, 3]
            .map(|seed| SeedDiff {
                seed: Some(seed),
                a,
                b,
                delta,
                paths_differ: delta != 0 || !functions.is_empty(),
                classes: Vec::new(),
            })
            .to_vec(),
        verdict: verdict(delta != 0 || !functions.is_empty()),
        unexplained: 0,
        phases: Vec::new(),
        classes: Vec::new(),
        instructions: Vec::new(),
        instructions_left_out: 0,
        reordered: false,
        functions,
    }
}

fn side(offset: u64, times: u64, text: &str) -> Option<Side> {
    let text = text.to_owned();
    Some(Side {
        offset,
        cold: false,
        text,
        times,
    })
}

fn instruction(function: &str, a: Option<Side>, b: Option<Side>) -> InstructionDiff {
    InstructionDiff {
        function: function.to_owned(),
        module: "kvm_amd".to_owned(),
        space: Space::Kernel,
        a,
        b,
    }
}

/// As many instructions by the same functions, one of which became another one.
fn mitigated() -> RowDiff {
    let mut row = row("cpuid", 3_120, 3_120, Vec::new());
    row.verdict = Verdict::Different;
    row.seeds
        .iter_mut()
        .for_each(|seed| seed.paths_differ = true);
    row.classes = vec![ClassDiff {
        class: "buffer-clear",
        a: 0,
        b: 1,
        delta: 1,
    }];
    for seed in &mut row.seeds {
        seed.classes.clone_from(&row.classes);
    }
    row.instructions = vec![instruction(
        "__svm_vcpu_run",
        side(0x96, 1, "nopl 0x0(%rax)"),
        side(0x96, 1, "verw 0x1000(%rip)"),
    )];
    row
}

#[test]
fn a_row_that_grew_at_one_seed_grew_and_the_commit_line_says_where() {
    let mut cpuid = row("cpuid", 3_120, 3_120, Vec::new());
    assert!(!cpuid.grew(0, 0));
    cpuid.seeds[2].delta = 40;
    cpuid.verdict = Verdict::Different;
    cpuid.seeds_agreeing = 2;
    assert!(cpuid.grew(39, 39));
    assert!(!cpuid.grew(40, 0));
    let mut vmcall = row("vmcall", 900, 900, Vec::new());
    vmcall.verdict = Verdict::Different;
    vmcall.seeds[1].classes = vec![ClassDiff {
        class: "buffer-clear",
        a: 0,
        b: 1,
        delta: 1,
    }];
    assert!(vmcall.grew(5, 0));
    assert!(!vmcall.grew(0, 1));
    let diff = PathDiff {
        verdict: Verdict::Different,
        notes: Vec::new(),
        rows: vec![cpuid, vmcall],
    };
    let said = views::commit(&diff);
    assert!(said.contains("but +40 at seed 3]"), "{said}");
    assert!(
        said.contains("but 0 at seed 2 with buffer-clear +1]"),
        "{said}"
    );
}

/// One row by one function, one by many, one whose functions make up for each other, one the same.
fn diff() -> PathDiff {
    use Change::{Changed as Both, Gone, New};
    let mut cpuid = row(
        "cpuid",
        2_812,
        2_615,
        vec![function("kvm_pmu_trigger_event", 197, 0, Gone)],
    );
    cpuid.phases = vec![
        phase("PMU emulation", 198, 0),
        phase("exit handler", 400, 401),
    ];
    let mut inl = row(
        "inl_from_qemu",
        3_538,
        4_000,
        vec![
            function("kvm_vcpu_ioctl", 1_000, 1_600, Both),
            function("vcpu_load", 100, 0, Gone),
            function("rcu_note", 0, 33, New),
            function("do_syscall_64", 60, 20, Both),
            function("fput", 60, 29, Both),
        ],
    );
    inl.seeds_agreeing = 2;
    inl.seeds[1].delta = 461;
    PathDiff {
        verdict: Verdict::Different,
        rows: vec![
            cpuid,
            inl,
            row(
                "vmcall",
                900,
                900,
                vec![function("a", 5, 9, Both), function("b", 9, 5, Both)],
            ),
            row("nop", 1, 1, Vec::new()),
        ],
        notes: vec![
            "kernel: 6.1.0-55-amd64 → 6.1.0-56-amd64".to_owned(),
            "VMM: exitpath 0.1.0 → exitpath 0.2.0".to_owned(),
        ],
    }
}

/// [`mitigated`], one of instructions that come, go and run more often, one in another order.
fn of_equal_number() -> PathDiff {
    let mut several = mitigated();
    several.name = "vmcall".to_owned();
    several.classes.clear();
    several
        .seeds
        .iter_mut()
        .for_each(|seed| seed.classes.clear());
    several.instructions = vec![
        instruction("f", side(4, 3, "rep movsb"), side(4, 1, "rep movsb")),
        instruction("f", side(6, 1, "lock xadd %eax,(%rdi)"), None),
        instruction("f", None, side(9, 1, "wrmsr")),
        instruction(
            "f",
            side(12, 1, "mov %rax,%rbx"),
            side(12, 1, "mov %rax,(%rbx)"),
        ),
    ];
    several.instructions_left_out = 20;
    several.seeds[0].paths_differ = false;
    let mut reordered = row("wbinvd", 900, 900, Vec::new());
    (reordered.verdict, reordered.reordered) = (Verdict::Different, true);
    PathDiff {
        verdict: Verdict::Different,
        notes: Vec::new(),
        rows: vec![mitigated(), several, reordered],
    }
}

fn manifests() -> (Manifest, Manifest) {
    let (mut a, b) = (build::manifest(), build::manifest());
    a.environment.kernel = "6.1.0-55-amd64".to_owned();
    (a, b)
}

#[test]
fn the_text() {
    let (a, b) = manifests();
    insta::assert_snapshot!(views::diff(&a, &b, &diff(), Functions::Top(3)));
}

#[test]
fn the_markdown() {
    let (a, b) = manifests();
    insta::assert_snapshot!(views::pull_request(&a, &b, &diff(), Functions::Top(3)).markdown());
}

#[test]
fn the_json() {
    let (a, b) = manifests();
    let mut diff = diff();
    diff.rows.truncate(1);
    insta::assert_snapshot!(json::diff(&a, &b, &diff).render());
}

#[test]
fn the_block_for_a_commit_message() {
    assert_eq!(
        views::commit(&diff()),
        "cpuid 2,812 → 2,615 (−197): kvm_pmu_trigger_event −197 [seeds 3/3]\n\
         inl_from_qemu 3,538 → 4,000 (+462): kvm_vcpu_ioctl +600, vcpu_load −100, rcu_note +33, \
         and 2 more −71 [seeds 2/3, but +461 at seed 2]\n\
         vmcall 900 → 900 (0): a +4, b −4 [seeds 3/3]\n\
         nop 1 unchanged [seeds 3/3]\n"
    );
}

#[test]
fn the_same_is_said_to_be_the_same() {
    let (a, b) = manifests();
    let mut diff = diff();
    diff.rows.drain(..3);
    diff.verdict = Verdict::Same;
    let object: serde_json::Value =
        serde_json::from_str(&json::diff(&a, &b, &diff).render()).unwrap();
    assert_eq!(object["verdict"], "same");
    assert_eq!(object["comparable"], true);
    let markdown = views::pull_request(&a, &b, &diff, Functions::All).markdown();
    assert!(
        markdown.starts_with("### exitpath: the same\n"),
        "{markdown}"
    );
    assert!(!markdown.contains("<details>"), "{markdown}");
    let text = views::diff(&a, &b, &diff, Functions::All).to_string();
    assert!(text.ends_with("\nnop: 1, the same, seeds 3/3\n"), "{text}");
}

#[test]
fn what_cannot_be_compared_is_no_verdict() {
    let (a, b) = manifests();
    let why = Incomparable::Differ(vec!["QEMU is 7.2 in A and 10.0 in B".to_owned()]);
    let object: serde_json::Value =
        serde_json::from_str(&json::incomparable(&a, &b, &why).render()).unwrap();
    assert_eq!(object["comparable"], false);
    assert!(object["verdict"].is_null());
    assert!(object["reason"].as_str().unwrap().contains("QEMU"));
    assert_eq!(object["rows"], serde_json::json!([]));
}

#[test]
fn every_view_has_every_row_and_the_json_every_field_that_was_promised() {
    let (a, b) = manifests();
    let diff = diff();
    let object: serde_json::Value =
        serde_json::from_str(&json::diff(&a, &b, &diff).render()).unwrap();
    let rows = object["rows"].as_array().unwrap();
    assert_eq!(rows.len(), diff.rows.len());
    for row in rows {
        assert!(
            row["name"].is_string() && row["seeds_agreeing"].is_u64(),
            "{row}"
        );
        let parts = ["phases", "functions"].map(|list| row[list].as_array().unwrap());
        for figures in parts.into_iter().flatten().chain([row]) {
            assert!(figures["name"].is_string(), "{figures}");
            let number = |key: &str| figures[key].as_i64().unwrap();
            assert_eq!(number("b") - number("a"), number("delta"), "{figures}");
        }
        for function in row["functions"].as_array().unwrap() {
            assert!(function["module"].is_string(), "{function}");
        }
    }
    for view in [
        views::diff(&a, &b, &diff, Functions::All).to_string(),
        views::pull_request(&a, &b, &diff, Functions::All).markdown(),
    ] {
        for row in &diff.rows {
            assert!(view.contains(&row.name), "{view}");
            for function in &row.functions {
                assert!(view.contains(&function.name), "{view}");
            }
        }
        for fact in [
            "6.1.0-55-amd64",
            "nokaslr",
            "EPYC-Milan",
            "7.2.22",
            "seeds 1 2 3",
        ] {
            assert!(view.contains(fact), "{fact}: {view}");
        }
    }
}

#[test]
fn a_name_breaks_neither_a_line_nor_a_table() {
    let (a, b) = manifests();
    let mut diff = diff();
    let evil = "a|b`c\n| d\u{1b}[2J<script>";
    diff.notes.push(evil.to_owned());
    for row in &mut diff.rows {
        row.name = evil.to_owned();
        for phase in &mut row.phases {
            phase.name = evil.to_owned();
        }
        for function in &mut row.functions {
            (function.name, function.module) = (evil.to_owned(), evil.to_owned());
        }
    }
    let markdown = views::pull_request(&a, &b, &diff, Functions::All).markdown();
    for view in [
        &views::diff(&a, &b, &diff, Functions::All).to_string(),
        &views::commit(&diff),
        &markdown,
    ] {
        assert!(
            view.chars().all(|c| c == '\n' || !c.is_control()),
            "{view:?}"
        );
        assert!(!view.lines().any(|line| line.starts_with("| d")), "{view}");
    }
    // Each line of a table has as many cells as its header.
    let cells = |line: &str| line.replace("\\|", "").matches('|').count();
    let mut columns = None;
    for line in markdown.lines() {
        match line.starts_with('|') {
            true => assert_eq!(*columns.get_or_insert(cells(line)), cells(line), "{line}"),
            false => columns = None,
        }
    }
    assert!(
        !markdown.contains("<summary>a|b`c | d [2J<script>"),
        "{markdown}"
    );
}

#[test]
fn equal_numbers_of_other_instructions_are_told() {
    let diff = of_equal_number();
    assert_eq!(
        views::commit(&diff),
        "cpuid 3,120, the same number: 1 instruction differs: __svm_vcpu_run+0x96 nopl → verw; classes: \
         buffer-clear +1 [seeds 3/3]\n\
         vmcall 3,120, the same number: 24 instructions differ: f+0x4 3 × rep movsb → rep movsb, f+0x6 − lock xadd, \
         f+0x9 + wrmsr, and 21 more [seeds 3/3, another path at 2 of them]\n\
         wbinvd 900, the same number: the same instructions in another order of functions [seeds 3/3]\n"
    );
    let (a, b) = manifests();
    insta::assert_snapshot!(views::diff(&a, &b, &diff, Functions::Top(3)));
    insta::assert_snapshot!(views::pull_request(&a, &b, &diff, Functions::Top(3)).markdown());
    let object: serde_json::Value =
        serde_json::from_str(&json::diff(&a, &b, &diff).render()).unwrap();
    let row = &object["rows"][0];
    assert_eq!(row["delta"], 0);
    assert_eq!(
        (&row["different"], &row["paths"]),
        (&true.into(), &"differ".into())
    );
    assert_eq!(
        row["classes"],
        serde_json::json!([{"class": "buffer-clear", "a": 0, "b": 1, "delta": 1}])
    );
    assert_eq!(
        row["instructions"],
        serde_json::json!([{
            "function": "__svm_vcpu_run", "module": "kvm_amd", "cold": false, "offset": 0x96, "offset_b": 0x96,
            "a": "nopl 0x0(%rax)", "b": "verw 0x1000(%rip)", "times": [1, 1]
        }])
    );
    let row = &object["rows"][1];
    assert_eq!(
        (&row["seeds"][0]["paths"], &row["seeds"][1]["paths"]),
        (&"identical".into(), &"differ".into())
    );
    assert_eq!(row["instructions_left_out"], 20);
    assert_eq!(object["rows"][2]["reordered"], true);
}
