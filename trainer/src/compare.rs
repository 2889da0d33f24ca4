//! Several runs side by side, on the same pictures.

use std::{
    collections::{BTreeSet, HashMap, HashSet},
    path::{Path, PathBuf},
};

use models::{Interval, RunFolder, Sha256, Side, Split, Temperature, mcnemar};
use serde::{Deserialize, Serialize};

use crate::{
    Answers, Config, ConfigError, DataError, EvaluationError, Measuring, Observer,
    calibration::Reliability,
    evaluate::{labelled, validation_side},
    fit::VALIDATION_DATA,
    significance::holm,
    subject::{LabelledPaths, Subject},
};

/// What to compare.
#[derive(Clone, Debug, PartialEq)]
pub struct ComparisonRequest {
    /// The run folders; at least two.
    pub runs: Vec<PathBuf>,
    /// A folder of labelled pictures; none for the validation side, which must be the same in all runs.
    pub pictures: Option<PathBuf>,
    /// With what.
    pub measuring: Measuring,
}

/// Several runs side by side: what `trainer compare --format json` prints.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Comparison {
    /// The pictures: `validation side of the run`, or their folder.
    pub data: String,
    /// How many there are.
    pub pictures: usize,
    /// The runs, in the order in which they were named.
    pub runs: Vec<ComparedRun>,
    /// The settings in which they differ.
    pub settings: Vec<DifferingSetting>,
    /// Each two of them.
    pub pairs: Vec<ComparedPair>,
    /// What must be known to read the numbers rightly.
    pub notes: Vec<String>,
}

/// One run among several.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ComparedRun {
    /// The run folder.
    pub run: PathBuf,
    /// What computed the answers: `candle cpu`.
    pub engine: String,
    /// The network's name: `vgg16`.
    pub architecture: String,
    /// Its parameters, as Keras counts them.
    pub parameters: usize,
    /// Operations that one picture takes.
    pub flops: u64,
    /// Epochs behind the weights.
    pub epochs: u32,
    /// How many of the pictures the network was fitted to.
    pub trained_on: usize,
    /// How many answers were right.
    pub correct: usize,
    /// The share of right answers.
    pub accuracy: f64,
    /// The 95 % interval of the share.
    pub accuracy_interval: Option<Interval>,
    /// Mean cross-entropy in nats, without a temperature.
    pub loss: f64,
    /// Of the probabilities as they are served.
    pub expected_calibration_error: f64,
    /// Whether those are calibrated.
    pub calibrated: bool,
}

/// A setting that is not the same in all runs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DifferingSetting {
    /// The key in `config.toml`.
    pub key: String,
    /// Its value in each run, as TOML; none where it is not set.
    pub values: Vec<Option<String>>,
}

/// Two runs.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ComparedPair {
    /// One run folder.
    pub first: PathBuf,
    /// The other one.
    pub second: PathBuf,
    /// How many pictures both answer alike.
    pub agreeing: usize,
    /// Their share.
    pub agreement: f64,
    /// Pictures that only the first answers rightly.
    pub only_first: usize,
    /// Pictures that only the second answers rightly.
    pub only_second: usize,
    /// McNemar's exact test: how probable so uneven a division is where both are equally good.
    pub p_value: f64,
    /// The same, adjusted for the number of pairs (Holm).
    pub adjusted_p_value: f64,
}

/// Why runs cannot be compared.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ComparisonError {
    /// A run cannot be measured.
    #[error("cannot measure {}", run.display())]
    Run {
        /// The run folder.
        run: PathBuf,
        /// Why not.
        source: EvaluationError,
    },
    /// The settings of a run cannot be read.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The networks tell other classes apart.
    #[error(
        "{} and {} tell other classes apart: {first_labels:?} and {second_labels:?}; compare runs on the same classes",
        first.display(), second.display()
    )]
    Classes {
        /// One run folder.
        first: PathBuf,
        /// The other one.
        second: PathBuf,
        /// The classes of the first.
        first_labels: Vec<String>,
        /// The classes of the second.
        second_labels: Vec<String>,
    },
    /// The runs were validated on other pictures.
    #[error(
        "{} and {} have other validation sides: {missing} of the {pictures} pictures of the first are not in the second, \
         such as {example}{}. Compare runs that were fitted with the same --seed and --validation-split to the same \
         folder, or name a folder of pictures that none of them has seen with --pictures",
        first.display(), second.display(), trained(*trained_on)
    )]
    Pictures {
        /// One run folder.
        first: PathBuf,
        /// The other one.
        second: PathBuf,
        /// Pictures of the first one's validation side.
        pictures: usize,
        /// How many of those the validation side of the second lacks.
        missing: usize,
        /// How many of those the second was fitted to.
        trained_on: usize,
        /// One of them.
        example: String,
    },
}

