//! The random order of runs.

use rand::seq::SliceRandom;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// Every item once per block, each block in an order of its own. The same seed gives the same
/// order.
pub fn random_order<T: Copy>(items: &[T], blocks: u32, seed: u64) -> Vec<(u32, T)> {
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    (0..blocks)
        .flat_map(|block| {
            let mut items = items.to_vec();
            items.shuffle(&mut random as &mut dyn Rng);
            items.into_iter().map(move |item| (block, item))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::random_order;

    #[test]
    fn every_item_once_per_block_and_repeatable() {
        let order = random_order(&[1, 2, 3, 4, 5], 20, 7);
        assert_eq!(order, random_order(&[1, 2, 3, 4, 5], 20, 7));
        assert_ne!(order, random_order(&[1, 2, 3, 4, 5], 20, 8));
        for (block, chunk) in (0..).zip(order.chunks(5)) {
            assert!(chunk.iter().all(|&(b, _)| b == block));
            let mut items: Vec<_> = chunk.iter().map(|&(_, item)| item).collect();
            items.sort_unstable();
            assert_eq!(items, [1, 2, 3, 4, 5]);
        }
    }
}
