mod initial_weights;
mod teacher;

use std::{fs, path::Path};

use models::{ModelCard, RunFolder, Side};

use super::*;
use crate::{
    Config, DeviceChoice, EpochMetrics, EpochStart, EvaluationError, EvaluationRequest, HeadKind, ImageSize, Measuring,
    ScheduleKind, Status, StepProgress,
    data::{Folders, split},
    evaluate, evaluation_page,
};

/// Two classes of six flat pictures, which differ in colour and a little in shade.
fn pictures() -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("a folder");
    for (class, colour) in [("blue", [30, 60, 200]), ("red", [200, 60, 30])] {
        fs::create_dir(folder.path().join(class)).expect("a class");
        for number in 0..6_u8 {
            let shade = |x: u32, y: u32| image::Rgb(colour.map(|level: u8| level + 4 * number + (x * y % 7) as u8));
            let path = folder.path().join(class).join(format!("{number}.png"));
            image::RgbImage::from_fn(40, 36, shade).save(path).expect("a picture");
        }
    }
    folder
}

/// A network with everything that has a state: batch normalisation, dropout, Adam, a schedule.
fn config() -> Config {
    Config {
        architecture: models::Family::Vgg11,
        width: 0.0625,
        head: HeadKind::Gap,
        batch_norm: true,
        dropout: 0.3,
        image_size: ImageSize { height: 32, width: 32 },
        batch_size: 3,
        validation_split: 0.4,
        epochs: 3,
        learning_rate: 2e-3,
        decay_steps: 2,
        device: DeviceChoice::Cpu,
        threads: 2,
        ..Config::default()
    }
}

fn request(pictures: &Path, run: &Path, resume: bool, config: Config) -> FitRequest {
    let pictures = Some(pictures.to_owned());
    FitRequest { pictures, run: run.to_owned(), resume, config, ..FitRequest::default() }
}

fn fit_through(pictures: &Path, run: &Path, config: Config) -> Report {
    fit(&request(pictures, run, false, config), &mut (), &Interrupt::default()).expect("a sound run")
}

fn resume(pictures: &Path, run: &Path, config: Config) -> Result<Report, FitError> {
    fit(&request(pictures, run, true, config), &mut (), &Interrupt::default())
}

/// A moment at which a run is asked to stop.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Moment {
    AfterSteps(usize),
    InTheFirstValidation,
}

struct Stop {
    interrupt: Interrupt,
    moment: Moment,
    steps: usize,
}

impl Observer for Stop {
    fn stepped(&mut self, _: StepProgress) {
        self.steps += 1;
        if self.moment == Moment::AfterSteps(self.steps) {
            self.interrupt.request();
        }
    }

    fn validated(&mut self, done: usize, total: usize) {
        if self.moment == Moment::InTheFirstValidation && done < total {
            self.interrupt.request();
        }
    }
}

/// The tensors of a file of weights, without its header, in which times differ from run to run.
fn tensors(path: &Path) -> Vec<u8> {
    let bytes = fs::read(path).expect("a file of weights");
    let header = u64::from_le_bytes(bytes[..8].try_into().expect("eight bytes")) as usize;
    bytes[8 + header..].to_vec()
}

fn without_times(rows: Vec<EpochMetrics>) -> Vec<EpochMetrics> {
    rows.into_iter().map(|row| EpochMetrics { seconds: 0.0, pictures_per_second: 0.0, ..row }).collect()
}

fn rows(run: &Path) -> Vec<EpochMetrics> {
    let mut reader = csv::Reader::from_path(run.join(RunFolder::METRICS)).expect("a table");
    without_times(reader.deserialize().collect::<Result<_, _>>().expect("rows of metrics"))
}

fn assert_same_run(found: &Path, expected: &Path) {
    let (last, best) = (RunFolder::LAST, RunFolder::BEST);
    assert!(
        tensors(&found.join(last)) == tensors(&expected.join(last)),
        "weights and optimizer's state after the last step"
    );
    assert!(
        fs::read(found.join(best)).expect("weights") == fs::read(expected.join(best)).expect("weights"),
        "best weights"
    );
    assert_eq!(rows(found), rows(expected));
}

