//! A training run that is killed or interrupted, and goes on.

use std::{
    collections::BTreeMap,
    fs,
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant, SystemTime},
};

use anyhow::{Context, Result, bail, ensure};
use candle_core::Device;
use models::{Checkpoint, Picture, RunFolder, Side};
use tempfile::TempDir;
use tests::{Finished, program, run, write_class_folders};

const EPOCHS: &str = "12";

/// How far the training loss of the first epochs may be from that of another number of threads: sums in another order
/// round otherwise, and training makes the difference larger with every step. How fast depends on the processor; batches
/// of four, whose deepest maps are normalised over four values, make it fast.
const THREADS_APART: [f64; 3] = [1e-3, 0.05, 0.05];

/// The longest that a child may take for what takes it a second.
const PATIENCE: Duration = Duration::from_secs(120);

struct Training {
    folder: TempDir,
}

impl Training {
    fn new() -> Result<Self> {
        let folder = tempfile::tempdir()?;
        write_class_folders(&folder.path().join("pictures"), 3, 20, 32)?;
        Ok(Self { folder })
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// A tiny network with all that has a state or draws by chance: batch normalisation, dropout, variations, mixtures,
    /// plateaus, patience (more than it needs), clipping.
    fn fit(&self, name: &str) -> Result<Command> {
        let mut command = program("trainer")?;
        command.arg("fit").arg(self.path("pictures")).args(["--architecture", "vgg11", "--width", "0.25"]);
        command.args(["--head", "gap", "--batch-norm", "--dropout", "0.2", "--image-size", "32"]);
        command.args(["--batch-size", "4", "--learning-rate", "0.002", "--epochs", EPOCHS]);
        command.args(["--schedule", "plateau", "--reduce-patience", "0", "--warmup-steps", "20", "--patience", EPOCHS]);
        command.args(["--clip-norm", "1", "--weight-decay", "0.01", "--label-smoothing", "0.1"]);
        command.args(["--class-weights", "balanced", "--augment", "default,crop,noise,cutout,mixup", "--tensorboard"]);
        command.args(["--threads", "1", "--device", "cpu", "--format", "json", "--run"]).arg(self.path(name));
        Ok(command)
    }

    /// The same with other values in the places of some arguments, which are named by the argument in front of them or,
    /// where they have none, by themselves.
    fn fit_with(&self, name: &str, changes: &[(&str, &str)]) -> Result<Command> {
        let mut arguments: Vec<_> = self.fit(name)?.get_args().map(ToOwned::to_owned).collect();
        for (flag, value) in changes {
            let place = arguments.iter().position(|argument| argument == flag).with_context(|| (*flag).to_owned())?;
            arguments[if value.starts_with(flag) { place } else { place + 1 }] = value.into();
        }
        let mut command = program("trainer")?;
        command.args(arguments);
        Ok(command)
    }

    fn resume(&self, name: &str) -> Result<Command> {
        let mut command = program("trainer")?;
        command.args(["fit", "--resume", "--format", "json", "--run"]).arg(self.path(name));
        Ok(command)
    }

    /// What goes on with a run after a kill: the run, or, where the kill came before there was one, a new one.
    fn go_on(&self, name: &str) -> Result<Command> {
        if self.path(name).join(RunFolder::CONFIG).exists() { self.resume(name) } else { self.fit(name) }
    }
}

/// All of a finished run that must not depend on how often it was stopped.
#[derive(Debug, PartialEq)]
struct Outcome {
    best: Vec<u8>,
    /// Weights and the optimizer's moments, as bits.
    last: BTreeMap<String, Vec<u32>>,
    steps: u64,
    /// The rows without their times.
    metrics: Vec<String>,
}

fn outcome(path: &Path) -> Result<Outcome> {
    let run = RunFolder::open(path)?;
    let last = run.file(RunFolder::LAST);
    let tensors = candle_core::safetensors::load(&last, &Device::Cpu)?.into_iter().map(|(name, tensor)| {
        let values: Vec<f32> = tensor.flatten_all()?.to_vec1()?;
        Ok((name, values.into_iter().map(f32::to_bits).collect()))
    });
    let metrics = String::from_utf8(run.read(RunFolder::METRICS)?)?;
    let is_time = |column: usize| [6, 7].contains(&column);
    let without_times = |row: &str| -> String {
        row.split(',')
            .enumerate()
            .filter(|&(column, _)| !is_time(column))
            .map(|(_, field)| format!("{field},"))
            .collect()
    };
    Ok(Outcome {
        best: run.read(RunFolder::BEST)?,
        last: tensors.collect::<Result<_>>()?,
        steps: Checkpoint::load(&last, &Device::Cpu)?.adam.steps(),
        metrics: metrics.lines().map(without_times).collect(),
    })
}

fn assert_same(found: &Outcome, expected: &Outcome, what: &str) {
    assert_eq!(found.metrics, expected.metrics, "metrics.csv {what}");
    assert_eq!(found.steps, expected.steps, "steps {what}");
    assert!(found.last == expected.last, "last.safetensors differs {what}");
    assert!(found.best == expected.best, "best.safetensors differs {what}");
}

/// The run without any interruption.
fn reference(training: &Training) -> Result<Outcome> {
    run(&mut training.fit("reference")?)?.with_code(0)?;
    let outcome = outcome(&training.path("reference"))?;
    assert_eq!(outcome.metrics.len(), 13, "a header and twelve epochs: {:?}", outcome.metrics);
    let tensors = outcome.last.len();
    ensure!(tensors > 60, "weights, running moments and two moments each of Adam, not {tensors} tensors");
    Ok(outcome)
}

#[test]
fn a_finished_run_has_every_file_and_each_can_be_read() -> Result<()> {
    let training = Training::new()?;
    run(&mut training.fit("whole")?)?.with_code(0)?;
    let folder = training.path("whole");
    let mut names: Vec<_> = sight(&folder).into_keys().map(|path| path.file_name().map(ToOwned::to_owned)).collect();
    names.sort();
    let expected = [
        "architecture.png",
        "architecture.svg",
        "best.safetensors",
        "config.toml",
        "confusion.png",
        "confusion.svg",
        "curves.png",
        "curves.svg",
        "last.safetensors",
        "metrics.csv",
        "preview.png",
        "report.json",
        "split.json",
        "summary.txt",
        "tensorboard",
    ];
    assert_eq!(names, expected.map(|name| Some(name.into())));
    for name in expected {
        if name == RunFolder::TENSORBOARD {
            continue;
        }
        let bytes = fs::read(folder.join(name))?;
        match name.rsplit('.').next() {
            Some("png") => {
                let picture = Picture::decode(&bytes).with_context(|| name.to_owned())?;
                let first = &picture.rgb[..3];
                ensure!(picture.rgb.chunks(3).any(|pixel| pixel != first), "{name} is blank");
            }
            Some("svg") => ensure!(bytes.starts_with(b"<svg") && bytes.trim_ascii_end().ends_with(b"</svg>"), "{name}"),
            _ => ensure!(!bytes.is_empty(), "{name} is empty"),
        }
    }
    let run = RunFolder::open(&folder)?;
    assert_eq!(trainer::Config::from_file(&run.file(RunFolder::CONFIG))?.epochs.to_string(), EPOCHS);
    let split = run.split()?;
    assert_eq!((split.side(Side::Training).count(), split.side(Side::Validation).count()), (48, 12));
    Ok(())
}

/// What can be seen of a folder from outside: names, sizes and times of change.
fn sight(folder: &Path) -> BTreeMap<PathBuf, (u64, Option<SystemTime>)> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries
        .filter_map(|entry| {
            let metadata = entry.metadata().ok()?;
            Some((entry.path(), (metadata.len(), metadata.modified().ok())))
        })
        .collect()
}

