use trainer::{
    Status,
    figures::{p_value, percent, with_interval},
    slim::{FileReport, PickedReport, SlimRequest, Slimming, StudentReport, slim as find_students},
};

use super::{
    fit::stop_on_signals,
    measuring, print, print_json,
    table::{lines, table},
};
use crate::{
    cli::{Format, SlimArgs},
    exit_status::ExitStatus,
    progress::Progress,
};

/// Looks for a smaller network that answers as well.
pub(crate) fn slim(args: SlimArgs) -> anyhow::Result<ExitStatus> {
    let measuring = measuring(&args.measuring)?;
    let interrupt = stop_on_signals()?;
    let request = SlimRequest {
        settings: args.settings(),
        budget: args.budget(),
        resume: args.resume || args.pick.is_some(),
        pick: args.pick,
        teacher: args.teacher,
        run: args.run,
        measuring,
    };
    let mut progress = Progress::new(Format::Text);
    let slimming = find_students(&request, &mut progress, &interrupt);
    progress.finish()?;
    let slimming = slimming?;
    match args.format {
        Format::Json => print_json(&slimming)?,
        Format::Text => print(&describe(&slimming))?,
    }
    Ok(match (slimming.status, &slimming.picked) {
        (Status::Interrupted, _) => {
            eprintln!("interrupted and saved; go on with the same command and --resume");
            ExitStatus::Interrupted
        }
        (Status::Finished, None) => {
            eprintln!("no student keeps the budget; allow more, or take one by --pick");
            ExitStatus::GateFailed
        }
        (Status::Finished, Some(_)) => ExitStatus::Success,
    })
}

fn describe(slimming: &Slimming) -> String {
    let Slimming { teacher, students, .. } = slimming;
    let mut rows =
        table(&["student", "of", "input", "parameters", "KB", "ms", "accuracy", "lost", "won", "p", "what"], 1);
    let accuracy = teacher.correct as f64 / teacher.pictures.max(1) as f64;
    let mut teacher_row = vec!["teacher".to_owned(), String::new(), String::new(), teacher.parameters.to_string()];
    teacher_row.extend([kilobytes(teacher.bytes), format!("{:.2}", teacher.latency_ms), percent(accuracy)]);
    teacher_row.resize(10, String::new());
    teacher_row.push(teacher.architecture.clone());
    rows.add_row(teacher_row);
    for student in students {
        rows.add_row(row(slimming, student));
    }
    let mut text = vec![lines(&rows)];
    text.push("* no other student is smaller, faster and as often right".to_owned());
    if let Some(picked) = &slimming.picked {
        text.push(describe_picked(slimming, picked));
    }
    text.join("\n")
}

fn row(slimming: &Slimming, student: &StudentReport) -> Vec<String> {
    let StudentReport { number, parent, change, image_size, parameters, file, .. } = student;
    let FileReport { bytes, latency_ms, correct, pictures, accuracy_interval, lost, won, .. } = *file;
    let front = if slimming.front.contains(number) { "*" } else { "" };
    vec![
        format!("{number}{front}"),
        parent.map_or_else(|| "teacher".to_owned(), |parent| parent.to_string()),
        image_size.to_string(),
        parameters.to_string(),
        kilobytes(bytes),
        format!("{latency_ms:.2}"),
        with_interval(Some(correct as f64 / pictures.max(1) as f64), accuracy_interval),
        lost.to_string(),
        won.to_string(),
        p_value(file.p_value),
        change.clone(),
    ]
}

fn describe_picked(slimming: &Slimming, picked: &PickedReport) -> String {
    let Slimming { teacher, students, .. } = slimming;
    let PickedReport { student, file, bytes, .. } = picked;
    let mut lines = vec![format!(
        "picked student {student}: {} ({} KB), {:.0} times smaller than the teacher",
        file.display(),
        kilobytes(*bytes),
        teacher.bytes as f64 / (*bytes).max(1) as f64
    )];
    let Some(student) = students.get(student - 1) else { return lines.concat() };
    lines[0] += &format!(" and {:.0} times faster", teacher.latency_ms / student.file.latency_ms.max(1e-6));
    if let (Some(own), Some(theirs)) = (&student.robustness, &teacher.robustness) {
        let [own_mean, their_mean] = [own, theirs].map(|robustness| percent(robustness.mean_accuracy()));
        lines.push(format!("distorted pictures: {own_mean} right in the mean, the teacher {their_mean}"));
        let mut rows = table(&["distorted pictures", "teacher", "student"], 0);
        for (own, theirs) in own.distortions.iter().zip(&theirs.distortions) {
            for (own_result, theirs) in own.strengths.iter().zip(&theirs.strengths) {
                let what = format!("{} {}", own.name, own_result.label);
                rows.add_row([what, percent(theirs.accuracy), percent(own_result.accuracy)]);
            }
        }
        lines.push(self::lines(&rows));
    }
    lines.join("\n")
}

fn kilobytes(bytes: u64) -> String {
    format!("{:.1}", bytes as f64 / 1e3)
}