#[test]
fn a_run_that_is_stopped_anywhere_and_resumed_gives_the_same_bits() {
    let (pictures, runs) = (pictures(), tempfile::tempdir().expect("a folder"));
    let whole = runs.path().join("whole");
    fit_through(pictures.path(), &whole, config());
    // Eight training pictures are three steps an epoch: in an epoch, at its last step, in a later one.
    let moments = [1, 3, 5].map(Moment::AfterSteps).into_iter().chain([Moment::InTheFirstValidation]);
    for (number, moment) in moments.enumerate() {
        let run = runs.path().join(format!("stopped-{number}"));
        let interrupt = Interrupt::default();
        let mut stop = Stop { interrupt: interrupt.clone(), moment, steps: 0 };
        let report = fit(&request(pictures.path(), &run, false, config()), &mut stop, &interrupt).expect("it is saved");
        assert_eq!(report.status, Status::Interrupted, "{moment:?}");
        let report = resume(pictures.path(), &run, config()).expect("it goes on");
        assert_eq!((report.status, report.epochs), (Status::Finished, 3), "{moment:?}");
        assert_same_run(&run, &whole);
    }
}

#[test]
fn a_finished_run_goes_on_for_more_epochs_as_if_it_had_not_stopped() {
    let (pictures, runs) = (pictures(), tempfile::tempdir().expect("a folder"));
    let (whole, run) = (runs.path().join("whole"), runs.path().join("parts"));
    fit_through(pictures.path(), &whole, config());
    fit_through(pictures.path(), &run, Config { epochs: 1, ..config() });
    let request = FitRequest { pictures: None, ..request(pictures.path(), &run, true, config()) };
    fit(&request, &mut (), &Interrupt::default()).expect("it goes on, and knows its pictures");
    assert_same_run(&run, &whole);
    assert!(matches!(
        resume(pictures.path(), &run, Config { epochs: 2, ..config() }),
        Err(FitError::FewerEpochs { done: 3, asked: 2 })
    ));
}

#[test]
fn a_kill_between_two_files_leaves_a_run_that_resumes_to_the_same_bits() {
    let (pictures, runs) = (pictures(), tempfile::tempdir().expect("a folder"));
    // Without a validation side the training loss decides which weights are best, and it falls.
    let config = |epochs| Config { epochs, validation_split: 0.0, dropout: 0.0, ..config() };
    let (before, after) = (runs.path().join("before"), runs.path().join("after"));
    fit_through(pictures.path(), &before, config(1));
    let report = fit_through(pictures.path(), &after, config(2));
    assert_eq!(report.best.expect("two epochs").epoch, 2, "the second epoch has the lower loss");

    // The better weights are written, the checkpoint is not yet; then the checkpoint is, but they have no name yet.
    for (name, last) in [("first", &before), ("second", &after)] {
        let run = runs.path().join(name);
        fs::create_dir(&run).expect("a folder");
        for file in [RunFolder::CONFIG, RunFolder::SPLIT, RunFolder::BEST] {
            fs::copy(before.join(file), run.join(file)).expect("a copy");
        }
        fs::copy(last.join(RunFolder::LAST), run.join(RunFolder::LAST)).expect("a copy");
        fs::copy(after.join(RunFolder::BEST), run.join(".best-next.safetensors")).expect("a copy");
        resume(pictures.path(), &run, config(2)).expect("it goes on");
        assert_same_run(&run, &after);
        assert!(!run.join(".best-next.safetensors").exists());
    }

    let run = runs.path().join("nothing-saved");
    fs::create_dir(&run).expect("a folder");
    for file in [RunFolder::CONFIG, RunFolder::SPLIT] {
        fs::copy(before.join(file), run.join(file)).expect("a copy");
    }
    resume(pictures.path(), &run, config(2)).expect("it begins again");
    assert_same_run(&run, &after);

    let run = runs.path().join("no-settings");
    fs::create_dir(&run).expect("a folder");
    fs::copy(before.join(RunFolder::SPLIT), run.join(RunFolder::SPLIT)).expect("a copy");
    fit_through(pictures.path(), &run, config(2));
    assert_same_run(&run, &after);
}

