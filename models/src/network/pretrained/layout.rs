//! Which of our tensors a file's tensors are, and how their numbers are ordered.

use std::collections::BTreeMap;

use crate::{Family, Layer, LayerKind, Shape, WeightsLayout};

/// More modules in a row than any VGG network has.
const MOST_MODULES: u32 = 1000;

/// What a file holds, by our names.
pub(super) struct Inventory {
    pub layout: WeightsLayout,
    /// Convolutions of each block.
    pub depths: Vec<usize>,
    pub batch_norm: bool,
    /// The file's names of our tensors, whether it has them all or not.
    pub names: BTreeMap<String, String>,
}

impl Inventory {
    /// Of the tensors of a PyTorch or safetensors file, by torchvision's or timm's names.
    pub(super) fn of_torch<'a>(tensors: impl Iterator<Item = (&'a str, &'a [usize])>) -> Result<Self, &'static str> {
        let ranks: BTreeMap<&str, usize> = tensors.map(|(name, shape)| (name, shape.len())).collect();
        let indices = |module: &str, rank| {
            let index = |(name, &found): (&&str, &usize)| {
                let index = name.strip_prefix(module)?.strip_prefix('.')?.strip_suffix(".weight")?;
                index.parse::<u32>().ok().filter(|&index| found == rank && index < MOST_MODULES)
            };
            let mut indices: Vec<_> = ranks.iter().filter_map(index).collect();
            indices.sort_unstable();
            indices
        };
        let (convolutions, norms) = (indices("features", 4), indices("features", 1));
        let batch_norm = !norms.is_empty();
        // ReLU follows, and batch normalisation where there is any; a pool makes the distance one longer.
        let distance = if batch_norm { 3 } else { 2 };
        let first = convolutions.first().ok_or("it has no convolutions of that name")?;
        let mut names = BTreeMap::new();
        let mut depths = vec![0];
        let mut last = *first;
        for &index in &convolutions {
            match index - last {
                0 => {}
                found if found == distance => {}
                found if found == distance + 1 => depths.push(0),
                _ => return Err("its convolutions do not follow each other as in a VGG network"),
            }
            last = index;
            let block = depths.len();
            let Some(depth) = depths.last_mut() else { break };
            *depth += 1;
            let layer = format!("block{block}_conv{depth}");
            add(&mut names, &layer, &format!("features.{index}"), &AFFINE);
            if batch_norm {
                add(&mut names, &format!("{layer}_bn"), &format!("features.{}", index + 1), &NORM);
            }
        }
        let is_timm = ranks.keys().any(|name| name.starts_with("pre_logits.") || name.starts_with("head."));
        let dense: Vec<String> = match is_timm {
            true => ["pre_logits.fc1", "pre_logits.fc2", "head.fc"].map(str::to_owned).to_vec(),
            false => indices("classifier", 2).iter().map(|index| format!("classifier.{index}")).collect(),
        };
        add_dense(&mut names, &dense, &AFFINE);
        let layout = if is_timm { WeightsLayout::Timm } else { WeightsLayout::Torchvision };
        Ok(Self { layout, depths, batch_norm, names })
    }

    /// Of the datasets of an HDF5 file: by the names of keras.applications, wherever in the path they are, or, where
    /// Keras 3 has saved weights alone, by the order of the layers.
    pub(super) fn of_keras<'a>(datasets: impl Iterator<Item = &'a str>) -> Result<Self, &'static str> {
        let datasets: Vec<&str> = datasets.filter(|path| !path.starts_with("optimizer")).collect();
        let mut names = BTreeMap::new();
        let mut depths: Vec<usize> = Vec::new();
        let mut ordered = BTreeMap::new();
        for &path in &datasets {
            let (folder, last) = path.rsplit_once('/').unwrap_or(("", path));
            let component = |component: &&str| block(component).is_some() || HEAD.contains(component);
            if let Some(layer) = folder.split('/').find(component) {
                let Some(part) = part(last) else { continue };
                names.insert(format!("{layer}.{part}"), path.to_owned());
                if let Some((block, depth)) = block(layer) {
                    depths.resize(depths.len().max(block), 0);
                    depths[block - 1] = depths[block - 1].max(depth);
                }
            } else if let Some(place) = folder.strip_suffix("/vars").and_then(order) {
                ordered.insert(place, folder.to_owned());
            }
        }
        if names.is_empty() {
            let of_kind = |kind| ordered.iter().filter(move |((found, _), _)| *found == kind).map(|(_, path)| path);
            let convolutions: Vec<&String> = of_kind(CONV2D).collect();
            let dense: Vec<String> = of_kind(DENSE).cloned().collect();
            let family = family(|family| family.depths().iter().sum::<usize>() == convolutions.len());
            depths = family.ok_or("it has not as many convolutions as any VGG network")?.depths().to_vec();
            let layers = depths
                .iter()
                .enumerate()
                .flat_map(|(block, &depth)| (1..=depth).map(move |number| format!("block{}_conv{number}", block + 1)));
            for (layer, folder) in layers.zip(convolutions) {
                add(&mut names, &layer, folder, &VARS);
            }
            add_dense(&mut names, &dense, &VARS);
        }
        if depths.is_empty() {
            return Err("it has no convolutions of that name");
        }
        Ok(Self { layout: WeightsLayout::Keras, depths, batch_norm: false, names })
    }
}

/// What people call a network of so many convolutions in each block.
pub(super) fn describe(depths: &[usize], batch_norm: bool) -> String {
    let name = match family(|family| family.depths() == depths) {
        Some(family) => family.name().to_owned(),
        None => format!("a network with {depths:?} convolutions in its blocks"),
    };
    format!("{name} {} batch normalisation", if batch_norm { "with" } else { "without" })
}

