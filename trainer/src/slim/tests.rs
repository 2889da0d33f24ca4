//! Whole searches, with networks that are fitted in a moment.

use std::fs;

use models::{ModelCard, Network};

use super::*;
use crate::{ByteSize, Config, DeviceChoice, EpochStart, FitRequest, HeadKind, ImageSize, fit, sample_data};

/// A teacher of the four roasts, fitted for an epoch.
fn teacher(folder: &Path) -> PathBuf {
    let (pictures, run) = (folder.join("pictures"), folder.join("teacher"));
    sample_data::paint(&pictures, sample_data::SampleOptions { per_class: 6, size: 32, seed: 1 }).expect("pictures");
    let config = Config {
        architecture: models::Family::Vgg11,
        width: 0.125,
        head: HeadKind::Gap,
        image_size: ImageSize { height: 32, width: 32 },
        validation_split: 0.3,
        batch_size: 8,
        epochs: 1,
        learning_rate: 2e-3,
        device: DeviceChoice::Cpu,
        threads: 1,
        ..Config::default()
    };
    let request = FitRequest { pictures: Some(pictures), run: run.clone(), config, ..FitRequest::default() };
    fit(&request, &mut (), &Interrupt::default()).expect("a teacher");
    run
}

fn request(folder: &Path, teacher: &Path, name: &str) -> SlimRequest {
    SlimRequest {
        teacher: teacher.to_owned(),
        run: folder.join(name),
        resume: false,
        settings: SlimSettings {
            image_sizes: vec![ImageSize { height: 32, width: 32 }],
            parameters: 20_000,
            shrink: 0.5,
            smallest: ByteSize(24_000),
            epochs: 1,
            batch_size: 8,
            ..SlimSettings::default()
        },
        budget: SlimBudget { max_drop: 0.9, ..SlimBudget::default() },
        pick: None,
        measuring: Measuring { device: DeviceChoice::Cpu, precision: None, threads: 1, batch_size: 8 },
    }
}

fn search(request: &SlimRequest) -> Slimming {
    slim(request, &mut (), &Interrupt::default()).expect("a search")
}

/// Asks to stop in the training of the student of that number.
struct Stop {
    interrupt: Interrupt,
    student: usize,
}

impl Observer for Stop {
    fn epoch_started(&mut self, _: EpochStart) {
        self.student -= 1;
        if self.student == 0 {
            self.interrupt.request();
        }
    }
}

/// What does not depend on the clock.
fn figures(slimming: &Slimming) -> Vec<(String, u64, usize, usize)> {
    let figures = |student: &StudentReport| {
        let FileReport { bytes, correct, agreement, .. } = student.file;
        (student.widths.to_string(), bytes, correct, agreement)
    };
    slimming.students.iter().map(figures).collect()
}

#[test]
fn a_search_leaves_a_run_a_file_and_a_table_and_gives_the_same_again() {
    let folder = tempfile::tempdir().expect("a folder");
    let teacher = teacher(folder.path());
    let budget = SlimBudget { max_drop: 0.9, max_robustness_drop: Some(0.9), ..SlimBudget::default() };
    let wanted = SlimRequest { budget, ..request(folder.path(), &teacher, "slim") };
    let found = search(&wanted);
    assert_eq!(found.status, Status::Finished);
    assert!(found.students.len() >= 3 && !found.front.is_empty(), "{found:?}");
    let sizes: Vec<_> = found.students.iter().map(|student| student.parameters).collect();
    assert!(sizes[1] <= sizes[0] / 2, "{sizes:?}");
    let table = fs::read_to_string(wanted.run.join(files::TABLE)).expect("a table");
    assert_eq!(table.lines().count(), 1 + found.students.len(), "{table}");
    assert!(wanted.run.join("students.png").exists());

    let picked = found.picked.as_ref().expect("nothing is too bad");
    let student = &found.students[picked.student - 1];
    let (network, card) = Network::load(&wanted.run.join(models::RunFolder::BEST), &candle_core::Device::Cpu)
        .expect("the run of the student");
    assert_eq!(network.architecture().blocks, student.widths.0);
    let record = card.provenance.slimming.expect("what was done");
    assert_eq!((record.teacher, record.parameters), (found.teacher.weights, student.parameters));
    assert_eq!((record.lost, record.won), (student.file.lost, student.file.won));
    assert_eq!(record.robustness.len(), 8);
    let model = runtime::Model::open(&picked.file).expect("a model that serves");
    assert_eq!(model.card().provenance.slimming.as_ref().map(|slimming| slimming.teacher), Some(found.teacher.weights));

    assert!(student.robustness.as_ref().is_some_and(|robustness| robustness.mean_accuracy() > 0.0));

    let again = search(&SlimRequest { budget, ..request(folder.path(), &teacher, "again") });
    assert_eq!(figures(&again), figures(&found));
    let [one, other] = ["slim", "again"].map(|name| fs::read(folder.path().join(name).join(MODEL)).expect("a file"));
    assert!(one == other, "a second search gives another file");
}