/// Starts a command and kills it when its folder has changed that many times. Tells whether it was killed before
/// it came to its end.
fn kill_after(command: &mut Command, folder: &Path, changes: usize) -> Result<bool> {
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn()?;
    let (mut last, mut seen, began) = (sight(folder), 0, Instant::now());
    while child.try_wait()?.is_none() {
        let now = sight(folder);
        if now != last {
            seen += 1;
            last = now;
        }
        if seen >= changes {
            child.kill()?;
            return Ok(child.wait()?.code().is_none());
        }
        ensure!(began.elapsed() < PATIENCE, "{command:?} does not end");
        thread::sleep(Duration::from_micros(100));
    }
    let status = child.wait()?;
    ensure!(status.success(), "{command:?} ended by itself with {status}");
    Ok(false)
}

#[test]
fn killed_at_any_instant_it_goes_on_to_the_same_bits() -> Result<()> {
    let training = Training::new()?;
    let expected = reference(&training)?;
    // Seeds of a linear congruential generator (Knuth's constants): when to kill, in changes of the folder.
    let mut kills = 0;
    for seed in [1u64, 2, 3] {
        let (name, mut state) = (format!("killed-{seed}"), seed);
        let path = training.path(&name);
        for _ in 0..6 {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let changes = (state >> 33) as usize % 40 + 1;
            kills += usize::from(kill_after(&mut training.go_on(&name)?, &path, changes)?);
        }
        run(&mut training.go_on(&name)?)?.with_code(0)?;
        assert_same(&outcome(&path)?, &expected, &format!("after the kills of seed {seed}"));
        let left: Vec<_> = sight(&path).into_keys().filter(|path| path.ends_with(".best-next.safetensors")).collect();
        assert_eq!(left, Vec::<PathBuf>::new());
        for side in ["training", "validation"] {
            let log = path.join(RunFolder::TENSORBOARD).join(side).join("events.out.tfevents.demitasse");
            assert_eq!(event_steps(&log)?, (0..=12).collect::<Vec<_>>(), "{side}, after the kills of seed {seed}");
        }
    }
    ensure!(kills >= 9, "only {kills} kills came before the end");
    Ok(())
}

