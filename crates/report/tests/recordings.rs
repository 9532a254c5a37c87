//! The recordings in `tests/recordings` at the top of the repository, as text and JSON.

use std::path::Path;

use exitpath_analysis::ablation::summary::ablations;
use exitpath_analysis::kick::kicks;
use exitpath_analysis::path::diff::diff_paths;
use exitpath_analysis::path::gate::{Wanted, base};
use exitpath_analysis::path::without::without;
use exitpath_analysis::path::{PhaseTable, trace_rows};
use exitpath_analysis::table::{RowSummary, Verdict, summarise};
use exitpath_analysis::userspace::ladder;
use exitpath_recording::{Machine, Recording};
use exitpath_report::{Style, json, views};

const LAB: &str = "lab-6.1-qemu7.2";
const HOST: &str = "host-in-lab-6.1-qemu7.2";

const USERSPACE: &str = "userspace-6.1-qemu7.2";
const KICK: &str = "kick-6.1-qemu7.2";
const ABLATE: &str = "ablate-6.1-qemu10";
const WITHOUT: &str = "without-6.1-qemu7.2";

fn read(name: &str) -> Recording {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/recordings");
    exitpath_store::read(&folder.join(name)).expect("a checked-in recording")
}

/// As JSON, but for the facts, which are hundreds.
fn as_json(mut recording: Recording, rows: &[RowSummary]) -> String {
    recording.manifest.environment.facts.clear();
    json::table(&recording.manifest, rows, None).render()
}

#[test]
fn the_lab() {
    let recording = read(LAB);
    let rows = summarise(&recording);
    insta::assert_snapshot!("lab_text", views::table(&recording.manifest, &rows));
    insta::assert_snapshot!("lab_json", as_json(recording, &rows));
}

#[test]
fn a_host() {
    let recording = read(HOST);
    let rows = summarise(&recording);
    insta::assert_snapshot!("host_text", views::table(&recording.manifest, &rows));
    insta::assert_snapshot!("host_json", as_json(recording, &rows));
}

#[test]
fn optional_work() {
    let mut recording = read(ABLATE);
    let ablations = ablations(&recording, &[]).expect("a whole trace");
    recording.manifest.environment.facts.clear();
    let manifest = &recording.manifest;
    insta::assert_snapshot!("ablate_text", views::ablations(manifest, &ablations));
    let json = json::ablations(manifest, &ablations, "DIR");
    insta::assert_snapshot!("ablate_json", json);
    insta::assert_snapshot!("ablate_svg", views::waterfall_svg(&ablations[0]));
    // What the trace predicted was saved, to the instruction.
    let measured = ablations[0].knobs.iter();
    let measured: Vec<(f64, i64)> = measured
        .filter_map(|knob| Some((knob.cost?.first, knob.predicted?)))
        .collect();
    assert_eq!(measured.len(), 2);
    for (first, predicted) in measured {
        assert_eq!(first, predicted as f64);
    }
}

#[test]
fn the_ladder() {
    let mut recording = read(USERSPACE);
    let ladder = ladder(&recording, &PhaseTable::default()).expect("a whole trace");
    recording.manifest.environment.facts.clear();
    let manifest = &recording.manifest;
    insta::assert_snapshot!("userspace_text", views::userspace(manifest, &ladder));
    let json = json::userspace(manifest, &ladder, None).render();
    insta::assert_snapshot!("userspace_json", json);
    for rung in &ladder.rungs {
        let explained = rung.explained.as_ref().expect("each was recorded");
        assert_eq!(explained.unexplained, 0, "{}", rung.summary.row.name);
        let share = explained.share;
        let whole = share.guest + share.kernel + share.libc + share.vmm;
        // The plugin counts the intercepted instruction, the guest's clock does not.
        let value = rung.value.expect("a value").value;
        assert_eq!(whole as f64, value + 1.0, "{}", rung.summary.row.name);
    }
}

