//! What rows about kicks need besides a guest: consumers, I/O threads, answers, and what became of
//! them.

use std::time::Duration;

use exitpath_exits::Address;
use exitpath_exits::Row;
use exitpath_exits::kicks::{Consumer as Wanted, Handler, IoThreads, Part, Placement, REQUESTS};
use exitpath_exits::layout::word;
use exitpath_recording::{KickInfo, KickPart, Outcome, Run, counter};
use exitpath_vmm::disk::{Account, DiskSet};
use exitpath_vmm::{
    Config, Consumer, Error, Memory, Taken, ThreadPlacement, Vcpu, Vm, clock, kick,
};

use crate::settings::Settings;

/// How long a thread that serves a guest may take to end.
const PATIENCE: Duration = Duration::from_secs(3);
/// Operations before the first that counts, where one makes many requests.
const DISKS_WARM_UP: u32 = 1;

/// What the recording keeps of a row's part in `exitpath kick`.
pub(crate) fn info(row: &Row) -> Option<KickInfo> {
    let kick = row.kick?;
    Some(KickInfo {
        part: match kick.part {
            Part::Cost => KickPart::Cost,
            Part::Waited => KickPart::Waited,
            Part::Wakeup => KickPart::Wakeup,
            Part::Scaling => KickPart::Scaling,
            Part::Disks => KickPart::Disks,
            Part::Completion => KickPart::Completion,
            Part::Check => KickPart::Check,
        },
        how: kick.how.to_owned(),
        eventfds: kick.many.map(|many| many.count),
        disks: kick.disks.map(|disks| disks.count),
        requests: kick.disks.map(|disks| u64::from(disks.count) * REQUESTS),
    })
}

/// What a row's VM has because of its part in `exitpath kick`.
pub(crate) fn config(row: &Row) -> Config<'static> {
    let handler = row.kick.map(|kick| kick.handler);
    Config {
        blocking: row.consumer.is_some(),
        many: row.kick.and_then(|kick| kick.many),
        disks: row.kick.and_then(|kick| kick.disks),
        line: handler == Some(Handler::IrqLine),
        without_irqchip: handler == Some(Handler::Interrupt),
        ..Config::default()
    }
}

/// Iterations before the first sample that counts.
pub(crate) fn warm_up(row: &Row, settings: &Settings) -> u32 {
    match row.kick.and_then(|kick| kick.disks) {
        Some(_) => settings.warm_up.min(DISKS_WARM_UP),
        None => settings.warm_up,
    }
}

/// Does what the row says is done on a kick that reaches the VMM.
pub(crate) fn answer(row: &Row, vm: &Vm, vcpu: &Vcpu) -> Result<(), Error> {
    let Some(kick) = row.kick else {
        return Err(Error::Unexpected {
            reason: "the guest kicked, and its row has nobody to kick".to_owned(),
        });
    };
    if kick.handler == Handler::Stamp {
        let memory = vm.memory();
        memory.set_word(word::STAMP, clock());
        memory.set_word(word::SEQUENCE, memory.word(word::SEQUENCE) + 1);
        return Ok(());
    }
    vm.answer(vcpu, kick.handler)
}

