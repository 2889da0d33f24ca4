//! Weights that other libraries trained, as their files store them.

mod error;
mod keras;
mod layout;
mod pickle;
mod pth;
#[cfg(test)]
mod tests;

use std::{
    collections::BTreeMap,
    fs::File,
    io::{Read, Seek},
    path::{Path, PathBuf},
};

use candle_core::Device;

pub use error::PretrainedError;

use super::{Network, layer, weights_file::WeightsFile};
use crate::{Architecture, Head, InitialWeights, Layer, LayerKind, Sha256, Shape, WeightsLayout};
use keras::KerasFile;
use layout::{Inventory, Order};
use pth::PthFile;

/// An open file of a VGG network's weights in the layout of another library: PyTorch's `.pth` (both formats of
/// `torch.save`) or safetensors with the names of torchvision or timm, or Keras's `.h5`.
///
/// The kind of file is told by its content. Opening reads names and shapes, [`network`](Self::network) the numbers.
pub struct PretrainedFile {
    path: PathBuf,
    content: Content,
    shapes: BTreeMap<String, Vec<usize>>,
    inventory: Inventory,
}

enum Content {
    Safetensors(WeightsFile),
    Pth(PthFile),
    Keras(KerasFile),
}

impl PretrainedFile {
    /// Opens a file, and finds out what it holds.
    ///
    /// # Errors
    /// [`PretrainedError`]: where the file cannot be read, is damaged, or holds no VGG network.
    pub fn open(path: &Path) -> Result<Self, PretrainedError> {
        let content = Content::open(path)?;
        let shapes = content.shapes();
        let names = || shapes.iter().map(|(name, shape)| (name.as_str(), shape.as_slice()));
        let inventory = match content {
            Content::Keras(_) => Inventory::of_keras(names().map(|(name, _)| name)),
            _ => Inventory::of_torch(names()),
        };
        let inventory = inventory.map_err(|problem| PretrainedError::NotVgg { path: path.to_owned(), problem })?;
        Ok(Self { path: path.to_owned(), content, shapes, inventory })
    }

    /// How it stores the weights.
    pub fn layout(&self) -> WeightsLayout {
        self.inventory.layout
    }

    /// Whether its network has batch normalisation.
    pub fn has_batch_norm(&self) -> bool {
        self.inventory.batch_norm
    }

    /// A network that begins with these weights, and what they are, under the name of their `source`.
    ///
    /// Every convolution, and its batch normalisation, comes from the file. A dense layer does where the file has one of
    /// its shape and those before it came from the file too; the others are drawn as [`Network::new`] draws them.
    ///
    /// # Errors
    /// [`PretrainedError`]: where the architecture cannot exist, is another member of the family or has other widths, or
    /// a tensor is missing or damaged.
    pub fn network(
        mut self,
        architecture: &Architecture,
        source: String,
        seed: u64,
        device: &Device,
    ) -> Result<(Network, InitialWeights), PretrainedError> {
        self.check_variant(architecture)?;
        let mut wanted = BTreeMap::new();
        let (mut loaded, mut fresh) = (Vec::new(), Vec::new());
        let mut flattened = None;
        for layer in architecture.layers() {
            let places = match layer.kind {
                LayerKind::Flatten => {
                    flattened = Some(layer.input);
                    continue;
                }
                LayerKind::Convolution { .. } | LayerKind::BatchNorm => self.places(&layer, None)?,
                LayerKind::Dense { .. } => {
                    let map = flattened.take();
                    let fits = architecture.head != Head::GlobalAveragePool && fresh.is_empty();
                    match self.places(&layer, map).ok().filter(|_| fits) {
                        Some(places) => places,
                        None => {
                            fresh.push(layer.name);
                            continue;
                        }
                    }
                }
                _ => continue,
            };
            loaded.push(layer.name);
            wanted.extend(places.into_iter().map(|place| (place.name.clone(), place)));
        }
        let sha256 =
            Sha256::of_file(&self.path).map_err(|source| PretrainedError::Read { path: self.path.clone(), source })?;
        let network = Network::with_values(architecture, seed, device, |name, shape| match wanted.get(name) {
            Some(Place { in_file, order, .. }) => {
                let values = self.content.values(&self.path, in_file, shape.iter().product())?;
                Ok::<_, PretrainedError>(Some(order.ours(values)))
            }
            None => Ok(None),
        })?;
        Ok((network, InitialWeights { source, layout: self.inventory.layout, sha256, loaded, fresh }))
    }

