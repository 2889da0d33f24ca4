use std::thread;

use super::*;
use crate::{
    GraphProblem,
    fixtures::{CLOSE, DYNAMIC, FIXED, FOREIGN, HALF, ONE_GRID_STEP, QDQ, TINY, assert_within, preprocessed},
};

/// Every engine that is compiled in and can run on any machine.
fn engines() -> Vec<EngineChoice> {
    let mut engines = Vec::new();
    if cfg!(feature = "tract") {
        engines.push(EngineChoice::Tract);
    }
    if cfg!(feature = "ort") {
        engines.push(EngineChoice::Ort);
    }
    engines
}

fn model(bytes: &[u8], engine: EngineChoice) -> Model {
    let model = Model::builder().engine(engine).threads(2).from_bytes(bytes);
    model.unwrap_or_else(|error| {
        panic!("{engine} must open it (for ort, fetch it with `cargo xtask onnxruntime`): {error:?}")
    })
}

fn picture(seed: usize) -> Picture {
    let rgb = (0..20 * 16 * 3).map(|index| ((index * 31 + seed * 97) % 251) as u8).collect();
    Picture { width: 20, height: 16, rgb }
}

fn pictures(count: usize) -> Vec<Picture> {
    (0..count).map(picture).collect()
}

/// Half precision keeps 11 bits; the values between layers are rounded to them by some engines and not by others.
const HALF_PRECISION: f32 = 4.0 / 2048.0;

/// The logits that `onnx.reference.ReferenceEvaluator` gives; see `testdata/make.py`, which wrote them.
fn reference(bytes: &[u8]) -> Vec<f32> {
    bytes.chunks_exact(4).map(|value| f32::from_le_bytes([value[0], value[1], value[2], value[3]])).collect()
}

#[test]
fn every_engine_agrees_with_the_reference_at_every_batch() {
    let input = preprocessed(8);
    let picture = input.len() / 8;
    for (name, bytes, expected, tolerance) in [
        ("fp32", TINY, include_bytes!("../../testdata/tiny.logits").as_slice(), CLOSE),
        ("QDQ", QDQ, include_bytes!("../../testdata/tiny-qdq.logits"), CLOSE),
        ("half precision", HALF, include_bytes!("../../testdata/tiny-half.logits"), HALF_PRECISION),
        ("fixed batch", FIXED, include_bytes!("../../testdata/tiny.logits"), CLOSE),
    ] {
        let expected = reference(expected);
        for engine in engines() {
            let model = model(bytes, engine);
            for batch in [1, 3, 8, 3, 1] {
                let found = model.logits(&input[..batch * picture], batch).expect("it runs");
                assert_within(tolerance, &found, &expected[..batch * 3], &format!("{name}, {engine}, batch {batch}"));
            }
        }
    }
}

#[cfg(feature = "tract")]
#[test]
fn callers_at_the_same_time_share_a_model_and_get_their_own_answers() {
    let input = preprocessed(4);
    let pictures: Vec<_> = input.chunks(input.len() / 4).collect();
    // One that our kernels compute alone, and one with operators of tract's.
    for bytes in [TINY, DYNAMIC] {
        let alone = model(bytes, EngineChoice::Tract);
        let expected: Vec<_> = pictures.iter().map(|picture| alone.logits(picture, 1).expect("it runs")).collect();
        let builder = Model::builder().engine(EngineChoice::Tract).threads(1).concurrency(4);
        let shared = builder.from_bytes(bytes).expect("it opens");
        thread::scope(|scope| {
            for (picture, expected) in pictures.iter().zip(&expected) {
                let shared = &shared;
                scope.spawn(move || {
                    for _ in 0..20 {
                        assert_eq!(&shared.logits(picture, 1).expect("it runs"), expected);
                    }
                });
            }
        });
        assert_eq!(shared.report().concurrency, 4);
    }
}

#[cfg(feature = "ort")]
#[test]
fn onnxruntime_says_that_it_computes_one_call_at_a_time() {
    let error = Model::builder().engine(EngineChoice::Ort).concurrency(2).from_bytes(TINY);
    assert!(matches!(error, Err(RuntimeError::Concurrency { asked: 2, .. })));
}

