//! `manifest.json`: the manifest, and what the tables have to be.

use exitpath_recording::{Machine, Manifest, kind};
use serde::{Deserialize, Serialize};
use serde_json::error::Category;
use serde_json::value::RawValue;
use sha2::{Digest, Sha256};

use crate::group::Group;
use crate::groups::{GROUPS, find};
use crate::table::Table;

/// The value of `format` in every `manifest.json`.
pub const FORMAT: &str = "exitpath-recording";

/// The version of the format that [`crate::write()`] writes. [`crate::read()`] reads it and all before it.
pub const VERSION: u64 = 4;

/// The last version whose tables are one list, of which it says how many groups there are: as many as it
/// counts.
const LISTED: u64 = 3;

/// What `manifest.json` says, checked.
pub(crate) struct ManifestFile {
    pub(crate) manifest: Manifest,
    /// Whether it is from before version 4.
    pub(crate) old: bool,
    /// The groups there are, in the order of [`GROUPS`].
    pub(crate) groups: Vec<(&'static Group, Vec<TableEntry>)>,
}

/// What `manifest.json` says of a group.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct GroupEntry {
    pub(crate) name: String,
    pub(crate) tables: Vec<TableEntry>,
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
    NewerValue(String),
    Altered(String),
    Inconsistent(String),
}

/// As much of the file as every version has, whatever else changes.
#[derive(Deserialize)]
struct Head {
    format: Option<serde_json::Value>,
    version: Option<serde_json::Value>,
}

/// The file.
#[derive(Serialize, Deserialize)]
struct Layout {
    format: String,
    version: u64,
    groups_sha256: String,
    groups: Box<RawValue>,
    manifest_sha256: String,
    manifest: Box<RawValue>,
}

/// The file as it was up to version 3.
#[derive(Deserialize)]
struct OldLayout {
    tables: Vec<TableEntry>,
    manifest_sha256: String,
    manifest: Box<RawValue>,
}

