//! How fast a trace is decoded and analysed, in instructions of the lab per second of real time.
//!
//! The stream is that of a real recording, its rounds repeated to the 2,000 that `exitpath trace`
//! records.

#![allow(clippy::print_stdout, reason = "a benchmark prints what it found")]

use std::path::Path;
use std::time::Instant;

use exitpath_analysis::path::{PhaseTable, trace_rows};
use exitpath_lab::windows::{Collector, Expected};
use exitpath_lab_plugin::stream::{Encoder, HEADER};
use exitpath_recording::{Part, Recording, Segment};

const ROUNDS: usize = 2000;
/// Segments of a round.
const OF_A_ROUND: usize = 4;
/// As a pipe hands them over.
const PIECE: usize = 1 << 16;

fn main() {
    let dir =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/recordings/trace-6.1-qemu7.2");
    let mut recording = exitpath_store::read(&dir).expect("the recording");
    prolong(&mut recording);
    let (stream, expected, instructions) = stream(&recording);
    let rate = |began: Instant| {
        let seconds = began.elapsed().as_secs_f64();
        format!(
            "{:.0} million instructions/s",
            instructions as f64 / seconds / 1e6
        )
    };

    let began = Instant::now();
    let mut collector = Collector::new(vec![expected]);
    for piece in stream.chunks(PIECE) {
        collector.push(piece).expect("a whole stream");
    }
    let mut trace = collector.finish(&[expected.run]).expect("a whole stream");
    // The recording is older than the reasons of exits, and so the stream has none.
    for window in &mut trace.windows {
        window.exits = None;
    }
    println!("decoded  {} ({instructions} instructions)", rate(began));

    recording.runs.retain(|run| run.id == expected.run);
    let symbols = recording.trace.take().map(|trace| trace.symbols);
    recording.trace = Some(trace);
    if let (Some(trace), Some(symbols)) = (&mut recording.trace, symbols) {
        trace.symbols = symbols;
    }
    let began = Instant::now();
    let paths = trace_rows(&recording, &PhaseTable::default()).expect("a path");
    println!(
        "analysed {} ({} of {} rounds unexplained)",
        rate(began),
        paths[0].rounds_with_residual,
        paths[0].rounds
    );
}

/// Repeats the first window's rounds, but for the first, which begins in the VMM.
fn prolong(recording: &mut Recording) {
    let trace = recording.trace.as_mut().expect("a trace");
    let window = &mut trace.windows[0];
    let last = window.segments.pop().expect("segments");
    let rounds: Vec<Segment> = window.segments[OF_A_ROUND..].to_vec();
    while window.segments.len() < ROUNDS * OF_A_ROUND {
        window.segments.extend_from_slice(&rounds);
    }
    window.segments.truncate(ROUNDS * OF_A_ROUND);
    window.segments.push(last);
    let run = recording
        .runs
        .iter_mut()
        .find(|run| run.id == window.run)
        .expect("its run");
    let samples = run.samples[1..].to_vec();
    while run.samples.len() < ROUNDS {
        run.samples.extend_from_slice(&samples);
    }
    run.samples.truncate(ROUNDS);
}

/// The first window as the plugin would send it.
fn stream(recording: &Recording) -> (Vec<u8>, Expected, u64) {
    let trace = recording.trace.as_ref().expect("a trace");
    let window = &trace.windows[0];
    let (mut encoder, mut bytes) = (Encoder::default(), HEADER.to_vec());
    for instruction in &trace.instructions {
        encoder.define(instruction.address, &instruction.bytes, &mut bytes);
    }
    let (mut clocks, mut instructions) = (Vec::new(), 0);
    encoder.start(&mut bytes);
    for segment in &window.segments {
        let mut last = 0;
        for block in &trace.paths[segment.path as usize].blocks {
            for id in block.first..block.first + block.count {
                encoder.instruction(block.cpu, id, &mut bytes);
                last = id;
            }
            instructions += u64::from(block.count);
        }
        if clocks.len() < OF_A_ROUND {
            clocks.push(trace.instructions[last as usize].address);
        }
    }
    encoder.stop(0, &mut bytes);
    let samples = window
        .segments
        .iter()
        .filter(|segment| segment.part == Part::Op)
        .count();
    let expected = Expected {
        run: window.run,
        clocks: clocks.try_into().expect("four clock reads"),
        samples: samples as u32,
    };
    (bytes, expected, instructions)
}
