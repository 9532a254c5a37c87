//! What the recording keeps of a row: plain data, without the guest's code.

use exitpath_exits::ladder::{ALL_ON_RUNG, BARE_RUNG, PARTS, Rung, is_locking};
use exitpath_exits::{Group, Row};
use exitpath_recording::{Bounds, RowInfo, RungInfo, RungRole};

use crate::kicked;

/// What the recording keeps of a catalogue row, of guests on a CPU of AMD or Hygon (`amd`) or on another.
pub fn row_info(row: &Row, amd: bool) -> RowInfo {
    let bounds = |(min, max)| Bounds { min, max };
    RowInfo {
        name: row.name.to_owned(),
        operation: row.operation.to_owned(),
        reference: matches!(row.group, Group::Reference | Group::Check),
        halts: row.halts,
        interrupts: row.interrupts,
        vcpus: u32::from(row.vcpus),
        delay_ticks: row.delay_ticks,
        exits: bounds(row.exits_on(amd)),
        userspace_exits: bounds(row.userspace_exits),
        parameters: row
            .parameters()
            .into_iter()
            .map(|(name, value)| (name.to_owned(), value))
            .collect(),
        rung: row.rung.map(|rung| RungInfo {
            layers: rung.layers.names().into_iter().map(str::to_owned).collect(),
            reference: rung.reference.map(str::to_owned),
            role: role(row, rung),
        }),
        kick: kicked::info(row),
    }
}

fn role(row: &Row, rung: Rung) -> RungRole {
    match row.name {
        _ if is_locking(row) => RungRole::Locking(rung.layers.lock.name().to_owned()),
        BARE_RUNG => RungRole::Bare,
        ALL_ON_RUNG => RungRole::AllOn,
        name if PARTS.contains(&name) => RungRole::Part,
        _ if rung.reference == Some(ALL_ON_RUNG) => RungRole::AllBut,
        _ => RungRole::Layer,
    }
}

#[cfg(test)]
mod tests {
    use exitpath_exits::catalogue::all;
    use exitpath_exits::find;

    use super::*;

    fn row(name: &str) -> &'static Row {
        find(name).expect("a row")
    }

    #[test]
    fn an_exit_that_a_vendors_cpus_must_make_is_expected_there() {
        let least = |name, amd| row_info(row(name), amd).exits.min;
        for name in ["wbinvd", "toggle_cr0_wp", "toggle_cr4_pge"] {
            assert_eq!(
                (least(name, false), least(name, true)),
                (0.0, 1.0),
                "{name}"
            );
        }
        for name in ["xsetbv", "invd", "wr_tsc_adjust_msr", "rd_tsc_adjust_msr"] {
            assert_eq!(
                (least(name, false), least(name, true)),
                (1.0, 1.0),
                "{name}"
            );
        }
        for name in ["mov_dr", "mov_from_cr8", "rdtsc", "wr_kernel_gs_base"] {
            assert_eq!(
                (least(name, false), least(name, true)),
                (0.0, 0.0),
                "{name}"
            );
        }
        // The narrower bounds are never wider.
        for row in all() {
            let (any, amd) = (row.exits_on(false), row.exits_on(true));
            assert!(any.0 <= amd.0 && amd.1 <= any.1, "{}", row.name);
        }
    }

    #[test]
    fn a_rungs_part_in_the_sum_is_told_by_its_name_and_reference() {
        let role = |name: &str| row_info(row(name), true).rung.expect("a rung").role;
        assert_eq!(role(BARE_RUNG), RungRole::Bare);
        assert_eq!(role(ALL_ON_RUNG), RungRole::AllOn);
        for part in PARTS {
            assert_eq!(role(part), RungRole::Part, "{part}");
        }
        assert_eq!(role("all_but_mirror"), RungRole::AllBut);
        assert_eq!(role("syscall"), RungRole::Layer);
        assert_eq!(
            role("locking_global_2"),
            RungRole::Locking("global".to_owned())
        );
        assert!(row_info(row("cpuid"), true).rung.is_none());
    }
}
