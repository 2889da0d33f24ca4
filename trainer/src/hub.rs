//! torchvision's ImageNet weights from the Hugging Face hub, kept in its cache.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use hf_hub::{
    Cache, Repo,
    api::sync::{ApiBuilder, ApiError, ApiRepo},
};
use models::{Family, Sha256};

use crate::Observer;

const FILE: &str = "model.safetensors";

/// Why weights cannot be downloaded.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HubError {
    /// The hub does not answer, or not as it should.
    #[error(
        "cannot download {FILE} of {repository} from the Hugging Face hub; connect to the network, or download the file \
         elsewhere and name it: --weights FILE"
    )]
    Unavailable {
        /// The repository.
        repository: String,
        /// What the hub's client says.
        source: Box<ApiError>,
    },
    /// There is no place for downloads.
    #[error("there is no home folder to keep downloads in; set HF_HOME to a folder, or name a file: --weights FILE")]
    NoCache,
    /// A download cannot be read.
    #[error("cannot read the download {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// The cache, on a system that has no links, does not keep what the hub reported.
    #[error("nothing says what the SHA-256 of {} should be; compare it with the hub's, and name the file: --weights FILE", path.display())]
    NoDigest {
        /// The file.
        path: PathBuf,
    },
    /// A download is not what the hub says it is.
    #[error(
        "the SHA-256 of {} is {found}, the hub says {expected}: the download is damaged; remove the file, and start again",
        path.display()
    )]
    Digest {
        /// The file.
        path: PathBuf,
        /// What the hub reported.
        expected: Sha256,
        /// What it is.
        found: Sha256,
    },
}

/// The repository of torchvision's ImageNet weights of a network, as timm publishes them.
fn repository(family: Family, batch_norm: bool) -> String {
    format!("timm/{}{}.tv_in1k", family.name(), if batch_norm { "_bn" } else { "" })
}

/// The file of those weights, from the cache or else downloaded, and the name of its repository. Its digest is checked
/// against what the hub reported for the file when it was downloaded.
///
/// # Errors
/// [`HubError`].
pub(crate) fn imagenet_weights(
    family: Family,
    batch_norm: bool,
    observer: &mut dyn Observer,
) -> Result<(PathBuf, String), HubError> {
    // Where there is neither, the client would panic.
    if std::env::var_os("HF_HOME").is_none() && std::env::home_dir().is_none() {
        return Err(HubError::NoCache);
    }
    let repository = repository(family, batch_norm);
    let unavailable = |source| HubError::Unavailable { repository: repository.clone(), source: Box::new(source) };
    let path = match Cache::from_env().repo(Repo::model(repository.clone())).get(FILE) {
        Some(path) => path,
        None => {
            observer.notice(&format!("downloading {FILE} of {repository} from the Hugging Face hub"));
            let api = ApiBuilder::from_env().build().map_err(unavailable)?;
            download(&api.model(repository.clone()), observer).map_err(unavailable)?
        }
    };
    check(&path)?;
    Ok((path, repository))
}

fn download(repository: &ApiRepo, observer: &mut dyn Observer) -> Result<PathBuf, ApiError> {
    repository.download_with_progress(FILE, Progress { observer, done: 0, total: 0 })
}

/// The cache names a file after the digest that the hub reported, and links to it.
fn check(path: &Path) -> Result<(), HubError> {
    let read = |source| HubError::Read { path: path.to_owned(), source };
    let file = fs::canonicalize(path).map_err(read)?;
    let found = Sha256::of_file(&file).map_err(read)?;
    let name = file.file_name().unwrap_or_default().to_string_lossy();
    let expected = name.parse().map_err(|_| HubError::NoDigest { path: file.clone() })?;
    if found == expected { Ok(()) } else { Err(HubError::Digest { path: file, expected, found }) }
}

/// Hands the client's progress on.
struct Progress<'a> {
    observer: &'a mut dyn Observer,
    done: u64,
    total: u64,
}

impl hf_hub::api::Progress for Progress<'_> {
    fn init(&mut self, size: usize, _filename: &str) {
        self.total = size as u64;
    }

    fn update(&mut self, size: usize) {
        self.done += size as u64;
        self.observer.downloaded(self.done, self.total);
    }

    fn finish(&mut self) {}
}
