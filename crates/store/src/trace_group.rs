//! The groups of a trace: how a trace becomes rows and rows a trace. The reasons of exits are a group of their own.

use crate::group::Group;
use crate::lists::{Lists, numbered};
use crate::problem::Problem;
use crate::table::{Encoded, Table, encode_table, read_table};
use crate::trace_check::{check_exits, check_trace};
use crate::trace_tables::{
    EXITS, INSTRUCTIONS, LOCATIONS, PATHS, PATHS_MAX, SYMBOLS, WINDOWS, WINDOWS_MAX, part,
    part_name, space, space_name,
};
use exitpath_recording::{
    Block, Exit, Instruction, Location, Path, Segment, Symbol, Trace, Window,
};

/// The group of a trace.
pub(crate) const GROUP: Group = Group {
    name: "trace",
    needs: Some("runs"),
    tables: &[&INSTRUCTIONS, &PATHS, &WINDOWS, &SYMBOLS, &LOCATIONS],
    encode: |recording| match &recording.trace {
        None => Ok(None),
        Some(trace) => {
            check_trace(&recording.manifest, &recording.runs, trace)
                .map_err(|(_, problem)| problem)?;
            Ok(Some(encode(trace)?.into()))
        }
    },
    decode: |recording, tables| {
        let trace = decode(tables)?;
        check_trace(&recording.manifest, &recording.runs, &trace)?;
        recording.trace = Some(trace);
        Ok(())
    },
};

/// The group of the reasons of exits, where those are known.
pub(crate) const EXITS_GROUP: Group = Group {
    name: "exits",
    needs: Some("trace"),
    tables: &[&EXITS],
    encode: |recording| match &recording.trace {
        Some(trace) => Ok(encode_exits(trace)?.map(|exits| vec![exits])),
        None => Ok(None),
    },
    decode: |recording, tables| {
        let of = |problem| (EXITS.name, problem);
        let (Some(trace), Some(table)) = (&mut recording.trace, tables.into_iter().next()) else {
            return Err(of("there is no trace that these are the exits of".into()));
        };
        // Of windows that are as they should be.
        decode_exits(table, &mut trace.windows)
            .and_then(|()| check_exits(trace))
            .map_err(of)
    },
};

/// A trace as its group's tables, in their order. A path without blocks and a window without segments
/// have no rows, which [`crate::trace_check`] is to see before.
fn encode(trace: &Trace) -> Result<[Encoded; 5], Problem> {
    let paths = (0..).zip(&trace.paths);
    let blocks = paths.flat_map(|(path, it): (u32, _)| numbered(path, &it.blocks));
    let windows = trace.windows.iter();
    let segments = windows.flat_map(|window| numbered(window.run, &window.segments));
    Ok([
        encode_table(
            &INSTRUCTIONS,
            (0..).zip(&trace.instructions),
            |rows, group| {
                group.u32s(rows.iter().map(|row| row.0))?;
                group.u64s(rows.iter().map(|row| row.1.address))?;
                group.byte_strings(rows.iter().map(|row| row.1.bytes.as_slice()))
            },
        )?,
        encode_table(&PATHS, blocks, |rows, group| {
            group.u32s(rows.iter().map(|row| row.0))?;
            group.u32s(rows.iter().map(|row| row.1))?;
            group.u32s(rows.iter().map(|row| row.2.cpu))?;
            group.u32s(rows.iter().map(|row| row.2.first))?;
            group.u32s(rows.iter().map(|row| row.2.count))
        })?,
        encode_table(&WINDOWS, segments, |rows, group| {
            group.u32s(rows.iter().map(|row| row.0))?;
            group.u32s(rows.iter().map(|row| row.1))?;
            group.texts(rows.iter().map(|row| part_name(row.2.part)))?;
            group.u32s(rows.iter().map(|row| row.2.path))
        })?,
        encode_table(&SYMBOLS, trace.symbols.iter(), |rows, group| {
            group.texts(rows.iter().map(|symbol| space_name(symbol.space)))?;
            group.u64s(rows.iter().map(|symbol| symbol.address))?;
            group.u64s(rows.iter().map(|symbol| symbol.size))?;
            group.texts(rows.iter().map(|symbol| symbol.name.as_str()))?;
            group.texts(rows.iter().map(|symbol| symbol.module.as_str()))?;
            group.optional_texts(rows.iter().map(|symbol| symbol.condition.as_deref()))
        })?,
        encode_table(&LOCATIONS, trace.locations.iter(), |rows, group| {
            group.u32s(rows.iter().map(|location| location.instruction))?;
            group.u32s(rows.iter().map(|location| location.depth))?;
            group.texts(rows.iter().map(|location| location.function.as_str()))?;
            group.texts(rows.iter().map(|location| location.file.as_str()))?;
            group.u32s(rows.iter().map(|location| location.line))
        })?,
    ])
}

