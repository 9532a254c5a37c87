//! Measuring under a real VMM on this machine: a fresh process of it for each run.

use std::fs::File;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use exitpath_exits::{Row, bare};
use exitpath_host::GuestOutcome;
use exitpath_recording::{Machine, Manifest, Plan, Recording, Run};
use exitpath_runner::foreign::{self, Limits, Termination, how_it_ended};
use exitpath_runner::{image_output, random_order, row_info};
use exitpath_vmm::kick;

use super::host::{self, HostMeasurement, SAMPLES};
use super::{BATCH_LENGTH, BATCHES};
use crate::failure::Failure;
use crate::in_lab::foreign::NOT_COUNTED;
use crate::in_lab::vmm::{COMMAND, Ready, VERSION, Vmm};
use crate::{doctor, output, provenance};

/// Silences that a VMM may take to the guest's first word, and as many beside one for each row.
const SILENCES: u32 = 10;

/// Runs the rows in a fresh VMM for each run, in random order within it.
pub(super) fn measure(
    plan: &HostMeasurement<'_>,
    vmm: &str,
    guest: &GuestOutcome,
    interrupted: &AtomicBool,
) -> Result<Recording, Failure> {
    let HostMeasurement {
        command,
        rows,
        sampling,
    } = *plan;
    let vmm = Vmm::find(vmm)?;
    let ready = vmm.on_host(matches!(guest, GuestOutcome::Interpreted { .. }));
    let examination = doctor::examine(guest.clone());
    let allowed = kick::allowed_cpus()?;
    let order_seed = sampling.order_seed.unwrap_or_else(provenance::unix_seconds);
    let begun_unix_seconds = provenance::unix_seconds();
    let samples = sampling.samples.unwrap_or(SAMPLES);
    // QEMU opens what its user can. Of another command nobody knows: it may begin in another container,
    // or as another user.
    let place = match vmm {
        Vmm::Qemu(_) => Place::Memory,
        Vmm::Command(_) => Place::Folder(Folder::new(&std::env::temp_dir())?),
    };
    let mut started = Started {
        ready: &ready,
        image: super::image_plan(samples, true),
        silence: Duration::from_secs(sampling.watchdog),
        place: &place,
        interrupted,
        given_up: Vec::new(),
    };

    let order = random_order(rows, sampling.runs, order_seed);
    let what = format!(
        "{}, {} of the VMM",
        output::number(rows.len(), "row"),
        output::number(sampling.runs as usize, "start")
    );
    let bar = output::progress(u64::from(sampling.runs), &what);
    let mut runs = Vec::new();
    for (block, of_block) in (0..).zip(order.chunks(rows.len().max(1))) {
        let of_block: Vec<_> = of_block.iter().map(|&(_, row)| row).collect();
        for run in started.block(&of_block)? {
            runs.push(Run {
                id: runs.len() as u32,
                block,
                cpus: allowed.len() as u32,
                ..run
            });
        }
        bar.inc(1);
    }
    bar.finish_and_clear();

    let mut warnings = host::warnings(&examination, false);
    if let Vmm::Command(_) = vmm {
        warnings.push(
            "vmm: nanoseconds suppose that its guest runs on this machine's KVM and has this \
             machine's TSC; ticks are the guest's own → go by ticks where the command does not \
             use KVM"
                .to_owned(),
        );
    }
    let mut environment = host::environment(&examination, guest, &allowed, &[]);
    let facts = &mut environment.facts;
    facts.insert(COMMAND.to_owned(), ready.command().into());
    if let Some(version) = &ready.version {
        facts.insert(VERSION.to_owned(), version.as_str().into());
    }
    Ok(Recording {
        manifest: Manifest {
            command: command.to_owned(),
            begun_unix_seconds,
            machine: Machine::Host,
            environment,
            conditions: vec![exitpath_recording::Condition::base()],
            plan: Plan {
                runs: sampling.runs,
                samples,
                batches: BATCHES,
                batch_length: BATCH_LENGTH,
                order_seed,
            },
            // Nobody counts exits here.
            rows: rows.iter().map(|row| row_info(row, false)).collect(),
            warnings,
        },
        runs,
        trace: None,
    })
}

