//! What the programs have to know of this kernel and its KVM.

use std::fs;
use std::path::Path;

use crate::btf::{Btf, FUNC, TYPEDEF};
use crate::error::{Error, Result};
use crate::layout::{Field, INDICES, Number, Offsets};

const BTF: &str = "/sys/kernel/btf";
const CLOCK: &str = "/sys/devices/system/clocksource/clocksource0/current_clocksource";
/// The kernel's clock that can be read at any time, as CLOCK_MONOTONIC (kernel/time/timekeeping.c).
const CLOCK_DATA: &str = "tk_fast_mono";

/// A CPU's KVM.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Vendor {
    /// kvm_amd.
    Amd,
    /// kvm_intel.
    Intel,
}

impl Vendor {
    fn module(self) -> &'static str {
        match self {
            Vendor::Amd => "kvm_amd",
            Vendor::Intel => "kvm_intel",
        }
    }

    /// The KVM that is loaded.
    ///
    /// # Errors
    /// Where none is.
    pub(crate) fn here() -> Result<Vendor> {
        let is_there = |vendor: &Vendor| Path::new("/sys/module").join(vendor.module()).is_dir();
        let mut vendors = [Vendor::Amd, Vendor::Intel].into_iter();
        vendors.find(is_there).ok_or(Error::NoKvm)
    }
}

/// A function or tracepoint, and the module that has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) id: u32,
    pub(crate) in_kvm: bool,
}

/// What is known of this kernel.
#[derive(Debug)]
pub(crate) struct Kernel {
    pub(crate) offsets: Offsets,
    /// Address of its clock data, where that is the TSC's and as the programs take it to be.
    pub(crate) clock: Option<u64>,
    pub(crate) entry: Place,
    pub(crate) exit: Place,
    /// Whether kvm_exit's first argument is the reason, and the vCPU its second.
    pub(crate) vcpu_is_second: bool,
    pub(crate) run: Place,
    pub(crate) leave: Place,
    pub(crate) destroy: Place,
    pub(crate) switch: Place,
}

impl Kernel {
    /// This machine's.
    ///
    /// # Errors
    /// What it does not have.
    pub(crate) fn here(vendor: Vendor) -> Result<Kernel> {
        let own = Btf::parse(read_btf("vmlinux")?, None)?;
        // What is built in has its types in the kernel's own.
        let module = |name: &str| match Path::new(BTF).join(name).exists() {
            true => Btf::parse(read_btf(name)?, Some(&own)),
            false => Btf::parse(read_btf("vmlinux")?, None),
        };
        let kvm = module("kvm")?;
        let of_cpu = module(vendor.module())?;
        let tracepoint = |btf: &Btf<'_>, name: &str| {
            let id = btf.find(TYPEDEF, &format!("btf_trace_{name}"));
            place(btf, id, &format!("tracepoint {name}"))
        };
        let function = |name: &str| place(&kvm, kvm.find(FUNC, name), name);
        let vcpu = |path: &str| kvm.offset("kvm_vcpu", path);
        let mut offsets = Offsets::default();
        let mut field = |field: Field, at: u32| offsets.fields[field as usize] = at;
        field(Field::VcpuId, vcpu("vcpu_id")?);
        field(Field::LastGuestTsc, vcpu("arch.last_guest_tsc")?);
        field(Field::L1TscOffset, vcpu("arch.l1_tsc_offset")?);
        field(Field::LastHostTsc, vcpu("arch.last_host_tsc")?);
        field(Field::IoExits, vcpu("stat.io_exits")?);
        field(Field::NestedRun, vcpu("stat.nested_run")?);
        field(Field::TscRatio, vcpu("arch.l1_tsc_scaling_ratio")?);
        field(
            Field::PollSuccessNs,
            vcpu("stat.generic.halt_poll_success_ns")?,
        );
        field(Field::PollFailNs, vcpu("stat.generic.halt_poll_fail_ns")?);
        field(Field::TaskState, own.offset("task_struct", "__state")?);
        let mut number = |number: Number, at: u32| offsets.numbers[number as usize] = at;
        match vendor {
            Vendor::Amd => {
                number(Number::Reason, of_cpu.offset("vcpu_svm", "vmcb")?);
                number(
                    Number::VmcbCode,
                    of_cpu.offset("vmcb", "control.exit_code")?,
                );
            }
            Vendor::Intel => {
                let known = ["exit_reason", "vt.exit_reason"];
                let mut found = known.iter().map(|path| of_cpu.offset("vcpu_vmx", path));
                let found = found.find_map(Result::ok).ok_or_else(|| Error::Layout {
                    what: "exit_reason in its vcpu_vmx".to_owned(),
                })?;
                number(Number::Reason, found);
            }
        }
        let clock = match clock_is_tsc() && clock_is_as_known(&own) {
            true => symbol(CLOCK_DATA)?,
            false => None,
        };
        let exit = tracepoint(&kvm, "kvm_exit")?;
        Ok(Kernel {
            offsets,
            clock,
            entry: tracepoint(&kvm, "kvm_entry")?,
            exit,
            // Up to Linux 5.18 the reason came first.
            vcpu_is_second: !kvm.takes_pointer(exit.id, 0),
            run: function("kvm_arch_vcpu_ioctl_run")?,
            leave: tracepoint(&kvm, "kvm_userspace_exit")?,
            destroy: function("kvm_arch_vcpu_destroy")?,
            switch: tracepoint(&own, "sched_switch")?,
        })
    }
}

