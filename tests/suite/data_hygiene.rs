//! Pictures that repeat, that are held out in folders of their own, that cannot be read; and cross-validation.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, ensure};
use models::{Picture, RunFolder, Side};
use serde_json::Value;
use tempfile::TempDir;
use tests::{Finished, coffee_pictures, png, program, run};

/// Synthetic beans of four roasts, 12 pictures each, in `train`.
fn beans() -> Result<TempDir> {
    let folder = tempfile::tempdir()?;
    paint(&folder.path().join("train"), 12, 1)?;
    Ok(folder)
}

fn paint(folder: &Path, per_class: usize, seed: u64) -> Result<()> {
    let options = trainer::sample_data::SampleOptions { per_class, size: 48, seed };
    trainer::sample_data::paint(folder, options)?;
    Ok(())
}

/// Some picture files of a class, sorted.
fn pictures_of(class: &Path) -> Result<Vec<PathBuf>> {
    let mut paths: Vec<_> = fs::read_dir(class)?.map(|entry| Ok(entry?.path())).collect::<Result<_>>()?;
    paths.sort();
    Ok(paths)
}

fn check(folder: &Path, arguments: &[&str]) -> Result<Finished> {
    let mut command = program("trainer")?;
    run(command.current_dir(folder).arg("check").args(arguments))
}

/// A tiny network, for a look at everything around it.
fn fit(folder: &Path, arguments: &[&str]) -> Result<Finished> {
    let mut command = program("trainer")?;
    let tiny = ["--architecture", "vgg11", "--width", "0.02", "--head", "gap", "--image-size", "32", "--threads", "1"];
    run(command
        .current_dir(folder)
        .args(["fit", "train", "--device", "cpu", "--format", "json"])
        .args(tiny)
        .args(arguments))
}

fn last_event(finished: &Finished) -> Result<Value> {
    Ok(serde_json::from_str(finished.stdout.lines().last().context("a report")?)?)
}

/// How many pictures a run was trained and validated with.
fn sides(report: &Value) -> [u64; 2] {
    ["training_pictures", "validation_pictures"].map(|key| report[key].as_u64().unwrap_or(0))
}

#[test]
fn all_that_repeats_is_found_and_shown() -> Result<()> {
    let folder = beans()?;
    let root = folder.path();
    let clean = check(root, &["train", "--format", "json"])?.with_code(0)?.json()?;
    assert_eq!(clean["pictures"], 48);
    for key in ["exact_duplicates", "near_duplicates", "label_conflicts", "leaks", "unreadable"] {
        assert_eq!(clean[key], 0, "{key}: {clean}");
    }
    assert_eq!(clean["classes"].as_array().map(Vec::len), Some(4));

    // A copy in the same class, a copy in another, the same pixels in another format, and a file that is none.
    let dark = pictures_of(&root.join("train/Dark"))?;
    fs::copy(&dark[0], root.join("train/Dark/copy.png"))?;
    fs::copy(&dark[1], root.join("train/Light/other.png"))?;
    image::open(&dark[2])?.save(root.join("train/Dark/again.bmp"))?;
    fs::write(root.join("train/Green/bad.png"), "no picture")?;
    let found = check(root, &["train", "--format", "json", "--report", "check.html"])?.with_code(0)?.json()?;
    assert_eq!(found["pictures"], 52);
    let counts = ["exact_duplicates", "near_duplicates", "label_conflicts", "unreadable"].map(|key| &found[key]);
    assert_eq!(counts, [2, 1, 1, 1].map(Value::from).each_ref(), "{found}");
    assert_eq!(found["groups"].as_array().map(Vec::len), Some(3), "{found}");
    let page = fs::read_to_string(root.join("check.html"))?;
    for part in ["In several classes: 1", "Cannot be used: 1", "bad.png", "data:image/jpeg;base64,", "Dark/copy.png"] {
        ensure!(page.contains(part), "the page does not say '{part}'");
    }
    ensure!(!page.contains("src=\"http") && !page.contains("<script"), "the page is not self-contained");

    let text = check(root, &["train", "--strict"])?.with_code(3)?;
    for part in ["files with the content of another: 2", "in several classes: 1", "bad.png: not a picture"] {
        ensure!(text.stdout.contains(part), "{text}");
    }
    ensure!(text.stderr.contains("--strict does not hold"), "{text}");
    check(root, &["train", "--strict=imbalance,odd"])?.with_code(0)?;
    check(root, &["train", "--strict=label-conflicts"])?.with_code(3)?;
    Ok(())
}

