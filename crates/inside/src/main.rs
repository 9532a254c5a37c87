//! The program inside a lab: its init, the worker that measures rows there, and what starts other VMMs.
//!
//! Small and static, because it is all that the lab's initramfs holds besides modules. It is process 1
//! ([`init`]); the job that init is given starts it once more with one of the commands of
//! [`exitpath_runner::work`].

mod arch;
mod error;
mod init;
mod out;
mod report;
mod vmm;
mod worker;

use std::process::ExitCode;

use exitpath_protocol::{BUILD, MARK};
use exitpath_runner::work::{VMM, WORKER};

/// Tells from outside which sources this was built from. Each byte has to be in the file, in this order.
#[used]
static BUILT_FROM: [u8; MARK.len() + BUILD.len()] = {
    let mut bytes = [0; MARK.len() + BUILD.len()];
    let (mark, build) = (MARK.as_bytes(), BUILD.as_bytes());
    let mut at = 0;
    while at < bytes.len() {
        bytes[at] = if at < mark.len() {
            mark[at]
        } else {
            build[at - mark.len()]
        };
        at += 1;
    }
    bytes
};

fn main() -> ExitCode {
    if init::is_init() {
        init::main();
    }
    let command = std::env::args().nth(1);
    let done = match command.as_deref() {
        Some(WORKER) => worker::run(),
        Some(VMM) => vmm::run(),
        _ => Err(error::Error::NotByHand),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("exitpath: {error}");
            ExitCode::FAILURE
        }
    }
}
