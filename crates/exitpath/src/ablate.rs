//! `exitpath ablate`: what optional work costs. It is traced, switched off alone and in combinations, and measured again.

mod chosen;
mod host;
mod lab;

use std::path::Path;

use exitpath_analysis::ablation::summary::{Ablation, ablations};
use exitpath_analysis::ablation::table::built_in;
use exitpath_cli::{Ablate, Place};
use exitpath_experiment::rows;
use exitpath_recording::Machine;
use exitpath_report::views;

use crate::failure::Failure;
use crate::knobs::further;
use crate::{command, output, show};

pub(crate) fn run(args: &Ablate, place: &Place) -> Result<(), Failure> {
    let on_host = place.on == Some(Machine::Host);
    if args.list_knobs {
        let of_code = if on_host { Vec::new() } else { built_in() };
        let knobs = of_code.into_iter().chain(further());
        let lines: Vec<String> = knobs
            .map(|knob| format!("{:18} {}", knob.name, knob.what))
            .collect();
        return output::print(&lines.join("\n"));
    }
    let dir = output::folder(args.out.as_deref(), command::ABLATE)?;
    let rows = rows::choose(&args.rows)?;
    if let Some(svg) = args.svg.as_deref() {
        if rows.len() > 1 {
            return Err(Failure::usage("--svg draws one row"));
        }
        let folder = svg.parent().filter(|dir| !dir.as_os_str().is_empty());
        if !folder.unwrap_or(Path::new(".")).is_dir() {
            return Err(Failure::usage(format!(
                "{}: there is no such folder",
                svg.display()
            )));
        }
    }
    let recording = match on_host {
        true => host::record(args, rows)?,
        false => lab::record(args, rows, &chosen::choose(args)?)?,
    };
    output::keep(&dir, &recording)?;
    let found = || -> Result<Vec<Ablation>, Failure> {
        ablations(&recording, &further()).map_err(Failure::cannot)
    };
    if let Some(file) = &args.svg {
        let picture = found()?.first().map(views::waterfall_svg);
        std::fs::write(file, picture.unwrap_or_default())
            .map_err(|error| Failure::cannot(format!("{}: {error}", file.display())))?;
    }
    if args.markdown {
        return output::print(&views::ablations(&recording.manifest, &found()?).markdown());
    }
    show::recording(&recording, &dir, args.json)
}