    fn check_variant(&self, architecture: &Architecture) -> Result<(), PretrainedError> {
        let Inventory { depths, batch_norm, .. } = &self.inventory;
        let expected: Vec<usize> = architecture.blocks.iter().map(Vec::len).collect();
        if (depths, *batch_norm) == (&expected, architecture.batch_norm) {
            return Ok(());
        }
        Err(PretrainedError::Variant {
            path: self.path.clone(),
            found: layout::describe(depths, *batch_norm),
            expected: layout::describe(&expected, architecture.batch_norm),
        })
    }

    /// Where the file has the tensors of a layer.
    fn places(&self, layer: &Layer, map: Option<Shape>) -> Result<Vec<Place>, PretrainedError> {
        let place = |(part, _): (&str, Vec<usize>)| {
            let name = format!("{}.{part}", layer.name);
            let (expected, order) = layout::stored(self.inventory.layout, layer, map, part);
            let missing =
                |tensor: &str| PretrainedError::Missing { path: self.path.clone(), tensor: tensor.to_owned() };
            let in_file = self.inventory.names.get(&name).ok_or_else(|| missing(&name))?;
            let found = self.shapes.get(in_file).ok_or_else(|| missing(in_file))?;
            if *found != expected {
                let (path, tensor, found) = (self.path.clone(), in_file.clone(), found.clone());
                return Err(PretrainedError::Shape { path, tensor, expected, found });
            }
            Ok(Place { name, in_file: in_file.clone(), order })
        };
        layer::parts(layer).into_iter().map(place).collect()
    }
}

/// Where a file has one of our tensors.
struct Place {
    /// Our name.
    name: String,
    in_file: String,
    order: Order,
}

impl Content {
    fn open(path: &Path) -> Result<Self, PretrainedError> {
        let read = |source| PretrainedError::Read { path: path.to_owned(), source };
        let mut file = File::open(path).map_err(read)?;
        let mut beginning = Vec::new();
        file.by_ref().take(32).read_to_end(&mut beginning).map_err(read)?;
        file.rewind().map_err(read)?;
        if beginning.starts_with(b"PK\x03\x04") {
            return PthFile::open_zip(path, file).map(Self::Pth);
        }
        if beginning.starts_with(pth::LEGACY_MAGIC) {
            return PthFile::open_legacy(path, file).map(Self::Pth);
        }
        if beginning.starts_with(b"\x89HDF\r\n\x1a\n") {
            return KerasFile::open(path).map(Self::Keras);
        }
        // The length of the header is in front of it.
        if beginning.get(8) == Some(&b'{') {
            return Ok(Self::Safetensors(WeightsFile::open(path)?));
        }
        Err(PretrainedError::UnknownFormat { path: path.to_owned() })
    }

    fn shapes(&self) -> BTreeMap<String, Vec<usize>> {
        match self {
            Self::Safetensors(file) => {
                file.tensors().into_iter().map(|(name, info)| (name, info.shape.clone())).collect()
            }
            Self::Pth(file) => file.tensors().map(|(name, shape)| (name.to_owned(), shape.to_vec())).collect(),
            Self::Keras(file) => file.tensors().map(|(name, shape)| (name.to_owned(), shape)).collect(),
        }
    }

    /// So many values of a tensor, whose shape the caller has checked.
    fn values(&mut self, path: &Path, name: &str, count: usize) -> Result<Vec<f32>, PretrainedError> {
        match self {
            Self::Safetensors(file) => Ok(file.values(name)?),
            Self::Pth(file) => file.values(name),
            Self::Keras(file) => file.values(path, name, count),
        }
    }
}
