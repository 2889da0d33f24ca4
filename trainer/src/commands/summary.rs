use models::{Architecture, Layer, Shape};
use serde_json::{Value, json};

use super::{architecture, print, print_json};
use crate::{
    cli::{Format, SummaryArgs},
    exit_status::ExitStatus,
};

/// Prints a network layer by layer.
pub(crate) fn summary(args: &SummaryArgs) -> anyhow::Result<ExitStatus> {
    let architecture = architecture(&args.network)?;
    match args.format {
        Format::Text => print(architecture.summary().trim_end())?,
        Format::Json => print_json(&describe(&architecture))?,
    }
    Ok(ExitStatus::Success)
}

fn describe(architecture: &Architecture) -> Value {
    let layer = |layer: &Layer| {
        let output = match layer.output {
            Shape::Map { channels, height, width } => vec![channels, height, width],
            Shape::Vector(features) => vec![features],
        };
        json!({
            "name": layer.name,
            "type": layer.kind.keras_name(),
            "output": output,
            "parameters": layer.parameters(),
        })
    };
    json!({
        "name": architecture.name,
        "parameters": architecture.parameters(),
        "trainable_parameters": architecture.trainable_parameters(),
        "flops": architecture.flops(),
        "training_activation_bytes": architecture.training_activation_bytes(),
        "serving_activation_bytes": architecture.serving_activation_bytes(),
        "layers": architecture.layers().iter().map(layer).collect::<Vec<_>>(),
    })
}

#[cfg(test)]
mod tests {
    use models::Family;

    use super::*;

    #[test]
    fn the_document_has_the_layers_of_the_network() {
        let document = describe(&Architecture::vgg(Family::Vgg16, 4));
        assert_eq!(document["parameters"], 134_276_932);
        let first = json!({"name": "block1_conv1", "type": "Conv2D", "output": [64, 224, 224], "parameters": 1792});
        assert_eq!(document["layers"][1], first);
    }
}
