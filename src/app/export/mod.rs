//! Views as files: a figure is made once, by window and command line alike, and written as PNG, SVG or CSV.

pub mod figure;
mod listing;
mod png;
mod raster;
pub mod records;
mod svg;
pub mod table;
pub mod views;

pub use figure::{Bar, Chart, Draft, Drawing, Figure, Label, Matrix, Still, THRESHOLD};
pub use table::Table;

use crate::imaging::draw::encode_png;
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

/// Writes a figure in the format that the file's name ends with; plots are `size` pixels large, pictures and lists their
/// own.
///
/// # Errors
/// An unknown ending, no graphics adapter (PNG of pictures and plots), or a file that cannot be written.
pub fn write(figure: &Figure, path: &Path, size: (u32, u32)) -> Result<(), String> {
    let Figure { title, drawing, table } = figure;
    let bytes = match (Format::of(path)?, drawing) {
        (Format::Csv, _) => Ok(table.text().to_owned().into_bytes()),
        (Format::Png, Some(drawing)) => png::bytes(title, drawing, size),
        (Format::Png, None) => encode_png(&listing::picture(title, table)).map_err(|e| e.to_string()),
        (Format::Svg, Some(drawing)) => svg::text(title, drawing, size).map(String::into_bytes),
        (Format::Svg, None) => Ok(listing::svg(title, table).into_bytes()),
    };
    let bytes = bytes.map_err(|error| format!("{error}: {}", path.display()))?;
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
    fn a_list_is_written_as_csv_and_drawn_as_one() {
        let folder = tempfile::tempdir().unwrap();
        let mut table = Table::new(&["a", "b"]);
        table.row(&[&1, &"x, y"]);
        let figure = Figure { title: "numbers".into(), drawing: None, table };
        let path = folder.path().join("t.csv");
        write(&figure, &path, PLOT).unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "a,b\r\n1,\"x, y\"\r\n");
        let drawn = |name: &str| {
            let path = folder.path().join(name);
            write(&figure, &path, PLOT).unwrap();
            std::fs::read(path).unwrap()
        };
        assert!(String::from_utf8(drawn("t.svg")).unwrap().contains(">x, y</text>"));
        assert!(drawn("t.png").starts_with(b"\x89PNG"));
        let nowhere = write(&figure, &folder.path().join("none/t.csv"), PLOT).unwrap_err();
        assert!(nowhere.contains("none/t.csv"), "{nowhere}");
    }
}