#[test]
fn plateaus_patience_variations_and_mixtures_go_on_as_if_nothing_had_stopped_them() {
    let (pictures, runs) = (pictures(), tempfile::tempdir().expect("a folder"));
    let config = Config {
        schedule: ScheduleKind::Plateau,
        reduce_patience: 0,
        warmup_steps: 2,
        patience: Some(2),
        epochs: 12,
        clip_norm: Some(0.5),
        weight_decay: 0.01,
        label_smoothing: 0.1,
        class_weights: "red=2".parse().expect("a list"),
        augment: "default,noise,cutout,mixup".parse().expect("known kinds"),
        ..config()
    };
    let whole = runs.path().join("whole");
    let expected = fit_through(pictures.path(), &whole, config.clone());
    let best = expected.best.as_ref().expect("an epoch").epoch;
    assert_eq!(expected.stopped_early, expected.epochs < 12);
    assert!(!expected.stopped_early || expected.epochs == best + 2, "{best} of {}", expected.epochs);
    assert!(rows(&whole).iter().all(|row| row.gradient_norm.is_some_and(|norm| norm > 0.0)));
    // Stopped again and again, it comes to the same end.
    let run = runs.path().join("stopped");
    for go_on in std::iter::once(false).chain(std::iter::repeat(true)) {
        let interrupt = Interrupt::default();
        let mut stop = Stop { interrupt: interrupt.clone(), moment: Moment::AfterSteps(5), steps: 0 };
        let request = request(pictures.path(), &run, go_on, config.clone());
        let report = fit(&request, &mut stop, &interrupt).expect("it is saved");
        if report.status == Status::Finished {
            break;
        }
    }
    assert_same_run(&run, &whole);
}

#[test]
fn weights_that_no_longer_get_better_end_the_run_unless_it_is_given_more_patience() {
    let (pictures, runs) = (pictures(), tempfile::tempdir().expect("a folder"));
    let run = runs.path().join("run");
    // Steps too small to move a weight, so that the first epoch stays the best.
    let still = Config { learning_rate: 1e-30, batch_norm: false, dropout: 0.0, epochs: 9, ..config() };
    let patient = |patience| Config { patience: Some(patience), ..still.clone() };
    let report = fit_through(pictures.path(), &run, patient(2));
    assert_eq!((report.epochs, report.stopped_early, report.status), (3, true, Status::Finished));
    let again = resume(pictures.path(), &run, patient(2)).expect("nothing is left to do");
    assert_eq!((again.epochs, again.stopped_early), (3, true));
    let report = resume(pictures.path(), &run, patient(4)).expect("it goes on");
    assert_eq!((report.epochs, report.stopped_early), (5, true));
    let report = resume(pictures.path(), &run, still).expect("it goes on to its end");
    assert_eq!((report.epochs, report.stopped_early), (9, false));
}

#[test]
fn settings_that_do_not_suit_the_pictures_are_named() {
    let (pictures, runs) = (pictures(), tempfile::tempdir().expect("a folder"));
    let refused = |config: Config| {
        let request = request(pictures.path(), &runs.path().join("run"), false, config);
        fit(&request, &mut (), &Interrupt::default()).expect_err("unsuitable").to_string()
    };
    let unknown = Config { class_weights: "rde=2".parse().expect("a list"), ..config() };
    let message = refused(unknown);
    assert!(message.contains("'rde'") && message.contains("red"), "{message}");
    // Three epochs of three steps.
    let long = Config { schedule: ScheduleKind::OneCycle, warmup_steps: 9, ..config() };
    let message = refused(long);
    assert!(message.contains("--warmup-steps") && message.contains("the run's 9"), "{message}");
    assert!(!runs.path().join("run").exists(), "nothing was written");
}

#[test]
fn a_range_test_follows_its_rates_and_repeats_itself() {
    let pictures = pictures();
    let asked = RangeTestRequest {
        pictures: pictures.path().to_owned(),
        config: Config { augment: "default,mixup".parse().expect("known kinds"), ..config() },
        lowest: 1e-5,
        highest: 1.0,
        steps: 20,
    };
    let test =
        || range_test(&asked, &mut (), &Interrupt::default()).expect("sound pictures").expect("it was not stopped");
    let first = test();
    assert!(!first.points.is_empty() && first.points.len() <= 20);
    for (step, point) in first.points.iter().enumerate() {
        let expected = 1e-5 * 1e5f64.powf(step as f64 / 20.0);
        assert!((point.learning_rate / expected - 1.0).abs() < 1e-12, "step {step}: {}", point.learning_rate);
        assert!(point.loss.is_finite() && point.smoothed.is_finite());
    }
    assert_eq!(test(), first);
    let interrupt = Interrupt::default();
    interrupt.request();
    assert_eq!(range_test(&asked, &mut (), &interrupt).expect("no error"), None);
    let wrong = RangeTestRequest { highest: 1e-6, ..asked };
    let message = range_test(&wrong, &mut (), &Interrupt::default()).expect_err("it falls").to_string();
    assert!(message.contains("highest is 0.000001"), "{message}");
}