/// The steps of one of a run's event files, by TensorBoard's rules: length, checksum, event, checksum.
fn event_steps(path: &Path) -> Result<Vec<u64>> {
    let bytes = fs::read(path).with_context(|| path.display().to_string())?;
    let (mut rest, mut steps) = (&bytes[..], Vec::new());
    while !rest.is_empty() {
        let length = u64::from_le_bytes(*rest.first_chunk().context("a length")?) as usize;
        let event = rest.get(12..12 + length).context("a whole event")?;
        // Field 1 is a double of 8 bytes, field 2 the step, which is small here and left out where it is 0.
        steps.push(if event.get(9) == Some(&0x10) { u64::from(event[10]) } else { 0 });
        rest = rest.get(16 + length..).context("a checksum")?;
    }
    Ok(steps)
}

#[test]
fn killed_where_its_patience_ends_it_stops_there_all_the_same() -> Result<()> {
    let training = Training::new()?;
    // Weights that do not move are never better than they were after the first epoch.
    let changes = [
        ("--patience", "3"),
        ("--learning-rate", "1e-30"),
        ("--batch-norm", "--batch-norm=false"),
        ("--augment", "none"),
    ];
    let still = |name: &str| training.fit_with(name, &changes);
    let go_on = |name: &str| match training.path(name).join(RunFolder::CONFIG).exists() {
        true => training.resume(name),
        false => still(name),
    };
    let finished = run(&mut still("whole")?)?.with_code(0)?;
    ensure!(finished.stderr.contains("no better weights for 3 epochs"), "{finished}");
    let report: serde_json::Value = serde_json::from_str(finished.stdout.lines().last().context("a report")?)?;
    assert_eq!(
        (&report["epochs"], &report["stopped_early"], &report["status"]),
        (&4.into(), &true.into(), &"finished".into())
    );
    let expected = outcome(&training.path("whole"))?;
    let path = training.path("killed");
    for changes in [9, 13, 6, 17, 11] {
        kill_after(&mut go_on("killed")?, &path, changes)?;
    }
    run(&mut go_on("killed")?)?.with_code(0)?;
    assert_same(&outcome(&path)?, &expected, "after the kills");
    // More patience goes on from there.
    let finished = run(training.resume("killed")?.args(["--patience", "5"]))?.with_code(0)?;
    let report: serde_json::Value = serde_json::from_str(finished.stdout.lines().last().context("a report")?)?;
    assert_eq!(report["epochs"], 6, "{finished}");
    Ok(())
}

#[test]
fn another_number_of_threads_gives_almost_the_same_run() -> Result<()> {
    let training = Training::new()?;
    let losses = |threads: &str| -> Result<Vec<f64>> {
        let changes = [("--threads", threads), ("--epochs", "3")];
        let mut command = training.fit_with(&format!("threads-{threads}"), &changes)?;
        let finished = run(&mut command)?.with_code(0)?;
        let epochs = finished.stdout.lines().filter(|line| line.contains("\"event\":\"epoch\""));
        let loss = |line: &str| -> Result<f64> {
            let epoch: serde_json::Value = serde_json::from_str(line)?;
            epoch["loss"].as_f64().context("a loss")
        };
        epochs.map(loss).collect()
    };
    let one = losses("1")?;
    assert_eq!(one.len(), THREADS_APART.len());
    for threads in ["2", "3"] {
        for (epoch, (found, expected)) in losses(threads)?.iter().zip(&one).enumerate() {
            let apart = (found / expected - 1.0).abs();
            ensure!(
                apart < THREADS_APART[epoch],
                "{threads} threads, epoch {}: {found}, {expected} with one",
                epoch + 1
            );
        }
    }
    Ok(())
}

