use models::{RunFolder, Side};

use super::print;
use crate::{
    cli::{SideName, SplitArgs},
    exit_status::ExitStatus,
};

/// Prints the pictures of one side, a path on each line.
pub(crate) fn split(args: &SplitArgs) -> anyhow::Result<ExitStatus> {
    let split = RunFolder::open(&args.run)?.split()?;
    let side = match args.side {
        SideName::Training => Side::Training,
        SideName::Validation => Side::Validation,
        SideName::Test => Side::Test,
    };
    for file in split.side(side) {
        print(&file.path)?;
    }
    Ok(ExitStatus::Success)
}
