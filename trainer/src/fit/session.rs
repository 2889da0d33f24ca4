use std::{ops::Range, path::PathBuf, sync::Arc, time::Instant};

use candle_core::Tensor;
use models::{
    Adam, Architecture, InitialWeights, Metric, ModelCard, Network, NetworkError, Provenance, RunFolder, Sha256, Side,
    Split, StepSettings, TemperatureScaling, TrainingBatch, dropout_generator, training_step,
};

use super::{
    FitError, artifacts,
    best_weights::{NEXT_BEST, promote},
    event_log::EventLog,
    setup::{pictures, schedule, set_backbone_rate, settle, step_settings},
    state::{Best, TrainingState},
    teacher,
    trained::Trained,
};
use crate::{
    Answers, BestWeights, Config, DataError, EpochMetrics, Evaluation, Interrupt, Observer, Report, Schedule, Status,
    calibration::fit_temperature,
    data::{self, Batch, Batches, EpochPlace, Folders, Pictures, epoch_order},
    device::ChosenDevice,
    evaluation::{Tally, tensors},
    observer::{EpochStart, StepProgress},
    report::created_by,
};

/// What the validation side is called in a model card.
pub(crate) const VALIDATION_DATA: &str = "validation side of the run";

/// Pictures that are checked between two looks at the wish to stop.
const CHECKED_AT_ONCE: usize = 64;

/// What to fit, and where to.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct FitRequest {
    /// The folder of labelled pictures; a run that goes on knows its own.
    pub pictures: Option<PathBuf>,
    /// The folder of pictures to validate with; without it, a share of `pictures`.
    pub validation: Option<PathBuf>,
    /// The folder of pictures that the best weights are measured on at the end.
    pub test: Option<PathBuf>,
    /// The run folder.
    pub run: PathBuf,
    /// Whether to go on with the run that is in the folder.
    pub resume: bool,
    /// The settings.
    pub config: Config,
}

/// A training run in memory.
pub(super) struct Session {
    config: Config,
    run: RunFolder,
    split: Split,
    data: Sha256,
    architecture: Architecture,
    device: ChosenDevice,
    pool: Arc<rayon::ThreadPool>,
    /// The training side, the validation side, the test side.
    pictures: Arc<Pictures>,
    network: Network,
    /// Where the first weights came from, unless they were drawn by chance.
    origin: Option<InitialWeights>,
    adam: Adam,
    schedule: Schedule,
    /// What the teacher says to the training side, where there is a teacher.
    teacher: Option<Arc<Answers>>,
    /// All of a step that does not change from one to the next.
    settings: StepSettings,
    events: Option<EventLog>,
    state: TrainingState,
}

/// What a run is given that its settings only describe: for several runs that have it in common, or take it from another.
#[derive(Default)]
pub(crate) struct Given {
    /// The network before its first step.
    pub network: Option<Network>,
    /// What the teacher of the settings says to the training pictures.
    pub teacher: Option<Arc<Answers>>,
}

/// What the network answers on the validation side.
struct Validation {
    tally: Tally,
    /// None where no temperature helps.
    temperature_scaling: Option<TemperatureScaling>,
}

/// Whether something came to its end, or was asked to stop before.
enum Passage<T> {
    Through(T),
    Interrupted,
}

impl Session {
    /// A new run.
    pub fn start(request: &FitRequest, observer: &mut dyn Observer, interrupt: &Interrupt) -> Result<Self, FitError> {
        request.config.validate()?;
        Self::check_free(request)?;
        let FitRequest { pictures, validation, test, config, .. } = request;
        // No number of classes makes a network possible that is not; better known before all pictures are read.
        config.architecture(2)?;
        let pictures = pictures.clone().ok_or(FitError::NoPictures)?;
        let folders = Folders { pictures, validation: validation.clone(), test: test.clone() };
        let split = data::split(&folders, &config.split_settings(), observer, interrupt)?;
        Self::start_on(request, split, Given::default(), observer)
    }

    fn check_free(request: &FitRequest) -> Result<(), FitError> {
        // A kill while a run is set up leaves no settings, which are written last of its description: no run yet.
        let taken = |name| request.run.join(name).exists();
        if [RunFolder::CONFIG, RunFolder::LAST, RunFolder::BEST].into_iter().any(taken) {
            return Err(FitError::AlreadyARun { path: request.run.clone() });
        }
        Ok(())
    }

