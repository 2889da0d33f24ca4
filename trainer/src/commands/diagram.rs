use super::{DrawingFormat, architecture};
use crate::{cli::DiagramArgs, exit_status::ExitStatus};

/// Draws a network.
pub(crate) fn diagram(args: &DiagramArgs) -> anyhow::Result<ExitStatus> {
    let svg = architecture(&args.network)?.diagram();
    DrawingFormat::of(&args.output)?.write(&args.output, svg)?;
    Ok(ExitStatus::Success)
}
