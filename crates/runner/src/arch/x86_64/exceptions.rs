//! A guest's exceptions.

/// Vectors by which a CPU refuses an instruction: #UD and #GP.
pub(crate) const REFUSALS: [u64; 2] = [6, 13];

/// Names of the exceptions (Intel SDM vol. 3, table 6-1).
pub(crate) fn exception(vector: u64) -> String {
    let name = match vector {
        0 => "#DE",
        1 => "#DB",
        3 => "#BP",
        6 => "#UD",
        7 => "#NM",
        8 => "#DF",
        10 => "#TS",
        11 => "#NP",
        12 => "#SS",
        13 => "#GP",
        14 => "#PF",
        16 => "#MF",
        17 => "#AC",
        19 => "#XM",
        _ => return format!("interrupt or exception {vector}"),
    };
    name.to_owned()
}
