//! `exitpath ablate`: what optional work costs. It is traced, switched off alone and in combinations, and measured again.

mod host;

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use exitpath_analysis::ablation::code::{Change, Code};
use exitpath_analysis::ablation::design::MOST;
use exitpath_analysis::ablation::knobs::{Knob, Resolved, changes};
use exitpath_analysis::ablation::summary::{
    Ablation, BOOTED_WITH, ablations, base_name, is_right, needed,
};
use exitpath_analysis::ablation::table::built_in;
use exitpath_analysis::path::{PhaseTable, RowPath, trace_rows};
use exitpath_cli::{Ablate, Place};
use exitpath_exits::Row;
use exitpath_experiment::lab::{Instructions, Prepared, Session, Setup};
use exitpath_experiment::{Plan, Sampling, rows};
use exitpath_lab::gdb::Patch;
use exitpath_lab::plugin::Plugin;
use exitpath_recording::{Difference, Machine, Recording};
use exitpath_report::views;

use crate::control::control;
use crate::failure::Failure;
use crate::knobs::{ALL_ON, further};
use crate::measuring::choice;
use crate::{command, output, show};

/// Bracketed samples of each combination unless the user says otherwise.
const SAMPLES: u32 = 20;
/// Iterations before the first sample.
const WARM_UP: u32 = 16;
/// Seconds of the lab's clock that a guest may go without progress: it is counted time, and no operation takes as long.
const WATCHDOG: Duration = Duration::from_millis(100);
/// Most knobs that take a boot each: of four there are sixteen kinds.
const MOST_BOOTS: usize = 4;

