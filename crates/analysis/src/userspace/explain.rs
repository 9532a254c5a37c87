//! Why a rung differs from another one: whose instructions they are, function by function.

use std::collections::BTreeMap;

use exitpath_recording::{Recording, Space};

use crate::path::{PathError, PhaseTable, RowPath, trace_rows};

/// The phase of functions that are libc's.
const LIBC: &str = "libc";

/// Whose instructions a round consists of. The sum is the path's total.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Share {
    /// The guest's.
    pub guest: u64,
    /// The kernel's.
    pub kernel: u64,
    /// libc's.
    pub libc: u64,
    /// What is left of user space: the VMM's own.
    pub vmm: u64,
}

impl Share {
    fn of(path: &RowPath) -> Share {
        let mut share = Share::default();
        for function in &path.functions {
            let of = match function.space {
                Space::Guest => &mut share.guest,
                Space::Kernel => &mut share.kernel,
                Space::User if function.phase == LIBC => &mut share.libc,
                Space::User => &mut share.vmm,
            };
            *of += function.own.all;
        }
        share
    }
}

/// A rung's path, and how it differs from its reference's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Explained {
    /// Whose instructions they are.
    pub share: Share,
    /// Functions whose own instructions differ, most different first; their sum and `unexplained`
    /// are the difference of the two rungs' values.
    pub functions: Vec<(String, i64)>,
    /// What of the difference the functions do not explain.
    pub unexplained: i64,
    /// Times the lab's CPU was halted in the round; the guest's clock went on meanwhile, by `idle`.
    pub halts: u64,
    /// Most of `unexplained`, if there were halts: no instruction ran.
    pub idle: u64,
}

/// The paths of a recording's rungs, at the first seed that has one.
#[derive(Debug, Clone, Default)]
pub(super) struct Paths {
    rows: BTreeMap<String, RowPath>,
}

impl Paths {
    /// Those of a recording; none where it has no trace.
    pub(super) fn of(recording: &Recording, phases: &PhaseTable) -> Result<Paths, PathError> {
        let mut rows = BTreeMap::new();
        if recording.trace.is_some() {
            for path in trace_rows(recording, phases)? {
                rows.entry(path.row.clone()).or_insert(path);
            }
        }
        Ok(Paths { rows })
    }

    /// A rung's path against its reference's, from which it differs by `delta`; by itself where it
    /// has none.
    pub(super) fn explain(
        &self,
        name: &str,
        reference: Option<&str>,
        delta: Option<f64>,
    ) -> Option<Explained> {
        let path = self.rows.get(name)?;
        let share = Share::of(path);
        let reference = reference.and_then(|reference| self.rows.get(reference));
        let (Some(reference), Some(delta)) = (reference, delta) else {
            return Some(Explained {
                share,
                functions: Vec::new(),
                unexplained: 0,
                halts: path.halts(),
                idle: path.idle(),
            });
        };
        let mut own = Own::new();
        add(&mut own, path, 1);
        add(&mut own, reference, -1);
        let told: i64 = own.values().sum();
        Some(Explained {
            share,
            functions: ordered(own),
            unexplained: delta as i64 - told,
            halts: path.halts(),
            idle: path.idle(),
        })
    }

    /// What the interaction consists of: all together, less nothing, less each part's difference.
    /// `None` where one of them has no path.
    pub(super) fn interaction(
        &self,
        bare: &str,
        all_on: &str,
        parts: &[(String, String)],
    ) -> Option<Vec<(String, i64)>> {
        let mut own = Own::new();
        let mut terms = vec![(all_on, 1), (bare, -1)];
        for (part, reference) in parts {
            terms.extend([(part.as_str(), -1), (reference.as_str(), 1)]);
        }
        for (name, sign) in terms {
            add(&mut own, self.rows.get(name)?, sign);
        }
        Some(ordered(own))
    }
}

/// Functions by module and name: one name may be the kernel's and libc's.
type Own = BTreeMap<(String, String), i64>;

/// Adds each function's own instructions, times `sign`.
fn add(own: &mut Own, path: &RowPath, sign: i64) {
    for function in &path.functions {
        let key = (function.module.clone(), function.name.clone());
        *own.entry(key).or_default() += sign * function.own.all as i64;
    }
}

/// Those that are not 0, the largest first.
fn ordered(own: Own) -> Vec<(String, i64)> {
    let own = own.into_iter().map(|((_, name), by)| (name, by));
    let mut own: Vec<(String, i64)> = own.filter(|(_, by)| *by != 0).collect();
    own.sort_by_key(|(_, by)| -by.abs());
    own
}
