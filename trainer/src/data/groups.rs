/// Which of some numbered things belong together: disjoint sets, joined two at a time.
#[derive(Clone, Debug)]
pub struct Groups {
    /// Each points to one of its group that is before it, or to itself if it is the first.
    parents: Vec<usize>,
}

impl Groups {
    /// Each alone.
    pub fn new(count: usize) -> Self {
        Self { parents: (0..count).collect() }
    }

    /// The first member of the group.
    pub fn first_of(&mut self, index: usize) -> usize {
        let mut place = index;
        while self.parents[place] != place {
            // Halving the path is what keeps it short.
            self.parents[place] = self.parents[self.parents[place]];
            place = self.parents[place];
        }
        place
    }

    /// Whether two are in the same group.
    pub fn are_joined(&mut self, left: usize, right: usize) -> bool {
        self.first_of(left) == self.first_of(right)
    }

    /// Makes one group of the groups of two.
    pub fn join(&mut self, left: usize, right: usize) {
        let (left, right) = (self.first_of(left), self.first_of(right));
        self.parents[left.max(right)] = left.min(right);
    }

    /// The groups of more than one, by their first member, each in ascending order.
    pub fn several(&mut self) -> Vec<Vec<usize>> {
        let mut members = vec![Vec::new(); self.parents.len()];
        for index in 0..self.parents.len() {
            members[self.first_of(index)].push(index);
        }
        members.retain(|members| members.len() > 1);
        members
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_joined_through_others_is_one_group() {
        let mut groups = Groups::new(8);
        for (left, right) in [(6, 7), (1, 3), (7, 3), (0, 0), (5, 2)] {
            groups.join(left, right);
        }
        assert_eq!(groups.several(), [vec![1, 3, 6, 7], vec![2, 5]]);
        assert!(groups.are_joined(1, 6) && !groups.are_joined(1, 2));
        assert_eq!((groups.first_of(7), groups.first_of(5), groups.first_of(4)), (1, 2, 4));
    }
}
