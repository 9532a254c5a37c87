//! Small copies of machines' files, for tests.

use std::io::{Seek, SeekFrom, Write};

use tempfile::TempDir;

use crate::calibration::GuestCheck;
use crate::finding::{Examination, Finding};
use crate::machine::Machine;
use crate::reading::root::Root;
use crate::topic::Topic;

/// A folder that looks like a machine.
pub(crate) struct Tree {
    folder: TempDir,
}

impl Tree {
    pub(crate) fn new() -> Self {
        Tree {
            folder: tempfile::tempdir().expect("a temporary folder"),
        }
    }

    pub(crate) fn root(&self) -> Root {
        Root::at(self.folder.path())
    }

    /// Writes (or overwrites) a file of the machine.
    pub(crate) fn file(self, path: &str, text: &str) -> Self {
        self.bytes(path, 0, text.as_bytes())
    }

    /// Writes a file that has `bytes` at `offset` and nothing, not even blocks, before.
    pub(crate) fn bytes(self, path: &str, offset: u64, bytes: &[u8]) -> Self {
        let place = self.folder.path().join(path.trim_start_matches('/'));
        std::fs::create_dir_all(place.parent().expect("a parent")).expect("folders");
        let mut file = std::fs::File::create(place).expect("a file");
        file.seek(SeekFrom::Start(offset)).expect("seeking");
        file.write_all(bytes).expect("writing");
        self
    }

    /// Several files: lines of `path = content`.
    pub(crate) fn files(self, list: &str) -> Self {
        list.lines()
            .filter(|line| !line.trim().is_empty())
            .fold(self, |tree, line| {
                let (path, text) = line.split_once(" = ").expect("path = content");
                tree.file(path.trim(), text)
            })
    }

    /// An empty folder.
    pub(crate) fn folder(self, path: &str) -> Self {
        let place = self.folder.path().join(path.trim_start_matches('/'));
        std::fs::create_dir_all(place).expect("folders");
        self
    }

    pub(crate) fn without(self, path: &str) -> Self {
        let place = self.folder.path().join(path.trim_start_matches('/'));
        if place.is_dir() {
            std::fs::remove_dir_all(place).expect("removing");
        } else {
            std::fs::remove_file(place).expect("removing");
        }
        self
    }

    /// What one topic says about this machine.
    pub(crate) fn topic(&self, topic: &Topic) -> Examination {
        self.topic_with(topic, None)
    }

    pub(crate) fn topic_with(&self, topic: &Topic, guest: Option<&GuestCheck>) -> Examination {
        let root = self.root();
        let mut out = Examination::default();
        (topic.examine)(&Machine::read(&root, guest), &mut out);
        for finding in &out.findings {
            let is_listed = topic.findings.iter().any(|(id, _)| *id == finding.id);
            assert!(is_listed, "{} is in no list of its topic", finding.id);
        }
        out
    }
}

impl Examination {
    /// The one finding of that id and subject.
    pub(crate) fn get(&self, id: &str, subject: &str) -> &Finding {
        self.findings
            .iter()
            .find(|finding| finding.id == id && finding.subject == subject)
            .unwrap_or_else(|| panic!("no {id} about {subject} in {:#?}", self.findings))
    }

    /// Whether there is any finding of that id.
    pub(crate) fn has(&self, id: &str) -> bool {
        self.findings.iter().any(|finding| finding.id == id)
    }
}

/// One block of `/proc/cpuinfo`.
fn cpuinfo_block(number: u32, vendor: &str, numbers: [u32; 3], name: &str, flags: &str) -> String {
    let [family, model, stepping] = numbers;
    format!(
        "processor\t: {number}\nvendor_id\t: {vendor}\ncpu family\t: {family}\nmodel\t\t: {model}\n\
         model name\t: {name}\nstepping\t: {stepping}\nmicrocode\t: 0xf0\ncpu MHz\t\t: 2800.000\n\
         flags\t\t: {flags}\nbugs\t\t: spectre_v1 spectre_v2\n\n"
    )
}

