//! The formulas of the losses with the numbers of one anchor or RoI filled in.

use super::anchor::corners;
use super::batch::header;
use super::wide;
use crate::detect::Config;
use crate::trace::terms::Term;
use crate::trace::{Formula, LossPart, Overlap};
use egui::{Grid, Ui};

/// Summands that are written out; the others are one sum.
const WRITTEN: usize = 4;
/// Rows of the table of numbers.
const ROWS: usize = 100;

/// What the numbers of an anchor or RoI are called.
#[derive(Clone, Copy, Debug)]
pub struct Names<'a> {
    classes: &'a [String],
    codes: [&'static str; 4],
}

impl<'a> Names<'a> {
    pub fn new(config: Option<&Config>, classes: &'a [String]) -> Self {
        let codes = match config {
            Some(Config::Fcos(_)) => ["left", "top", "right", "bottom"],
            Some(Config::Yolov3(_) | Config::Darknet(_)) => ["tx", "ty", "tw", "th"],
            _ => ["dx", "dy", "dw", "dh"],
        };
        Self { classes, codes }
    }

    /// Number `column` of a row.
    pub fn of(&self, part: &LossPart, column: usize) -> String {
        let (terms, codes) = (&part.terms, self.codes);
        let softmax = terms.formula == Formula::Softmax;
        match (terms.first_class, terms.stride) {
            (Some(first), _) => {
                let class = column.checked_sub(first).and_then(|class| self.classes.get(class));
                class.map_or(if softmax { "background" } else { "unused" }, String::as_str).to_string()
            }
            (None, 1) => "logit".to_string(),
            (None, 2) if softmax => ["background", "object"][column.min(1)].to_string(),
            (None, 2) => codes[column.min(1) + if part.name == "loss_wh" { 2 } else { 0 }].to_string(),
            (None, _) if terms.formula == Formula::Sigmoid => format!("cell {column}"),
            (None, 4) => codes[column.min(3)].to_string(),
            (None, _) => format!("{} of box {}", codes[column % 4], column / 4),
        }
    }

    /// The formula of a row's loss with its numbers; none where it learns nothing.
    pub fn filled(&self, part: &LossPart, row: usize) -> Option<String> {
        let terms = &part.terms;
        let loss = terms.loss(row)?;
        let written = match terms.formula {
            Formula::Overlap(overlap) => {
                let (predicted, target) = terms.pair(row)?;
                let measure = number(overlap.measure(predicted, target));
                let of = format!("{} on {}", corners(predicted), corners(target));
                match overlap {
                    Overlap::Log { .. } => format!("−ln IoU of {of} = −ln {measure}"),
                    Overlap::Linear => format!("1 − IoU of {of} = 1 − {measure}"),
                    Overlap::Giou => format!("1 − GIoU of {of} = 1 − {measure}"),
                    Overlap::Diou => format!("1 − DIoU of {of} = 1 − {measure}"),
                    Overlap::Ciou => format!("1 − CIoU of {of} = 1 − {measure}"),
                }
            }
            formula => format!("{} = {}", symbols(formula), self.summands(part, row)),
        };
        let weight = terms.weight(row);
        let weighted = if weight == 1.0 { written } else { format!("{written}, times {}", number(weight)) };
        Some(format!("{weighted} = {loss:.4}"))
    }

    /// The largest summands one by one, then the others as one.
    fn summands(&self, part: &LossPart, row: usize) -> String {
        let mut learnt: Vec<(usize, Term)> = part.terms.terms(row).into_iter().enumerate().collect();
        let softmax = part.terms.formula == Formula::Softmax;
        learnt.retain(|(_, term)| if softmax { term.target == 1.0 } else { !term.target.is_nan() });
        if learnt.len() > WRITTEN {
            learnt.sort_by(|a, b| b.1.loss.total_cmp(&a.1.loss));
        }
        let (first, others) = learnt.split_at(learnt.len().min(WRITTEN));
        let single = |(column, term): &(usize, Term)| {
            format!("{} ({})", expression(part.terms.formula, term), self.of(part, *column))
        };
        let mut written: Vec<String> = first.iter().map(single).collect();
        if !others.is_empty() {
            let rest: f32 = others.iter().map(|(_, term)| term.loss).sum();
            written.push(format!("{} ({} others)", number(rest), others.len()));
        }
        written.join(" + ")
    }

