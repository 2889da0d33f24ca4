//! Learning from another network.

use super::*;

fn taught(teacher: &Path, weight: f64) -> Config {
    Config { teacher: Some(teacher.to_owned()), teacher_weight: weight, ..config() }
}

#[test]
fn a_teacher_without_weight_changes_nothing_and_one_with_weight_does() {
    let (pictures, runs) = (pictures(), tempfile::tempdir().expect("a folder"));
    let run = |name: &str| runs.path().join(name);
    fit_through(pictures.path(), &run("teacher"), config());
    fit_through(pictures.path(), &run("alone"), config());
    for (name, weight) in [("ignores", 0.0), ("learns", 0.7)] {
        fit_through(pictures.path(), &run(name), taught(&run("teacher"), weight));
    }
    let last = |name: &str| tensors(&run(name).join(RunFolder::LAST));
    assert!(last("ignores") == last("alone"), "nothing comes from a teacher of weight 0");
    assert!(last("learns") != last("alone"), "the teacher is not heard");
}

#[test]
fn a_run_with_a_teacher_that_is_stopped_and_resumed_gives_the_same_bits() {
    let (pictures, runs) = (pictures(), tempfile::tempdir().expect("a folder"));
    let run = |name: &str| runs.path().join(name);
    fit_through(pictures.path(), &run("teacher"), config());
    let config = || taught(&run("teacher"), 0.7);
    fit_through(pictures.path(), &run("whole"), config());
    let interrupt = Interrupt::default();
    let mut stop = Stop { interrupt: interrupt.clone(), moment: Moment::AfterSteps(4), steps: 0 };
    let report = fit(&request(pictures.path(), &run("parts"), false, config()), &mut stop, &interrupt);
    assert_eq!(report.expect("it is saved").status, Status::Interrupted);
    resume(pictures.path(), &run("parts"), config()).expect("it goes on");
    assert_same_run(&run("parts"), &run("whole"));
}

#[test]
fn a_teacher_that_was_fitted_to_what_judges_the_run_is_refused() {
    let (pictures, runs) = (pictures(), tempfile::tempdir().expect("a folder"));
    let teacher = runs.path().join("teacher");
    fit_through(pictures.path(), &teacher, Config { epochs: 1, ..config() });
    let other = Config { seed: 5, ..taught(&teacher, 0.7) };
    let request = request(pictures.path(), &runs.path().join("run"), false, other);
    let error = fit(&request, &mut (), &Interrupt::default()).expect_err("another split");
    assert!(matches!(&error, FitError::TeacherKnows { known: 1.., pictures: 4, .. }), "{error}");
    assert!(!request.run.join(RunFolder::CONFIG).exists(), "a run was begun");

    fs::rename(pictures.path().join("red"), pictures.path().join("pink")).expect("another name");
    let error = fit(&request, &mut (), &Interrupt::default()).expect_err("other classes").to_string();
    assert!(error.contains("red") && error.contains("pink"), "{error}");
}

#[test]
fn mixtures_have_no_teacher() {
    let config = Config { augment: "mixup=0.2".parse().expect("known"), ..taught(Path::new("teacher"), 0.7) };
    let error = config.validate().expect_err("nobody was asked about mixtures").to_string();
    assert!(error.contains("teacher") && error.contains("mixup"), "{error}");
}

#[test]
fn each_fold_has_the_teacher_that_has_not_seen_it() {
    let (pictures, runs) = (pictures(), tempfile::tempdir().expect("a folder"));
    let run = |name: &str| runs.path().join(name);
    let folds = |name: &str, config: Config| {
        cross_validate(&request(pictures.path(), &run(name), false, config), 2, &mut (), &Interrupt::default())
    };
    let short = || Config { epochs: 1, ..config() };
    folds("teachers", short()).expect("two runs");
    let students = folds("students", Config { teacher: Some(run("teachers")), ..short() }).expect("two more");
    assert_eq!(students.status, Status::Finished);
    for fold in ["fold-1", "fold-2"] {
        let config = Config::from_file(&run("students").join(fold).join(RunFolder::CONFIG)).expect("settings");
        assert_eq!(config.teacher, Some(run("teachers").join(fold)));
    }
    // A teacher of the first fold has seen the second.
    let one = Config { teacher: Some(run("teachers").join("fold-1")), ..short() };
    let error = folds("spoiled", one).expect_err("a leak");
    assert!(matches!(error, FitError::TeacherKnows { .. }), "{error}");
}
