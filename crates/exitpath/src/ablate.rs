//! `exitpath ablate`: what optional work costs. It is traced, switched off alone and in combinations, and measured again.

use std::path::Path;
use std::time::Duration;

use exitpath_analysis::ablation::code::Code;
use exitpath_analysis::ablation::design::{MOST, Off};
use exitpath_analysis::ablation::knobs::{Knob, Resolved, changes};
use exitpath_analysis::ablation::summary::{Status, ablations, all_of, needed};
use exitpath_analysis::ablation::table::built_in;
use exitpath_analysis::path::{PhaseTable, RowPath, trace_rows};
use exitpath_cli::Ablate;
use exitpath_experiment::lab::{Instructions, Prepared, Session, Setup};
use exitpath_experiment::{Plan, Sampling, rows};
use exitpath_lab::gdb::Patch;
use exitpath_lab::plugin::Plugin;
use exitpath_recording::{Difference, Outcome, Recording};
use exitpath_report::views;

use crate::control::control;
use crate::failure::Failure;
use crate::measuring::choice;
use crate::{command, output, show};

/// Iterations before the first sample.
const WARM_UP: u32 = 16;
/// Seconds of the lab's clock that a guest may go without progress: it is counted time, and no operation takes as long.
const WATCHDOG: Duration = Duration::from_millis(100);
/// The condition in which nothing is off, measured as all others are.
const ALL_ON: &str = "all on";

pub(crate) fn run(args: &Ablate) -> Result<(), Failure> {
    if args.list_knobs {
        let lines: Vec<String> = built_in()
            .iter()
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
    let knobs = choose(args)?;
    let recording = record(args, rows, &knobs)?;
    output::keep(&dir, &recording)?;
    if let Some(file) = &args.svg {
        let found = ablations(&recording, &knobs).map_err(Failure::cannot)?;
        let picture = found.first().map(views::waterfall_svg).unwrap_or_default();
        std::fs::write(file, picture)
            .map_err(|error| Failure::cannot(format!("{}: {error}", file.display())))?;
    }
    show::recording(&recording, &dir, args.json)
}

/// The knobs that are asked for.
fn choose(args: &Ablate) -> Result<Vec<Knob>, Failure> {
    let known = built_in();
    let mut chosen: Vec<Knob> = match args.knob.as_slice() {
        [] if !args.function.is_empty() => Vec::new(),
        [] => known,
        names => names
            .iter()
            .map(|name| {
                let knob = known.iter().find(|knob| knob.name == *name);
                knob.cloned().ok_or_else(|| {
                    Failure::usage(format!(
                        "there is no knob '{name}': `exitpath ablate --list-knobs` names them"
                    ))
                })
            })
            .collect::<Result<_, _>>()?,
    };
    for text in &args.function {
        chosen.push(Knob::parse(text).map_err(Failure::usage)?);
    }
    let mut seen = std::collections::BTreeSet::new();
    chosen.retain(|knob| seen.insert(knob.name.clone()));
    Ok(chosen)
}

/// What is on the way, and what each knob changes of it.
struct OnTheWay {
    code: Code,
    paths: Vec<RowPath>,
    knobs: Vec<(Knob, Resolved)>,
}

impl OnTheWay {
    fn new(base: &Recording, chosen: &[Knob]) -> Result<OnTheWay, Failure> {
        let paths = trace_rows(base, &PhaseTable::default()).map_err(Failure::cannot)?;
        let trace = base
            .trace
            .as_ref()
            .ok_or_else(|| Failure::cannot("nothing was traced"))?;
        let code = Code::of(trace, &paths);
        let resolved = chosen
            .iter()
            .filter_map(|knob| Some((knob.clone(), knob.resolve(&code)?)));
        let knobs: Vec<(Knob, Resolved)> = resolved.collect();
        let built_in = built_in();
        let own = chosen
            .iter()
            .filter(|knob| built_in.iter().all(|known| known.name != knob.name));
        for knob in own {
            if knobs.iter().all(|(found, _)| found.name != knob.name) {
                let name = &knob.name;
                return Err(Failure::usage(format!(
                    "{name}: nothing like it is on these rows' way (`exitpath trace ROW --tree` shows what is)"
                )));
            }
        }
        Ok(OnTheWay { code, paths, knobs })
    }

    /// What a knob should save of the row of which it saves most.
    fn most_predicted(&self, resolved: &Resolved) -> i64 {
        let predicted = self
            .paths
            .iter()
            .map(|path| resolved.predicted(&self.code, path).abs());
        predicted.max().unwrap_or(0)
    }

    /// The condition in which these knobs are off.
    fn setup<'a>(&self, prepared: &'a Prepared, off: &[usize]) -> Setup<'a> {
        let off: Vec<&(Knob, Resolved)> = off.iter().map(|&at| &self.knobs[at]).collect();
        let resolved: Vec<&Resolved> = off.iter().map(|(_, resolved)| resolved).collect();
        let patches = changes(&self.code, &resolved)
            .into_iter()
            .map(|change| Patch {
                name: change.function,
                address: change.address,
                old: change.old,
                new: change.new,
            });
        let names: Vec<&str> = off.iter().map(|(knob, _)| knob.name.as_str()).collect();
        Setup {
            name: match names.as_slice() {
                [] => ALL_ON.to_owned(),
                names => format!("without {}", names.join(", ")),
            },
            patches: patches.collect(),
            differs: off
                .iter()
                .map(|(knob, resolved)| Difference::Off {
                    knob: knob.name.clone(),
                    changes: resolved.said(),
                })
                .collect(),
            ..Setup::base(prepared)
        }
    }
}

