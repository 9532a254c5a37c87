//! What pairs a value of A with one of B: the block on a host, the seed in the lab.

use std::collections::BTreeMap;

/// A value of A and one of B that share all but what is compared.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Pair<K, V> {
    /// What they share, such as the block.
    pub key: K,
    /// The value of A, the base.
    pub a: V,
    /// The value of B, the one in question.
    pub b: V,
}

/// One block of a host's session: a run-level value of A and one of B, for instance the two runs' means, in
/// the same unit.
pub type PairedBlock = Pair<u32, f64>;

impl<K> Pair<K, f64> {
    /// B − A: above 0 where B costs more.
    #[must_use]
    pub fn difference(&self) -> f64 {
        self.b - self.a
    }
}

/// A's and B's values by what they share. What only one of them has is told by its keys: to compare the rest
/// is for the caller to decide.
#[derive(Debug, Clone, PartialEq)]
pub struct Paired<K, V> {
    /// What both have, in the order of A.
    pub pairs: Vec<Pair<K, V>>,
    /// What only A has.
    pub only_a: Vec<K>,
    /// What only B has.
    pub only_b: Vec<K>,
}

/// Pairs A's and B's values. No key may be there twice in either.
pub fn paired<K: Ord + Clone, V>(
    a: impl IntoIterator<Item = (K, V)>,
    b: impl IntoIterator<Item = (K, V)>,
) -> Paired<K, V> {
    let mut of_b: BTreeMap<K, V> = b.into_iter().collect();
    let mut paired = Paired {
        pairs: Vec::new(),
        only_a: Vec::new(),
        only_b: Vec::new(),
    };
    for (key, a) in a {
        match of_b.remove(&key) {
            Some(b) => paired.pairs.push(Pair { key, a, b }),
            None => paired.only_a.push(key),
        }
    }
    paired.only_b = of_b.into_keys().collect();
    paired
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_only_one_of_them_has_is_told() {
        let paired = paired(
            [(3, 'x'), (1, 'y'), (2, 'z')],
            [(1, 'p'), (3, 'q'), (4, 'r')],
        );
        let pair = |key, a, b| Pair { key, a, b };
        assert_eq!(paired.pairs, [pair(3, 'x', 'q'), pair(1, 'y', 'p')]);
        assert_eq!((paired.only_a, paired.only_b), (vec![2], vec![4]));
    }
}
