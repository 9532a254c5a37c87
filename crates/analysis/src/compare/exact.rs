//! Whether B differs from A in the lab, where nothing varies at one seed.

use super::Answer;

/// What the differences at all seeds say.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Exact<T> {
    /// [`Answer::Same`] if there is none at any seed, [`Answer::Different`] otherwise: there is no margin, and
    /// nothing to be undecided about.
    pub answer: Answer,
    /// The most frequent difference, B − A; of equally frequent ones the first seed's.
    pub difference: T,
    /// Seeds with this difference.
    pub agreeing: usize,
    /// The position of the first of them.
    pub first: usize,
    /// All seeds.
    pub seeds: usize,
}

/// What the differences B − A, of each seed one, say. `None` without seeds. Equal counts are not equal paths:
/// whoever knows the paths has the last word.
pub fn exact<T: Copy + PartialEq + Default>(differences: &[T]) -> Option<Exact<T>> {
    let count = |of: T| differences.iter().filter(|&&other| other == of).count();
    let mut best: Option<(usize, usize)> = None;
    for (position, &difference) in differences.iter().enumerate() {
        let agreeing = count(difference);
        if best.is_none_or(|(_, most)| agreeing > most) {
            best = Some((position, agreeing));
        }
    }
    let (first, agreeing) = best?;
    let none = differences.iter().all(|&other| other == T::default());
    Some(Exact {
        answer: if none {
            Answer::Same
        } else {
            Answer::Different
        },
        difference: differences[first],
        agreeing,
        first,
        seeds: differences.len(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_most_frequent_difference_stands_for_all_and_any_makes_it_different() {
        let told = exact(&[0, 4, 4, 0, 4]).expect("there are seeds");
        assert_eq!((told.difference, told.agreeing, told.first), (4, 3, 1));
        assert_eq!((told.answer, told.seeds), (Answer::Different, 5));
        // Of equally frequent ones the first.
        assert_eq!(exact(&[7, 0]).map(|told| told.difference), Some(7));
        let none = exact(&[0.0, 0.0]).expect("there are seeds");
        assert_eq!((none.answer, none.agreeing), (Answer::Same, 2));
        // One seed that differs is enough, though most agree.
        assert_eq!(
            exact(&[0, 0, 1]).map(|told| told.answer),
            Some(Answer::Different)
        );
        assert_eq!(exact::<i64>(&[]), None);
    }
}
