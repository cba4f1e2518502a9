//! Devices by name: `cpu`, `cuda:N`, `auto`.

use candle_core::Device;
use std::fmt;
use std::str::FromStr;

/// What the user asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DeviceChoice {
    /// CUDA when it is built in and present, else the CPU.
    #[default]
    Auto,
    Cpu,
    Cuda(usize),
}

impl DeviceChoice {
    /// Opens the device.
    ///
    /// # Errors
    /// A sentence that says what is missing.
    pub fn open(self) -> Result<Device, String> {
        match self {
            Self::Cpu => Ok(Device::Cpu),
            Self::Auto => Ok(cuda(0).unwrap_or(Device::Cpu)),
            Self::Cuda(index) => cuda(index),
        }
    }
}

#[cfg(feature = "cuda")]
fn cuda(index: usize) -> Result<Device, String> {
    // A missing driver library makes the loader panic: that is a sentence here, not a crash.
    let quiet = std::panic::take_hook();
    std::panic::set_hook(Box::new(|_| ()));
    let opened = std::panic::catch_unwind(|| Device::new_cuda(index));
    std::panic::set_hook(quiet);
    match opened {
        Ok(Ok(device)) => Ok(device),
        Ok(Err(error)) => Err(format!("cuda:{index} does not open ({error}); check nvidia-smi, or use --device cpu")),
        Err(_) => {
            Err(format!("cuda:{index}: the CUDA driver library is missing; install the driver, or use --device cpu"))
        }
    }
}

#[cfg(not(feature = "cuda"))]
fn cuda(index: usize) -> Result<Device, String> {
    Err(format!(
        "cuda:{index}: this program was built without CUDA; build it with `cargo build --release --features cuda`, or use --device cpu"
    ))
}

impl FromStr for DeviceChoice {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let number =
            text.strip_prefix("cuda").map(|n| n.strip_prefix(':').unwrap_or(if n.is_empty() { "0" } else { "?" }));
        match (text, number.map(str::parse)) {
            ("auto", _) => Ok(Self::Auto),
            ("cpu", _) => Ok(Self::Cpu),
            (_, Some(Ok(index))) => Ok(Self::Cuda(index)),
            _ => Err(format!("{text:?} is no device; there are: auto, cpu, cuda:0, cuda:1, …")),
        }
    }
}

impl fmt::Display for DeviceChoice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Auto => f.write_str("auto"),
            Self::Cpu => f.write_str("cpu"),
            Self::Cuda(index) => write!(f, "cuda:{index}"),
        }
    }
}

/// The name of an opened device.
pub fn device_name(device: &Device) -> String {
    match device.location() {
        candle_core::DeviceLocation::Cpu => "cpu".into(),
        candle_core::DeviceLocation::Cuda { gpu_id } => format!("cuda:{gpu_id}"),
        candle_core::DeviceLocation::Metal { gpu_id } => format!("metal:{gpu_id}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_round_trip_and_nonsense_is_refused() {
        for name in ["auto", "cpu", "cuda:3"] {
            assert_eq!(name.parse::<DeviceChoice>().unwrap().to_string(), name);
        }
        assert_eq!("cuda".parse(), Ok(DeviceChoice::Cuda(0)));
        for name in ["gpu", "cuda:", "cuda:x", "cuda3"] {
            assert!(name.parse::<DeviceChoice>().is_err(), "{name}");
        }
        assert!(DeviceChoice::Auto.open().is_ok());
    }

    #[test]
    #[cfg(not(feature = "cuda"))]
    fn a_build_without_cuda_says_so() {
        let reason = DeviceChoice::Cuda(0).open().unwrap_err();
        assert!(reason.contains("without CUDA") && reason.contains("--features cuda"), "{reason}");
        assert!(matches!(DeviceChoice::Auto.open(), Ok(Device::Cpu)));
    }
}
