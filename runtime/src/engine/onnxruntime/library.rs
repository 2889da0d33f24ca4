//! Finding and loading ONNX Runtime's shared library.

use std::{
    env, fs,
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
};

use ort::environment::Environment;

use crate::{RuntimeError, error::Cause};

/// ONNX Runtime in this process: there can be only one.
#[derive(Clone)]
pub(crate) struct Library {
    pub path: PathBuf,
    pub version: String,
    pub environment: Environment,
}

static LOADED: Mutex<Option<Library>> = Mutex::new(None);

/// Finds and loads the library; later calls return the same one.
///
/// # Errors
/// [`RuntimeError::LibraryMissing`], [`RuntimeError::LibraryPath`] or [`RuntimeError::Library`].
pub(crate) fn load() -> Result<Library, RuntimeError> {
    let mut loaded = LOADED.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(library) = &*loaded {
        return Ok(library.clone());
    }
    let path = Places::of_this_process().find()?;
    let failed = |source| RuntimeError::Library { path: path.clone(), source };
    let builder = ort::init_from(&path).map_err(|error| failed(load_cause(error)))?;
    let environment = builder.with_name("demitasse").build().map_err(|error| failed(error.into()))?;
    let library = Library { version: version(&path), path, environment };
    *loaded = Some(library.clone());
    Ok(library)
}

/// The loader's own words, which say what is wrong with the file, are the cause of its error.
fn load_cause(error: ort::LoadDynamicError) -> Cause {
    match error {
        ort::LoadDynamicError::Dlopen { error, .. } => error.into(),
        other => other.to_string().into(),
    }
}

#[cfg(target_os = "windows")]
const NAME: &str = "onnxruntime.dll";
#[cfg(target_os = "macos")]
const NAME: &str = "libonnxruntime.dylib";
#[cfg(not(any(target_os = "windows", target_os = "macos")))]
const NAME: &str = "libonnxruntime.so";

/// Where pip puts the library below a folder of packages.
const IN_PACKAGES: &str = "onnxruntime/capi";

/// What decides where the library is looked for.
struct Places {
    /// `ORT_DYLIB_PATH`.
    variable: Option<PathBuf>,
    executable: Option<PathBuf>,
    current: Option<PathBuf>,
    /// Folders that hold `lib/python3.*/site-packages`.
    python: Vec<PathBuf>,
    system: Vec<PathBuf>,
}

impl Places {
    fn of_this_process() -> Self {
        let folder = |name| env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
        let list = |name| env::var_os(name).map(|value| env::split_paths(&value).collect()).unwrap_or_else(Vec::new);
        let home = folder("HOME").map(|home| home.join(".local"));
        let programs = list("PATH").into_iter().filter(|folder| folder.join("python3").exists());
        // A link to python3 in a virtual environment must not be followed: its packages are beside the link.
        let installed = programs.filter_map(|folder| folder.parent().map(Path::to_owned));
        let python = [folder("VIRTUAL_ENV"), folder("CONDA_PREFIX")].into_iter().flatten().chain(installed).chain(home);
        let fixed = [
            "/usr/local/lib",
            "/usr/lib",
            "/usr/lib64",
            "/usr/lib/x86_64-linux-gnu",
            "/usr/lib/aarch64-linux-gnu",
            "/opt/homebrew/lib",
        ];
        let mut system = list("LD_LIBRARY_PATH");
        system.extend(list("DYLD_LIBRARY_PATH"));
        system.extend(fixed.map(PathBuf::from));
        Self {
            variable: folder("ORT_DYLIB_PATH"),
            executable: env::current_exe().ok(),
            current: env::current_dir().ok(),
            python: python.collect(),
            system,
        }
    }

    fn find(&self) -> Result<PathBuf, RuntimeError> {
        if let Some(path) = &self.variable {
            let found = if path.is_dir() { newest_in(path) } else { Some(path.clone()).filter(|path| path.is_file()) };
            return found.ok_or_else(|| RuntimeError::LibraryPath { path: path.clone(), name: NAME });
        }
        let mut searched = Vec::new();
        for folder in self.folders() {
            if let Some(library) = newest_in(&folder) {
                return Ok(library);
            }
            if !searched.contains(&folder) {
                searched.push(folder);
            }
        }
        // The folders that are there say more than those that are not.
        searched.sort_by_key(|folder| !folder.is_dir());
        Err(RuntimeError::LibraryMissing { name: NAME, searched })
    }

    fn folders(&self) -> Vec<PathBuf> {
        let mut folders = Vec::new();
        if let Some(folder) = self.executable.as_deref().and_then(Path::parent) {
            folders.push(folder.to_owned());
            // `cargo xtask onnxruntime` puts it into Cargo's target folder, where this program may lie too.
            folders.extend(folder.ancestors().take(3).map(|target| target.join("onnxruntime").join(IN_PACKAGES)));
        }
        let above = self.current.iter().flat_map(|current| current.ancestors());
        folders.extend(
            above.map(|folder| folder.join("target/onnxruntime").join(IN_PACKAGES)).filter(|folder| folder.is_dir()),
        );
        for prefix in &self.python {
            for version in versions_of_python(&prefix.join("lib")) {
                let packages = ["site-packages", "dist-packages"].map(|name| version.join(name).join(IN_PACKAGES));
                folders.extend(packages.into_iter().filter(|folder| folder.is_dir()));
            }
            // Windows, and Debian's own packages.
            let packages =
                ["Lib/site-packages", "lib/python3/dist-packages"].map(|name| prefix.join(name).join(IN_PACKAGES));
            folders.extend(packages.into_iter().filter(|folder| folder.is_dir()));
        }
        folders.extend(self.system.iter().cloned());
        folders
    }
}

