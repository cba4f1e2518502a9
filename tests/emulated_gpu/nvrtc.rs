//! NVRTC: programs are compiled by `nvcc -ptx`, which is the file that `NVCC` names or the one on the path.
//!
//! Refused are options that NVRTC does not know, those that nvcc does not, headers, and reading what is not compiled.
//! nvcc declares more than NVRTC does, so what compiles here may lack a declaration there.

use crate::complain;
use std::ffi::{CStr, OsString, c_char, c_void};
use std::fs::DirBuilder;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};

const SUCCESS: i32 = 0;
const INVALID_INPUT: i32 = 3;
const INVALID_PROGRAM: i32 = 4;
const INVALID_OPTION: i32 = 5;
const COMPILATION: i32 = 6;

/// Options of both compilers: with true or false, with a value, and alone.
const SWITCHES: &str = "fmad ftz prec-div prec-sqrt";
const VALUED: &str = "gpu-architecture arch std maxrregcount include-path define-macro undefine-macro";
const PLAIN: &str = "use_fast_math generate-line-info lineinfo extra-device-vectorization";

pub struct Program {
    source: Vec<u8>,
    /// With its final zero, where the last compilation succeeded.
    ptx: Option<Vec<u8>>,
    /// With its final zero.
    log: Vec<u8>,
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvrtcCreateProgram(
    program: *mut *mut Program,
    source: *const c_char,
    _name: *const c_char,
    headers: i32,
    _contents: *const c_void,
    _names: *const c_void,
) -> i32 {
    if program.is_null() || source.is_null() || headers != 0 {
        complain(format_args!("nvrtcCreateProgram: no program, or headers, which are not emulated"));
        return INVALID_INPUT;
    }
    // SAFETY: the caller's text, which ends in a zero.
    let source = unsafe { CStr::from_ptr(source) }.to_bytes().to_vec();
    let made = Program { source, ptx: None, log: vec![0] };
    // SAFETY: the caller's place for a program.
    unsafe { *program = Box::into_raw(Box::new(made)) };
    SUCCESS
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvrtcDestroyProgram(program: *mut *mut Program) -> i32 {
    // SAFETY: null, or the caller's place of a program.
    let Some(&own) = (unsafe { program.as_ref() }) else { return INVALID_PROGRAM };
    if own.is_null() {
        return INVALID_PROGRAM;
    }
    // SAFETY: made by `nvrtcCreateProgram`. The place itself is left alone, which a caller may keep in constant memory.
    drop(unsafe { Box::from_raw(own) });
    SUCCESS
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvrtcCompileProgram(program: *mut Program, count: i32, options: *const *const c_char) -> i32 {
    // SAFETY: null, or made by `nvrtcCreateProgram`.
    let Some(program) = (unsafe { program.as_mut() }) else { return INVALID_PROGRAM };
    if count < 0 || (count > 0 && options.is_null()) {
        return INVALID_INPUT;
    }
    // SAFETY: the caller's texts, so many, each of which ends in a zero.
    let option = |at| unsafe { CStr::from_ptr(*options.add(at)) }.to_string_lossy().into_owned();
    let options: Vec<String> = (0..count as usize).map(option).collect();
    program.ptx = None;
    let (status, log) = match options.iter().find(|option| !is_known(option)) {
        Some(unknown) => (INVALID_OPTION, format!("nvrtc: error: invalid value or option {unknown}")),
        None => match compiled(&program.source, &options) {
            Ok((ptx, log)) => {
                program.ptx = Some(ended(ptx));
                (SUCCESS, log)
            }
            Err(log) => (COMPILATION, log),
        },
    };
    if status != SUCCESS {
        complain(format_args!("nvrtcCompileProgram: {log}"));
    }
    program.log = ended(log.into_bytes());
    status
}

/// With a final zero, and none before it.
fn ended(mut text: Vec<u8>) -> Vec<u8> {
    text.retain(|&byte| byte != 0);
    text.push(0);
    text
}

fn is_known(option: &str) -> bool {
    let within = |names: &str, name: &str| names.split(' ').any(|known| known == name);
    if ["-I", "-D", "-U"].iter().any(|short| option.strip_prefix(short).is_some_and(|value| !value.is_empty())) {
        return true;
    }
    let Some(name) = option.strip_prefix("--").or(option.strip_prefix('-')) else { return false };
    match name.split_once('=') {
        Some((name, "true" | "false")) => within(SWITCHES, name),
        Some((name, value)) => within(VALUED, name) && !value.is_empty(),
        None => within(PLAIN, name),
    }
}

/// A folder of one's own, which is gone with its contents when this is dropped.
struct Folder(PathBuf);

impl Folder {
    fn new() -> std::io::Result<Self> {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let name = format!("emulated-nvrtc-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let path = std::env::temp_dir().join(name);
        DirBuilder::new().mode(0o700).create(&path)?;
        Ok(Self(path))
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // Nothing is lost with what stays in the folder for temporary files.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// The PTX and what the compiler said, or what it said alone.
fn compiled(source: &[u8], options: &[String]) -> Result<(Vec<u8>, String), String> {
    let unwritten = |error: std::io::Error| format!("no folder for temporary files: {error}");
    let folder = Folder::new().map_err(unwritten)?;
    let path = |name: &str| folder.0.join(name);
    // As NVRTC calls a program that has no name of its own.
    let (from, to) = (path("default_program.cu"), path("default_program.ptx"));
    std::fs::write(&from, source).map_err(unwritten)?;
    let nvcc = std::env::var_os("NVCC").unwrap_or(OsString::from("nvcc"));
    let run = Command::new(&nvcc).arg("-ptx").args(options).arg(&from).arg("-o").arg(&to).output();
    let output = run.map_err(|error| {
        format!(
            "{} does not start ({error}); set NVCC to CUDA's compiler or put it on the path",
            Path::new(&nvcc).display()
        )
    })?;
    let said =
        String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).replace(&*path("").to_string_lossy(), "");
    match std::fs::read(&to) {
        Ok(ptx) if output.status.success() => Ok((ptx, said)),
        _ => Err(format!("nvcc ended with {}\n{said}", output.status)),
    }
}

/// Writes the length of what `part` finds, or the whole of it.
fn give(program: *const Program, size: *mut usize, text: *mut c_char, part: fn(&Program) -> Option<&[u8]>) -> i32 {
    // SAFETY: null, or made by `nvrtcCreateProgram`.
    let Some(program) = (unsafe { program.as_ref() }) else { return INVALID_PROGRAM };
    let Some(found) = part(program) else {
        complain(format_args!("NVRTC: what was not compiled has no PTX"));
        return INVALID_PROGRAM;
    };
    if !size.is_null() {
        // SAFETY: the caller's place for a size.
        unsafe { *size = found.len() };
    } else if !text.is_null() {
        // SAFETY: the caller has asked for the size and has room for it.
        unsafe { text.cast::<u8>().copy_from_nonoverlapping(found.as_ptr(), found.len()) };
    } else {
        return INVALID_INPUT;
    }
    SUCCESS
}

fn ptx(program: &Program) -> Option<&[u8]> {
    program.ptx.as_deref()
}

fn log(program: &Program) -> Option<&[u8]> {
    Some(&program.log)
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvrtcGetPTXSize(program: *const Program, size: *mut usize) -> i32 {
    give(program, size, std::ptr::null_mut(), ptx)
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvrtcGetPTX(program: *const Program, text: *mut c_char) -> i32 {
    give(program, std::ptr::null_mut(), text, ptx)
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvrtcGetProgramLogSize(program: *const Program, size: *mut usize) -> i32 {
    give(program, size, std::ptr::null_mut(), log)
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvrtcGetProgramLog(program: *const Program, text: *mut c_char) -> i32 {
    give(program, std::ptr::null_mut(), text, log)
}
