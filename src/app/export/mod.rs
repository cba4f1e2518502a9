//! Views as files: a figure is made once, by window and command line alike, and written as PNG, SVG or CSV.

pub mod figure;
mod png;
mod raster;
pub mod records;
mod svg;
pub mod table;
pub mod views;

pub use figure::{Bar, Chart, Drawing, Figure, Label, Matrix, Still, THRESHOLD};
pub use table::Table;

use std::path::Path;

/// What a figure can be written as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// Pixels, as seen.
    Png,
    /// Shapes and text, with the picture inside.
    Svg,
    /// The numbers behind it.
    Csv,
}

impl Format {
    pub const ALL: [Self; 3] = [Self::Png, Self::Svg, Self::Csv];

    pub fn name(self) -> &'static str {
        match self {
            Self::Png => "PNG",
            Self::Svg => "SVG",
            Self::Csv => "CSV",
        }
    }

    /// What its file names end with.
    pub fn ending(self) -> &'static str {
        match self {
            Self::Png => "png",
            Self::Svg => "svg",
            Self::Csv => "csv",
        }
    }

    /// The format that a file's name asks for.
    ///
    /// # Errors
    /// A sentence, for any other ending.
    pub fn of(path: &Path) -> Result<Self, String> {
        let ending = path.extension().map(|e| e.to_string_lossy().to_ascii_lowercase()).unwrap_or_default();
        let known = Self::ALL.into_iter().find(|format| format.ending() == ending);
        known.ok_or_else(|| format!("a view is written as .png, .svg or .csv, not as .{ending}: {}", path.display()))
    }
}

/// Width and height of a plot that nobody chose a size for, pixels.
pub const PLOT: (u32, u32) = (960, 540);

/// Writes a figure in the format that the file's name ends with; plots are `size` pixels large, pictures their own.
///
/// # Errors
/// An unknown ending, a figure that is a table alone where a drawing is asked for, no graphics adapter (PNG of pictures
/// and plots), or a file that cannot be written.
pub fn write(figure: &Figure, path: &Path, size: (u32, u32)) -> Result<(), String> {
    let drawing = || {
        let missing = || format!("{} is a table: write it as .csv", figure.title);
        figure.drawing.as_ref().ok_or_else(missing)
    };
    let bytes = match Format::of(path)? {
        Format::Png => png::bytes(&figure.title, drawing()?, size)?,
        Format::Svg => svg::text(&figure.title, drawing()?, size)?.into_bytes(),
        Format::Csv => figure.table.text().to_owned().into_bytes(),
    };
    crate::weights::write_atomically(path, &bytes).map_err(|e| e.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ending_decides_and_others_are_refused() {
        assert_eq!(Format::of(Path::new("a/B.SVG")), Ok(Format::Svg));
        for name in ["a.jpg", "a", ""] {
            assert!(Format::of(Path::new(name)).unwrap_err().contains(".png, .svg or .csv"), "{name}");
        }
    }

    #[test]
    fn a_table_is_written_as_csv_and_not_as_a_picture() {
        let folder = tempfile::tempdir().unwrap();
        let mut table = Table::new(&["a", "b"]);
        table.row(&[&1, &"x, y"]);
        let figure = Figure { title: "numbers".into(), drawing: None, table };
        let path = folder.path().join("t.csv");
        write(&figure, &path, PLOT).unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "a,b\r\n1,\"x, y\"\r\n");
        assert!(write(&figure, &folder.path().join("t.svg"), PLOT).unwrap_err().contains("is a table"));
    }
}