/// A laptop with an Intel CPU of four threads, unplugged, everything left as delivered.
pub(crate) fn intel_laptop_on_battery() -> Tree {
    let flags = "fpu tsc msr nx rdtscp constant_tsc nonstop_tsc vmx smx est tsc_adjust ept vpid";
    let name = "Intel(R) Core(TM) i7-8650U CPU @ 1.90GHz";
    let mut cpuinfo: String = (0..4)
        .map(|n| cpuinfo_block(n, "GenuineIntel", [6, 142, 10], name, flags))
        .collect();
    cpuinfo = cpuinfo.replace(
        "bugs\t",
        "vmx flags\t: vnmi preemption_timer ept vpid apicv\nbugs\t",
    );
    let mut tree = Tree::new()
        .file("/proc/cpuinfo", &cpuinfo)
        .file(
            "/proc/stat",
            "cpu  4000 10 1000 90000 100 0 50 0 20 0\ncpu0 2000 5 500 45000 50 0 25 0 10 0\n\
             cpu1 2000 5 500 45000 50 0 25 0 10 0\nintr 123456 9 0 0\nctxt 654321\nbtime 1\n\
             processes 4242\nprocs_running 1\nprocs_blocked 0\n",
        )
        .file(
            "/proc/interrupts",
            "           CPU0       CPU1       \n  0:          9          1   IO-APIC   2-edge      timer\n\
             NMI:          3          4   Non-maskable interrupts\nLOC:       1000       2000   \
             Local timer interrupts\nERR:          5\n",
        )
        .file("/boot/config-6.1.0-18-amd64", LAPTOP_CONFIG)
        .bytes("/dev/cpu/0/msr", 0x34, &77u64.to_le_bytes())
        .bytes("/dev/cpu_dma_latency", 0, &2_000_000_000i32.to_le_bytes())
        .files(LAPTOP_FILES);
    for cpu in 0..4 {
        let base = format!("/sys/devices/system/cpu/cpu{cpu}");
        for (state, (name, latency)) in [("POLL", 0), ("C1", 2), ("C1E", 10), ("C10", 890)]
            .into_iter()
            .enumerate()
        {
            tree = tree.files(&format!(
                "{base}/cpuidle/state{state}/name = {name}\n\
                 {base}/cpuidle/state{state}/latency = {latency}\n\
                 {base}/cpuidle/state{state}/residency = {latency}\n\
                 {base}/cpuidle/state{state}/disable = 0\n"
            ));
        }
        tree = tree.files(&format!(
            "{base}/thermal_throttle/core_throttle_count = 12\n\
             {base}/thermal_throttle/package_throttle_count = 30\n\
             {base}/topology/thread_siblings_list = {},{}\n\
             /sys/devices/system/cpu/cpufreq/policy{cpu}/scaling_driver = intel_pstate\n\
             /sys/devices/system/cpu/cpufreq/policy{cpu}/scaling_governor = powersave\n\
             /sys/devices/system/cpu/cpufreq/policy{cpu}/energy_performance_preference = balance_power\n\
             /sys/devices/system/cpu/cpufreq/policy{cpu}/scaling_min_freq = 400000\n\
             /sys/devices/system/cpu/cpufreq/policy{cpu}/scaling_max_freq = 4200000\n\
             /sys/devices/system/cpu/cpufreq/policy{cpu}/cpuinfo_max_freq = 4200000\n",
            cpu % 2,
            cpu % 2 + 2,
        ));
    }
    tree
}

