use candle_onnx::onnx::ModelProto;
use models::Preprocess;
use prost::Message;
use runtime::{EngineChoice, Model, RuntimeError};

use crate::{ExportError, ExportOptions, Target, pictures::Inputs};

/// The engine whose answers are to be kept, for graphs that are only looked at.
#[derive(Clone, Copy)]
pub(super) struct ReferenceEngine<'a> {
    /// The file that the graphs are made of.
    pub(super) source: &'a str,
    pub(super) preprocess: &'a Preprocess,
    pub(super) options: &'a ExportOptions,
    /// What the graphs are for.
    pub(super) doing: &'static str,
}

/// The engine whose answers a file for that target is to keep.
pub(super) fn reference_engine(target: Target) -> EngineChoice {
    match target {
        Target::Generic | Target::Tract => EngineChoice::Tract,
        Target::OrtCpu => EngineChoice::Ort,
        Target::OrtCuda => EngineChoice::OrtCuda,
    }
}

impl ReferenceEngine<'_> {
    /// Loads a graph.
    pub(super) fn open(&self, proto: &ModelProto) -> Result<Model, ExportError> {
        let engine = reference_engine(self.options.target);
        let model = Model::builder().engine(engine).threads(self.options.threads).preprocess(self.preprocess.clone());
        model.from_bytes(proto.encode_to_vec()).map_err(|error| self.failed(error))
    }

    /// What a graph makes of one picture.
    pub(super) fn outputs(&self, model: &Model, inputs: &Inputs, picture: usize) -> Result<Vec<f32>, ExportError> {
        let input = inputs.load(picture..picture + 1)?;
        model.logits(&input, 1).map_err(|error| self.failed(error))
    }

    fn failed(&self, source: RuntimeError) -> ExportError {
        let engine = reference_engine(self.options.target);
        let (path, doing) = (self.source.to_owned(), self.doing);
        ExportError::ForeignEngine { path, engine, doing, source: Box::new(source) }
    }
}

#[cfg(test)]
mod tests {
    use models::Preset;

    use super::*;

    #[test]
    fn an_engine_that_fails_on_a_graph_is_named_with_the_file_and_the_step() {
        let engine = ReferenceEngine {
            source: "resnet.onnx",
            preprocess: &Preset::Rescaling.preprocess(8, 8),
            options: &ExportOptions { target: Target::Tract, ..ExportOptions::new("q.onnx") },
            doing: "comparing layers",
        };
        let error = engine.open(&ModelProto { ir_version: 8, ..ModelProto::default() }).err().expect("no graph");
        let text = error.to_string();
        assert!(["resnet.onnx", "tract", "comparing layers", "no file"].iter().all(|part| text.contains(part)), "{text}");
    }
}
