//! The program: the window when started with paths or nothing, otherwise one of the commands.

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> std::process::ExitCode {
    boxwright::cli::run()
}