    /// A new run on pictures that are divided already.
    pub fn start_on(
        request: &FitRequest,
        split: Split,
        given: Given,
        observer: &mut dyn Observer,
    ) -> Result<Self, FitError> {
        request.config.architecture(split.labels.len())?;
        let (config, device) = settle(&request.config, observer)?;
        let (config, trained) = Trained::new(&config, &split, &device, given.network, observer)?;
        let teacher = match given.teacher {
            None => teacher::answers(&config, &split, &device, observer)?,
            given => given,
        };
        // What does not suit the pictures is refused before anything is written.
        schedule(&config, &split)?;
        step_settings(&config, &split)?;
        let run = RunFolder::create(&request.run)?;
        artifacts::describe(&run, trained.network.architecture())?;
        // The settings make the folder a run, so they come last.
        run.write_split(&split)?;
        run.write(RunFolder::CONFIG, config.to_toml().as_bytes())?;
        Self::assemble(config, run, split, device, trained, teacher)
    }

    /// A run that goes on.
    pub fn resume(request: &FitRequest, given: Given, observer: &mut dyn Observer) -> Result<Self, FitError> {
        request.config.validate()?;
        let run = RunFolder::open(&request.run)?;
        let saved = Config::from_file(&run.file(RunFolder::CONFIG))?;
        let asked = request.config.completed_by(&saved);
        let differences = asked.differences(&saved);
        if !differences.is_empty() {
            return Err(FitError::OtherSettings { path: request.run.clone(), differences });
        }
        let recorded = run.split()?;
        let folders = data::folders_of(&recorded);
        let split = data::relocated(
            &recorded,
            &Folders {
                pictures: request.pictures.clone().unwrap_or(folders.pictures),
                validation: request.validation.clone().or(folders.validation),
                test: request.test.clone().or(folders.test),
            },
        )?;
        let architecture = asked.architecture(split.labels.len())?;
        let (config, device) = settle(&asked, observer)?;
        let (config, trained) = match Trained::load(&run, &architecture, &split, &device)? {
            Some(saved) => (config, saved),
            None => {
                observer.notice("the run was stopped before it saved any weights; it begins again");
                Trained::new(&config, &split, &device, given.network, observer)?
            }
        };
        let teacher = match given.teacher {
            None => teacher::answers(&config, &split, &device, observer)?,
            given => given,
        };
        let done = trained.state.epochs;
        if config.epochs < done {
            return Err(FitError::FewerEpochs { done, asked: config.epochs });
        }
        // The pictures may have moved, and the run may have been given another machine or more epochs.
        run.write_split(&split)?;
        run.write(RunFolder::CONFIG, config.to_toml().as_bytes())?;
        Self::assemble(config, run, split, device, trained, teacher)
    }

    fn assemble(
        config: Config,
        run: RunFolder,
        split: Split,
        device: ChosenDevice,
        trained: Trained,
        teacher: Option<Arc<Answers>>,
    ) -> Result<Self, FitError> {
        let Trained { mut network, origin, mut adam, state } = trained;
        network.set_precision(device.precision)?;
        set_backbone_rate(&mut adam, &config, origin.as_ref());
        let threads = config.threads;
        let pool = data::decoding_pool(threads).map_err(|source| FitError::Threads { threads, source })?;
        let pictures = pictures(&config, &split);
        let (data, architecture) = (split.digest(), network.architecture().clone());
        let (schedule, settings) = (schedule(&config, &split)?, step_settings(&config, &split)?);
        let events = config.tensorboard.then(|| EventLog::open(&run, &state.rows)).transpose()?;
        Ok(Self {
            config,
            run,
            split,
            data,
            architecture,
            device,
            pool,
            pictures,
            network,
            origin,
            adam,
            schedule,
            teacher,
            settings,
            events,
            state,
        })
    }

    /// Trains until all epochs are done, or until asked to stop.
    pub fn run(mut self, observer: &mut dyn Observer, interrupt: &Interrupt) -> Result<Report, FitError> {
        match self.train(observer, interrupt)? {
            Passage::Through(test) => self.finish(Status::Finished, test),
            Passage::Interrupted => {
                if self.state.batches > 0 || !self.run.file(RunFolder::LAST).exists() {
                    self.check_weights()?;
                    self.save_last(&self.card(None))?;
                }
                self.finish(Status::Interrupted, None)
            }
        }
    }