#[test]
fn what_is_unusual_is_named() -> Result<()> {
    let folder = beans()?;
    let class = folder.path().join("train/Dark");
    let plain = Picture { width: 48, height: 48, rgb: vec![90; 48 * 48 * 3] };
    fs::write(class.join("plain.png"), png(&plain)?)?;
    let sound = Picture::open(&pictures_of(&class)?[0])?;
    let wide = image::RgbImage::from_raw(48, 48, sound.rgb).context("48×48 pixels")?;
    let wide = image::imageops::resize(&wide, 200, 40, image::imageops::FilterType::Triangle);
    wide.save(class.join("wide.png"))?;
    image::DynamicImage::from(wide).into_luma8().save_with_format(class.join("grey.jpg"), image::ImageFormat::Png)?;
    for number in 2..12 {
        fs::remove_file(&pictures_of(&folder.path().join("train/Medium"))?[12 - number])?;
    }
    let found = check(folder.path(), &["train", "--format", "json"])?.with_code(0)?.json()?;
    let odd: Vec<_> = found["odd_files"].as_array().into_iter().flatten().map(Value::to_string).collect();
    for part in ["nothing to be seen", "200×40 pixels, where most", "its samples are grey", "its content is Png"] {
        ensure!(odd.iter().any(|file| file.contains(part)), "{part}: {odd:?}");
    }
    let findings = found["findings"].to_string();
    for part in ["small_classes", "pictures of class 'Medium' to train on: ", "imbalance"] {
        ensure!(findings.contains(part), "{part}: {findings}");
    }
    Ok(())
}

#[test]
fn the_coffee_pictures_show_two_beans_twice_and_no_other_is_taken_for_another() -> Result<()> {
    let pictures = coffee_pictures()?;
    let pictures = pictures.to_str().context("a Unicode path")?;
    let found = check(Path::new("."), &[pictures, "--format", "json"])?.with_code(0)?.json()?;
    let counts =
        ["pictures", "exact_duplicates", "near_duplicates", "label_conflicts", "unreadable"].map(|key| &found[key]);
    assert_eq!(counts, [794, 0, 2, 0, 0].map(Value::from).each_ref(), "{found}");
    let pairs: Vec<Vec<_>> = found["groups"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|group| group["files"].as_array().into_iter().flatten().filter_map(|file| file["path"].as_str()).collect())
        .collect();
    assert_eq!(
        pairs,
        [["Green/green (10).png", "Green/green (9).png"], ["Light/light (178).png", "Light/light (179).png"],]
    );
    Ok(())
}

#[test]
fn folders_that_are_held_out_are_used_as_such_all_the_way() -> Result<()> {
    let folder = beans()?;
    let root = folder.path();
    paint(&root.join("valid"), 3, 2)?;
    paint(&root.join("test"), 2, 3)?;
    // Both copies go, whatever they are called.
    let leaked = [("valid/Dark", 0), ("test/Green", 1)];
    for (class, number) in leaked {
        let name = class.split('/').next_back().context("a class")?;
        fs::copy(&pictures_of(&root.join(class))?[number], root.join("train").join(name).join("leak.png"))?;
    }
    let folders = ["--validation", "valid", "--test", "test"];
    let found = check(root, &[&["train", "--format", "json"], &folders[..]].concat())?.with_code(0)?.json()?;
    assert_eq!([&found["leaks"], &found["pictures"]], [2, 50 + 12 + 8].map(Value::from).each_ref(), "{found}");

    let finished = fit(root, &[&["--run", "run", "--epochs", "1"], &folders[..]].concat())?.with_code(0)?;
    let report = last_event(&finished)?;
    assert_eq!(sides(&report), [48, 12], "{report}");
    assert_eq!(report["test"]["pictures"], 8, "{report}");
    ensure!(finished.stderr.contains("leak.png: a copy of"), "{finished}");

    let split = RunFolder::open(&root.join("run"))?.split()?;
    let files: Vec<_> = [Side::Validation, Side::Test].iter().flat_map(|&side| split.side(side)).collect();
    ensure!(files.iter().all(|file| split.path(file).is_file()), "a side's files are not where the split says");
    let lines =
        run(program("trainer")?.current_dir(root).args(["split", "run", "--side", "test"]))?.with_code(0)?.stdout;
    assert_eq!(lines.lines().count(), 8);
    let evaluation = run(program("trainer")?.current_dir(root).args(["evaluate", "run", "--format", "json"]))?;
    let evaluation = evaluation.with_code(0)?.json()?;
    assert_eq!(evaluation["correct"], report["best"]["validation"]["correct"], "{evaluation}");

    // Two runs in one go are one run that went on.
    let more = run(program("trainer")?
        .current_dir(root)
        .args(["fit", "--resume", "--run", "run", "--epochs", "2", "--format", "json"]))?;
    assert_eq!(last_event(&more.with_code(0)?)?["test"]["pictures"], 8);
    let mut export = program("exporter")?;
    export.current_dir(root).args(["run", "-o", "model.onnx", "--threads", "1", "--format", "json", "--quantize"]);
    let exported = run(export.args(["--max-drop", "1"]))?.with_code(0)?.json()?;
    assert_eq!(exported["verification"]["pictures"], 12, "those of the folder: {exported}");

    fs::rename(root.join("test/Green"), root.join("test/Unroasted"))?;
    let other = fit(root, &[&["--run", "other", "--epochs", "1"], &folders[..]].concat())?;
    other.fails_with(&["test", "'Unroasted', which is not trained on", "lacks 'Green'"])?;
    ensure!(!root.join("other").exists(), "a run was begun that cannot be trained");
    Ok(())
}

