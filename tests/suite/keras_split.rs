//! Files, order, shuffle and split against Keras: fixtures/keras_split.json, made by the script beside it.

use std::{fs, path::Path};

use anyhow::{Context, Result, ensure};
use models::{ClassFolders, Sha256, Side, Split};
use serde::Deserialize;
use tests::{coffee_pictures, fixture};
use trainer::{
    Interrupt,
    data::{self, BadPicturePolicy, DuplicatePolicy, Folders, SplitSettings},
};

#[derive(Deserialize)]
struct Fixture {
    /// Files that Keras leaves out.
    others: Vec<String>,
    /// Pictures in the order that Keras lists them in.
    order: Vec<String>,
    splits: Vec<KerasSplit<Vec<usize>>>,
    coffee: Vec<KerasSplit<Sha256>>,
}

/// What the two sides are, in order: places in the list, or a digest of the paths.
#[derive(Deserialize)]
struct KerasSplit<T> {
    seed: u32,
    validation_split: f64,
    training: T,
    validation: T,
}

fn keras() -> Result<Fixture> {
    Ok(serde_json::from_slice(&fs::read(fixture("keras_split.json"))?)?)
}

fn write_tree(root: &Path, keras: &Fixture) -> Result<()> {
    for path in keras.order.iter().chain(&keras.others) {
        let path = root.join(path);
        fs::create_dir_all(path.parent().context("inside a class folder")?)?;
        fs::File::create_new(&path).with_context(|| format!("cannot create {}", path.display()))?;
    }
    Ok(())
}

/// The split by the policy that promises Keras's to the letter.
fn keras_split(root: &Path, validation_split: f64, seed: u32, duplicates: DuplicatePolicy) -> Result<Split> {
    let settings = SplitSettings { validation_split, seed, duplicates, on_bad: BadPicturePolicy::Fail };
    Ok(data::split(&Folders::of(root), &settings, &mut (), &Interrupt::default())?)
}

fn paths(split: &Split, side: Side) -> Vec<&str> {
    split.side(side).map(|file| file.path.as_str()).collect()
}

#[test]
fn pictures_are_listed_in_kerass_order() -> Result<()> {
    let (keras, root) = (keras()?, tempfile::tempdir()?);
    write_tree(root.path(), &keras)?;
    let folders = ClassFolders::scan(root.path())?;
    let found: Vec<_> = folders.files.iter().map(|file| &file.path).collect();
    assert_eq!(found, keras.order.iter().collect::<Vec<_>>());
    for file in &folders.files {
        let class = file.path.split('/').next();
        assert_eq!(Some(folders.labels[file.label as usize].as_str()), class, "{}", file.path);
    }
    Ok(())
}

#[test]
fn every_split_is_kerass() -> Result<()> {
    let (keras, root) = (keras()?, tempfile::tempdir()?);
    write_tree(root.path(), &keras)?;
    ensure!(!keras.splits.is_empty(), "the fixture has no splits");
    for KerasSplit { seed, validation_split, training, validation } in &keras.splits {
        let split = keras_split(root.path(), *validation_split, *seed, DuplicatePolicy::Keep)?;
        for (side, expected) in [(Side::Training, training), (Side::Validation, validation)] {
            let expected: Vec<_> = expected.iter().map(|&place| keras.order[place].as_str()).collect();
            assert_eq!(paths(&split, side), expected, "{side:?} of seed {seed}, split {validation_split}");
        }
        for file in &split.files {
            assert_eq!(Some(split.labels[file.label as usize].as_str()), file.path.split('/').next(), "{}", file.path);
        }
    }
    Ok(())
}

#[test]
fn the_split_of_the_coffee_pictures_is_kerass() -> Result<()> {
    let (keras, pictures) = (keras()?, coffee_pictures()?);
    ensure!(!keras.coffee.is_empty(), "the fixture has no digests of the coffee pictures");
    for KerasSplit { seed, validation_split, training, validation } in keras.coffee {
        let split = keras_split(&pictures, validation_split, seed, DuplicatePolicy::Keep)?;
        for (side, expected) in [(Side::Training, training), (Side::Validation, validation)] {
            assert_eq!(Sha256::of_lines(paths(&split, side)), expected, "{side:?} of seed {seed}");
        }
    }
    Ok(())
}
