//! One Parquet table in memory: columns of the few types a recording has, to bytes and back.
//!
//! A table's schema is given in Parquet's own schema language, and a file whose schema differs in
//! anything is not read. Every column is written and read by its own call, whole row group by
//! whole row group, so that no value is ever looked at without its type.
//!
//! A table that has got further columns since is also read as it was before, from a recording of then.

use std::any::Any;
use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use bytes::Bytes;
use parquet::basic::Encoding;
use parquet::column::reader::get_typed_column_reader;
use parquet::data_type::{ByteArray, ByteArrayType, DataType, Int32Type, Int64Type};
use parquet::errors::ParquetError;
use parquet::file::properties::{EnabledStatistics, WriterProperties};
use parquet::file::reader::{FileReader, RowGroupReader, SerializedFileReader};
use parquet::file::writer::{SerializedFileWriter, SerializedRowGroupWriter};
use parquet::schema::parser::parse_message_type;
use parquet::schema::types::{ColumnPath, TypePtr};

use crate::problem::Problem;

/// Rows in a row group at most: what a reader has to hold in memory at once.
const GROUP_ROWS: usize = 1 << 20;

/// Values a column may have in a row group, list items counted.
const GROUP_VALUES_MAX: usize = 2 * GROUP_ROWS;

/// Bytes that the texts and byte strings of a table may have, all together.
const TEXT_BYTES_MAX: usize = 1 << 30;

/// The file name of a table and its schema in Parquet's language.
pub(crate) struct Table {
    pub(crate) name: &'static str,
    pub(crate) schema: &'static str,
    /// The schema that it had up to version 3 of the format, if that was another.
    pub(crate) before: Option<&'static str>,
    /// Columns that count up, or nearly so, and are therefore stored as differences.
    pub(crate) counting: &'static [&'static str],
    /// Most rows it may have. Like the other limits, this is there because a few bytes can claim
    /// any number of equal values: without it, a file from a stranger could take all memory.
    pub(crate) rows_max: u64,
}

impl Table {
    /// As it is written.
    fn schema(&self) -> Result<TypePtr, Problem> {
        parse(self.schema)
    }

    /// As it is read from a recording of the newest version, or of one from before.
    fn schema_of(&self, old: bool) -> Result<TypePtr, Problem> {
        parse(self.before.filter(|_| old).unwrap_or(self.schema))
    }
}

fn parse(schema: &str) -> Result<TypePtr, Problem> {
    Ok(Arc::new(parse_message_type(schema).map_err(one_line)?))
}

/// A table as a Parquet file.
#[derive(Debug, Clone, Default)]
pub(crate) struct Encoded {
    pub(crate) rows: u64,
    pub(crate) bytes: Vec<u8>,
    /// Whether it is of a recording from before version 4.
    pub(crate) old: bool,
}

/// How many bytes of text a table may still have.
struct TextBudget(Cell<usize>);

impl TextBudget {
    fn new() -> Self {
        Self(Cell::new(TEXT_BYTES_MAX))
    }

    fn take(&self, bytes: usize) -> Result<(), Problem> {
        let left = self.0.get().checked_sub(bytes);
        self.0
            .set(left.ok_or_else(|| problem!("more than {TEXT_BYTES_MAX} bytes of text"))?);
        Ok(())
    }
}

