//! The student that becomes the run in the folder.

use std::{fs, io};

use models::{Network, RobustnessRow, RunFolder, RunFolderError, Sha256, SlimmingRecord};

use super::{
    MODEL, PickedReport, SlimError, StudentReport, files::TABLE, measure::student_file, report::eligible,
    search::Search,
};
use crate::{
    ByteSize, DataError, EvaluationError, EvaluationRequest, Observer, evaluate, figures::percent,
    fit::VALIDATION_DATA, robustness::Robustness,
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

/// Where the run of a student lies until its file is known to keep the budget.
const STAGE: &str = ".picked";

impl Search<'_> {
    /// Makes the folder the run of the student that was asked for, or else of the smallest that keeps the budget.
    pub(super) fn pick(&mut self, observer: &mut dyn Observer) -> Result<(), SlimError> {
        let students = self.slimming.students.len();
        let asked = self.request.pick;
        let candidates = match asked {
            Some(asked) if asked == 0 || asked > students => {
                return Err(SlimError::NoSuchStudent { asked, students, table: self.folder.file(TABLE) });
            }
            Some(asked) => vec![asked],
            None => eligible(&self.slimming.students, &self.request.budget, &self.slimming.teacher),
        };
        self.slimming.picked = None;
        for number in candidates {
            let is_robust = self.is_robust(number, observer)?;
            if asked.is_none() && !is_robust {
                continue;
            }
            let picked = self.staged(number)?;
            // With the record of what was done the file is a little larger than the student's own.
            let most = self.request.budget.max_size.map_or(u64::MAX, |ByteSize(most)| most);
            if asked.is_none() && picked.bytes > most {
                let bytes = picked.bytes;
                observer
                    .notice(&format!("student {number}: {bytes} bytes with the record of what was done, above {most}"));
                continue;
            }
            observer.notice(&format!("picked: student {number}"));
            self.take_over()?;
            self.slimming.picked = Some(picked);
            break;
        }
        self.clear_stage()?;
        self.save()
    }

    /// Whether a student's accuracy on distorted pictures is near enough to the teacher's, both of which are measured once.
    fn is_robust(&mut self, number: usize, observer: &mut dyn Observer) -> Result<bool, SlimError> {
        let Some(max_drop) = self.request.budget.max_robustness_drop else { return Ok(true) };
        let teacher = match self.slimming.teacher.robustness.take() {
            Some(robustness) => robustness,
            None => self.robustness(&self.teacher.run, observer)?,
        };
        let student = &self.slimming.students[number - 1];
        let own = match &student.robustness {
            Some(robustness) => robustness.clone(),
            None => self.robustness(&RunFolder::open(&self.run_of(&student.run))?, observer)?,
        };
        let (found, expected) = (own.mean_accuracy(), teacher.mean_accuracy());
        let [own_percent, expected_percent] = [found, expected].map(percent);
        observer.notice(&format!(
            "student {number}: {own_percent} right on distorted pictures (the teacher {expected_percent})"
        ));
        self.slimming.students[number - 1].robustness = Some(own);
        self.slimming.teacher.robustness = Some(teacher);
        self.save()?;
        Ok(found + max_drop >= expected)
    }

    /// What a run's best weights answer to distorted pictures of its validation side.
    fn robustness(&self, run: &RunFolder, observer: &mut dyn Observer) -> Result<Robustness, SlimError> {
        let request = EvaluationRequest {
            run: run.path().to_owned(),
            pictures: None,
            measuring: self.request.measuring,
            top_k: None,
            mistakes: 0,
            robustness: true,
            explained: Vec::new(),
        };
        Ok(evaluate(&request, observer)?.robustness.unwrap_or(Robustness { distortions: Vec::new() }))
    }

    /// Writes the run of a student, and the file that says what was done, beside the folder's own.
    fn staged(&self, number: usize) -> Result<PickedReport, SlimError> {
        let student = &self.slimming.students[number - 1];
        let run = RunFolder::open(&self.run_of(&student.run))?;
        let stage = RunFolder::create(&self.folder.file(STAGE))?;
        let (network, mut card) = Network::load(&run.file(RunFolder::BEST), &candle_core::Device::Cpu)?;
        card.provenance.slimming = Some(self.record(student));
        network.save(&stage.file(RunFolder::BEST), &card)?;
        for name in TAKEN_OVER {
            stage.write(name, &run.read(name)?)?;
        }
        let file = stage.file(MODEL);
        let (report, _) = student_file(&stage, &file, &self.request.settings)?;
        let sha256 = Sha256::of_file(&file)
            .map_err(|source| EvaluationError::from(DataError::Read { path: file.clone(), source }))?;
        Ok(PickedReport { student: number, file: self.folder.file(MODEL), bytes: report.bytes, sha256 })
    }

    /// Gives the files of the stage their places.
    fn take_over(&self) -> Result<(), SlimError> {
        let stage = self.folder.file(STAGE);
        for name in TAKEN_OVER.into_iter().chain([RunFolder::BEST, MODEL]) {
            let path = self.folder.file(name);
            fs::rename(stage.join(name), &path).map_err(|source| RunFolderError::Write { path, source })?;
        }
        Ok(())
    }

    /// Removes the stage.
    fn clear_stage(&self) -> Result<(), SlimError> {
        let path = self.folder.file(STAGE);
        match fs::remove_dir_all(&path) {
            Err(source) if source.kind() != io::ErrorKind::NotFound => {
                Err(RunFolderError::Write { path, source }.into())
            }
            _ => Ok(()),
        }
    }

    fn record(&self, student: &StudentReport) -> SlimmingRecord {
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
            robustness_pictures: student.file.pictures,
            robustness: teacher.robustness.as_ref().zip(student.robustness.as_ref()).map(rows).unwrap_or_default(),
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
