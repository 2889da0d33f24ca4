//! ImageNet's weights: from a file, from a hub on this machine, and on to ONNX.

use std::{
    collections::HashMap,
    fs,
    io::{BufRead, BufReader, Write},
    net::{TcpListener, TcpStream},
    path::Path,
    sync::Arc,
};

use anyhow::{Context, Result};
use candle_core::Device;
use models::{LayerKind, ModelCard, Network, RunFolder, Sha256};
use tempfile::TempDir;
use tests::{Finished, program, run};

const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

/// Nobody listens there.
const NO_HUB: &str = "http://127.0.0.1:1";

fn fit(folder: &Path, hub: &str, arguments: &[&str]) -> Result<Finished> {
    let mut command = program("trainer")?;
    let network = ["--architecture", "vgg11", "--batch-norm", "--width", "0.02", "--head", "gap", "--image-size", "32"];
    run(command
        .current_dir(folder)
        .env("HF_ENDPOINT", hub)
        .env("HF_HOME", folder.join("cache"))
        .args(["fit", "pictures", "--device", "cpu", "--threads", "1"])
        .args(network)
        .args(arguments))
}

/// Pictures, and a file `weights.safetensors` of a small network under torchvision's names.
fn surroundings() -> Result<TempDir> {
    let folder = tempfile::tempdir()?;
    let options = trainer::sample_data::SampleOptions { per_class: 6, size: 48, seed: 1 };
    trainer::sample_data::paint(&folder.path().join("pictures"), options)?;
    fit(folder.path(), NO_HUB, &["--run", "first", "--epochs", "0", "--seed", "7"])?.with_code(0)?;
    let (network, _) = Network::load(&folder.path().join("first").join(RunFolder::BEST), &Device::Cpu)?;
    let mut index = 0;
    let mut named = HashMap::new();
    for layer in network.architecture().layers() {
        let modules = match layer.kind {
            LayerKind::Convolution { .. } | LayerKind::MaxPool => 1,
            LayerKind::BatchNorm => 2,
            _ => 0,
        };
        for (name, tensor) in network.tensors() {
            if let Some(part) = name.strip_prefix(&format!("{}.", layer.name)).filter(|_| modules > 0) {
                named.insert(format!("features.{index}.{part}"), tensor);
            }
        }
        index += modules;
    }
    candle_core::safetensors::save(&named, folder.path().join("weights.safetensors"))?;
    Ok(folder)
}

/// A hub that has one file, whatever it is asked for; it listens until the tests end.
fn hub(file: &Path) -> Result<String> {
    let bytes: Arc<[u8]> = fs::read(file)?.into();
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?;
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            // A caller that goes away is no concern of the hub's.
            _ = answer(stream, &bytes);
        }
    });
    Ok(format!("http://{address}"))
}

/// Answers a request for a range as the hub does for a file in its large storage.
fn answer(mut stream: TcpStream, bytes: &[u8]) -> Result<()> {
    let mut first = 0;
    let mut last = bytes.len() - 1;
    for line in BufReader::new(stream.try_clone()?).lines() {
        let line = line?.to_ascii_lowercase();
        if line.is_empty() {
            break;
        }
        if let Some(range) = line.strip_prefix("range: bytes=") {
            let (from, to) = range.split_once('-').context("a range")?;
            first = from.parse()?;
            last = to.parse().unwrap_or(last);
        }
    }
    let part = &bytes[first..=last];
    write!(
        stream,
        "HTTP/1.1 206 Partial Content\r\nContent-Length: {}\r\nContent-Range: bytes {first}-{last}/{}\r\n\
         X-Repo-Commit: {COMMIT}\r\nX-Linked-Etag: \"{}\"\r\nConnection: close\r\n\r\n",
        part.len(),
        bytes.len(),
        Sha256::of(bytes)
    )?;
    stream.write_all(part)?;
    Ok(())
}

#[test]
fn without_a_network_the_error_says_what_else_to_do() -> Result<()> {
    let folder = surroundings()?;
    fit(folder.path(), NO_HUB, &["--weights", "imagenet", "--run", "run"])?
        .fails_with(&["model.safetensors of timm/vgg11_bn.tv_in1k", "--weights FILE"])?;
    assert!(!folder.path().join("run").exists(), "nothing was written");
    Ok(())
}

