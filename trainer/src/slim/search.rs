//! The students, one after another.

use std::{
    path::{Path, PathBuf},
    time::Instant,
};

use models::{Architecture, KeptConvolution, Network, RunFolder, RunFolderError, Side};

use super::{
    MODEL, SETTINGS, SLIMMING, SlimError, SlimRequest, SlimSettings, Slimming, StudentReport, TeacherReport, files,
    measure::{importance, judge, student_file, teacher_file},
    outline::Outline,
    report::front,
    teacher::{Lessons, Teacher},
};
use crate::{
    BlockWidths, Config, EpochStart, FitRequest, ImageSize, Interrupt, Observer, Report, Status, StepProgress,
    fit::{Given, fit_given},
    report::created_by,
    subject::Subject,
};

/// By so much less accurate than its teacher, a student is the last of its line.
const HOPELESS: f64 = 0.1;

/// A search in memory.
pub(super) struct Search<'r> {
    pub(super) request: &'r SlimRequest,
    pub(super) folder: RunFolder,
    pub(super) teacher: Teacher,
    pub(super) slimming: Slimming,
    /// Students of an earlier start that have not been met again.
    known: std::vec::IntoIter<StudentReport>,
    lessons: Option<Lessons>,
}

/// A student before it is fitted.
struct Plan {
    parent: Option<usize>,
    change: String,
    image_size: ImageSize,
    widths: BlockWidths,
    kept: Vec<KeptConvolution>,
}

impl<'r> Search<'r> {
    pub(super) fn open(request: &'r SlimRequest, observer: &mut dyn Observer) -> Result<Self, SlimError> {
        check(request)?;
        let there = request.run.join(SLIMMING).is_file();
        let taken =
            || [RunFolder::CONFIG, RunFolder::BEST, RunFolder::LAST].iter().any(|name| request.run.join(name).exists());
        if !request.resume && (there || taken()) {
            return Err(SlimError::AlreadyARun { path: request.run.clone() });
        }
        if request.resume && !there {
            return Err(SlimError::NoSearch { path: request.run.clone() });
        }
        let teacher = Teacher::open(&request.teacher, &request.measuring, observer)?;
        let folder = RunFolder::create(&request.run)?;
        let slimming = match there {
            true => resumed(request, &folder, &teacher)?,
            false => begun(request, &folder, &teacher)?,
        };
        let mut search = Self { request, folder, teacher, slimming, known: Vec::new().into_iter(), lessons: None };
        if search.slimming.status == Status::Interrupted {
            search.known = std::mem::take(&mut search.slimming.students).into_iter();
        }
        Ok(search)
    }

    /// Tries students until the lines of all inputs have come to their ends, or until asked to stop.
    pub(super) fn run(&mut self, observer: &mut dyn Observer, interrupt: &Interrupt) -> Result<Status, SlimError> {
        if self.slimming.status == Status::Finished {
            return Ok(Status::Finished);
        }
        for size in self.request.settings.sizes(self.teacher.config.image_size) {
            if self.line(size, observer, interrupt)? == Status::Interrupted {
                return Ok(Status::Interrupted);
            }
        }
        self.slimming.status = Status::Finished;
        self.save()?;
        Ok(Status::Finished)
    }

    /// The students of one input, each made of the best before it.
    fn line(
        &mut self,
        size: ImageSize,
        observer: &mut dyn Observer,
        interrupt: &Interrupt,
    ) -> Result<Status, SlimError> {
        let Some(mut parent) = self.first(size, observer, interrupt)? else { return Ok(Status::Interrupted) };
        while self.is_worth_going_on(&parent) {
            let mut best: Option<StudentReport> = None;
            for plan in self.children(&parent)? {
                let Some(student) = self.attempt(plan, Some(&parent), observer, interrupt)? else {
                    return Ok(Status::Interrupted);
                };
                let rank = |student: &StudentReport| (student.file.correct, -student.loss);
                if best.as_ref().is_none_or(|best| rank(&student) > rank(best)) {
                    best = Some(student);
                }
            }
            let Some(best) = best else { break };
            parent = best;
        }
        Ok(Status::Finished)
    }

