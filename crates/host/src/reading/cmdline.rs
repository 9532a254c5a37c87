//! A kernel's command line, taken apart as the kernel does it.
//!
//! Sources: `next_arg` in `lib/cmdline.c`, `parse_args` in `kernel/params.c`;
//! `Documentation/admin-guide/kernel-parameters.rst` (quotes, `--`, dashes and underscores).

use std::fmt;

/// One parameter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Word {
    /// What stands before the first `=`.
    pub name: String,
    /// What stands behind it, without the quotes around it; `None` where there is no `=`.
    pub value: Option<String>,
}

/// Parameters that every module takes and none shows (`unknown_module_param_cb` in `kernel/module/main.c`).
pub const OF_EVERY_MODULE: [&str; 2] = ["dyndbg", "async_probe"];

/// The parameters for the kernel: those after `--` are for its init.
pub fn words(cmdline: &str) -> Vec<Word> {
    let mut words = Vec::new();
    let mut rest = cmdline.trim_start();
    while !rest.is_empty() {
        let mut quoted = false;
        let end = rest.find(|sign: char| {
            quoted ^= sign == '"';
            sign.is_ascii_whitespace() && !quoted
        });
        let (text, behind) = rest.split_at(end.unwrap_or(rest.len()));
        if text == "--" {
            break;
        }
        words.push(Word::of(text));
        rest = behind.trim_start();
    }
    words
}

/// Names of modules and parameters are the same with `-` and with `_`.
pub fn normal(name: &str) -> String {
    name.replace('-', "_")
}

impl Word {
    fn of(text: &str) -> Word {
        let unquoted = |text: &str| {
            let inner = text.strip_prefix('"').map(|inner| {
                let inner = inner.strip_suffix('"').unwrap_or(inner);
                inner.to_owned()
            });
            inner.unwrap_or_else(|| text.to_owned())
        };
        // Quotes may be around all of it (`"a=b c"`) or around the value (`a="b c"`).
        let whole = unquoted(text);
        match whole.split_once('=') {
            Some((name, value)) => Word {
                name: name.to_owned(),
                value: Some(unquoted(value)),
            },
            None => Word {
                name: whole,
                value: None,
            },
        }
    }

    /// The module and its parameter, both with `_`, where it is one of a module's.
    pub fn of_module(&self) -> Option<(String, String)> {
        // Those that begin so are settings that the kernel makes itself.
        let (module, parameter) = self
            .name
            .split_once('.')
            .filter(|(module, _)| *module != "sysctl")?;
        let plain = |name: &str| {
            let sign = |c: char| c.is_ascii_alphanumeric() || "_-.".contains(c);
            !name.is_empty() && name.chars().all(sign)
        };
        (plain(module) && plain(parameter)).then(|| (normal(module), normal(parameter)))
    }

    /// What a module is to be given for it when it is loaded, as modprobe(8) hands it on.
    pub fn for_module(&self) -> Option<String> {
        let (_, parameter) = self.of_module()?;
        Some(match &self.value {
            Some(value) => format!("{parameter}={}", quoted(value)),
            None => parameter,
        })
    }
}

fn quoted(value: &str) -> String {
    if value.contains(|sign: char| sign.is_ascii_whitespace()) {
        format!("\"{value}\"")
    } else {
        value.to_owned()
    }
}

/// As it may stand on a command line.
impl fmt::Display for Word {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.value {
            Some(value) => write!(f, "{}={}", self.name, quoted(value)),
            None => f.write_str(&self.name),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(cmdline: &str) -> Vec<(String, Option<String>)> {
        let words = words(cmdline).into_iter();
        words.map(|word| (word.name, word.value)).collect()
    }

    fn word(name: &str, value: &str) -> (String, Option<String>) {
        (name.to_owned(), Some(value.to_owned()))
    }

    #[test]
    fn words_are_the_kernel_s() {
        assert_eq!(read(""), []);
        assert_eq!(
            read("  quiet\ta=1,2 b= c==d\n"),
            [
                ("quiet".to_owned(), None),
                word("a", "1,2"),
                word("b", ""),
                word("c", "=d")
            ]
        );
        assert_eq!(
            read(r#"a="x y" "b=x y" c="" d=x"y z"w"#),
            [
                word("a", "x y"),
                word("b", "x y"),
                word("c", ""),
                word("d", r#"x"y z"w"#)
            ]
        );
        // A quote that is not closed reaches to the end.
        assert_eq!(read(r#"a="x y"#), [word("a", "x y")]);
        assert_eq!(read("a=1 -- b=2"), [word("a", "1")]);
    }

    #[test]
    fn a_module_s_parameters_are_handed_on_as_modprobe_does() {
        let handed_on = |text: &str| {
            let word = words(text).remove(0);
            word.of_module()
                .map(|(module, _)| (module, word.for_module().unwrap()))
        };
        let some = |module: &str, parameter: &str| Some((module.to_owned(), parameter.to_owned()));
        assert_eq!(handed_on("kvm.enable_pmu=0"), some("kvm", "enable_pmu=0"));
        assert_eq!(handed_on("kvm-amd.n-rips=1"), some("kvm_amd", "n_rips=1"));
        assert_eq!(handed_on("a.b"), some("a", "b"));
        assert_eq!(handed_on("a.b=1,2,3"), some("a", "b=1,2,3"));
        assert_eq!(handed_on(r#"a.b="c d""#), some("a", r#"b="c d""#));
        assert_eq!(handed_on("a.b.c=1"), some("a", "b.c=1"));
        for other in ["quiet", "root=/dev/a.b", ".a=1", "a.=1", "a/b.c=1"] {
            assert_eq!(handed_on(other), None, "{other}");
        }
    }
}
