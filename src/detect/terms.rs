//! Reads back what a loss was computed from, for the trace.

use crate::geometry::BBox;
use crate::ops::losses::IouLoss;
use crate::trace::terms::MOST_KEPT;
use crate::trace::{Formula, Overlap, Terms};
use candle_core::{D, Result, Tensor};

/// The record of a batch's `answers` `[…, K]`, logits or box codes; `target` as [`Terms::target`] says. The formula alone
/// where there are more numbers than a trace keeps.
pub(in crate::detect) fn recorded(formula: Formula, answers: &Tensor, target: Vec<f32>) -> Result<Terms> {
    if answers.elem_count() > MOST_KEPT {
        return Ok(Terms { formula, ..Terms::default() });
    }
    let predicted = answers.detach().flatten_all()?.to_vec1()?;
    Ok(Terms { formula, stride: answers.dim(D::Minus1)?, predicted, target, ..Terms::default() })
}

/// The record of a loss of overlap: of `boxes` with the corners `decoded` `[P, 4]` from the codes at these rows of
/// `codes` `[…, 4]`; none without a positive.
pub(in crate::detect) fn recorded_overlap(
    (kind, eps): (IouLoss, f32),
    codes: &Tensor,
    rows: &[u32],
    decoded: Option<&Tensor>,
    boxes: &[BBox],
) -> Result<Terms> {
    let overlap = match kind {
        IouLoss::Iou => Overlap::Log { least: eps },
        IouLoss::Linear => Overlap::Linear,
        IouLoss::Giou => Overlap::Giou,
        IouLoss::Diou => Overlap::Diou,
        IouLoss::Ciou => Overlap::Ciou,
    };
    let count = codes.elem_count() / 4;
    let corners: Vec<f32> = boxes.iter().flat_map(|b| [b.x0, b.y0, b.x1, b.y1]).collect();
    let mut terms = recorded(Formula::Overlap(overlap), codes, at_rows(count, 4, rows, &corners))?;
    if let Some(decoded) = decoded {
        terms.boxes = at_rows(count, 4, rows, &decoded.detach().flatten_all()?.to_vec1::<f32>()?);
    }
    Ok(terms)
}

/// A table `[count, width]` of NaN with `values` at their rows.
pub(in crate::detect) fn at_rows(count: usize, width: usize, rows: &[u32], values: &[f32]) -> Vec<f32> {
    let mut table = vec![f32::NAN; count * width];
    for (&row, values) in rows.iter().zip(values.chunks_exact(width.max(1))) {
        let start = row as usize * width;
        if let Some(place) = table.get_mut(start..start + width) {
            place.copy_from_slice(values);
        }
    }
    table
}

/// The wanted column of each of `count` rows, −1 for none, from the places that should be 1, counted row by row.
pub(in crate::detect) fn wanted_columns(places: &[u32], count: usize, columns: usize) -> Vec<f32> {
    let mut wanted = vec![-1.0; count];
    for place in places.iter().map(|&place| place as usize) {
        if let Some(wanted) = wanted.get_mut(place / columns) {
            *wanted = (place % columns) as f32;
        }
    }
    wanted
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::detect::{Arch, Config, build};
    use crate::geometry::Object;
    use crate::nn::{Mode, Pass};
    use crate::random::Random;
    use crate::trace::terms::tests::check;
    use candle_core::Device;

    #[test]
    fn tables_hold_their_values_where_they_belong() {
        let table = at_rows(3, 2, &[2, 0], &[1.0, 2.0, 3.0, 4.0]);
        assert!(table[..2] == [3.0, 4.0] && table[4..] == [1.0, 2.0] && table[2].is_nan() && table[3].is_nan());
        assert_eq!(wanted_columns(&[1, 6], 3, 3), [1.0, -1.0, 0.0]);
    }

    #[test]
    fn the_losses_of_every_family_follow_from_what_was_recorded() -> Result<()> {
        let classes = ["a", "b", "c"].map(String::from);
        let mut random = Random::new(9);
        let object = |x: f32, y: f32, side: f32, class: u32| Object {
            bbox: BBox::new(x, y, x + side, y + side),
            class,
            ..Object::default()
        };
        let objects = [vec![object(10.0, 20.0, 40.0, 2), object(60.0, 64.0, 17.0, 0)], Vec::new()];
        for arch in Arch::ALL.into_iter().filter(|arch| arch.name().ends_with("-nano")) {
            let config = Config::new(arch, &classes);
            let (height, width) = config.input();
            let values: Vec<f32> = (0..2 * 3 * height * width).map(|_| random.normal()).collect();
            let images = Tensor::from_vec(values, (2, 3, height, width), &Device::Cpu)?;
            let detector = build(&config, &Device::Cpu, 3)?;
            let pass = Pass::probed(Mode::Frozen, 2);
            let outputs = detector.forward(&images, &pass)?;
            detector.losses(&outputs, &objects, &pass)?;
            let traces = pass.into_traces();
            assert!(check(&traces[0]) > 0 && check(&traces[1]) > 0, "{arch}");
        }
        Ok(())
    }
}
