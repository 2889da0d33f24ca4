use serde::{Deserialize, Serialize};

/// One answer: a class and how probable it is.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Prediction {
    /// The class's name.
    pub label: String,
    /// Its place among the logits.
    pub index: usize,
    /// From 0 to 1; those of all classes add up to 1.
    pub probability: f32,
}

/// The `count` most probable classes, most probable first; equal ones in the order of the classes.
pub(crate) fn top(labels: &[String], probabilities: &[f32], count: usize) -> Vec<Prediction> {
    let mut order: Vec<_> = (0..probabilities.len()).collect();
    order.sort_by(|&left, &right| probabilities[right].total_cmp(&probabilities[left]));
    order.truncate(count);
    let prediction =
        |index: usize| Prediction { label: labels[index].clone(), index, probability: probabilities[index] };
    order.into_iter().map(prediction).collect()
}

/// The class with the largest number; the first of equal ones.
pub(crate) fn argmax(row: &[f32]) -> usize {
    row.iter().enumerate().fold(0, |best, (index, value)| if *value > row[best] { index } else { best })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_most_probable_come_first_and_ties_keep_their_order() {
        let labels = ["a", "b", "c", "d"].map(str::to_owned);
        let found = top(&labels, &[0.1, 0.4, 0.4, 0.1], 3);
        let order: Vec<_> = found.iter().map(|prediction| prediction.label.as_str()).collect();
        assert_eq!(order, ["b", "c", "a"]);
        assert_eq!(top(&labels, &[0.25; 4], 9).len(), 4);
        assert_eq!(argmax(&[0.1, 0.4, 0.4, 0.1]), 1);
    }
}