    fn is_worth_going_on(&self, student: &StudentReport) -> bool {
        let TeacherReport { correct, pictures, .. } = self.slimming.teacher;
        let least = correct as f64 - HOPELESS * pictures as f64;
        student.file.bytes > self.request.settings.smallest.0 && student.file.correct as f64 >= least
    }

    /// The first student of an input: the teacher with the most important channels of all its convolutions.
    fn first(
        &mut self,
        image_size: ImageSize,
        observer: &mut dyn Observer,
        interrupt: &Interrupt,
    ) -> Result<Option<StudentReport>, SlimError> {
        if let Some(known) = self.next_known() {
            return Ok(Some(known));
        }
        let parameters = self.request.settings.parameters;
        let lessons = self.lessons(observer)?;
        let outline = Outline::thinned(lessons.network.architecture(), &lessons.importance, parameters);
        let change = "the teacher's most important channels, averaged over the map".to_owned();
        self.attempt(plan(None, change, image_size, &outline), None, observer, interrupt)
    }

    /// What comes next of a student: fewer channels, and a layer less.
    fn children(&self, parent: &StudentReport) -> Result<Vec<Plan>, SlimError> {
        let run = RunFolder::open(&self.run_of(&parent.run))?;
        let subject = Subject::load(&run, &self.request.measuring, &mut ())?;
        let importance = importance(&subject, self.teacher.training(), self.teacher.config.seed)?;
        let network = subject.network.architecture();
        let most = (parent.parameters as f64 * self.request.settings.shrink) as usize;
        let whole = Outline::of(network);
        let mut plans = Vec::new();
        let narrower = whole.narrower(network, &importance, most);
        if narrower != whole {
            plans.push(plan(Some(parent.number), "fewer channels".to_owned(), parent.image_size, &narrower));
        }
        if let Some(shallower) = whole.shallower(network, &importance) {
            let shallower = shallower.narrower(network, &importance, most);
            plans.push(plan(Some(parent.number), "a layer less".to_owned(), parent.image_size, &shallower));
        }
        Ok(plans)
    }

    /// A student of an earlier start, where there is one more.
    fn next_known(&mut self) -> Option<StudentReport> {
        let known = self.known.next()?;
        self.slimming.students.push(known.clone());
        Some(known)
    }

    /// Fits, exports and measures a student; none where asked to stop.
    fn attempt(
        &mut self,
        plan: Plan,
        parent: Option<&StudentReport>,
        observer: &mut dyn Observer,
        interrupt: &Interrupt,
    ) -> Result<Option<StudentReport>, SlimError> {
        if let Some(known) = self.next_known() {
            return Ok(Some(known));
        }
        let began = Instant::now();
        let number = self.slimming.students.len() + 1;
        let place = PathBuf::from("students").join(number.to_string());
        let config = self.config(&plan);
        let architecture = config.architecture(self.teacher.split.labels.len())?;
        observer.notice(&introduction(number, &plan, &architecture));
        let network = self.network(&plan, parent, &architecture, observer)?;
        let given = Given { network: Some(network), teacher: Some(self.lessons(observer)?.answers.clone()) };
        let request = FitRequest { run: self.run_of(&place), config, ..FitRequest::default() };
        let fitted = fit_given(&request, self.teacher.split.clone(), given, &mut Within(observer), interrupt)?;
        if fitted.status == Status::Interrupted {
            return Ok(None);
        }
        let student = self.measured(number, place, plan, (&architecture, &fitted), began)?;
        observer.notice(&conclusion(&student, &self.slimming.teacher));
        self.slimming.seconds += student.seconds;
        self.slimming.students.push(student.clone());
        self.save()?;
        Ok(Some(student))
    }