/// A dynamic quantizer's scale depends on the whole batch, so that only single pictures have one answer.
#[test]
fn every_engine_agrees_on_dynamic_quantization() {
    let input = preprocessed(8);
    let expected = reference(include_bytes!("../../testdata/tiny-dynamic.logits"));
    for engine in engines() {
        let model = model(DYNAMIC, engine);
        for (picture, expected) in input.chunks(input.len() / 8).zip(expected.chunks(3)) {
            let found = model.logits(picture, 1).expect("it runs");
            assert_within(ONE_GRID_STEP, &found, expected, &format!("{engine}"));
        }
    }
}

#[cfg(feature = "tract")]
#[test]
fn tract_computes_dynamic_convolutions_in_single_precision() {
    let report = model(DYNAMIC, EngineChoice::Tract).report().clone();
    let count = |name: &str| report.nodes.iter().find(|count| count.operator == name).map_or(0, |count| count.nodes);
    // The first convolution's weights are too few to be worth it.
    assert_eq!(count("Im2col"), 1, "{report}");
    assert_eq!(count("Convolution3x3"), 1, "{report}");
}

#[test]
fn probabilities_are_those_of_softmax_once() {
    for engine in engines() {
        let ours = model(TINY, engine);
        assert!(!ours.ends_in_softmax());
        let foreign =
            Model::builder().engine(engine).preset(Preset::Rescaling).from_bytes(FOREIGN).expect("a classifier");
        assert!(foreign.ends_in_softmax());
        assert_eq!(foreign.labels(), ["dark", "green", "light's"]);
        for (ours, foreign) in [0, 1, 2].map(picture).iter().map(|picture| {
            (ours.classify_picture(picture, 9).expect("ours"), foreign.classify_picture(picture, 9).expect("foreign"))
        }) {
            let sum: f32 = ours.iter().map(|prediction| prediction.probability).sum();
            assert!((sum - 1.0).abs() < 1e-5, "{ours:?}");
            for (ours, foreign) in ours.iter().zip(&foreign) {
                assert_eq!(ours.index, foreign.index);
                assert_within(CLOSE, &[ours.probability], &[foreign.probability], "softmax in the graph");
            }
        }
    }
}

#[test]
fn a_batch_is_its_pictures_one_by_one() {
    for engine in engines() {
        let model = model(TINY, engine);
        let pictures = pictures(5);
        let together = model.classify_batch(&pictures, 2).expect("a batch");
        for (picture, together) in pictures.iter().zip(together) {
            let alone = model.classify_picture(picture, 2).expect("a picture");
            assert_eq!(alone.len(), 2);
            for (alone, together) in alone.iter().zip(&together) {
                assert_eq!(alone.label, together.label);
                assert_within(CLOSE, &[alone.probability], &[together.probability], "alone and together");
            }
        }
        assert!(model.classify_batch(&[], 2).expect("nothing to do").is_empty());
    }
}

#[test]
fn more_pictures_than_fit_go_through_in_parts() {
    for engine in engines() {
        let model = model(TINY, engine);
        let most = LARGEST_INPUT / model.preprocess().output_len();
        let pictures: Vec<_> = (0..most + 3).map(|index| picture(index % 5)).collect();
        let answers = model.classify_batch(&pictures, 1).expect("two parts");
        assert_eq!(answers.len(), pictures.len());
        for (index, answer) in answers.iter().enumerate().rev().take(9) {
            let alone = model.classify_picture(&pictures[index], 1).expect("a picture");
            assert_eq!(answer[0].label, alone[0].label);
            assert_within(CLOSE, &[answer[0].probability], &[alone[0].probability], "in parts");
        }
    }
}

#[test]
fn threads_share_a_model_and_one_that_fails_disturbs_nobody() {
    for engine in engines() {
        let model = model(TINY, engine);
        let expected = model.classify_picture(&picture(4), 1).expect("an answer");
        thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..20 {
                        assert_eq!(model.classify_picture(&picture(4), 1).expect("an answer"), expected);
                        assert!(model.logits(&[0.0; 7], 1).is_err());
                        assert!(model.classify_bytes(b"no picture", 1).is_err());
                    }
                });
            }
        });
    }
}

