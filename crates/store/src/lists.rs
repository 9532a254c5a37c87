//! Lists as rows of a table, and rows as lists: each item with the id of its list and its position there.

use crate::problem::Problem;

/// Each item with the id of what it is in and its position there.
pub(crate) fn numbered<T: Copy>(id: u32, items: &[T]) -> impl Iterator<Item = (u32, u32, T)> {
    (0..)
        .zip(items)
        .map(move |(index, &item)| (id, index, item))
}

/// More of something than there may be, for a reader.
pub(crate) fn too_many(what: &str, max: usize) -> Problem {
    problem!("there are more than {max} {what}")
}

/// Undoes [`numbered`]: lists that are put together from the rows of their items: one list after the other, each from
/// its index 0 up, so that no item is missing, double or out of order.
pub(crate) struct Lists<T> {
    /// What has the lists, for a reader.
    what: &'static str,
    /// Most lists there may be.
    max: usize,
    /// Each with its id.
    lists: Vec<(u32, Vec<T>)>,
}

impl<T> Lists<T> {
    pub(crate) fn new(what: &'static str, max: usize) -> Self {
        Self {
            what,
            max,
            lists: Vec::new(),
        }
    }

    pub(crate) fn add(
        &mut self,
        ids: Vec<u32>,
        indexes: Vec<u32>,
        items: impl Iterator<Item = T>,
    ) -> Result<(), Problem> {
        for ((id, index), item) in ids.into_iter().zip(indexes).zip(items) {
            if index == 0 {
                if self.lists.len() == self.max {
                    return Err(too_many(&format!("{}s", self.what), self.max));
                }
                self.shrink();
                self.lists.push((id, Vec::new()));
            }
            match self.lists.last_mut() {
                Some((last, list)) if *last == id && list.len() == index as usize => {
                    list.push(item);
                }
                _ => {
                    let what = self.what;
                    return Err(problem!("index {index} of {what} {id} is out of order"));
                }
            }
        }
        Ok(())
    }

    /// Many lists are short, and growing leaves room for more.
    fn shrink(&mut self) {
        if let Some((_, list)) = self.lists.last_mut() {
            list.shrink_to_fit();
        }
    }

    pub(crate) fn finish(mut self) -> Vec<(u32, Vec<T>)> {
        self.shrink();
        self.lists
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_too_many_are_refused_as_they_are_read() {
        let mut lists = Lists::new("path", 2);
        lists
            .add(vec![0, 1], vec![0, 0], [(), ()].into_iter())
            .unwrap();
        let problem = lists.add(vec![2], vec![0], [()].into_iter()).unwrap_err();
        assert_eq!(problem.to_string(), "there are more than 2 paths");
    }
}
