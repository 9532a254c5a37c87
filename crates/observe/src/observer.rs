//! The programs, attached, and what they have counted.

use std::collections::{HashMap, HashSet};
use std::os::fd::{AsRawFd, OwnedFd};

use aya_obj::generated::bpf_attach_type::{BPF_TRACE_FENTRY, BPF_TRACE_RAW_TP};
use aya_obj::{Map, Object};
use exitpath_exits::reasons::{of_svm, of_vmx};
use exitpath_recording::live::{Durations, Exits, Kept, Lost, Vcpu};
use object::{Object as _, ObjectSymbol};

use crate::error::{Error, Result};
use crate::kernel::{self, Kernel, Place, Vendor};
use crate::layout::{Block, Cell, Layout, SLOTS, Totals};
use crate::sys::{self, Mapped, Target};

/// The programs, compiled from `bpf/exits.bpf.c`.
static OBJECT: &[u8] = include_bytes!("../bpf/exits.bpf.o");

const MMAPABLE: u32 = 1 << 10;
const READ_ONLY: u32 = 1 << 7;

/// What is observed.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// How much is kept.
    pub kept: Kept,
    /// vCPUs and reasons that have room, all together.
    pub reasons: u32,
    /// Histograms that have room.
    pub histograms: u32,
}

impl Options {
    /// For so many vCPUs.
    pub fn of(kept: Kept, vcpus: u32) -> Options {
        let reasons = vcpus.clamp(16, SLOTS as u32) * 8;
        Options {
            kept,
            reasons: reasons + 1,
            histograms: match kept {
                Kept::Light => 1,
                Kept::Usual | Kept::Exact => reasons + reasons / 2,
            },
        }
    }
}

/// The programs, attached.
#[derive(Debug)]
pub struct Observer {
    vendor: Vendor,
    /// Closing them detaches.
    _attached: Vec<OwnedFd>,
    counts: Mapped,
    cells: Mapped,
    blocks: Mapped,
    options: Options,
    totals_at: usize,
}

impl Observer {
    /// Attaches the programs.
    ///
    /// # Errors
    /// What this kernel does not have, or the user may not.
    pub fn attach(options: Options) -> Result<Observer> {
        let vendor = Vendor::here()?;
        let kernel = Kernel::here(vendor)?;
        let clock = kernel.clock;
        // When a vCPU was put is told by the same clock.
        let kept = match options.kept {
            Kept::Usual if clock.is_none() => Kept::Exact,
            kept => kept,
        };
        let layout = Layout {
            cells: options.reasons,
            blocks: options.histograms,
            clock: clock.unwrap_or(0),
            index: kernel::indices(vendor),
        };
        let said = |error: &dyn std::fmt::Display| Error::Object(error.to_string());
        let mut object = Object::parse(OBJECT).map_err(|error| said(&error))?;
        object
            .patch_map_data(HashMap::from([("layout", (layout.bytes(), true))]))
            .map_err(|error| said(&error))?;
        let maps = make_maps(&object, &options)?;
        let text = text_sections(&object);
        let fds = maps
            .iter()
            .map(|(name, (fd, map))| (name.as_str(), fd.as_raw_fd(), map));
        object
            .relocate_maps(fds, &text)
            .map_err(|error| said(&error))?;
        object.relocate_calls(&text).map_err(|error| said(&error))?;

        let map = |name: &str| {
            let found = maps.get(name).map(|(fd, _)| fd);
            found.ok_or_else(|| Error::Object(format!("it has no {name}")))
        };
        let bss = map(".bss")?;
        let length = maps[".bss"].1.value_size() as usize;
        let totals_at = symbol("totals")?;
        let kvm = kernel.entry.in_kvm.then(|| sys::module_btf("kvm"));
        let kvm = kvm.transpose()?;
        let mut attached = Vec::new();
        let mut attach = |name: &str, how, place: Place| -> Result<()> {
            let target = Target {
                how,
                id: place.id,
                module: kvm.as_ref().filter(|_| place.in_kvm),
            };
            let function = object
                .programs
                .get(name)
                .map(|program| program.function_key());
            let function = function.and_then(|key| object.functions.get(&key));
            let function = function.ok_or_else(|| Error::Object(format!("it has no {name}")))?;
            let mut code = function.instructions.clone();
            let written = kernel.offsets.into_code(&mut code);
            written.ok_or_else(|| Error::Layout {
                what: "fields near enough to their structures".to_owned(),
            })?;
            let program = sys::program(name, &code, target)?;
            attached.push(sys::attach(name, &program)?);
            Ok(())
        };
        // What ends an exit last: what it is told from is there then.
        attach("destroy", BPF_TRACE_FENTRY, kernel.destroy)?;
        let by_exit = if clock.is_some() { "" } else { "_exit" };
        if kept != Kept::Light {
            attach("switched", BPF_TRACE_RAW_TP, kernel.switch)?;
        }
        if kept == Kept::Exact {
            attach("run", BPF_TRACE_FENTRY, kernel.run)?;
            attach("leave", BPF_TRACE_RAW_TP, kernel.leave)?;
        }
        if clock.is_none() {
            let program = match kernel.vcpu_is_second {
                true => "exit_second",
                false => "exit_first",
            };
            attach(program, BPF_TRACE_RAW_TP, kernel.exit)?;
        }
        let cpu = match vendor {
            Vendor::Amd => "amd",
            Vendor::Intel => "intel",
        };
        let mode = match kept {
            Kept::Light => "light",
            Kept::Usual => "usual",
            Kept::Exact => "exact",
        };
        let entry = format!("{cpu}_{mode}{by_exit}");
        attach(&entry, BPF_TRACE_RAW_TP, kernel.entry)?;
        Ok(Observer {
            vendor,
            _attached: attached,
            counts: Mapped::new(bss, length)?,
            cells: Mapped::new(map("cells")?, options.reasons as usize * size_of::<Cell>())?,
            blocks: Mapped::new(
                map("blocks")?,
                options.histograms as usize * size_of::<Block>(),
            )?,
            options: Options { kept, ..options },
            totals_at,
        })
    }

