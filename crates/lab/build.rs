//! Compiles the plugin, once for each family of QEMU's plugin API, and the first program of a lab, and takes the
//! program inside in.
//!
//! By calling the compiler, because Cargo has no way yet to depend on a shared object for a
//! target other than the one being built for: exitpath is linked statically, which a shared
//! object cannot be. The plugin has no dependencies for this reason. Nor can Cargo depend on a program; and the
//! first one is the same bytes whatever else is built how, so that a snapshot holds as long as its sources.

use std::path::Path;
use std::process::Command;

const SOURCE: &str = "../lab-plugin/src";
const START: &str = "../lab-start/src";

fn main() {
    plugins();
    start();
    inside();
}

/// The program inside a lab, where its file is named: it becomes a part of this one.
fn inside() {
    println!("cargo::rerun-if-env-changed=EXITPATH_INSIDE");
    let out = std::env::var("OUT_DIR").expect("Cargo sets it for build scripts");
    let bytes = std::env::var_os("EXITPATH_INSIDE").map(|file| {
        println!("cargo::rerun-if-changed={}", Path::new(&file).display());
        std::fs::read(&file).expect("EXITPATH_INSIDE names the program that was built")
    });
    std::fs::write(Path::new(&out).join("inside"), bytes.unwrap_or_default())
        .expect("the build script's own folder can be written");
}

fn variable(name: &str) -> String {
    std::env::var(name).expect("Cargo sets it for build scripts")
}

/// The first program of a lab: its library, and the program with that in it.
fn start() {
    println!("cargo::rerun-if-changed={START}");
    let out = variable("OUT_DIR");
    let library = Path::new(&out).join("libexitpath_lab_start.rlib");
    let with_library = format!("exitpath_lab_start={}", library.display());
    let (library, program) = (library.as_path(), Path::new(&out).join("start"));
    let parts: [(&str, &str, &Path, &[&str]); 2] = [
        ("lib", "lib.rs", library, &[]),
        ("bin", "main.rs", &program, &["--extern", &with_library]),
    ];
    for (kind, source, target, more) in parts {
        let status = Command::new(variable("RUSTC"))
            .args(["--crate-name", "exitpath_lab_start", "--crate-type", kind])
            .args(["--edition", "2024", "--target", &variable("TARGET")])
            .args(["-C", "target-feature=+crt-static"])
            .args(["-C", "relocation-model=static", "-C", "opt-level=2"])
            .args(["-C", "panic=abort", "-C", "strip=symbols"])
            // Where the sources lie is no part of the program.
            .arg(format!("--remap-path-prefix={START}=lab-start"))
            .args(more)
            .arg("-o")
            .arg(target)
            .arg(Path::new(START).join(source))
            .status()
            .expect("the compiler that compiles this can be started");
        assert!(status.success(), "the first program does not compile");
    }
}

fn plugins() {
    println!("cargo::rerun-if-changed={SOURCE}");
    let out = variable("OUT_DIR");
    for family in ["v1", "v3"] {
        let status = Command::new(variable("RUSTC"))
            .args(["--crate-name", "exitpath_lab_plugin"])
            .args(["--crate-type", "cdylib", "--edition", "2024"])
            .args(["--target", &variable("TARGET")])
            .args([
                "-C",
                "opt-level=3",
                "-C",
                "panic=abort",
                "-C",
                "strip=symbols",
            ])
            .args(["--cfg", &format!("feature=\"{family}\"")])
            .arg("-o")
            .arg(Path::new(&out).join(format!("plugin-{family}.so")))
            .arg(Path::new(SOURCE).join("lib.rs"))
            .status()
            .expect("the compiler that compiles this can be started");
        assert!(status.success(), "the plugin does not compile");
    }
}
