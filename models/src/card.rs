use std::collections::BTreeMap;

use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::{
    Architecture, InitialWeights, Interval, Preprocess, QuantizationRecord, Sha256, SlimmingRecord, TemperatureScaling,
};

/// Everything that a server must know beside the graph, and everything that a person asks about a model.
///
/// It travels inside the model file: as `metadata_props` of ONNX, and in the header of safetensors.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ModelCard {
    /// Class names, in the order of the logits.
    pub labels: Vec<String>,
    /// What happens to a picture before the network sees it.
    pub preprocess: Preprocess,
    /// The network, where it is one of ours.
    pub architecture: Option<Architecture>,
    /// How its probabilities are calibrated; none where they are the network's own.
    pub temperature_scaling: Option<TemperatureScaling>,
    /// What was measured on this file.
    pub metrics: Vec<Metric>,
    /// Where it comes from.
    pub provenance: Provenance,
}

/// One measured accuracy: which pictures, by which engine, how many were right.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Metric {
    /// The pictures: `validation side of the run`.
    pub data: String,
    /// What computed the answers: `candle cpu`, `tract`, `onnxruntime cpu`.
    pub engine: String,
    /// How many answers were right.
    pub correct: usize,
    /// How many pictures there were.
    pub pictures: usize,
}

impl Metric {
    /// The share of right answers; 0 where there were no pictures.
    pub fn accuracy(&self) -> f64 {
        if self.pictures == 0 { 0.0 } else { self.correct as f64 / self.pictures as f64 }
    }

    /// Between which bounds the accuracy lies with 95 % confidence; none where there were no pictures.
    pub fn interval(&self) -> Option<Interval> {
        Interval::wilson(self.correct.min(self.pictures), self.pictures)
    }
}

/// Where a model comes from.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Provenance {
    /// The program and version that wrote it.
    pub created_by: String,
    /// The digest of the weights file that it was made from.
    pub weights: Option<Sha256>,
    /// The digest of the data: every path, label, side and content ([`Split::digest`](crate::Split::digest)).
    pub data: Option<Sha256>,
    /// Epochs of training behind the weights.
    pub epochs: u32,
    /// The weights that training began with, where they were not all drawn by chance.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub initial_weights: Option<InitialWeights>,
    /// How the numbers are stored, where not as f32: `int8 QDQ, per channel, calibrated on 128 pictures`.
    pub quantization: Option<String>,
    /// The same in full, with what it cost.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub quantization_record: Option<QuantizationRecord>,
    /// How the network was made smaller, where it was, and what that cost.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub slimming: Option<SlimmingRecord>,
}

/// Why metadata is not a [`ModelCard`].
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CardError {
    /// An entry is missing.
    #[error("the model's metadata has no '{key}'; it was not written by this project's exporter")]
    Missing {
        /// The entry.
        key: &'static str,
    },
    /// An entry does not hold what it should.
    #[error("the model's metadata entry '{key}' is damaged")]
    Damaged {
        /// The entry.
        key: &'static str,
        /// What is wrong with it.
        source: serde_json::Error,
    },
    /// The labels are not numbered from 0 without gaps.
    #[error("the model's metadata entry 'names' does not number its labels from 0 to {last}", last = .count.saturating_sub(1))]
    LabelNumbers {
        /// How many labels there are.
        count: usize,
    },
}

const NAMES: &str = "names";
const PREPROCESS: &str = "demitasse.preprocess";
const ARCHITECTURE: &str = "demitasse.architecture";
const TEMPERATURE_SCALING: &str = "demitasse.temperature_scaling";
const METRICS: &str = "demitasse.metrics";
const PROVENANCE: &str = "demitasse.provenance";

impl ModelCard {
    /// The card as metadata entries.
    ///
    /// `names` is a JSON object from class number to label, and `task` and `imgsz` are set, because
    /// those are the entries that common tools show. Each of the others is one JSON document.
    pub fn to_metadata(&self) -> BTreeMap<String, String> {
        let names: serde_json::Map<_, _> =
            self.labels.iter().enumerate().map(|(index, label)| (index.to_string(), label.clone().into())).collect();
        let mut metadata = BTreeMap::from([
            (NAMES.to_owned(), serde_json::Value::Object(names).to_string()),
            ("task".to_owned(), "classify".to_owned()),
            ("imgsz".to_owned(), format!("[{}, {}]", self.preprocess.height, self.preprocess.width)),
            (PREPROCESS.to_owned(), json(&self.preprocess)),
            (METRICS.to_owned(), json(&self.metrics)),
            (PROVENANCE.to_owned(), json(&self.provenance)),
        ]);
        if let Some(architecture) = &self.architecture {
            metadata.insert(ARCHITECTURE.to_owned(), json(architecture));
        }
        if let Some(scaling) = &self.temperature_scaling {
            metadata.insert(TEMPERATURE_SCALING.to_owned(), json(scaling));
        }
        metadata
    }