#[test]
fn a_run_is_never_overwritten_nor_resumed_with_other_settings_or_data() {
    let (pictures, runs) = (pictures(), tempfile::tempdir().expect("a folder"));
    let run = runs.path().join("run");
    fit_through(pictures.path(), &run, Config { epochs: 1, ..config() });

    let again = fit(&request(pictures.path(), &run, false, config()), &mut (), &Interrupt::default());
    assert!(matches!(again, Err(FitError::AlreadyARun { path }) if path == run));

    let error = resume(pictures.path(), &run, Config { batch_size: 5, ..config() }).expect_err("another batch size");
    assert!(error.to_string().contains("batch_size is 3 there and 5 here"), "{error}");

    let path = pictures.path().join("red/3.png");
    image::RgbImage::from_pixel(2, 2, image::Rgb([0; 3])).save(&path).expect("a picture");
    let error = resume(pictures.path(), &run, config()).expect_err("another picture");
    assert!(matches!(&error, FitError::Data(DataError::Changed { path: changed, .. }) if *changed == path), "{error}");
}

#[test]
fn damaged_weights_are_named() {
    let (pictures, runs) = (pictures(), tempfile::tempdir().expect("a folder"));
    let run = runs.path().join("run");
    fit_through(pictures.path(), &run, Config { epochs: 1, ..config() });
    let last = run.join(RunFolder::LAST);
    let bytes = fs::read(&last).expect("weights");
    for length in [0, 7, 1000, bytes.len() - 1] {
        fs::write(&last, &bytes[..length]).expect("a file");
        let error = resume(pictures.path(), &run, config()).expect_err("truncated").to_string();
        assert!(error.contains(RunFolder::LAST), "{length} bytes: {error}");
    }
    fs::copy(run.join(RunFolder::BEST), &last).expect("a copy");
    let error = resume(pictures.path(), &run, config()).expect_err("no optimizer's state").to_string();
    assert!(error.contains(RunFolder::LAST) && error.contains("optimizer"), "{error}");

    fs::write(&last, &bytes).expect("a file");
    fs::copy(&last, run.join(RunFolder::BEST)).expect("a copy");
    let error = resume(pictures.path(), &run, config()).expect_err("another file").to_string();
    assert!(error.contains(RunFolder::BEST), "{error}");
}

#[test]
fn no_epoch_writes_the_initial_weights_as_a_whole_run() {
    let (pictures, runs) = (pictures(), tempfile::tempdir().expect("a folder"));
    let run = runs.path().join("run");
    let config = Config { epochs: 0, ..config() };
    let report = fit_through(pictures.path(), &run, config.clone());
    let best = report.best.clone().expect("the initial weights");
    assert_eq!((report.epochs, best.epoch), (0, 0));
    assert!(report.seconds.is_sign_positive(), "no epoch takes {} s", report.seconds);
    for file in [
        "config.toml",
        "split.json",
        "metrics.csv",
        "curves.svg",
        "curves.png",
        "confusion.svg",
        "confusion.png",
        "preview.png",
        "architecture.svg",
        "architecture.png",
        "summary.txt",
        "report.json",
        "best.safetensors",
        "last.safetensors",
    ] {
        assert!(run.join(file).is_file(), "{file}");
    }
    let names: Vec<_> = fs::read_dir(&run).expect("a folder").map(|entry| entry.expect("a file").file_name()).collect();
    assert_eq!(names.len(), 14, "{names:?}");

    let (network, card) =
        models::Network::load(&run.join(RunFolder::BEST), &candle_core::Device::Cpu).expect("weights");
    let initial = models::Network::new(network.architecture(), u64::from(config.seed), &candle_core::Device::Cpu);
    for (name, tensor) in initial.expect("a network").tensors() {
        let values = |tensor: &candle_core::Tensor| tensor.flatten_all().and_then(|t| t.to_vec1::<f32>()).expect("f32");
        assert_eq!(values(&tensor), values(&network.tensors()[&name]), "{name}");
    }
    let validation = best.validation.expect("four of twelve pictures");
    let ModelCard { labels, metrics, provenance, .. } = card;
    assert_eq!(labels, ["blue", "red"]);
    assert_eq!((metrics[0].correct, metrics[0].pictures), (validation.correct, 4));
    assert_eq!((metrics[0].engine.as_str(), provenance.epochs), ("candle cpu", 0));
    assert_eq!(provenance.data, Some(report.data));
    let written: Report =
        serde_json::from_slice(&fs::read(run.join(RunFolder::REPORT)).expect("a report")).expect("JSON");
    assert_eq!(written, report);
}

