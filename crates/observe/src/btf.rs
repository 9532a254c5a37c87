//! The kernel's type information (BTF): where a structure has its fields, and which type a function or tracepoint is.
//!
//! The format is Documentation/bpf/btf.rst's. A module's information goes on where the kernel's own ends: its types are numbered
//! from there, and so are its strings.

use std::collections::HashMap;

use crate::error::{Error, Result};

const MAGIC: u16 = 0xeb9f;
const HEADER: usize = 24;

const INT: u32 = 1;
const POINTER: u32 = 2;
const ARRAY: u32 = 3;
pub(crate) const STRUCT: u32 = 4;
const UNION: u32 = 5;
const ENUM: u32 = 6;
pub(crate) const TYPEDEF: u32 = 8;
const VOLATILE: u32 = 9;
const CONST: u32 = 10;
const RESTRICT: u32 = 11;
pub(crate) const FUNC: u32 = 12;
const FUNC_PROTO: u32 = 13;
const VAR: u32 = 14;
const DATASEC: u32 = 15;
const DECL_TAG: u32 = 17;
const TYPE_TAG: u32 = 18;
const ENUM64: u32 = 19;

/// Typedefs and qualifiers that are looked through at most.
const CHAIN: usize = 16;
/// Structures inside of each other at most.
const DEPTH: usize = 8;

/// A type: where its data is, and what most need of it.
#[derive(Debug, Clone, Copy)]
struct Type {
    name: u32,
    kind: u32,
    /// Members.
    count: u32,
    /// Whether members have bit fields.
    flag: bool,
    /// Its size, or the type it refers to.
    refers: u32,
    /// Where members begin.
    at: usize,
}

/// Type information: the kernel's own, or a module's behind it.
#[derive(Debug)]
pub(crate) struct Btf<'b> {
    base: Option<&'b Btf<'b>>,
    data: Vec<u8>,
    types: Vec<Type>,
    /// Number of the first type.
    first: u32,
    /// Where strings begin in the data.
    strings: usize,
    string_length: usize,
    /// Offset of the first string.
    first_string: usize,
    by_name: HashMap<(u32, String), u32>,
}