    fn measured(
        &self,
        number: usize,
        place: PathBuf,
        plan: Plan,
        (architecture, fitted): (&Architecture, &Report),
        began: Instant,
    ) -> Result<StudentReport, SlimError> {
        let run = RunFolder::open(&self.run_of(&place))?;
        let output = run.file(MODEL);
        let (report, engine) = student_file(&run, &output, &self.request.settings)?;
        let file = judge(&output, (&report, &engine), &self.teacher.validation, &self.teacher.answers)?;
        let validation = fitted.best.as_ref().and_then(|best| best.validation.as_ref());
        Ok(StudentReport {
            number,
            parent: plan.parent,
            change: plan.change,
            run: place,
            image_size: plan.image_size,
            widths: plan.widths,
            parameters: architecture.parameters(),
            flops: architecture.flops(),
            loss: validation.map_or(f64::INFINITY, |validation| validation.loss),
            file,
            robustness: None,
            seconds: began.elapsed().as_secs_f64(),
        })
    }

    /// The network that a student begins as.
    fn network(
        &mut self,
        plan: &Plan,
        parent: Option<&StudentReport>,
        architecture: &Architecture,
        observer: &mut dyn Observer,
    ) -> Result<Network, SlimError> {
        let seed = u64::from(self.teacher.config.seed);
        let Some(parent) = parent else {
            return Ok(self.lessons(observer)?.network.narrowed(architecture, &plan.kept, seed)?);
        };
        let path = self.run_of(&parent.run).join(RunFolder::BEST);
        let (network, _) = Network::load(&path, self.lessons(observer)?.network.device())?;
        Ok(network.narrowed(architecture, &plan.kept, seed)?)
    }

    /// What students learn, which takes a look at all training pictures and is only done where one is to be fitted.
    fn lessons(&mut self, observer: &mut dyn Observer) -> Result<&Lessons, SlimError> {
        let lessons = match self.lessons.take() {
            Some(lessons) => lessons,
            None => self.teacher.lessons(&self.request.measuring, observer)?,
        };
        Ok(self.lessons.insert(lessons))
    }

    /// The settings of the run that fits a student.
    fn config(&self, plan: &Plan) -> Config {
        let Teacher { config, split, .. } = &self.teacher;
        let smaller = plan.image_size != config.image_size;
        Config {
            teacher: Some(self.request.teacher.clone()),
            widths: Some(plan.widths.clone()),
            image_size: plan.image_size,
            // A smaller picture of the average of what it shows has less noise in it.
            antialias: if smaller { Some(true) } else { config.antialias },
            device: self.request.measuring.device,
            precision: self.request.measuring.precision,
            threads: self.request.measuring.threads,
            ..self.request.settings.student(config, split.side(Side::Training).count())
        }
    }

    /// A path below the folder.
    pub(super) fn run_of(&self, place: &Path) -> PathBuf {
        self.folder.path().join(place)
    }

    /// Brings what has been found to the disk, the table and the plot with it.
    pub(super) fn save(&mut self) -> Result<(), SlimError> {
        self.slimming.front = front(&self.slimming.students);
        files::write(&self.folder, &self.slimming, &self.request.budget)
    }

    pub(super) fn into_slimming(self) -> Slimming {
        self.slimming
    }
}

fn plan(parent: Option<usize>, change: String, image_size: ImageSize, outline: &Outline) -> Plan {
    let kept = outline.convolutions().cloned().collect();
    Plan { parent, change, image_size, widths: BlockWidths(outline.widths()), kept }
}

fn introduction(number: usize, plan: &Plan, architecture: &Architecture) -> String {
    let Plan { parent, change, image_size, widths, .. } = plan;
    let parent = parent.map_or_else(String::new, |parent| format!(" of {parent}"));
    let parameters = architecture.parameters();
    format!("student {number}{parent}: {change}; {image_size}, {widths}, {parameters} parameters")
}

fn conclusion(student: &StudentReport, teacher: &TeacherReport) -> String {
    let StudentReport { number, file, seconds, .. } = student;
    format!(
        "student {number}: {} of {} right (the teacher {}), {:.1} KB, {:.2} ms in {}; {seconds:.0} s",
        file.correct,
        file.pictures,
        teacher.correct,
        file.bytes as f64 / 1e3,
        file.latency_ms,
        file.engine
    )
}

