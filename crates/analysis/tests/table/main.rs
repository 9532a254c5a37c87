//! The table of exits, from recordings made up here: every rule, every verdict.

#[path = "../simulation/mod.rs"]
#[expect(dead_code, reason = "the table prints no interval of medians")]
mod simulation;

mod build;
mod company;
mod counts;
mod forged;
mod host;
mod kicks;
mod lab;
mod outcomes;
mod simulated;
mod userspace;
