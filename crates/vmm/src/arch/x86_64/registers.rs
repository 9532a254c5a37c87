//! Registers between KVM and a VMM: fetched after an exit, mirrored, and put back before the next
//! entry.

use exitpath_exits::ladder::{Mirror, Registers as Which};
use kvm_bindings::{KVM_SYNC_X86_REGS, KVMIO, kvm_regs, kvm_run, kvm_sregs, kvm_xsave};
use kvm_ioctls::VcpuFd;

use crate::Error;
use crate::call;

vmm_sys_util::ioctl_ior_nr!(KVM_GET_REGS, KVMIO, 0x81, kvm_regs);
vmm_sys_util::ioctl_iow_nr!(KVM_SET_REGS, KVMIO, 0x82, kvm_regs);
vmm_sys_util::ioctl_ior_nr!(KVM_GET_SREGS, KVMIO, 0x83, kvm_sregs);
vmm_sys_util::ioctl_iow_nr!(KVM_SET_SREGS, KVMIO, 0x84, kvm_sregs);
vmm_sys_util::ioctl_ior_nr!(KVM_GET_XSAVE, KVMIO, 0xa4, kvm_xsave);
vmm_sys_util::ioctl_iow_nr!(KVM_SET_XSAVE, KVMIO, 0xa5, kvm_xsave);

/// Registers of a vCPU as its VMM has them.
#[derive(Debug, Default)]
pub(crate) struct Registers {
    general: kvm_regs,
    special: kvm_sregs,
    extended: kvm_xsave,
    fields: Fields,
    block: kvm_regs,
    /// What an accessor read last, so that it reads.
    accessed: u64,
}

/// A VMM's own structure of general registers, in the order in which machine code numbers them.
#[derive(Debug, Default, Clone, Copy)]
#[repr(C)]
struct Fields {
    rip: u64,
    rflags: u64,
    numbered: [u64; 16],
}

impl Registers {
    /// The registers as they are before the first entry. Each call that the loop makes is made once,
    /// as the loop does not look at what they come back with.
    pub(crate) fn new(
        fd: &VcpuFd,
        run: *mut kvm_run,
        which: Which,
    ) -> Result<Box<Registers>, Error> {
        let mut registers = Box::new(Registers {
            general: fd.get_regs().map_err(Error::kvm("KVM_GET_REGS"))?,
            ..Registers::default()
        });
        if matches!(which, Which::General | Which::Special | Which::Full) {
            let set = fd.set_regs(&registers.general);
            set.map_err(Error::kvm("KVM_SET_REGS"))?;
        }
        if matches!(which, Which::Special | Which::Full) {
            registers.special = fd.get_sregs().map_err(Error::kvm("KVM_GET_SREGS"))?;
            let set = fd.set_sregs(&registers.special);
            set.map_err(Error::kvm("KVM_SET_SREGS"))?;
        }
        if which == Which::Full {
            registers.extended = fd.get_xsave().map_err(Error::kvm("KVM_GET_XSAVE"))?;
            // SAFETY: KVM reads no more than this: the CPU features that need more are enabled for
            // no guest of exitpath.
            let set = unsafe { fd.set_xsave(&registers.extended) };
            set.map_err(Error::kvm("KVM_SET_XSAVE"))?;
        }
        mirror_fields(&registers.general, &mut registers.fields);
        registers.block = registers.general;
        // SAFETY: `run` is the shared page of `fd`'s vCPU; the caller has it exclusively.
        unsafe {
            (*run).s.regs.regs = registers.general;
            if matches!(which, Which::SyncOut | Which::SyncBoth) {
                (*run).kvm_valid_regs = u64::from(KVM_SYNC_X86_REGS);
            }
        }
        Ok(registers)
    }

    /// After an exit: from KVM, and into the mirror.
    ///
    /// # Safety
    /// `fd` is a vCPU's and `run` its shared page.
    #[inline(always)]
    pub(crate) unsafe fn fetch(
        &mut self,
        fd: i32,
        run: *mut kvm_run,
        which: Which,
        mirror: Mirror,
    ) {
        // SAFETY: the caller's; each buffer is of the type that its ioctl fills in.
        unsafe {
            if matches!(which, Which::General | Which::Special | Which::Full) {
                call::ioctl(fd, KVM_GET_REGS() as usize, &raw mut self.general as usize);
            }
            if matches!(which, Which::Special | Which::Full) {
                call::ioctl(fd, KVM_GET_SREGS() as usize, &raw mut self.special as usize);
            }
            if which == Which::Full {
                call::ioctl(
                    fd,
                    KVM_GET_XSAVE() as usize,
                    &raw mut self.extended as usize,
                );
            }
            match mirror {
                Mirror::None => {}
                Mirror::Fields => {
                    let from = self.source(run, which);
                    mirror_fields(&*from, &mut self.fields);
                }
                Mirror::Block => mirror_block(self.source(run, which), &raw mut self.block),
                Mirror::Accessor => self.accessed = rax(run),
            }
        }
    }

