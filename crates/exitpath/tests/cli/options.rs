//! Options that can have no effect are refused before anything is measured, and names that are not there
//! are answered with those that are.

use crate::common::{Said, exitpath, installed_qemu};

#[test]
fn options_without_effect_are_refused_by_name() {
    let dir = tempfile::tempdir().expect("a folder");
    for (line, pieces) in [
        (
            "measure cpuid --on host --kernel 6.12 --seed 3",
            &["--kernel", "--on host"][..],
        ),
        ("measure cpuid --on lab --runs 3", &["--runs", "--on lab"]),
        (
            "measure cpuid --runs 3 --kernel 6.12",
            &["--runs", "--kernel"],
        ),
        (
            "userspace bare --on host --cmdline x",
            &["--cmdline", "--on host"],
        ),
        ("kick kicks --eventfds 5", &["--eventfds", "scaling"]),
        ("measure cpuid --on lab --seed 1,1", &["--seed", "1 twice"]),
        ("trace cpuid --min 5", &["--min", "--tree"]),
        ("trace --recording r --cpu c", &["--cpu", "--recording"]),
        ("trace cpuid --without f,f=0", &["--without", "f twice"]),
        (
            "trace cpuid vmcall --flamegraph f.svg",
            &["--flamegraph", "one row"],
        ),
        ("diff a b --seed 1", &["--seed", "--kernel or --cmdline"]),
        ("doctor --json --all", &["--all", "--json"]),
        // A gate's own status is for kernels, not for its command line.
        (
            "gate --kernel k --base b --seed 1,1",
            &["--seed", "1 twice"],
        ),
    ] {
        let mut command = exitpath(&line.split_whitespace().collect::<Vec<_>>());
        command.env("XDG_DATA_HOME", dir.path());
        Said::of(&mut command).fails(2, pieces);
    }
    let left = std::fs::read_dir(dir.path()).expect("a folder").count();
    assert_eq!(left, 0, "nothing was begun");
}

#[test]
fn an_option_of_the_lab_implies_the_lab() {
    // Wherever it runs: no guest is run on this machine's KVM, which would take the host.
    let said = Said::of(&mut exitpath(&[
        "measure",
        "cpuid",
        "--kernel",
        "/nonexistent",
    ]));
    said.fails(2, &["/nonexistent"]);
    assert!(
        !said.stderr.contains("measured in the lab"),
        "{}",
        said.stderr
    );
}

#[test]
fn commands_that_are_proposed_are_those_that_help_lists() {
    let help = Said::of(&mut exitpath(&["--help"])).stdout;
    for wrong in ["mesure", "measure-in", "vmm", "generat"] {
        let said = Said::of(&mut exitpath(&[wrong]));
        assert_eq!(said.status, Some(2), "{}", said.stderr);
        let tip = said.stderr.lines().find(|line| line.contains("tip:"));
        for name in tip.unwrap_or_default().split('\'').skip(1).step_by(2) {
            assert!(
                help.contains(&format!("\n  {name} ")),
                "{wrong}: {name} in {}",
                said.stderr
            );
        }
    }
    for wrong in [
        ["trace", "--plugn"],
        ["kick", "--chek"],
        ["image", "--no-multibot"],
    ] {
        let said = Said::of(&mut exitpath(&wrong));
        assert_eq!(said.status, Some(2), "{}", said.stderr);
        assert!(!said.stderr.contains("tip:"), "{}", said.stderr);
    }
    let said = Said::of(&mut exitpath(&["mesure"]));
    assert!(said.stderr.contains("'measure'"), "{}", said.stderr);
}

#[test]
fn a_row_that_is_not_there_is_answered_alike_by_all_commands() {
    let told = |args: &[&str]| {
        let said = Said::of(&mut exitpath(args));
        said.fails(
            2,
            &["'ioeventfds_pio_51'", "ioeventfds_pio_512", "kick --list"],
        );
        said.stderr
    };
    let wrong = "ioeventfds_pio_51";
    let first = told(&["measure", wrong]);
    assert_eq!(told(&["trace", wrong]), first);
    assert_eq!(told(&["image", "-o", "/tmp/never", wrong]), first);
    assert_eq!(
        told(&["diff", wrong, "--kernel", "a", "--kernel", "b"]),
        first
    );
    let listed = Said::of(&mut exitpath(&["kick", "--list"])).stdout;
    assert!(listed.contains("\nioeventfds_pio_512 "), "{listed}");
}

#[test]
fn asking_which_qemu_is_used_changes_nothing() {
    if installed_qemu().is_none() {
        return;
    }
    let cache = tempfile::tempdir().expect("a folder");
    let said = Said::of(exitpath(&["lab", "qemu"]).env("EXITPATH_CACHE", cache.path()));
    assert_eq!(said.status, Some(0), "{}", said.stderr);
    assert!(!cache.path().join("qemu").exists());
    let old = ["(7.", "(8.", "(9."]
        .iter()
        .any(|old| said.stdout.contains(old));
    assert_eq!(
        said.stderr.contains("lab qemu --fetch"),
        old,
        "{}{}",
        said.stdout,
        said.stderr
    );
}

#[test]
fn pages_and_completions_are_of_the_commands_that_help_lists() {
    let dir = tempfile::tempdir().expect("a folder");
    let said = Said::of(exitpath(&["generate-files"]).arg(dir.path()));
    assert_eq!(said.status, Some(0), "{}", said.stderr);
    let read = |path: &str| {
        let path = dir.path().join(path);
        std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
    };
    let measure = read("man/man1/exitpath-measure.1");
    for piece in ["exitpath\\-measure", "kvm\\-unit\\-tests", "Exit status"] {
        assert!(measure.contains(piece), "{piece}: {measure}");
    }
    assert!(read("man/man1/exitpath-lab-run.1").contains("CPUs of the lab"));
    let main = read("man/man1/exitpath.1");
    assert!(main.contains("exitpath\\-gate(1)"), "{main}");
    let completions = [
        "bash-completion/completions/exitpath",
        "zsh/site-functions/_exitpath",
        "fish/vendor_completions.d/exitpath.fish",
    ];
    for completion in completions {
        let text = read(completion);
        for visible in ["userspace", "max-growth", "kvm-unit-tests"] {
            assert!(text.contains(visible), "{completion}: {visible}");
        }
        for hidden in [
            "in-lab",
            "generate",
            "no-multiboot",
            "--plugin",
            "-l plugin",
        ] {
            assert!(!text.contains(hidden), "{completion}: {hidden}");
        }
    }
    let pages = std::fs::read_dir(dir.path().join("man/man1")).expect("pages");
    for page in pages.flatten() {
        let text = std::fs::read_to_string(page.path()).expect("a page");
        for hidden in ["in\\-lab", "generate", "no\\-multiboot", "\\-\\-plugin"] {
            assert!(
                !text.contains(hidden),
                "{}: {hidden}",
                page.path().display()
            );
        }
    }
}