impl ManifestFile {
    pub(crate) fn encode(manifest: &Manifest, groups: Vec<GroupEntry>) -> Result<Vec<u8>, String> {
        let text = serde_json::to_string_pretty(manifest).map_err(|error| error.to_string())?;
        // JSON has no infinities and a limit on nesting: what cannot be read is not written.
        match serde_json::from_str::<Manifest>(&text) {
            Ok(same) if same == *manifest => {}
            Ok(_) => return Err("the manifest changes when it is read back".into()),
            Err(error) => return Err(format!("the manifest cannot be read back: {error}")),
        }
        // Strings hold no line breaks in JSON, so this changes indentation and nothing else.
        let indented = |text: String| text.replace('\n', "\n  ");
        let raw = |text| RawValue::from_string(text).map_err(|error| error.to_string());
        let groups = serde_json::to_string_pretty(&groups).map_err(|error| error.to_string())?;
        let (groups, text) = (indented(groups), indented(text));
        let layout = Layout {
            format: FORMAT.into(),
            version: VERSION,
            groups_sha256: sha256(groups.as_bytes()),
            groups: raw(groups)?,
            manifest_sha256: sha256(text.as_bytes()),
            manifest: raw(text)?,
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
        let version = match head.version.as_ref().and_then(serde_json::Value::as_u64) {
            Some(known @ 1..=VERSION) => known,
            Some(newer) if newer > VERSION => return Err(Fault::Newer(newer)),
            _ => {
                return Err(Fault::Altered(
                    "it has no format version that ever was".into(),
                ));
            }
        };
        let altered = |error: serde_json::Error| Fault::Altered(error.to_string());
        let old = version <= LISTED;
        let (groups, sum, text) = if old {
            let layout: OldLayout = serde_json::from_slice(bytes).map_err(altered)?;
            let groups = listed(version, layout.tables)?;
            (groups, layout.manifest_sha256, layout.manifest)
        } else {
            let layout: Layout = serde_json::from_slice(bytes).map_err(altered)?;
            // A name with a flipped bit would be that of a group which nobody knows.
            if sha256(layout.groups.get().as_bytes()) != layout.groups_sha256 {
                return Err(Fault::Altered(
                    "the SHA-256 of its groups is another".into(),
                ));
            }
            let groups = serde_json::from_str(layout.groups.get())
                .map_err(|error| Fault::Inconsistent(error.to_string()))?;
            (groups, layout.manifest_sha256, layout.manifest)
        };
        if sha256(text.get().as_bytes()) != sum {
            return Err(Fault::Altered(
                "the SHA-256 of its manifest is another".into(),
            ));
        }
        let mut manifest: Manifest =
            serde_json::from_str(text.get()).map_err(|error| of_manifest(&error))?;
        if manifest.environment.machine_kind.is_empty() {
            let of_then = match manifest.machine {
                Machine::Host => kind::HOST,
                Machine::Lab => kind::SVM,
            };
            of_then.clone_into(&mut manifest.environment.machine_kind);
        }
        let machine_kind = manifest.environment.machine_kind.as_str();
        if !kind::ALL.contains(&machine_kind) {
            return Err(Fault::NewerValue(format!(
                "the kind of machine `{machine_kind}` in its manifest"
            )));
        }
        let (groups, unknown) = known(groups)?;
        for name in unknown {
            manifest.warnings.push(format!(
                "the recording has tables that this exitpath does not know ({name}): a newer one shows them"
            ));
        }
        Ok(Self {
            manifest,
            old,
            groups,
        })
    }
}

/// A value of an enum that is not known is one that was not there yet.
fn of_manifest(error: &serde_json::Error) -> Fault {
    let what = error.to_string();
    if let Some(rest) = what.strip_prefix("unknown variant ") {
        let value = rest.split(',').next().unwrap_or(rest);
        return Fault::NewerValue(format!("the value {value} in its manifest"));
    }
    Fault::Inconsistent(what)
}

/// The groups of an old recording, whose tables are one list.
fn listed(version: u64, mut tables: Vec<TableEntry>) -> Result<Vec<GroupEntry>, Fault> {
    let mut groups = Vec::new();
    for (group, _) in GROUPS.iter().zip(0..version) {
        let behind = tables.len().min(group.tables.len());
        let rest = tables.split_off(behind);
        groups.push(GroupEntry {
            name: group.name.into(),
            tables: std::mem::replace(&mut tables, rest),
        });
    }
    if !tables.is_empty() {
        let why = format!("it has more tables than version {version} has");
        return Err(Fault::Inconsistent(why));
    }
    Ok(groups)
}

type Known = (Vec<(&'static Group, Vec<TableEntry>)>, Vec<String>);

/// The groups that are known, each with what it needs, and the names of the others.
fn known(entries: Vec<GroupEntry>) -> Result<Known, Fault> {
    let (mut groups, mut unknown): Known = (Vec::new(), Vec::new());
    for GroupEntry { name, tables } in entries {
        match find(&name) {
            Some(group) if groups.iter().any(|(other, _)| other.name == name) => {
                let why = format!("it has the tables of {} twice", group.name);
                return Err(Fault::Inconsistent(why));
            }
            Some(group) => groups.push((group, tables)),
            None => unknown.push(name),
        }
    }
    let place = |group: &Group| GROUPS.iter().position(|known| known.name == group.name);
    groups.sort_by_key(|(group, _)| place(group));
    let has = |name: &str| groups.iter().any(|(group, _)| group.name == name);
    let [required, ..] = GROUPS;
    if !has(required.name) {
        let why = format!("it has no tables of {}", required.name);
        return Err(Fault::Inconsistent(why));
    }
    for (group, tables) in &groups {
        if let Some(missing) = group.needs.filter(|needs| !has(needs)) {
            let why = format!("it has tables of {} and none of {missing}", group.name);
            return Err(Fault::Inconsistent(why));
        }
        check_tables(group.tables, tables)?;
    }
    Ok((groups, unknown))
}

/// Whether the entries are those of `tables` in that order.
fn check_tables(tables: &[&Table], entries: &[TableEntry]) -> Result<(), Fault> {
    let names = || tables.iter().map(|table| table.name);
    if !names().eq(entries.iter().map(|entry| entry.name.as_str())) {
        let names = names().collect::<Vec<_>>().join(", ");
        return Err(Fault::Inconsistent(format!("its tables are not {names}")));
    }
    for (Table { name, rows_max, .. }, entry) in tables.iter().zip(entries) {
        if entry.rows > *rows_max {
            let why = format!("{name} is said to have more than {rows_max} rows");
            return Err(Fault::Inconsistent(why));
        }
    }
    Ok(())
}

/// SHA-256 in lower-case hexadecimal, as `sha256sum` prints it.
pub(crate) fn sha256(bytes: &[u8]) -> String {
    format!("{:x}", Sha256::digest(bytes))
}
