use std::path::Path;

use models::{RobustnessRow, distortion::TRIALS};
use runtime::Model;
use serde::Serialize;

use crate::{
    ExportError, ExportOptions, Progress,
    folded::Step,
    forward::forward,
    pictures::{Inputs, batches_of},
    progress::advance,
    verification::right_answers,
};

/// How a slim file does on distorted pictures, beside the network that it was made from.
#[derive(Clone, Debug, Serialize)]
pub struct RobustnessReport {
    /// How many verification pictures were distorted.
    pub pictures: usize,
    /// What ran the file.
    pub engine: String,
    /// Right answers of both, by what was done to the pictures.
    pub distortions: Vec<RobustnessRow>,
}

impl RobustnessReport {
    /// The mean accuracy over all distortions and strengths: of the network, and of the file.
    pub fn mean_accuracy(&self) -> [f64; 2] {
        let mean = |right: fn(&RobustnessRow) -> &[usize]| {
            let counts: Vec<usize> = self.distortions.iter().flat_map(right).copied().collect();
            counts.iter().sum::<usize>() as f64 / (counts.len() * self.pictures).max(1) as f64
        };
        [mean(|row| &row.teacher), mean(|row| &row.slim)]
    }
}

/// What is compared on distorted pictures.
pub(crate) struct Distorted<'a> {
    /// The network that the file was made from.
    pub(crate) teacher: &'a [Step],
    pub(crate) options: &'a ExportOptions,
    /// What the file is verified with.
    pub(crate) inputs: &'a Inputs,
    /// How many go through the network at once.
    pub(crate) batch: usize,
}

impl Distorted<'_> {
    /// Asks both about the first pictures; nothing where none are to be distorted, or they have no classes.
    pub(crate) fn compare(
        &self,
        file: &Path,
        progress: &mut dyn Progress,
    ) -> Result<Option<RobustnessReport>, ExportError> {
        let pictures = self.options.robustness_pictures.min(self.inputs.len());
        let Some(labels) = self.inputs.labels().filter(|_| pictures > 0) else { return Ok(None) };
        let target = self.options.target;
        let failed = |source| ExportError::Engine { engine: target.engine_name(), source };
        let model =
            Model::builder().engine(target.engine()).threads(self.options.threads).open(file).map_err(failed)?;
        let strengths: usize = TRIALS.iter().map(|trial| trial.strengths.len()).sum();
        progress.start("distorted pictures", strengths * pictures);
        let mut distortions = Vec::with_capacity(TRIALS.len());
        for trial in &TRIALS {
            let mut row = RobustnessRow {
                distortion: trial.name.to_owned(),
                strengths: trial.strengths.iter().map(|&strength| trial.label(strength)).collect(),
                teacher: Vec::new(),
                slim: Vec::new(),
            };
            for &strength in trial.strengths {
                let [mut teacher, mut slim] = [0, 0];
                for range in batches_of(pictures, self.batch) {
                    let labels = &labels[range.clone()];
                    let input =
                        self.inputs.distorted(range, &|picture, number| trial.apply(picture, strength, number))?;
                    let answers = model.logits(&input, labels.len()).map_err(failed)?;
                    slim += right_answers(&answers, model.classes(), labels);
                    let answers = self.teacher_logits(input, labels.len())?;
                    teacher += right_answers(&answers, model.classes(), labels);
                    advance(progress, labels.len())?;
                }
                row.teacher.push(teacher);
                row.slim.push(slim);
            }
            distortions.push(row);
        }
        Ok(Some(RobustnessReport { pictures, engine: model.report().engine.to_owned(), distortions }))
    }

    fn teacher_logits(&self, input: Vec<f32>, pictures: usize) -> Result<Vec<f32>, ExportError> {
        let input = self.inputs.as_tensor(input, pictures)?;
        forward(self.teacher, input, &mut |_, value| Ok(value))
            .and_then(|logits| logits.flatten_all()?.to_vec1())
            .map_err(|source| ExportError::Candle { doing: "answering to distorted pictures", source })
    }
}
