//! Whose code a round runs through: guest, kernel, libc, libraries, VMM, kernel, guest.

use exitpath_recording::Space;

use super::model::{Count, Node, RowPath};

/// Whose code an instruction is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Whose {
    /// The guest's.
    Guest,
    /// The kernel's, where no VMM runs in the round.
    Kernel,
    /// The kernel's, before the VMM runs.
    KernelBefore,
    /// The C library's, the dynamic linker's or the vDSO's.
    Libc,
    /// GLib's.
    Glib,
    /// The VMM's own.
    Vmm,
    /// Another library's.
    Library,
    /// The kernel's, called by the VMM while it handles the exit.
    KernelBetween,
    /// The kernel's, after the VMM has run for the last time.
    KernelAfter,
}

impl Whose {
    /// All of them, in the order of a round.
    pub const ALL: [Whose; 9] = [
        Whose::Guest,
        Whose::Kernel,
        Whose::KernelBefore,
        Whose::Libc,
        Whose::Glib,
        Whose::Vmm,
        Whose::Library,
        Whose::KernelBetween,
        Whose::KernelAfter,
    ];

    /// What it is called.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Whose::Guest => "guest",
            Whose::Kernel => "kernel",
            Whose::KernelBefore => "kernel, before user space",
            Whose::Libc => "libc",
            Whose::Glib => "GLib",
            Whose::Vmm => "VMM",
            Whose::Library => "other libraries, code of no file",
            Whose::KernelBetween => "kernel, called by the VMM",
            Whose::KernelAfter => "kernel, after user space",
        }
    }
}

/// A part of the round.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Part {
    /// Whose it is.
    pub whose: Whose,
    /// Its instructions.
    pub instructions: Count,
}

/// The parts of a row's path, all of [`Whose::ALL`] in that order. They add up to its total.
///
/// A program's own libc is told from the program by its phase, where it is linked into it.
#[must_use]
pub fn parts(path: &RowPath) -> Vec<Part> {
    let space = |node: usize| path.tree.get(node).map(|node| node.space);
    let in_user = |step: &super::Step| space(step.node) == Some(Space::User);
    let first = path.steps.iter().position(in_user);
    let last = path.steps.iter().rposition(in_user);
    let mut parts = Whose::ALL.map(|whose| Part {
        whose,
        instructions: Count::default(),
    });
    for (position, step) in path.steps.iter().enumerate() {
        let Some(node) = path.tree.get(step.node) else {
            continue;
        };
        let whose = match node.space {
            Space::Guest => Whose::Guest,
            Space::User => whose_in_user(node),
            Space::Kernel if first.is_none() => Whose::Kernel,
            Space::Kernel if first.is_some_and(|first| position < first) => Whose::KernelBefore,
            Space::Kernel if last.is_some_and(|last| position > last) => Whose::KernelAfter,
            Space::Kernel => Whose::KernelBetween,
        };
        let count = &mut parts[whose as usize].instructions;
        count.all += step.instructions;
        count.lean += if step.skipped { 0 } else { step.instructions };
    }
    parts.to_vec()
}

/// By the module's file name, or the phase where all is in one file.
fn whose_in_user(node: &Node) -> Whose {
    let module = node.module.as_str();
    let begins = |names: &[&str]| names.iter().any(|name| module.starts_with(name));
    let is_library = module.contains(".so");
    if begins(&[
        "libc.so",
        "libc-",
        "ld-",
        "ld.so",
        "libpthread",
        "libm.so",
        "[vdso]",
        "linux-vdso",
    ]) {
        Whose::Libc
    } else if begins(&["libglib", "libgobject", "libgio", "libgmodule"]) {
        Whose::Glib
    } else if is_library || module.is_empty() {
        Whose::Library
    } else if node.phase == "libc" {
        Whose::Libc
    } else {
        Whose::Vmm
    }
}

#[cfg(test)]
mod tests {
    use super::super::model::{Entered, Step};
    use super::*;

    fn node(space: Space, module: &str, phase: &str) -> Node {
        Node {
            parent: 0,
            name: "f".to_owned(),
            module: module.to_owned(),
            space,
            cpu: 0,
            entered: Entered::Call,
            calls: 1,
            own: Count::default(),
            total: Count::default(),
            phase: phase.to_owned(),
        }
    }

    fn round(steps: &[(usize, u64, bool)]) -> RowPath {
        let step = |&(node, instructions, skipped): &(usize, u64, bool)| Step {
            node,
            instructions,
            skipped,
        };
        RowPath {
            tree: vec![
                node(Space::Guest, "guest", "guest"),
                node(Space::Kernel, "kvm", "exit handler"),
                node(Space::User, "qemu-system-x86_64", "VMM"),
                node(Space::User, "libc.so.6", "libc"),
                node(Space::User, "libglib-2.0.so.0.7400.6", "GLib"),
                node(Space::User, "libz.so.1", "VMM"),
                node(Space::User, "", "VMM"),
                node(Space::User, "exitpath", "libc"),
            ],
            steps: steps.iter().map(step).collect(),
            ..RowPath::default()
        }
    }

    fn told(path: &RowPath) -> Vec<(Whose, u64, u64)> {
        let parts = parts(path).into_iter();
        parts
            .map(|part| (part.whose, part.instructions.all, part.instructions.lean))
            .filter(|part| part.1 > 0)
            .collect()
    }

    #[test]
    fn the_kernel_counts_by_where_user_space_ran() {
        let steps = [
            (0, 1, false),
            (1, 100, false),
            (3, 2, false),
            (2, 30, false),
            (1, 40, true),
            (4, 5, false),
            (5, 6, false),
            (6, 7, false),
            (7, 8, false),
            (1, 200, false),
        ];
        assert_eq!(
            told(&round(&steps)),
            [
                (Whose::Guest, 1, 1),
                (Whose::KernelBefore, 100, 100),
                (Whose::Libc, 10, 10),
                (Whose::Glib, 5, 5),
                (Whose::Vmm, 30, 30),
                (Whose::Library, 13, 13),
                (Whose::KernelBetween, 40, 0),
                (Whose::KernelAfter, 200, 200),
            ]
        );
    }

    #[test]
    fn without_user_space_all_of_the_kernel_is_one_part() {
        let steps = [(0, 1, false), (1, 100, false), (0, 1, false), (1, 9, true)];
        assert_eq!(
            told(&round(&steps)),
            [(Whose::Guest, 2, 2), (Whose::Kernel, 109, 100)]
        );
        assert_eq!(told(&round(&[])), []);
    }

    #[test]
    fn all_are_in_the_order_of_their_numbers() {
        for (number, whose) in Whose::ALL.into_iter().enumerate() {
            assert_eq!(whose as usize, number);
        }
    }
}