pub(crate) fn run(args: &Ablate, place: &Place) -> Result<(), Failure> {
    let on_host = place.on == Some(Machine::Host);
    if args.list_knobs {
        let knobs = if on_host {
            further(Machine::Host)
        } else {
            built_in()
        };
        let lines: Vec<String> = knobs
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
    let (recording, knobs) = match on_host {
        true => (host::record(args, rows)?, further(Machine::Host)),
        false => {
            let chosen = choose(args)?;
            (record(args, rows, &chosen)?, chosen.knobs)
        }
    };
    output::keep(&dir, &recording)?;
    let found = || -> Result<Vec<Ablation>, Failure> {
        ablations(&recording, &knobs).map_err(Failure::cannot)
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

/// The knobs that are asked for: those in the kernel's code, and those that take a boot.
struct Chosen {
    knobs: Vec<Knob>,
    boots: Vec<Knob>,
}

fn choose(args: &Ablate) -> Result<Chosen, Failure> {
    let known = built_in();
    let named = |name: &String| {
        let knob = known.iter().find(|knob| knob.name == *name);
        knob.cloned().ok_or_else(|| {
            Failure::usage(format!(
                "there is no knob '{name}': `exitpath ablate --list-knobs` names them"
            ))
        })
    };
    let mut knobs: Vec<Knob> = match args.knob.as_slice() {
        [] if !args.function.is_empty() || !args.boot.is_empty() => Vec::new(),
        [] => known.clone(),
        names => names.iter().map(named).collect::<Result<_, _>>()?,
    };
    for text in &args.function {
        knobs.push(Knob::parse(text).map_err(Failure::usage)?);
    }
    let mut seen = BTreeSet::new();
    knobs.retain(|knob| seen.insert(knob.name.clone()));
    let mut boots: Vec<Knob> = args.boot.iter().map(|text| Knob::boot(text)).collect();
    boots.retain(|knob| seen.insert(knob.name.clone()));
    if boots.len() > MOST_BOOTS {
        return Err(Failure::usage(format!(
            "--boot: {} of them are {} kinds of boots; {MOST_BOOTS} at most",
            boots.len(),
            1 << boots.len()
        )));
    }
    Ok(Chosen { knobs, boots })
}

/// A lab with some of the boot knobs off, and what is on the rows' way there.
struct Booted<'a> {
    prepared: &'a Prepared,
    /// Names of the boot knobs that are off.
    off: Vec<&'a str>,
    code: Code,
    paths: Vec<RowPath>,
    knobs: Vec<(&'a Knob, Resolved)>,
}

impl<'a> Booted<'a> {
    fn new(
        base: &Recording,
        prepared: &'a Prepared,
        off: Vec<&'a str>,
        chosen: &'a Chosen,
    ) -> Result<Booted<'a>, Failure> {
        let paths = trace_rows(base, &PhaseTable::default()).map_err(Failure::cannot)?;
        let trace = base.trace.as_ref();
        let trace = trace.ok_or_else(|| Failure::cannot("nothing was traced"))?;
        let code = Code::of(trace, &paths);
        let resolved = chosen.knobs.iter();
        let resolved = resolved.filter_map(|knob| Some((knob, knob.resolve(&code)?)));
        let knobs = resolved.collect();
        Ok(Booted {
            prepared,
            off,
            code,
            paths,
            knobs,
        })
    }

    /// What a knob should save of the row of which it saves most.
    fn most_predicted(&self, resolved: &Resolved) -> i64 {
        let predicted = self.paths.iter();
        let predicted = predicted.map(|path| resolved.predicted(&self.code, path).abs());
        predicted.max().unwrap_or(0)
    }

    /// The condition in which these knobs are off, too. Those that are not on the way here change nothing.
    fn setup(&self, off: &[&str]) -> Setup<'a> {
        // By name, so that a combination has one name whoever asks for it.
        let mut off = off.to_vec();
        off.sort_unstable();
        let is_off = |(knob, _): &&(&Knob, Resolved)| off.contains(&knob.name.as_str());
        let resolved: Vec<&(&Knob, Resolved)> = self.knobs.iter().filter(is_off).collect();
        let all: Vec<&Resolved> = resolved.iter().map(|(_, resolved)| resolved).collect();
        let patch = |change: Change| Patch {
            name: change.function,
            address: change.address,
            old: change.old,
            new: change.new,
        };
        let said = |name: &str| {
            let found = resolved.iter().find(|(knob, _)| knob.name == name);
            found
                .map(|(_, resolved)| resolved.said())
                .unwrap_or_default()
        };
        let of_code = off.iter().map(|name| Difference::Off {
            knob: (*name).to_owned(),
            changes: said(name),
        });
        let of_boot = self.off.iter().map(|name| Difference::Off {
            knob: (*name).to_owned(),
            changes: vec![format!("{BOOTED_WITH}{name}")],
        });
        let names: Vec<&str> = self.off.iter().chain(&off).copied().collect();
        Setup {
            name: match names.as_slice() {
                [] => ALL_ON.to_owned(),
                names => format!("without {}", names.join(", ")),
            },
            patches: changes(&self.code, &all).into_iter().map(patch).collect(),
            differs: of_boot.chain(of_code).collect(),
            ..Setup::base(self.prepared)
        }
    }
}

fn record(args: &Ablate, rows: Vec<&'static Row>, chosen: &Chosen) -> Result<Recording, Failure> {
    let control = control();
    rows::traceable(&rows)?;
    exitpath_experiment::lab::check_steps(&rows)?;
    // A lab for each combination of boot knobs, the first with all of them on.
    let names: Vec<&str> = chosen.boots.iter().map(|knob| knob.name.as_str()).collect();
    let of_boots = (0..1u32 << names.len()).map(|off| {
        let is_off = |at: &usize| off >> at & 1 == 1;
        (0..names.len())
            .filter(is_off)
            .map(|at| names[at])
            .collect::<Vec<_>>()
    });
    let of_boots: Vec<Vec<&str>> = of_boots.collect();
    let prepare = |off: &Vec<&str>| {
        let mut choice = choice(&args.lab);
        for text in off {
            choice.cmdline = format!("{} {text}", choice.cmdline).trim().to_owned();
        }
        Prepared::new(&choice, &control)
    };
    let prepared: Vec<Prepared> = of_boots.iter().map(prepare).collect::<Result<_, _>>()?;
    let plan = Plan {
        command: command::ABLATE,
        rows,
        sampling: Sampling {
            warm_up: WARM_UP,
            ..Sampling::traced(args.samples.unwrap_or(SAMPLES), WATCHDOG)
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
    let traced: Vec<String> = of_boots.iter().map(|off| base_name(off)).collect();
    let bases = std::iter::zip(&prepared, &traced).map(|(prepared, name)| Setup {
        name: name.clone(),
        ..Setup::base(prepared)
    });
    session.run(bases.collect())?;
    let recording = session.recording()?;
    let mut booted = Vec::new();
    for (at, off) in of_boots.iter().enumerate() {
        let base = recording.under(&traced[at]);
        let base = base.ok_or_else(|| Failure::cannot("nothing was traced"))?;
        booted.push(Booted::new(&base, &prepared[at], off.clone(), chosen)?);
    }
    refuse_strangers(chosen, &booted)?;
    let mut ablating = Ablating {
        session,
        chosen,
        booted: &booted,
        measured: BTreeSet::new(),
    };
    ablating.alone()?;
    let kept = ablating.kept()?;
    ablating.combinations(kept)?;
    Ok(ablating.session.recording()?)
}

/// What the user names has to be there.
fn refuse_strangers(chosen: &Chosen, booted: &[Booted<'_>]) -> Result<(), Failure> {
    let known = built_in();
    let own = |knob: &&Knob| known.iter().all(|known| known.name != knob.name);
    let is_there = |knob: &Knob| {
        let mut found = booted.iter().flat_map(|booted| &booted.knobs);
        found.any(|(found, _)| found.name == knob.name)
    };
    if let Some(knob) = chosen.knobs.iter().filter(own).find(|knob| !is_there(knob)) {
        return Err(Failure::usage(format!(
            "{}: nothing like it is on these rows' way (`exitpath trace ROW --tree` shows what is)",
            knob.name
        )));
    }
    if chosen.boots.is_empty() && booted.iter().all(|booted| booted.knobs.is_empty()) {
        return Err(Failure::cannot("none of the knobs is on these rows' way"));
    }
    Ok(())
}

/// The plan as it goes on.
struct Ablating<'p, 'a> {
    session: Session<'a>,
    chosen: &'p Chosen,
    booted: &'p [Booted<'a>],
    /// Conditions that have been measured, by name.
    measured: BTreeSet<String>,
}

impl<'a> Ablating<'_, 'a> {
    /// Measures conditions of one kind of boot, each once.
    fn measure(&mut self, setups: Vec<Setup<'a>>) -> Result<(), Failure> {
        let new = |setup: &Setup<'_>| !self.measured.contains(&setup.name);
        let setups: Vec<Setup<'a>> = setups.into_iter().filter(new).collect();
        self.measured
            .extend(setups.iter().map(|setup| setup.name.clone()));
        if !setups.is_empty() {
            self.session.run_in_steps(setups)?;
        }
        Ok(())
    }

    /// Each knob by itself: what cannot be done without is in no combination.
    fn alone(&mut self) -> Result<(), Failure> {
        for booted in self.booted.iter().filter(|booted| booted.off.len() <= 1) {
            let mut setups = vec![booted.setup(&[])];
            if booted.off.is_empty() {
                let knobs = booted.knobs.iter();
                setups.extend(knobs.map(|(knob, _)| booted.setup(&[&knob.name])));
            }
            self.measure(setups)?;
        }
        Ok(())
    }

    /// Names of the knobs to combine: what is not required, the most expensive ones where there are too many, as far as they can be
    /// off together.
    fn kept(&mut self) -> Result<Vec<&'a str>, Failure> {
        let base = &self.booted[0];
        let recording = self.session.recording()?;
        let mut candidates: Vec<&(&'a Knob, Resolved)> = base
            .knobs
            .iter()
            .filter(|(knob, _)| is_right(&recording, &[&knob.name]))
            .collect();
        candidates.sort_by_key(|(_, resolved)| std::cmp::Reverse(base.most_predicted(resolved)));
        let room = MOST - self.chosen.boots.len();
        if candidates.len() > room {
            let left: Vec<&str> = candidates[room..]
                .iter()
                .map(|(knob, _)| knob.name.as_str())
                .collect();
            output::remark(&format!(
                "{MOST} knobs are combined at most; left out, as they should save least: {}",
                left.join(", ")
            ));
            candidates.truncate(room);
        }
        let mut kept: Vec<&'a str> = candidates
            .iter()
            .map(|(knob, _)| knob.name.as_str())
            .collect();
        while kept.len() > 1 && !self.works(&kept)? {
            // The shortest beginning that does not work ends with what does not go with the others.
            let (mut works_with, mut fails_with) = (1, kept.len());
            while fails_with - works_with > 1 {
                let middle = works_with.midpoint(fails_with);
                match self.works(&kept[..middle])? {
                    true => works_with = middle,
                    false => fails_with = middle,
                }
            }
            let out = kept.remove(fails_with - 1);
            output::remark(&format!(
                "{out} is required where {} are off",
                kept[..fails_with - 1].join(", ")
            ));
        }
        Ok(kept)
    }

    /// Whether the guest's answers are right with these off.
    fn works(&mut self, off: &[&str]) -> Result<bool, Failure> {
        self.measure(vec![self.booted[0].setup(off)])?;
        Ok(is_right(&self.session.recording()?, off))
    }

    /// All combinations of these and the boot knobs that the design has.
    fn combinations(&mut self, kept: Vec<&str>) -> Result<(), Failure> {
        let boots = self.chosen.boots.iter().map(|knob| knob.name.as_str());
        let mut names: Vec<&str> = kept.into_iter().chain(boots).collect();
        // In the order in which the analysis numbers them.
        names.sort_unstable();
        let combinations = needed(names.len()).unwrap_or_default();
        for booted in self.booted {
            let of_boot = |name: &&str| self.chosen.boots.iter().any(|knob| knob.name == *name);
            let setups = combinations.iter().filter_map(|off| {
                let is_off = |at: &usize| off >> at & 1 == 1;
                let off = (0..names.len()).filter(is_off).map(|at| names[at]);
                let (boots, code): (Vec<&str>, Vec<&str>) = off.partition(of_boot);
                let same = boots.len() == booted.off.len()
                    && boots.iter().all(|name| booted.off.contains(name));
                same.then(|| booted.setup(&code))
            });
            let setups = setups.collect();
            self.measure(setups)?;
        }
        Ok(())
    }
}
