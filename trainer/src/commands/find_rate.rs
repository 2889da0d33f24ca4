use trainer::{Config, RangeTest, RangeTestRequest, charts, range_test};

use super::{DrawingFormat, fit::stop_on_signals, print, print_json};
use crate::{
    cli::{FindRateArgs, Format},
    exit_status::ExitStatus,
    progress::Progress,
    threads,
};

/// Looks for a good learning rate.
pub(crate) fn find_rate(args: FindRateArgs) -> anyhow::Result<ExitStatus> {
    let format = args.output.as_deref().map(DrawingFormat::of).transpose()?;
    let base = args.settings.config.as_ref().map_or_else(|| Ok(Config::default()), |file| Config::from_file(file))?;
    let config = base.overlaid(args.settings.table())?;
    config.validate()?;
    threads::limit(config.thread_count())?;
    let interrupt = stop_on_signals()?;
    let FindRateArgs { pictures, lowest, highest, steps, .. } = args;
    let request = RangeTestRequest { pictures, config, lowest, highest, steps };
    let mut progress = Progress::new(args.format);
    let outcome = range_test(&request, &mut progress, &interrupt);
    progress.finish()?;
    let Some(test) = outcome? else { return Ok(ExitStatus::Interrupted) };
    if let (Some(path), Some(format)) = (&args.output, format) {
        format.write(path, charts::range_test(&test))?;
    }
    match args.format {
        Format::Json => print_json(&test)?,
        Format::Text => print(&describe(&test))?,
    }
    Ok(ExitStatus::Success)
}

fn describe(test: &RangeTest) -> String {
    let steps = test.points.len();
    match test.suggested {
        Some(rate) => format!("suggested learning rate\t{rate:.1e}\nsteps\t{steps}"),
        None => format!("suggested learning rate\tnone: the loss did not fall\nsteps\t{steps}"),
    }
}