/// The reasons of exits as [`EXITS`], if they are known. A window without any has no rows.
fn encode_exits(trace: &Trace) -> Result<Option<Encoded>, Problem> {
    if !trace.knows_exits() {
        return Ok(None);
    }
    let exits = trace.windows.iter().flat_map(|window| {
        let exits = window.exits.as_deref().unwrap_or_default();
        numbered(window.run, exits)
    });
    let table = encode_table(&EXITS, exits, |rows, group| {
        group.u32s(rows.iter().map(|row| row.0))?;
        group.u32s(rows.iter().map(|row| row.1))?;
        group.u32s(rows.iter().map(|row| row.2.segment))?;
        group.u64s(rows.iter().map(|row| row.2.code))?;
        group.u64s(rows.iter().map(|row| row.2.info1))?;
        group.u64s(rows.iter().map(|row| row.2.info2))
    })?;
    Ok(Some(table))
}

/// Undoes [`encode_exits`], for the windows there are.
fn decode_exits(file: Encoded, windows: &mut [Window]) -> Result<(), Problem> {
    let mut lists = Lists::new("run", WINDOWS_MAX);
    read_table(&EXITS, file, |group| {
        let infos = group.u64s("info1")?.into_iter().zip(group.u64s("info2")?);
        let codes = group.u64s("code")?.into_iter().zip(infos);
        let exits = group.u32s("segment")?.into_iter().zip(codes);
        let exits = exits.map(|(segment, (code, (info1, info2)))| Exit {
            segment,
            code,
            info1,
            info2,
        });
        lists.add(group.u32s("run")?, group.u32s("index")?, exits)
    })?;
    let mut lists = lists.finish().into_iter().peekable();
    for window in windows {
        let of_it = lists.next_if(|(run, _)| *run == window.run);
        window.exits = Some(of_it.map_or_else(Vec::new, |(_, exits)| exits));
    }
    match lists.next() {
        Some((run, _)) => Err(problem!(
            "the exits of run {run} are of no window, or not in the windows' order"
        )),
        None => Ok(()),
    }
}

/// Undoes [`encode`]. An error comes with the name of the table it was found in. What the rows
/// say is for [`crate::trace_check`] to see.
fn decode(tables: Vec<Encoded>) -> Result<Trace, (&'static str, Problem)> {
    let Ok([instructions, paths, windows, symbols, locations]) = <[Encoded; 5]>::try_from(tables)
    else {
        return Err((
            WINDOWS.name,
            "the group has another number of tables".into(),
        ));
    };
    let of = |table: &Table| {
        let name = table.name;
        move |problem| (name, problem)
    };
    Ok(Trace {
        instructions: decode_instructions(instructions).map_err(of(&INSTRUCTIONS))?,
        paths: decode_paths(paths).map_err(of(&PATHS))?,
        windows: decode_windows(windows).map_err(of(&WINDOWS))?,
        symbols: decode_symbols(symbols).map_err(of(&SYMBOLS))?,
        locations: decode_locations(locations).map_err(of(&LOCATIONS))?,
    })
}

fn decode_instructions(file: Encoded) -> Result<Vec<Instruction>, Problem> {
    let mut instructions = Vec::new();
    read_table(&INSTRUCTIONS, file, |group| {
        let rows = group.u64s("address")?.into_iter();
        let rows = rows.zip(group.byte_strings("bytes")?);
        for (id, (address, bytes)) in group.u32s("id")?.into_iter().zip(rows) {
            if id as usize != instructions.len() {
                let due = instructions.len();
                return Err(problem!("instruction {id} stands where {due} was due"));
            }
            instructions.push(Instruction { address, bytes });
        }
        Ok(())
    })?;
    Ok(instructions)
}

fn decode_paths(file: Encoded) -> Result<Vec<Path>, Problem> {
    let mut paths = Lists::new("path", PATHS_MAX);
    read_table(&PATHS, file, |group| {
        let blocks = group.u32s("first")?.into_iter().zip(group.u32s("count")?);
        let blocks = group.u32s("cpu")?.into_iter().zip(blocks);
        let blocks = blocks.map(|(cpu, (first, count))| Block { cpu, first, count });
        paths.add(group.u32s("path")?, group.u32s("index")?, blocks)
    })?;
    let paths = paths.finish().into_iter().enumerate();
    paths
        .map(|(due, (id, blocks))| match id as usize == due {
            true => Ok(Path { blocks }),
            false => Err(problem!("path {id} stands where {due} was due")),
        })
        .collect()
}

fn decode_windows(file: Encoded) -> Result<Vec<Window>, Problem> {
    let mut windows = Lists::new("run", WINDOWS_MAX);
    read_table(&WINDOWS, file, |group| {
        let parts = group.texts("part")?;
        let parts = parts.iter().map(|name| part(name));
        let parts = parts.collect::<Result<Vec<_>, _>>()?;
        let segments = parts.into_iter().zip(group.u32s("path")?);
        let segments = segments.map(|(part, path)| Segment { part, path });
        windows.add(group.u32s("run")?, group.u32s("index")?, segments)
    })?;
    let windows = windows.finish().into_iter();
    Ok(windows
        .map(|(run, segments)| Window {
            run,
            segments,
            exits: None,
        })
        .collect())
}