/// What is wrong with the settings whatever the teacher.
fn check(request: &SlimRequest) -> Result<(), SlimError> {
    let SlimSettings { shrink, parameters, epochs, .. } = request.settings;
    let max_drop = request.budget.max_drop;
    let robustness_drop = request.budget.max_robustness_drop.unwrap_or_default();
    let checks = [
        ("shrink", shrink, (0.1..1.0).contains(&shrink), "at least 0.1 and below 1"),
        ("parameters", parameters as f64, parameters > 0, "at least 1"),
        ("epochs", f64::from(epochs), epochs > 0, "at least 1"),
        ("max_drop", max_drop, (0.0..1.0).contains(&max_drop), "at least 0 and below 1"),
        ("max_robustness_drop", robustness_drop, (0.0..1.0).contains(&robustness_drop), "at least 0 and below 1"),
    ];
    match checks.into_iter().find(|(_, _, holds, _)| !holds) {
        Some((key, found, _, expected)) => Err(SlimError::OutOfRange { key, found, expected }),
        None => Ok(()),
    }
}

/// What the settings and the teacher of a search are, in its folder.
fn settings(request: &SlimRequest, teacher: &Teacher) -> String {
    let settings = toml::to_string(&request.settings).expect("flat settings are always TOML");
    format!("teacher = \"{}\"\n{settings}", teacher.weights)
}

/// A new search, with the teacher measured.
fn begun(request: &SlimRequest, folder: &RunFolder, teacher: &Teacher) -> Result<Slimming, SlimError> {
    let export = teacher_file(&teacher.run, folder.path(), request.settings.target)?;
    let latency = export.verification.engines.first().and_then(|engine| engine.latency_ms);
    let architecture = teacher.config.architecture(teacher.split.labels.len())?;
    let slimming = Slimming {
        status: Status::Interrupted,
        run: request.run.clone(),
        created_by: created_by(),
        teacher: TeacherReport {
            run: request.teacher.clone(),
            architecture: architecture.name.clone(),
            parameters: architecture.parameters(),
            flops: architecture.flops(),
            weights: teacher.weights,
            bytes: export.bytes,
            latency_ms: latency.unwrap_or_default(),
            correct: teacher.answers.tally().correct(),
            pictures: teacher.answers.len(),
            robustness: None,
        },
        students: Vec::new(),
        front: Vec::new(),
        picked: None,
        seconds: 0.0,
    };
    folder.write(SETTINGS, settings(request, teacher).as_bytes())?;
    // This file makes the folder a search, so it comes last.
    files::write(folder, &slimming, &request.budget)?;
    Ok(slimming)
}

/// A search that goes on.
fn resumed(request: &SlimRequest, folder: &RunFolder, teacher: &Teacher) -> Result<Slimming, SlimError> {
    let saved = String::from_utf8_lossy(&folder.read(SETTINGS)?).into_owned();
    let own = settings(request, teacher);
    let differing = saved.lines().zip(own.lines()).find(|(there, here)| there != here);
    let differing =
        differing.or((saved.lines().count() != own.lines().count()).then_some((saved.as_str(), own.as_str())));
    if let Some((there, here)) = differing {
        let (there, here) = (there.to_owned(), here.to_owned());
        return Err(SlimError::OtherSettings { path: request.run.clone(), there, here });
    }
    Ok(serde_json::from_slice(&folder.read(SLIMMING)?)
        .map_err(|source| RunFolderError::Damaged { path: folder.file(SLIMMING), source })?)
}

/// Passes on what a person wants to see of a student's training: not its epochs one by one.
struct Within<'o>(&'o mut dyn Observer);

impl Observer for Within<'_> {
    fn epoch_started(&mut self, start: EpochStart) {
        self.0.epoch_started(start);
    }

    fn stepped(&mut self, progress: StepProgress) {
        self.0.stepped(progress);
    }

    fn validated(&mut self, done: usize, total: usize) {
        self.0.validated(done, total);
    }
}
