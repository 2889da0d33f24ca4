use std::path::Path;

use models::Preprocess;
use runtime::{Model, ModelBuilder, RuntimeError};

use super::file::ForeignFile;
use crate::{ExportError, ExportOptions, draft::Draft, pictures::Inputs};

/// The engine whose answers are to be kept, for graphs that are only looked at.
#[derive(Clone, Copy)]
pub(super) struct ReferenceEngine<'a> {
    /// The file that the graphs are made of.
    pub(super) source: &'a Path,
    pub(super) preprocess: &'a Preprocess,
    pub(super) options: &'a ExportOptions,
    /// What the graphs are for.
    pub(super) doing: &'static str,
}

impl ReferenceEngine<'_> {
    /// Loads the file that the graphs are made of.
    pub(super) fn open_source(&self) -> Result<Model, ExportError> {
        self.builder().open(self.source).map_err(|error| self.failed(error))
    }

    /// Loads a graph, from a file that is there no longer than that takes: engines read weights from a file one by one,
    /// while bytes in memory would be there beside what the engine makes of them.
    pub(super) fn open(&self, file: &ForeignFile<'_>) -> Result<Model, ExportError> {
        let draft = Draft::of_bytes(&self.options.output, &file.encode()?)?;
        self.builder().open(draft.path()).map_err(|error| self.failed(error))
    }

    fn builder(&self) -> ModelBuilder {
        let engine = self.options.target.engine();
        Model::builder().engine(engine).threads(self.options.threads).preprocess(self.preprocess.clone())
    }

    /// What a graph makes of one picture.
    pub(super) fn outputs(&self, model: &Model, inputs: &Inputs, picture: usize) -> Result<Vec<f32>, ExportError> {
        let input = inputs.load(picture..picture + 1)?;
        model.logits(&input, 1).map_err(|error| self.failed(error))
    }

    fn failed(&self, source: RuntimeError) -> ExportError {
        let engine = self.options.target.engine();
        let (path, doing) = (self.source.to_owned(), self.doing);
        ExportError::ForeignEngine { path, engine, doing, source: Box::new(source) }
    }
}

#[cfg(test)]
mod tests {
    use models::Preset;

    use super::*;
    use crate::Target;

    #[test]
    fn an_engine_that_fails_on_a_graph_is_named_with_the_file_and_the_step() {
        let engine = ReferenceEngine {
            source: Path::new("resnet.onnx"),
            preprocess: &Preset::Rescaling.preprocess(8, 8),
            options: &ExportOptions { target: Target::Tract, ..ExportOptions::new("q.onnx") },
            doing: "comparing layers",
        };
        let error = engine.open_source().err().expect("no such file");
        let text = error.to_string();
        assert!(
            ["resnet.onnx", "tract", "comparing layers", "no file"].iter().all(|part| text.contains(part)),
            "{text}"
        );
    }
}
