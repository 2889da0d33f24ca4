use trainer::sample_data::{SampleOptions, paint};

use crate::{cli::SampleDataArgs, exit_status::ExitStatus};

/// Paints synthetic pictures.
pub(crate) fn sample_data(args: &SampleDataArgs) -> anyhow::Result<ExitStatus> {
    let &SampleDataArgs { ref folder, per_class, size, seed } = args;
    let report = paint(folder, SampleOptions { per_class, size, seed })?;
    let labels = report.labels.join(", ");
    eprintln!("painted {} synthetic pictures ({labels}) in {}", report.pictures, report.folder.display());
    Ok(ExitStatus::Success)
}
