//! The devices that networks can run on, with their memory where that is known.

use super::device::{DeviceChoice, load_cuda};
use std::fmt;

/// One device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeviceInfo {
    pub choice: DeviceChoice,
    /// What its maker calls it; "processor" for the CPU.
    pub name: String,
    /// Bytes of memory in all.
    pub memory: Option<u64>,
    /// Bytes of it that nothing uses now.
    pub free: Option<u64>,
    /// Version of its driver.
    pub driver: Option<String>,
}

/// What there is to run on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Devices {
    /// The CPU, then the CUDA devices in their order.
    pub list: Vec<DeviceInfo>,
    /// Why there are no CUDA devices, or what is unknown about them.
    pub remark: Option<String>,
}

/// The CPU, and every CUDA device where CUDA is built in and its libraries are there.
pub fn devices() -> Devices {
    let (choice, name) = (DeviceChoice::Cpu, "processor".into());
    let memory = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let (memory, free) = (bytes_of(&memory, "MemTotal:"), bytes_of(&memory, "MemAvailable:"));
    let mut list = vec![DeviceInfo { choice, name, memory, free, driver: None }];
    let remark = add_cuda_devices(&mut list).err();
    Devices { list, remark }
}

/// A number of bytes from Linux's /proc/meminfo.
fn bytes_of(text: &str, key: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(key))?;
    let kibibytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kibibytes.checked_mul(1024)
}

/// Lists the CUDA devices too, asking the driver and NVML; no context is made on any.
///
/// # Errors
/// A sentence: why there are none, or what is unknown about those that were added.
#[cfg(feature = "cuda")]
fn add_cuda_devices(list: &mut Vec<DeviceInfo>) -> Result<(), String> {
    use candle_core::cuda_backend::cudarc::driver::result::{DriverError, device, init};
    let refused = |error: DriverError| format!("no CUDA device can be used ({error}); check nvidia-smi");
    load_cuda()?;
    init().map_err(refused)?;
    let nvml = nvml_wrapper::Nvml::init();
    let driver = nvml.as_ref().ok().and_then(|nvml| nvml.sys_driver_version().ok());
    for index in 0..device::get_count().map_err(refused)? {
        let cuda = device::get(index).map_err(refused)?;
        let name = device::get_name(cuda).unwrap_or_else(|_| "CUDA device".into());
        // The two may count devices differently; the identifier is the same.
        let memory = device::get_uuid(cuda).ok().zip(nvml.as_ref().ok()).and_then(|(id, nvml)| {
            let id = id.bytes.map(|byte| byte as u8);
            // A slice of a device has an identifier of its own.
            let device = ["GPU", "MIG"].into_iter().find_map(|kind| nvml.device_by_uuid(nvml_name(kind, id)).ok());
            device.and_then(|device| device.memory_info().ok())
        });
        // SAFETY: `cuda` is a device of the driver.
        let total = || unsafe { device::total_mem(cuda) }.ok().map(|bytes| bytes as u64);
        list.push(DeviceInfo {
            choice: DeviceChoice::Cuda(index.unsigned_abs() as usize),
            name,
            memory: memory.as_ref().map(|memory| memory.total).or_else(total),
            free: memory.as_ref().map(|memory| memory.free),
            driver: driver.clone(),
        });
    }
    match nvml {
        Ok(_) => Ok(()),
        Err(error) => Err(format!("free memory is unknown: the driver's libnvidia-ml.so.1 cannot be used ({error})")),
    }
}

#[cfg(not(feature = "cuda"))]
fn add_cuda_devices(_: &mut Vec<DeviceInfo>) -> Result<(), String> {
    load_cuda()
}

/// NVML's name of a device from its kind and CUDA's identifier.
#[cfg(any(feature = "cuda", test))]
fn nvml_name(kind: &str, id: [u8; 16]) -> String {
    let mut name = kind.to_string();
    for (at, byte) in id.iter().enumerate() {
        if [0, 4, 6, 8, 10].contains(&at) {
            name.push('-');
        }
        name += &format!("{byte:02x}");
    }
    name
}

impl fmt::Display for DeviceInfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let gibibytes = |bytes: u64| bytes as f64 / f64::from(1 << 30);
        write!(f, "{}: {}", self.choice, self.name)?;
        match (self.memory, self.free) {
            (Some(all), Some(free)) => write!(f, ", {:.1} of {:.1} GiB free", gibibytes(free), gibibytes(all))?,
            (Some(all), None) => write!(f, ", {:.1} GiB", gibibytes(all))?,
            (None, _) => {}
        }
        self.driver.iter().try_for_each(|driver| write!(f, ", driver {driver}"))
    }
}

/// A line each, then the remark.
impl fmt::Display for Devices {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.list.iter().try_for_each(|device| writeln!(f, "{device}"))?;
        self.remark.iter().try_for_each(|remark| writeln!(f, "{remark}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_processor_comes_first_and_has_memory_on_linux() {
        let found = devices();
        assert_eq!(found.list[0].choice, DeviceChoice::Cpu);
        if cfg!(target_os = "linux") {
            let DeviceInfo { memory, free, .. } = &found.list[0];
            assert!(*memory > Some(1 << 20) && *free > Some(0) && free <= memory, "{found:?}");
        }
        // Without a CUDA device something says why.
        assert!(found.list.len() > 1 || found.remark.is_some_and(|remark| remark.contains("CUDA")));
    }

    #[test]
    fn memory_is_read_by_its_key() {
        let text = "MemTotal:       16316412 kB\nMemFree:          211384 kB\nMemAvailable:   12058624 kB\n";
        assert_eq!(bytes_of(text, "MemAvailable:"), Some(12_058_624 * 1024));
        assert_eq!(bytes_of(text, "SwapTotal:"), None);
        assert_eq!(bytes_of("MemTotal: much", "MemTotal:"), None);
    }

    #[test]
    fn a_device_is_told_with_what_is_known_of_it() {
        let full = DeviceInfo {
            choice: DeviceChoice::Cuda(1),
            name: "NVIDIA H100 80GB HBM3".into(),
            memory: Some(80 << 30),
            free: Some(79 << 30),
            driver: Some("580.65.06".into()),
        };
        let told = "cuda:1: NVIDIA H100 80GB HBM3, 79.0 of 80.0 GiB free, driver 580.65.06";
        assert_eq!(full.to_string(), told);
        let without_nvml = DeviceInfo { free: None, driver: None, ..full.clone() };
        assert_eq!(without_nvml.to_string(), "cuda:1: NVIDIA H100 80GB HBM3, 80.0 GiB");
        let unknown = DeviceInfo { memory: None, ..without_nvml };
        assert_eq!(unknown.to_string(), "cuda:1: NVIDIA H100 80GB HBM3");
        let all = Devices { list: vec![unknown, full], remark: Some("free memory is unknown".into()) };
        assert_eq!(all.to_string(), format!("cuda:1: NVIDIA H100 80GB HBM3\n{told}\nfree memory is unknown\n"));
    }

    #[test]
    fn nvml_names_devices_by_cudas_identifiers() {
        let id = [0xd1, 0x0c, 0, 0x7f, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 255];
        assert_eq!(nvml_name("GPU", id), "GPU-d10c007f-0102-0304-0506-0708090a0bff");
    }
}
