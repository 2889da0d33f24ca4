use std::{env, fs, path::Path};

use anyhow::{Context, Result, ensure};

use crate::{process, python::python};

const SCRIPT: &str = include_str!("fashion_mnist.py");

/// Writes a folder of pictures for each side of Fashion-MNIST, and in it one for each class.
///
/// The folder appears whole or not at all.
pub fn unpack(source: &Path, folder: &Path) -> Result<()> {
    ensure!(
        source.join("train-images-idx3-ubyte.gz").is_file(),
        "{} has no train-images-idx3-ubyte.gz: install Debian's package dataset-fashion-mnist, or name the folder with \
         the four files by --source",
        source.display()
    );
    ensure!(!folder.exists(), "{} exists: name a folder that does not", folder.display());
    let unfinished = folder.with_extension("unfinished");
    if unfinished.exists() {
        fs::remove_dir_all(&unfinished).with_context(|| format!("cannot remove {}", unfinished.display()))?;
    }
    eprintln!("70000 pictures to {}", env::current_dir()?.join(folder).display());
    process::output(python().args(["-c", SCRIPT]).arg(source).arg(&unfinished))?;
    fs::rename(&unfinished, folder).with_context(|| format!("cannot rename {}", unfinished.display()))
}
