use std::collections::BTreeMap;

use exitpath_analysis::path::RowPath;
use exitpath_report::flame::{self, Which};
use exitpath_report::{Error, json, perfetto, views};
use serde_json::Value;

use crate::build::{cpuid, inl_from_qemu, manifest};

fn nothing() -> RowPath {
    RowPath {
        tree: cpuid().tree[..1]
            .iter()
            .map(|root| exitpath_analysis::path::Node {
                own: Default::default(),
                total: Default::default(),
                ..root.clone()
            })
            .collect(),
        steps: Vec::new(),
        functions: Vec::new(),
        phases: Vec::new(),
        classes: Vec::new(),
        variants: Vec::new(),
        instructions: Vec::new(),
        total: Default::default(),
        ..cpuid()
    }
}

fn sum(folded: &str) -> u64 {
    folded
        .lines()
        .map(|line| line.rsplit_once(' ').unwrap().1.parse::<u64>().unwrap())
        .sum()
}

#[test]
fn folded_stacks_are_the_total() {
    for path in [cpuid(), inl_from_qemu()] {
        assert_eq!(sum(&flame::folded(&path, Which::All)), path.total.all);
        assert_eq!(sum(&flame::folded(&path, Which::Lean)), path.total.lean);
    }
    insta::assert_snapshot!("folded", flame::folded(&inl_from_qemu(), Which::All));
}

#[test]
fn a_name_cannot_break_a_folded_stack() {
    let mut path = cpuid();
    path.tree[4].name = "a;b 12 7".to_owned();
    path.tree[9].name = "\n".to_owned();
    path.tree[10].name = String::new();
    let folded = flame::folded(&path, Which::All);
    assert_eq!(sum(&folded), path.total.all);
    assert!(folded.contains(";a:b_12_7_[j] 1\n"), "{folded}");
    let svg = flame::svg(&manifest(), &path).unwrap();
    assert!(svg.contains("a:b_12_7 (1 instructions"), "{svg}");
}

/// Names of the elements in the order they begin.
///
/// Fails where this is not XML. Comments, CDATA and what comes before the root are passed over.
fn elements(xml: &str) -> Vec<String> {
    let mut rest = xml;
    let mut open: Vec<String> = Vec::new();
    let mut names = Vec::new();
    while let Some(at) = rest.find('<') {
        for entity in rest[..at].split('&').skip(1) {
            let name = entity.split_once(';').expect("an entity's end").0;
            assert!(
                ["lt", "gt", "amp", "quot", "apos"].contains(&name),
                "{name}"
            );
        }
        rest = &rest[at..];
        let end = |what: &str| rest.find(what).expect(what) + what.len();
        let length = match rest {
            _ if rest.starts_with("<!--") => {
                let length = end("-->");
                assert!(!rest[4..length - 3].contains("--"), "-- in a comment");
                length
            }
            _ if rest.starts_with("<![CDATA[") => end("]]>"),
            _ => end(">"),
        };
        let tag = &rest[1..length - 1];
        rest = &rest[length..];
        let name: String = tag
            .trim_start_matches('/')
            .chars()
            .take_while(|c| c.is_alphanumeric())
            .collect();
        match tag.as_bytes()[0] {
            b'!' | b'?' => continue,
            b'/' => assert_eq!(open.pop(), Some(name)),
            _ => {
                assert_eq!(tag.matches('"').count() % 2, 0, "{tag}");
                names.push(name.clone());
                if !tag.ends_with('/') {
                    open.push(name);
                }
            }
        }
    }
    assert_eq!(open, Vec::<String>::new());
    assert_eq!(rest.trim(), "");
    names
}

#[test]
fn a_flame_graph_has_a_frame_for_every_function_on_every_stack() {
    for path in [cpuid(), inl_from_qemu()] {
        let svg = flame::svg(&manifest(), &path).unwrap();
        let names = elements(&svg);
        let frames = names.iter().filter(|name| *name == "g").count();
        // All nodes have distinct stacks here but for the two of each that the round began in and
        // that it came back to; one more stands for all.
        let mut stacks: Vec<String> = flame::folded(&path, Which::All)
            .lines()
            .flat_map(|line| {
                let stack = line.rsplit_once(' ').unwrap().0;
                let ends = stack.match_indices(';').map(|(i, _)| i);
                ends.chain([stack.len()])
                    .map(|i| stack[..i].to_owned())
                    .collect::<Vec<_>>()
            })
            .collect();
        stacks.sort();
        stacks.dedup();
        assert_eq!(frames, stacks.len() + 1);
        for node in &path.tree[1..] {
            let name = node.name.replace(' ', "_");
            assert!(svg.contains(&format!(">{name} (")), "{name}");
        }
        let total = format!("total_samples=\"{}\"", path.total.all);
        assert!(svg.contains(&total), "{total}");
        assert!(svg.contains(" instructions, "));
        for known in [
            "6.1.0-56-amd64",
            "nokaslr",
            "EPYC-Milan",
            "7.2.22",
            "seed 1",
        ] {
            assert!(svg.contains(known), "{known}");
        }
    }
}

/// The colours of the frames of a name.
fn colours(svg: &str, name: &str) -> Vec<String> {
    let title = format!("<title>{name} (");
    svg.split(&title)
        .skip(1)
        .map(|rest| {
            rest.split("rgb")
                .nth(1)
                .unwrap()
                .split('"')
                .next()
                .unwrap()
                .to_owned()
        })
        .collect()
}

