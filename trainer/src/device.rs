//! Where the network runs.

use candle_core::Device;

use crate::DeviceChoice;

/// A device that is ready, and what was chosen.
#[derive(Clone, Debug)]
pub struct ChosenDevice {
    /// The device.
    pub device: Device,
    /// Its name, which asks for exactly this device: `cpu`, `cuda:0`.
    pub choice: DeviceChoice,
    /// Why `auto` chose it; none where it was asked for by name.
    pub reason: Option<String>,
}

/// Why a device that was asked for cannot be had.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DeviceError {
    /// This program was built without CUDA.
    #[error(
        "the device {choice} was asked for, but this program was built without CUDA; build it where CUDA is installed \
         with `cargo build --release -p trainer --features cuda`, or use --device cpu"
    )]
    NotCompiled {
        /// What was asked for.
        choice: DeviceChoice,
    },
    /// The device does not answer.
    #[error(
        "the device {choice} was asked for and cannot be used; `nvidia-smi` lists the devices and the driver's version; \
         without one, use --device cpu"
    )]
    Unusable {
        /// What was asked for.
        choice: DeviceChoice,
        /// What CUDA says.
        source: Box<candle_core::Error>,
    },
}

impl ChosenDevice {
    /// Makes a device ready.
    ///
    /// # Errors
    /// Where a CUDA device was asked for by name and cannot be had.
    pub fn open(choice: DeviceChoice) -> Result<Self, DeviceError> {
        let cpu = |reason| Self { device: Device::Cpu, choice: DeviceChoice::Cpu, reason };
        match choice {
            DeviceChoice::Cpu => Ok(cpu(None)),
            DeviceChoice::Cuda(_) => Ok(Self { device: cuda(choice)?, choice, reason: None }),
            DeviceChoice::Auto => {
                let choice = DeviceChoice::Cuda(0);
                Ok(match cuda(choice) {
                    Ok(device) => Self { device, choice, reason: Some("the first CUDA device".to_owned()) },
                    Err(DeviceError::NotCompiled { .. }) => cpu(Some("this program was built without CUDA".to_owned())),
                    Err(DeviceError::Unusable { source, .. }) => {
                        cpu(Some(format!("no CUDA device can be used: {source}")))
                    }
                })
            }
        }
    }

    /// What measures and computes, for cards and reports: `candle cpu`.
    pub fn engine(&self) -> String {
        format!("candle {}", self.choice)
    }
}

fn cuda(choice: DeviceChoice) -> Result<Device, DeviceError> {
    let DeviceChoice::Cuda(number) = choice else { unreachable!("only CUDA devices are opened here") };
    if !candle_core::utils::cuda_is_available() {
        return Err(DeviceError::NotCompiled { choice });
    }
    Device::new_cuda(number).map_err(|source| DeviceError::Unusable { choice, source: Box::new(source) })
}

#[cfg(all(test, not(feature = "cuda")))]
mod tests {
    use super::*;

    #[test]
    fn cuda_by_name_never_falls_back() {
        let error = ChosenDevice::open(DeviceChoice::Cuda(1)).expect_err("no CUDA in this build");
        let message = error.to_string();
        assert!(message.contains("cuda:1") && message.contains("--features cuda"), "{message}");
    }

    #[test]
    fn auto_says_what_it_chose_and_why() {
        let chosen = ChosenDevice::open(DeviceChoice::Auto).expect("the CPU");
        assert_eq!((chosen.choice, chosen.engine().as_str()), (DeviceChoice::Cpu, "candle cpu"));
        assert!(chosen.reason.expect("auto has one").contains("without CUDA"));
    }
}
