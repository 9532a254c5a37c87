//! What each knob costs, of values measured with combinations of knobs off.
//!
//! With all combinations measured, the value is a game of the knobs, `v(∅) − v(S)` what the set S saves together.
//! A knob's Shapley share is what it saves on average over all orders of removal (Shapley, *A value for n-person
//! games*, 1953); interactions are Harsanyi's dividends: what a set saves that none of its parts does. With a fraction measured, both are computed
//! from the effects of one and two knobs, which a fraction of resolution V keeps apart: in signs of ±1 the share is
//! twice the main effect, for over all orders another knob is off before this one as often as behind it.

use std::collections::BTreeMap;

use super::design::{Design, Off, everything};

/// Values, by what was off.
pub type Values = BTreeMap<Off, f64>;

/// What a knob costs, in the values' unit: positive where the value falls without it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Cost {
    /// What is saved where it is taken off first: with all others on.
    pub first: f64,
    /// What is saved where it is taken off last: with all others off.
    pub last: f64,
    /// What it saves on average over all orders.
    pub shapley: f64,
}

/// What knobs save together beyond what they save in smaller groups.
#[derive(Debug, Clone, PartialEq)]
pub struct Interaction {
    /// The knobs.
    pub knobs: Off,
    /// What they save beyond; negative where they save the same thing.
    pub value: f64,
}

/// All of it.
#[derive(Debug, Clone, PartialEq)]
pub struct Effects {
    /// Of each knob.
    pub costs: Vec<Cost>,
    /// Of two knobs and more, of all combinations; of two, of a fraction. All there are, 0 too.
    pub interactions: Vec<Interaction>,
    /// The largest difference between a measured value and what effects of one and two knobs make of it; 0 where all
    /// combinations were measured, as nothing is left out then.
    pub unexplained: f64,
}

/// The effects; `None` where a combination of the design has no value.
pub fn effects(design: &Design, values: &Values) -> Option<Effects> {
    if design.all.iter().any(|off| !values.contains_key(off)) {
        return None;
    }
    let value = |off: Off| values[&off];
    let all = everything(design.knobs);
    let shares = match design.is_full() {
        true => of_all(design, values),
        false => of_a_fraction(design, values),
    };
    let (shapley, interactions, unexplained) = shares;
    let costs = shapley.into_iter().enumerate().map(|(knob, shapley)| {
        let bit = 1 << knob;
        Cost {
            first: value(0) - value(bit),
            last: value(all & !bit) - value(all),
            shapley,
        }
    });
    Some(Effects {
        costs: costs.collect(),
        interactions,
        unexplained,
    })
}

type Shares = (Vec<f64>, Vec<Interaction>, f64);

fn of_all(design: &Design, values: &Values) -> Shares {
    // The dividend of each set: what it saves less the dividends of all sets inside it.
    let mut dividends: Vec<f64> = (0..1u32 << design.knobs)
        .map(|off| values[&0] - values[&off])
        .collect();
    for knob in 0..design.knobs {
        for off in 0..dividends.len() {
            if off >> knob & 1 == 1 {
                dividends[off] -= dividends[off & !(1 << knob)];
            }
        }
    }
    let mut shapley = vec![0.0; design.knobs];
    let mut interactions = Vec::new();
    for (off, dividend) in (0u32..).zip(&dividends) {
        for (knob, share) in shapley.iter_mut().enumerate() {
            if off >> knob & 1 == 1 {
                *share += dividend / f64::from(off.count_ones());
            }
        }
        if off.count_ones() > 1 {
            interactions.push(Interaction {
                knobs: off,
                value: *dividend,
            });
        }
    }
    (shapley, interactions, 0.0)
}

