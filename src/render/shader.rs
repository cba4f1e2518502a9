//! WGSL sources: built in for release, read from `shaders/` and re-read when they change in debug builds; `#import`.

use super::context::wait_for;
use super::error::RenderError;
use std::borrow::Cow;
use std::path::PathBuf;
use std::time::{Duration, Instant, SystemTime};

macro_rules! embedded {
    ($($name:literal),* $(,)?) => {
        &[$(($name, include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/shaders/", $name)))),*]
    };
}

/// Every shader by file name, as it was when the program was built.
const EMBEDDED: &[(&str, &str)] = embedded![
    "bars.wgsl",
    "boxes.wgsl",
    "colormap.wgsl",
    "curves.wgsl",
    "heatmap.wgsl",
    "histogram.wgsl",
    "image.wgsl",
    "plot.wgsl",
    "reduce.wgsl",
    "view.wgsl",
];

/// Files are looked at no more often than this.
const POLL_INTERVAL: Duration = Duration::from_millis(300);

/// The shaders' texts.
///
/// A line `#import "name.wgsl"` stands for that file's text; a file is taken once, at its first import.
#[derive(Clone, Debug)]
pub struct ShaderLibrary {
    sources: Vec<Source>,
    folder: Option<PathBuf>,
    polled: Option<Instant>,
}

#[derive(Clone, Debug)]
struct Source {
    name: &'static str,
    text: Cow<'static, str>,
    /// Time of change and length of the file that `text` was read from.
    stamp: Option<(SystemTime, u64)>,
}

/// A shader with its imports in place.
#[derive(Clone, Debug, Default)]
pub struct Assembled {
    pub text: String,
    /// File and line of each line of `text`.
    lines: Vec<(&'static str, u32)>,
}

impl Assembled {
    /// File and line that line `line` (from 1) of `text` came from.
    pub fn origin(&self, line: u32) -> Option<(&'static str, u32)> {
        let index = usize::try_from(line).ok()?.checked_sub(1)?;
        self.lines.get(index).copied()
    }
}

impl Default for ShaderLibrary {
    /// Debug builds read the source tree's `shaders/` when it is there; release builds use what is built in.
    fn default() -> Self {
        if cfg!(debug_assertions) {
            Self::from_folder(PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/shaders")))
        } else {
            Self::embedded()
        }
    }
}

impl ShaderLibrary {
    /// The texts that were built in; they never change.
    pub fn embedded() -> Self {
        let sources =
            EMBEDDED.iter().map(|&(name, text)| Source { name, text: Cow::Borrowed(text), stamp: None }).collect();
        Self { sources, folder: None, polled: None }
    }

    /// Texts read from `folder` and watched there. A file that is missing keeps its built-in text.
    pub fn from_folder(folder: PathBuf) -> Self {
        let mut library = Self { folder: Some(folder), ..Self::embedded() };
        library.read_folder();
        library
    }

    /// File names of all shaders, imported ones too.
    pub fn names(&self) -> Vec<&'static str> {
        self.sources.iter().map(|source| source.name).collect()
    }

    /// Looks at the files, a few times a second at most; true when a text is no longer what it was.
    pub fn changed(&mut self) -> bool {
        if self.folder.is_none() || self.polled.is_some_and(|at| at.elapsed() < POLL_INTERVAL) {
            return false;
        }
        self.polled = Some(Instant::now());
        self.read_folder()
    }

    fn read_folder(&mut self) -> bool {
        let Some(folder) = &self.folder else { return false };
        let mut changed = false;
        for source in &mut self.sources {
            let path = folder.join(source.name);
            let Ok(metadata) = std::fs::metadata(&path) else {
                continue;
            };
            let stamp = metadata.modified().ok().map(|time| (time, metadata.len()));
            if stamp.is_some() && stamp == source.stamp {
                continue;
            }
            // An editor may be half way through writing: an unreadable file is looked at again.
            let Ok(text) = std::fs::read_to_string(&path) else {
                continue;
            };
            source.stamp = stamp;
            if source.text != text {
                source.text = Cow::Owned(text);
                changed = true;
            }
        }
        changed
    }

    /// A shader's text with its imports in place.
    ///
    /// # Errors
    /// [`RenderError::UnknownShader`]; [`RenderError::Import`] with the file and line of the import.
    pub fn assemble(&self, name: &str) -> Result<Assembled, RenderError> {
        let source = self
            .source(name)
            .ok_or_else(|| RenderError::UnknownShader { name: name.to_owned(), valid: self.names().join(", ") })?;
        let mut assembled = Assembled::default();
        let mut taken = Vec::new();
        self.append(source, &mut taken, &mut assembled)?;
        Ok(assembled)
    }

    fn source(&self, name: &str) -> Option<&Source> {
        self.sources.iter().find(|source| source.name == name)
    }

    /// A file is marked as taken before its imports are followed, so a circle of imports ends.
    fn append(
        &self,
        source: &Source,
        taken: &mut Vec<&'static str>,
        assembled: &mut Assembled,
    ) -> Result<(), RenderError> {
        taken.push(source.name);
        for (index, line) in source.text.lines().enumerate() {
            let number = u32::try_from(index + 1).unwrap_or(u32::MAX);
            let Some(rest) = line.trim_start().strip_prefix("#import") else {
                assembled.text.push_str(line);
                assembled.text.push('\n');
                assembled.lines.push((source.name, number));
                continue;
            };
            let quoted = rest.trim();
            let imported = quoted.strip_prefix('"').and_then(|rest| rest.strip_suffix('"'));
            let found = imported.and_then(|name| self.source(name)).ok_or_else(|| RenderError::Import {
                import: quoted.to_owned(),
                valid: self.names().join(", "),
                file: source.name.to_owned(),
                line: number,
            })?;
            if !taken.contains(&found.name) {
                self.append(found, taken, assembled)?;
            }
        }
        Ok(())
    }

    /// Compiles a shader.
    ///
    /// # Errors
    /// Those of [`assemble`](Self::assemble), and [`RenderError::Shader`] with the compiler's words and the file and
    /// line they are about.
    pub fn compile(&self, device: &wgpu::Device, name: &str) -> Result<wgpu::ShaderModule, RenderError> {
        let assembled = self.assemble(name)?;
        let scope = device.push_error_scope(wgpu::ErrorFilter::Validation);
        let module = device.create_shader_module(wgpu::ShaderModuleDescriptor {
            label: Some(name),
            source: wgpu::ShaderSource::Wgsl(Cow::Borrowed(assembled.text.as_str())),
        });
        let error = wait_for(scope.pop());
        let information = wait_for(module.get_compilation_info());
        let worst =
            information.messages.iter().find(|message| message.message_type == wgpu::CompilationMessageType::Error);
        if let Some(message) = worst {
            let origin = message.location.and_then(|location| assembled.origin(location.line_number));
            let (file, line) = origin.unwrap_or(("", 0));
            let file = if file.is_empty() { name } else { file };
            return Err(RenderError::Shader { message: message.message.clone(), file: file.to_owned(), line });
        }
        match error {
            Some(error) => Err(RenderError::Shader { message: error.to_string(), file: name.to_owned(), line: 0 }),
            None => Ok(module),
        }
    }
}

/// How a uniform struct lies in memory in Rust; a test compares it with the WGSL struct of the same meaning.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Twin {
    /// File that declares the WGSL struct.
    pub shader: &'static str,
    /// Name of the WGSL struct.
    pub name: &'static str,
    /// Bytes.
    pub size: usize,
    /// Name and byte offset of every member that is no padding.
    pub members: Vec<(&'static str, usize)>,
}

/// The [`Twin`] of a `#[repr(C)]` struct: type, shader file, WGSL name, members.
macro_rules! describe_twin {
    ($rust:ty, $shader:literal, $name:literal, [$($member:ident),* $(,)?]) => {
        $crate::render::shader::Twin {
            shader: $shader,
            name: $name,
            size: std::mem::size_of::<$rust>(),
            members: vec![$((stringify!($member), std::mem::offset_of!($rust, $member))),*],
        }
    };
}
pub(super) use describe_twin;

#[cfg(test)]
mod tests {
    use super::*;

    fn library(texts: &[(&'static str, &'static str)]) -> ShaderLibrary {
        let sources =
            texts.iter().map(|&(name, text)| Source { name, text: Cow::Borrowed(text), stamp: None }).collect();
        ShaderLibrary { sources, folder: None, polled: None }
    }

    #[test]
    fn an_import_is_taken_once_and_lines_know_where_they_came_from() {
        let library = library(&[
            ("a", "// a1\n#import \"b\"\n#import \"c\"\n// a4\n"),
            ("b", "// b1\n  #import \"c\"\n// b3"),
            ("c", "// c1\n"),
        ]);
        let assembled = library.assemble("a").unwrap();
        assert_eq!(assembled.text, "// a1\n// b1\n// c1\n// b3\n// a4\n");
        let origins: Vec<_> = (1..=5).map(|line| assembled.origin(line).unwrap()).collect();
        assert_eq!(origins, [("a", 1), ("b", 1), ("c", 1), ("b", 3), ("a", 4)]);
        assert_eq!(assembled.origin(0), None);
        assert_eq!(assembled.origin(6), None);
    }

    #[test]
    fn a_circle_of_imports_ends() {
        let library = library(&[("a", "#import \"b\"\n// a"), ("b", "#import \"a\"\n// b")]);
        assert_eq!(library.assemble("a").unwrap().text, "// b\n// a\n");
    }

    #[test]
    fn errors_name_file_and_line() {
        let library = library(&[("a", "// fine\n#import \"nowhere\"\n"), ("b", "#import c\n")]);
        let error = library.assemble("a").unwrap_err();
        assert!(matches!(&error, RenderError::Import { file, line: 2, .. } if file == "a"), "{error}");
        assert!(error.to_string().contains("nowhere"));
        assert!(matches!(library.assemble("b").unwrap_err(), RenderError::Import { line: 1, .. }));
        assert!(matches!(library.assemble("c").unwrap_err(), RenderError::UnknownShader { .. }));
    }

    #[test]
    fn a_changed_file_is_noticed_once_and_a_missing_one_keeps_its_text() {
        let folder = tempfile::tempdir().unwrap();
        let mut library = ShaderLibrary::from_folder(folder.path().to_owned());
        assert_eq!(library.assemble("plot.wgsl").unwrap().text, {
            ShaderLibrary::embedded().assemble("plot.wgsl").unwrap().text
        });
        std::fs::write(folder.path().join("plot.wgsl"), "// new\n").unwrap();
        assert!(library.changed());
        assert_eq!(library.assemble("plot.wgsl").unwrap().text, "// new\n");
        // Too soon: files are not looked at in every frame.
        std::fs::write(folder.path().join("plot.wgsl"), "// newer text\n").unwrap();
        assert!(!library.changed());
        assert!(library.read_folder());
        assert!(!library.read_folder());
    }

    #[test]
    fn built_in_texts_are_those_of_the_source_tree() {
        let folder = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/shaders"));
        let mut files: Vec<String> = std::fs::read_dir(folder)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .filter(|name| name.ends_with(".wgsl"))
            .collect();
        files.sort();
        assert_eq!(ShaderLibrary::embedded().names(), files, "a shader is missing from the list or from the folder");
    }
}
