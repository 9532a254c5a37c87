//! Which paths a row takes, how often, and what one has that another has not.

use std::collections::HashMap;

use super::code::Code;
use super::functions::FunctionId;
use super::model::Variant;
use super::rounds::{Round, Rounds};
use super::stack::{Frame, Kind, NONE};
use super::state::Cpu;
use super::traits;
use super::walk::{Observer, Walker};

/// Functions named at most where nothing else tells two variants apart.
const NAMED: usize = 3;

/// Rounds that entered and left the same functions.
struct Group {
    rounds: Vec<usize>,
    /// A round of its most frequent path.
    representative: usize,
}

/// All variants, most frequent first, and the round that stands for the most frequent one.
pub(super) fn variants(code: &Code<'_>, rounds: &Rounds<'_>) -> (Vec<Variant>, Option<Round>) {
    let mut groups = groups(&rounds.rounds);
    // A stable sort: of equally frequent ones the first seen stays first.
    groups.sort_by_key(|group| std::cmp::Reverse(group.rounds.len()));
    let Some(first) = groups.first() else {
        return (Vec::new(), None);
    };
    let usual = rounds.rounds[first.representative];
    let several = groups.len() > 1;
    let usual_calls = several.then(|| calls(code, rounds, &usual));
    let told = groups.iter().enumerate().map(|(position, group)| {
        let round = rounds.rounds[group.representative];
        let totals = group.rounds.iter().map(|&r| rounds.rounds[r].total());
        let differs_by = match &usual_calls {
            Some(usual_calls) if position > 0 => {
                let more = round.total() as i64 - usual.total() as i64;
                let codes = |round: &Round| -> Option<Vec<u64>> {
                    let exits = rounds.exits(round)?.iter();
                    Some(exits.map(|exit| exit.code).collect())
                };
                let otherwise = match codes(&round) == codes(&usual) {
                    true => "same calls, other order/loops",
                    false => "same calls, other exit reasons",
                };
                let calls = calls(code, rounds, &round);
                calls
                    .difference(code, usual_calls)
                    .unwrap_or_else(|| format!("{otherwise}: {more:+}"))
            }
            _ => String::new(),
        };
        Variant {
            rounds: group.rounds.len(),
            total: round.total(),
            range: (
                totals.clone().min().unwrap_or_default(),
                totals.max().unwrap_or_default(),
            ),
            differs_by,
            exit_reasons: rounds.exits(&round).map(<[_]>::to_vec),
        }
    });
    (told.collect(), Some(usual))
}

fn groups(rounds: &[Round]) -> Vec<Group> {
    let mut places: HashMap<u64, usize> = HashMap::new();
    let mut groups: Vec<Vec<usize>> = Vec::new();
    for (position, round) in rounds.iter().enumerate() {
        let place = *places.entry(round.op.sequence).or_insert(groups.len());
        if place == groups.len() {
            groups.push(Vec::new());
        }
        groups[place].push(position);
    }
    let group = |members: Vec<usize>| Group {
        representative: representative(rounds, &members),
        rounds: members,
    };
    groups.into_iter().map(group).collect()
}

/// The first round of the most frequent path, and of those rounds the most frequent result.
fn representative(rounds: &[Round], members: &[usize]) -> usize {
    let path = most_frequent(members, |round| rounds[round].path);
    let mut members: Vec<usize> = members
        .iter()
        .copied()
        .filter(|&round| Some(rounds[round].path) == path)
        .collect();
    // An interrupt in the bracket without the operation is none of the row's.
    let quiet = |round: &usize| {
        let empty = rounds[*round].empty;
        empty.is_none_or(|empty| empty.walked.tally.exits == 0)
    };
    if members.iter().any(quiet) {
        members.retain(quiet);
    }
    let result = |round: usize| (rounds[round].residual(), rounds[round].guest_timed());
    let usual = most_frequent(&members, result);
    let of_it = members.iter().copied().find(|&r| Some(result(r)) == usual);
    of_it.unwrap_or_default()
}