    /// Reads the card from metadata entries; entries that it does not know are left alone.
    ///
    /// # Errors
    /// [`CardError`], where an entry is missing or damaged.
    pub fn from_metadata(metadata: &BTreeMap<String, String>) -> Result<Self, CardError> {
        Ok(Self {
            labels: Self::labels_from_metadata(metadata)?,
            preprocess: required(metadata, PREPROCESS)?,
            architecture: optional(metadata, ARCHITECTURE)?,
            temperature_scaling: optional(metadata, TEMPERATURE_SCALING)?,
            metrics: optional(metadata, METRICS)?.unwrap_or_default(),
            provenance: optional(metadata, PROVENANCE)?.unwrap_or_default(),
        })
    }

    /// Reads only the labels: other projects' files may have them, and nothing else of a card.
    ///
    /// # Errors
    /// [`CardError`], where `names` is missing or damaged.
    pub fn labels_from_metadata(metadata: &BTreeMap<String, String>) -> Result<Vec<String>, CardError> {
        let names: BTreeMap<usize, String> = required(metadata, NAMES)?;
        if names.keys().copied().ne(0..names.len()) {
            return Err(CardError::LabelNumbers { count: names.len() });
        }
        Ok(names.into_values().collect())
    }
}

fn json<T: Serialize>(value: &T) -> String {
    serde_json::to_string(value).expect("plain data with text keys is always JSON")
}

fn optional<T: DeserializeOwned>(
    metadata: &BTreeMap<String, String>,
    key: &'static str,
) -> Result<Option<T>, CardError> {
    let value = metadata.get(key).map(|value| serde_json::from_str(value));
    value.transpose().map_err(|source| CardError::Damaged { key, source })
}

fn required<T: DeserializeOwned>(metadata: &BTreeMap<String, String>, key: &'static str) -> Result<T, CardError> {
    optional(metadata, key)?.ok_or(CardError::Missing { key })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Family, Preset, Temperature};

    fn card() -> ModelCard {
        ModelCard {
            labels: ["Dark", "Green \"unroasted\"", "日本"].map(str::to_owned).to_vec(),
            preprocess: Preset::Torchvision.preprocess(224, 224),
            architecture: Some(Architecture::vgg(Family::Vgg13, 3)),
            temperature_scaling: Some(TemperatureScaling {
                temperature: Temperature::try_from(1.75).expect("in the range"),
                data: "validation side of the run".into(),
                pictures: 158,
                engine: "candle cpu".into(),
            }),
            metrics: vec![Metric { data: "test".into(), engine: "tract".into(), correct: 9, pictures: 10 }],
            provenance: Provenance {
                created_by: "demitasse".into(),
                data: Some(Sha256::of(b"data")),
                ..Provenance::default()
            },
        }
    }

    #[test]
    fn it_survives_the_metadata() {
        assert_eq!(ModelCard::from_metadata(&card().to_metadata()).expect("its own metadata"), card());
    }

    #[test]
    fn what_slimming_cost_survives_too() {
        let mut slim = card();
        slim.provenance.slimming = Some(SlimmingRecord {
            method: "channels removed".into(),
            teacher: Sha256::of(b"teacher"),
            teacher_parameters: 1000,
            parameters: 100,
            pictures: 158,
            lost: 3,
            won: 5,
            mcnemar: crate::mcnemar(3, 5),
            agreement: 149,
            data: "validation side of the run".into(),
            engine: "tract".into(),
            robustness_pictures: 158,
            robustness: vec![crate::RobustnessRow {
                distortion: "rotation".into(),
                strengths: vec!["10°".into(), "30°".into()],
                teacher: vec![150, 140],
                slim: vec![151, 139],
            }],
        });
        assert_eq!(ModelCard::from_metadata(&slim.to_metadata()).expect("its own metadata"), slim);
        // A card of before there was such a record is read as one without.
        assert_eq!(
            ModelCard::from_metadata(&card().to_metadata()).expect("its own metadata").provenance.slimming,
            None
        );
    }

    #[test]
    fn eleven_labels_keep_their_order() {
        let labels: Vec<_> = (0..11).map(|number| format!("class {number}")).collect();
        let metadata = ModelCard { labels: labels.clone(), ..card() }.to_metadata();
        assert_eq!(ModelCard::labels_from_metadata(&metadata).expect("names"), labels);
    }

    #[test]
    fn damage_is_named() {
        let mut metadata = card().to_metadata();
        metadata.insert(PREPROCESS.into(), "{".into());
        let error = ModelCard::from_metadata(&metadata).expect_err("not JSON").to_string();
        assert!(error.contains(PREPROCESS), "{error}");
        let mut metadata = card().to_metadata();
        let scaling = &metadata[TEMPERATURE_SCALING];
        metadata.insert(TEMPERATURE_SCALING.into(), scaling.replace("1.75", "0.0"));
        let error = ModelCard::from_metadata(&metadata).expect_err("nothing is divided by 0").to_string();
        assert!(error.contains(TEMPERATURE_SCALING), "{error}");
        metadata.insert(NAMES.into(), r#"{"0": "a", "2": "b"}"#.into());
        let error = ModelCard::from_metadata(&metadata).expect_err("1 is missing").to_string();
        assert!(error.contains("from 0 to 1"), "{error}");
    }
}
