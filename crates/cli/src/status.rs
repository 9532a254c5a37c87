//! The exit statuses, as each command's help says them: its own, and only they.

/// The statuses that most commands share, with a place for one of their own.
macro_rules! status {
    ($own:literal) => {
        concat!(
            "Exit status: 0 done, ",
            $own,
            "2 usage or unreadable input, 3 this machine cannot do it, 130 interrupted."
        )
    };
}

/// Of all commands together.
pub(crate) const ALL: &str = status!(
    "1 the check failed (`diff --gate`, `gate`), 125 this kernel cannot be judged (`gate`), "
);
/// Of commands that measure or trace.
pub(crate) const MEASURES: &str = status!("");
pub(crate) const ATTACH: &str = "Exit status: 0 done, interrupted too, when what was seen so far is printed; 2 usage, 3 this machine cannot do it.";
pub(crate) const DIFF: &str = status!("1 a row grew by more than --gate allows, ");
pub(crate) const IMAGE: &str = "Exit status: 0 done, 2 usage, or the file cannot be written.";
pub(crate) const DOCTOR: &str = "Exit status: 0 done, whatever was found; 2 usage.";
pub(crate) const SHOW: &str = "Exit status: 0 done, 2 usage or unreadable input, 3 nothing in the recording could be measured.";
pub(crate) const CACHE: &str =
    "Exit status: 0 done, 2 usage, 3 the cache cannot be read or changed.";
/// Of commands that fetch something.
pub(crate) const FETCH: &str =
    "Exit status: 0 done, 2 usage or unknown kernel, 3 there is none or it cannot be fetched.";
pub(crate) const RUN: &str = "Exit status: the command's own; 2 usage, 3 this machine cannot do it, 130 interrupted, 141 nobody reads \
                              what it prints.";
pub(crate) const GATE: &str = "Exit status: 0 no row grew by more than allowed, 1 one did, 125 this kernel cannot be judged \
                               (it does not boot, has no usable KVM, or lacks a row that the base has), 2 wrong command line or unusable base, \
                               3 this machine cannot do it, 130 interrupted. `git bisect run` takes 2 and 3 for \"bad\": turn those into 255, which stops it; docs/gate.md has the lines.";