    /// Trains, and measures the best weights on the test side where there is one.
    fn train(
        &mut self,
        observer: &mut dyn Observer,
        interrupt: &Interrupt,
    ) -> Result<Passage<Option<Tally>>, FitError> {
        if let Passage::Interrupted = self.check_pictures(observer, interrupt)? {
            return Ok(Passage::Interrupted);
        }
        artifacts::preview(&self.run, &self.split)?;
        if self.config.epochs == 0 && self.state.best.is_none() {
            let Passage::Through(validation) = self.validate(observer, interrupt)? else {
                return Ok(Passage::Interrupted);
            };
            self.save(validation, None)?;
        }
        while self.state.epochs < self.config.epochs {
            if let Some(patience) = self.lost_patience() {
                observer.notice(&format!("no better weights for {patience} epochs; training stops early"));
                break;
            }
            if let Passage::Interrupted = self.epoch(observer, interrupt)? {
                return Ok(Passage::Interrupted);
            }
        }
        match self.range(Side::Test) {
            test if test.is_empty() => Ok(Passage::Through(None)),
            test => {
                let (mut best, _) = Network::load(&self.run.file(RunFolder::BEST), &self.device.device)?;
                best.set_precision(self.device.precision)?;
                let Passage::Through(answers) = self.answers(&best, test, observer, interrupt)? else {
                    return Ok(Passage::Interrupted);
                };
                Ok(Passage::Through(Some(answers.tally())))
            }
        }
    }

    /// The patience, where it is at its end.
    fn lost_patience(&self) -> Option<u32> {
        let best = self.state.best.as_ref()?;
        self.config.patience.filter(|&patience| self.state.epochs - best.epoch >= patience)
    }

    /// Reads every picture once, so that a bad one is known now and not hours from now, and those that fit the
    /// memory budget need not be read again.
    fn check_pictures(&self, observer: &mut dyn Observer, interrupt: &Interrupt) -> Result<Passage<()>, FitError> {
        let total = self.pictures.len();
        for start in (0..total).step_by(CHECKED_AT_ONCE) {
            if interrupt.is_requested() {
                return Ok(Passage::Interrupted);
            }
            let end = total.min(start + CHECKED_AT_ONCE);
            self.pool.install(|| self.pictures.check(start..end))?;
            observer.checked(end, total);
        }
        Ok(Passage::Through(()))
    }

    /// One epoch, or what is left of it.
    fn epoch(&mut self, observer: &mut dyn Observer, interrupt: &Interrupt) -> Result<Passage<()>, FitError> {
        let training = self.range(Side::Training).len();
        let mut order = epoch_order(training, self.config.seed, self.state.epochs);
        let rest = order.split_off(training.min(self.state.batches * self.config.batch_size));
        observer.epoch_started(EpochStart {
            epoch: self.state.epochs + 1,
            epochs: self.config.epochs,
            pictures: training,
            done: order.len(),
        });
        let place = EpochPlace { epoch: self.state.epochs, first_batch: self.state.batches };
        let (pictures, pool) = (Arc::clone(&self.pictures), Arc::clone(&self.pool));
        let mut asked = rest.chunks(self.config.batch_size);
        let mut batches = Batches::start_training(pictures, rest.clone(), self.config.batch_size, pool, place)?;
        loop {
            if interrupt.is_requested() {
                return Ok(Passage::Interrupted);
            }
            let began = Instant::now();
            let Some(batch) = batches.next() else { break };
            self.step(batch?, asked.next().unwrap_or_default())?;
            let running = &mut self.state.running;
            running.seconds += began.elapsed().as_secs_f64();
            observer.stepped(StepProgress {
                done: running.pictures,
                loss: running.loss(),
                accuracy: running.accuracy(),
                learning_rate: running.learning_rate,
            });
        }
        self.check_weights()?;
        let began = Instant::now();
        let Passage::Through(validation) = self.validate(observer, interrupt)? else {
            return Ok(Passage::Interrupted);
        };
        let best = self.close_epoch(validation, began.elapsed().as_secs_f64())?;
        if let Some(row) = self.state.rows.last() {
            observer.epoch_finished(row, self.config.epochs, best);
        }
        Ok(Passage::Through(()))
    }

