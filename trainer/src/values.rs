//! Values that are text on the command line and in settings files.

use std::{convert::Infallible, fmt, path::PathBuf, str::FromStr};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// Rows and columns of the network's input: `224`, or `HEIGHTxWIDTH` as in `160x224`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ImageSize {
    /// Rows.
    pub height: usize,
    /// Columns.
    pub width: usize,
}

/// An amount of memory: `1GiB`, `512MiB`, `64KiB`, `500KB`, or a number of bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ByteSize(
    /// Bytes.
    pub u64,
);

/// Where the network runs: `auto`, `cpu`, `cuda`, or `cuda:N` for the device of that number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeviceChoice {
    /// The first CUDA device where there is one and the program was built for it, otherwise the CPU.
    Auto,
    /// The CPU.
    Cpu,
    /// A CUDA device; never anything else.
    Cuda(usize),
}

/// Weights to begin with: `imagenet`, or a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WeightsSource {
    /// Those of ImageNet, from the Hugging Face hub.
    Imagenet,
    /// A file.
    File(PathBuf),
}

/// Which convolutions are left as they are: the first so many, or all, which is `backbone`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Freeze {
    /// The first so many.
    Convolutions(usize),
    /// All.
    Backbone,
}

/// The output channels of each convolution, block by block: `16,16/32,32/64,64,64`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BlockWidths(
    /// At least one block, of at least one convolution, of at least one channel.
    pub Vec<Vec<usize>>,
);

/// A time, in milliseconds: `5ms`, or `0.5`.
#[derive(Clone, Copy, Debug, PartialEq, PartialOrd)]
pub struct Milliseconds(
    /// Above 0.
    pub f64,
);

/// A number of operations: `50M`, `1.5G`, or plain.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Operations(
    /// How many.
    pub u64,
);

/// A text that is not the value that it should be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("'{found}' is not {expected}")]
pub struct ParseValueError {
    found: String,
    expected: &'static str,
}

const UNITS: [(&str, u64); 7] = [
    ("GiB", 1 << 30),
    ("MiB", 1 << 20),
    ("KiB", 1 << 10),
    ("GB", 1_000_000_000),
    ("MB", 1_000_000),
    ("KB", 1000),
    ("B", 1),
];

impl ByteSize {
    /// So many times 2³⁰ bytes.
    pub const fn gibibytes(count: u64) -> Self {
        Self(count << 30)
    }
}

impl FromStr for ImageSize {
    type Err = ParseValueError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let error = || ParseValueError {
            found: text.to_owned(),
            expected: "a picture size; expected one number such as 224, or HEIGHTxWIDTH such as 160x224",
        };
        let side = |text: &str| text.parse().ok().filter(|&side: &usize| side > 0).ok_or_else(error);
        match text.split_once(['x', 'X', '×']) {
            Some((height, width)) => Ok(Self { height: side(height)?, width: side(width)? }),
            None => side(text).map(|side| Self { height: side, width: side }),
        }
    }
}

impl fmt::Display for ImageSize {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}x{}", self.height, self.width)
    }
}

impl FromStr for ByteSize {
    type Err = ParseValueError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (number, unit) = UNITS
            .iter()
            .find_map(|&(unit, bytes)| text.strip_suffix(unit).map(|number| (number, bytes)))
            .unwrap_or((text, 1));
        let number: Option<u64> = number.trim_end().parse().ok();
        number.and_then(|number| number.checked_mul(unit)).map(Self).ok_or_else(|| ParseValueError {
            found: text.to_owned(),
            expected: "an amount of memory; expected a whole number of bytes, KiB, MiB or GiB, or KB, MB or GB, such as \
                       512MiB",
        })
    }
}

impl fmt::Display for ByteSize {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (unit, bytes) =
            UNITS.into_iter().find(|&(_, bytes)| self.0 > 0 && self.0.is_multiple_of(bytes)).unwrap_or(("B", 1));
        write!(formatter, "{}{unit}", self.0 / bytes)
    }
}

