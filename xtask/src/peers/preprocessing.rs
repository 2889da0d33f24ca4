use std::{
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, ensure};

use super::{Limits, Measured, OPENCV, Peer, Peers, TORCH};
use crate::process;

const PILLOW: Peer = Peer::new("PIL", &["pillow==13.0.0", "numpy==2.4.6"]);

/// What all tools do in turns, by one thread and by all.
struct Work {
    /// The chart's file name.
    name: &'static str,
    title: &'static str,
    /// A file that `preprocessing.py` paints.
    picture: &'static str,
    /// The name of the way for `preprocessing.py` and `measure`.
    resize: &'static str,
    /// Pictures of a thread in a run.
    repeats: usize,
    tools: &'static [Tool],
}

/// A tool that does a work.
struct Tool {
    /// Its name for `preprocessing.py`.
    name: &'static str,
    peer: Peer,
    /// Whether its result must be ours. Otherwise it has no such filter, and does what comes nearest.
    same: bool,
}

impl Tool {
    const fn new(name: &'static str, peer: Peer) -> Self {
        Self { name, peer, same: true }
    }

    const fn other(self) -> Self {
        Self { same: false, ..self }
    }
}

const WITH_PILLOW: Tool = Tool::new("pillow", PILLOW);
const WITH_OPENCV: Tool = Tool::new("opencv", OPENCV);
const WITH_TORCHVISION: Tool = Tool::new("torchvision", TORCH);

const WORKS: [Work; 4] = [
    Work {
        name: "preprocessing-bilinear",
        title: "12-megapixel JPEG, bilinear",
        picture: "12-megapixels.jpg",
        resize: "bilinear",
        repeats: 1,
        tools: &[WITH_OPENCV, WITH_TORCHVISION],
    },
    Work {
        name: "preprocessing-antialias",
        title: "12-megapixel JPEG, antialiased",
        picture: "12-megapixels.jpg",
        resize: "antialias",
        repeats: 1,
        tools: &[WITH_PILLOW, WITH_OPENCV.other(), WITH_TORCHVISION],
    },
    Work {
        name: "preprocessing-scaled",
        title: "12-megapixel JPEG, scaled decoding, antialiased",
        picture: "12-megapixels.jpg",
        resize: "scaled",
        repeats: 1,
        tools: &[WITH_PILLOW, WITH_OPENCV.other()],
    },
    Work {
        name: "preprocessing-png",
        title: "224×224 PNG",
        picture: "224.png",
        resize: "antialias",
        repeats: 16,
        tools: &[WITH_PILLOW, WITH_OPENCV, WITH_TORCHVISION],
    },
];

impl Peers<'_> {
    pub(super) fn preprocessing(&self, runs: usize) -> Result<()> {
        let pictures = self.painted()?;
        let mut rows = vec![
            "| work | tool | median ms | least ms | pictures/s | of the first tool's time | levels differ by | in the mean |"
                .to_owned(),
            "|---|---|---|---|---|---|---|---|".to_owned(),
        ];
        for work in &WORKS {
            for threads in [1, self.threads] {
                let tools = self.preprocessing_in_turns(work, &pictures, threads, runs)?;
                let title = match threads {
                    1 => format!("{}, 1 thread", work.title),
                    _ => format!("{}, {threads} threads", work.title),
                };
                rows.extend(table(&title, &tools));
                if threads == 1 {
                    self.draw(work.name, &format!("Milliseconds for a {title}, median"), &tools)?;
                }
            }
        }
        self.write("preprocessing", &rows)
    }

    fn preprocessing_in_turns(
        &self,
        work: &Work,
        pictures: &Path,
        threads: usize,
        runs: usize,
    ) -> Result<Vec<Measured>> {
        let finish = |mut command: Command| {
            command.arg("--picture").arg(pictures.join(work.picture)).args(["--resize", work.resize]);
            command.args(["--repeats", &work.repeats.to_string(), "--runs", &runs.to_string()]);
            command
        };
        let mut commands = vec![finish(self.measure("preprocessing", threads))];
        for tool in work.tools {
            let mut command = self.script(tool.peer, "preprocessing.py", threads)?;
            command.args(["--tool", tool.name]);
            commands.push(finish(command));
        }
        let measured = self.in_turns(&mut commands, Limits::None).context(work.title)?;
        let (ours, theirs) = measured.split_first().context("our own tool was measured")?;
        for (tool, theirs) in work.tools.iter().zip(theirs) {
            ensure!(ours.samples.len() == theirs.samples.len(), "{}: results of other sizes", theirs.tool);
            let Difference { largest, mean } = Difference::of(ours, theirs);
            let agree = largest <= LARGEST && mean <= MEAN;
            ensure!(
                agree || !tool.same,
                "{}: {} and {} differ by {largest:.2} levels, {mean:.3} in the mean; allowed are {LARGEST} and {MEAN}",
                work.title,
                ours.tool,
                theirs.tool
            );
        }
        Ok(measured)
    }

    /// The folder of the pictures that are measured, painted where they are missing.
    fn painted(&self) -> Result<PathBuf> {
        let folder = self.workspace.target.join("peers/pictures");
        let missing = WORKS.iter().any(|work| !folder.join(work.picture).exists());
        if missing {
            let mut paint = self.script(PILLOW, "preprocessing.py", 1)?;
            paint.args(["--tool", "pillow", "--paint"]).arg(&folder).arg("--from").arg(self.workspace.coffee());
            process::run(&mut paint)?;
        }
        Ok(folder)
    }
}

/// How far a result may be from ours, in levels of an 8-bit sample: the others round to whole levels once or twice, where
/// we do not.
const LARGEST: f64 = 2.0;
const MEAN: f64 = 0.5;

/// How far a tool's result is from the first one's, in levels of an 8-bit sample.
struct Difference {
    largest: f64,
    mean: f64,
}

impl Difference {
    fn of(first: &Measured, tool: &Measured) -> Self {
        let pairs = first.samples.iter().zip(&tool.samples);
        // A sample that is no number makes both of them infinite.
        let distance = |(a, b): (&f64, &f64)| if (a - b).is_nan() { f64::INFINITY } else { (a - b).abs() };
        let distances: Vec<_> = pairs.map(distance).collect();
        Self {
            largest: distances.iter().copied().fold(0.0, f64::max),
            mean: distances.iter().sum::<f64>() / distances.len() as f64,
        }
    }
}

fn table(work: &str, tools: &[Measured]) -> Vec<String> {
    let rows = super::table(work, tools, false);
    let row = |(row, tool): (String, &Measured)| {
        let Difference { largest, mean } = Difference::of(&tools[0], tool);
        format!("{row} {largest:.2} | {mean:.3} |")
    };
    rows.into_iter().zip(tools).map(row).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tool(samples: &[f64]) -> Measured {
        Measured {
            tool: "a".to_owned(),
            pictures: 2,
            ms: vec![20.0],
            peak_mib: 7.4,
            load_ms: None,
            first_ms: None,
            logits: Vec::new(),
            samples: samples.to_vec(),
        }
    }

    #[test]
    fn rows_tell_how_far_the_levels_are() {
        let rows = table("work", &[tool(&[0.0, 100.0]), tool(&[0.5, 99.0])]);
        assert_eq!(rows[1], "| work | a | 20 | 20 | 100.0 | 1.00 | 1.00 | 0.750 |");
        assert_eq!(Difference::of(&tool(&[1.0]), &tool(&[f64::NAN])).mean, f64::INFINITY);
    }
}
