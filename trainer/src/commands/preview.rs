use anyhow::Context;
use models::write_atomic;

use crate::{cli::PreviewArgs, exit_status::ExitStatus};

/// Draws ten pictures of a folder with their labels.
pub(crate) fn preview(args: &PreviewArgs) -> anyhow::Result<ExitStatus> {
    let png = trainer::preview(&args.pictures, args.seed)?;
    write_atomic(&args.output, &png).with_context(|| format!("cannot write {}", args.output.display()))?;
    Ok(ExitStatus::Success)
}
