//! The program: the window when started with paths or nothing, otherwise one of the commands.

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> std::process::ExitCode {
    // `boxwright … | head` ends quietly instead of with a message about a broken pipe.
    #[cfg(unix)]
    // SAFETY: called before any thread starts, with a disposition that the system defines.
    unsafe {
        libc::signal(libc::SIGPIPE, libc::SIG_DFL);
    }
    boxwright::cli::run()
}