fn record(
    args: &Ablate,
    rows: Vec<&'static exitpath_exits::Row>,
    chosen: &[Knob],
) -> Result<Recording, Failure> {
    let control = control();
    rows::traceable(&rows)?;
    exitpath_experiment::lab::check_steps(&rows)?;
    let prepared = Prepared::new(&choice(&args.lab), &control)?;
    let plan = Plan {
        command: command::ABLATE,
        rows,
        sampling: Sampling {
            warm_up: WARM_UP,
            ..Sampling::traced(args.samples, WATCHDOG)
        },
        order_seed: 1,
        by_layers: false,
    };
    let instructions = Instructions {
        plugin: Some(Plugin::Records),
        vmlinux: None,
    };
    let seeds = args.lab.emulator.seeds(&[1]);
    let mut session = Session::new(&plan, &seeds, Some(instructions), &control);
    session.run(vec![Setup::base(&prepared)])?;
    let way = OnTheWay::new(&session.recording()?, chosen)?;
    if way.knobs.is_empty() {
        return Err(Failure::cannot("none of the knobs is on these rows' way"));
    }
    // Each by itself: what cannot be done without is in no combination.
    let mut alone = vec![way.setup(&prepared, &[])];
    alone.extend((0..way.knobs.len()).map(|knob| way.setup(&prepared, &[knob])));
    session.run_in_steps(alone)?;
    let recording = session.recording()?;
    let mut candidates: Vec<usize> = Vec::new();
    let found = ablations(&recording, chosen).map_err(Failure::cannot)?;
    for (at, (knob, _)) in way.knobs.iter().enumerate() {
        let of_rows = found
            .iter()
            .flat_map(|ablation| ablation.knobs.iter().filter(|cost| cost.name == knob.name));
        if of_rows
            .into_iter()
            .all(|cost| !matches!(cost.status, Status::Required(_)))
        {
            candidates.push(at);
        }
    }
    // The most expensive ones, where there are too many.
    candidates.sort_by_key(|&at| std::cmp::Reverse(way.most_predicted(&way.knobs[at].1)));
    if candidates.len() > MOST {
        let left: Vec<&str> = candidates[MOST..]
            .iter()
            .map(|&at| way.knobs[at].0.name.as_str())
            .collect();
        output::remark(&format!(
            "{MOST} knobs are combined at most; left out, as they should save least: {}",
            left.join(", ")
        ));
        candidates.truncate(MOST);
    }
    let mut kept = agreeing(&mut session, &way, &prepared, candidates)?;
    // In the order in which the analysis numbers them.
    kept.sort_by(|&a, &b| way.knobs[a].0.name.cmp(&way.knobs[b].0.name));
    let done = |off: &Off| off.count_ones() <= 1 || *off == all_of(kept.len());
    let combinations = needed(kept.len()).unwrap_or_default();
    let setups = combinations.iter().filter(|off| !done(off)).map(|off| {
        let off: Vec<usize> = (0..kept.len())
            .filter(|at| off >> at & 1 == 1)
            .map(|at| kept[at])
            .collect();
        way.setup(&prepared, &off)
    });
    let setups: Vec<Setup<'_>> = setups.collect();
    if !setups.is_empty() {
        session.run_in_steps(setups)?;
    }
    Ok(session.recording()?)
}

/// As many of the candidates as can be off together, the first ones first; they have been measured so in the end.
fn agreeing<'a>(
    session: &mut Session<'a>,
    way: &OnTheWay,
    prepared: &'a Prepared,
    mut candidates: Vec<usize>,
) -> Result<Vec<usize>, Failure> {
    while candidates.len() > 1 {
        if works(session, way, prepared, &candidates)? {
            return Ok(candidates);
        }
        // The shortest beginning that does not work ends with what does not go with the others.
        let (mut works_with, mut fails_with) = (1, candidates.len());
        while fails_with - works_with > 1 {
            let middle = works_with.midpoint(fails_with);
            match works(session, way, prepared, &candidates[..middle])? {
                true => works_with = middle,
                false => fails_with = middle,
            }
        }
        let out = candidates.remove(fails_with - 1);
        let others: Vec<&str> = candidates[..fails_with - 1]
            .iter()
            .map(|&at| way.knobs[at].0.name.as_str())
            .collect();
        output::remark(&format!(
            "{} is required where {} are off",
            way.knobs[out].0.name,
            others.join(", ")
        ));
    }
    Ok(candidates)
}

/// Whether the guest's answers are right with these off.
fn works<'a>(
    session: &mut Session<'a>,
    way: &OnTheWay,
    prepared: &'a Prepared,
    off: &[usize],
) -> Result<bool, Failure> {
    let setup = way.setup(prepared, off);
    let name = setup.name.clone();
    session.run_in_steps(vec![setup])?;
    let recording = session.recording()?;
    let runs = recording.runs.iter().filter(|run| run.condition == name);
    let right =
        |run: &exitpath_recording::Run| run.outcome == Outcome::Done && same_exits(&recording, run);
    Ok(runs.into_iter().all(right))
}

/// Whether a run made as many exits as with all on.
fn same_exits(recording: &Recording, run: &exitpath_recording::Run) -> bool {
    let mut with_all = recording.runs.iter().filter(|other| {
        other.condition == ALL_ON && other.row == run.row && other.seed == run.seed
    });
    with_all
        .next()
        .is_none_or(|other| other.counters.get("exits") == run.counters.get("exits"))
}