/// The threads that serve a guest.
#[derive(Debug)]
pub(crate) struct GuestServices {
    consumer: Option<Consumer>,
    /// Whether an operation ends only when its kick was taken.
    waits_in_operation: bool,
    disk_set: Option<DiskSet>,
    /// What is known of how they were set up, for the run's counters.
    facts: Vec<(&'static str, i64)>,
}

impl GuestServices {
    /// Starts what the row asks for. `None` where this machine cannot do it, and the run says why.
    pub(crate) fn begin(
        row: &Row,
        settings: &Settings,
        vm: &Vm,
        vcpu: &Vcpu,
        run: &mut Run,
    ) -> Result<Option<GuestServices>, Error> {
        let mut services = GuestServices {
            consumer: None,
            waits_in_operation: row.kick.is_some_and(|kick| kick.waits_in_operation()),
            disk_set: None,
            facts: Vec::new(),
        };
        if let Some(kick) = row.kick {
            let at = match kick.at {
                Address::Pio(port) => u64::from(port),
                Address::Mmio(address) => address,
            };
            vm.memory().set_word(word::KICK_AT, at);
            vm.memory()
                .set_word(word::KICK_VALUE, u64::from(kick.value));
            if let (true, Err(error)) = (kick.shares_clock(), vcpu.share_clock()) {
                run.outcome = Outcome::Skipped {
                    reason: format!(
                        "the guest's clock cannot be made the host's, so that nobody can say when the \
                         consumer ran by the guest's (Linux 5.16 can): {error}"
                    ),
                };
                return Ok(None);
            }
        }
        if let Some(wanted) = row.consumer {
            services.consumer = Some(services.start_consumer(wanted, settings, vm, run)?);
        }
        if let Some(disks) = row.kick.and_then(|kick| kick.disks) {
            let placements = placements(settings)?;
            let disk_set = match DiskSet::start(vm, disks, &placements) {
                Err(Error::NoSchedFifo { .. })
                    if placements.iter().any(|placement| placement.sched_fifo) =>
                {
                    run.notes.push(UNPRIVILEGED.to_owned());
                    DiskSet::start(vm, disks, &unprivileged(&placements))
                }
                started => started,
            };
            match disk_set {
                Ok(disk_set) => services.disk_set = Some(disk_set),
                Err(error @ Error::IoUring { .. }) => {
                    run.outcome = Outcome::Skipped {
                        reason: error.to_string(),
                    };
                    return Ok(None);
                }
                Err(error) => return Err(error),
            }
            let same = placements.iter().any(|placement| placement.sched_fifo);
            services.facts.push((SAME_CPU, i64::from(same)));
            let threads = match disks.iothreads {
                IoThreads::Shared => 1,
                IoThreads::Each => disks.count as usize,
            };
            services
                .facts
                .push((counter::DISK_IOTHREADS, threads as i64));
            services
                .facts
                .push((counter::DISK_CPUS, threads.min(placements.len()) as i64));
            if threads > placements.len() {
                run.notes.push(format!(
                    "{threads} I/O threads on {} CPU: what one each brings does not show",
                    placements.len()
                ));
            }
        }
        Ok(Some(services))
    }

    fn start_consumer(
        &mut self,
        wanted: Wanted,
        settings: &Settings,
        vm: &Vm,
        run: &mut Run,
    ) -> Result<Consumer, Error> {
        let placements = match wanted.placement {
            Placement::Beside => placements(settings)?,
            Placement::SameCpu => vec![ThreadPlacement {
                cpu: settings.cpus.first().copied(),
                sched_fifo: true,
            }],
        };
        let placement = placements[0];
        self.facts.push((SAME_CPU, i64::from(placement.sched_fifo)));
        self.facts.push((FIRST, i64::from(placement.sched_fifo)));
        let start = |placement| {
            let eventfd = vm.eventfd(0)?;
            Consumer::start(eventfd, vm.memory().clone(), placement, wanted.takes)
        };
        match start(placement) {
            Err(Error::NoSchedFifo { .. }) if placement.sched_fifo => {
                self.facts.push((FIRST, 0));
                run.notes.push(UNPRIVILEGED.to_owned());
                start(unprivileged(&[placement])[0])
            }
            started => started,
        }
    }

