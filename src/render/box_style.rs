//! What a drawn rectangle carries, which ones are shown and how they look; no graphics here.
//!
//! Bits and numbers are those of `shaders/boxes.wgsl`.

use super::colormap::ColorMap;

/// Classes that a [`ClassMask`] can tell apart and that colours are kept for.
pub const CLASS_LIMIT: usize = 512;

/// What evaluation says about a box.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[repr(u32)]
pub enum Outcome {
    #[default]
    None = 0,
    TruePositive = 1,
    FalsePositive = 2,
    /// An object that nothing found.
    FalseNegative = 3,
    /// A second detection of an object.
    Duplicate = 4,
    /// Crowds and what falls into them.
    Ignored = 5,
}

/// What training does with an anchor.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[repr(u32)]
pub enum BoxAssignment {
    #[default]
    None = 0,
    Positive = 1,
    Negative = 2,
    Ignored = 3,
    /// A hard negative that was chosen for the loss.
    Mined = 4,
}

/// How an outline is drawn.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[repr(u32)]
pub enum LineStyle {
    /// By outcome: missed objects dashed, duplicates dotted, ignored ones hatched, all others solid.
    #[default]
    ByOutcome = 0,
    Solid = 1,
    Dashed = 2,
    Dotted = 3,
    /// Solid outline, inside hatched.
    Hatched = 4,
}

/// One rectangle as it lies in the vertex buffer.
#[derive(Clone, Copy, Debug, PartialEq, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
pub struct BoxInstance {
    /// x0, y0, x1, y1 in picture pixels.
    pub bbox: [f32; 4],
    /// A box whose score is NaN is never shown.
    pub score: f32,
    pub class: u32,
    /// Level of the pyramid, finest 0; of detections and objects their number, which the parts of a mask share.
    pub level: u32,
    /// Bits 0–2 [`Outcome`], 3–5 [`BoxAssignment`], 6–8 [`LineStyle`].
    pub flags: u32,
}

impl BoxInstance {
    pub fn new(bbox: [f32; 4], score: f32, class: u32) -> Self {
        Self { bbox, score, class, level: 0, flags: 0 }
    }

    pub fn with_level(self, level: u32) -> Self {
        Self { level, ..self }
    }

    pub fn with_outcome(self, outcome: Outcome) -> Self {
        Self { flags: (self.flags & !0b111) | outcome as u32, ..self }
    }

    pub fn outcome(&self) -> Outcome {
        match self.flags & 0b111 {
            1 => Outcome::TruePositive,
            2 => Outcome::FalsePositive,
            3 => Outcome::FalseNegative,
            4 => Outcome::Duplicate,
            5 => Outcome::Ignored,
            _ => Outcome::None,
        }
    }

    pub fn with_assignment(self, assignment: BoxAssignment) -> Self {
        Self { flags: (self.flags & !0b11_1000) | ((assignment as u32) << 3), ..self }
    }

    pub fn with_style(self, style: LineStyle) -> Self {
        Self { flags: (self.flags & !0b1_1100_0000) | ((style as u32) << 6), ..self }
    }
}

/// A set of classes 0 to [`CLASS_LIMIT`] − 1. Classes from there on are always shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClassMask {
    words: [u32; CLASS_LIMIT / 32],
}

impl ClassMask {
    pub const ALL: Self = Self { words: [u32::MAX; CLASS_LIMIT / 32] };
    pub const NONE: Self = Self { words: [0; CLASS_LIMIT / 32] };

    /// Adds or removes a class; one beyond the limit changes nothing.
    pub fn set(&mut self, class: u32, shown: bool) {
        if let Some(word) = self.words.get_mut((class / 32) as usize) {
            let bit = 1 << (class % 32);
            *word = if shown { *word | bit } else { *word & !bit };
        }
    }

    pub fn contains(&self, class: u32) -> bool {
        self.words.get((class / 32) as usize).is_none_or(|word| (word >> (class % 32)) & 1 == 1)
    }