    /// Every number of a row: what the head answered, what it should be, and what that costs.
    pub fn table(&self, ui: &mut Ui, part: &LossPart, row: usize) {
        if part.terms.answers(row).is_none() {
            return;
        }
        ui.collapsing(format!("Numbers of {}", part.name), |ui| {
            let mut numbers: Vec<(usize, Term)> = part.terms.terms(row).into_iter().enumerate().collect();
            let count = numbers.len();
            if count > ROWS {
                numbers.sort_by(|a, b| b.1.loss.total_cmp(&a.1.loss));
                numbers.truncate(ROWS);
                ui.weak(format!("the {ROWS} of {count} that cost most"));
            }
            let name = format!("numbers of {}", part.name);
            wide(ui, &name, |ui| {
                Grid::new(&name).num_columns(5).striped(true).show(ui, |ui| {
                    header(
                        ui,
                        &[
                            ("number", "What it stands for"),
                            ("predicted", "The head's answer: a logit, or a number of the box code"),
                            ("p", "Softmax or sigmoid of the logit"),
                            ("target", "What it should be: a probability, or the number itself"),
                            ("loss", "What it adds, before the weight and the division by N"),
                        ],
                    );
                    for (column, term) in numbers {
                        ui.label(self.of(part, column));
                        ui.label(number(term.predicted));
                        ui.label(term.probability.map_or("—".to_string(), number));
                        let learns = !term.target.is_nan();
                        ui.label(if learns { number(term.target) } else { "—".to_string() });
                        ui.label(if learns { number(term.loss) } else { "—".to_string() });
                        ui.end_row();
                    }
                });
            });
        });
    }
}

/// The formula as the papers write it.
fn symbols(formula: Formula) -> &'static str {
    match formula {
        Formula::Softmax => "CE = −ln p_t",
        Formula::Sigmoid => "BCE = −Σ (t ln p + (1 − t) ln(1 − p))",
        Formula::Focal { .. } => "FL = −Σ α_t (1 − p_t)^γ ln p_t",
        Formula::SmoothL1 { beta: 0.0 } => "L1 = Σ |d|",
        Formula::SmoothL1 { .. } => "smooth L1 = Σ d² / 2β below β, |d| − β/2 above",
        Formula::Squared => "squared error = Σ d²",
        Formula::Overlap(_) => "overlap",
    }
}

/// One summand with its numbers.
fn expression(formula: Formula, term: &Term) -> String {
    // σ(x) and 1 − σ(x), neither taken from the other.
    let sigma = |x: f32| 1.0 / (1.0 + (-x).exp());
    let (p, q, t) = (sigma(term.predicted), sigma(-term.predicted), term.target);
    match formula {
        Formula::Softmax => format!("−ln {}", number(term.probability.unwrap_or(0.0))),
        Formula::Sigmoid if t == 1.0 => format!("−ln {}", number(p)),
        Formula::Sigmoid if t == 0.0 => format!("−ln(1 − {})", number(p)),
        Formula::Sigmoid => {
            format!("−{} ln {} − {} ln {}", number(t), number(p), number(1.0 - t), number(q))
        }
        Formula::Focal { alpha, gamma } => {
            let (balance, right, miss) = if t == 1.0 { (alpha, p, q) } else { (1.0 - alpha, q, p) };
            let balance = if alpha < 0.0 { 1.0 } else { balance };
            format!("−{balance:.2} · {}^{gamma} · ln {}", number(miss), number(right))
        }
        Formula::SmoothL1 { beta } => {
            let d = format!("{} − {}", number(term.predicted), number(t));
            match (term.predicted - t).abs() {
                _ if beta == 0.0 => format!("|{d}|"),
                size if size < beta => format!("({d})² / (2 · {})", number(beta)),
                _ => format!("|{d}| − {} / 2", number(beta)),
            }
        }
        Formula::Squared => format!("({} − {})²", number(term.predicted), number(t)),
        Formula::Overlap(_) => String::new(),
    }
}