    /// A step with the training pictures of those numbers.
    fn step(&mut self, batch: Batch, numbers: &[usize]) -> Result<(), FitError> {
        self.settings.learning_rate = self.schedule.at(self.adam.steps(), &self.state.rows);
        let mixed = batch.mixed.clone();
        let (pictures, labels) = tensors(&self.network, batch, &self.device.device)?;
        let count = labels.elem_count();
        let mut dropout = dropout_generator(u64::from(self.config.seed), self.adam.steps());
        let taught = self.teacher.as_ref().map(|teacher| {
            let shape = (count, self.split.labels.len());
            Tensor::from_vec(teacher.of(numbers), shape, &self.device.device).map_err(NetworkError::Engine)
        });
        let taught = taught.transpose()?;
        let (mixed, teacher) = (mixed.as_ref(), taught.as_ref());
        let batch = TrainingBatch { pictures: &pictures, labels: &labels, mixed, teacher };
        let outcome = training_step(&self.network, &mut self.adam, batch, &self.settings, &mut dropout);
        let outcome = outcome.map_err(|error| match error {
            NetworkError::Diverged { what, .. } => self.diverged(what),
            error => error.into(),
        })?;
        let running = &mut self.state.running;
        running.loss_sum += f64::from(outcome.loss) * count as f64;
        running.correct += outcome.correct;
        running.pictures += count;
        running.learning_rate = self.settings.learning_rate;
        running.norm_sum = outcome.gradient_norm.map(|norm| running.norm_sum.unwrap_or(0.0) + f64::from(norm));
        self.state.batches += 1;
        Ok(())
    }

    /// What the network answers on the validation side; none where there is no such side.
    fn validate(
        &self,
        observer: &mut dyn Observer,
        interrupt: &Interrupt,
    ) -> Result<Passage<Option<Validation>>, FitError> {
        let asked = self.range(Side::Validation);
        if asked.is_empty() {
            return Ok(Passage::Through(None));
        }
        let Passage::Through(answers) = self.answers(&self.network, asked, observer, interrupt)? else {
            return Ok(Passage::Interrupted);
        };
        let temperature_scaling = fit_temperature(&answers).ok().map(|fitted| TemperatureScaling {
            temperature: fitted.temperature,
            data: VALIDATION_DATA.to_owned(),
            pictures: answers.len(),
            engine: self.device.engine(),
        });
        Ok(Passage::Through(Some(Validation { tally: answers.tally(), temperature_scaling })))
    }

    /// What a network answers to some of the pictures.
    fn answers(
        &self,
        network: &Network,
        asked: Range<usize>,
        observer: &mut dyn Observer,
        interrupt: &Interrupt,
    ) -> Result<Passage<Answers>, FitError> {
        let total = asked.len();
        let mut answers = Answers::new(self.split.labels.len());
        let (pictures, pool) = (Arc::clone(&self.pictures), Arc::clone(&self.pool));
        for batch in Batches::start(pictures, asked.collect(), self.config.batch_size, pool)? {
            if interrupt.is_requested() {
                return Ok(Passage::Interrupted);
            }
            answers.add(network, batch?)?;
            observer.validated(answers.len(), total);
        }
        if !answers.tally().loss_sum.is_finite() {
            return Err(self.diverged("the validation loss"));
        }
        Ok(Passage::Through(answers))
    }

    /// Ends an epoch: its row, the weights, the files. Tells whether its weights are the best so far.
    fn close_epoch(&mut self, validation: Option<Validation>, validation_seconds: f64) -> Result<bool, FitError> {
        let running = std::mem::take(&mut self.state.running);
        let batches = std::mem::take(&mut self.state.batches);
        self.state.epochs += 1;
        self.state.rows.push(EpochMetrics {
            epoch: self.state.epochs,
            learning_rate: running.learning_rate,
            loss: running.loss(),
            accuracy: running.accuracy(),
            validation_loss: validation.as_ref().map(|validation| validation.tally.loss()),
            validation_accuracy: validation.as_ref().map(|validation| validation.tally.accuracy()),
            seconds: running.seconds + validation_seconds,
            pictures_per_second: running.pictures as f64 / running.seconds,
            gradient_norm: running.norm_sum.map(|sum| sum / batches as f64),
        });
        let best = self.save(validation, Some(running.loss()))?;
        artifacts::metrics(&self.run, &self.state.rows)?;
        if let (Some(events), Some(row)) = (&self.events, self.state.rows.last()) {
            events.add(row)?;
        }
        Ok(best)
    }

