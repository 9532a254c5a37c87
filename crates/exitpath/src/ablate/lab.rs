//! `exitpath ablate` in the lab: rows are traced in each kind of lab, and measured with knobs off alone and in combinations.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use exitpath_analysis::ablation::code::{Change, Code};
use exitpath_analysis::ablation::design::MOST;
use exitpath_analysis::ablation::knobs::{Knob, Resolved, changes};
use exitpath_analysis::ablation::summary::{base_name, is_right, needed};
use exitpath_analysis::ablation::table::built_in;
use exitpath_analysis::path::{PhaseTable, RowPath, trace_rows};
use exitpath_cli::Ablate;
use exitpath_exits::Row;
use exitpath_experiment::knobs::Switches;
use exitpath_experiment::lab::{Instructions, Prepared, Session, Setup};
use exitpath_experiment::{Plan, Sampling, rows};
use exitpath_lab::gdb::Patch;
use exitpath_lab::plugin::Plugin;
use exitpath_recording::{Difference, KnobKind, Recording};

use super::chosen::{Chosen, LabKnob};
use crate::control::control;
use crate::failure::Failure;
use crate::knobs::condition_name;
use crate::measuring::choice;
use crate::{command, output};

/// Bracketed samples of each combination unless the user says otherwise.
const SAMPLES: u32 = 20;
/// Iterations before the first sample.
const WARM_UP: u32 = 16;
/// Seconds of the lab's clock that a guest may go without progress: it is counted time, and no operation takes as long.
const WATCHDOG: Duration = Duration::from_millis(100);
/// A kind of lab: which of its knobs are off there.
struct LabKind<'a> {
    prepared: &'a Prepared,
    /// Their names.
    off: Vec<&'a str>,
    switches: Switches,
    /// How it differs from a lab that nobody has touched.
    differs: Vec<Difference>,
}

impl<'a> LabKind<'a> {
    fn new(chosen: &'a Chosen, off: usize, prepared: &'a Prepared) -> LabKind<'a> {
        let mut kind = LabKind {
            prepared,
            off: Vec::new(),
            switches: Switches::default(),
            differs: Vec::new(),
        };
        for (at, knob) in chosen.labs.iter().enumerate() {
            let is_off = off >> at & 1 == 1;
            if is_off {
                kind.off.push(knob.name());
            }
            let told = match (knob, is_off) {
                (LabKnob::Boot(text), true) => Some(LabKnob::booted_with(text)),
                (LabKnob::Boot(_), false) => None,
                (LabKnob::Switch(knob), true) => Some(knob.switch_off(&mut kind.switches)),
                (LabKnob::Switch(knob), false) => knob.leave_on(true, &mut kind.switches),
            };
            kind.differs.extend(told);
        }
        kind
    }

    /// The condition that is traced there.
    fn base(&self) -> Setup<'a> {
        Setup {
            name: base_name(&self.off),
            switches: self.switches.clone(),
            differs: self.differs.clone(),
            ..Setup::base(self.prepared)
        }
    }
}

/// A kind of lab, and what is on the rows' way there.
struct Booted<'a> {
    lab: LabKind<'a>,
    code: Code,
    paths: Vec<RowPath>,
    knobs: Vec<(&'a Knob, Resolved)>,
}

impl<'a> Booted<'a> {
    fn new(base: &Recording, lab: LabKind<'a>, chosen: &'a Chosen) -> Result<Booted<'a>, Failure> {
        let paths = trace_rows(base, &PhaseTable::default()).map_err(Failure::cannot)?;
        let trace = base.trace.as_ref();
        let trace = trace.ok_or_else(|| Failure::cannot("nothing was traced"))?;
        let code = Code::of(trace, &paths);
        let resolved = chosen.knobs.iter();
        let resolved = resolved.filter_map(|knob| Some((knob, knob.resolve(&code)?)));
        let knobs = resolved.collect();
        Ok(Booted {
            lab,
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
            kind: KnobKind::Code,
            changes: said(name),
        });
        let names: Vec<&str> = self.lab.off.iter().chain(&off).copied().collect();
        Setup {
            name: condition_name(&names),
            patches: changes(&self.code, &all).into_iter().map(patch).collect(),
            differs: self.lab.differs.iter().cloned().chain(of_code).collect(),
            ..self.lab.base()
        }
    }
}

