//! `exitpath image`: the guest programs as a file that any VMM can boot.

use std::time::Duration;

use exitpath_exits::bare;
use exitpath_experiment::{Sampling, image_contents, rows};

use crate::failure::Failure;
use crate::measuring::HOST_SAMPLES;
use crate::output;
use exitpath_cli::Image;

pub(crate) fn run(args: &Image) -> Result<(), Failure> {
    let rows = rows::choose_for_image(&args.rows)?;
    if let Some(limited) = rows::limited(&rows, args.samples) {
        output::remark(&limited);
    }
    // As on a host; the image has no watchdog.
    let sampling = Sampling::measured(args.samples.unwrap_or(HOST_SAMPLES), Duration::ZERO);
    let image = bare::elf(&rows, &image_contents(&sampling, !args.no_multiboot));
    let file = args.output.display();
    std::fs::write(&args.output, &image).map_err(|error| {
        Failure::usage(format!(
            "cannot write {file}: {error}; name a file in a folder that exists with -o"
        ))
    })?;
    let plural = if rows.len() == 1 { "" } else { "s" };
    output::remark(&format!(
        "{file}: {} row{plural}; boot it with a serial port on COM1, for instance by `qemu-system-x86_64 \
         -machine pc,accel=kvm -cpu host -display none -serial stdio -no-reboot -kernel {file}`",
        rows.len()
    ));
    Ok(())
}