    /// The bits in the shader's order: four vectors of four words.
    pub(super) fn vectors(&self) -> [[u32; 4]; 4] {
        std::array::from_fn(|row| std::array::from_fn(|column| self.words[4 * row + column]))
    }
}

/// Which boxes are shown. Changing it sends one uniform.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct BoxFilter {
    /// Lowest and highest score shown.
    pub score_min: f32,
    pub score_max: f32,
    pub classes: ClassMask,
    /// Shows this class alone, whatever `classes` says.
    pub isolated_class: Option<u32>,
    /// Bit n shows level n; levels from 32 on are always shown.
    pub levels: u32,
    /// Bit n shows the [`Outcome`] of that number.
    pub outcomes: u32,
    /// Bit n shows the [`BoxAssignment`] of that number.
    pub assignments: u32,
}

impl Default for BoxFilter {
    /// Everything with a score that is a number.
    fn default() -> Self {
        Self {
            score_min: f32::MIN,
            score_max: f32::MAX,
            classes: ClassMask::ALL,
            isolated_class: None,
            levels: u32::MAX,
            outcomes: u32::MAX,
            assignments: u32::MAX,
        }
    }
}

impl BoxFilter {
    /// Whether the shader draws `instance`: for hit tests and counts on the CPU.
    pub fn shows(&self, instance: &BoxInstance) -> bool {
        let bit = |mask: u32, number: u32| (mask >> number) & 1 == 1;
        (self.score_min..=self.score_max).contains(&instance.score)
            && (instance.level >= 32 || bit(self.levels, instance.level))
            && bit(self.outcomes, instance.flags & 0b111)
            && bit(self.assignments, (instance.flags >> 3) & 0b111)
            && self.isolated_class.map_or_else(|| self.classes.contains(instance.class), |only| instance.class == only)
    }
}

/// What a box's colour tells.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[repr(u32)]
pub enum BoxColor {
    #[default]
    Class = 0,
    /// viridis from 0 to 1.
    Score = 1,
    Outcome = 2,
    Assignment = 3,
    Level = 4,
    /// The class colours in turn, by [`BoxInstance::level`].
    Instance = 5,
}

/// How boxes look. Changing it sends one uniform.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct BoxLook {
    pub color: BoxColor,
    /// Screen pixels, whatever the zoom.
    pub line_width: f32,
    /// 0 to 1.
    pub opacity: f32,
    /// Opacity of the insides, 0 to 1.
    pub fill_opacity: f32,
    /// Position in the array of the selected and of the hovered box; both are drawn over the others, with a halo.
    pub selected: Option<u32>,
    pub hovered: Option<u32>,
    /// Where the array holds the same boxes several times over; then positions are those in one stage.
    pub stages: Option<Stages>,
}

impl Default for BoxLook {
    fn default() -> Self {
        Self {
            color: BoxColor::Class,
            line_width: 2.0,
            opacity: 1.0,
            fill_opacity: 0.0,
            selected: None,
            hovered: None,
            stages: None,
        }
    }
}

/// The same boxes at several stages, stage after stage in one array, and the place between stages that is drawn.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Stages {
    /// Boxes of one stage. A box that a stage does not have stands there with the score NaN, and fades on the way to it.
    pub each: u32,
    /// 0 is the first stage; at 1.5 corners and scores are half-way from the second to the third.
    pub place: f32,
}

impl Stages {
    /// Where in an array of `count` boxes the stages before and after the place begin, and the way between them, 0 to 1.
    /// `None` without one whole stage.
    pub(super) fn around(self, count: u32) -> Option<(u32, u32, f32)> {
        let last = count.checked_div(self.each)?.checked_sub(1)?;
        let place = if self.place.is_nan() { 0.0 } else { self.place.clamp(0.0, last as f32) };
        let before = place as u32;
        Some((before * self.each, (before + 1).min(last) * self.each, place - before as f32))
    }

