//! Where the network runs.

use candle_core::Device;
use models::Precision;

use crate::DeviceChoice;

/// A device that is ready, and what was chosen.
#[derive(Clone, Debug)]
pub struct ChosenDevice {
    /// The device.
    pub device: Device,
    /// Its name, which asks for exactly this device: `cpu`, `cuda:0`.
    pub choice: DeviceChoice,
    /// How exactly it computes convolutions.
    pub precision: Precision,
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
    /// The device does not compute in a precision.
    #[error(
        "the precision {precision} was asked for, and the device {choice} does not compute in it: tf32 and bf16 need a \
         CUDA device of compute capability 8.0 (Ampere) or above, named by --device; here, use --precision f32"
    )]
    Precision {
        /// What was asked for.
        precision: Precision,
        /// The device.
        choice: DeviceChoice,
    },
}

impl ChosenDevice {
    /// Makes a device ready, for the given precision or for its own default.
    ///
    /// # Errors
    /// Where a CUDA device was asked for by name and cannot be had, or the device does not compute in the precision.
    pub fn open(choice: DeviceChoice, precision: Option<Precision>) -> Result<Self, DeviceError> {
        let (device, choice, reason) = device(choice)?;
        let precision = match precision {
            None => Precision::default_of(&device),
            Some(precision) if precision.is_available_on(&device) => precision,
            Some(precision) => return Err(DeviceError::Precision { precision, choice }),
        };
        Ok(Self { device, choice, precision, reason })
    }

    /// What measures and computes, for cards and reports: `candle cpu`, `candle cuda:0 tf32`.
    pub fn engine(&self) -> String {
        match self.choice {
            DeviceChoice::Cuda(_) => format!("candle {} {}", self.choice, self.precision),
            DeviceChoice::Cpu | DeviceChoice::Auto => format!("candle {}", self.choice),
        }
    }
}

/// The device, its name, and why `auto` chose it.
fn device(choice: DeviceChoice) -> Result<(Device, DeviceChoice, Option<String>), DeviceError> {
    let cpu = |reason| (Device::Cpu, DeviceChoice::Cpu, reason);
    match choice {
        DeviceChoice::Cpu => Ok(cpu(None)),
        DeviceChoice::Cuda(_) => Ok((cuda(choice)?, choice, None)),
        DeviceChoice::Auto => {
            let choice = DeviceChoice::Cuda(0);
            match cuda(choice) {
                Ok(device) => Ok((device, choice, Some("the first CUDA device".to_owned()))),
                Err(DeviceError::NotCompiled { .. }) => Ok(cpu(Some("this program was built without CUDA".to_owned()))),
                Err(DeviceError::Unusable { source, .. }) => {
                    Ok(cpu(Some(format!("no CUDA device can be used: {source}"))))
                }
                Err(error) => Err(error),
            }
        }
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
        let error = ChosenDevice::open(DeviceChoice::Cuda(1), None).expect_err("no CUDA in this build");
        let message = error.to_string();
        assert!(message.contains("cuda:1") && message.contains("--features cuda"), "{message}");
    }

    #[test]
    fn auto_says_what_it_chose_and_why() {
        let chosen = ChosenDevice::open(DeviceChoice::Auto, None).expect("the CPU");
        assert_eq!((chosen.choice, chosen.engine().as_str()), (DeviceChoice::Cpu, "candle cpu"));
        assert!(chosen.reason.expect("auto has one").contains("without CUDA"));
    }

    #[test]
    fn the_cpu_computes_in_f32_and_says_so() {
        for (precision, choice) in [(Precision::Tf32, DeviceChoice::Cpu), (Precision::Bf16, DeviceChoice::Auto)] {
            let message = ChosenDevice::open(choice, Some(precision)).expect_err("f32 only").to_string();
            assert!(message.contains(&precision.to_string()) && message.contains("--precision f32"), "{message}");
        }
        for precision in [None, Some(Precision::F32)] {
            let chosen = ChosenDevice::open(DeviceChoice::Cpu, precision).expect("the CPU");
            assert_eq!(chosen.precision, Precision::F32);
        }
    }
}