const LAPTOP_CONFIG: &str = "# a comment\nCONFIG_PREEMPT_VOLUNTARY=y\n# CONFIG_PREEMPT is not set\n\
    CONFIG_PREEMPT_DYNAMIC=y\nCONFIG_HZ=250\nCONFIG_NO_HZ_FULL=y\nCONFIG_RETPOLINE=y\nCONFIG_KVM=m\n\
    CONFIG_KVM_INTEL=m\nCONFIG_HAVE_KVM=y\nCONFIG_VIRT_CPU_ACCOUNTING_GEN=y\n# CONFIG_KASAN is not set\n\
    # CONFIG_PROVE_LOCKING is not set\nCONFIG_DEBUG_LIST=y\n# CONFIG_DEBUG_PREEMPT is not set\n\
    CONFIG_BPF_SYSCALL=y\nCONFIG_KPROBES=y\nCONFIG_FUNCTION_TRACER=y\nCONFIG_EXT4_FS=m\n\
    CONFIG_DYNAMIC_FTRACE_WITH_DIRECT_CALLS=y\nCONFIG_CC_VERSION_TEXT=\"gcc-12 (Debian 12.2.0-14) 12.2.0\"\n";

const LAPTOP_FILES: &str = "
/dev/kvm = 
/etc/group = kvm:x:104:
/proc/1/comm = systemd
/proc/700/comm = thermald
/proc/701/comm = irqbalance
/proc/cmdline = BOOT_IMAGE=/boot/vmlinuz-6.1.0-18-amd64 root=/dev/sda2 ro quiet
/proc/kallsyms = ffffffff81000000 T _stext
/proc/loadavg = 0.10 0.20 0.30 1/500 4242
/proc/meminfo = MemTotal:       16000000 kB
/proc/pressure/cpu = some avg10=0.00 avg60=0.00 avg300=0.00 total=1000
/proc/self/cgroup = 0::/user.slice/user-1000.slice/session-1.scope
/proc/self/status = CapEff:\t0000000000000000
/proc/self/uid_map =          0          0 4294967295
/proc/sys/kernel/kptr_restrict = 0
/proc/sys/kernel/nmi_watchdog = 1
/proc/sys/kernel/numa_balancing = 0
/proc/sys/kernel/osrelease = 6.1.0-18-amd64
/proc/sys/kernel/perf_event_paranoid = 3
/proc/sys/kernel/tainted = 0
/proc/sys/kernel/unprivileged_bpf_disabled = 2
/proc/uptime = 951.60 900.00
/proc/version = Linux version 6.1.0-18-amd64 (gcc-12) #1 SMP PREEMPT_DYNAMIC Debian 6.1.76-1
/sys/bus/event_source/devices/cpu/type = 4
/sys/class/power_supply/AC/online = 0
/sys/class/power_supply/AC/type = Mains
/sys/class/power_supply/BAT0/capacity = 63
/sys/class/power_supply/BAT0/status = Discharging
/sys/class/power_supply/BAT0/type = Battery
/sys/class/power_supply/hidpp_battery_0/scope = Device
/sys/class/power_supply/hidpp_battery_0/status = Discharging
/sys/class/power_supply/hidpp_battery_0/type = Battery
/sys/devices/system/clocksource/clocksource0/available_clocksource = tsc hpet acpi_pm
/sys/devices/system/clocksource/clocksource0/current_clocksource = tsc
/sys/devices/system/cpu/cpuidle/current_driver = intel_idle
/sys/devices/system/cpu/cpuidle/current_governor = menu
/sys/devices/system/cpu/intel_pstate/no_turbo = 0
/sys/devices/system/cpu/intel_pstate/status = active
/sys/devices/system/cpu/isolated = 
/sys/devices/system/cpu/nohz_full = (null)
/sys/devices/system/cpu/offline = 
/sys/devices/system/cpu/online = 0-3
/sys/devices/system/cpu/possible = 0-3
/sys/devices/system/cpu/smt/active = 1
/sys/devices/system/cpu/smt/control = on
/sys/devices/system/cpu/vulnerabilities/l1tf = Mitigation: PTE Inversion; VMX: conditional cache flushes, SMT vulnerable
/sys/devices/system/cpu/vulnerabilities/mds = Mitigation: Clear CPU buffers; SMT vulnerable
/sys/devices/system/cpu/vulnerabilities/meltdown = Mitigation: PTI
/sys/devices/system/cpu/vulnerabilities/retbleed = Mitigation: IBRS
/sys/devices/system/cpu/vulnerabilities/spectre_v2 = Mitigation: IBRS, IBPB: conditional, STIBP: conditional, RSB filling
/sys/devices/system/cpu/vulnerabilities/srbds = Not affected
/sys/devices/system/node/node0/x = 
/sys/firmware/acpi/platform_profile = low-power
/sys/kernel/btf/vmlinux = x
/sys/kernel/mm/ksm/run = 0
/sys/kernel/mm/transparent_hugepage/enabled = always [madvise] never
/sys/kernel/tracing/available_tracers = function_graph function nop
/sys/kernel/tracing/events/kvm/kvm_exit/format = name: kvm_exit
/sys/module/kvm/parameters/enable_pmu = Y
/sys/module/kvm/parameters/halt_poll_ns = 200000
/sys/module/kvm/parameters/nx_huge_pages = Y
/sys/module/kvm/parameters/tdp_mmu = Y
/sys/module/kvm_intel/initstate = live
/sys/module/kvm_intel/parameters/enable_apicv = N
/sys/module/kvm_intel/parameters/ept = Y
/sys/module/kvm_intel/parameters/nested = Y
/sys/module/kvm_intel/parameters/vmentry_l1d_flush = cond
";