    /// The boxes of the nearest stage: for drawing without shaders.
    pub fn nearest(self, boxes: &[BoxInstance]) -> &[BoxInstance] {
        let count = u32::try_from(boxes.len()).unwrap_or(u32::MAX);
        let Some((before, after, way)) = self.around(count) else { return &[] };
        let start = (if way < 0.5 { before } else { after }) as usize;
        boxes.get(start..start + self.each as usize).unwrap_or_default()
    }
}

/// Colours of boxes: red, green, blue, alpha from 0 to 1, gamma-encoded, not premultiplied. Sent when they change.
#[derive(Clone, Debug, PartialEq)]
pub struct BoxStyle {
    /// By class; classes beyond the end start again at the first. Colours beyond [`CLASS_LIMIT`] are not used; an
    /// empty table means white.
    pub class_colors: Vec<[f32; 4]>,
    /// By [`Outcome`].
    pub outcome_colors: [[f32; 4]; 8],
    /// By [`BoxAssignment`].
    pub assignment_colors: [[f32; 4]; 8],
    /// By level; level 8 starts again at the first.
    pub level_colors: [[f32; 4]; 8],
}

impl BoxStyle {
    /// The colour of a box, as the shader has it.
    pub fn color(&self, by: BoxColor, instance: &BoxInstance) -> [f32; 4] {
        const WHITE: [f32; 4] = [1.0; 4];
        let in_turn = |number: u32| {
            let count = self.class_colors.len().clamp(1, CLASS_LIMIT);
            self.class_colors.get(number as usize % count).copied().unwrap_or(WHITE)
        };
        let entry = |colors: &[[f32; 4]; 8], number: u32| colors.get((number % 8) as usize).copied().unwrap_or(WHITE);
        match by {
            BoxColor::Class => in_turn(instance.class),
            BoxColor::Instance => in_turn(instance.level),
            BoxColor::Score => {
                let [r, g, b] = ColorMap::Viridis.color(instance.score);
                [r, g, b, 1.0]
            }
            BoxColor::Outcome => entry(&self.outcome_colors, instance.flags & 0b111),
            BoxColor::Assignment => entry(&self.assignment_colors, (instance.flags >> 3) & 0b111),
            BoxColor::Level => entry(&self.level_colors, instance.level),
        }
    }
}

/// Colours that stay apart for every kind of colour vision: Okabe & Ito, "Color universal design" (2008).
mod okabe_ito {
    pub const ORANGE: [f32; 4] = [0.902, 0.624, 0.0, 1.0];
    pub const SKY: [f32; 4] = [0.337, 0.706, 0.914, 1.0];
    pub const GREEN: [f32; 4] = [0.0, 0.62, 0.451, 1.0];
    pub const YELLOW: [f32; 4] = [0.941, 0.894, 0.259, 1.0];
    pub const BLUE: [f32; 4] = [0.0, 0.447, 0.698, 1.0];
    pub const VERMILION: [f32; 4] = [0.835, 0.369, 0.0, 1.0];
    pub const PURPLE: [f32; 4] = [0.8, 0.475, 0.655, 1.0];
    pub const GRAY: [f32; 4] = [0.6, 0.6, 0.6, 1.0];
    pub const WHITE: [f32; 4] = [0.92, 0.92, 0.92, 1.0];
}