fn family(is_it: impl Fn(&Family) -> bool) -> Option<Family> {
    [Family::Vgg11, Family::Vgg13, Family::Vgg16, Family::Vgg19].into_iter().find(is_it)
}

/// Our names of a layer's tensors, and those below the file's name of the layer.
type Parts = [(&'static str, &'static str)];

const AFFINE: [(&str, &str); 2] = [("weight", ".weight"), ("bias", ".bias")];
const NORM: [(&str, &str); 4] =
    [("weight", ".weight"), ("bias", ".bias"), ("running_mean", ".running_mean"), ("running_var", ".running_var")];
const VARS: [(&str, &str); 2] = [("weight", "/0"), ("bias", "/1")];

fn add(names: &mut BTreeMap<String, String>, layer: &str, in_file: &str, parts: &Parts) {
    names.extend(parts.iter().map(|(own, other)| (format!("{layer}.{own}"), format!("{in_file}{other}"))));
}

/// The last dense layer gives the logits.
fn add_dense(names: &mut BTreeMap<String, String>, in_file: &[String], parts: &Parts) {
    if let Some((last, hidden)) = in_file.split_last() {
        for (index, in_file) in hidden.iter().enumerate() {
            add(names, &format!("fc{}", index + 1), in_file, parts);
        }
        add(names, "predictions", last, parts);
    }
}

const HEAD: [&str; 3] = ["fc1", "fc2", "predictions"];

/// Block and place of `block1_conv2`; no network has a thousand of either.
fn block(layer: &str) -> Option<(usize, usize)> {
    let (block, place) = layer.strip_prefix("block")?.split_once("_conv")?;
    let number = |text: &str| text.parse().ok().filter(|number| (1..1000).contains(number));
    Some((number(block)?, number(place)?))
}

/// Which tensor of ours a dataset is: `kernel`, `kernel:0`, `block1_conv1_W_1:0`.
fn part(dataset: &str) -> Option<&'static str> {
    let name = dataset.split(':').next().unwrap_or(dataset);
    let name = name.strip_suffix("_1").unwrap_or(name);
    match name.rsplit('_').next().unwrap_or(name) {
        "kernel" | "W" => Some("weight"),
        "bias" | "b" => Some("bias"),
        _ => None,
    }
}

const CONV2D: &str = "conv2d";
const DENSE: &str = "dense";

/// Kind and number of `layers/conv2d_3`; the first has no number.
fn order(folder: &str) -> Option<(&'static str, u32)> {
    let name = folder.rsplit('/').next()?;
    [CONV2D, DENSE].into_iter().find_map(|kind| {
        let number = match name.strip_prefix(kind)? {
            "" => 0,
            rest => rest.strip_prefix('_')?.parse().ok()?,
        };
        Some((kind, number))
    })
}

/// How the numbers of a tensor are ordered in a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Order {
    /// As ours.
    Same,
    /// `[3, 3, inputs, outputs]`.
    ConvolutionKernel { inputs: usize, outputs: usize },
    /// `[height × width × channels, outputs]`; for what is no map, height and width are 1.
    DenseKernel { channels: usize, pixels: usize, outputs: usize },
}

/// The shape and the order that a library gives to a tensor of a layer, which flattens `map` where it follows one.
pub(super) fn stored(layout: WeightsLayout, layer: &Layer, map: Option<Shape>, part: &str) -> (Vec<usize>, Order) {
    let channels = |shape| match shape {
        Shape::Map { channels, .. } => channels,
        Shape::Vector(features) => features,
    };
    let (inputs, outputs) = (channels(layer.input), channels(layer.output));
    if part != "weight" || layer.kind == LayerKind::BatchNorm {
        return (vec![outputs], Order::Same);
    }
    let (map_channels, height, width) = match map {
        Some(Shape::Map { channels, height, width }) => (channels, height, width),
        _ => (inputs, 1, 1),
    };
    match (layout, layer.kind) {
        (WeightsLayout::Keras, LayerKind::Convolution { .. }) => {
            (vec![3, 3, inputs, outputs], Order::ConvolutionKernel { inputs, outputs })
        }
        (_, LayerKind::Convolution { .. }) => (vec![outputs, inputs, 3, 3], Order::Same),
        (WeightsLayout::Keras, _) => {
            let order = Order::DenseKernel { channels: map_channels, pixels: height * width, outputs };
            (vec![inputs, outputs], order)
        }
        (WeightsLayout::Timm, LayerKind::Dense { relu: true }) => {
            (vec![outputs, map_channels, height, width], Order::Same)
        }
        _ => (vec![outputs, inputs], Order::Same),
    }
}

impl Order {
    /// The numbers in our order.
    pub(super) fn ours(self, values: Vec<f32>) -> Vec<f32> {
        match self {
            Order::Same => values,
            Order::ConvolutionKernel { inputs, outputs } => transposed(&values, 9, inputs, outputs),
            Order::DenseKernel { channels, pixels, outputs } => transposed(&values, pixels, channels, outputs),
        }
    }
}

/// From `[places, inputs, outputs]` to `[outputs, inputs, places]`.
fn transposed(values: &[f32], places: usize, inputs: usize, outputs: usize) -> Vec<f32> {
    let mut ours = Vec::with_capacity(values.len());
    for output in 0..outputs {
        for input in 0..inputs {
            ours.extend((0..places).map(|place| values[(place * inputs + input) * outputs + output]));
        }
    }
    ours
}
