//! Recordings on disk: the one format everything is written to and read from.
//!
//! A recording is what was measured on what, whole enough that every analysis and every report is
//! made from it alone, on any machine and at any later time. In memory it is a
//! [`Recording`](exitpath_recording::Recording); [`exitpath_recording::model`] says what each part means. On disk it is a
//! folder, written by [`write()`] and read by [`read()`], of one JSON file and Parquet tables. Any dataframe tool
//! opens the tables.
//!
//! This crate computes nothing: what goes in comes out, to the last bit. It knows neither KVM nor
//! statistics, and holds no `unsafe` code.
//!
//! # `manifest.json`
//!
//! | key | value |
//! |---|---|
//! | `format` | always [`FORMAT`], `"exitpath-recording"` |
//! | `version` | the version of this format, a number: [`VERSION`], 4 |
//! | `groups_sha256` | SHA-256 of the value of `groups`, of its bytes exactly as they stand in the file, from the opening to the closing bracket |
//! | `groups` | the groups of tables there are; for each its `name`, and its `tables` in the order below, for each: `name` of the file, `rows`, `bytes`, and `sha256` of the file in hexadecimal, as `sha256sum` prints it |
//! | `manifest_sha256` | SHA-256 of the value of `manifest`, likewise |
//! | `manifest` | a [`Manifest`](exitpath_recording::Manifest), field by field: command, time, environment, plan, conditions, rows, warnings |
//!
//! `format` and `version` stay where they are in every version, so that an older exitpath can say
//! which newer one is needed. Manifests are not meant to be edited: that breaks the checksums, and some tools
//! round integers above 2^53.
//!
//! A **group** is tables that a recording has together or not at all. `runs` is in every recording, `trace` where
//! instructions were recorded, `exits` where the reasons of all exits are known. A group may join without a new
//! version: a reader that does not know it leaves it alone, and says so among the warnings.
//!
//! A value of an enumeration that a reader does not know (a status, a part, what a condition differs in) was
//! written by a newer exitpath, and is refused as that.
//!
//! Versions 1 to 3 are read as well. They had all tables in one list (`tables`): those of `runs` (1), of `trace`
//! too (2), and of `exits` (3); neither conditions nor the column `condition`, and nothing of the
//! architecture. Their runs are read as of one condition, `base`, of x86-64.
//!
//! # Conditions
//!
//! What is compared is the same row under different conditions. `conditions` of the manifest is an array, at least
//! one, in the order to compare them in:
//!
//! | key | value |
//! |---|---|
//! | `name` | the condition's name, which the runs refer to; `base` where nothing is compared |
//! | `differs` | what distinguishes it, an array, left out if empty: `{"kernel": RELEASE}`, `{"cmdline": TEXT}`, `{"parameter": {"module", "name", "value"}}`, `{"patch": {"function", "returns"}}` (a function of the kernel that returns at once, with this value or null), `{"off": {"knob", "changes"}}` (optional work that is switched off, and how: phrases), `{"tracer": NAME}`, `{"delay": {"ticks"}}`, `{"vmm": {"command", "version"}}`, `{"layers": [WORD, …]}` (what exitpath's own VMM does on each exit), `{"guest": {"name", "sha256"}}` (another program in the guest) |
//! | `facts` | facts of the environment that are others under it, an object, left out if empty; null for one that there is not |
//! | `warnings` | those of the recording's `warnings` that concern it and not every other condition, an array, left out if empty |
//!
//! # Tables
//!
//! Types are Parquet's logical types. Only the columns marked so can be null. A **tick** is one
//! TSC tick if the manifest's `machine` is `host`, and one instruction if it is `lab`. Ticks are
//! raw: nothing has been subtracted, converted or left out.
//!
//! The group `runs`. `runs.parquet`, one row per run, in the order the runs were made:
//!
//! | column | type | unit and meaning |
//! |---|---|---|
//! | `id` | UINT_32 | unique; the other tables call it `run` |
//! | `row` | STRING | name of one of the manifest's rows |
//! | `condition` | STRING | name of one of the manifest's conditions |
//! | `block` | UINT_32 | block of the randomised order; runs are paired by it |
//! | `seed` | UINT_64 or null | the lab's seed; null on a host |
//! | `cpus` | UINT_32 | CPUs of the machine it ran on |
//! | `status` | STRING | `done`, `skipped`, `fault` or `hung` |
//! | `reason` | STRING or null | why, for a reader; null exactly if `status` is `done` |
//! | `notes` | LIST of STRING | what a reader should know about this run; often empty |
//! | `ops` | UINT_64 | operations the counters are over |
//! | `userspace_exits` | UINT_64 | returns of `KVM_RUN` to the VMM over these operations |
//!
//! `counters.parquet`, one row per run and counter:
//!
//! | column | type | unit and meaning |
//! |---|---|---|
//! | `run` | UINT_32 | the run's `id` |
//! | `name` | STRING | KVM's name of the statistic (`exits`, `io_exits`, …) or ours (`vmm.…`, `host.…`); once per run |
//! | `delta` | INT_64 | change over the run's `ops` operations, in the counter's own unit: events, unless its name says otherwise |
//!
//! `samples.parquet`, one row per bracketed sample:
//!
//! | column | type | unit and meaning |
//! |---|---|---|
//! | `run` | UINT_32 | the run's `id` |
//! | `index` | UINT_32 | position among the run's samples in the order taken, from 0, none missing |
//! | `empty` | UINT_64 | ticks of the bracket without the operation |
//! | `op` | UINT_64 | ticks of the bracket with the operation |
//!
//! `batches.parquet`, one row per batch, a repetition of the slope estimator:
//!
//! | column | type | unit and meaning |
//! |---|---|---|
//! | `run` | UINT_32 | the run's `id` |
//! | `index` | UINT_32 | position among the run's batches in the order taken, from 0, none missing |
//! | `n` | UINT_64 | operations in the shorter batch |
//! | `empty_n`, `empty_2n` | UINT_64 | ticks of n and of 2n iterations without the operation |
//! | `op_n`, `op_2n` | UINT_64 | ticks of n and of 2n iterations with the operation |
//!
//! The columns are unsigned: cast them to a signed type before one is subtracted from another, or
//! the difference wraps where the bracket with the operation happened to be the shorter. In
//! DuckDB, for example:
//!
//! ```sql
//! SELECT r.row, r.condition, median(s.op::BIGINT - s.empty::BIGINT) AS ticks
//! FROM 'recording/samples.parquet' s JOIN 'recording/runs.parquet' r ON r.id = s.run
//! WHERE r.status = 'done' GROUP BY ALL;
//! ```
//!
//! # Tables of a trace
//!
//! The groups `trace` and `exits`. One sequence of instructions is stored once, as a path, however often it was
//! taken.
//!
//! `instructions.parquet`, one row per instruction:
//!
//! | column | type | unit and meaning |
//! |---|---|---|
//! | `id` | UINT_32 | position among the instructions, from 0, none missing |
//! | `address` | UINT_64 | virtual address of its first byte, in whichever space it was executed |
//! | `bytes` | BINARY | machine code, 1 to 15 bytes |
//!
//! `paths.parquet`, one row per block of a path:
//!
//! | column | type | unit and meaning |
//! |---|---|---|
//! | `path` | UINT_32 | the path's id: its position among the paths, from 0, none missing; every path has a block |
//! | `index` | UINT_32 | position among the path's blocks in the order executed, from 0, none missing |
//! | `cpu` | UINT_32 | the lab's CPU that executed it, from 0 |
//! | `first` | UINT_32 | `id` of its first instruction; the others' follow it |
//! | `count` | UINT_32 | number of instructions, at least 1 |
//!
//! `windows.parquet`, one row per segment of a window. A run has one window or none, and a
//! window at least one segment:
//!
//! | column | type | unit and meaning |
//! |---|---|---|
//! | `run` | UINT_32 | the run's `id` |
//! | `index` | UINT_32 | position among the window's segments in the order executed, from 0, none missing |
//! | `part` | STRING | of a sample: `between` brackets, in the `empty` one, in the one with the `op` |
//! | `path` | UINT_32 | id of the path taken |
//!
//! `symbols.parquet`, one row per symbol, those of all conditions first, and of each ordered by space (in the
//! order named here) and address:
//!
//! | column | type | unit and meaning |
//! |---|---|---|
//! | `space` | STRING | `guest`, `user` or `kernel` |
//! | `address` | UINT_64 | virtual address of its first byte |
//! | `size` | UINT_64 | bytes; none belongs to two symbols of a space under one condition, and none lies beyond the last address |
//! | `name` | STRING | the name |
//! | `module` | STRING | `vmlinux`, a module, a program or library, or `guest` |
//! | `condition` | STRING or null | the condition under which the range has this name; null: under all |
//!
//! `locations.parquet`, one row per location, ordered by instruction and depth, often empty:
//!
//! | column | type | unit and meaning |
//! |---|---|---|
//! | `instruction` | UINT_32 | the instruction's `id` |
//! | `depth` | UINT_32 | levels of inlining: 0 for the function it is in, 1 for one inlined into that, …; once per instruction |
//! | `function` | STRING | the function's name |
//! | `file` | STRING | the source file; empty where not known |
//! | `line` | UINT_32 | the line in it, from 1; 0 where not known |
//!
//! `exits.parquet`, one row per exit of the guest while a window was open, if the
//! reasons of all exits are known:
//!
//! | column | type | unit and meaning |
//! |---|---|---|
//! | `run` | UINT_32 | the run's `id`; runs are in the order of their windows |
//! | `index` | UINT_32 | position among the window's exits in the order made, from 0, none missing |
//! | `segment` | UINT_32 | `index` of the window's segment in which the guest exited |
//! | `code` | UINT_64 | the exit code, as the CPU wrote it: EXITCODE of SVM's VMCB |
//! | `info1` | UINT_64 | EXITINFO1; what it means depends on the code |
//! | `info2` | UINT_64 | EXITINFO2; what it means depends on the code |
//!
//! # Size
//!
//! The tables are not compressed, use dictionaries and delta encoding, and have row groups of up
//! to 2^20 rows. A sample and a block take about two bytes each. So that no file can take all
//! memory there are limits, for writing as for reading: 2^20 runs, 2^24 counters, 2^27 samples and
//! 2^24 batches; 2^21 notes; 2^24 instructions, 2^22 paths and 2^27 blocks of them all, 2^26
//! segments and as many exits, 2^22 symbols and 2^23 locations; and 1 GiB of text or machine code in a table.
//!
//! # Whole or not at all
//!
//! A recording is written to a temporary folder, the manifest last, and renamed into place, so a
//! folder that [`read()`] accepts is one that [`write()`] finished. Reading checks every byte
//! that matters against the checksums, and then that the tables agree with each other. They guard
//! against accidents, not against forgery: whoever can change a table can change its checksum too.

#![forbid(unsafe_code)]

#[macro_use]
mod problem;

mod error;
mod group;
mod groups;
mod lists;
mod manifest_file;
mod runs_group;
mod store;
mod table;
mod trace_check;
mod trace_group;
mod trace_tables;

pub use error::Error;
pub use manifest_file::{FORMAT, VERSION};
pub use store::{check_writable, file_names, from_files, read, write};
