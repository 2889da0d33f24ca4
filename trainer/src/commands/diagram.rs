use anyhow::{Context, bail};
use models::{draw, write_atomic};

use super::architecture;
use crate::{cli::DiagramArgs, exit_status::ExitStatus};

/// Pixels per unit of the drawing in a PNG file.
const SCALE: f32 = 2.0;

/// Draws a network.
pub(crate) fn diagram(args: &DiagramArgs) -> anyhow::Result<ExitStatus> {
    let svg = architecture(&args.network)?.diagram();
    let extension = args.output.extension().map(|extension| extension.to_ascii_lowercase());
    let bytes = match extension.as_ref().and_then(|extension| extension.to_str()) {
        Some("svg") => svg.into_bytes(),
        Some("png") => draw::rasterize(&svg, SCALE).context("cannot draw the architecture")?,
        _ => bail!("cannot tell the format of {}; expected a name that ends in .svg or .png", args.output.display()),
    };
    write_atomic(&args.output, &bytes).with_context(|| format!("cannot write {}", args.output.display()))?;
    Ok(ExitStatus::Success)
}