impl Default for BoxStyle {
    fn default() -> Self {
        use okabe_ito::{BLUE, GRAY, GREEN, ORANGE, PURPLE, SKY, VERMILION, WHITE, YELLOW};
        Self {
            class_colors: Vec::new(),
            outcome_colors: [WHITE, GREEN, ORANGE, PURPLE, YELLOW, GRAY, WHITE, WHITE],
            assignment_colors: [WHITE, GREEN, BLUE, GRAY, VERMILION, WHITE, WHITE, WHITE],
            level_colors: [SKY, ORANGE, GREEN, YELLOW, BLUE, VERMILION, PURPLE, GRAY],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_instance_is_eight_words_with_its_flags_in_place() {
        assert_eq!(std::mem::size_of::<BoxInstance>(), 32);
        let instance = BoxInstance::new([0.0; 4], 1.0, 0)
            .with_outcome(Outcome::TruePositive)
            .with_assignment(BoxAssignment::Mined)
            .with_style(LineStyle::Dotted)
            .with_outcome(Outcome::Ignored);
        assert_eq!(instance.flags, 5 | (4 << 3) | (3 << 6));
        assert_eq!(instance.with_style(LineStyle::ByOutcome).flags, 5 | (4 << 3));
        for outcome in [
            Outcome::None,
            Outcome::TruePositive,
            Outcome::FalsePositive,
            Outcome::FalseNegative,
            Outcome::Duplicate,
            Outcome::Ignored,
        ] {
            assert_eq!(instance.with_outcome(outcome).outcome(), outcome);
        }
    }

    #[test]
    fn a_place_lies_between_two_stages_of_the_array() {
        let at = |place: f32| Stages { each: 2, place }.around(6);
        assert_eq!(
            [-1.0, 0.0, 0.25, 1.0, 1.5].map(at),
            [(0, 2, 0.0), (0, 2, 0.0), (0, 2, 0.25), (2, 4, 0.0), (2, 4, 0.5)].map(Some)
        );
        assert_eq!([2.0, 9.0, f32::NAN].map(at), [(4, 4, 0.0), (4, 4, 0.0), (0, 2, 0.0)].map(Some));
        assert_eq!([(0, 6), (4, 3), (4, 0)].map(|(each, count)| Stages { each, place: 0.0 }.around(count)), [None; 3]);
        let boxes: Vec<BoxInstance> = (0..6).map(|class| BoxInstance::new([0.0; 4], 1.0, class)).collect();
        let nearest = |place: f32| Stages { each: 2, place }.nearest(&boxes)[0].class;
        assert_eq!([0.0, 0.4, 0.5, 1.4, 2.0].map(nearest), [0, 0, 2, 2, 4]);
        assert!(Stages { each: 0, place: 0.0 }.nearest(&boxes).is_empty());
    }

    #[test]
    fn a_class_mask_knows_its_members_and_shows_what_it_cannot_tell() {
        let mut mask = ClassMask::NONE;
        for class in [0, 31, 32, 130, 511, 512, 100_000] {
            mask.set(class, true);
            assert!(mask.contains(class));
        }
        assert!(!mask.contains(1) && !mask.contains(129) && mask.contains(9999));
        // Class 130 is bit 2 of word 4, the first word of the second vector.
        assert_eq!(mask.vectors()[1][0], 1 << 2);
        mask.set(130, false);
        assert_eq!(mask.vectors()[1], [0; 4]);
    }

    #[test]
    fn each_part_of_the_filter_hides_by_itself() {
        let instance = BoxInstance::new([0.0; 4], 0.5, 7)
            .with_level(2)
            .with_outcome(Outcome::FalsePositive)
            .with_assignment(BoxAssignment::Negative);
        let all = BoxFilter::default();
        assert!(all.shows(&instance));
        assert!(!all.shows(&BoxInstance { score: f32::NAN, ..instance }));
        let mut without_seven = ClassMask::ALL;
        without_seven.set(7, false);
        for hiding in [
            BoxFilter { score_min: 0.51, ..all },
            BoxFilter { score_max: 0.49, ..all },
            BoxFilter { classes: without_seven, ..all },
            BoxFilter { isolated_class: Some(8), ..all },
            BoxFilter { levels: !(1 << 2), ..all },
            BoxFilter { outcomes: 1 << Outcome::TruePositive as u32, ..all },
            BoxFilter { assignments: !(1 << BoxAssignment::Negative as u32), ..all },
        ] {
            assert!(!hiding.shows(&instance), "{hiding:?}");
        }
        let isolated = BoxFilter { classes: ClassMask::NONE, isolated_class: Some(7), ..all };
        assert!(isolated.shows(&instance));
    }
}
