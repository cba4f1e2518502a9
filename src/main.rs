//! The program: the window when started with paths or nothing, otherwise one of the commands.

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

unsafe extern "C" {
    /// Of mimalloc, which this program is linked with.
    fn mi_option_set(option: std::ffi::c_int, value: std::ffi::c_long);
}

/// mimalloc's `mi_option_purge_delay`: milliseconds before free memory goes back to the system.
const PURGE_DELAY: std::ffi::c_int = 15;

fn main() -> std::process::ExitCode {
    // `boxwright … | head` ends quietly instead of with a message about a broken pipe.
    #[cfg(unix)]
    // SAFETY: called before any thread starts, with a disposition that the system defines.
    unsafe {
        libc::signal(libc::SIGPIPE, libc::SIG_DFL);
    }
    // Every iteration frees and takes the same large maps: given back after the default 10 ms, their pages would have to
    // be zeroed by the system each time.
    // SAFETY: a documented option with a plain value.
    unsafe {
        mi_option_set(PURGE_DELAY, 60_000);
    }
    // candle's element-wise pool spins beside the threads of the convolutions; one thread is faster on few cores.
    if std::env::var_os("CANDLE_NUM_THREADS").is_none() {
        // SAFETY: no other thread has started.
        unsafe { std::env::set_var("CANDLE_NUM_THREADS", "1") };
    }
    boxwright::cli::run()
}
