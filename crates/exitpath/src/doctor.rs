//! `exitpath doctor`: what this machine can be trusted for.

use exitpath_experiment::guest;
use exitpath_report::{json, views};

use crate::failure::Failure;
use crate::output;
use exitpath_cli::Doctor;

pub(crate) fn run(args: &Doctor) -> Result<(), Failure> {
    let examination = guest::examine(guest::check());
    output::print(&match args.json {
        true => json::doctor(&examination),
        false => views::doctor(&examination, args.all).laid_out(&output::style()),
    })
}
