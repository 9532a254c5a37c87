//! `manifest.json`: the manifest, and what the tables have to be.

use serde::{Deserialize, Serialize};
use serde_json::error::Category;
use serde_json::value::RawValue;
use sha2::{Digest, Sha256};

use crate::table::Table;
use crate::tables::TABLES;
use crate::trace_tables::{EXITS, TRACE_TABLES};
use exitpath_recording::Manifest;

/// The value of `format` in every `manifest.json`.
pub const FORMAT: &str = "exitpath-recording";

/// The newest version of the format. [`crate::read()`] reads it and all before it;
/// [`crate::write()`] writes the oldest that can hold the recording.
pub const VERSION: u64 = 3;

/// The version whose traces have no reasons of exits.
const WITHOUT_EXITS: u64 = 2;

/// The version that holds no trace. An exitpath that knows only this one reads what needs no more.
const WITHOUT_TRACE: u64 = 1;

/// What `manifest.json` says, checked.
pub(crate) struct ManifestFile {
    pub(crate) manifest: Manifest,
    /// One for each of [`TABLES`], in that order.
    pub(crate) tables: [TableEntry; TABLES.len()],
    /// One for each of [`TRACE_TABLES`], in that order, if there is a trace.
    pub(crate) trace: Option<[TableEntry; TRACE_TABLES.len()]>,
    /// That of [`EXITS`], if the trace has reasons of exits.
    pub(crate) exits: Option<TableEntry>,
}

/// What `manifest.json` says of a table.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct TableEntry {
    pub(crate) name: String,
    pub(crate) rows: u64,
    pub(crate) bytes: u64,
    pub(crate) sha256: String,
}

/// Why bytes are no `manifest.json` that can be read.
#[derive(Debug)]
pub(crate) enum Fault {
    NotOurs(String),
    Newer(u64),
    Altered(String),
    Inconsistent(String),
}

/// As much of the file as every version has, whatever else changes.
#[derive(Deserialize)]
struct Head {
    format: Option<serde_json::Value>,
    version: Option<serde_json::Value>,
}

/// The file as all versions have it up to now. They differ in which tables there are.
#[derive(Serialize, Deserialize)]
struct Layout {
    format: String,
    version: u64,
    tables: Vec<TableEntry>,
    manifest_sha256: String,
    manifest: Box<RawValue>,
}

impl ManifestFile {
    /// `tables` holds what [`Self::tables`] does, followed by [`Self::trace`] and [`Self::exits`]
    /// where there are such.
    pub(crate) fn encode(manifest: &Manifest, tables: Vec<TableEntry>) -> Result<Vec<u8>, String> {
        let text = serde_json::to_string_pretty(manifest).map_err(|error| error.to_string())?;
        // JSON has no infinities and a limit on nesting: what cannot be read is not written.
        match serde_json::from_str::<Manifest>(&text) {
            Ok(same) if same == *manifest => {}
            Ok(_) => return Err("the manifest changes when it is read back".into()),
            Err(error) => return Err(format!("the manifest cannot be read back: {error}")),
        }
        // Strings hold no line breaks in JSON, so this changes indentation and nothing else.
        let text = text.replace('\n', "\n  ");
        let layout = Layout {
            format: FORMAT.into(),
            version: match tables.len().saturating_sub(TABLES.len()) {
                0 => WITHOUT_TRACE,
                more if more <= TRACE_TABLES.len() => WITHOUT_EXITS,
                _ => VERSION,
            },
            tables,
            manifest_sha256: sha256(text.as_bytes()),
            manifest: RawValue::from_string(text).map_err(|error| error.to_string())?,
        };
        let mut bytes = serde_json::to_vec_pretty(&layout).map_err(|error| error.to_string())?;
        bytes.push(b'\n');
        Ok(bytes)
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, Fault> {
        let head: Head = serde_json::from_slice(bytes).map_err(|error| match error.classify() {
            Category::Data => Fault::NotOurs("its manifest.json is something else's".into()),
            _ => Fault::Altered(format!("it is not whole JSON: {error}")),
        })?;
        if head.format.is_none_or(|format| format != FORMAT) {
            let why = format!("its manifest.json does not say \"format\": {FORMAT:?}");
            return Err(Fault::NotOurs(why));
        }
        match head.version.as_ref().and_then(serde_json::Value::as_u64) {
            Some(WITHOUT_TRACE | WITHOUT_EXITS | VERSION) => {}
            Some(newer) if newer > VERSION => return Err(Fault::Newer(newer)),
            _ => {
                return Err(Fault::Altered(
                    "it has no format version that ever was".into(),
                ));
            }
        }
        let mut layout: Layout =
            serde_json::from_slice(bytes).map_err(|error| Fault::Altered(error.to_string()))?;
        if sha256(layout.manifest.get().as_bytes()) != layout.manifest_sha256 {
            return Err(Fault::Altered(
                "the SHA-256 of its manifest is another".into(),
            ));
        }
        let manifest = serde_json::from_str(layout.manifest.get())
            .map_err(|error| Fault::Inconsistent(error.to_string()))?;
        let behind = layout.tables.len().min(TABLES.len());
        let mut trace = layout.tables.split_off(behind);
        let tables = known_tables(&TABLES, layout.tables)?;
        let behind = trace.len().min(TRACE_TABLES.len());
        let exits = trace.split_off(behind);
        let trace = match layout.version {
            WITHOUT_TRACE if trace.is_empty() => None,
            WITHOUT_TRACE => {
                let why = format!("it has more tables than version {WITHOUT_TRACE} has");
                return Err(Fault::Inconsistent(why));
            }
            _ => Some(known_tables(&TRACE_TABLES, trace)?),
        };
        let exits = match layout.version {
            VERSION => {
                let [exits] = known_tables(&[&EXITS], exits)?;
                Some(exits)
            }
            _ if exits.is_empty() => None,
            older => {
                let why = format!("it has more tables than version {older} has");
                return Err(Fault::Inconsistent(why));
            }
        };
        Ok(Self {
            manifest,
            tables,
            trace,
            exits,
        })
    }
}

/// The entries, if they are those of `tables` in that order.
fn known_tables<const N: usize>(
    tables: &[&Table; N],
    entries: Vec<TableEntry>,
) -> Result<[TableEntry; N], Fault> {
    let names = tables.map(|table| table.name);
    let entries = <[TableEntry; N]>::try_from(entries)
        .ok()
        .filter(|entries| entries.each_ref().map(|entry| entry.name.as_str()) == names)
        .ok_or_else(|| Fault::Inconsistent(format!("its tables are not {}", names.join(", "))))?;
    for (Table { name, rows_max, .. }, entry) in tables.iter().zip(&entries) {
        if entry.rows > *rows_max {
            let why = format!("{name} is said to have more than {rows_max} rows");
            return Err(Fault::Inconsistent(why));
        }
    }
    Ok(entries)
}

/// SHA-256 in lower-case hexadecimal, as `sha256sum` prints it.
pub(crate) fn sha256(bytes: &[u8]) -> String {
    format!("{:x}", Sha256::digest(bytes))
}