#[test]
fn the_report_says_what_runs_where() {
    for engine in engines() {
        let report = model(TINY, engine).report().clone();
        assert_eq!(report.threads, 2);
        assert!(report.nodes.iter().map(|count| count.nodes).sum::<usize>() >= 4, "{report}");
        match engine {
            EngineChoice::Tract => assert_eq!(report.engine, "tract"),
            _ => {
                assert_eq!(report.engine, "onnxruntime cpu");
                assert!(report.nodes.iter().all(|count| count.provider == "CPUExecutionProvider"), "{report}");
            }
        }
    }
}

#[cfg(all(feature = "ort", feature = "tract"))]
#[test]
fn auto_takes_onnx_runtime_where_it_is_and_says_so() {
    let report = model(TINY, EngineChoice::Auto).report().clone();
    assert_eq!(report.engine, "onnxruntime cpu");
    assert!(report.selection.expect("a reason").contains("onnxruntime"));
}

#[cfg(feature = "tract")]
#[test]
fn rounding_to_the_integer_grid_is_one_operator_or_part_of_a_convolution() {
    let report = model(QDQ, EngineChoice::Tract).report().clone();
    // Where the processor multiplies bytes faster, convolutions are of bytes.
    let is = |operator: &str, name: &str| operator.strip_prefix("Integer").unwrap_or(operator) == name;
    let count = |name: &str| -> usize {
        report.nodes.iter().filter(|count| is(&count.operator, name)).map(|count| count.nodes).sum()
    };
    // Of the five, those of the input and of the mean are left.
    assert_eq!(count("FakeQuantize"), 2, "{report}");
    assert_eq!((count("Convolution3x3"), count("Convolution3x3+MaxPool2x2")), (1, 1), "{report}");
    let left = report.nodes.iter().find(|count| count.operator.contains("uantizeLinear"));
    assert_eq!(left, None, "{report}");
}

#[cfg(feature = "ort")]
#[test]
fn cuda_without_a_gpu_is_an_error_and_never_the_cpu() {
    let Err(error) = Model::builder().engine(EngineChoice::OrtCuda).from_bytes(TINY) else {
        panic!("this test expects a machine without CUDA");
    };
    let RuntimeError::Cuda { source } = &error else { panic!("{error:?}") };
    assert!(!source.to_string().is_empty());
    assert!(error.to_string().contains("nothing was run on the CPU"), "{error}");
}

#[test]
fn what_a_foreign_file_lacks_is_asked_for() {
    let Err(error) = Model::builder().from_bytes(FOREIGN) else { panic!("it has no preprocessing") };
    assert!(matches!(error, RuntimeError::NoPreprocess { .. }));
    assert!(error.to_string().contains("--preset"), "{error}");
}

#[test]
fn labels_and_sizes_must_fit() {
    let labels = ["a", "b"].map(str::to_owned).to_vec();
    for engine in engines() {
        let Err(error) = Model::builder().engine(engine).labels(labels.clone()).from_bytes(TINY) else {
            panic!("two labels for three classes")
        };
        assert!(matches!(error, RuntimeError::LabelCount { classes: 3, labels: 2, .. }), "{error}");
    }
    let preprocess = Preset::Torchvision.preprocess(24, 12);
    let Err(error) = Model::builder().preprocess(preprocess).from_bytes(TINY) else { panic!("24 rows for 12") };
    assert!(error.to_string().contains("12×12") && error.to_string().contains("24×12"), "{error}");
}

#[test]
fn channels_last_is_a_specific_error() {
    let bytes = include_bytes!("../../testdata/channels-last.onnx");
    let Err(error) = Model::builder().preset(Preset::Rescaling).from_bytes(bytes) else { panic!("NHWC") };
    let RuntimeError::Unsupported { problem: GraphProblem::ChannelsLast { .. }, .. } = error else { panic!("{error}") };
}