#[test]
fn a_flame_graph_is_the_same_every_time_and_tells_spaces_apart() {
    let path = inl_from_qemu();
    let svg = flame::svg(&manifest(), &path).unwrap();
    assert_eq!(svg, flame::svg(&manifest(), &path).unwrap());
    let red_green_blue = |colour: &str| -> Vec<u8> {
        let parts = colour.trim_matches(['(', ')']).split(',');
        parts.map(|part| part.parse().unwrap()).collect()
    };
    let of = |name: &str| red_green_blue(&colours(&svg, name)[0]);
    let guest = of("guest");
    assert!(guest[1] > guest[0] && guest[1] > guest[2], "{guest:?}");
    let user = of("ioctl");
    assert!(user[2] > user[1] && user[1] > user[0], "{user:?}");
    let kvm = of("kvm_vcpu_ioctl");
    assert!(kvm[0] > kvm[1] + 60 && kvm[1] > kvm[2], "{kvm:?}");

    let svg = flame::svg(&manifest(), &cpuid()).unwrap();
    let skipped = red_green_blue(&colours(&svg, "x86_decode_insn")[0]);
    assert!(
        skipped[0] == skipped[1] && skipped[1] == skipped[2],
        "{skipped:?}"
    );
}

#[test]
fn nothing_executed_is_no_flame_graph_but_every_other_view() {
    let path = nothing();
    let error = flame::svg(&manifest(), &path).unwrap_err();
    assert!(
        matches!(&error, Error::NoInstructions { row } if row == "cpuid"),
        "{error}"
    );
    assert_eq!(flame::folded(&path, Which::All), "");
    let events: Value = serde_json::from_str(&perfetto::trace(&manifest(), &path)).unwrap();
    assert_eq!(events["traceEvents"], Value::Array(Vec::new()));
    for text in [
        views::path(&manifest(), &path, Default::default()).to_string(),
        views::tree(&manifest(), &path, 0).to_string(),
        json::path(&manifest(), &path, None).render(),
    ] {
        assert!(text.contains("cpuid"), "{text}");
    }
    // Nor does a tree without a root fail.
    let path = RowPath {
        tree: Vec::new(),
        ..cpuid()
    };
    views::tree(&manifest(), &path, 0).to_string();
    perfetto::trace(&manifest(), &path);
    assert!(flame::svg(&manifest(), &path).is_err());
}

#[test]
fn a_circle_of_parents_ends() {
    let mut path = cpuid();
    path.tree[5].parent = 6;
    path.tree[6].parent = 5;
    path.tree[7].parent = 1_000;
    path.steps[3].node = 1_000;
    views::tree(&manifest(), &path, 0).to_string();
    flame::svg(&manifest(), &path).unwrap();
    perfetto::trace(&manifest(), &path);
}

/// The slices of each track: where they begin, how long they are, name, own instructions.
type Tracks = BTreeMap<(u64, u64), Vec<(u64, u64, String, u64)>>;

fn tracks(events: &Value) -> Tracks {
    let mut tracks = Tracks::new();
    let slices = events["traceEvents"].as_array().unwrap().iter();
    for event in slices.filter(|event| event["ph"] == "X") {
        let number = |value: &Value| value.as_u64().unwrap();
        let name = event["name"].as_str().unwrap().to_owned();
        let track = (number(&event["pid"]), number(&event["tid"]));
        tracks.entry(track).or_default().push((
            number(&event["ts"]),
            number(&event["dur"]),
            name,
            number(&event["args"]["own"]),
        ));
    }
    tracks
}

#[test]
fn slices_nest_on_every_track_and_hold_every_instruction() {
    for path in [cpuid(), inl_from_qemu()] {
        let events: Value = serde_json::from_str(&perfetto::trace(&manifest(), &path)).unwrap();
        let tracks = tracks(&events);
        for (track, slices) in &tracks {
            let mut open: Vec<u64> = Vec::new();
            let mut last = 0;
            for &(begin, length, ref name, _) in slices {
                assert!(length > 0, "{name}");
                assert!(begin >= last, "{track:?}: {name} is not in order");
                last = begin;
                while open.last().is_some_and(|&end| end <= begin) {
                    open.pop();
                }
                let end = begin + length;
                assert!(
                    open.last().is_none_or(|&outer| end <= outer),
                    "{track:?}: {name}"
                );
                open.push(end);
            }
        }
        // Tracks end in 0 for phases; there as in all the others together is every instruction once.
        let own = |phases: bool| -> u64 {
            let of_kind = tracks
                .iter()
                .filter(|((_, tid), _)| (tid % 10 == 0) == phases);
            of_kind
                .flat_map(|(_, slices)| slices)
                .map(|slice| slice.3)
                .sum()
        };
        assert_eq!(own(true), path.total.all);
        assert_eq!(own(false), path.total.all);
    }
}

#[test]
fn slices_are_where_they_were_executed() {
    let path = inl_from_qemu();
    let text = perfetto::trace(&manifest(), &path);
    insta::assert_snapshot!("perfetto", text);
    let events: Value = serde_json::from_str(&text).unwrap();
    let tracks = tracks(&events);
    let named = |name: &str| -> Vec<(u64, u64)> {
        let all = tracks.values().flatten();
        all.filter(|slice| slice.2 == name)
            .map(|slice| (slice.0, slice.1))
            .collect()
    };
    assert_eq!(
        named("guest"),
        [(0, 1), (2_072, 2), (0, 1), (2_072, 2)],
        "once as a phase"
    );
    // From its call to the end, the second exit's guest included.
    assert_eq!(named("kvm_vcpu_ioctl"), [(0, 801), (1_311, 763)]);
    // While the other CPU works, it stands still: it has not returned.
    assert_eq!(named("default idle"), [(898, 342)]);
    assert_eq!(named("exitpath_vmm::run::Vcpu::run_once"), [(0, 2_074)]);
}