#[test]
fn a_search_that_is_stopped_goes_on_to_the_same_students() {
    let folder = tempfile::tempdir().expect("a folder");
    let teacher = teacher(folder.path());
    let whole = search(&request(folder.path(), &teacher, "whole"));
    let parts = request(folder.path(), &teacher, "parts");
    let interrupt = Interrupt::default();
    let mut stop = Stop { interrupt: interrupt.clone(), student: 2 };
    let stopped = slim(&parts, &mut stop, &interrupt).expect("it is saved");
    assert_eq!((stopped.status, stopped.students.len(), stopped.picked), (Status::Interrupted, 1, None));

    let refused = slim(&parts, &mut (), &Interrupt::default()).expect_err("it is there already");
    assert!(matches!(refused, SlimError::AlreadyARun { .. }), "{refused}");
    let mut other = SlimRequest { resume: true, ..parts.clone() };
    other.settings.epochs = 2;
    let error = slim(&other, &mut (), &Interrupt::default()).expect_err("other settings").to_string();
    assert!(error.contains("epochs = 1 there and epochs = 2 here"), "{error}");
    let found = search(&SlimRequest { resume: true, ..parts });
    assert_eq!((found.status, figures(&found)), (Status::Finished, figures(&whole)));
}

#[test]
fn any_student_can_be_picked_afterwards_and_none_is_where_the_budget_is_too_small() {
    let folder = tempfile::tempdir().expect("a folder");
    let teacher = teacher(folder.path());
    let mut wanted = request(folder.path(), &teacher, "slim");
    wanted.budget.max_size = Some(ByteSize(1));
    assert_eq!(search(&wanted).picked, None);
    assert!(!wanted.run.join(models::RunFolder::BEST).exists());

    let first = SlimRequest { resume: true, pick: Some(1), ..wanted.clone() };
    let picked = search(&first).picked.expect("it was asked for");
    let (_, card) = Network::load(&wanted.run.join(models::RunFolder::BEST), &candle_core::Device::Cpu).expect("a run");
    let ModelCard { architecture, .. } = card;
    assert_eq!((picked.student, architecture.map(|found| found.blocks.len())), (1, Some(5)));

    // Without its record the smallest student would fit.
    let sizes = fs::read_dir(wanted.run.join("students"))
        .expect("students")
        .map(|student| fs::metadata(student.expect("a student").path().join(MODEL)).expect("a file").len());
    let smallest = ByteSize(sizes.min().expect("a student"));
    let budget = SlimBudget { max_size: Some(smallest), ..wanted.budget };
    assert_eq!(search(&SlimRequest { resume: true, budget, ..wanted.clone() }).picked, None);
    let budget = SlimBudget { max_size: Some(ByteSize(smallest.0 + 2000)), ..budget };
    let picked = search(&SlimRequest { resume: true, budget, ..wanted.clone() }).picked.expect("room for a record");
    let written = fs::metadata(wanted.run.join(MODEL)).expect("a file").len();
    assert!(picked.bytes == written && (smallest.0 + 1..=smallest.0 + 2000).contains(&written), "{written}");

    let error = slim(&SlimRequest { pick: Some(99), ..first }, &mut (), &Interrupt::default());
    assert!(matches!(error, Err(SlimError::NoSuchStudent { asked: 99, .. })));
    let nowhere = SlimRequest { resume: true, run: folder.path().join("nowhere"), ..wanted.clone() };
    assert!(matches!(slim(&nowhere, &mut (), &Interrupt::default()), Err(SlimError::NoSearch { .. })));
    let mut endless = SlimRequest { run: folder.path().join("endless"), ..wanted };
    endless.settings.shrink = 1.0;
    assert!(matches!(slim(&endless, &mut (), &Interrupt::default()), Err(SlimError::OutOfRange { key: "shrink", .. })));
}

#[test]
fn an_input_that_the_blocks_halve_away_is_refused() {
    let folder = tempfile::tempdir().expect("a folder");
    let teacher = teacher(folder.path());
    let mut wanted = request(folder.path(), &teacher, "slim");
    wanted.settings.image_sizes = vec![ImageSize { height: 16, width: 16 }];
    let error = slim(&wanted, &mut (), &Interrupt::default()).expect_err("too small for five blocks");
    assert!(matches!(error, SlimError::Config(_)), "{error}");
}
