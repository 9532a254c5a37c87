//! The one format everything is written to and read from.
//!
//! A recording is what was measured on what, whole enough that every analysis and every report is
//! made from it alone, on any machine and at any later time. In memory it is a [`Recording`]; see
//! [`model`] for what each part means. On disk it is a folder, written by [`write()`] and read by
//! [`read()`], of one JSON file and four Parquet tables. Any dataframe tool opens the tables.
//!
//! This crate computes nothing: what goes in comes out, to the last bit. It knows neither KVM nor
//! statistics, and holds no `unsafe` code.
//!
//! # `manifest.json`
//!
//! | key | value |
//! |---|---|
//! | `format` | always [`FORMAT`], `"exitpath-recording"` |
//! | `version` | the version of this format, a number, [`VERSION`] |
//! | `tables` | the tables in the order below, for each: `name` of the file, `rows`, `bytes`, and `sha256` of the file in hexadecimal, as `sha256sum` prints it |
//! | `manifest_sha256` | SHA-256 of the value of `manifest`, of its bytes exactly as they stand in the file, from `{` to `}` |
//! | `manifest` | a [`Manifest`], field by field: command, time, environment, plan, rows, warnings |
//!
//! `format` and `version` stay where they are in every version, so that an older exitpath can say
//! which newer one is needed. Any change to what the tables hold is a new version. Manifests are
//! not meant to be edited: that breaks the checksum, and some tools round integers above 2^53.
//!
//! # Tables
//!
//! Types are Parquet's logical types. Only the columns marked so can be null. A **tick** is one
//! TSC tick if the manifest's `machine` is `host`, and one instruction if it is `lab`. Ticks are
//! raw: nothing has been subtracted, converted or left out.
//!
//! `runs.parquet`, one row per [`Run`], in the order the runs were made:
//!
//! | column | type | unit and meaning |
//! |---|---|---|
//! | `id` | UINT_32 | unique; the other tables call it `run` |
//! | `row` | STRING | name of one of the manifest's rows |
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
//! `samples.parquet`, one row per bracketed [`Sample`]:
//!
//! | column | type | unit and meaning |
//! |---|---|---|
//! | `run` | UINT_32 | the run's `id` |
//! | `index` | UINT_32 | position among the run's samples in the order taken, from 0, none missing |
//! | `empty` | UINT_64 | ticks of the bracket without the operation |
//! | `op` | UINT_64 | ticks of the bracket with the operation |
//!
//! `batches.parquet`, one row per [`Batch`], a repetition of the slope estimator:
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
//! SELECT r.row, median(s.op::BIGINT - s.empty::BIGINT) AS ticks
//! FROM 'recording/samples.parquet' s JOIN 'recording/runs.parquet' r ON r.id = s.run
//! WHERE r.status = 'done' GROUP BY ALL;
//! ```
//!
//! The tables are not compressed, use dictionaries and delta encoding, and have row groups of up
//! to 2^20 rows. A sample takes about two bytes. So that no file can take all memory there are
//! limits, for writing as for reading: 2^20 runs, 2^24 counters, 2^27 samples and 2^24 batches;
//! 2^21 notes; and 1 GiB of text in a table.
//!
//! # Whole or not at all
//!
//! A recording is written to a temporary folder, the manifest last, and renamed into place, so a
//! folder that [`read()`] accepts is one that [`write()`] finished. Reading checks every byte
//! that matters against the checksums, and then that the tables agree with each other. They guard
//! against accidents, not against forgery: whoever can change a table can change its checksum too.

#![forbid(unsafe_code)]

mod error;
mod manifest_file;
pub mod model;
mod store;
mod table;
mod tables;
pub mod trace;

pub use error::Error;
pub use manifest_file::{FORMAT, VERSION};
pub use model::*;
pub use store::{check_writable, read, write};
pub use trace::{Block, Instruction, Location, Part, Path, Segment, Space, Symbol, Trace, Window};