fn of_a_fraction(design: &Design, values: &Values) -> Shares {
    let runs = design.balanced.len() as f64;
    let sign = |off: Off, knob: usize| if off >> knob & 1 == 1 { 1.0 } else { -1.0 };
    let contrast = |of: &dyn Fn(Off) -> f64| {
        let sum: f64 = design
            .balanced
            .iter()
            .map(|off| values[off] * of(*off))
            .sum();
        sum / runs
    };
    let mean = contrast(&|_| 1.0);
    let main: Vec<f64> = (0..design.knobs)
        .map(|knob| contrast(&|off| sign(off, knob)))
        .collect();
    let mut pairs = Vec::new();
    for a in 0..design.knobs {
        for b in a + 1..design.knobs {
            pairs.push((a, b, contrast(&|off| sign(off, a) * sign(off, b))));
        }
    }
    let predicted = |off: Off| {
        let mains = (0..design.knobs).map(|knob| main[knob] * sign(off, knob));
        let both = pairs
            .iter()
            .map(|(a, b, effect)| effect * sign(off, *a) * sign(off, *b));
        mean + mains.sum::<f64>() + both.sum::<f64>()
    };
    let unexplained = design
        .all
        .iter()
        .map(|off| (values[off] - predicted(*off)).abs());
    let unexplained = unexplained.fold(0.0, f64::max);
    let interactions = pairs.iter().map(|(a, b, effect)| Interaction {
        knobs: 1 << a | 1 << b,
        // In signs a pair's term changes by four effects where both are taken off, beyond what each changes alone.
        value: -4.0 * effect,
    });
    let shapley = main.iter().map(|effect| -2.0 * effect).collect();
    (shapley, interactions.collect(), unexplained)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Values where each knob saves its own and each pair something beyond.
    fn made(design: &Design, own: &[f64], pairs: &BTreeMap<(usize, usize), f64>) -> Values {
        let is_off = |off: Off, knob: usize| off >> knob & 1 == 1;
        let value = |off: Off| {
            let saved: f64 = (0..design.knobs)
                .filter(|k| is_off(off, *k))
                .map(|k| own[k])
                .sum();
            let both = pairs
                .iter()
                .filter(|((a, b), _)| is_off(off, *a) && is_off(off, *b));
            1_000.0 - saved - both.map(|(_, saved)| saved).sum::<f64>()
        };
        design.all.iter().map(|off| (*off, value(*off))).collect()
    }

    fn close(a: f64, b: f64) -> bool {
        (a - b).abs() < 1e-6
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]
        #[test]
        fn what_each_knob_and_each_pair_saves_is_found(
            knobs in 2usize..=12,
            own in prop::collection::vec(0..200i32, 12),
            pair in (0usize..12, 0usize..12, -50..50i32),
        ) {
            let design = Design::of(knobs).expect("a design");
            let own: Vec<f64> = own.into_iter().map(f64::from).collect();
            let (a, b) = (pair.0 % knobs, pair.1 % knobs);
            let mut pairs = BTreeMap::new();
            if a < b {
                pairs.insert((a, b), f64::from(pair.2));
            }
            let values = made(&design, &own, &pairs);
            let effects = effects(&design, &values).expect("all are measured");
            for (knob, cost) in effects.costs.iter().enumerate() {
                let shared: f64 = pairs
                    .iter()
                    .filter(|((a, b), _)| *a == knob || *b == knob)
                    .map(|(_, saved)| saved)
                    .sum();
                prop_assert!(close(cost.first, own[knob]));
                prop_assert!(close(cost.last, own[knob] + shared));
                prop_assert!(close(cost.shapley, own[knob] + shared / 2.0));
            }
            // Shares add up to what all save together.
            let all = values[&0] - values[&everything(knobs)];
            let shares: f64 = effects.costs.iter().map(|cost| cost.shapley).sum();
            prop_assert!(close(shares, all));
            for interaction in &effects.interactions {
                let of_pair = pairs.iter().find(|((a, b), _)| interaction.knobs == (1 << a | 1 << b));
                let expected = of_pair.map_or(0.0, |(_, saved)| *saved);
                prop_assert!(close(interaction.value, expected), "{interaction:?}");
            }
            prop_assert!(close(effects.unexplained, 0.0));
        }
    }

    #[test]
    fn three_knobs_that_save_only_together_share_it() {
        let design = Design::of(3).expect("a design");
        let values: Values = design
            .all
            .iter()
            .map(|off| (*off, if *off == 7 { 70.0 } else { 100.0 }))
            .collect();
        let effects = effects(&design, &values).expect("all are measured");
        for cost in &effects.costs {
            assert!(close(cost.first, 0.0) && close(cost.last, 30.0) && close(cost.shapley, 10.0));
        }
        let together: Vec<&Interaction> = effects
            .interactions
            .iter()
            .filter(|i| i.value != 0.0)
            .collect();
        assert_eq!(together.len(), 1);
        assert_eq!((together[0].knobs, together[0].value), (7, 30.0));
    }

    #[test]
    fn what_pairs_do_not_explain_is_said() {
        let design = Design::of(8).expect("a design");
        let value = |off: &Off| if off & 7 == 7 { 60.0 } else { 100.0 };
        let mut values: Values = design.all.iter().map(|off| (*off, value(off))).collect();
        let found = effects(&design, &values).expect("all are measured");
        assert!(found.unexplained > 1.0);
        values.remove(&1);
        assert_eq!(effects(&design, &values), None);
    }
}