fn trained(count: usize) -> String {
    match count {
        0 => String::new(),
        count => format!(", and the second was fitted to {count} of them"),
    }
}

/// Measures several runs on the same pictures, and sets them side by side.
///
/// # Errors
/// [`ComparisonError`], before anything is measured where the classes or the pictures are not the same.
///
/// # Panics
/// Where no run is named.
pub fn compare(request: &ComparisonRequest, observer: &mut dyn Observer) -> Result<Comparison, ComparisonError> {
    let sources = request.runs.iter().map(|run| Source::open(run)).collect::<Result<Vec<_>, _>>()?;
    let first = &sources[0];
    for other in &sources[1..] {
        first.check_classes(other)?;
        if request.pictures.is_none() {
            first.check_pictures(other)?;
            other.check_pictures(first)?;
        }
    }
    let (mut runs, mut answers) = (Vec::new(), Vec::<Answers>::new());
    for source in &sources {
        let (run, answered) = source.measure(request, observer)?;
        runs.push(run);
        answers.push(answered);
    }
    let data = request.pictures.as_ref();
    Ok(Comparison {
        data: data.map_or_else(|| VALIDATION_DATA.to_owned(), |pictures| pictures.display().to_string()),
        pictures: answers[0].len(),
        settings: differing_settings(&sources),
        pairs: pairs(&request.runs, &answers),
        notes: notes(&runs, request.pictures.is_none()),
        runs,
    })
}

/// A run, read and not yet measured.
struct Source {
    run: RunFolder,
    split: Split,
    config: Config,
}

impl Source {
    fn open(path: &Path) -> Result<Self, ComparisonError> {
        let failed = |source: EvaluationError| ComparisonError::Run { run: path.to_owned(), source };
        let run = RunFolder::open(path).map_err(|error| failed(error.into()))?;
        let split = run.split().map_err(|error| failed(error.into()))?;
        let config = Config::from_file(&run.file(RunFolder::CONFIG))?;
        Ok(Self { run, split, config })
    }

    fn path(&self) -> PathBuf {
        self.run.path().to_owned()
    }

    fn check_classes(&self, other: &Self) -> Result<(), ComparisonError> {
        if self.split.labels == other.split.labels {
            return Ok(());
        }
        Err(ComparisonError::Classes {
            first: self.path(),
            second: other.path(),
            first_labels: self.split.labels.clone(),
            second_labels: other.split.labels.clone(),
        })
    }

    /// Checks that every picture of this validation side is, with its class, in the other's too.
    fn check_pictures(&self, other: &Self) -> Result<(), ComparisonError> {
        let mut there: HashMap<(Sha256, u32), usize> = HashMap::new();
        for file in other.split.side(Side::Validation) {
            *there.entry((file.sha256, file.label)).or_default() += 1;
        }
        let mut missing = Vec::new();
        for file in self.split.side(Side::Validation) {
            match there.get_mut(&(file.sha256, file.label)) {
                Some(count) if *count > 0 => *count -= 1,
                _ => missing.push(file),
            }
        }
        let Some(example) = missing.first() else { return Ok(()) };
        let trained: HashSet<Sha256> = other.split.side(Side::Training).map(|file| file.sha256).collect();
        Err(ComparisonError::Pictures {
            first: self.path(),
            second: other.path(),
            pictures: self.split.side(Side::Validation).count(),
            missing: missing.len(),
            trained_on: missing.iter().filter(|file| trained.contains(&file.sha256)).count(),
            example: example.path.clone(),
        })
    }

    fn measure(
        &self,
        request: &ComparisonRequest,
        observer: &mut dyn Observer,
    ) -> Result<(ComparedRun, Answers), ComparisonError> {
        self.try_measure(request, observer).map_err(|source| ComparisonError::Run { run: self.path(), source })
    }

    fn try_measure(
        &self,
        request: &ComparisonRequest,
        observer: &mut dyn Observer,
    ) -> Result<(ComparedRun, Answers), EvaluationError> {
        observer.notice(&format!("measuring {}", self.run.path().display()));
        let subject = Subject::load(&self.run, &request.measuring, observer)?;
        let (files, trained_on) = self.files(request.pictures.as_deref(), &subject)?;
        let answers = subject.answer(&files, observer)?;
        let (tally, architecture) = (answers.tally(), subject.network.architecture());
        let temperature: Option<Temperature> =
            subject.card.temperature_scaling.as_ref().map(|scaling| scaling.temperature);
        let run = ComparedRun {
            run: self.path(),
            engine: subject.device.engine(),
            architecture: architecture.name.clone(),
            parameters: architecture.parameters(),
            flops: architecture.flops(),
            epochs: subject.card.provenance.epochs,
            trained_on,
            correct: tally.correct(),
            accuracy: tally.accuracy(),
            accuracy_interval: Interval::wilson(tally.correct(), tally.pictures()),
            loss: tally.loss(),
            expected_calibration_error: Reliability::new(&answers, temperature).expected_calibration_error,
            calibrated: temperature.is_some(),
        };
        Ok((run, answers))
    }

