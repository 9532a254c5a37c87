//! Which combinations of knobs are measured.
//!
//! Up to [`FULL`] knobs: all of them. Above that a two-level fraction of resolution V or more, in which no main
//! effect and no interaction of two knobs is confounded with another of these (Box, Hunter and Hunter, *Statistics
//! for Experimenters*, chapter 6): as many knobs as fit into `r` basic columns such that no four columns multiply to
//! the identity. Columns are words of a code of distance 5 at least, taken greedily.
//!
//! Besides these: nothing off, each knob off by itself, all but each one, and all, for what a knob costs taken first and
//! taken last.

/// Knobs that are off: bit `i` is knob `i`.
pub type Off = u32;

/// Most knobs of which all combinations are measured.
pub const FULL: usize = 6;
/// Most knobs there can be: a fraction of them takes 256 combinations.
pub const MOST: usize = 16;

/// Combinations of so many knobs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Design {
    /// Number of knobs.
    pub knobs: usize,
    /// The balanced part, which effects are computed from: all combinations, or a fraction of them.
    pub balanced: Vec<Off>,
    /// All that is measured, each once, the base first.
    pub all: Vec<Off>,
}

impl Design {
    /// Of so many knobs; `None` for more than [`MOST`].
    pub fn of(knobs: usize) -> Option<Design> {
        if knobs > MOST {
            return None;
        }
        let balanced = match knobs {
            0..=FULL => (0..1u32 << knobs).collect(),
            _ => fraction(knobs),
        };
        let everything = everything(knobs);
        let mut all = vec![0, everything];
        for knob in 0..knobs {
            all.extend([1 << knob, everything & !(1 << knob)]);
        }
        all.extend(&balanced);
        let mut seen = std::collections::BTreeSet::new();
        all.retain(|off| seen.insert(*off));
        Some(Design {
            knobs,
            balanced,
            all,
        })
    }

    /// Whether all combinations are measured.
    pub fn is_full(&self) -> bool {
        self.balanced.len() == 1 << self.knobs
    }
}

/// All of so many knobs.
pub fn everything(knobs: usize) -> Off {
    ((1u64 << knobs) - 1) as Off
}

/// Combinations in which every two pairs of knobs are told apart, the base among them.
fn fraction(knobs: usize) -> Vec<Off> {
    let (basic, columns) = (2..)
        .find_map(|basic| Some((basic, columns(basic, knobs)?)))
        .expect("with as many basic columns as knobs there is room for all");
    let off = |run: u32| {
        let is_off =
            |&(knob, column): &(usize, &u32)| (run & column).count_ones() % 2 == 1 && knob < knobs;
        let off = columns.iter().enumerate();
        off.filter(is_off).fold(0, |off, (knob, _)| off | 1 << knob)
    };
    (0..1u32 << basic).map(off).collect()
}

/// So many columns of so many basic ones, no four of which (or fewer) multiply to the identity.
fn columns(basic: u32, wanted: usize) -> Option<Vec<u32>> {
    let mut columns: Vec<u32> = Vec::new();
    // What a further column must not be: the identity, and products of three columns or fewer.
    let mut taken = vec![false; 1 << basic];
    taken[0] = true;
    for candidate in 1..1u32 << basic {
        if columns.len() == wanted {
            break;
        }
        if taken[candidate as usize] {
            continue;
        }
        columns.push(candidate);
        let known = columns.clone();
        taken[candidate as usize] = true;
        for (at, a) in known.iter().enumerate() {
            for (further, b) in known.iter().enumerate().skip(at + 1) {
                taken[(a ^ b) as usize] = true;
                for c in known.iter().skip(further + 1) {
                    taken[(a ^ b ^ c) as usize] = true;
                }
            }
        }
    }
    (columns.len() == wanted).then_some(columns)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Sum over the balanced part of the product of these knobs' signs.
    fn contrast(design: &Design, knobs: &[usize]) -> i64 {
        let sign = |off: u32| {
            let product = knobs.iter().filter(|knob| off >> **knob & 1 == 1).count();
            if product % 2 == 0 { 1 } else { -1 }
        };
        design.balanced.iter().map(|off| sign(*off)).sum()
    }

    #[test]
    fn no_two_effects_are_one() {
        for knobs in 1..=MOST {
            let design = Design::of(knobs).expect("a design");
            // Two effects of two knobs at most differ in four knobs at most: their product must be balanced.
            for a in 0..knobs {
                assert_eq!(contrast(&design, &[a]), 0, "{knobs}: {a}");
                for b in a + 1..knobs {
                    assert_eq!(contrast(&design, &[a, b]), 0, "{knobs}: {a} {b}");
                    for c in b + 1..knobs {
                        assert_eq!(contrast(&design, &[a, b, c]), 0, "{knobs}: {a} {b} {c}");
                        for d in c + 1..knobs {
                            assert_eq!(contrast(&design, &[a, b, c, d]), 0, "{knobs}");
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn each_is_measured_once_and_the_ends_are_among_them() {
        let sizes: Vec<usize> = (0..=MOST)
            .map(|knobs| Design::of(knobs).expect("a design").balanced.len())
            .collect();
        assert_eq!(
            sizes,
            [
                1, 2, 4, 8, 16, 32, 64, 64, 64, 128, 128, 128, 256, 256, 256, 256, 256
            ]
        );
        for knobs in 1..=MOST {
            let design = Design::of(knobs).expect("a design");
            let mut sorted = design.all.clone();
            sorted.sort_unstable();
            sorted.dedup();
            assert_eq!(sorted.len(), design.all.len());
            assert_eq!(design.all[0], 0);
            for knob in 0..knobs {
                assert!(design.all.contains(&(1 << knob)));
                assert!(design.all.contains(&(everything(knobs) & !(1 << knob))));
            }
            assert_eq!(design.is_full(), knobs <= FULL);
        }
        assert_eq!(Design::of(MOST + 1), None);
    }
}