/// A server with an AMD CPU, tuned for measuring: isolated CPUs, governor set, no SMT.
pub(crate) fn amd_server() -> Tree {
    let flags = "fpu tsc nx rdtscp constant_tsc nonstop_tsc svm npt avic tsc_scale v_tsc_aux";
    let cpuinfo: String = (0..2)
        .map(|n| {
            cpuinfo_block(
                n,
                "AuthenticAMD",
                [25, 1, 1],
                "AMD EPYC 7763 64-Core Processor",
                flags,
            )
        })
        .collect();
    Tree::new()
        .file("/proc/cpuinfo", &cpuinfo)
        .file(
            "/proc/stat",
            "cpu  100 0 100 999800 0 0 0 0 0 0\ncpu0 50 0 50 499900 0 0 0 0 0 0\nintr 5\nctxt 6\n",
        )
        .bytes("/dev/cpu_dma_latency", 0, &0i32.to_le_bytes())
        .file(
            "/proc/kallsyms",
            "0000000000000000 A fixed_percpu_data\n0000000000000000 T _stext\n",
        )
        .folder("/sys/class/power_supply")
        .files(SERVER_FILES)
}

const SERVER_FILES: &str = "
/boot/config-6.12.9 = CONFIG_HZ=1000
/dev/kvm = 
/proc/1/comm = systemd
/proc/cmdline = root=/dev/nvme0n1p1 isolcpus=managed_irq,domain,1 nohz_full=1 rcu_nocbs=1 irqaffinity=0 mitigations=off
/proc/loadavg = 0.00 0.00 0.00 1/500 4242
/proc/meminfo = MemTotal:       260000000 kB
/proc/self/cgroup = 0::/
/proc/self/status = CapEff:\t000001ffffffffff
/proc/self/uid_map =          0          0 4294967295
/proc/sys/kernel/kptr_restrict = 1
/proc/sys/kernel/nmi_watchdog = 0
/proc/sys/kernel/numa_balancing = 1
/proc/sys/kernel/osrelease = 6.12.9
/proc/sys/kernel/perf_event_paranoid = 2
/proc/sys/kernel/tainted = 4097
/proc/sys/kernel/unprivileged_bpf_disabled = 2
/proc/version = Linux version 6.12.9
/sys/bus/event_source/devices/cpu/type = 4
/sys/devices/system/clocksource/clocksource0/available_clocksource = hpet acpi_pm
/sys/devices/system/clocksource/clocksource0/current_clocksource = hpet
/sys/devices/system/cpu/cpu0/cpufreq/x = 
/sys/devices/system/cpu/cpu0/cpuidle/state0/disable = 0
/sys/devices/system/cpu/cpu0/cpuidle/state0/latency = 0
/sys/devices/system/cpu/cpu0/cpuidle/state0/name = POLL
/sys/devices/system/cpu/cpu0/cpuidle/state1/disable = 0
/sys/devices/system/cpu/cpu0/cpuidle/state1/latency = 1
/sys/devices/system/cpu/cpu0/cpuidle/state1/name = C1
/sys/devices/system/cpu/cpu0/cpuidle/state2/disable = 1
/sys/devices/system/cpu/cpu0/cpuidle/state2/latency = 400
/sys/devices/system/cpu/cpu0/cpuidle/state2/name = C2
/sys/devices/system/cpu/cpu0/topology/thread_siblings_list = 0
/sys/devices/system/cpu/cpufreq/boost = 0
/sys/devices/system/cpu/cpufreq/policy0/cpuinfo_max_freq = 2450000
/sys/devices/system/cpu/cpufreq/policy0/scaling_driver = acpi-cpufreq
/sys/devices/system/cpu/cpufreq/policy0/scaling_governor = performance
/sys/devices/system/cpu/cpufreq/policy0/scaling_max_freq = 2450000
/sys/devices/system/cpu/cpufreq/policy0/scaling_min_freq = 1500000
/sys/devices/system/cpu/cpuidle/current_driver = acpi_idle
/sys/devices/system/cpu/cpuidle/current_governor = menu
/sys/devices/system/cpu/isolated = 1
/sys/devices/system/cpu/nohz_full = 1
/sys/devices/system/cpu/offline = 
/sys/devices/system/cpu/online = 0-1
/sys/devices/system/cpu/possible = 0-1
/sys/devices/system/cpu/smt/active = 0
/sys/devices/system/cpu/smt/control = off
/sys/devices/system/cpu/vulnerabilities/spectre_v2 = Vulnerable; IBPB: disabled; STIBP: disabled; PBRSB-eIBRS: Not affected; BHI: Not affected
/sys/devices/system/cpu/vulnerabilities/l1tf = Not affected
/sys/devices/system/node/node0/x = 
/sys/devices/system/node/node1/x = 
/sys/kernel/mm/ksm/pages_sharing = 1234
/sys/kernel/mm/ksm/run = 1
/sys/kernel/mm/transparent_hugepage/enabled = [always] madvise never
/sys/module/kvm/parameters/halt_poll_ns = 0
/sys/module/kvm_amd/initstate = live
/sys/module/kvm_amd/parameters/avic = N
/sys/module/kvm_amd/parameters/npt = 1
/sys/module/kvm_amd/parameters/nrips = 1
";