#[test]
fn a_file_and_its_bytes_are_the_same_model() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("tiny.onnx");
    std::fs::write(&path, TINY).expect("a file");
    for engine in engines() {
        let file = Model::builder().engine(engine).open(&path).expect("a file");
        assert_eq!(file.name(), path.display().to_string());
        let expected = model(TINY, engine).classify_picture(&picture(1), 3).expect("bytes");
        assert_eq!(file.classify_picture(&picture(1), 3).expect("file"), expected);
    }
    let Err(error) = Model::open(folder.path().join("none.onnx")) else { panic!("it is not there") };
    assert!(matches!(error, RuntimeError::Read { .. }) && error.to_string().contains("none.onnx"), "{error}");
}

#[test]
fn damaged_bytes_are_errors_in_every_engine() {
    for engine in engines() {
        for place in (0..TINY.len()).step_by(53) {
            let mut bytes = TINY.to_vec();
            bytes[place] ^= 0x15;
            // Many changes only touch a weight; then the model answers, with other numbers.
            if let Ok(model) = Model::builder().engine(engine).threads(1).from_bytes(bytes) {
                assert!(model.classes() > 0);
            }
        }
        for length in (0..TINY.len()).step_by(97) {
            let result = Model::builder().engine(engine).threads(1).from_bytes(&TINY[..length]);
            // The metadata comes last; a file that is cut there says too little about itself.
            assert!(result.is_err(), "{engine} opened {length} of {} bytes", TINY.len());
        }
    }
}

/// The file with a further entry in its metadata: an appended field of a protobuf message joins those before it.
fn with_metadata(bytes: &[u8], key: &str, value: &str) -> Vec<u8> {
    let field = |tag: u8, content: &[u8]| {
        assert!(content.len() < 1 << 14, "two bytes of length");
        let length = [content.len() as u8 | 0x80, (content.len() >> 7) as u8];
        [&[tag], length.as_slice(), content].concat()
    };
    let entry = [field(0x0a, key.as_bytes()), field(0x12, value.as_bytes())].concat();
    [bytes, &field(0x72, &entry)].concat()
}

#[test]
fn a_temperature_divides_the_logits_and_the_model_says_so() {
    let value = r#"{"temperature": 4.0, "data": "validation side of the run", "pictures": 9, "engine": "candle cpu"}"#;
    let calibrated = with_metadata(TINY, "demitasse.temperature_scaling", value);
    for engine in engines() {
        let (plain, calibrated) = (model(TINY, engine), model(&calibrated, engine));
        assert_eq!(plain.temperature_scaling(), None);
        assert_eq!(calibrated.temperature_scaling().map(|scaling| scaling.pictures), Some(9));
        let picture = picture(1);
        let input = plain.preprocess_batch(std::slice::from_ref(&picture)).expect("a picture");
        let logits = plain.logits(&input, 1).expect("it runs");
        let weights: Vec<f32> = logits.iter().map(|logit| (logit / 4.0).exp()).collect();
        let sum: f32 = weights.iter().sum();
        let found = calibrated.classify_picture(&picture, 3).expect("it runs");
        for answer in &found {
            let expected = weights[answer.index] / sum;
            assert!((answer.probability - expected).abs() < 1e-6, "{engine}: {answer:?}, expected {expected}");
        }
        let order = |answers: Vec<Prediction>| answers.into_iter().map(|answer| answer.index).collect::<Vec<_>>();
        assert_eq!(order(found), order(plain.classify_picture(&picture, 3).expect("it runs")));
    }
}

#[test]
fn a_damaged_temperature_is_named() {
    let value = r#"{"temperature": -1.0, "data": "", "pictures": 9, "engine": ""}"#;
    let bytes = with_metadata(TINY, "demitasse.temperature_scaling", value);
    let error = Model::builder().engine(EngineChoice::Tract).from_bytes(bytes).err().expect("no temperature");
    let RuntimeError::Card { source, .. } = &error else { panic!("{error}") };
    assert!(source.to_string().contains("demitasse.temperature_scaling"), "{source}");
}