/// Four places, or as a power of ten where those would hide it.
fn number(value: f32) -> String {
    let is_plain = value == 0.0 || (1e-3..1e5).contains(&value.abs());
    if is_plain { format!("{value:.4}") } else { format!("{value:.2e}") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::detect::Arch;
    use crate::trace::Terms;

    fn part(formula: Formula, predicted: &[f32], target: &[f32], first_class: Option<usize>) -> LossPart {
        let (stride, predicted, target) = (predicted.len(), predicted.to_vec(), target.to_vec());
        let terms = Terms { formula, stride, predicted, target, first_class, ..Terms::default() };
        LossPart { name: "part".into(), terms, ..LossPart::default() }
    }

    fn filled(part: &LossPart, arch: Arch) -> String {
        let classes = ["cat".to_string(), "dog".to_string()];
        Names::new(Some(&Config::new(arch, &classes)), &classes).filled(part, 0).unwrap()
    }

    #[test]
    fn each_formula_has_its_numbers_and_ends_with_the_loss() {
        let ssd = part(Formula::Softmax, &[0.0, 0.0, f32::NEG_INFINITY], &[1.0], Some(1));
        assert_eq!(filled(&ssd, Arch::SsdNano), "CE = −ln p_t = −ln 0.5000 (cat) = 0.6931");
        let focal = part(Formula::Focal { alpha: 0.25, gamma: 2.0 }, &[0.0, 0.0], &[1.0], Some(0));
        assert_eq!(
            filled(&focal, Arch::RetinanetNano),
            "FL = −Σ α_t (1 − p_t)^γ ln p_t = −0.75 · 0.5000^2 · ln 0.5000 (cat) + −0.25 · 0.5000^2 · ln 0.5000 (dog) \
             = 0.1733"
        );
        let sigmoid = part(Formula::Sigmoid, &[0.0], &[0.25], None);
        let text = filled(&sigmoid, Arch::FcosNano);
        assert!(text.ends_with("−0.2500 ln 0.5000 − 0.7500 ln 0.5000 (logit) = 0.6931"), "{text}");
        let smooth = part(Formula::SmoothL1 { beta: 1.0 }, &[0.5, 3.0, 0.0, 0.0], &[0.0; 4], None);
        let text = filled(&smooth, Arch::SsdNano);
        let first = "(0.5000 − 0.0000)² / (2 · 1.0000) (dx) + |3.0000 − 0.0000| − 1.0000 / 2 (dy) + ";
        assert!(text.contains(first) && text.ends_with(" = 2.6250"), "{text}");
        let overlap = LossPart {
            terms: Terms {
                formula: Formula::Overlap(Overlap::Log { least: 1e-6 }),
                stride: 4,
                predicted: vec![1.0; 4],
                target: vec![0.0, 0.0, 2.0, 2.0],
                boxes: vec![1.0, 0.0, 3.0, 2.0],
                ..Terms::default()
            },
            ..LossPart::default()
        };
        assert_eq!(
            filled(&overlap, Arch::FcosNano),
            "−ln IoU of [1.0 0.0 3.0 2.0] on [0.0 0.0 2.0 2.0] = −ln 0.3333 = 1.0986"
        );
    }

    #[test]
    fn weights_are_told_and_many_summands_become_one() {
        let mut squared = part(Formula::Squared, &[1.0, 0.0], &[0.0, 0.0], None);
        squared.name = "loss_wh".into();
        squared.terms.weights = vec![0.5];
        let text = filled(&squared, Arch::Yolov3Nano);
        assert!(text.contains("(1.0000 − 0.0000)² (tw)") && text.ends_with(", times 0.5000 = 0.5000"), "{text}");
        let cells = part(Formula::Sigmoid, &[0.0; 9], &[1.0; 9], None);
        let text = filled(&cells, Arch::MaskNano);
        assert!(text.contains("(cell 3) + 3.4657 (5 others) = 6.2383"), "{text}");
        let nothing = part(Formula::Sigmoid, &[0.0], &[f32::NAN], None);
        assert_eq!(Names::new(None, &[]).filled(&nothing, 0), None);
    }

    #[test]
    fn numbers_are_called_what_the_family_calls_them() {
        let name = |arch: Arch, part: &LossPart, column: usize| {
            let classes = ["cat".to_string()];
            Names::new(Some(&Config::new(arch, &classes)), &classes).of(part, column)
        };
        let code = part(Formula::SmoothL1 { beta: 0.0 }, &[0.0; 4], &[0.0; 4], None);
        assert_eq!((name(Arch::FcosNano, &code, 3), name(Arch::FasterNano, &code, 3)), ("bottom".into(), "dh".into()));
        let objectness = part(Formula::Softmax, &[0.0; 2], &[0.0], None);
        assert_eq!(name(Arch::RefinedetNano, &objectness, 1), "object");
        let by_class = part(Formula::SmoothL1 { beta: 0.0 }, &[0.0; 8], &[0.0; 8], None);
        assert_eq!(name(Arch::FasterNano, &by_class, 5), "dy of box 1");
        let classes = part(Formula::Softmax, &[0.0; 2], &[0.0], Some(0));
        assert_eq!(name(Arch::CascadeNano, &classes, 1), "background");
    }
}
