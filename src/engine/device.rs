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

    /// Opens several devices, in order.
    ///
    /// # Errors
    /// The first sentence that says what is missing.
    pub fn open_all(choices: &[Self]) -> Result<Vec<Device>, String> {
        choices.iter().map(|choice| choice.open()).collect()
    }
}

fn cuda(index: usize) -> Result<Device, String> {
    let refused = |why: String| format!("cuda:{index}: {why}, or use --device cpu");
    load_cuda().map_err(refused)?;
    // One stream for all threads: what one thread starts is done before what another starts after it.
    let device = Device::new_cuda_with_stream(index);
    let device = device.map_err(|error| refused(format!("the device does not open ({error}); check nvidia-smi")))?;
    #[cfg(feature = "cuda")]
    if let Device::Cuda(cuda) = &device {
        // SAFETY: a device has this one stream, and what crosses devices is waited for.
        unsafe { cuda.disable_event_tracking() };
        keep_memory(index);
    }
    Ok(device)
}

/// Lets the driver keep freed memory for the next allocation. Left alone it gives it back whenever a result is waited
/// for, and maps it anew for the next iteration. Where a driver has no pools, nothing changes.
#[cfg(feature = "cuda")]
fn keep_memory(index: usize) {
    use candle_core::cuda_backend::cudarc::driver::result::{device, mem_pool};
    use candle_core::cuda_backend::cudarc::driver::sys::CUmemPool_attribute::CU_MEMPOOL_ATTR_RELEASE_THRESHOLD;
    let mut most = u64::MAX;
    let Ok(device) = device::get(index as i32) else { return };
    // SAFETY: the device was just opened, and the attribute is a u64.
    let _ = unsafe { device::get_default_mem_pool(device) }.and_then(|pool| unsafe {
        mem_pool::set_attribute(pool, CU_MEMPOOL_ATTR_RELEASE_THRESHOLD, (&raw mut most).cast())
    });
}

/// Makes CUDA's functions callable.
///
/// # Errors
/// A sentence that says what is missing.
#[cfg(feature = "cuda")]
pub(super) fn load_cuda() -> Result<(), String> {
    // Elsewhere they are linked, and without them the program would not have started.
    #[cfg(not(all(target_os = "linux", target_arch = "x86_64")))]
    let missing: &[String] = &[];
    #[cfg(all(target_os = "linux", target_arch = "x86_64"))]
    let missing = super::cuda_libraries::load();
    if missing.is_empty() { Ok(()) } else { Err(not_loaded(missing)) }
}

#[cfg(not(feature = "cuda"))]
pub(super) fn load_cuda() -> Result<(), String> {
    Err("this program was built without CUDA; build it with `cargo build --release --features cuda`".into())
}

/// What to do about libraries that cannot be loaded.
#[cfg(any(feature = "cuda", test))]
fn not_loaded(missing: &[String]) -> String {
    let (libraries, them) = if missing.len() == 1 { ("library", "it") } else { ("libraries", "them") };
    format!(
        "the {libraries} {} cannot be loaded; install {them} or name the folder in LD_LIBRARY_PATH",
        missing.join(", ")
    )
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

/// A message with what to do about a GPU that is full, where it tells of one.
pub fn explained(message: String) -> String {
    // The driver's words, and those of the libraries that ask it for memory.
    let full = ["CUDA_ERROR_OUT_OF_MEMORY", "CUDNN_STATUS_ALLOC_FAILED", "CUBLAS_STATUS_ALLOC_FAILED"];
    if !full.iter().any(|word| message.contains(word)) {
        return message;
    }
    format!(
        "{message}: the GPU has no room left for this. Smaller pictures, 16 bits (--precision bf16) or, in training, a \
         smaller batch (--set batch=N) need less; close what else runs on it, or use --device cpu"
    )
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
    fn a_full_gpu_is_explained_and_nothing_else() {
        let full = "training: DriverError(CUDA_ERROR_OUT_OF_MEMORY, \"out of memory\")";
        let told = explained(full.to_string());
        assert!(told.starts_with(full) && told.contains("--set batch=N"), "{told}");
        assert_eq!(explained("no such file".to_string()), "no such file");
    }

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

    #[test]
    fn libraries_that_are_missing_are_named_in_one_sentence() {
        let missing = ["libcuda.so.1 (the NVIDIA driver)".to_string(), "libcublas.so.13 (cuBLAS)".to_string()];
        let text = not_loaded(&missing);
        assert!(text.contains("libraries libcuda.so.1 (the NVIDIA driver), libcublas.so.13 (cuBLAS) cannot"), "{text}");
        let text = not_loaded(&missing[..1]);
        assert!(text.contains("library libcuda.so.1 (the NVIDIA driver) cannot be loaded; install it"), "{text}");
        assert!(!text.contains('\n'));
    }
}