    /// How much is kept: more than was asked for where less cannot be had here.
    pub fn kept(&self) -> Kept {
        self.options.kept
    }

    /// The vCPUs that were entered so far, with their process, in the order in which they were first seen to exit.
    pub fn vcpus(&self) -> Vec<(u32, Vcpu)> {
        let totals: Totals = self.counts.read(self.totals_at);
        let used = u32::try_from(totals.cells).unwrap_or(u32::MAX);
        let cells = 1..self.options.reasons.min(used.saturating_add(1));
        let cells = cells.map(|at| self.cells.read::<Cell>(at as usize * size_of::<Cell>()));
        let mut vcpus: Vec<(u32, Vcpu)> = Vec::new();
        for cell in cells.filter(|cell| cell.count > 0) {
            let exits = Exits {
                reason: self.reason(cell.index),
                count: cell.count,
                through_userspace: cell.user_count,
                untimed: cell.untimed,
                parts: std::array::from_fn(|part| Durations {
                    sum_ns: cell.ns[part],
                    buckets: self.buckets(cell.block[part]),
                }),
            };
            let vcpu = Vcpu {
                id: cell.vcpu_id,
                tid: cell.tid,
                ended: cell.ended != 0,
                exits: Vec::new(),
            };
            // Its cells are not behind each other. One that ended, and then another of the same number: each has a reason once.
            let same = |(tgid, known): &&mut (u32, Vcpu)| {
                (*tgid, known.tid, known.id, known.ended)
                    == (cell.tgid, vcpu.tid, vcpu.id, vcpu.ended)
                    && known.exits.iter().all(|known| known.reason != exits.reason)
            };
            match vcpus.iter_mut().find(same) {
                Some((_, known)) => known.exits.push(exits),
                None => {
                    let exits = vec![exits];
                    vcpus.push((cell.tgid, Vcpu { exits, ..vcpu }));
                }
            }
        }
        vcpus
    }

    /// What is not among the counts.
    pub fn lost(&self) -> Lost {
        let totals: Totals = self.counts.read(self.totals_at);
        Lost {
            vcpus: totals.no_slot,
            threads: totals.no_thread,
            reasons: totals.no_cell,
            histograms: totals.no_block,
            unpaired: totals.unpaired,
            uncertain: totals.uncertain,
        }
    }

    fn reason(&self, index: u32) -> String {
        let known = kernel::code(index).and_then(|code| match self.vendor {
            Vendor::Amd => of_svm(u64::from(code)),
            Vendor::Intel => of_vmx(code),
        });
        match (known, kernel::code(index)) {
            (Some(reason), _) => reason.word.to_owned(),
            (None, Some(code)) => format!("{code:#x}"),
            (None, None) => "other".to_owned(),
        }
    }

    fn buckets(&self, block: u32) -> Vec<(u32, u32)> {
        if block == 0 || block >= self.options.histograms {
            return Vec::new();
        }
        let Block(counts) = self.blocks.read(block as usize * size_of::<Block>());
        (0..).zip(counts).filter(|(_, count)| *count > 0).collect()
    }
}

/// The object's maps, made in the kernel.
fn make_maps(object: &Object, options: &Options) -> Result<HashMap<String, (OwnedFd, Map)>> {
    let mut made = HashMap::new();
    for (name, map) in &object.maps {
        let entries = match name.as_str() {
            "cells" => options.reasons,
            "blocks" => options.histograms,
            _ => 1,
        };
        let flags = match name.as_str() {
            ".rodata" => READ_ONLY,
            _ => MMAPABLE,
        };
        let fd = sys::array(
            name.trim_start_matches('.'),
            map.value_size(),
            entries,
            flags,
        )?;
        if name == ".rodata" {
            sys::set(&fd, map.data())?;
            sys::freeze(&fd)?;
        }
        made.insert(name.clone(), (fd, map.clone()));
    }
    Ok(made)
}

/// Sections that have functions which programs call.
fn text_sections(object: &Object) -> HashSet<usize> {
    object
        .functions
        .keys()
        .map(|(section, _)| *section)
        .collect()
}

/// Where a variable is in its section.
fn symbol(name: &str) -> Result<usize> {
    let file = object::File::parse(OBJECT).map_err(|error| Error::Object(error.to_string()))?;
    let found = file.symbols().find(|symbol| symbol.name() == Ok(name));
    let found = found.ok_or_else(|| Error::Object(format!("it has no {name}")))?;
    usize::try_from(found.address()).map_err(|error| Error::Object(error.to_string()))
}
