//! The path model on streams of instructions made up one by one: each rule by itself.

mod build;
mod conditions;
mod diff;
mod guest;
mod interrupts;
mod properties;
mod real;
mod returns;
mod summaries;
mod switches;
mod variants;