    /// The pictures, in an order that is the same for all runs, and how many of them this one was fitted to.
    fn files(&self, pictures: Option<&Path>, subject: &Subject) -> Result<(LabelledPaths, usize), EvaluationError> {
        let files = match pictures {
            None => validation_side(&self.run, &self.split)?,
            Some(pictures) => labelled(pictures, &subject.card)?,
        };
        let digested = files.into_iter().map(|(path, label)| match Sha256::of_file(&path) {
            Ok(digest) => Ok((digest, label, path)),
            Err(source) => Err(DataError::Read { path, source }),
        });
        let mut digested = digested.collect::<Result<Vec<_>, _>>()?;
        // By content, because runs may list the same pictures in other orders and under other paths.
        digested.sort();
        let trained: HashSet<Sha256> = self.split.side(Side::Training).map(|file| file.sha256).collect();
        let trained_on = digested.iter().filter(|(digest, ..)| trained.contains(digest)).count();
        Ok((digested.into_iter().map(|(_, label, path)| (path, label)).collect(), trained_on))
    }
}

fn differing_settings(sources: &[Source]) -> Vec<DifferingSetting> {
    let tables: Vec<toml::Table> = sources.iter().map(|source| source.config.table()).collect();
    let keys: BTreeSet<&String> = tables.iter().flat_map(toml::Table::keys).collect();
    let value = |table: &toml::Table, key: &str| table.get(key).map(toml::Value::to_string);
    let setting = |key: &String| DifferingSetting {
        key: key.clone(),
        values: tables.iter().map(|table| value(table, key)).collect(),
    };
    keys.into_iter().map(setting).filter(|setting| setting.values.iter().any(|it| *it != setting.values[0])).collect()
}

fn pairs(runs: &[PathBuf], answers: &[Answers]) -> Vec<ComparedPair> {
    let mut pairs = Vec::new();
    for second in 1..runs.len() {
        for first in 0..second {
            pairs.push(pair((&runs[first], &answers[first]), (&runs[second], &answers[second])));
        }
    }
    let p_values: Vec<f64> = pairs.iter().map(|pair| pair.p_value).collect();
    for (pair, adjusted) in pairs.iter_mut().zip(holm(&p_values)) {
        pair.adjusted_p_value = adjusted;
    }
    pairs
}

fn pair((first, one): (&Path, &Answers), (second, other): (&Path, &Answers)) -> ComparedPair {
    let (mut agreeing, mut only_first, mut only_second) = (0, 0, 0);
    for ((answer, counterpart), label) in one.classes().iter().zip(other.classes()).zip(one.labels()) {
        agreeing += usize::from(*answer == counterpart);
        only_first += usize::from(answer == label && counterpart != *label);
        only_second += usize::from(answer != label && counterpart == *label);
    }
    let p_value = mcnemar(only_first, only_second);
    ComparedPair {
        first: first.to_owned(),
        second: second.to_owned(),
        agreeing,
        agreement: agreeing as f64 / one.len().max(1) as f64,
        only_first,
        only_second,
        p_value,
        adjusted_p_value: p_value,
    }
}

fn notes(runs: &[ComparedRun], own_side: bool) -> Vec<String> {
    let mut notes = Vec::new();
    if own_side {
        notes.push(
            "each run chose its epoch by these pictures, so all accuracies are likely a little lower on others"
                .to_owned(),
        );
    }
    for run in runs.iter().filter(|run| run.trained_on > 0) {
        notes.push(format!("{} was fitted to {} of these pictures", run.run.display(), run.trained_on));
    }
    notes
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answers(answered: &[u32]) -> Answers {
        let mut answers = Answers::new(2);
        answered
            .iter()
            .for_each(|&answer| answers.extend(&[0, 1].map(|class| f32::from(u8::from(class == answer))), &[0]));
        answers
    }

    #[test]
    fn each_two_runs_are_compared_picture_by_picture() {
        let runs = ["a", "b", "c"].map(PathBuf::from);
        let found = pairs(&runs, &[answers(&[0, 0, 0, 1, 1]), answers(&[0, 1, 0, 0, 0]), answers(&[1; 5])]);
        let summary: Vec<_> = found
            .iter()
            .map(|pair| (pair.first.to_str(), pair.second.to_str(), pair.agreeing, pair.only_first, pair.only_second))
            .collect();
        let expected =
            [(Some("a"), Some("b"), 2, 1, 2), (Some("a"), Some("c"), 2, 3, 0), (Some("b"), Some("c"), 1, 4, 0)];
        assert_eq!(summary, expected);
        assert_eq!((found[2].p_value, found[2].adjusted_p_value), (0.125, 0.375));
    }
}
