use anyhow::Context;
use models::write_atomic;

use crate::{cli::PreviewArgs, exit_status::ExitStatus};

/// Draws some pictures of a folder with their labels, or with variations.
pub(crate) fn preview(args: &PreviewArgs) -> anyhow::Result<ExitStatus> {
    let png = match &args.augment {
        Some(augmentation) if !augmentation.is_none() => {
            trainer::preview_variations(&args.pictures, args.seed, augmentation, args.image_size)?
        }
        _ => trainer::preview(&args.pictures, args.seed)?,
    };
    write_atomic(&args.output, &png).with_context(|| format!("cannot write {}", args.output.display()))?;
    Ok(ExitStatus::Success)
}
