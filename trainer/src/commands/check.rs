use anyhow::Context;
use models::write_atomic;
use trainer::{
    Config, Interrupt,
    check::{Check, CheckRequest, Count, Finding, Group, NamedFile, check as check_pictures, page},
    data::Folders,
};

use super::{print, print_json};
use crate::{
    cli::{CheckArgs, Format},
    exit_status::ExitStatus,
    progress::Progress,
    threads,
};

/// How many files or groups of a kind the text lists.
const LISTED: usize = 10;

/// Looks at pictures before they are used.
pub(crate) fn check(args: CheckArgs) -> anyhow::Result<ExitStatus> {
    threads::limit(Config { threads: args.threads, ..Config::default() }.thread_count())?;
    let CheckArgs { pictures, validation, test, validation_split, seed, report, strict, format, .. } = args;
    let request = CheckRequest { folders: Folders { pictures, validation, test }, validation_split, seed };
    let mut progress = Progress::new(Format::Text);
    let check = check_pictures(&request, &mut progress, &Interrupt::default());
    progress.finish()?;
    let check = check?;
    match format {
        Format::Json => print_json(&check)?,
        Format::Text => print(&describe(&check))?,
    }
    if let Some(path) = report {
        write_atomic(&path, page(&check).as_bytes()).with_context(|| format!("cannot write {}", path.display()))?;
    }
    let failing: Vec<_> = check.findings.iter().filter(|finding| strict.contains(&finding.kind)).collect();
    if failing.is_empty() {
        return Ok(ExitStatus::Success);
    }
    eprintln!("--strict does not hold:");
    failing.iter().for_each(|finding| eprintln!("  {}", finding.text));
    Ok(ExitStatus::GateFailed)
}

fn describe(check: &Check) -> String {
    let mut lines = vec![format!("{} pictures in {} classes", check.pictures, check.classes.len()), String::new()];
    let width = check.classes.iter().map(|class| class.label.chars().count()).max().unwrap_or(0).max(5);
    lines.push(format!("{:width$}  pictures  training  validation  test", "class"));
    lines.extend(check.classes.iter().map(|class| {
        let [all, training, validation, test] = [class.pictures, class.training, class.validation, class.test];
        format!("{:width$}  {all:>8}  {training:>8}  {validation:>10}  {test:>4}", class.label)
    }));
    lines.push(String::new());
    lines.push(format!("sizes: {}", counts(&check.sizes)));
    lines.push(format!("samples: {}", counts(&check.colors)));
    lines.push(String::new());
    match check.findings.as_slice() {
        [] => lines.push("nothing was found that should be looked at".to_owned()),
        findings => lines.extend(findings.iter().map(|Finding { text, .. }| format!("- {text}"))),
    }
    let of = |kept: &dyn Fn(&Group) -> bool| check.groups.iter().filter(|group| kept(group)).map(shown).collect();
    list(&mut lines, "in several classes", of(&|group| group.label_conflict));
    list(&mut lines, "on several sides", of(&|group| group.leak && !group.label_conflict));
    let plain = |group: &Group| !group.leak && !group.label_conflict;
    list(&mut lines, "look alike", of(&|group| plain(group) && group.distance.is_some()));
    list(&mut lines, "same content", of(&|group| plain(group) && group.distance.is_none()));
    let named = |files: &[NamedFile]| files.iter().map(|file| format!("{}: {}", file.path, file.problem)).collect();
    list(&mut lines, "cannot be used", named(&check.unreadable_files));
    list(&mut lines, "unusual", named(&check.odd_files));
    lines.join("\n")
}

fn counts(counts: &[Count]) -> String {
    let shown = counts.iter().take(LISTED).map(|count| format!("{} {}", count.pictures, count.kind));
    let more = counts.len().checked_sub(LISTED).filter(|&more| more > 0).map(|more| format!("{more} more kinds"));
    shown.chain(more).collect::<Vec<_>>().join(", ")
}

fn shown(group: &Group) -> String {
    let (shown, rest) = group.files.split_at(group.files.len().min(LISTED));
    let mut names: Vec<_> = shown.iter().map(|file| file.path.clone()).collect();
    names.extend((!rest.is_empty()).then(|| format!("{} more", rest.len())));
    let distance = group.distance.map(|bits| format!(" ({bits} of 256 bits)")).unwrap_or_default();
    format!("{}{distance}", names.join(" = "))
}

fn list(lines: &mut Vec<String>, heading: &str, entries: Vec<String>) {
    if entries.is_empty() {
        return;
    }
    lines.extend([String::new(), format!("{heading}: {}", entries.len())]);
    lines.extend(entries.iter().take(LISTED).map(|entry| format!("  {entry}")));
    if entries.len() > LISTED {
        lines.push(format!("  and {} more, which --report FILE shows", entries.len() - LISTED));
    }
}