/// The most frequent value; of several the first seen.
fn most_frequent<T: std::hash::Hash + Eq + Copy>(
    members: &[usize],
    value: impl Fn(usize) -> T,
) -> Option<T> {
    let mut counts: HashMap<T, (usize, std::cmp::Reverse<usize>)> = HashMap::new();
    for (position, &member) in members.iter().enumerate() {
        let first = (0, std::cmp::Reverse(position));
        counts.entry(value(member)).or_insert(first).0 += 1;
    }
    let most = counts.into_iter().max_by_key(|&(_, count)| count);
    most.map(|(value, _)| value)
}

fn calls(code: &Code<'_>, rounds: &Rounds<'_>, round: &Round) -> Calls {
    let mut walker = Walker::new(code, rounds.entry(round), Calls::new(code));
    walker.announce();
    if let Some(path) = code.path(round.path) {
        walker.walk(path);
    }
    let mut calls = walker.observer;
    for cpu in &walker.state.cpus {
        let frames = cpu.stack.frames.iter();
        for frame in frames.filter(|frame| frame.kind != Kind::Inner) {
            calls.left(frame);
        }
    }
    calls
}

/// What a round called.
struct Calls {
    /// Instructions so far.
    clock: u64,
    /// Of each function the times it was entered, and instructions until it was left.
    functions: HashMap<FunctionId, (i64, i64)>,
    /// Times one function entered another.
    edges: HashMap<(FunctionId, FunctionId), i64>,
    interrupts: HashMap<FunctionId, i64>,
    /// When each node was entered.
    entered: Vec<u64>,
    brackets: Vec<bool>,
}

impl Calls {
    fn new(code: &Code<'_>) -> Calls {
        let functions = code.functions().iter();
        Calls {
            clock: 0,
            functions: HashMap::new(),
            edges: HashMap::new(),
            interrupts: HashMap::new(),
            entered: Vec::new(),
            brackets: functions.map(|info| info.is(traits::BRACKET)).collect(),
        }
    }

    fn left(&mut self, frame: &Frame) {
        if let Some(&since) = self.entered.get(frame.node as usize) {
            let function = self.functions.entry(frame.function).or_default();
            function.1 += (self.clock - since) as i64;
        }
    }

    /// In words: what this round has called and the usual one has not, if anything.
    fn difference(&self, code: &Code<'_>, usual: &Calls) -> Option<String> {
        let mut words: Vec<String> = changed(&self.interrupts, &usual.interrupts)
            .map(|(function, times)| interrupts(&code.function(function).name, times))
            .collect();
        words.sort();
        if words.is_empty() {
            words = self.functions(code, usual);
        }
        (!words.is_empty()).then(|| words.join(", "))
    }

    /// The functions entered more or less often by callers that were not, largest first.
    fn functions(&self, code: &Code<'_>, usual: &Calls) -> Vec<String> {
        let times = |calls: &Calls, f: FunctionId| calls.functions.get(&f).copied();
        let mut more: HashMap<FunctionId, (i64, i64)> = HashMap::new();
        for &function in self.functions.keys().chain(usual.functions.keys()) {
            let here = times(self, function).unwrap_or_default();
            let there = times(usual, function).unwrap_or_default();
            if here.0 != there.0 {
                more.insert(function, (here.0 - there.0, here.1 - there.1));
            }
        }
        let outermost: Vec<FunctionId> = changed(&self.edges, &usual.edges)
            .filter(|((caller, _), _)| !more.contains_key(caller))
            .map(|((_, called), _)| called)
            .collect();
        // How often functions return says nothing, unless nothing else is to be said.
        let thunk = |f: &FunctionId| code.function(*f).is(traits::THUNK | traits::RETURN_THUNK);
        if !more.keys().all(thunk) {
            more.retain(|function, _| !thunk(function));
        }
        let mut told: Vec<(FunctionId, (i64, i64))> = more.into_iter().collect();
        if told
            .iter()
            .any(|(function, _)| outermost.contains(function))
        {
            told.retain(|(function, _)| outermost.contains(function));
        }
        told.sort_by_key(|&(function, (_, instructions))| {
            (std::cmp::Reverse(instructions.abs()), function)
        });
        told.truncate(NAMED);
        let word = |(function, (times, instructions)): (FunctionId, (i64, i64))| {
            let sign = if times > 0 { '+' } else { '-' };
            let name = &code.function(function).name;
            match times.unsigned_abs() {
                1 => format!("{sign} {name} ({instructions:+})"),
                n => format!("{sign} {n} x {name} ({instructions:+})"),
            }
        };
        told.into_iter().map(word).collect()
    }
}