#[test]
fn a_step_size_beyond_reason_is_an_error_that_says_so() {
    let (pictures, runs) = (pictures(), tempfile::tempdir().expect("a folder"));
    let run = runs.path().join("run");
    let wild = Config { learning_rate: 1e30, batch_norm: false, ..config() };
    let error = fit(&request(pictures.path(), &run, false, wild), &mut (), &Interrupt::default()).expect_err("wild");
    assert!(matches!(error, FitError::Diverged { epoch: 1, saved_epochs: 0, .. }), "{error}");
    assert!(
        error.to_string().contains("--learning-rate") && error.to_string().contains("nothing was saved"),
        "{error}"
    );
    assert!(!run.join(RunFolder::LAST).exists());
}

#[test]
fn a_bad_picture_of_either_side_is_named_before_the_first_step() {
    struct Steps(usize);
    impl Observer for Steps {
        fn epoch_started(&mut self, _: EpochStart) {
            self.0 += 1;
        }
    }
    let (pictures, runs) = (pictures(), tempfile::tempdir().expect("a folder"));
    let (folders, settings) = (Folders::of(pictures.path()), config().split_settings());
    let split = split(&folders, &settings, &mut (), &Interrupt::default()).expect("pictures");
    for side in [Side::Validation, Side::Training] {
        let file = &split.side(side).next().expect("one").path;
        let sound = fs::read(pictures.path().join(file)).expect("a picture");
        fs::write(pictures.path().join(file), &sound[..sound.len() / 2]).expect("a file");
        let mut steps = Steps(0);
        let request = request(pictures.path(), &runs.path().join(format!("{side:?}")), false, config());
        let error = fit(&request, &mut steps, &Interrupt::default()).expect_err("a damaged picture").to_string();
        assert!(error.contains(file), "{error}");
        assert_eq!(steps.0, 0);
        fs::write(pictures.path().join(file), sound).expect("a file");
    }
}

#[test]
fn the_best_weights_measure_again_what_the_report_says() {
    let (pictures, runs) = (pictures(), tempfile::tempdir().expect("a folder"));
    let run = runs.path().join("run");
    let report = fit_through(pictures.path(), &run, config());
    let measuring = Measuring { device: DeviceChoice::Cpu, precision: None, threads: 2, batch_size: 3 };
    let asked = EvaluationRequest {
        run: run.clone(),
        pictures: None,
        measuring,
        top_k: None,
        mistakes: 12,
        robustness: false,
        explained: vec![],
    };
    let assessment = evaluate(&asked, &mut ()).expect("the validation side");
    let trained_on = report.training_pictures;
    assert_eq!(Some(&assessment.evaluation), report.best.expect("three epochs").validation.as_ref());
    assert_eq!((assessment.trained_on, assessment.top_k), (0, None));
    assert_eq!(assessment.mistakes.len(), assessment.evaluation.pictures - assessment.evaluation.correct);

    let one = pictures.path().join("red/0.png");
    let whole = EvaluationRequest {
        pictures: Some(pictures.path().to_owned()),
        top_k: Some(2),
        robustness: true,
        explained: vec![one.clone(), one],
        ..asked.clone()
    };
    let assessment = evaluate(&whole, &mut ()).expect("the whole folder");
    assert_eq!((assessment.evaluation.pictures, assessment.trained_on), (12, trained_on));
    assert_eq!(assessment.top_k.map(|top| (top.k, top.correct)), Some((2, 12)));
    let robustness = assessment.robustness.as_ref().expect("it was asked for");
    for strength in robustness.distortions.iter().flat_map(|distortion| &distortion.strengths) {
        assert_eq!(strength.correct + strength.lost, assessment.evaluation.correct + strength.gained, "{strength:?}");
    }
    let [first, second] = assessment.explanations.as_slice() else { panic!("two pictures were to be explained") };
    assert_eq!(first, second);
    // VGG-11 gives a map of 2×2 for 32×32 pixels.
    assert_eq!(first.heat_map.rows.iter().map(Vec::len).collect::<Vec<_>>(), [2, 2]);
    let html = evaluation_page(&assessment).expect("pictures that are there");
    assert_eq!(html.matches("data:image/jpeg").count(), 2 + assessment.mistakes.len());
    let error = evaluate(&EvaluationRequest { top_k: Some(3), ..asked.clone() }, &mut ()).expect_err("two classes");
    assert!(error.to_string().contains("from 1 to 2"), "{error}");

    fs::rename(pictures.path().join("red"), pictures.path().join("crimson")).expect("another name");
    let error = evaluate(&whole, &mut ()).expect_err("an unknown class");
    assert!(matches!(&error, EvaluationError::UnknownClass { label, .. } if label == "crimson"), "{error}");
    let error = evaluate(&asked, &mut ()).expect_err("the files are elsewhere").to_string();
    assert!(error.contains("is gone"), "{error}");
}