/// Two conditions in one recording: what is said of both, and of each by itself.
#[test]
fn two_conditions() {
    let mut recording = read(WITHOUT);
    let phases = PhaseTable::default();
    let both = without(&recording, &phases).expect("it has patches");
    let under = both.conditions.clone().map(|name| recording.under(&name));
    let [with, without] = under.map(|under| under.expect("it is there"));
    recording.manifest.environment.facts.clear();
    insta::assert_snapshot!("without_text", views::without(&both));
    let json = json::without(&recording.manifest, &both, "recordings/without");
    insta::assert_snapshot!("without_json", json.render());
    // Each seed's path is as long as the comparison says.
    let timed = |recording: &Recording| -> Vec<u64> {
        let paths = trace_rows(recording, &phases).expect("a whole trace");
        paths.iter().map(|path| path.guest_timed).collect()
    };
    let said: (Vec<u64>, Vec<u64>) = both.rows.iter().map(|row| (row.before, row.after)).unzip();
    assert_eq!((timed(&with), timed(&without)), said);
    // The table is of the first condition alone.
    assert_eq!(
        summarise(&recording)[0].samples,
        summarise(&with)[0].samples
    );
    // What a difference of two recordings says, the two conditions say, too.
    let diff = diff_paths(&with, &without, &phases).expect("they are comparable");
    let saved = both.rows[0].saved;
    assert_eq!(
        (diff.rows[0].delta, diff.rows[0].seeds_agreeing),
        (-saved, 2)
    );
    let text = views::diff(
        &with.manifest,
        &without.manifest,
        &diff,
        views::Functions::default(),
    );
    let b = "b: Linux 6.1.0-56-amd64, without kvm_pmu_trigger_event, kvm_cpu_has_pending_timer,";
    assert!(text.to_string().contains(b), "{text}");
    // What says no headers says it otherwise.
    let done = "done to the kernel: nothing in A, without kvm_pmu_trigger_event, kvm_cpu_has_pending_timer in B";
    assert_eq!(diff.notes, [done]);
    let json = json::diff(&with.manifest, &without.manifest, &diff).render();
    assert!(
        json.contains(r#""function": "kvm_pmu_trigger_event""#),
        "{json}"
    );
    // No kernel is judged by one of which a part was taken out.
    let wanted = Wanted {
        bare_svm: false,
        cpu: None,
        qemu: without
            .manifest
            .environment
            .qemu
            .clone()
            .expect("the lab's"),
        seeds: Vec::new(),
    };
    assert!(base(with, &["cpuid"], &wanted).is_ok());
    let refused = base(without, &["cpuid"], &wanted).expect_err("a patched base");
    assert!(
        refused
            .to_string()
            .contains("without kvm_pmu_trigger_event"),
        "{refused}"
    );
}

#[test]
fn the_kicks() {
    let mut recording = read(KICK);
    let kicks = kicks(&recording);
    recording.manifest.environment.facts.clear();
    let manifest = &recording.manifest;
    insta::assert_snapshot!("kick_text", views::kick(manifest, &kicks));
    insta::assert_snapshot!("kick_json", json::kick(manifest, &kicks, None).render());
    for line in &kicks.disks {
        let witness = |name| line.witness.get(name);
        assert_eq!(witness("disk.requested"), witness("disk.completed"));
    }
}

#[test]
fn the_labs_values_are_exact() {
    let recording = read(LAB);
    assert_eq!(recording.manifest.machine, Machine::Lab);
    let rows = summarise(&recording);
    let values: Vec<_> = rows
        .iter()
        .map(|row| {
            (
                row.row.name.as_str(),
                row.figures.map(|figures| figures.median),
            )
        })
        .collect();
    assert_eq!(
        values,
        [
            ("empty", Some(0.0)),
            ("nop", Some(1.0)),
            ("cpuid", Some(3_159.0)),
            ("inl_from_qemu", Some(3_760.0)),
            ("inl_from_kernel", Some(1_708.0)),
            ("toggle_cr4_pge", Some(3_850.0)),
            ("hlt_pending", Some(3_388.0)),
            ("wr_ibrs_msr", None),
            ("nested_page_fault", Some(2_945.0)),
        ]
    );
    for row in &rows {
        let skipped = row.row.name == "wr_ibrs_msr";
        let expected = if skipped {
            Verdict::Skipped
        } else {
            Verdict::Clean
        };
        assert_eq!(row.verdict, expected, "{}", row.row.name);
    }
}

/// What is checked in must not say where or by whom it was made.
#[test]
fn they_say_nothing_of_the_machine_they_were_made_on() {
    for name in [LAB, HOST, USERSPACE, KICK, WITHOUT] {
        let manifest = serde_json::to_string(&read(name).manifest).expect("plain data");
        for private in ["/home", "/root", "/tmp", "/work", "firecracker", "vsock"] {
            assert!(!manifest.contains(private), "{name}: {private}");
        }
    }
}

/// Every table in a terminal of 80 columns: nothing is wider, and titles are broken before columns leave.
#[test]
fn all_tables_fit_into_80_columns() {
    let phases = PhaseTable::default();
    let mut texts = Vec::new();
    for name in [LAB, HOST] {
        let recording = read(name);
        let rows = summarise(&recording);
        texts.push((name.to_owned(), views::table(&recording.manifest, &rows)));
    }
    let recording = read(USERSPACE);
    let ladder = ladder(&recording, &phases).expect("a whole trace");
    texts.push((
        USERSPACE.to_owned(),
        views::userspace(&recording.manifest, &ladder),
    ));
    let recording = read(KICK);
    texts.push((
        KICK.to_owned(),
        views::kick(&recording.manifest, &kicks(&recording)),
    ));
    let [a, b] = ["trace-6.1-qemu7.2", "trace-6.12-qemu7.2"].map(read);
    let top = views::Functions::default();
    for path in trace_rows(&a, &phases)
        .expect("a whole trace")
        .iter()
        .take(2)
    {
        texts.push((
            format!("trace-{}", path.row),
            views::path(&a.manifest, path, top),
        ));
    }
    let diff = diff_paths(&a, &b, &phases).expect("they are comparable");
    texts.push((
        "diff".to_owned(),
        views::diff(&a.manifest, &b.manifest, &diff, top),
    ));
    for (name, text) in texts {
        let style = Style {
            width: Some(80),
            colour: false,
        };
        let shown = text.laid_out(&style);
        for line in shown.lines() {
            assert!(line.chars().count() <= 80, "{name}: {line}");
        }
        insta::assert_snapshot!(format!("{name}_at_80"), shown);
    }
}