pub(super) fn record(
    args: &Ablate,
    rows: Vec<&'static Row>,
    chosen: &Chosen,
) -> Result<Recording, Failure> {
    let control = control();
    rows::traceable(&rows)?;
    exitpath_experiment::lab::check_steps(&rows)?;
    // A kind of lab for each combination of their knobs, the first with all of them on.
    let kinds = 0..1usize << chosen.labs.len();
    let appended = |off: usize| {
        let labs = chosen.labs.iter().enumerate();
        let texts = labs.filter_map(move |(at, knob)| match knob {
            LabKnob::Boot(text) if off >> at & 1 == 1 => Some(text.as_str()),
            LabKnob::Boot(_) | LabKnob::Switch(_) => None,
        });
        texts.collect::<Vec<_>>().join(" ")
    };
    let mut prepared: BTreeMap<String, Prepared> = BTreeMap::new();
    for text in kinds.clone().map(appended) {
        let mut choice = choice(&args.lab);
        choice.cmdline = format!("{} {text}", choice.cmdline).trim().to_owned();
        if let Entry::Vacant(vacant) = prepared.entry(text) {
            vacant.insert(Prepared::new(&choice, &control)?);
        }
    }
    let kinds: Vec<LabKind<'_>> = kinds
        .map(|off| LabKind::new(chosen, off, &prepared[&appended(off)]))
        .collect();
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
    let kinds = traced(&mut session, kinds)?;
    let recording = session.recording()?;
    let mut booted = Vec::new();
    for lab in kinds {
        let base = recording.under(&base_name(&lab.off));
        let base = base.ok_or_else(|| Failure::cannot("nothing was traced"))?;
        booted.push(Booted::new(&base, lab, chosen)?);
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

/// Traces the rows in each kind of lab. Those kinds are kept in which all rows can be measured; a knob that no row can do without is off
/// in none of them, and is recorded with what its lab died of.
fn traced<'a>(
    session: &mut Session<'a>,
    kinds: Vec<LabKind<'a>>,
) -> Result<Vec<LabKind<'a>>, Failure> {
    match session.run(kinds.iter().map(LabKind::base).collect()) {
        Ok(()) => return Ok(kinds),
        Err(error) if error.is_interruption() || kinds.len() == 1 => return Err(error.into()),
        Err(_) => {}
    }
    // Which knob it was is told by their labs one by one: fewer off come first.
    let mut kept: Vec<LabKind<'a>> = Vec::new();
    let mut required: Vec<&str> = Vec::new();
    let mut kinds = kinds;
    kinds.sort_by_key(|kind| kind.off.len());
    for kind in kinds {
        if kind.off.iter().any(|name| required.contains(name)) {
            continue;
        }
        match session.run(vec![kind.base()]) {
            Ok(()) => kept.push(kind),
            Err(error) if error.is_interruption() => return Err(error.into()),
            Err(error) => match kind.off.as_slice() {
                [name] => {
                    required.push(name);
                    let setup = Setup {
                        name: condition_name(&kind.off),
                        ..kind.base()
                    };
                    session.without_runs(setup, &error);
                }
                _ => return Err(error.into()),
            },
        }
    }
    Ok(kept)
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
    if chosen.labs.is_empty() && booted.iter().all(|booted| booted.knobs.is_empty()) {
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
        for booted in self
            .booted
            .iter()
            .filter(|booted| booted.lab.off.len() <= 1)
        {
            let mut setups = vec![booted.setup(&[])];
            if booted.lab.off.is_empty() {
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
        let room = MOST - self.chosen.labs.len();
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

    /// All combinations of these and the labs' knobs that the design has.
    fn combinations(&mut self, kept: Vec<&str>) -> Result<(), Failure> {
        let recording = self.session.recording()?;
        let labs = self.chosen.labs.iter().map(LabKnob::name);
        let labs = labs.filter(|name| is_right(&recording, &[name]));
        let mut names: Vec<&str> = kept.into_iter().chain(labs).collect();
        // In the order in which the analysis numbers them.
        names.sort_unstable();
        let combinations = needed(names.len()).unwrap_or_default();
        for booted in self.booted {
            let of_lab = |name: &&str| self.chosen.labs.iter().any(|knob| knob.name() == *name);
            let setups = combinations.iter().filter_map(|off| {
                let is_off = |at: &usize| off >> at & 1 == 1;
                let off = (0..names.len()).filter(is_off).map(|at| names[at]);
                let (labs, code): (Vec<&str>, Vec<&str>) = off.partition(of_lab);
                let same = labs.len() == booted.lab.off.len()
                    && labs.iter().all(|name| booted.lab.off.contains(name));
                same.then(|| booted.setup(&code))
            });
            let setups = setups.collect();
            self.measure(setups)?;
        }
        Ok(())
    }
}