/// Writes a table. `columns` writes those of a row group, in the schema's order.
pub(crate) fn encode_table<R>(
    table: &Table,
    mut rows: impl Iterator<Item = R>,
    columns: impl Fn(&[R], &mut GroupWriter<'_>) -> Result<(), Problem>,
) -> Result<Encoded, Problem> {
    let mut writer = TableWriter::new(table)?;
    let mut count = 0;
    loop {
        let part: Vec<R> = rows.by_ref().take(GROUP_ROWS).collect();
        if part.is_empty() {
            break;
        }
        count += part.len() as u64;
        if count > table.rows_max {
            return Err(problem!(
                "{} would have more than {} rows",
                table.name,
                table.rows_max
            ));
        }
        let mut group = writer.group()?;
        columns(&part, &mut group)?;
        group.close()?;
    }
    Ok(Encoded {
        rows: count,
        bytes: writer.finish()?,
        old: false,
    })
}

/// Writes a table, row group by row group, into memory.
struct TableWriter {
    writer: SerializedFileWriter<Vec<u8>>,
    text: TextBudget,
}

impl TableWriter {
    fn new(table: &Table) -> Result<Self, Problem> {
        // Ticks repeat, so dictionaries make the tables small; on top of them zstd saves 16 % and
        // snappy 3 %, which is not worth a dependency. Version 1 pages are what all readers know.
        let mut properties = WriterProperties::builder()
            .set_statistics_enabled(EnabledStatistics::Chunk)
            .set_offset_index_disabled(true);
        for &column in table.counting {
            let column = ColumnPath::from(column);
            properties = properties
                .set_column_dictionary_enabled(column.clone(), false)
                .set_column_encoding(column, Encoding::DELTA_BINARY_PACKED);
        }
        let properties = Arc::new(properties.build());
        let writer =
            SerializedFileWriter::new(Vec::new(), table.schema()?, properties).map_err(one_line)?;
        Ok(Self {
            writer,
            text: TextBudget::new(),
        })
    }

    /// Starts a row group. Its columns are written in the schema's order, then it is closed.
    fn group(&mut self) -> Result<GroupWriter<'_>, Problem> {
        Ok(GroupWriter {
            group: self.writer.next_row_group().map_err(one_line)?,
            text: &self.text,
        })
    }

    /// The whole file.
    fn finish(self) -> Result<Vec<u8>, Problem> {
        self.writer.into_inner().map_err(one_line)
    }
}

/// Writes the columns of one row group, each with as many values as the others.
pub(crate) struct GroupWriter<'a> {
    group: SerializedRowGroupWriter<'a, Vec<u8>>,
    text: &'a TextBudget,
}

impl GroupWriter<'_> {
    pub(crate) fn u32s(&mut self, values: impl Iterator<Item = u32>) -> Result<(), Problem> {
        let values: Vec<i32> = values.map(u32::cast_signed).collect();
        self.column::<Int32Type>(&values, None, None)
    }

    pub(crate) fn u64s(&mut self, values: impl Iterator<Item = u64>) -> Result<(), Problem> {
        self.i64s(values.map(u64::cast_signed))
    }

    pub(crate) fn i64s(&mut self, values: impl Iterator<Item = i64>) -> Result<(), Problem> {
        let values: Vec<i64> = values.collect();
        self.column::<Int64Type>(&values, None, None)
    }

    pub(crate) fn optional_u64s(
        &mut self,
        values: impl Iterator<Item = Option<u64>>,
    ) -> Result<(), Problem> {
        let (values, defined) = split(values.map(|value| value.map(u64::cast_signed)));
        self.column::<Int64Type>(&values, Some(&defined), None)
    }

    pub(crate) fn texts<'t>(
        &mut self,
        values: impl Iterator<Item = &'t str>,
    ) -> Result<(), Problem> {
        let values: Vec<ByteArray> = values.map(ByteArray::from).collect();
        self.text_column(&values, None, None)
    }

    pub(crate) fn byte_strings<'t>(
        &mut self,
        values: impl Iterator<Item = &'t [u8]>,
    ) -> Result<(), Problem> {
        let values: Vec<ByteArray> = values.map(|bytes| bytes.to_vec().into()).collect();
        self.text_column(&values, None, None)
    }

    pub(crate) fn optional_texts<'t>(
        &mut self,
        values: impl Iterator<Item = Option<&'t str>>,
    ) -> Result<(), Problem> {
        let (values, defined) = split(values.map(|value| value.map(ByteArray::from)));
        self.text_column(&values, Some(&defined), None)
    }

    pub(crate) fn text_lists<'t>(
        &mut self,
        lists: impl Iterator<Item = &'t [String]>,
    ) -> Result<(), Problem> {
        let (mut values, mut defined, mut repeated) = (Vec::new(), Vec::new(), Vec::new());
        for list in lists {
            if list.is_empty() {
                defined.push(0);
                repeated.push(0);
            }
            for (at, text) in list.iter().enumerate() {
                values.push(ByteArray::from(text.as_str()));
                defined.push(1);
                repeated.push(i16::from(at > 0));
            }
        }
        self.text_column(&values, Some(&defined), Some(&repeated))
    }

    fn close(self) -> Result<(), Problem> {
        self.group.close().map_err(one_line)?;
        Ok(())
    }

    fn text_column(
        &mut self,
        values: &[ByteArray],
        defined: Option<&[i16]>,
        repeated: Option<&[i16]>,
    ) -> Result<(), Problem> {
        self.text.take(values.iter().map(ByteArray::len).sum())?;
        self.column::<ByteArrayType>(values, defined, repeated)
    }

    fn column<T: DataType>(
        &mut self,
        values: &[T::T],
        defined: Option<&[i16]>,
        repeated: Option<&[i16]>,
    ) -> Result<(), Problem> {
        if defined.map_or(values.len(), <[i16]>::len) > GROUP_VALUES_MAX {
            return Err(too_many_values());
        }
        let column = self.group.next_column().map_err(one_line)?;
        let mut column = column.ok_or("the schema has fewer columns than the table")?;
        column
            .typed::<T>()
            .write_batch(values, defined, repeated)
            .map_err(one_line)?;
        column.close().map_err(one_line)
    }
}