/// Reads a child's standard output up to the line of that event, which is its JSON.
fn wait_for_event(child: &mut Child, event: &str) -> Result<()> {
    let stdout = child.stdout.as_mut().context("a pipe")?;
    // Unbuffered, so that what comes later is still there for whoever reads next.
    let mut reader = BufReader::with_capacity(1, stdout);
    let mut line = String::new();
    while reader.read_line(&mut line)? > 0 {
        let value: serde_json::Value = serde_json::from_str(&line).with_context(|| line.clone())?;
        if value["event"] == event {
            return Ok(());
        }
        line.clear();
    }
    bail!("the program ended without the event '{event}'")
}

#[cfg(unix)]
fn interrupt(child: &Child) -> Result<()> {
    let status = Command::new("kill").args(["-INT", &child.id().to_string()]).status()?;
    ensure!(status.success(), "kill: {status}");
    Ok(())
}

#[cfg(unix)]
#[test]
fn ctrl_c_finishes_the_step_saves_and_goes_on_to_the_same_bits() -> Result<()> {
    let training = Training::new()?;
    let expected = reference(&training)?;
    let mut child =
        training.fit("interrupted")?.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
    wait_for_event(&mut child, "epoch")?;
    interrupt(&child)?;
    let finished = Finished::from(child.wait_with_output()?).with_code(130)?;
    ensure!(finished.stderr.contains("finishing this step and saving"), "{finished}");
    ensure!(finished.stderr.contains("trainer fit --resume --run"), "{finished}");
    let report = fs::read(training.path("interrupted").join(RunFolder::REPORT))?;
    let report: serde_json::Value = serde_json::from_slice(&report)?;
    assert_eq!(report["status"], "interrupted", "{report}");
    ensure!(report["epochs"].as_u64().is_some_and(|epochs| (1..12).contains(&epochs)), "{report}");

    let finished = run(&mut training.resume("interrupted")?)?.with_code(0)?;
    let last: serde_json::Value = serde_json::from_str(finished.stdout.lines().last().context("a report")?)?;
    assert_eq!((&last["event"], &last["status"]), (&"report".into(), &"finished".into()), "{finished}");
    assert_same(&outcome(&training.path("interrupted"))?, &expected, "after ctrl-C");
    Ok(())
}

#[test]
fn a_finished_run_can_be_prolonged_to_what_a_longer_one_gives() -> Result<()> {
    let training = Training::new()?;
    let expected = reference(&training)?;
    run(&mut training.fit_with("short", &[("--epochs", "2")])?)?.with_code(0)?;
    run(training.resume("short")?.args(["--epochs", "1"]))?.fails_with(&["2 complete epochs", "--epochs"])?;
    run(training.resume("short")?.args(["--seed", "7"]))?.fails_with(&["other settings", "seed"])?;
    run(training.resume("short")?.args(["--epochs", EPOCHS]))?.with_code(0)?;
    assert_same(&outcome(&training.path("short"))?, &expected, "after it was prolonged");
    Ok(())
}

#[test]
fn a_kill_before_the_first_weights_leaves_a_folder_to_begin_in() -> Result<()> {
    let training = Training::new()?;
    let expected = reference(&training)?;
    // The files in the order in which they are written, up to each instant between two of them.
    let begun = training.path("begun");
    fs::create_dir(&begun)?;
    fs::copy(training.path("reference").join(RunFolder::SPLIT), begun.join(RunFolder::SPLIT))?;
    run(&mut training.go_on("begun")?)?.with_code(0)?;
    assert_same(&outcome(&begun)?, &expected, "begun with a split alone");

    let described = training.path("described");
    fs::create_dir(&described)?;
    for name in [RunFolder::SPLIT, RunFolder::CONFIG] {
        fs::copy(training.path("reference").join(name), described.join(name))?;
    }
    let finished = run(&mut training.resume("described")?)?.with_code(0)?;
    ensure!(finished.stderr.contains("begins again"), "{finished}");
    assert_same(&outcome(&described)?, &expected, "begun with settings and split");
    Ok(())
}