#[test]
fn bad_pictures_are_left_out_where_that_is_asked_for() -> Result<()> {
    let folder = beans()?;
    fs::write(folder.path().join("train/Dark/bad.png"), "no picture")?;
    fs::write(folder.path().join("train/Green/empty.png"), "")?;
    let refused = fit(folder.path(), &["--run", "run", "--epochs", "1"])?;
    refused.fails_with(&["2 pictures cannot be used", "Dark/bad.png", "Green/empty.png", "--on-bad skip"])?;
    let finished = fit(folder.path(), &["--run", "run", "--epochs", "1", "--on-bad", "skip"])?.with_code(0)?;
    ensure!(finished.stderr.contains("Dark/bad.png: not a picture"), "{finished}");
    let report = last_event(&finished)?;
    assert_eq!(sides(&report), [39, 9], "{report}");
    let resume = ["fit", "--resume", "--run", "run", "--epochs", "2", "--format", "json"];
    run(program("trainer")?.current_dir(folder.path()).args(resume))?.with_code(0)?;
    Ok(())
}

#[test]
fn a_cross_validation_answers_every_picture_once_and_goes_on_where_it_was_stopped() -> Result<()> {
    let folder = beans()?;
    let root = folder.path();
    let dark = pictures_of(&root.join("train/Dark"))?;
    fs::copy(&dark[0], root.join("train/Dark/copy.png"))?;
    let finished = fit(root, &["--run", "whole", "--epochs", "1", "--folds", "3"])?.with_code(0)?;
    let whole = last_event(&finished)?;
    assert_eq!(whole["status"], "finished", "{whole}");
    assert_eq!(whole["pooled"]["pictures"], 49, "{whole}");
    let estimate = &whole["best_accuracy"];
    let [low, mean, high] = ["low", "mean", "high"].map(|key| estimate[key].as_f64().unwrap_or(f64::NAN));
    ensure!(low <= mean && mean <= high, "{estimate}");
    let mut validated = BTreeSet::new();
    for fold in 1..=3 {
        let split = RunFolder::open(&root.join(format!("whole/fold-{fold}")))?.split()?;
        let side: Vec<_> = split.side(Side::Validation).map(|file| file.path.clone()).collect();
        let copies = ["Dark/copy.png", &format!("Dark/{}", dark[0].file_name().context("a name")?.display())]
            .map(|path| side.iter().any(|file| file == path));
        ensure!(copies[0] == copies[1], "a copy is on the other side of fold {fold}");
        validated.extend(side);
    }
    assert_eq!(validated.len(), 49);
    for name in ["cross-validation.json", "config.toml", "folds.svg", "folds.png", "confusion.svg", "confusion.png"] {
        ensure!(root.join("whole").join(name).is_file(), "{name} is missing");
    }

    // As a kill in the second fold leaves it: the first done, the second without settings.
    fs::create_dir(root.join("killed"))?;
    for name in ["cross-validation.json", "config.toml"] {
        fs::copy(root.join("whole").join(name), root.join("killed").join(name))?;
    }
    for fold in ["fold-1", "fold-2", "fold-3"] {
        fs::create_dir(root.join("killed").join(fold))?;
        let names: &[&str] = match fold {
            "fold-1" => &["config.toml", "split.json", "report.json", "best.safetensors", "last.safetensors"],
            "fold-2" => &["config.toml", "split.json"],
            _ => &["split.json"],
        };
        for name in names {
            fs::copy(root.join("whole").join(fold).join(name), root.join("killed").join(fold).join(name))?;
        }
    }
    let resume = ["fit", "--resume", "--run", "killed", "--format", "json"];
    let resumed = last_event(&run(program("trainer")?.current_dir(root).args(resume))?.with_code(0)?)?;
    assert_eq!(resumed["pooled"]["confusion"], whole["pooled"]["confusion"]);
    assert_eq!(resumed["best_accuracy"], whole["best_accuracy"]);
    for fold in ["fold-1", "fold-2", "fold-3"] {
        let best = |run: &str| fs::read(root.join(run).join(fold).join(RunFolder::BEST));
        ensure!(best("killed")? == best("whole")?, "{fold} has other weights");
    }
    fit(root, &["--run", "whole", "--folds", "3"])?.fails_with(&["holds a run already", "--resume"])?;
    Ok(())
}
