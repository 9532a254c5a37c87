//! The bpf system call, as far as it is used here. aya's loader knows types of the kernel itself only, and KVM is a module.

use std::io;
use std::mem::{size_of, zeroed};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::ptr::NonNull;

use aya_obj::generated::{
    bpf_attach_type, bpf_attr, bpf_cmd, bpf_insn, bpf_map_type, bpf_prog_type,
};

use crate::error::{Error, Result};

/// Bytes of the verifier's text that are kept.
const LOG: usize = 1 << 20;

fn bpf(command: bpf_cmd, attr: &mut bpf_attr) -> io::Result<i64> {
    // SAFETY: `attr` is a whole bpf_attr, and what it points to outlives the call: callers keep it until they return.
    let result = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            command as u32,
            std::ptr::from_mut(attr),
            size_of::<bpf_attr>(),
        )
    };
    match result {
        -1 => Err(io::Error::last_os_error()),
        result => Ok(result),
    }
}

fn opened(fd: i64) -> OwnedFd {
    // SAFETY: the kernel has just opened this descriptor for us.
    unsafe { OwnedFd::from_raw_fd(fd as i32) }
}

fn empty() -> bpf_attr {
    // SAFETY: a union of plain integers: zero is a value of each.
    unsafe { zeroed() }
}

/// An array map: so many values of so many bytes.
pub(crate) fn array(name: &str, value_size: u32, entries: u32, flags: u32) -> Result<OwnedFd> {
    let mut attr = empty();
    // SAFETY: fields of the union's part for BPF_MAP_CREATE, which is zeroed.
    let map = unsafe { &mut attr.__bindgen_anon_1 };
    map.map_type = bpf_map_type::BPF_MAP_TYPE_ARRAY as u32;
    map.key_size = 4;
    map.value_size = value_size;
    map.max_entries = entries;
    map.map_flags = flags;
    for (to, from) in map.map_name.iter_mut().zip(name.bytes().take(15)) {
        *to = from as _;
    }
    bpf(bpf_cmd::BPF_MAP_CREATE, &mut attr)
        .map(opened)
        .map_err(|cause| Error::refused(format!("a BPF map of {entries} values"), cause, ""))
}

/// Writes the only value of a map.
pub(crate) fn set(map: &OwnedFd, value: &[u8]) -> Result<()> {
    let mut attr = empty();
    let key = 0u32;
    // SAFETY: fields of the union's part for element commands, which is zeroed.
    let element = unsafe { &mut attr.__bindgen_anon_2 };
    element.map_fd = map.as_raw_fd() as u32;
    element.key = std::ptr::from_ref(&key) as u64;
    element.__bindgen_anon_1.value = value.as_ptr() as u64;
    bpf(bpf_cmd::BPF_MAP_UPDATE_ELEM, &mut attr)
        .map(drop)
        .map_err(|cause| Error::refused("writing to a BPF map", cause, ""))
}

/// Makes a map constant, so that the verifier may know what is in it.
pub(crate) fn freeze(map: &OwnedFd) -> Result<()> {
    let mut attr = empty();
    attr.__bindgen_anon_2.map_fd = map.as_raw_fd() as u32;
    bpf(bpf_cmd::BPF_MAP_FREEZE, &mut attr)
        .map(drop)
        .map_err(|cause| Error::refused("freezing a BPF map", cause, ""))
}

/// The descriptor of a kernel module's type information. The kernel's own has none.
pub(crate) fn module_btf(module: &str) -> Result<OwnedFd> {
    let said = |cause| Error::refused(format!("the BTF of {module}"), cause, "");
    let mut id = 0u32;
    loop {
        let mut attr = empty();
        attr.__bindgen_anon_6.__bindgen_anon_1.start_id = id;
        bpf(bpf_cmd::BPF_BTF_GET_NEXT_ID, &mut attr).map_err(said)?;
        // SAFETY: the kernel has filled in this field.
        id = unsafe { attr.__bindgen_anon_6.next_id };
        let mut attr = empty();
        attr.__bindgen_anon_6.__bindgen_anon_1.btf_id = id;
        let fd = opened(bpf(bpf_cmd::BPF_BTF_GET_FD_BY_ID, &mut attr).map_err(said)?);
        if name_of_btf(&fd).map_err(said)? == module {
            return Ok(fd);
        }
    }
}

fn name_of_btf(fd: &OwnedFd) -> io::Result<String> {
    let mut name = [0u8; 64];
    // SAFETY: plain integers.
    let mut info: aya_obj::generated::bpf_btf_info = unsafe { zeroed() };
    info.name = name.as_mut_ptr() as u64;
    info.name_len = name.len() as u32;
    let mut attr = empty();
    attr.info.bpf_fd = fd.as_raw_fd() as u32;
    attr.info.info_len = size_of::<aya_obj::generated::bpf_btf_info>() as u32;
    attr.info.info = std::ptr::from_mut(&mut info) as u64;
    bpf(bpf_cmd::BPF_OBJ_GET_INFO_BY_FD, &mut attr)?;
    let end = name.iter().position(|byte| *byte == 0).unwrap_or(0);
    Ok(String::from_utf8_lossy(&name[..end]).into_owned())
}