/// What all starts have in common.
struct Started<'a> {
    ready: &'a Ready,
    image: bare::ImageContents,
    silence: Duration,
    place: &'a Place,
    interrupted: &'a AtomicBool,
    /// Rows that hung, each time for a whole silence.
    given_up: Vec<&'static str>,
}

impl Started<'_> {
    /// One run of each row, in this order. Where a row does not end, the others get a VMM of their
    /// own.
    fn block(&mut self, rows: &[&'static Row]) -> Result<Vec<Run>, Failure> {
        let mut runs = Vec::new();
        let mut rest = rows.to_vec();
        loop {
            rest.retain(|row| !self.given_up.contains(&row.name));
            if rest.is_empty() {
                return Ok(runs);
            }
            let (of_start, hung) = self.start(&rest)?;
            rest.drain(..of_start.len());
            runs.extend(of_start);
            self.given_up.extend(hung);
        }
    }

    /// Starts the VMM once. What it told, and the row in which it told no more.
    fn start(&self, rows: &[&'static Row]) -> Result<(Vec<Run>, Option<&'static str>), Failure> {
        let image = self.place.put(&bare::elf(rows, &self.image))?;
        let start = self.ready.start(
            "the VMM",
            &image.path.display().to_string(),
            &[],
            0,
            self.image.most_text(rows),
        );
        // The image says nothing while it takes a row's samples.
        let silence = self.silence * self.image.samples.div_ceil(SAMPLES).max(1);
        let limits = Limits {
            total: silence * (2 * SILENCES + rows.len() as u32),
            first: silence * SILENCES,
            silence,
            text: start.text,
            is_whole: image_output::is_whole,
        };
        let said = foreign::run(&start.argv, &limits, self.interrupted).map_err(|what| {
            Failure::Usage(format!(
                "--vmm: {what}; name a program that this machine has"
            ))
        })?;
        if self.interrupted.load(Ordering::Relaxed) || said.ended == Some(Termination::Interrupted)
        {
            return Err(Failure::Interrupted);
        }
        let how = how_it_ended(
            said.ended.map(|ended| ended.to_string()).as_deref(),
            &said.errors,
        );
        let told = image_output::so_far(&said.text, rows)
            .map_err(|what| Failure::Cannot(format!("{what}{how}")))?;
        if let Some(Termination::TooLong(_) | Termination::TooMuch(_)) = said.ended {
            // No row's fault: rows that hang are silent.
            let never = "the VMM did not come to an end";
            return Err(Failure::Cannot(format!("{never}{how}")));
        }
        let mut runs = told.runs;
        for run in &mut runs {
            run.notes.push(NOT_COUNTED.to_owned());
        }
        match told.midst {
            Some(row) => {
                let what = format!("the VMM told no more of it{how}");
                runs.push(image_output::hung(0, row, what));
            }
            None if runs.len() < rows.len() => {
                return Err(Failure::Cannot(format!(
                    "the image ended before {} began{how}",
                    rows[runs.len()].name
                )));
            }
            None => {}
        }
        Ok((runs, told.midst))
    }
}

/// Where images are put for the VMM.
enum Place {
    /// In memory: nothing is left of it, however this ends.
    Memory,
    /// In a folder.
    Folder(Folder),
}

/// An image that a VMM can open by its path, as long as this is there.
struct Image {
    path: PathBuf,
    _in_memory: Option<File>,
}

impl Place {
    fn put(&self, image: &[u8]) -> Result<Image, Failure> {
        match self {
            Place::Memory => {
                let file = exitpath_lab::descriptors::sealed_file("exitpath-image", image)?;
                let (process, number) = (std::process::id(), file.as_raw_fd());
                Ok(Image {
                    path: format!("/proc/{process}/fd/{number}").into(),
                    _in_memory: Some(file),
                })
            }
            Place::Folder(folder) => {
                let path = folder.path.join("image.elf");
                std::fs::write(&path, image).map_err(|error| {
                    Failure::Cannot(format!("cannot write {}: {error}", path.display()))
                })?;
                Ok(Image {
                    path,
                    _in_memory: None,
                })
            }
        }
    }
}

/// Its name's beginning and end; between them is the process that made it.
const FOLDER: [&str; 2] = ["exitpath-", "-image"];
/// A file in it that is locked as long as the process lives.
const LOCK: &str = "lock";

/// A folder for the image, which goes with it; where a kill came first, the next one removes it.
struct Folder {
    path: PathBuf,
    _lock: File,
}

impl Folder {
    fn new(above: &Path) -> Result<Folder, Failure> {
        Folder::remove_abandoned(above);
        let [begin, end] = FOLDER;
        let path = above.join(format!("{begin}{}{end}", std::process::id()));
        // Under its name it is locked, so that nobody takes it for an abandoned one.
        let unlocked = path.with_extension("new");
        let lock = std::fs::create_dir(&unlocked)
            .and_then(|()| File::create_new(unlocked.join(LOCK)))
            .and_then(|lock| lock.lock().map(|()| lock))
            .and_then(|lock| std::fs::rename(&unlocked, &path).map(|()| lock));
        match lock {
            Ok(lock) => Ok(Folder { path, _lock: lock }),
            Err(error) => {
                let _ = std::fs::remove_dir_all(&unlocked);
                Err(Failure::Cannot(format!(
                    "cannot make the folder {}: {error}; set TMPDIR to one that can be written",
                    path.display()
                )))
            }
        }
    }

    /// Best effort: others' folders are theirs.
    fn remove_abandoned(above: &Path) {
        let [begin, end] = FOLDER;
        for entry in std::fs::read_dir(above).into_iter().flatten().flatten() {
            let name = entry.file_name();
            let name = name.to_string_lossy();
            if !name.starts_with(begin) || !name.ends_with(end) {
                continue;
            }
            let lock = File::open(entry.path().join(LOCK));
            if lock.is_ok_and(|lock| lock.try_lock().is_ok()) {
                let _ = std::fs::remove_dir_all(entry.path());
            }
        }
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.path);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_of_processes_that_are_gone_are_removed() {
        let above = tempfile::tempdir().expect("a folder");
        let at = |name: &str| above.path().join(name);
        let make = |name: &str| {
            std::fs::create_dir(at(name)).expect("a folder");
            std::fs::write(at(name).join("image.elf"), "image").expect("a file");
            File::create(at(name).join(LOCK)).expect("a file")
        };
        drop(make("exitpath-1-image"));
        drop(make("exitpath-1-other"));
        let others = make("exitpath-2-image");
        others.lock().expect("a lock");
        std::fs::create_dir(at("exitpath-3-image")).expect("a folder");
        let ours = Folder::new(above.path()).expect("a folder");
        let mut left: Vec<_> = std::fs::read_dir(above.path())
            .expect("a folder")
            .flatten()
            .map(|entry| entry.path())
            .collect();
        left.sort();
        let mut expected = vec![
            at("exitpath-1-other"),
            at("exitpath-2-image"),
            at("exitpath-3-image"),
            ours.path.clone(),
        ];
        expected.sort();
        assert_eq!(left, expected);
        let path = ours.path.clone();
        drop(ours);
        assert!(!path.exists());
    }

    #[test]
    fn an_image_in_memory_can_be_opened_by_its_path() {
        let image = Place::Memory.put(b"an image").expect("memory");
        assert_eq!(std::fs::read(&image.path).expect("its path"), b"an image");
        let path = image.path.clone();
        drop(image);
        assert!(!path.exists());
    }
}
