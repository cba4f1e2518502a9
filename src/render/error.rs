//! What can go wrong when drawing: no device, sizes the device refuses, a shader that does not compile.

/// Everything that drawing, shaders and reading pictures back can report.
#[derive(Debug, thiserror::Error)]
pub enum RenderError {
    #[error(
        "no graphics adapter: {0}; install a Vulkan or OpenGL driver (on Linux, Mesa's lavapipe and llvmpipe draw in \
         software)"
    )]
    NoAdapter(String),

    #[error("the graphics adapter {adapter} gave no device: {message}")]
    NoDevice { adapter: String, message: String },

    #[error("the target's format {0} encodes colours itself; valid are Rgba8Unorm and Bgra8Unorm")]
    Format(String),

    #[error("{what} of {width} × {height} pixels; the device takes 1 to {limit} on a side")]
    Size { what: &'static str, width: u32, height: u32, limit: u32 },

    #[error("{what} need {bytes} bytes; the device takes at most {limit} in one buffer")]
    TooLarge { what: &'static str, bytes: u64, limit: u64 },

    #[error("{what} of {width} × {height} needs {expected} numbers, got {found}")]
    Length { what: &'static str, width: u32, height: u32, expected: u64, found: u64 },

    #[error("{count} {what}; at most {limit} can be drawn at once")]
    TooMany { what: &'static str, count: usize, limit: usize },

    #[error("shader does not compile: {message}\n{file}:{line}")]
    Shader { message: String, file: String, line: u32 },

    #[error("shader import {import}; valid names are {valid}\n{file}:{line}")]
    Import { import: String, valid: String, file: String, line: u32 },

    #[error("there is no shader named {name}; valid names are {valid}")]
    UnknownShader { name: String, valid: String },

    #[error("the graphics device refused {what}: {message}")]
    Device { what: String, message: String },

    #[error("the graphics device did not finish a picture within {seconds} s")]
    Timeout { seconds: u64 },
}
