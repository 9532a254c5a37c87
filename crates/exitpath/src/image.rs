//! `exitpath image`: the guest programs as a file that any VMM can boot.

use exitpath_exits::{Row, bare};

use crate::cli::Image;
use crate::failure::Failure;
use crate::{measure, output, rows};

/// Bracketed samples unless the user says otherwise, as on a host.
const SAMPLES: u32 = 1000;

pub(crate) fn run(args: &Image) -> Result<(), Failure> {
    let rows = choose(&args.rows)?;
    if let Some(limited) = rows::limited(&rows, args.samples) {
        output::remark(&limited);
    }
    let plan = measure::image_plan(args.samples.unwrap_or(SAMPLES), !args.no_multiboot);
    let image = bare::elf(&rows, &plan);
    std::fs::write(&args.output, &image).map_err(|error| {
        Failure::Usage(format!(
            "cannot write {}: {error}; name a file in a folder that exists with -o",
            args.output.display()
        ))
    })?;
    output::remark(&format!(
        "{}: {}; boot it with a serial port on COM1, for instance by `qemu-system-x86_64 -machine \
         pc,accel=kvm -cpu host -display none -serial stdio -no-reboot -kernel {}`",
        args.output.display(),
        output::number(rows.len(), "row"),
        args.output.display()
    ));
    Ok(())
}

/// The rows of these names, all of which an image can hold; those that it can where there are none.
pub(crate) fn choose(names: &[String]) -> Result<Vec<&'static Row>, Failure> {
    if names.is_empty() {
        return Ok(bare::rows().collect());
    }
    let rows = rows::choose(names)?;
    for row in &rows {
        if let Some(why) = bare::obstacle(row) {
            return Err(Failure::Usage(format!(
                "{} cannot be measured under another VMM: {why}; `exitpath measure {}` does it under \
                 exitpath's own",
                row.name, row.name
            )));
        }
    }
    Ok(rows)
}
