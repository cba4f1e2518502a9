//! The order of the images in an epoch, and batches of one aspect.

use super::dataset::Dataset;
use super::loader::LoaderSettings;
use crate::random::Random;

/// Image indices in the order of `epoch`.
pub(super) fn epoch_order(dataset: &Dataset, settings: &LoaderSettings, epoch: u64) -> Vec<usize> {
    let mut order: Vec<usize> = (0..dataset.images.len()).collect();
    if !settings.shuffle {
        return order;
    }
    Random::keyed(settings.seed, &[epoch]).shuffle(&mut order);
    if settings.augmentation.group_by_aspect {
        let wide = |index: usize| dataset.images.get(index).is_some_and(|entry| entry.width > entry.height);
        order = group(&order, settings.batch, wide);
    }
    order
}

/// Keeps the order but for this: a batch's images are all `wide` or all not. An image waits until a batch of its kind is
/// full, and what is left at the end makes up the last batches, of which one may be mixed: the rule of MMDetection's
/// `AspectRatioBatchSampler`, which is detectron2's with an end.
fn group(order: &[usize], batch: usize, wide: impl Fn(usize) -> bool) -> Vec<usize> {
    let mut grouped = Vec::with_capacity(order.len());
    let mut waiting = [Vec::new(), Vec::new()];
    for &index in order {
        let [high, broad] = &mut waiting;
        let kind = if wide(index) { broad } else { high };
        kind.push(index);
        if kind.len() >= batch {
            grouped.append(kind);
        }
    }
    for mut rest in waiting {
        grouped.append(&mut rest);
    }
    grouped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whole_batches_are_of_one_kind_and_nobody_is_lost() {
        let wide = |index: usize| !index.is_multiple_of(3);
        for (count, batch) in [(0, 4), (1, 4), (23, 4), (24, 1), (30, 7), (9, 100)] {
            let mut order: Vec<usize> = (0..count).collect();
            Random::new(count as u64).shuffle(&mut order);
            let grouped = group(&order, batch, wide);
            let mixed = grouped.chunks(batch).filter(|chunk| {
                let wides = chunk.iter().filter(|index| wide(**index)).count();
                wides > 0 && wides < chunk.len()
            });
            assert!(mixed.count() <= 1, "{grouped:?}");
            for kind in [true, false] {
                let of = |list: &[usize]| -> Vec<usize> { list.iter().copied().filter(|i| wide(*i) == kind).collect() };
                assert_eq!(of(&grouped), of(&order), "each kind keeps its order");
            }
        }
    }
}