impl FromStr for DeviceChoice {
    type Err = ParseValueError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "auto" => Some(Self::Auto),
            "cpu" => Some(Self::Cpu),
            "cuda" => Some(Self::Cuda(0)),
            _ => text.strip_prefix("cuda:").and_then(|number| number.parse().ok()).map(Self::Cuda),
        }
        .ok_or_else(|| ParseValueError {
            found: text.to_owned(),
            expected: "a device; expected auto, cpu, cuda, or cuda:N such as cuda:1",
        })
    }
}

impl fmt::Display for DeviceChoice {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Auto => formatter.write_str("auto"),
            Self::Cpu => formatter.write_str("cpu"),
            Self::Cuda(number) => write!(formatter, "cuda:{number}"),
        }
    }
}

impl FromStr for WeightsSource {
    type Err = Infallible;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Ok(match text {
            "imagenet" => Self::Imagenet,
            path => Self::File(path.into()),
        })
    }
}

impl fmt::Display for WeightsSource {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Imagenet => formatter.write_str("imagenet"),
            Self::File(path) => write!(formatter, "{}", path.display()),
        }
    }
}

impl FromStr for Freeze {
    type Err = ParseValueError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "backbone" => Some(Self::Backbone),
            _ => text.parse().ok().map(Self::Convolutions),
        }
        .ok_or_else(|| ParseValueError {
            found: text.to_owned(),
            expected: "a part of the network; expected a number of convolutions such as 4, or backbone for all of them",
        })
    }
}

impl fmt::Display for Freeze {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Convolutions(count) => write!(formatter, "{count}"),
            Self::Backbone => formatter.write_str("backbone"),
        }
    }
}

impl FromStr for BlockWidths {
    type Err = ParseValueError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let width = |text: &str| text.trim().parse().ok().filter(|&width: &usize| width > 0);
        let block = |text: &str| text.split(',').map(width).collect::<Option<Vec<_>>>();
        text.split('/').map(block).collect::<Option<_>>().map(Self).ok_or_else(|| ParseValueError {
            found: text.to_owned(),
            expected: "a list of widths; expected the channels of each convolution with / between blocks, such as \
                       16,16/32,32",
        })
    }
}

impl fmt::Display for BlockWidths {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let block = |widths: &Vec<usize>| widths.iter().map(usize::to_string).collect::<Vec<_>>().join(",");
        formatter.write_str(&self.0.iter().map(block).collect::<Vec<_>>().join("/"))
    }
}

impl FromStr for Milliseconds {
    type Err = ParseValueError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let number = text.strip_suffix("ms").unwrap_or(text).trim_end().parse().ok();
        number.filter(|&time: &f64| time.is_finite() && time > 0.0).map(Self).ok_or_else(|| ParseValueError {
            found: text.to_owned(),
            expected: "a time; expected milliseconds above 0, such as 5ms",
        })
    }
}

impl fmt::Display for Milliseconds {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}ms", self.0)
    }
}

impl FromStr for Operations {
    type Err = ParseValueError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (number, factor) = [("K", 1e3), ("M", 1e6), ("G", 1e9)]
            .into_iter()
            .find_map(|(unit, factor)| text.strip_suffix(unit).map(|number| (number, factor)))
            .unwrap_or((text, 1.0));
        let number = number.parse().ok().map(|number: f64| number * factor);
        number.filter(|count| (1.0..1e18).contains(count)).map(|count| Self(count as u64)).ok_or_else(|| {
            let expected = "a number of operations; expected one such as 50M or 1.5G";
            ParseValueError { found: text.to_owned(), expected }
        })
    }
}

impl fmt::Display for Operations {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(formatter)
    }
}

/// Files may write a number where a text with one number would do: `image_size = 64`.
#[derive(Deserialize)]
#[serde(untagged, expecting = "expected a number or a text")]
enum NumberOrText {
    Number(u64),
    Text(String),
}

fn deserialize<'de, T, D>(deserializer: D) -> Result<T, D::Error>
where
    T: FromStr<Err = ParseValueError>,
    D: Deserializer<'de>,
{
    let text = match NumberOrText::deserialize(deserializer)? {
        NumberOrText::Number(number) => number.to_string(),
        NumberOrText::Text(text) => text,
    };
    text.parse().map_err(de::Error::custom)
}

impl Serialize for ImageSize {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if self.height == self.width {
            serializer.serialize_u64(self.height as u64)
        } else {
            serializer.collect_str(self)
        }
    }
}