fn decode_symbols(file: Encoded) -> Result<Vec<Symbol>, Problem> {
    let mut symbols = Vec::new();
    read_table(&SYMBOLS, file, |group| {
        let spaces = group.texts("space")?;
        let ranges = group.u64s("address")?.into_iter().zip(group.u64s("size")?);
        let names = group.texts("name")?.into_iter().zip(group.texts("module")?);
        let conditions = match group.has("condition") {
            true => group.optional_texts("condition")?,
            false => vec![None; spaces.len()],
        };
        let names = names.zip(conditions);
        for ((at, (address, size)), ((name, module), condition)) in
            spaces.iter().zip(ranges).zip(names)
        {
            symbols.push(Symbol {
                space: space(at)?,
                address,
                size,
                name,
                module,
                condition,
            });
        }
        Ok(())
    })?;
    Ok(symbols)
}

fn decode_locations(file: Encoded) -> Result<Vec<Location>, Problem> {
    let mut locations = Vec::new();
    read_table(&LOCATIONS, file, |group| {
        let places = group.u32s("instruction")?.into_iter();
        let places = places.zip(group.u32s("depth")?);
        let sources = group.texts("file")?.into_iter().zip(group.u32s("line")?);
        let sources = group.texts("function")?.into_iter().zip(sources);
        let rows = places.zip(sources);
        locations.extend(rows.map(
            |((instruction, depth), (function, (file, line)))| Location {
                instruction,
                depth,
                function,
                file,
                line,
            },
        ));
        Ok(())
    })?;
    Ok(locations)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Blocks of one instruction each, by path and index.
    fn paths(rows: &[(u32, u32)]) -> Result<Vec<usize>, Problem> {
        let file = encode_table(&PATHS, rows.iter(), |rows, group| {
            group.u32s(rows.iter().map(|row| row.0))?;
            group.u32s(rows.iter().map(|row| row.1))?;
            group.u32s(rows.iter().map(|_| 0))?;
            group.u32s(rows.iter().map(|_| 0))?;
            group.u32s(rows.iter().map(|_| 1))
        });
        let paths = decode_paths(file.unwrap())?;
        Ok(paths.iter().map(|path| path.blocks.len()).collect())
    }

    fn windows(rows: &[(u32, u32)], part: &str) -> Result<Vec<u32>, Problem> {
        let file = encode_table(&WINDOWS, rows.iter(), |rows, group| {
            group.u32s(rows.iter().map(|row| row.0))?;
            group.u32s(rows.iter().map(|row| row.1))?;
            group.texts(rows.iter().map(|_| part))?;
            group.u32s(rows.iter().map(|_| 0))
        });
        let windows = decode_windows(file.unwrap())?;
        Ok(windows.iter().map(|window| window.run).collect())
    }

    #[test]
    fn blocks_missing_double_or_out_of_order_are_problems() {
        assert_eq!(paths(&[(0, 0), (0, 1), (1, 0)]), Ok(vec![2, 1]));
        assert_eq!(paths(&[]), Ok(vec![]));
        for rows in [
            [(0, 0), (0, 2), (1, 0)],
            [(0, 1), (1, 0), (1, 1)],
            [(0, 0), (1, 1), (1, 2)],
            [(0, 0), (0, 0), (0, 1)],
            [(0, 0), (1, 0), (0, 1)],
            [(0, 0), (0, u32::MAX), (1, 0)],
            [(0, 0), (2, 0), (3, 0)],
            [(1, 0), (2, 0), (3, 0)],
            [(1, 0), (0, 0), (2, 0)],
        ] {
            let problem = paths(&rows).unwrap_err();
            let said = ["is out of order", "was due"];
            assert!(
                said.iter().any(|it| problem.to_string().ends_with(it)),
                "{problem}"
            );
        }
    }

    #[test]
    fn windows_keep_their_order_and_do_not_alternate() {
        let rows = [(7, 0), (7, 1), (3, 0)];
        assert_eq!(windows(&rows, "op"), Ok(vec![7, 3]));
        let problem = windows(&[(7, 0), (3, 0), (7, 1)], "op").unwrap_err();
        assert_eq!(problem.to_string(), "index 1 of run 7 is out of order");
        let problem = windows(&rows, "Op").unwrap_err();
        assert_eq!(problem, Problem::unknown("part of a sample", "Op"));
    }

    #[test]
    fn instructions_missing_double_or_out_of_order_are_problems() {
        let instructions = |ids: &[u32]| {
            let file = encode_table(&INSTRUCTIONS, ids.iter(), |ids, group| {
                group.u32s(ids.iter().map(|id| **id))?;
                group.u64s(ids.iter().map(|_| 0))?;
                group.byte_strings(ids.iter().map(|_| &[0x90][..]))
            });
            decode_instructions(file.unwrap())
        };
        assert_eq!(instructions(&[0, 1]).unwrap().len(), 2);
        for ids in [[1, 2], [0, 0], [1, 0], [0, u32::MAX]] {
            let problem = instructions(&ids).unwrap_err();
            assert!(problem.to_string().ends_with("was due"), "{problem}");
        }
    }
}
