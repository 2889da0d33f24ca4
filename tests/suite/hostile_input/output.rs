//! Places that cannot be written to, and readers that go away.

use std::{
    ffi::OsStr,
    fs,
    path::Path,
    process::{Command, Stdio},
};

use anyhow::{Result, ensure};
use models::Family;
use tests::{Finished, TemporaryRun, program, run};
use trainer::{Config, HeadKind, ImageSize};

fn tiny() -> Result<TemporaryRun> {
    let config = Config { architecture: Family::Vgg11, width: 0.02, head: HeadKind::Gap, ..Config::default() };
    TemporaryRun::untrained(Config { image_size: ImageSize { height: 32, width: 32 }, ..config }, 2)
}

fn names(folder: &Path) -> Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(folder)? {
        names.push(entry?.file_name().to_string_lossy().into_owned());
    }
    names.sort();
    Ok(names)
}

/// The same command where no file may grow beyond so many blocks of 512 bytes: what a full disk does to a
/// writer, without a disk to fill.
fn with_room_for(blocks: usize, command: &Command) -> Command {
    let mut limited = Command::new("sh");
    limited.arg("-c").arg(format!(r#"trap "" XFSZ; ulimit -f {blocks}; exec "$0" "$@""#));
    limited.arg(command.get_program()).args(command.get_args());
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => limited.env(name, value),
            None => limited.env_remove(name),
        };
    }
    limited
}

#[cfg(unix)]
#[test]
fn a_disk_without_room_leaves_no_file_and_an_old_one_untouched() -> Result<()> {
    let tiny = tiny()?;
    let folder = tiny.path("exports");
    fs::create_dir(&folder)?;
    let model = folder.join("model.onnx");
    let mut export = program("exporter")?;
    export.arg(tiny.run().path()).arg("-o").arg(&model).args(["--threads", "1"]);
    run(&mut with_room_for(8, &export))?.fails_with(&["cannot write", "model.onnx", "room"])?;
    assert_eq!(names(&folder)?, Vec::<String>::new());
    fs::write(&model, "an old file")?;
    run(&mut with_room_for(8, &export))?.fails_with(&["cannot write", "model.onnx"])?;
    assert_eq!(names(&folder)?, ["model.onnx"]);
    assert_eq!(fs::read(&model)?, b"an old file");
    run(&mut export)?.with_code(0)?;
    Ok(())
}

#[cfg(unix)]
#[test]
fn training_on_a_disk_without_room_names_the_file_and_can_go_on_later() -> Result<()> {
    let tiny = tiny()?;
    let settings = ["--architecture", "vgg11", "--width", "0.25", "--head", "gap", "--image-size", "32"];
    let mut fit = program("trainer")?;
    fit.arg("fit").arg(tiny.path("pictures")).args(settings).args(["--epochs", "1", "--threads", "1", "--run"]);
    let folder = tiny.path("another");
    fit.arg(&folder);
    // Less than the optimizer's state takes (7 MB), more than any drawing, whichever size the shell's blocks have.
    let finished = run(&mut with_room_for(4096, &fit))?.fails_with(&["cannot write", "safetensors"])?;
    ensure!(finished.stderr.contains("File too large"), "the system's own words are missing\n{finished}");
    let left: Vec<_> = names(&folder)?.into_iter().filter(|name| name.starts_with(".writing-")).collect();
    assert_eq!(left, Vec::<String>::new());
    let mut resume = program("trainer")?;
    run(resume.args(["fit", "--resume", "--run"]).arg(&folder))?.with_code(0)?;
    Ok(())
}

#[test]
fn folders_that_cannot_be_are_named() -> Result<()> {
    let tiny = tiny()?;
    let export_to = |path: &OsStr| run(program("exporter")?.arg(tiny.run().path()).arg("-o").arg(path));
    export_to(tiny.path("nowhere/model.onnx").as_os_str())?.fails_with(&["nowhere/model.onnx", "folder must exist"])?;
    let file = tiny.path("file");
    fs::write(&file, "no folder")?;
    export_to(file.join("model.onnx").as_os_str())?.fails_with(&["file/model.onnx"])?;
    let mut fit = program("trainer")?;
    fit.arg("fit")
        .arg(tiny.path("pictures"))
        .args(["--image-size", "32", "--epochs", "0", "--run"])
        .arg(file.join("run"));
    run(&mut fit)?.fails_with(&["cannot write", "file/run"])?;
    Ok(())
}

#[test]
fn a_run_is_never_overwritten() -> Result<()> {
    let tiny = tiny()?;
    let before = fs::read(tiny.run().file("best.safetensors"))?;
    let mut fit = program("trainer")?;
    fit.arg("fit").arg(tiny.path("pictures")).arg("--run").arg(tiny.run().path());
    run(&mut fit)?.fails_with(&["holds a run already", "--resume"])?;
    assert_eq!(fs::read(tiny.run().file("best.safetensors"))?, before);
    Ok(())
}

/// Runs a command whose standard output is a device without room.
#[cfg(target_os = "linux")]
fn to_a_full_device(command: &mut Command) -> Result<Finished> {
    let full = fs::OpenOptions::new().write(true).open("/dev/full")?;
    run_with_output(command, full.into())
}

fn run_with_output(command: &mut Command, stdout: Stdio) -> Result<Finished> {
    let child = command.stdin(Stdio::null()).stdout(stdout).stderr(Stdio::piped()).spawn()?;
    let finished = Finished::from(child.wait_with_output()?);
    ensure!(!finished.stderr.contains("panicked"), "{finished}");
    Ok(finished)
}

/// One command of each program that prints a result.
fn printing_commands(tiny: &TemporaryRun) -> Result<Vec<Command>> {
    let model = tiny.export("printed.onnx", None)?;
    let mut commands = vec![program("trainer")?, program("exporter")?, program("runtime")?, program("runtime")?];
    commands[0].args(["summary", "--format", "json"]);
    commands[1].arg(tiny.run().path()).arg("-o").arg(tiny.path("model.onnx")).args(["--threads", "1"]);
    commands[2].arg("predict").arg(&model).arg(tiny.path("pictures")).args(["--engine", "tract"]);
    commands[3].arg("inspect").arg(&model).args(["--format", "json"]);
    Ok(commands)
}

#[cfg(target_os = "linux")]
#[test]
fn output_that_cannot_be_written_is_an_error() -> Result<()> {
    let tiny = tiny()?;
    for mut command in printing_commands(&tiny)? {
        to_a_full_device(&mut command)?.fails_with(&["No space left on device"])?;
    }
    Ok(())
}

#[test]
fn a_reader_that_goes_away_is_no_error() -> Result<()> {
    let tiny = tiny()?;
    for mut command in printing_commands(&tiny)? {
        let (reader, writer) = std::io::pipe()?;
        drop(reader);
        let finished = run_with_output(&mut command, writer.into())?.with_code(0)?;
        ensure!(!finished.stderr.contains("error"), "{command:?}\n{finished}");
    }
    Ok(())
}