#[test]
fn a_download_is_checked_kept_and_used_again() -> Result<()> {
    let folder = surroundings()?;
    let hub = hub(&folder.path().join("weights.safetensors"))?;
    let finished =
        fit(folder.path(), &hub, &["--weights", "imagenet", "--run", "one", "--epochs", "0"])?.with_code(0)?;
    for part in
        ["downloading model.safetensors of timm/vgg11_bn.tv_in1k", "weights of timm/vgg11_bn.tv_in1k (torchvision)"]
    {
        assert!(finished.stderr.contains(part), "{finished}");
    }
    let again =
        fit(folder.path(), NO_HUB, &["--weights", "imagenet", "--run", "two", "--epochs", "0"])?.with_code(0)?;
    assert!(!again.stderr.contains("downloading"), "{again}");

    let blobs = folder.path().join("cache/hub/models--timm--vgg11_bn.tv_in1k/blobs");
    let digest = Sha256::of_file(&folder.path().join("weights.safetensors"))?.to_string();
    let mut bytes = fs::read(blobs.join(&digest))?;
    *bytes.last_mut().context("weights")? ^= 1;
    fs::write(blobs.join(&digest), bytes)?;
    fit(folder.path(), NO_HUB, &["--weights", "imagenet", "--run", "three", "--epochs", "0"])?.fails_with(&[
        "SHA-256",
        digest.as_str(),
        "remove the file",
    ])?;
    Ok(())
}

#[test]
fn the_onnx_file_of_fine_tuned_weights_computes_what_they_compute_and_knows_where_they_began() -> Result<()> {
    let folder = surroundings()?;
    let arguments = ["--weights", "weights.safetensors", "--freeze", "2", "--backbone-lr", "1e-5", "--epochs", "1"];
    let finished = fit(folder.path(), NO_HUB, &[&arguments[..], &["--run", "run"]].concat())?.with_code(0)?;
    assert!(finished.stderr.contains("frozen: 2 of 8 convolutions"), "{finished}");
    let settings = fs::read_to_string(folder.path().join("run/config.toml"))?;
    for line in [
        "weights = \"weights.safetensors\"",
        "freeze = 2",
        "preprocess = \"torchvision\"",
        "batch_norm_epsilon = 0.00001",
    ] {
        assert!(settings.contains(line), "{line} is not in:\n{settings}");
    }
    // The exporter refuses a file that computes anything else than the network, whose epsilon is not the usual one.
    let output = folder.path().join("model.onnx");
    let options = exporter::ExportOptions { threads: 1, ..exporter::ExportOptions::new(&output) };
    let report = exporter::export(&RunFolder::open(&folder.path().join("run"))?, &options)?;
    assert!(report.held, "{report}");
    let inspected = run(program("runtime")?.arg("inspect").arg(&output))?.with_code(0)?;
    assert!(inspected.stdout.contains("weights.safetensors (torchvision)"), "{inspected}");
    let model = runtime::Model::builder().open(&output)?;
    let ModelCard { architecture, provenance, .. } = model.card().clone();
    assert_eq!(architecture.context("an architecture")?.batch_norm_epsilon, 1e-5);
    let origin = provenance.initial_weights.context("an origin")?;
    assert_eq!((origin.source.as_str(), origin.fresh), ("weights.safetensors", vec!["predictions".to_owned()]));
    assert_eq!(origin.sha256, Sha256::of_file(&folder.path().join("weights.safetensors"))?);
    Ok(())
}

#[test]
fn weights_that_do_not_fit_say_which_flag_would() -> Result<()> {
    let folder = surroundings()?;
    let refused = |arguments: &[&str]| fit(folder.path(), NO_HUB, &[arguments, &["--run", "run"]].concat());
    refused(&["--weights", "weights.safetensors", "--freeze", "9"])?.fails_with(&["at most 8"])?;
    refused(&["--backbone-lr", "1e-5"])?.fails_with(&["backbone_lr is set and weights is not"])?;
    refused(&["--weights", "absent.h5"])?.fails_with(&["absent.h5"])?;
    fs::write(folder.path().join("text.pth"), "no weights")?;
    refused(&["--weights", "text.pth"])?.fails_with(&["text.pth", "expected a .pth file"])?;
    Ok(())
}