/// A cloud's virtual machine without nested virtualization and without cpufreq.
pub(crate) fn vm_guest() -> Tree {
    let flags = "fpu tsc nx rdtscp constant_tsc hypervisor tsc_known_freq";
    let name = "Intel(R) Xeon(R) Platinum 8259CL CPU @ 2.50GHz";
    Tree::new()
        .file(
            "/proc/cpuinfo",
            &cpuinfo_block(0, "GenuineIntel", [6, 85, 7], name, flags),
        )
        .file(
            "/proc/stat",
            "cpu  1000 0 1000 7000 0 0 0 1000 0 0\ncpu0 1000 0 1000 7000 0 0 0 1000 0 0\nintr 77\nctxt 88\n",
        )
        .folder("/sys/class/power_supply")
        .folder("/sys/kernel/tracing")
        .files(GUEST_FILES)
}

const GUEST_FILES: &str = "
/proc/cmdline = root=/dev/vda1 console=ttyS0
/proc/loadavg = 3.00 2.00 1.00 5/100 999
/proc/self/cgroup = 0::/kubepods/pod1
/proc/self/status = CapEff:\t0000000000000000
/proc/sys/kernel/nmi_watchdog = 0
/proc/sys/kernel/osrelease = 6.8.0-aws
/proc/sys/kernel/perf_event_paranoid = 4
/proc/sys/kernel/unprivileged_bpf_disabled = 2
/sys/bus/event_source/devices/software/type = 1
/sys/class/dmi/id/product_name = m5.large
/sys/class/dmi/id/sys_vendor = Amazon EC2
/sys/devices/system/clocksource/clocksource0/available_clocksource = kvm-clock tsc acpi_pm
/sys/devices/system/clocksource/clocksource0/current_clocksource = kvm-clock
/sys/devices/system/cpu/modalias = cpu:type:x86,ven0000fam0006mod0055:feature:,0000,009F
/sys/devices/system/cpu/online = 0
/sys/devices/system/cpu/smt/active = 0
/sys/devices/system/cpu/smt/control = notsupported
/sys/devices/system/cpu/vulnerabilities/mds = Vulnerable: Clear CPU buffers attempted, no microcode; SMT Host state unknown
/sys/fs/cgroup/kubepods/cpu.max = max 100000
/sys/fs/cgroup/kubepods/pod1/cpu.max = 50000 100000
";