    /// Before an entry: out of the mirror, and to KVM. All of it is what was fetched, unless
    /// somebody has changed it meanwhile.
    ///
    /// # Safety
    /// `fd` is a vCPU's and `run` its shared page.
    #[inline(always)]
    pub(crate) unsafe fn put_back(
        &mut self,
        fd: i32,
        run: *mut kvm_run,
        which: Which,
        mirror: Mirror,
    ) {
        // SAFETY: the caller's; each buffer is of the type that its ioctl reads.
        unsafe {
            match mirror {
                Mirror::None | Mirror::Accessor => {}
                Mirror::Fields => {
                    let to = self.source(run, which);
                    unmirror_fields(&self.fields, &mut *to);
                }
                Mirror::Block => mirror_block(&raw const self.block, self.source(run, which)),
            }
            if which == Which::SyncBoth {
                (*run).kvm_dirty_regs = u64::from(KVM_SYNC_X86_REGS);
            }
            if matches!(which, Which::General | Which::Special | Which::Full) {
                call::ioctl(
                    fd,
                    KVM_SET_REGS() as usize,
                    &raw const self.general as usize,
                );
            }
            if matches!(which, Which::Special | Which::Full) {
                call::ioctl(
                    fd,
                    KVM_SET_SREGS() as usize,
                    &raw const self.special as usize,
                );
            }
            if which == Which::Full {
                call::ioctl(
                    fd,
                    KVM_SET_XSAVE() as usize,
                    &raw const self.extended as usize,
                );
            }
        }
    }

    /// Where KVM's copy of the general registers is: in the shared page, or in a buffer of ours.
    #[inline(always)]
    fn source(&mut self, run: *mut kvm_run, which: Which) -> *mut kvm_regs {
        match which {
            // SAFETY: only an address is taken, of a member of the page.
            Which::SyncOut | Which::SyncBoth => unsafe { &raw mut (*run).s.regs.regs },
            _ => &raw mut self.general,
        }
    }
}

/// Copies KVM's registers into a VMM's own structure, field by field. A function of its own, so
/// that a trace shows what the compiler made of it.
#[inline(never)]
fn mirror_fields(from: &kvm_regs, to: &mut Fields) {
    to.rip = from.rip;
    to.rflags = from.rflags;
    to.numbered = [
        from.rax, from.rcx, from.rdx, from.rbx, from.rsp, from.rbp, from.rsi, from.rdi, from.r8,
        from.r9, from.r10, from.r11, from.r12, from.r13, from.r14, from.r15,
    ];
}

/// The way back.
#[inline(never)]
fn unmirror_fields(from: &Fields, to: &mut kvm_regs) {
    let [
        rax,
        rcx,
        rdx,
        rbx,
        rsp,
        rbp,
        rsi,
        rdi,
        r8,
        r9,
        r10,
        r11,
        r12,
        r13,
        r14,
        r15,
    ] = from.numbered;
    *to = kvm_regs {
        rax,
        rbx,
        rcx,
        rdx,
        rsi,
        rdi,
        rsp,
        rbp,
        r8,
        r9,
        r10,
        r11,
        r12,
        r13,
        r14,
        r15,
        rip: from.rip,
        rflags: from.rflags,
    };
}

/// Copies KVM's registers as one block, in KVM's order.
///
/// # Safety
/// `from` can be read and `to` written.
#[inline(never)]
unsafe fn mirror_block(from: *const kvm_regs, to: *mut kvm_regs) {
    // SAFETY: the caller's.
    unsafe { to.write(from.read()) };
}

/// One register where KVM has put it: no mirror.
///
/// # Safety
/// `run` is a vCPU's shared page.
#[inline(never)]
unsafe fn rax(run: *const kvm_run) -> u64 {
    // SAFETY: the caller's; the member is plain data.
    unsafe { (*run).s.regs.regs.rax }
}
