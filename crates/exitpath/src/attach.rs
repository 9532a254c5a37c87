//! `exitpath attach`: exits of virtual machines that are running.

use std::os::fd::AsFd;
use std::process::Command;
use std::sync::atomic::Ordering;
use std::thread::sleep;
use std::time::{Duration, Instant};

use exitpath_cli::{Attach, Keep};
use exitpath_observe::{Observer, Options};
use exitpath_recording::live::{Kept, Live, Vm};
use exitpath_report::{json, views};

use crate::control::control;
use crate::failure::Failure;
use crate::output;

/// How long it is looked unless the user says otherwise.
const USUAL: Duration = Duration::from_secs(10);
/// How often it is looked whether it is time to end.
const TICK: Duration = Duration::from_millis(20);
/// vCPUs that there is room for beside those that run: as many again, and these.
const FURTHER: u32 = 64;

pub(crate) fn run(args: &Attach) -> Result<(), Failure> {
    if args.pid.is_none() && !args.all && args.command.is_empty() {
        return Err(Failure::usage(
            "attach to what? --pid P is one process, --all are all, -- COMMAND is until that ends",
        ));
    }
    if let Some(pid) = args.pid {
        has_vm(pid)?;
    }
    let kept = match args.keep {
        Keep::Light => Kept::Light,
        Keep::Usual => Kept::Usual,
        Keep::Exact => Kept::Exact,
    };
    let options = Options::of(kept, 2 * exitpath_observe::vcpus() + FURTHER);
    let observer = Observer::attach(options).map_err(Failure::cannot)?;
    let began = Instant::now();
    wait(args)?;
    let seconds = began.elapsed().as_secs_f64();
    let live = seen(&observer, args.pid, seconds);
    if kept != live.kept {
        output::remark(
            "this kernel's clock is not the TSC: kvm_exit and KVM_RUN have programs, too",
        );
    }
    output::print(&match args.json {
        true => json::live(&live),
        false => views::live(&live).laid_out(&output::style()),
    })
}

/// Until the time is over, the command ends, or the user has seen enough.
fn wait(args: &Attach) -> Result<(), Failure> {
    let control = control();
    let over = || control.interrupted.load(Ordering::Relaxed);
    let end = match (args.duration, args.command.is_empty()) {
        (None, false) => None,
        (duration, _) => Some(Instant::now() + duration.unwrap_or(USUAL)),
    };
    let is_over = || over() || end.is_some_and(|end| Instant::now() >= end);
    let Some((program, arguments)) = args.command.split_first() else {
        while !is_over() {
            sleep(TICK);
        }
        return Ok(());
    };
    let mut command = Command::new(program);
    command.args(arguments);
    if args.json {
        // What is printed is one object.
        let copy = std::io::stderr().as_fd().try_clone_to_owned();
        command.stdout(copy.map_err(Failure::cannot)?);
    }
    let started = command.spawn();
    let mut child = started.map_err(|error| Failure::usage(format!("{program}: {error}")))?;
    let said = |error| Failure::cannot(format!("{program}: {error}"));
    loop {
        match child.try_wait().map_err(said)? {
            Some(status) if status.success() => return Ok(()),
            Some(status) => {
                output::remark(&format!("{program} did not end well: {status}"));
                return Ok(());
            }
            None if is_over() => {
                child.kill().map_err(said)?;
                child.wait().map_err(said)?;
                return Ok(());
            }
            None => sleep(TICK),
        }
    }
}

/// What was seen, of this process or of all.
fn seen(observer: &Observer, pid: Option<u32>, seconds: f64) -> Live {
    let mut vms: Vec<Vm> = Vec::new();
    for (tgid, vcpu) in observer.vcpus() {
        if pid.is_some_and(|pid| pid != tgid) {
            continue;
        }
        match vms.iter_mut().find(|vm| vm.pid == tgid) {
            Some(vm) => vm.vcpus.push(vcpu),
            None => vms.push(Vm {
                pid: tgid,
                name: exitpath_observe::name(tgid),
                vcpus: vec![vcpu],
            }),
        }
    }
    for vm in &mut vms {
        vm.vcpus.sort_by_key(|vcpu| (vcpu.id, vcpu.ended));
    }
    Live {
        kept: observer.kept(),
        seconds,
        vms,
        lost: observer.lost(),
    }
}

/// Refuses a process that is none, or has no virtual machine as far as can be seen.
fn has_vm(pid: u32) -> Result<(), Failure> {
    let process = std::path::Path::new("/proc").join(pid.to_string());
    if !process.is_dir() {
        return Err(Failure::usage(format!("there is no process {pid}")));
    }
    match exitpath_observe::vcpus_of(pid) {
        Some(0) => Err(Failure::cannot(format!("process {pid} has no vCPU"))),
        _ => Ok(()),
    }
}
