//! The student that becomes the run in the folder.

use models::{Network, RobustnessRow, RunFolder, Sha256, SlimmingRecord};

use super::{
    MODEL, PickedReport, SlimError, StudentReport, files::TABLE, measure::student_file, report::choice, search::Search,
};
use crate::{
    DataError, EvaluationError, EvaluationRequest, Observer, evaluate, fit::VALIDATION_DATA, robustness::Robustness,
};

/// The files of a student's run that are taken over as they are.
const TAKEN_OVER: [&str; 12] = [
    RunFolder::SPLIT,
    RunFolder::METRICS,
    RunFolder::REPORT,
    RunFolder::SUMMARY,
    RunFolder::PREVIEW,
    RunFolder::ARCHITECTURE,
    "architecture.png",
    "curves.svg",
    "curves.png",
    "confusion.svg",
    "confusion.png",
    RunFolder::CONFIG,
];

impl Search<'_> {
    /// Makes the folder the run of the student that was asked for, or else of the smallest that keeps the budget.
    pub(super) fn pick(&mut self, observer: &mut dyn Observer) -> Result<(), SlimError> {
        let students = &self.slimming.students;
        let chosen = match self.request.pick {
            Some(asked) if asked == 0 || asked > students.len() => {
                let (students, table) = (students.len(), self.folder.file(TABLE));
                return Err(SlimError::NoSuchStudent { asked, students, table });
            }
            Some(asked) => Some(asked),
            None => choice(students, &self.request.budget, &self.slimming.teacher),
        };
        self.slimming.picked = None;
        if let Some(number) = chosen {
            let student = self.slimming.students[number - 1].clone();
            observer.notice(&format!("picked: student {number}"));
            self.slimming.picked = Some(self.materialise(&student, observer)?);
        }
        self.save()
    }

    fn materialise(&mut self, student: &StudentReport, observer: &mut dyn Observer) -> Result<PickedReport, SlimError> {
        let run = RunFolder::open(&self.run_of(&student.run))?;
        let robustness = match self.request.robustness {
            true => Some(self.robustness(&run, observer)?),
            false => None,
        };
        let (network, mut card) = Network::load(&run.file(RunFolder::BEST), &candle_core::Device::Cpu)?;
        card.provenance.slimming = Some(self.record(student, robustness.as_ref()));
        network.save(&self.folder.file(RunFolder::BEST), &card)?;
        for name in TAKEN_OVER {
            self.folder.write(name, &run.read(name)?)?;
        }
        let file = self.folder.file(MODEL);
        let (report, _) = student_file(&self.folder, &file, &self.request.settings)?;
        let unreadable = |source| EvaluationError::from(DataError::Read { path: file.clone(), source });
        let sha256 = Sha256::of_file(&file).map_err(unreadable)?;
        Ok(PickedReport { student: student.number, file, bytes: report.bytes, sha256, robustness })
    }

    /// That of a student; and of the teacher, which is measured once.
    fn robustness(&mut self, run: &RunFolder, observer: &mut dyn Observer) -> Result<Robustness, SlimError> {
        let request = |run: &RunFolder| EvaluationRequest {
            run: run.path().to_owned(),
            pictures: None,
            measuring: self.request.measuring,
            top_k: None,
            mistakes: 0,
            robustness: true,
            explained: Vec::new(),
        };
        let mut measure = |run: &RunFolder| -> Result<Robustness, SlimError> {
            let assessment = evaluate(&request(run), observer)?;
            Ok(assessment.robustness.unwrap_or(Robustness { distortions: Vec::new() }))
        };
        if self.slimming.teacher.robustness.is_none() {
            self.slimming.teacher.robustness = Some(measure(&self.teacher.run)?);
        }
        measure(run)
    }

    fn record(&self, student: &StudentReport, robustness: Option<&Robustness>) -> SlimmingRecord {
        let teacher = &self.slimming.teacher;
        let rows = |(teacher, slim): (&Robustness, &Robustness)| {
            let both = teacher.distortions.iter().zip(&slim.distortions);
            let row = both.map(|(teacher, slim)| RobustnessRow {
                distortion: slim.name.clone(),
                strengths: slim.strengths.iter().map(|result| result.label.clone()).collect(),
                teacher: teacher.strengths.iter().map(|result| result.correct).collect(),
                slim: slim.strengths.iter().map(|result| result.correct).collect(),
            });
            row.collect()
        };
        let settings = &self.request.settings;
        SlimmingRecord {
            method: format!(
                "{}; each fitted for {} epochs to the labels and to the teacher's answers ({} of the objective, temperature {})",
                self.ancestry(student),
                settings.epochs,
                settings.teacher_weight,
                settings.teacher_temperature
            ),
            teacher: teacher.weights,
            teacher_parameters: teacher.parameters,
            parameters: student.parameters,
            pictures: student.file.pictures,
            lost: student.file.lost,
            won: student.file.won,
            mcnemar: student.file.p_value,
            agreement: student.file.agreement,
            data: VALIDATION_DATA.to_owned(),
            engine: student.file.engine.clone(),
            robustness: teacher.robustness.as_ref().zip(robustness).map(rows).unwrap_or_default(),
        }
    }

    /// What was done from the teacher to a student, in order.
    fn ancestry(&self, student: &StudentReport) -> String {
        let parent = |student: &&StudentReport| student.parent.map(|number| &self.slimming.students[number - 1]);
        let mut changes: Vec<_> =
            std::iter::successors(Some(student), parent).map(|student| student.change.as_str()).collect();
        changes.reverse();
        changes.join(", ")
    }
}
