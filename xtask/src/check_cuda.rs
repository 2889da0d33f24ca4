use std::{
    env, fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context, Result, ensure};

use crate::{process, python, workspace::Workspace};

/// NVIDIA's compiler and the headers that candle's kernels include. cudarc knows no CUDA above 13.4.
const PACKAGES: [&str; 7] = [
    "nvidia-cuda-nvcc==13.0.88",
    "nvidia-cuda-crt==13.0.88",
    "nvidia-nvvm==13.0.88",
    "nvidia-cuda-runtime==13.0.96",
    "nvidia-cuda-cccl==13.0.85",
    "nvidia-cuda-nvrtc==13.0.88",
    "nvidia-curand==10.4.0.35",
];

/// What candle's build asks of nvcc, without the work: its version, what it can compile for, and files to include.
const STAND_IN: &str = include_str!("stand-in-nvcc.sh");

/// The oldest GPU that has TF32 and bf16; without a GPU, the build must be told.
const COMPUTE_CAPABILITY: &str = "80";

/// What compiles the kernels.
enum Toolkit {
    /// That of `CUDA_HOME` or `PATH`.
    Installed,
    /// What pip has fetched.
    Fetched(PathBuf),
    /// A script that writes empty files.
    StandIn(PathBuf),
}

/// Lints what the feature `cuda` compiles, tests included.
pub fn check_cuda(workspace: &Workspace, fetch: bool) -> Result<()> {
    let toolkit = match fetch {
        true => Toolkit::Fetched(fetched(workspace)?),
        false if is_installed() => Toolkit::Installed,
        false => Toolkit::StandIn(stand_in(workspace)?),
    };
    let mut clippy = workspace.cargo();
    clippy.args(["clippy", "-p", "models", "-p", "trainer", "--features", "models/cuda,trainer/cuda"]);
    clippy.args(["--all-targets", "--", "-D", "warnings"]).env("CARGO_TARGET_DIR", toolkit.target(workspace));
    if env::var_os("CUDA_COMPUTE_CAP").is_none() {
        clippy.env("CUDA_COMPUTE_CAP", COMPUTE_CAPABILITY);
    }
    if let Toolkit::Fetched(home) | Toolkit::StandIn(home) = &toolkit {
        clippy.env("CUDA_HOME", home).env("PATH", path_with(&home.join("bin"))?);
    }
    process::run(&mut clippy)?;
    eprintln!("{}", toolkit.verdict());
    Ok(())
}

impl Toolkit {
    /// A folder of its own: the checks of the other chores must not be invalidated, nor the empty kernels be taken for
    /// real ones.
    fn target(&self, workspace: &Workspace) -> PathBuf {
        workspace.target.join(match self {
            Self::Installed | Self::Fetched(_) => "cuda",
            Self::StandIn(_) => "cuda-stand-in",
        })
    }

    fn verdict(&self) -> &'static str {
        match self {
            Self::Installed => "The CUDA code compiles with the installed toolkit. Nothing ran: docs/gpu-checks.md.",
            Self::Fetched(_) => "The CUDA code compiles with the fetched toolkit. Nothing ran: docs/gpu-checks.md.",
            Self::StandIn(_) => {
                "The CUDA code passes with a stand-in for nvcc: no kernel was compiled, and nothing ran. \
                 `cargo xtask check-cuda --toolkit` fetches NVIDIA's compiler; docs/gpu-checks.md is for a machine with a GPU."
            }
        }
    }
}

fn is_installed() -> bool {
    let mut nvcc = match env::var_os("CUDA_HOME") {
        Some(home) => Command::new(Path::new(&home).join("bin").join("nvcc")),
        None => Command::new("nvcc"),
    };
    nvcc.arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok_and(|status| status.success())
}

/// The folder that pip fills.
fn fetched(workspace: &Workspace) -> Result<PathBuf> {
    let folder = workspace.target.join("cuda-toolkit");
    let home = folder.join("nvidia").join("cu13");
    if !home.is_dir() {
        python::install(&folder, &PACKAGES, false)?;
        for programs in [home.join("bin"), home.join("nvvm").join("bin")] {
            let files = fs::read_dir(&programs).with_context(|| format!("cannot read {}", programs.display()))?;
            for file in files.flatten() {
                make_executable(&file.path())?;
            }
        }
    }
    Ok(home)
}

/// A folder that looks like a toolkit.
fn stand_in(workspace: &Workspace) -> Result<PathBuf> {
    ensure!(cfg!(unix), "no CUDA toolkit is installed, and the stand-in for nvcc is a shell script; set CUDA_HOME");
    let home = workspace.target.join("cuda-stand-in").join("toolkit");
    let nvcc = home.join("bin").join("nvcc");
    // A file that is newer than a build makes Cargo build again.
    if fs::read_to_string(&nvcc).is_ok_and(|text| text == STAND_IN) {
        return Ok(home);
    }
    for (file, text) in [(home.join("include").join("cuda.h"), ""), (nvcc.clone(), STAND_IN)] {
        let folder = file.parent().context("the file has a folder")?;
        fs::create_dir_all(folder).with_context(|| format!("cannot create {}", folder.display()))?;
        fs::write(&file, text).with_context(|| format!("cannot write {}", file.display()))?;
    }
    make_executable(&nvcc)?;
    Ok(home)
}

#[cfg(unix)]
fn make_executable(file: &Path) -> Result<()> {
    use std::os::unix::fs::PermissionsExt;

    fs::set_permissions(file, fs::Permissions::from_mode(0o755))
        .with_context(|| format!("cannot make {} executable", file.display()))
}

#[cfg(not(unix))]
fn make_executable(_file: &Path) -> Result<()> {
    Ok(())
}

fn path_with(first: &Path) -> Result<std::ffi::OsString> {
    let rest = env::var_os("PATH").unwrap_or_default();
    env::join_paths([first.to_owned()].into_iter().chain(env::split_paths(&rest))).context("PATH cannot be extended")
}
