//! Folders of pictures that cannot be trained on, and pictures among them that cannot be read.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Result, ensure};
use models::ClassFolders;
use tempfile::TempDir;
use tests::{Finished, TemporaryRun, formula_picture, png, program, run, write_class_folders};
use trainer::{Config, HeadKind, ImageSize};

/// Two sound classes, to be spoiled.
fn pictures() -> Result<(TempDir, PathBuf)> {
    let folder = tempfile::tempdir()?;
    let pictures = folder.path().join("pictures");
    write_class_folders(&pictures, 2, 5, 16)?;
    Ok((folder, pictures))
}

/// Trains a tiny network on a folder, into a run beside it.
fn fit(pictures: &Path) -> Result<Finished> {
    let flags = ["--architecture", "vgg11", "--width", "0.01", "--head", "gap", "--image-size", "32"];
    let mut command = program("trainer")?;
    command.arg("fit").arg(pictures).args(flags).args(["--epochs", "1", "--threads", "1", "--device", "cpu"]);
    command.arg("--run").arg(pictures.with_file_name("run"));
    run(&mut command)
}

#[test]
fn a_class_without_pictures_is_named() -> Result<()> {
    let (_folder, pictures) = pictures()?;
    fs::create_dir(pictures.join("hollow"))?;
    fs::write(pictures.join("hollow/readme.txt"), "none yet")?;
    fit(&pictures)?.fails_with(&["hollow", "no pictures", ".png"])?;
    ensure!(!pictures.with_file_name("run").exists(), "a run was begun that cannot be trained");
    Ok(())
}

#[test]
fn one_class_alone_is_nothing_to_learn() -> Result<()> {
    let (_folder, pictures) = pictures()?;
    fs::remove_dir_all(pictures.join("beryl"))?;
    fit(&pictures)?.fails_with(&["'amber' alone", "two classes"])?;
    Ok(())
}

#[test]
fn a_folder_of_pictures_without_classes_is_explained() -> Result<()> {
    let (_folder, pictures) = pictures()?;
    fit(&pictures.join("amber"))?.fails_with(&["amber", "no class folders", "one folder of pictures per class"])?;
    fit(&pictures.join("nowhere"))?.fails_with(&["cannot read the folder", "nowhere"])?;
    fit(&pictures.join("amber/000.png"))?.fails_with(&["cannot read the folder", "000.png"])?;
    Ok(())
}

#[test]
fn every_kind_of_bad_picture_is_named_before_training_begins() -> Result<()> {
    let sound = png(&formula_picture(16, 16))?;
    let cases: [(&str, &[u8], &str); 4] = [
        ("truncated.png", &sound[..sound.len() / 2], "truncated or damaged"),
        ("empty.png", b"", "empty"),
        ("text.png", b"this is no picture\n", "not PNG, JPEG, WebP, BMP or GIF"),
        ("text.jpg", &[0; 64], "not PNG, JPEG, WebP, BMP or GIF"),
    ];
    for (name, bytes, problem) in cases {
        let (_folder, pictures) = pictures()?;
        fs::write(pictures.join("beryl").join(name), bytes)?;
        fit(&pictures)?.fails_with(&[name, problem, "remove it"])?;
        ensure!(!pictures.with_file_name("run").join("best.safetensors").exists(), "{name}: weights were written");
    }
    Ok(())
}

#[test]
fn a_picture_of_another_format_than_its_name_says_is_read() -> Result<()> {
    let (_folder, pictures) = pictures()?;
    fs::rename(pictures.join("amber/000.png"), pictures.join("amber/000.jpg"))?;
    fit(&pictures)?.with_code(0)?;
    Ok(())
}

#[cfg(unix)]
#[test]
fn a_picture_that_cannot_be_read_is_named() -> Result<()> {
    let (_folder, pictures) = pictures()?;
    std::os::unix::fs::symlink(pictures.join("gone.png"), pictures.join("amber/link.png"))?;
    fit(&pictures)?.fails_with(&["link.png"])?;
    Ok(())
}

#[test]
fn a_folder_that_is_named_like_a_picture_is_none() -> Result<()> {
    let (_folder, pictures) = pictures()?;
    fs::create_dir(pictures.join("amber/folder.png"))?;
    fs::write(pictures.join("amber/folder.png/inside.png"), png(&formula_picture(16, 16))?)?;
    let files: Vec<_> = ClassFolders::scan(&pictures)?.files.into_iter().map(|file| file.path).collect();
    ensure!(
        !files.contains(&"amber/folder.png".to_owned()) && files.contains(&"amber/folder.png/inside.png".to_owned()),
        "{files:?}"
    );
    fit(&pictures)?.with_code(0)?;
    Ok(())
}

#[test]
fn too_few_pictures_for_a_validation_side_are_counted() -> Result<()> {
    let (_folder, pictures) = pictures()?;
    for class in ["amber", "beryl"] {
        for number in 1..5 {
            fs::remove_file(pictures.join(class).join(format!("{number:03}.png")))?;
        }
    }
    fit(&pictures)?.fails_with(&["0.2 of 2 pictures", "no picture to validate with", "--validation-split"])?;
    Ok(())
}

#[test]
fn a_bad_picture_among_good_ones_does_not_keep_the_others_from_their_answers() -> Result<()> {
    let config = Config { architecture: models::Family::Vgg11, width: 0.02, head: HeadKind::Gap, ..Config::default() };
    let exported = TemporaryRun::untrained(Config { image_size: ImageSize { height: 32, width: 32 }, ..config }, 2)?;
    let model = exported.export("model.onnx", None)?;
    let (good, bad) = (exported.path("pictures/amber/000.png"), exported.path("bad.png"));
    fs::write(&bad, "no picture")?;
    let mut predict = program("runtime")?;
    predict.arg("predict").arg(&model).args([&bad, &good, &exported.path("nowhere.png")]);
    let finished = run(predict.args(["--engine", "tract", "--format", "json"]))?;
    let finished = finished.fails_with(&["bad.png", "not PNG, JPEG, WebP, BMP or GIF", "nowhere.png"])?;
    let answers = finished.json()?;
    assert_eq!(answers.as_array().map(Vec::len), Some(1), "{finished}");
    assert_eq!(answers[0]["file"].as_str(), good.to_str());

    let mut evaluate = program("runtime")?;
    evaluate.arg("evaluate").arg(&model).arg(exported.path("pictures")).args(["--engine", "tract"]);
    run(&mut evaluate)?.with_code(0)?;
    fs::write(exported.path("pictures/amber/bad.png"), "no picture")?;
    run(&mut evaluate)?.fails_with(&["amber/bad.png"])?;
    fs::remove_file(exported.path("pictures/amber/bad.png"))?;
    fs::rename(exported.path("pictures/amber"), exported.path("pictures/umber"))?;
    run(&mut evaluate)?.fails_with(&["'umber'", "amber, beryl"])?;
    Ok(())
}
