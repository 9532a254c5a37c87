//! How far an experiment is, and whether it is still wanted.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::error::{Error, Result};

/// Who is told how far an experiment is.
pub trait Progress: Send + Sync {
    /// Work of so many steps begins.
    fn begin(&self, steps: u64, what: &str);
    /// This is being done now.
    fn at(&self, what: &str);
    /// A step has ended.
    fn step(&self);
    /// The work that was begun last has ended, or is given up.
    fn end(&self);
    /// Something that a person should know at once.
    fn remark(&self, text: &str);
}

/// Tells nobody.
#[derive(Debug, Clone, Copy, Default)]
pub struct Silent;

impl Progress for Silent {
    fn begin(&self, _: u64, _: &str) {}
    fn at(&self, _: &str) {}
    fn step(&self) {}
    fn end(&self) {}
    fn remark(&self, _: &str) {}
}

/// What every experiment is given by who asks for it.
#[derive(Clone)]
pub struct Control {
    /// Set where the experiment is not wanted any more. The engine sets it, too, where one of several boots
    /// has failed, until the others have ended.
    pub interrupted: Arc<AtomicBool>,
    /// Who is told how far it is.
    pub progress: Arc<dyn Progress>,
}

impl Control {
    /// With a flag that somebody else sets.
    pub fn new(interrupted: Arc<AtomicBool>, progress: Arc<dyn Progress>) -> Control {
        Control {
            interrupted,
            progress,
        }
    }

    /// # Errors
    /// [`Error::Interrupted`] where it is not wanted any more.
    pub fn check(&self) -> Result<()> {
        if self.interrupted.load(Ordering::Relaxed) {
            return Err(Error::Interrupted);
        }
        Ok(())
    }

    /// Does work that was begun, and says that it ended whatever comes of it.
    pub(crate) fn during<T>(
        &self,
        steps: u64,
        what: &str,
        work: impl FnOnce() -> Result<T>,
    ) -> Result<T> {
        self.progress.begin(steps, what);
        let done = work();
        self.progress.end();
        done
    }
}

/// So many of these, in words.
pub(crate) fn number(of: usize, what: &str) -> String {
    let plural = if of == 1 { "" } else { "s" };
    format!("{of} {what}{plural}")
}