fn versions_of_python(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path());
    let is_python = |path: &PathBuf| {
        path.file_name().and_then(|name| name.to_str()).is_some_and(|name| name.starts_with("python3"))
    };
    let mut versions: Vec<_> = entries.filter(is_python).collect();
    versions.sort();
    versions.reverse();
    versions
}

/// The library with the highest version in a folder: `libonnxruntime.so`, `libonnxruntime.so.1.32.0`,
/// `libonnxruntime.1.32.0.dylib`, `onnxruntime.dll`.
fn newest_in(folder: &Path) -> Option<PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path());
    let versioned = entries.filter_map(|path| {
        let name = path.file_name()?.to_str()?;
        is_library(name).then(|| (numbers(name), path.clone()))
    });
    versioned.max().map(|(_, path)| path)
}

fn is_library(name: &str) -> bool {
    let (stem, ending) = NAME.split_once('.').unwrap_or((NAME, ""));
    let Some(rest) = name.strip_prefix(stem) else { return false };
    let is_version = |text: &str| text.chars().all(|character| character.is_ascii_digit() || character == '.');
    match (rest.strip_prefix('.').and_then(|rest| rest.strip_prefix(ending)), rest.strip_suffix(ending)) {
        // libonnxruntime.so.1.32.0
        (Some(version), _) => is_version(version),
        // libonnxruntime.1.32.0.dylib
        (None, Some(version)) => is_version(version),
        (None, None) => false,
    }
}

/// The numbers in a name, for comparing versions.
fn numbers(name: &str) -> Vec<u32> {
    name.split('.').filter_map(|part| part.parse().ok()).collect()
}

/// The version in the library's name, or else what the library says about its build.
fn version(path: &Path) -> String {
    let real = path.canonicalize().unwrap_or_else(|_| path.to_owned());
    let numbers = numbers(real.file_name().and_then(|name| name.to_str()).unwrap_or_default());
    if numbers.is_empty() {
        return ort::info().to_owned();
    }
    numbers.iter().map(u32::to_string).collect::<Vec<_>>().join(".")
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    fn touch(path: &Path) {
        fs::create_dir_all(path.parent().expect("inside a folder")).expect("a folder");
        fs::write(path, b"").expect("a file");
    }

    fn nowhere() -> Places {
        Places { variable: None, executable: None, current: None, python: Vec::new(), system: Vec::new() }
    }

    #[test]
    fn the_newest_library_is_taken_and_providers_are_not() {
        let folder = tempfile::tempdir().expect("a folder");
        for name in ["libonnxruntime.so.1.9.0", "libonnxruntime.so.1.32.0", "libonnxruntime_providers_shared.so"] {
            touch(&folder.path().join(name));
        }
        let found = newest_in(folder.path()).expect("two libraries");
        assert_eq!(found, folder.path().join("libonnxruntime.so.1.32.0"));
        assert_eq!(version(&found), "1.32.0");
    }

    #[test]
    fn the_places_are_looked_at_in_order() {
        let root = tempfile::tempdir().expect("a folder");
        let root = root.path().canonicalize().expect("a real path");
        let system = root.join("system/libonnxruntime.so");
        let python = root.join("venv/lib/python3.12/site-packages/onnxruntime/capi/libonnxruntime.so.1.32.0");
        let target = root.join("work/target/onnxruntime/onnxruntime/capi/libonnxruntime.so.1.31.1");
        let beside = root.join("bin/libonnxruntime.so.1");
        let named = root.join("named/libonnxruntime.so.1.30.0");
        let mut places = Places {
            executable: Some(root.join("bin/runtime")),
            current: Some(root.join("work/main")),
            python: vec![root.join("venv")],
            system: vec![root.join("system")],
            ..nowhere()
        };
        assert!(matches!(places.find(), Err(RuntimeError::LibraryMissing { .. })));
        for library in [&system, &python, &target, &beside] {
            touch(library);
            assert_eq!(&places.find().expect("a library"), library);
        }
        touch(&named);
        for variable in [named.clone(), root.join("named")] {
            places.variable = Some(variable);
            assert_eq!(places.find().expect("the variable's"), named);
        }
    }

    #[test]
    fn a_wrong_variable_is_an_error_even_where_a_library_lies_elsewhere() {
        let folder = tempfile::tempdir().expect("a folder");
        touch(&folder.path().join("libonnxruntime.so"));
        let variable = Some(folder.path().join("missing.so"));
        let places = Places { variable, system: vec![folder.path().to_owned()], ..nowhere() };
        let error = places.find().expect_err("it is not there").to_string();
        assert!(error.contains("ORT_DYLIB_PATH") && error.contains("missing.so"), "{error}");
    }

    #[test]
    fn a_missing_library_says_how_to_get_it() {
        let folder = tempfile::tempdir().expect("a folder");
        let places = Places { system: vec![folder.path().to_owned()], ..nowhere() };
        let error = places.find().expect_err("it is nowhere").to_string();
        for word in ["pip install onnxruntime", "cargo xtask onnxruntime", "ORT_DYLIB_PATH"] {
            assert!(error.contains(word), "{error}");
        }
        assert!(error.contains(&folder.path().display().to_string()), "{error}");
    }
}
