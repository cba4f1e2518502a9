//! What a view is outside the window: pictures with boxes, plots, a matrix or bars, and the numbers behind them.

use super::table::Table;
use crate::app::scene::Caption;
use crate::render::{Scene, Threshold};

/// Colour of threshold lines: vermilion, told apart from the bars by everyone.
pub const THRESHOLD: [f32; 4] = [0.835, 0.369, 0.0, 1.0];

/// A view, ready to be written.
#[derive(Clone, Debug)]
pub struct Figure {
    /// For people.
    pub title: String,
    /// Nothing where the view is a list: its table is drawn.
    pub drawing: Option<Drawing>,
    pub table: Table,
}

/// A figure that the thread for files makes of what was on show when it was asked for: a long table holds up no frame.
pub type Draft = Box<dyn FnOnce() -> Figure + Send>;

/// What there is to draw.
#[derive(Clone, Debug)]
pub enum Drawing {
    /// Pictures row by row in a grid of `columns`.
    Stills {
        stills: Vec<Still>,
        columns: usize,
    },
    /// Plots row by row in a grid of `columns`.
    Charts {
        charts: Vec<Chart>,
        columns: usize,
    },
    Matrix(Matrix),
    Bars(Vec<Bar>),
}

/// A picture with what lies over it.
#[derive(Clone, Debug)]
pub struct Still {
    /// Written above the picture where there are several.
    pub title: String,
    pub scene: Scene,
    /// Text over the picture, most important first.
    pub labels: Vec<Label>,
    /// Drawn at this width and height; the picture's own without.
    pub size: Option<(u32, u32)>,
}

/// Text on a coloured ground.
#[derive(Clone, Debug, PartialEq)]
pub struct Label {
    /// Lower left corner, in pixels of the picture.
    pub at: [f32; 2],
    pub text: String,
    pub color: [u8; 3],
}

/// One plot: bars, curves or both, its y axis from 0 to `top`.
#[derive(Clone, Debug, Default)]
pub struct Chart {
    pub title: String,
    /// What stands below the x axis and beside the y axis; nothing when empty.
    pub x_label: String,
    pub y_label: String,
    pub x_range: [f32; 2],
    pub top: f32,
    /// Heights of bars over the whole x axis, and lines across them.
    pub bars: Option<(Vec<f32>, Vec<Threshold>)>,
    pub series: Vec<(String, Vec<[f32; 2]>)>,
}

/// Counts of pairs, rows and columns of the same names.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Matrix {
    pub names: Vec<String>,
    /// `[names, names]` row-major.
    pub counts: Vec<u64>,
    /// Of each row's sum, 0 to 1.
    pub shares: Vec<f64>,
}

/// One horizontal bar.
#[derive(Clone, Debug, PartialEq)]
pub struct Bar {
    pub name: String,
    /// Not negative.
    pub length: f64,
    /// At its end.
    pub words: String,
}

impl Still {
    /// The scene at the picture's own size.
    pub fn new(title: impl Into<String>, scene: Scene) -> Self {
        Self { title: title.into(), scene, labels: Vec::new(), size: None }
    }

    /// Width and height that it is drawn at.
    pub(super) fn extent(&self) -> (u32, u32) {
        let (width, height) = self.size.unwrap_or_else(|| self.space());
        (width.max(1), height.max(1))
    }

    /// Width and height of what is looked at, in the scene's own pixels: the picture's, or those of a map that stands
    /// alone over a single pixel.
    pub(super) fn space(&self) -> (u32, u32) {
        match &self.scene.heat {
            Some(heat) if (self.scene.width, self.scene.height) == (1, 1) => (heat.width, heat.height),
            _ => (self.scene.width, self.scene.height),
        }
    }
}

impl From<Caption> for Label {
    fn from(Caption { bbox, text, color, .. }: Caption) -> Self {
        Self { at: [bbox.x0, bbox.y0], text, color }
    }
}

impl Figure {
    /// Pictures side by side.
    pub fn stills(title: impl Into<String>, stills: Vec<Still>, columns: usize, table: Table) -> Self {
        Self { title: title.into(), drawing: Some(Drawing::Stills { stills, columns: columns.max(1) }), table }
    }

    /// Plots in one column.
    pub fn charts(title: impl Into<String>, charts: Vec<Chart>, table: Table) -> Self {
        Self { title: title.into(), drawing: Some(Drawing::Charts { charts, columns: 1 }), table }
    }

    /// Numbers alone.
    pub fn numbers(title: impl Into<String>, table: Table) -> Self {
        Self { title: title.into(), drawing: None, table }
    }
}