    /// Ends the threads and adds to the run what became of the kicks: counters, and where something
    /// was lost or left undone, that.
    pub(crate) fn end(
        mut self,
        memory: &Memory,
        watchdog: Duration,
        run: &mut Run,
    ) -> Result<(), Error> {
        for (name, value) in self.facts.drain(..) {
            run.counters.insert(name.to_owned(), value);
        }
        if let Some(consumer) = self.consumer.take() {
            end_consumer(consumer, self.waits_in_operation, memory, watchdog, run);
        }
        if let Some(disk_set) = self.disk_set.take() {
            end_disk_set(disk_set, run);
        }
        if run.outcome == Outcome::Done && run.samples.iter().any(|s| (s.op as i64) < 0) {
            run.outcome = Outcome::Fault {
                reason: "a consumer ran before it was kicked: guest and host do not read the same \
                         clock here"
                    .to_owned(),
            };
        }
        Ok(())
    }
}

/// Whether a consumer or I/O thread shares the vCPU's CPU.
const SAME_CPU: &str = counter::KICK_SAME_CPU;
/// Whether a consumer takes its CPU over when it is woken (SCHED_FIFO).
const FIRST: &str = counter::KICK_FIFO;
const UNPRIVILEGED: &str = "the thread that serves the guest shares the vCPU's CPU and may not have SCHED_FIFO \
    (root may): when it runs is up to the scheduler";

/// Where threads that serve a guest sit.
fn placements(settings: &Settings) -> Result<Vec<ThreadPlacement>, Error> {
    Ok(placements_beside(&settings.cpus, &kick::allowed_cpus()?))
}

/// On the CPUs that the guest's vCPU is not on (first those that other vCPUs would have, then others of those
/// `allowed`), or else on its CPU, before it. `bound`: those of its vCPUs, the first one's first.
fn placements_beside(bound: &[usize], allowed: &[usize]) -> Vec<ThreadPlacement> {
    let Some((&own, others)) = bound.split_first() else {
        return vec![ThreadPlacement::default()];
    };
    let mut beside = others.to_vec();
    for &cpu in allowed {
        if cpu != own && !beside.contains(&cpu) {
            beside.push(cpu);
        }
    }
    let placement = |cpu, sched_fifo| ThreadPlacement {
        cpu: Some(cpu),
        sched_fifo,
    };
    if beside.is_empty() {
        return vec![placement(own, true)];
    }
    beside
        .into_iter()
        .map(|cpu| placement(cpu, false))
        .collect()
}

fn unprivileged(placements: &[ThreadPlacement]) -> Vec<ThreadPlacement> {
    let without = |&placement: &ThreadPlacement| ThreadPlacement {
        sched_fifo: false,
        ..placement
    };
    placements.iter().map(without).collect()
}

fn end_consumer(
    consumer: Consumer,
    waits_in_operation: bool,
    memory: &Memory,
    watchdog: Duration,
    run: &mut Run,
) {
    // Each operation of such a row is one kick.
    let kicks = memory.word(word::PROGRESS);
    let taken = if run.outcome == Outcome::Done {
        consumer.wait_for(kicks, watchdog)
    } else {
        consumer.taken()
    };
    judge_consumer(&mut run.outcome, taken, kicks, waits_in_operation, watchdog);
    for (name, value) in [
        (counter::KICK_TAKEN, taken.kicks),
        (counter::KICK_WAKEUPS, taken.wakeups),
    ] {
        run.counters.insert(name.to_owned(), value as i64);
    }
    match consumer.stop(PATIENCE) {
        Ok(slept) => {
            let slept = slept.map(|slept| (counter::KICK_SLEEPS.to_owned(), slept as i64));
            run.counters.extend(slept);
        }
        Err(error) => run.notes.push(error.to_string()),
    }
}

/// What it means for a run that its consumer has taken so much, where its guest has ended so many kicks.
fn judge_consumer(
    outcome: &mut Outcome,
    taken: Taken,
    kicks: u64,
    waits_in_operation: bool,
    watchdog: Duration,
) {
    match outcome {
        Outcome::Done if taken.kicks < kicks => {
            *outcome = Outcome::Hung {
                reason: format!(
                    "the consumer fell behind: it took {} of {kicks} kicks in {} wake-ups, and no more \
                     within {watchdog:?}",
                    taken.kicks, taken.wakeups
                ),
            };
        }
        Outcome::Hung { reason } => {
            // An operation that did not end may have kicked as well, and in one that waits for its
            // consumer it has.
            let begun = kicks + u64::from(waits_in_operation);
            reason.push_str(&if taken.kicks >= begun {
                format!("; its consumer took all {} kicks", taken.kicks)
            } else {
                format!(
                    "; the wake-up of kick {} was lost: its consumer has taken {} in {} wake-ups",
                    taken.kicks + 1,
                    taken.kicks,
                    taken.wakeups
                )
            });
        }
        _ => {}
    }
}

fn end_disk_set(mut disk_set: DiskSet, run: &mut Run) {
    let stopped = disk_set.stop(PATIENCE);
    let accounts = disk_set.accounts();
    for (name, value) in totals(&accounts) {
        run.counters.insert(name.to_owned(), value as i64);
    }
    judge_disks(&mut run.outcome, stopped, &accounts);
    if run.outcome == Outcome::Done
        && let Err(reason) = disk_set.verify()
    {
        run.outcome = Outcome::Fault { reason };
    }
}

/// Counters of all disks together.
fn totals(accounts: &[Account]) -> [(&'static str, u64); 3] {
    let sum = |of: fn(&Account) -> u64| accounts.iter().map(of).sum::<u64>();
    [
        (counter::DISK_REQUESTED, sum(|a| a.requested)),
        (counter::DISK_COMPLETED, sum(|a| a.completed)),
        (counter::DISK_WAKEUPS, sum(|a| a.wakeups)),
    ]
}

/// What it means for a run how its I/O threads ended, and what became of each disk's requests.
fn judge_disks(outcome: &mut Outcome, stopped: Result<(), Error>, accounts: &[Account]) {
    let behind = || {
        (0..)
            .zip(accounts)
            .find(|(_, a)| a.completed != a.requested)
    };
    match (outcome, stopped) {
        (outcome, Err(error)) => {
            *outcome = Outcome::Fault {
                reason: format!("an I/O thread failed: {error}"),
            };
        }
        (Outcome::Hung { reason }, Ok(())) => {
            if let Some((disk, account)) = behind() {
                reason.push_str(&format!(
                    "; disk {disk}: {} requests made and {} completed: its I/O thread fell behind",
                    account.requested, account.completed
                ));
            }
        }
        (outcome @ Outcome::Done, Ok(())) => {
            if let Some((disk, account)) = behind() {
                *outcome = Outcome::Fault {
                    reason: format!(
                        "disk {disk}: {} requests were made and {} completed",
                        account.requested, account.completed
                    ),
                };
            }
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use exitpath_exits::find;

    use super::*;

    fn cpus(placements: &[ThreadPlacement]) -> Vec<(Option<usize>, bool)> {
        placements
            .iter()
            .map(|placement| (placement.cpu, placement.sched_fifo))
            .collect()
    }

    #[test]
    fn threads_that_serve_a_guest_sit_beside_it_where_there_is_a_cpu() {
        let of = |bound: &[usize], allowed: &[usize]| cpus(&placements_beside(bound, allowed));
        assert_eq!(of(&[], &[0, 1]), [(None, false)], "not bound: anywhere");
        assert_eq!(of(&[2], &[1, 2, 3]), [(Some(1), false), (Some(3), false)]);
        // Another vCPU's CPU first, each once, and never the guest's own.
        assert_eq!(
            of(&[2, 3], &[1, 2, 3]),
            [(Some(3), false), (Some(1), false)]
        );
        assert_eq!(of(&[2], &[2]), [(Some(2), true)], "on its CPU, before it");
        assert_eq!(
            cpus(&unprivileged(&placements_beside(&[2], &[2]))),
            [(Some(2), false)]
        );
    }

    fn hung() -> Outcome {
        Outcome::Hung {
            reason: "no progress".to_owned(),
        }
    }

    fn with_consumer(mut outcome: Outcome, taken: u64, kicks: u64, waits: bool) -> Outcome {
        let taken = Taken {
            wakeups: 3,
            kicks: taken,
        };
        judge_consumer(&mut outcome, taken, kicks, waits, Duration::from_secs(2));
        outcome
    }

    #[test]
    fn a_consumer_has_taken_every_kick_or_the_run_says_what_is_missing() {
        assert_eq!(with_consumer(Outcome::Done, 10, 10, false), Outcome::Done);
        let reason = |outcome| match outcome {
            Outcome::Hung { reason } => reason,
            other => panic!("{other:?}"),
        };
        let behind = reason(with_consumer(Outcome::Done, 9, 10, false));
        assert!(
            behind.contains("took 9 of 10 kicks in 3 wake-ups"),
            "{behind}"
        );
        // Ten operations have ended. One that waits for its consumer has kicked before it hung.
        let lost = reason(with_consumer(hung(), 10, 10, true));
        assert!(
            lost.starts_with("no progress; the wake-up of kick 11 was lost"),
            "{lost}"
        );
        let all = reason(with_consumer(hung(), 10, 10, false));
        assert!(all.ends_with("its consumer took all 10 kicks"), "{all}");
        // What went wrong otherwise keeps its own words.
        let fault = Outcome::Fault {
            reason: "#UD".to_owned(),
        };
        assert_eq!(with_consumer(fault.clone(), 0, 10, true), fault);
    }

    fn account((requested, completed): (u64, u64)) -> Account {
        Account {
            requested,
            completed,
            wakeups: 2,
        }
    }

    #[test]
    fn a_request_too_few_on_one_disk_is_not_made_up_for_by_another() {
        let judged = |mut outcome, of: &[(u64, u64)], stopped| {
            let accounts: Vec<Account> = of.iter().copied().map(account).collect();
            judge_disks(&mut outcome, stopped, &accounts);
            outcome
        };
        assert_eq!(
            judged(Outcome::Done, &[(64, 64), (64, 64)], Ok(())),
            Outcome::Done
        );
        let why = |outcome| match outcome {
            Outcome::Fault { reason } | Outcome::Hung { reason } => reason,
            other => panic!("{other:?}"),
        };
        // The totals are equal.
        let lost = why(judged(Outcome::Done, &[(64, 63), (64, 65)], Ok(())));
        assert!(
            lost.contains("disk 0: 64 requests were made and 63 completed"),
            "{lost}"
        );
        let behind = why(judged(hung(), &[(64, 64), (64, 8)], Ok(())));
        assert!(behind.starts_with("no progress; disk 1:"), "{behind}");
        let failed = Err(Error::Unexpected {
            reason: "a ring".to_owned(),
        });
        let failed = why(judged(Outcome::Done, &[(64, 64)], failed));
        assert!(failed.starts_with("an I/O thread failed"), "{failed}");
        assert_eq!(
            totals(&[(64, 63), (64, 65)].map(account)),
            [
                ("disk.requested", 128),
                ("disk.completed", 128),
                ("disk.wakeups", 4)
            ]
        );
    }

    #[test]
    fn rows_with_disks_warm_up_once_and_others_as_asked() {
        let settings = Settings {
            samples: 10,
            warm_up: 20,
            batches: 0,
            batch_length: 0,
            watchdog: Duration::from_secs(2),
            cpus: Vec::new(),
            machine: Default::default(),
            yielding: false,
        };
        let has_disks = |row: &&Row| row.kick.is_some_and(|kick| kick.disks.is_some());
        let mut rows = exitpath_exits::kicks::KICKS.iter();
        let disks = rows.find(has_disks).expect("a row with disks");
        assert_eq!(warm_up(disks, &settings), 1);
        assert_eq!(warm_up(find("cpuid").expect("a row"), &settings), 20);
        let none = Settings {
            warm_up: 0,
            ..settings
        };
        assert_eq!(warm_up(disks, &none), 0);
    }
}