/// What a tracing program is attached to.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Target<'a> {
    /// How.
    pub(crate) how: bpf_attach_type,
    /// The type: of a function, or of a tracepoint's `btf_trace_` type.
    pub(crate) id: u32,
    /// The module that has it; `None`: the kernel itself.
    pub(crate) module: Option<&'a OwnedFd>,
}

/// Loads a tracing program.
pub(crate) fn program(name: &str, code: &[bpf_insn], target: Target<'_>) -> Result<OwnedFd> {
    let license = c"Dual MIT/GPL";
    let said = |cause, log: &str| Error::refused(format!("the BPF program {name}"), cause, log);
    let load = |log: &mut [u8]| {
        let mut attr = empty();
        // SAFETY: fields of the union's part for BPF_PROG_LOAD, which is zeroed.
        let load = unsafe { &mut attr.__bindgen_anon_3 };
        load.prog_type = bpf_prog_type::BPF_PROG_TYPE_TRACING as u32;
        load.expected_attach_type = target.how as u32;
        load.insns = code.as_ptr() as u64;
        load.insn_cnt = code.len() as u32;
        load.license = license.as_ptr() as u64;
        load.attach_btf_id = target.id;
        load.__bindgen_anon_1.attach_btf_obj_fd =
            target.module.map_or(0, |module| module.as_raw_fd() as u32);
        for (to, from) in load.prog_name.iter_mut().zip(name.bytes().take(15)) {
            *to = from as _;
        }
        if !log.is_empty() {
            load.log_level = 1;
            load.log_buf = log.as_mut_ptr() as u64;
            load.log_size = log.len() as u32;
        }
        bpf(bpf_cmd::BPF_PROG_LOAD, &mut attr)
    };
    let refused = match load(&mut []) {
        Ok(fd) => return Ok(opened(fd)),
        Err(refused) => refused,
    };
    if matches!(refused.raw_os_error(), Some(libc::EPERM)) {
        return Err(said(refused, ""));
    }
    // Again, for its words.
    let mut log = vec![0u8; LOG];
    let refused = match load(&mut log) {
        Ok(fd) => return Ok(opened(fd)),
        Err(refused) => refused,
    };
    let end = log.iter().position(|byte| *byte == 0).unwrap_or(0);
    let log = String::from_utf8_lossy(&log[..end]);
    let lines: Vec<&str> = log.trim_end().lines().collect();
    let last = lines[lines.len().saturating_sub(12)..].join("\n");
    Err(said(refused, &format!("\n{last}")))
}

/// Attaches a tracing program to its target. It is attached as long as the descriptor is open.
pub(crate) fn attach(name: &str, program: &OwnedFd) -> Result<OwnedFd> {
    let mut attr = empty();
    attr.raw_tracepoint.prog_fd = program.as_raw_fd() as u32;
    bpf(bpf_cmd::BPF_RAW_TRACEPOINT_OPEN, &mut attr)
        .map(opened)
        .map_err(|cause| Error::refused(format!("attaching the BPF program {name}"), cause, ""))
}

/// A map's values in this process' memory, as the programs write them.
#[derive(Debug)]
pub(crate) struct Mapped {
    at: NonNull<u8>,
    length: usize,
}

// SAFETY: the memory is the kernel's, stays where it is until dropped, and is read only.
unsafe impl Send for Mapped {}

impl Mapped {
    /// The values of a map that was made for it.
    pub(crate) fn new(map: &OwnedFd, length: usize) -> Result<Mapped> {
        // SAFETY: a new mapping at a place of the kernel's choice.
        let at = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                length,
                libc::PROT_READ,
                libc::MAP_SHARED,
                map.as_raw_fd(),
                0,
            )
        };
        match NonNull::new(at.cast::<u8>()) {
            Some(at) if at.as_ptr().cast() != libc::MAP_FAILED => Ok(Mapped { at, length }),
            _ => Err(Error::refused(
                "a BPF map in memory",
                io::Error::last_os_error(),
                "",
            )),
        }
    }

    /// A value at this place.
    ///
    /// # Panics
    /// Where it would be outside.
    pub(crate) fn read<T: Plain>(&self, offset: usize) -> T {
        assert!(offset + size_of::<T>() <= self.length && offset.is_multiple_of(align_of::<T>()));
        // SAFETY: inside of the mapping and aligned, by the line above; each bit pattern is a T. Programs write meanwhile, and
        // what is read is plain.
        unsafe { self.at.as_ptr().add(offset).cast::<T>().read_volatile() }
    }
}

impl Drop for Mapped {
    fn drop(&mut self) {
        // SAFETY: made by `new`, and nothing refers to it.
        unsafe { libc::munmap(self.at.as_ptr().cast(), self.length) };
    }
}

/// What any bytes are a value of.
///
/// # Safety
/// As that says.
pub(crate) unsafe trait Plain: Copy {}
// SAFETY: an integer.
unsafe impl Plain for u64 {}
// SAFETY: an integer.
unsafe impl Plain for u32 {}
