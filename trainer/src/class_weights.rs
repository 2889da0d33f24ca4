//! How much an error on each class weighs.

use std::{collections::BTreeMap, fmt, str::FromStr};

use serde::{Deserialize, Serialize};

/// How much an error on each class weighs: `none`, `balanced`, or a list such as `cat=2,dog=0.5`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum ClassWeights {
    /// The same for each.
    #[default]
    Equal,
    /// The rarer a class, the more: `pictures / (classes × pictures of the class)`, as scikit-learn's `balanced` has it.
    Balanced,
    /// Given weights, above 0; classes that are not named weigh 1.
    Named(BTreeMap<String, f64>),
}

/// Why weights of classes cannot be used.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum ClassWeightsError {
    /// A text that is no list of weights.
    #[error(
        "'{found}' is not a weight of a class; expected none, balanced, or a list such as cat=2,dog=0.5, with weights above 0"
    )]
    Text {
        /// The part that is wrong.
        found: String,
    },
    /// A class that the pictures do not have.
    #[error("the class '{name}' of --class-weights is none of the pictures' classes {known:?}")]
    UnknownClass {
        /// The name.
        name: String,
        /// The classes there are.
        known: Vec<String>,
    },
}

impl ClassWeights {
    /// The weight of each class; none where all weigh the same. `counts` are the training pictures of each class.
    ///
    /// # Errors
    /// [`ClassWeightsError::UnknownClass`].
    pub fn resolve(&self, labels: &[String], counts: &[usize]) -> Result<Option<Vec<f32>>, ClassWeightsError> {
        match self {
            Self::Equal => Ok(None),
            Self::Balanced => {
                let share = counts.iter().sum::<usize>() as f64 / counts.len() as f64;
                // A class without a picture has no errors that could weigh.
                let weight = |&count: &usize| if count == 0 { 0.0 } else { (share / count as f64) as f32 };
                Ok(Some(counts.iter().map(weight).collect()))
            }
            Self::Named(named) => {
                if let Some(name) = named.keys().find(|name| !labels.contains(name)) {
                    return Err(ClassWeightsError::UnknownClass { name: name.clone(), known: labels.to_vec() });
                }
                Ok(Some(labels.iter().map(|label| named.get(label).map_or(1.0, |&weight| weight as f32)).collect()))
            }
        }
    }
}

impl FromStr for ClassWeights {
    type Err = ClassWeightsError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "none" => Ok(Self::Equal),
            "balanced" => Ok(Self::Balanced),
            _ => text.split(',').map(named_weight).collect::<Result<_, _>>().map(Self::Named),
        }
    }
}

fn named_weight(text: &str) -> Result<(String, f64), ClassWeightsError> {
    let parsed =
        text.rsplit_once('=').and_then(|(name, weight)| Some((name.trim(), weight.trim().parse::<f64>().ok()?)));
    match parsed {
        Some((name, weight)) if !name.is_empty() && weight.is_finite() && weight > 0.0 => Ok((name.to_owned(), weight)),
        _ => Err(ClassWeightsError::Text { found: text.to_owned() }),
    }
}

impl fmt::Display for ClassWeights {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Equal => formatter.write_str("none"),
            Self::Balanced => formatter.write_str("balanced"),
            Self::Named(named) => {
                let list: Vec<_> = named.iter().map(|(name, weight)| format!("{name}={weight}")).collect();
                formatter.write_str(&list.join(","))
            }
        }
    }
}

impl TryFrom<String> for ClassWeights {
    type Error = ClassWeightsError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<ClassWeights> for String {
    fn from(weights: ClassWeights) -> Self {
        weights.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels() -> Vec<String> {
        ["cat", "dog", "emu"].map(str::to_owned).to_vec()
    }

    #[test]
    fn balanced_weights_are_scikit_learn_s() {
        // scikit-learn 1.9.1:
        //
        //   from sklearn.utils.class_weight import compute_class_weight
        //   print(compute_class_weight("balanced", classes=numpy.arange(3), y=numpy.repeat([0, 1, 2], [50, 30, 7])))
        let weights = ClassWeights::Balanced.resolve(&labels(), &[50, 30, 7]).expect("no name").expect("weights");
        for (found, expected) in weights.into_iter().zip([0.58, 0.966_667, 4.142_857]) {
            assert!((found - expected).abs() < 1e-6, "{found}, expected {expected}");
        }
        assert_eq!(ClassWeights::Balanced.resolve(&labels(), &[5, 5, 0]), Ok(Some(vec![2.0 / 3.0, 2.0 / 3.0, 0.0])));
    }

    #[test]
    fn named_weights_are_those_of_the_names() {
        let weights: ClassWeights = "emu=2.5, cat=0.5".parse().expect("a list");
        assert_eq!(weights.resolve(&labels(), &[1, 1, 1]), Ok(Some(vec![0.5, 1.0, 2.5])));
        assert_eq!(ClassWeights::Equal.resolve(&labels(), &[1, 2, 3]), Ok(None));
        let message = "eum=2".parse::<ClassWeights>().expect("a list").resolve(&labels(), &[1; 3]);
        assert!(message.expect_err("no such class").to_string().contains("'eum'"));
    }

    #[test]
    fn texts_become_weights_and_weights_their_texts() {
        for text in ["none", "balanced", "a=b=0.25,cat=3"] {
            assert_eq!(text.parse::<ClassWeights>().expect(text).to_string(), text);
        }
        for text in ["", "cat", "cat=", "=2", "cat=0", "cat=-1", "cat=NaN", "cat=2,", "Balanced"] {
            let message = text.parse::<ClassWeights>().expect_err(text).to_string();
            assert!(message.contains("cat=2,dog=0.5"), "{message}");
        }
    }
}
