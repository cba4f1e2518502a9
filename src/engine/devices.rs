//! The devices that networks can run on, with their memory where that is known.

use super::device::DeviceChoice;

/// One device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeviceInfo {
    pub choice: DeviceChoice,
    /// What its maker calls it; "processor" for the CPU.
    pub name: String,
    /// Bytes of memory in all.
    pub memory: Option<u64>,
}

/// The CPU, and every CUDA device where CUDA is built in and its driver is there.
pub fn devices() -> Vec<DeviceInfo> {
    let mut all = vec![DeviceInfo { choice: DeviceChoice::Cpu, name: "processor".into(), memory: system_memory() }];
    all.extend(cuda_devices());
    all
}

/// Bytes of main memory, where the system says so.
fn system_memory() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/meminfo").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    let kibibytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kibibytes.checked_mul(1024)
}

#[cfg(feature = "cuda")]
fn cuda_devices() -> Vec<DeviceInfo> {
    use candle_core::cuda_backend::cudarc::driver::CudaContext;
    // A missing driver library makes the loader panic: then there are no devices, and no crash.
    let quiet = std::panic::take_hook();
    std::panic::set_hook(Box::new(|_| ()));
    let found = std::panic::catch_unwind(|| {
        let count = CudaContext::device_count().unwrap_or(0).max(0) as usize;
        let device = |index: usize| {
            let context = CudaContext::new(index).ok()?;
            let name = context.name().unwrap_or_else(|_| "CUDA device".into());
            let memory = context.total_mem().ok().map(|bytes| bytes as u64);
            Some(DeviceInfo { choice: DeviceChoice::Cuda(index), name, memory })
        };
        (0..count).filter_map(device).collect()
    });
    std::panic::set_hook(quiet);
    found.unwrap_or_default()
}

#[cfg(not(feature = "cuda"))]
fn cuda_devices() -> Vec<DeviceInfo> {
    Vec::new()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_processor_comes_first_and_has_memory_on_linux() {
        let all = devices();
        assert_eq!(all[0].choice, DeviceChoice::Cpu);
        if cfg!(target_os = "linux") {
            assert!(all[0].memory.is_some_and(|bytes| bytes > 1 << 20), "{all:?}");
        }
    }
}