impl<'de> Deserialize<'de> for ImageSize {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserialize(deserializer)
    }
}

impl Serialize for WeightsSource {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for WeightsSource {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

impl Serialize for Freeze {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Convolutions(count) => serializer.serialize_u64(*count as u64),
            Self::Backbone => serializer.collect_str(self),
        }
    }
}

impl<'de> Deserialize<'de> for Freeze {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserialize(deserializer)
    }
}

impl Serialize for BlockWidths {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for BlockWidths {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserialize(deserializer)
    }
}

impl Serialize for Milliseconds {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl Serialize for Operations {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u64(self.0)
    }
}

impl Serialize for ByteSize {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for ByteSize {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserialize(deserializer)
    }
}

impl Serialize for DeviceChoice {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for DeviceChoice {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserialize(deserializer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_become_values_and_values_their_texts() {
        assert_eq!("224".parse(), Ok(ImageSize { height: 224, width: 224 }));
        assert_eq!("160x224".parse(), Ok(ImageSize { height: 160, width: 224 }));
        assert_eq!("512MiB".parse(), Ok(ByteSize(512 << 20)));
        assert_eq!("1000".parse(), Ok(ByteSize(1000)));
        assert_eq!("cuda".parse(), Ok(DeviceChoice::Cuda(0)));
        assert_eq!("4".parse(), Ok(Freeze::Convolutions(4)));
        assert_eq!("backbone".parse(), Ok(Freeze::Backbone));
        assert_eq!("imagenet".parse(), Ok(WeightsSource::Imagenet));
        assert_eq!("./imagenet".parse(), Ok(WeightsSource::File("./imagenet".into())));
        assert_eq!("8, 8/16".parse(), Ok(BlockWidths(vec![vec![8, 8], vec![16]])));
        assert_eq!("7".parse::<BlockWidths>().map(|widths| widths.to_string()), Ok("7".to_owned()));
        assert_eq!("8,8/16".parse::<BlockWidths>().map(|widths| widths.to_string()), Ok("8,8/16".to_owned()));
        assert_eq!(
            ["5ms", "0.25", "3 ms"].map(|text| text.parse().map(|Milliseconds(time)| time)),
            [5.0, 0.25, 3.0].map(Ok)
        );
        assert_eq!(
            ["7", "50M", "1.5G"].map(str::parse),
            [7, 50_000_000, 1_500_000_000].map(|count| Ok(Operations(count)))
        );
        for text in ["1GiB", "512MiB", "3KiB", "1001B", "0B", "500KB", "1MB"] {
            assert_eq!(text.parse::<ByteSize>().expect(text).to_string(), text);
        }
        for text in ["auto", "cpu", "cuda:3"] {
            assert_eq!(text.parse::<DeviceChoice>().expect(text).to_string(), text);
        }
    }

    #[test]
    fn other_texts_are_errors_that_show_them() {
        for text in ["", "0", "64x", "x64", "-3", "64x64x3"] {
            let message = text.parse::<ImageSize>().expect_err(text).to_string();
            assert!(message.starts_with(&format!("'{text}' is not a picture size")), "{message}");
        }
        for text in ["", "GiB", "1.5GiB", "99999999999GiB", "1TB"] {
            assert!(text.parse::<ByteSize>().is_err(), "{text}");
        }
        for text in ["", "-1", "head", "1.5"] {
            let message = text.parse::<Freeze>().expect_err(text).to_string();
            assert!(message.starts_with(&format!("'{text}' is not a part of the network")), "{message}");
        }
        for text in ["", "8,", "/8", "8,0", "8;8", "-4"] {
            let message = text.parse::<BlockWidths>().expect_err(text).to_string();
            assert!(message.starts_with(&format!("'{text}' is not a list of widths")), "{message}");
        }
        for text in ["", "0ms", "-1", "NaN", "5s"] {
            assert!(text.parse::<Milliseconds>().is_err(), "{text}");
        }
        for text in ["", "0", "-5M", "M", "1e30"] {
            assert!(text.parse::<Operations>().is_err(), "{text}");
        }
        for text in ["gpu", "cuda:", "cuda:x", "CPU"] {
            assert!(text.parse::<DeviceChoice>().is_err(), "{text}");
        }
    }
}