/// Parquet's form of optional values: those that are there, and for each row whether it is.
fn split<T>(values: impl Iterator<Item = Option<T>>) -> (Vec<T>, Vec<i16>) {
    let mut present = Vec::new();
    let defined = values
        .map(|value| {
            let defined = i16::from(value.is_some());
            present.extend(value);
            defined
        })
        .collect();
    (present, defined)
}

/// Reads a table that has to have exactly as many rows as `file` says, calling `each` for every
/// row group in turn.
pub(crate) fn read_table(
    table: &Table,
    file: Encoded,
    each: impl FnMut(&GroupReader<'_>) -> Result<(), Problem>,
) -> Result<(), Problem> {
    // The parquet crate (60.1) panics on some malformed files: a page without its dictionary, a
    // negative offset. The checksum keeps accidents away from it, but not a file made to harm;
    // tests/damage makes such files. Nothing it has touched is used after a panic. In a build
    // with panic=abort such a file would end the process.
    catch_unwind(AssertUnwindSafe(|| read_groups(table, file, each)))
        .unwrap_or_else(|panic| Err(problem!("malformed Parquet: {}", panic_text(&*panic))))
}

fn read_groups(
    table: &Table,
    Encoded { rows, bytes, old }: Encoded,
    mut each: impl FnMut(&GroupReader<'_>) -> Result<(), Problem>,
) -> Result<(), Problem> {
    let file = SerializedFileReader::new(Bytes::from(bytes)).map_err(one_line)?;
    let schema = file.metadata().file_metadata().schema();
    if *schema != *table.schema_of(old)? {
        return Err("its columns or their types are not those of the format".into());
    }
    let text = TextBudget::new();
    let mut rows_left = rows;
    for index in 0..file.num_row_groups() {
        let group = file.get_row_group(index).map_err(one_line)?;
        let rows_here = u64::try_from(group.metadata().num_rows())
            .ok()
            .filter(|&here| here <= rows_left)
            .ok_or_else(|| problem!("it has not the {rows} rows the manifest says"))?;
        rows_left -= rows_here;
        let rows = usize::try_from(rows_here)
            .ok()
            .filter(|&here| here <= GROUP_ROWS);
        let rows = rows.ok_or_else(|| problem!("a row group has {rows_here} rows"))?;
        each(&GroupReader {
            group: &*group,
            rows,
            text: &text,
        })?;
    }
    if rows_left > 0 {
        return Err(problem!(
            "it has {rows_left} rows fewer than the {rows} the manifest says"
        ));
    }
    Ok(())
}

/// Reads the columns of one row group by name, each with exactly [`Self::rows`] values.
pub(crate) struct GroupReader<'a> {
    group: &'a dyn RowGroupReader,
    rows: usize,
    text: &'a TextBudget,
}

/// A column as Parquet has it: the values that are there, and the levels that place them.
struct Levels<T> {
    values: Vec<T>,
    defined: Vec<i16>,
    repeated: Vec<i16>,
}

impl GroupReader<'_> {
    /// Whether the table has a column of this name.
    pub(crate) fn has(&self, name: &str) -> bool {
        let columns = self.group.metadata().columns();
        let is_it = |part: &String| part == name;
        let mut firsts = columns
            .iter()
            .filter_map(|column| column.column_path().parts().first());
        firsts.any(is_it)
    }

    pub(crate) fn u32s(&self, name: &str) -> Result<Vec<u32>, Problem> {
        let values = self.column::<Int32Type>(name)?.values;
        Ok(values.into_iter().map(i32::cast_unsigned).collect())
    }

    pub(crate) fn u64s(&self, name: &str) -> Result<Vec<u64>, Problem> {
        Ok(self
            .i64s(name)?
            .into_iter()
            .map(i64::cast_unsigned)
            .collect())
    }

    pub(crate) fn i64s(&self, name: &str) -> Result<Vec<i64>, Problem> {
        Ok(self.column::<Int64Type>(name)?.values)
    }

    pub(crate) fn optional_u64s(&self, name: &str) -> Result<Vec<Option<u64>>, Problem> {
        let column = self.column::<Int64Type>(name)?;
        join(column)
            .map(|value| value.map(|value| value.map(i64::cast_unsigned)))
            .collect()
    }

    pub(crate) fn texts(&self, name: &str) -> Result<Vec<String>, Problem> {
        self.text_column(name)?
            .values
            .into_iter()
            .map(text)
            .collect()
    }

    pub(crate) fn byte_strings(&self, name: &str) -> Result<Vec<Vec<u8>>, Problem> {
        let values = self.text_column(name)?.values;
        Ok(values.iter().map(|bytes| bytes.data().to_vec()).collect())
    }

    pub(crate) fn optional_texts(&self, name: &str) -> Result<Vec<Option<String>>, Problem> {
        let column = self.text_column(name)?;
        join(column)
            .map(|value| value?.map(text).transpose())
            .collect()
    }

    pub(crate) fn text_lists(&self, name: &str) -> Result<Vec<Vec<String>>, Problem> {
        let column = self.text_column(name)?;
        let mut values = column.values.into_iter();
        let mut lists: Vec<Vec<String>> = Vec::with_capacity(self.rows);
        for (&defined, &repeated) in column.defined.iter().zip(&column.repeated) {
            if repeated == 0 {
                lists.push(Vec::new());
            }
            if defined > 0 {
                let value = text(values.next().ok_or("a list has lost a value")?)?;
                lists
                    .last_mut()
                    .ok_or("a list begins in its middle")?
                    .push(value);
            }
        }
        if lists.len() == self.rows {
            Ok(lists)
        } else {
            Err(miscounted(name))
        }
    }

    fn text_column(&self, name: &str) -> Result<Levels<ByteArray>, Problem> {
        let column = self.column::<ByteArrayType>(name)?;
        self.text
            .take(column.values.iter().map(ByteArray::len).sum())?;
        Ok(column)
    }

    fn column<T: DataType>(&self, name: &str) -> Result<Levels<T::T>, Problem> {
        let columns = self.group.metadata().columns();
        let index = columns
            .iter()
            .position(|column| {
                column
                    .column_path()
                    .parts()
                    .first()
                    .is_some_and(|it| it == name)
            })
            .ok_or_else(|| problem!("column {name} is missing"))?;
        // The reader makes room for what the pages claim to hold, whatever the footer says.
        let mut pages = self.group.get_column_page_reader(index).map_err(one_line)?;
        let mut values = 0_usize;
        while let Some(page) = pages.get_next_page().map_err(one_line)? {
            values = values.saturating_add(page.num_values() as usize);
            if values > GROUP_VALUES_MAX {
                return Err(too_many_values());
            }
        }
        let reader = self.group.get_column_reader(index).map_err(one_line)?;
        let mut reader = get_typed_column_reader::<T>(reader);
        let mut levels = Levels {
            values: vec![],
            defined: vec![],
            repeated: vec![],
        };
        // A call returns early only at the column's end; asking for one more finds a surplus.
        let (records, ..) = reader
            .read_records(
                self.rows.saturating_add(1),
                Some(&mut levels.defined),
                Some(&mut levels.repeated),
                &mut levels.values,
            )
            .map_err(one_line)?;
        if records == self.rows {
            Ok(levels)
        } else {
            Err(miscounted(name))
        }
    }
}

