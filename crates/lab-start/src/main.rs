//! The first program of every lab: loads modules, stops the machine until it is handed what it is to do, unpacks
//! that and becomes it. The library of this crate says why.
//!
//! What goes wrong is said on the console; process 1 that ends makes the kernel panic, and the machine end.

use std::fs::{self, File};
use std::path::Path;

use exitpath_lab_start::firmware::Payload;
use exitpath_lab_start::places::{INIT, LOADED, MODULES, ORDER};
use exitpath_lab_start::{Failed, Step, system, unpack};

fn main() {
    let Err(failed) = start();
    eprintln!("exitpath: starting the lab: {failed}");
    std::process::exit(1);
}

fn start() -> Result<std::convert::Infallible, Failed> {
    for (what, at, kind) in [
        (c"proc", c"/proc", c"proc"),
        (c"sys", c"/sys", c"sysfs"),
        (c"dev", c"/dev", c"devtmpfs"),
    ] {
        let place = at.to_string_lossy();
        fs::create_dir_all(&*place).step(&place)?;
        system::mount(what, at, kind).step(&place)?;
    }
    fs::write(LOADED, load_modules()?).step(LOADED)?;
    system::may_use_ports(true).step("asking for I/O ports")?;
    let payload = match Payload::find()? {
        Some(payload) => payload,
        None => {
            system::stop();
            Payload::find()?.ok_or("the machine went on without having anything to do")?
        }
    };
    unpack::all(payload)?;
    // Whoever is started inherits them otherwise.
    system::may_use_ports(false).step("giving up I/O ports")?;
    Err(system::become_program(INIT).to_string())
}

/// Loads the modules of the list, and says what became of each. A kernel that refuses one is for others to judge.
fn load_modules() -> Result<String, Failed> {
    let mut became = String::new();
    for line in fs::read_to_string(ORDER).step(ORDER)?.lines() {
        let (name, parameters) = line.split_once(' ').unwrap_or((line, ""));
        let file = File::open(Path::new(MODULES).join(format!("{name}.ko"))).step(name)?;
        let error = match system::load_module(&file, parameters) {
            Ok(()) => 0,
            Err(error) => error.raw_os_error().unwrap_or(-1),
        };
        became.push_str(&format!("{name} {error}\n"));
    }
    Ok(became)
}
