use std::collections::HashMap;

/// Which of `folds` folds each picture belongs to, so that every fold has its share of each class and no group is torn.
///
/// Group by group, the largest first and equal ones in the order in which they come, each goes where its classes are
/// scarcest: the way of scikit-learn's `StratifiedGroupKFold`, with the sum of the shares of its classes in the place of
/// their deviation. Where no group has more than one picture, folds differ by at most one picture of each class.
///
/// # Panics
/// Where the two lists are of unlike length.
pub fn assign_folds(labels: &[u32], groups: &[usize], folds: usize) -> Vec<usize> {
    assert_eq!(labels.len(), groups.len(), "a label and a group for each picture");
    let classes = labels.iter().max().map_or(0, |&last| last as usize + 1);
    let mut of_class = vec![0usize; classes];
    let mut first: HashMap<usize, usize> = HashMap::new();
    let mut members: Vec<Vec<usize>> = Vec::new();
    for (position, (&label, group)) in labels.iter().zip(groups).enumerate() {
        of_class[label as usize] += 1;
        let place = *first.entry(*group).or_insert(members.len());
        if place == members.len() {
            members.push(Vec::new());
        }
        members[place].push(position);
    }
    members.sort_by_key(|members| std::cmp::Reverse(members.len()));
    let mut counts = vec![vec![0usize; classes]; folds];
    let mut fold_of = vec![0; labels.len()];
    for group in members {
        let share = |fold: usize| -> f64 {
            let share = |&position: &usize| {
                let class = labels[position] as usize;
                counts[fold][class] as f64 / of_class[class] as f64
            };
            group.iter().map(share).sum()
        };
        let pictures = |fold: usize| counts[fold].iter().sum::<usize>();
        let scarcest = |&left: &usize, &right: &usize| {
            share(left).total_cmp(&share(right)).then(pictures(left).cmp(&pictures(right)))
        };
        let fold = (0..folds).min_by(scarcest).unwrap_or(0);
        for position in group {
            counts[fold][labels[position] as usize] += 1;
            fold_of[position] = fold;
        }
    }
    fold_of
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(labels: &[u32], fold_of: &[usize], folds: usize) -> Vec<Vec<usize>> {
        let mut counts = vec![vec![0; 3]; folds];
        labels.iter().zip(fold_of).for_each(|(&label, &fold)| counts[fold][label as usize] += 1);
        counts
    }

    #[test]
    fn every_fold_has_its_share_of_each_class() {
        let labels: Vec<u32> = (0..103).map(|index| [0, 1, 0, 2, 0, 1][index % 6]).collect();
        let alone: Vec<usize> = (0..103).collect();
        for folds in [2, 5, 7] {
            let counts = counts(&labels, &assign_folds(&labels, &alone, folds), folds);
            for class in 0..3 {
                let of_class: Vec<_> = counts.iter().map(|fold| fold[class]).collect();
                let spread = of_class.iter().max().zip(of_class.iter().min()).map(|(most, least)| most - least);
                assert!(spread <= Some(1), "{folds} folds, class {class}: {of_class:?}");
            }
            let pictures: Vec<usize> = counts.iter().map(|fold| fold.iter().sum()).collect();
            let spread = pictures.iter().max().zip(pictures.iter().min()).map(|(most, least)| most - least);
            assert!(spread <= Some(3), "{pictures:?}");
        }
    }

    #[test]
    fn groups_are_whole_and_the_folds_stay_as_large_as_scikit_learns() {
        // 60 pictures in groups of 1 to 6 of one class each. scikit-learn 1.7.2 gives folds of 20 each:
        //
        //   from sklearn.model_selection import StratifiedGroupKFold
        //   y = [i % 3 for i in range(60)]; g = [i % 3 + 3 * int((i // 3) ** 0.6 * 1.5) for i in range(60)]
        //   [len(v) for _, v in StratifiedGroupKFold(3, shuffle=True, random_state=1).split(y, y, g)]
        let labels: Vec<u32> = (0..60).map(|index| index % 3).collect();
        let group = |index: usize| index % 3 + 3 * (((index / 3) as f64).powf(0.6) * 1.5) as usize;
        let groups: Vec<usize> = (0..60).map(group).collect();
        let fold_of = assign_folds(&labels, &groups, 3);
        for (position, group) in groups.iter().enumerate() {
            let first = groups.iter().position(|other| other == group).expect("itself at least");
            assert_eq!(fold_of[position], fold_of[first], "group {group}");
        }
        for (fold, counts) in counts(&labels, &fold_of, 3).iter().enumerate() {
            assert!(counts.iter().all(|count| (6..=7).contains(count)), "fold {fold}: {counts:?}");
        }
    }
}