/// The kind of sandbox exitpath is developed in: a virtual machine whose KVM is `kvm_pvm`.
pub(crate) fn sandbox() -> Tree {
    let flags =
        "fpu tsc nx rdtscp constant_tsc nonstop_tsc tsc_known_freq hypervisor vmmcall tsc_adjust";
    let cpuinfo: String = (0..2)
        .map(|n| cpuinfo_block(n, "AuthenticAMD", [25, 17, 1], "AMD EPYC", flags))
        .collect();
    let mut signature = 0x4000_0001u32.to_le_bytes().to_vec();
    signature.extend_from_slice(b"KVMKVMKVM\0\0\0");
    Tree::new()
        .file("/proc/cpuinfo", &cpuinfo)
        .file(
            "/proc/stat",
            "cpu  30855 0 5986 201701 624 0 64 521 0 0\nintr 308028 0\nctxt 562038\n",
        )
        .bytes("/dev/cpu/0/cpuid", 0x4000_0000, &signature)
        .folder("/boot")
        .folder("/sys/class/power_supply")
        .folder("/sys/kernel/tracing")
        .files(SANDBOX_FILES)
}

const SANDBOX_FILES: &str = "
/dev/kvm = 
/proc/cmdline = mitigations=auto,no_guest_host,no_guest_guest nomodule nested_pvm=1 cpuidle_haltpoll.force=1
/proc/loadavg = 0.18 0.47 0.30 4/89 8120
/proc/self/cgroup = 1:cpu:/
/proc/self/status = CapEff:\t000001fffeffffff
/proc/self/uid_map =          0          0 4294967295
/proc/sys/kernel/osrelease = 6.18.44-fc-v595
/proc/sys/kernel/perf_event_paranoid = 2
/proc/sys/kernel/unprivileged_bpf_disabled = 2
/sys/bus/event_source/devices/software/type = 1
/sys/devices/system/clocksource/clocksource0/available_clocksource = tsc kvm-clock
/sys/devices/system/clocksource/clocksource0/current_clocksource = tsc
/sys/devices/system/cpu/cpu0/cpuidle/state0/disable = 0
/sys/devices/system/cpu/cpu0/cpuidle/state0/latency = 0
/sys/devices/system/cpu/cpu0/cpuidle/state0/name = POLL
/sys/devices/system/cpu/cpu0/cpuidle/state1/disable = 0
/sys/devices/system/cpu/cpu0/cpuidle/state1/latency = 1
/sys/devices/system/cpu/cpu0/cpuidle/state1/name = haltpoll idle
/sys/devices/system/cpu/cpuidle/current_driver = haltpoll
/sys/devices/system/cpu/online = 0-1
/sys/devices/system/cpu/vulnerabilities/spec_rstack_overflow = Vulnerable: Safe RET, no microcode
/sys/fs/cgroup/cpu/cpu.cfs_period_us = 100000
/sys/fs/cgroup/cpu/cpu.cfs_quota_us = -1
/sys/module/kvm/parameters/enable_pmu = N
/sys/module/kvm/parameters/halt_poll_ns = 200000
/sys/module/kvm/parameters/tdp_mmu = N
/sys/module/kvm_pvm/parameters/pvm_native = Y
";