    /// Saves the weights after an epoch, and tells whether they are the best so far.
    ///
    /// The checkpoint is the one file that says where the run stands. Better weights are written beside it under
    /// another name, the checkpoint then says that they are the best, and only then do they take the name of the old
    /// ones. A kill in between leaves it to [`settle_best`] to finish, or to undo, the last of these.
    fn save(&mut self, validation: Option<Validation>, training_loss: Option<f64>) -> Result<bool, FitError> {
        let card = self.card(validation.as_ref());
        let validation = validation.map(|validation| validation.tally);
        let mut best = Best { epoch: self.state.epochs, weights: Sha256::of(b""), training_loss, validation };
        let is_best = self.state.best.as_ref().is_none_or(|old| best.beats(old));
        let next = self.run.file(NEXT_BEST);
        if is_best {
            self.network.save(&next, &card)?;
            best.weights = Sha256::of_file(&next).map_err(|source| DataError::Read { path: next.clone(), source })?;
            self.state.best = Some(best);
        }
        self.save_last(&card)?;
        if is_best {
            promote(&self.run)?;
        }
        Ok(is_best)
    }

    fn save_last(&self, card: &ModelCard) -> Result<(), FitError> {
        let path = self.run.file(RunFolder::LAST);
        self.network.save_checkpoint(&path, card, &self.adam, &self.state.to_notes())?;
        Ok(())
    }

    /// A loss that is finite does not prove that the step after it left finite weights.
    fn check_weights(&self) -> Result<(), FitError> {
        for tensor in self.network.tensors().into_values() {
            let sum: f32 = tensor.sum_all().and_then(|sum| sum.to_scalar()).map_err(NetworkError::Engine)?;
            if !sum.is_finite() {
                return Err(self.diverged("a weight"));
            }
        }
        Ok(())
    }

    fn diverged(&self, what: &'static str) -> FitError {
        FitError::Diverged {
            epoch: self.state.rows.len() as u32 + 1,
            step: self.adam.steps() + 1,
            what,
            learning_rate: self.schedule.at(self.adam.steps(), &self.state.rows),
            saved_epochs: self.state.rows.len() as u32,
        }
    }

    /// The card of the weights as they are, with what they answer on the validation side where that is known.
    fn card(&self, validation: Option<&Validation>) -> ModelCard {
        let metric = |Validation { tally, .. }: &Validation| Metric {
            data: VALIDATION_DATA.to_owned(),
            engine: self.device.engine(),
            correct: tally.correct(),
            pictures: tally.pictures(),
        };
        ModelCard {
            labels: self.split.labels.clone(),
            preprocess: self.config.preprocess(),
            architecture: Some(self.architecture.clone()),
            temperature_scaling: validation.and_then(|validation| validation.temperature_scaling.clone()),
            metrics: validation.map(metric).into_iter().collect(),
            provenance: Provenance {
                created_by: created_by(),
                data: Some(self.data),
                epochs: self.state.epochs,
                initial_weights: self.origin.clone(),
                ..Provenance::default()
            },
        }
    }

    /// Where the pictures of a side are in the list of all.
    fn range(&self, side: Side) -> Range<usize> {
        let start = self.split.files.iter().take_while(|file| file.side < side).count();
        start..start + self.split.side(side).count()
    }

    fn finish(&self, status: Status, test: Option<Tally>) -> Result<Report, FitError> {
        let evaluation = |tally: &Tally| Evaluation::new(tally, &self.split.labels, self.device.engine());
        let report = Report {
            status,
            run: self.run.path().to_owned(),
            created_by: created_by(),
            engine: self.device.engine(),
            threads: self.config.threads,
            architecture: self.architecture.name.clone(),
            parameters: self.architecture.parameters(),
            labels: self.split.labels.clone(),
            training_pictures: self.range(Side::Training).len(),
            validation_pictures: self.range(Side::Validation).len(),
            data: self.data,
            epochs: self.state.epochs,
            stopped_early: status == Status::Finished && self.state.epochs < self.config.epochs,
            // A sum of no f64 is -0.
            seconds: self.state.rows.iter().fold(0.0, |seconds, row| seconds + row.seconds),
            last: self.state.rows.last().cloned(),
            best: self.state.best.as_ref().map(|best| BestWeights {
                epoch: best.epoch,
                sha256: best.weights,
                validation: best.validation.as_ref().map(evaluation),
            }),
            test: test.as_ref().map(evaluation),
        };
        artifacts::conclude(&self.run, &self.state.rows, &report)?;
        Ok(report)
    }
}
