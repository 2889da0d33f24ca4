use std::path::{Path, PathBuf};

use anyhow::{Context, anyhow};
use models::RunFolder;
use serde::Serialize;
use trainer::{Config, CrossValidation, FitRequest, Interrupt, Report, Status, fit as fit_network};

use super::{cross_validate::cross_validate, print, print_json};
use crate::{
    cli::{FitArgs, Format},
    exit_status::ExitStatus,
    progress::Progress,
    threads,
};

/// Fits a network to pictures.
pub(crate) fn fit(args: FitArgs) -> anyhow::Result<ExitStatus> {
    let config = config(&args)?;
    config.validate()?;
    threads::limit(config.thread_count())?;
    let run = match &args.run {
        Some(run) => run.clone(),
        None => new_run(&args, &config)?,
    };
    let interrupt = stop_on_signals()?;
    let FitArgs { pictures, validation, test, resume, folds, .. } = args;
    let request = FitRequest { pictures, validation, test, run, resume, config };
    if folds.is_some() || resume && CrossValidation::is_in(&request.run) {
        return cross_validate(&request, folds, args.format, &interrupt);
    }
    let mut progress = Progress::new(args.format);
    let report = fit_network(&request, &mut progress, &interrupt);
    progress.finish()?;
    let report = report?;
    match args.format {
        Format::Json => print_json(&Event { event: "report", report: &report })?,
        Format::Text => print(&describe(&report))?,
    }
    Ok(match report.status {
        Status::Finished => ExitStatus::Success,
        Status::Interrupted => {
            eprintln!("interrupted and saved; go on with: trainer fit --resume --run {}", request.run.display());
            ExitStatus::Interrupted
        }
    })
}

/// One line of the JSON output.
#[derive(Serialize)]
struct Event<'a> {
    event: &'static str,
    #[serde(flatten)]
    report: &'a Report,
}

/// Flag, environment, file, default; and the run that goes on stands in the place of the default.
fn config(args: &FitArgs) -> anyhow::Result<Config> {
    let base = match (&args.settings.config, &args.run) {
        (Some(file), _) => Config::from_file(file)?,
        (None, Some(run)) if args.resume && CrossValidation::is_in(run) => {
            Config::from_file(&run.join(RunFolder::CONFIG))?
        }
        (None, Some(run)) if args.resume => Config::from_file(&RunFolder::open(run)?.file(RunFolder::CONFIG))?,
        _ => Config::default(),
    };
    Ok(base.overlaid(args.settings.table())?)
}

/// The first folder `runs/PICTURES-ARCHITECTURE`, `-2`, `-3`, … that does not exist.
fn new_run(args: &FitArgs, config: &Config) -> anyhow::Result<PathBuf> {
    let pictures = args.pictures.as_ref().ok_or_else(|| anyhow!("no folder of pictures was named"))?;
    let absolute = pictures.canonicalize().with_context(|| format!("cannot read the folder {}", pictures.display()))?;
    let pictures = absolute.file_name().map_or_else(|| "pictures".into(), |name| name.to_string_lossy());
    let name = format!("{pictures}-{}", config.architecture.name());
    let path = |number: u32| match number {
        1 => Path::new("runs").join(&name),
        _ => Path::new("runs").join(format!("{name}-{number}")),
    };
    (1..).map(path).find(|path| !path.exists()).context("every name of a run is taken")
}

/// The first ctrl-C or SIGTERM utters the wish to stop, the second one ends the program.
pub(super) fn stop_on_signals() -> anyhow::Result<Interrupt> {
    let interrupt = Interrupt::default();
    let wish = interrupt.clone();
    let handler = move || {
        if wish.request() {
            std::process::exit(i32::from(ExitStatus::Interrupted.code()));
        }
        eprintln!("\nfinishing this step and saving; once more to end at once, unsaved");
    };
    ctrlc::set_handler(handler).context("cannot listen for ctrl-C")?;
    Ok(interrupt)
}

fn describe(report: &Report) -> String {
    let mut lines = vec![format!("run\t{}", report.run.display())];
    let early = if report.stopped_early { ", stopped early" } else { "" };
    lines.push(format!("epochs\t{} in {:.1} s{early}", report.epochs, report.seconds));
    if let Some(best) = &report.best {
        lines.push(format!("best epoch\t{}", best.epoch));
        if let Some(validation) = &best.validation {
            lines.push(format!(
                "accuracy\t{:.2} % ({} of {} validation pictures, {})",
                100.0 * validation.accuracy,
                validation.correct,
                validation.pictures,
                validation.engine
            ));
        }
    }
    if let Some(test) = &report.test {
        let (correct, pictures) = (test.correct, test.pictures);
        lines.push(format!("test accuracy\t{:.2} % ({correct} of {pictures} test pictures)", 100.0 * test.accuracy));
    }
    lines.join("\n")
}
