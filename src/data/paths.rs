//! Names that data files give for other files: they may never leave the folder they are meant for.

use std::path::{Component, Path, PathBuf};

/// `folder` joined with `name`, or nothing when `name` is empty, absolute, climbs with `..` or holds a NUL.
///
/// A backslash counts as a separator on every system, because lists written on Windows are read elsewhere.
pub(super) fn inside(folder: &Path, name: &str) -> Option<PathBuf> {
    if name.contains('\0') {
        return None;
    }
    let name = name.replace('\\', "/");
    let mut joined = folder.to_path_buf();
    let mut named = false;
    for component in Path::new(&name).components() {
        match component {
            Component::Normal(part) => {
                // "C:" is a drive on Windows and a plain name elsewhere.
                if part.to_string_lossy().ends_with(':') {
                    return None;
                }
                joined.push(part);
                named = true;
            }
            Component::CurDir => {}
            Component::ParentDir | Component::RootDir | Component::Prefix(_) => return None,
        }
    }
    named.then_some(joined)
}

/// The same for a bare name without any folder in it, as an entry of a split list.
pub(super) fn is_bare_name(name: &str) -> bool {
    !name.is_empty() && name != "." && name != ".." && !name.contains(['/', '\\', '\0', ':'])
}

/// The last part of a path, for people.
pub(super) fn file_name(path: &Path) -> String {
    match path.file_name() {
        Some(name) => name.to_string_lossy().into_owned(),
        None => path.display().to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_leave_the_folder_are_refused() {
        let folder = Path::new("set/images");
        for name in ["", ".", "../a.jpg", "a/../../b.jpg", "/etc/passwd", "..\\a.jpg", "C:\\a.jpg", "a\0.jpg"] {
            assert_eq!(inside(folder, name), None, "{name:?}");
        }
        assert_eq!(inside(folder, "a.jpg"), Some(PathBuf::from("set/images/a.jpg")));
        assert_eq!(inside(folder, "./train\\a..b.jpg"), Some(PathBuf::from("set/images/train/a..b.jpg")));
    }

    #[test]
    fn a_bare_name_has_no_folder() {
        assert!(is_bare_name("BloodImage_00000") && is_bare_name("a b..c"));
        assert!(!["", "..", "a/b", "a\\b", "C:x"].iter().any(|name| is_bare_name(name)));
    }
}