impl Observer for Calls {
    fn enter(&mut self, cpu: usize, below: Option<&Frame>, frame: &Frame) -> u32 {
        if frame.kind == Kind::Before {
            return self.before(cpu, below, frame);
        }
        self.functions.entry(frame.function).or_default().0 += 1;
        let caller = below.map_or(NONE, |below| below.function);
        *self.edges.entry((caller, frame.function)).or_default() += 1;
        if frame.kind == Kind::Interrupt {
            *self.interrupts.entry(frame.function).or_default() += 1;
        }
        self.before(cpu, below, frame)
    }

    fn leave(&mut self, _: usize, frame: &Frame) {
        self.left(frame);
    }

    fn before(&mut self, _: usize, _: Option<&Frame>, _: &Frame) -> u32 {
        self.entered.push(self.clock);
        self.entered.len() as u32 - 1
    }

    fn run(&mut self, _: usize, state: &Cpu, function: FunctionId, _: u32, count: u32) {
        if state.resume.is_none() || !self.brackets[function as usize] {
            self.clock += u64::from(count);
        }
    }

    fn stop(&mut self, _: usize, frame: &Frame) {
        if frame.kind != Kind::Inner {
            self.left(frame);
        }
    }

    fn go_on(&mut self, frame: &Frame) {
        if let Some(since) = self.entered.get_mut(frame.node as usize) {
            *since = self.clock;
        }
    }
}

/// By how much counts differ, where they do.
fn changed<K: std::hash::Hash + Eq + Copy>(
    here: &HashMap<K, i64>,
    there: &HashMap<K, i64>,
) -> impl Iterator<Item = (K, i64)> {
    let count = |of: &HashMap<K, i64>, key: &K| of.get(key).copied().unwrap_or_default();
    let gone = there.keys().filter(|key| !here.contains_key(key));
    let differences: Vec<(K, i64)> = here
        .keys()
        .chain(gone)
        .map(|key| (*key, count(here, key) - count(there, key)))
        .collect();
    differences.into_iter().filter(|&(_, times)| times != 0)
}

/// Interrupts or exceptions in words, by the kernel's name of their entry.
fn interrupts(entry: &str, times: i64) -> String {
    let name = match entry.strip_prefix("asm_sysvec_") {
        Some("apic_timer_interrupt") => "timer interrupt".to_owned(),
        Some("reschedule_ipi") => "reschedule interrupt".to_owned(),
        Some("call_function" | "call_function_single") => "function call interrupt".to_owned(),
        Some("irq_work") => "irq work interrupt".to_owned(),
        Some(other) => format!("{} interrupt ({entry})", other.replace('_', " ")),
        None => match entry.strip_prefix("asm_exc_") {
            Some("nmi") => "NMI".to_owned(),
            Some(exception) => format!("{} ({entry})", exception.replace('_', " ")),
            None if entry == "irq_entries_start" => "device interrupt".to_owned(),
            None => format!("interrupt ({entry})"),
        },
    };
    let sign = if times > 0 { '+' } else { '-' };
    match times.unsigned_abs() {
        1 => format!("{sign} {name}"),
        n => format!("{sign} {n} x {name}"),
    }
}