impl<'b> Btf<'b> {
    /// Of these bytes; a module's behind the kernel's.
    pub(crate) fn parse(data: Vec<u8>, base: Option<&'b Btf<'b>>) -> Result<Btf<'b>> {
        let broken = || Error::Layout {
            what: "type information that can be read".to_owned(),
        };
        let word = |at: usize| word(&data, at).ok_or_else(broken);
        if word(0)? & 0xffff != u32::from(MAGIC) {
            return Err(broken());
        }
        let header = word(4)? as usize;
        let (from, length) = (header + word(8)? as usize, word(12)? as usize);
        let strings = header + word(16)? as usize;
        let string_length = word(20)? as usize;
        if header < HEADER || from + length > data.len() || strings + string_length > data.len() {
            return Err(broken());
        }
        let mut types = Vec::new();
        let mut at = from;
        while at < from + length {
            let info = word(at + 4)?;
            let (kind, count) = (info >> 24 & 0x1f, info & 0xffff);
            let members = count as usize;
            let more = match kind {
                INT | VAR | DECL_TAG => 4,
                ARRAY => 12,
                STRUCT | UNION | DATASEC | ENUM64 => 12 * members,
                ENUM | FUNC_PROTO => 8 * members,
                _ => 0,
            };
            types.push(Type {
                name: word(at)?,
                kind,
                count,
                flag: info >> 31 == 1,
                refers: word(at + 8)?,
                at: at + 12,
            });
            at += 12 + more;
        }
        let mut btf = Btf {
            base,
            first: base.map_or(1, |base| base.first + base.types.len() as u32),
            first_string: base.map_or(0, |base| base.first_string + base.string_length),
            data,
            types,
            strings,
            string_length,
            by_name: HashMap::new(),
        };
        let wanted = [STRUCT, TYPEDEF, FUNC];
        let named: Vec<((u32, String), u32)> = (btf.first..)
            .zip(&btf.types)
            .filter(|(_, of)| wanted.contains(&of.kind) && of.name != 0)
            .map(|(id, of)| ((of.kind, btf.string(of.name).to_owned()), id))
            .collect();
        btf.by_name = named.into_iter().collect();
        Ok(btf)
    }

    /// The number of a type of this kind and name, of this module's own before the kernel's.
    pub(crate) fn find(&self, kind: u32, name: &str) -> Option<u32> {
        let own = self.by_name.get(&(kind, name.to_owned())).copied();
        own.or_else(|| self.base?.find(kind, name))
    }

    /// Whether a type is this module's own.
    pub(crate) fn is_own(&self, id: u32) -> bool {
        id >= self.first
    }

    /// Where a structure has a field, in bytes: `arch.last_host_tsc`; fields of members without a name are its own.
    ///
    /// # Errors
    /// Where it has none.
    pub(crate) fn offset(&self, structure: &str, path: &str) -> Result<u32> {
        let missing = || Error::Layout {
            what: format!("{path} in its {structure}"),
        };
        let mut id = self.find(STRUCT, structure).ok_or_else(missing)?;
        let mut bits = 0;
        for name in path.split('.') {
            let (at, of) = self.member(id, name, DEPTH).ok_or_else(missing)?;
            bits += at;
            id = of;
        }
        Ok(bits / 8)
    }

    /// Whether an argument of a tracepoint is a pointer, by the tracepoint's `btf_trace_` type. Its own first one, the data, is not counted.
    pub(crate) fn takes_pointer(&self, tracepoint: u32, argument: usize) -> bool {
        let followed = |id: u32, kind: u32| {
            let (_, of) = self.of(id)?;
            (of.kind == kind).then_some(of.refers)
        };
        let found = || {
            let prototype = followed(followed(tracepoint, TYPEDEF)?, POINTER)?;
            let (btf, of) = self.of(prototype)?;
            let is_one = of.kind == FUNC_PROTO && argument + 1 < of.count as usize;
            let of = word(&btf.data, is_one.then_some(of.at + 8 * (argument + 1) + 4)?)?;
            followed(of, POINTER)
        };
        found().is_some()
    }

    /// Where a type has a member, in bits, and that member's type.
    fn member(&self, id: u32, name: &str, depth: usize) -> Option<(u32, u32)> {
        let (btf, of) = self.structure(id)?;
        let members = (0..of.count as usize).map(|index| {
            let at = of.at + 12 * index;
            let bits = word(&btf.data, at + 8)?;
            let bits = if of.flag { bits & 0x00ff_ffff } else { bits };
            Some((word(&btf.data, at)?, word(&btf.data, at + 4)?, bits))
        });
        for member in members {
            let (called, of, bits) = member?;
            match self.string(called) {
                "" if depth > 0 => {
                    if let Some((at, found)) = self.member(of, name, depth - 1) {
                        return Some((bits + at, found));
                    }
                }
                called if called == name => return Some((bits, of)),
                _ => {}
            }
        }
        None
    }

    /// The structure or union that a type is, through typedefs and qualifiers.
    fn structure(&self, id: u32) -> Option<(&Btf<'b>, Type)> {
        let mut id = id;
        for _ in 0..CHAIN {
            let (btf, of) = self.of(id)?;
            match of.kind {
                STRUCT | UNION => return Some((btf, of)),
                TYPEDEF | VOLATILE | CONST | RESTRICT | TYPE_TAG => id = of.refers,
                _ => return None,
            }
        }
        None
    }

    fn of(&self, id: u32) -> Option<(&Btf<'b>, Type)> {
        match id.checked_sub(self.first) {
            Some(own) => Some((self, *self.types.get(own as usize)?)),
            None => self.base?.of(id),
        }
    }

    fn string(&self, offset: u32) -> &str {
        let Some(own) = (offset as usize).checked_sub(self.first_string) else {
            return self.base.map_or("", |base| base.string(offset));
        };
        let all = &self.data[self.strings..self.strings + self.string_length];
        let rest = all.get(own..).unwrap_or_default();
        let end = rest.iter().position(|byte| *byte == 0).unwrap_or(0);
        std::str::from_utf8(&rest[..end]).unwrap_or_default()
    }
}

fn word(data: &[u8], at: usize) -> Option<u32> {
    let bytes = data.get(at..at.checked_add(4)?)?;
    Some(u32::from_ne_bytes(bytes.try_into().ok()?))
}
