//! The tables of a trace: their columns, the words that stand in them, and most paths and windows there may be.

use exitpath_recording::{Part, Space};

use crate::problem::Problem;
use crate::table::Table;

/// One row per instruction.
pub(crate) const INSTRUCTIONS: Table = Table {
    name: "instructions.parquet",
    schema: "message instructions {
        REQUIRED INT32 id (INTEGER(32,false));
        REQUIRED INT64 address (INTEGER(64,false));
        REQUIRED BINARY bytes;
    }",
    before: None,
    counting: &["id", "address"],
    rows_max: 1 << 24,
};

/// One row per block of a path.
pub(crate) const PATHS: Table = Table {
    name: "paths.parquet",
    schema: "message paths {
        REQUIRED INT32 path (INTEGER(32,false));
        REQUIRED INT32 index (INTEGER(32,false));
        REQUIRED INT32 cpu (INTEGER(32,false));
        REQUIRED INT32 first (INTEGER(32,false));
        REQUIRED INT32 count (INTEGER(32,false));
    }",
    before: None,
    counting: &["path", "index"],
    rows_max: 1 << 27,
};

/// Most paths there may be. A path of one block takes the memory of seven blocks.
pub(crate) const PATHS_MAX: usize = 1 << 22;

/// One row per segment of a window.
pub(crate) const WINDOWS: Table = Table {
    name: "windows.parquet",
    schema: "message windows {
        REQUIRED INT32 run (INTEGER(32,false));
        REQUIRED INT32 index (INTEGER(32,false));
        REQUIRED BINARY part (STRING);
        REQUIRED INT32 path (INTEGER(32,false));
    }",
    before: None,
    counting: &["index"],
    rows_max: 1 << 26,
};

/// Most windows there may be: as many as runs.
pub(crate) const WINDOWS_MAX: usize = 1 << 20;

/// One row per symbol.
pub(crate) const SYMBOLS: Table = Table {
    name: "symbols.parquet",
    schema: "message symbols {
        REQUIRED BINARY space (STRING);
        REQUIRED INT64 address (INTEGER(64,false));
        REQUIRED INT64 size (INTEGER(64,false));
        REQUIRED BINARY name (STRING);
        REQUIRED BINARY module (STRING);
        OPTIONAL BINARY condition (STRING);
    }",
    before: Some(
        "message symbols {
        REQUIRED BINARY space (STRING);
        REQUIRED INT64 address (INTEGER(64,false));
        REQUIRED INT64 size (INTEGER(64,false));
        REQUIRED BINARY name (STRING);
        REQUIRED BINARY module (STRING);
    }",
    ),
    counting: &["address"],
    rows_max: 1 << 22,
};

/// One row per source line of an instruction.
pub(crate) const LOCATIONS: Table = Table {
    name: "locations.parquet",
    schema: "message locations {
        REQUIRED INT32 instruction (INTEGER(32,false));
        REQUIRED INT32 depth (INTEGER(32,false));
        REQUIRED BINARY function (STRING);
        REQUIRED BINARY file (STRING);
        REQUIRED INT32 line (INTEGER(32,false));
    }",
    before: None,
    counting: &["instruction"],
    rows_max: 1 << 23,
};

/// One row per exit whose reason is known.
pub(crate) const EXITS: Table = Table {
    name: "exits.parquet",
    schema: "message exits {
        REQUIRED INT32 run (INTEGER(32,false));
        REQUIRED INT32 index (INTEGER(32,false));
        REQUIRED INT32 segment (INTEGER(32,false));
        REQUIRED INT64 code (INTEGER(64,false));
        REQUIRED INT64 info1 (INTEGER(64,false));
        REQUIRED INT64 info2 (INTEGER(64,false));
    }",
    before: None,
    counting: &["index", "segment"],
    rows_max: 1 << 26,
};

pub(crate) fn part_name(part: Part) -> &'static str {
    match part {
        Part::Between => "between",
        Part::Empty => "empty",
        Part::Op => "op",
    }
}

pub(crate) fn part(name: &str) -> Result<Part, Problem> {
    match name {
        "between" => Ok(Part::Between),
        "empty" => Ok(Part::Empty),
        "op" => Ok(Part::Op),
        _ => Err(Problem::unknown("part of a sample", name)),
    }
}

pub(crate) fn space_name(space: Space) -> &'static str {
    match space {
        Space::Guest => "guest",
        Space::User => "user",
        Space::Kernel => "kernel",
    }
}

pub(crate) fn space(name: &str) -> Result<Space, Problem> {
    match name {
        "guest" => Ok(Space::Guest),
        "user" => Ok(Space::User),
        "kernel" => Ok(Space::Kernel),
        _ => Err(Problem::unknown("space of a symbol", name)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_as_written_and_nothing_else_is() {
        for it in [Part::Between, Part::Empty, Part::Op] {
            assert_eq!(part(part_name(it)), Ok(it));
        }
        for it in [Space::Guest, Space::User, Space::Kernel] {
            assert_eq!(space(space_name(it)), Ok(it));
        }
        assert!(part("").is_err() && space("").is_err());
    }
}