fn place(btf: &Btf<'_>, id: Option<u32>, what: &str) -> Result<Place> {
    let id = id.ok_or_else(|| Error::Layout {
        what: what.to_owned(),
    })?;
    Ok(Place {
        id,
        in_kvm: btf.is_own(id) && !btf.is_own(1),
    })
}

fn read_btf(name: &str) -> Result<Vec<u8>> {
    let file = Path::new(BTF).join(name);
    fs::read(&file).map_err(|cause| Error::NoBtf {
        file: file.display().to_string(),
        cause: cause.to_string(),
    })
}

/// The indices of all exit codes.
pub(crate) fn indices(vendor: Vendor) -> [u8; 1280] {
    std::array::from_fn(|code| index(vendor, code as u32))
}

/// The index of an exit code: codes up to 0xbf are their own; the others of AMD's that occur follow.
fn index(vendor: Vendor, code: u32) -> u8 {
    let further = match vendor {
        // Nested page fault and AVIC's two (AMD APM vol. 2, appendix C).
        Vendor::Amd => [0x400, 0x401, 0x402, 0x403],
        Vendor::Intel => [u32::MAX; 4],
    };
    match further.iter().position(|known| *known == code) {
        Some(at) => FURTHER + at as u8,
        None if code < u32::from(FURTHER) => code as u8,
        None => (INDICES - 1) as u8,
    }
}

/// The first index that is not its own code.
const FURTHER: u8 = 0xc0;

/// The exit code of an index; `None` for what stands for all others.
pub(crate) fn code(index: u32) -> Option<u32> {
    match index {
        0..0xc0 => Some(index),
        0xc0..0xc4 => Some(0x400 + index - u32::from(FURTHER)),
        _ => None,
    }
}

/// Whether the clock's cycles are the TSC's.
fn clock_is_tsc() -> bool {
    fs::read_to_string(CLOCK).is_ok_and(|clock| clock.trim() == "tsc")
}

/// Whether the clock's data is as the programs take it to be.
fn clock_is_as_known(own: &Btf<'_>) -> bool {
    let known = [
        ("tk_fast", "base", 8),
        ("tk_read_base", "clock", 0),
        ("tk_read_base", "mask", 8),
        ("tk_read_base", "cycle_last", 16),
        ("tk_read_base", "mult", 24),
        ("tk_read_base", "shift", 28),
        ("tk_read_base", "xtime_nsec", 32),
        ("tk_read_base", "base", 40),
        ("tk_read_base", "base_real", 48),
    ];
    let is_so = |&(of, path, at): &(&str, &str, u32)| own.offset(of, path).is_ok_and(|it| it == at);
    known.iter().all(is_so)
}

/// The address of a symbol of the kernel's; `None` where it is not told.
fn symbol(name: &str) -> Result<Option<u64>> {
    let file = "/proc/kallsyms";
    let symbols = fs::read_to_string(file).map_err(|cause| Error::Read {
        file: file.to_owned(),
        cause,
    })?;
    let lines = symbols.lines().map(|line| line.split_whitespace());
    let mut found = lines.filter_map(|mut words| {
        let address = u64::from_str_radix(words.next()?, 16).ok()?;
        (words.nth(1)? == name).then_some(address)
    });
    Ok(found.find(|&address| address != 0))
}