fn too_many_values() -> Problem {
    problem!("a column has more than {GROUP_VALUES_MAX} values in a row group")
}

fn miscounted(name: &str) -> Problem {
    problem!("column {name} has another number of values than the table has rows")
}

/// Undoes [`split`].
fn join<T>(column: Levels<T>) -> impl Iterator<Item = Result<Option<T>, Problem>> {
    let mut values = column.values.into_iter();
    column
        .defined
        .into_iter()
        .map(move |defined| match defined {
            0 => Ok(None),
            _ => values
                .next()
                .map(Some)
                .ok_or_else(|| "a value is missing".into()),
        })
}

fn text(bytes: ByteArray) -> Result<String, Problem> {
    let text = bytes.as_utf8().map_err(|_| "a text is not UTF-8")?;
    Ok(text.to_owned())
}

fn one_line(error: ParquetError) -> Problem {
    let text = error.to_string();
    let words: Vec<&str> = text.split_whitespace().collect();
    words.join(" ").into()
}

fn panic_text(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    let text = text
        .or_else(|| panic.downcast_ref::<&str>().copied())
        .unwrap_or("decoder panicked");
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_limited_all_together() {
        let budget = TextBudget::new();
        budget.take(TEXT_BYTES_MAX - 1).unwrap();
        budget.take(1).unwrap();
        assert!(budget.take(1).is_err());
        assert!(budget.take(usize::MAX).is_err());
    }

    #[test]
    fn a_list_too_long_is_neither_written_nor_read() {
        let table = Table {
            name: "lists.parquet",
            schema: "message lists { REQUIRED GROUP l (LIST) { REPEATED GROUP list {
                REQUIRED BINARY element (STRING); } } }",
            before: None,
            counting: &[],
            rows_max: 1,
        };
        let mut writer = TableWriter::new(&table).unwrap();
        let list = vec![String::new(); GROUP_VALUES_MAX + 1];
        let problem = writer
            .group()
            .unwrap()
            .text_lists([&*list].into_iter())
            .unwrap_err();
        assert_eq!(problem, too_many_values());

        // A file as the writer above would not make it: a few kilobytes that claim as much.
        let properties = Arc::new(WriterProperties::builder().build());
        let schema = table.schema().unwrap();
        let mut writer = SerializedFileWriter::new(Vec::new(), schema, properties).unwrap();
        let mut group = writer.next_row_group().unwrap();
        let mut column = group.next_column().unwrap().unwrap();
        let values = vec![ByteArray::from(""); list.len()];
        let mut repeated = vec![1; list.len()];
        repeated[0] = 0;
        let levels = vec![1; list.len()];
        let lists = column.typed::<ByteArrayType>();
        lists
            .write_batch(&values, Some(&levels), Some(&repeated))
            .unwrap();
        column.close().unwrap();
        group.close().unwrap();
        let bytes = writer.into_inner().unwrap();
        assert!(bytes.len() < 1 << 20, "{} bytes", bytes.len());
        let file = Encoded {
            rows: 1,
            bytes,
            old: false,
        };
        let read = read_table(&table, file, |group| group.text_lists("l").map(drop));
        assert_eq!(read, Err(too_many_values()));
    }
}
