//! Losses per element, row or box against constant targets, stable for large logits, with closed-form gradients.
//!
//! They return values that are not yet reduced: mining and tracing read them, and [`weighted_sum`] selects and
//! averages in one step. No gradient flows into a target.

use super::cuda;
use super::pair_loss::PairLoss;
use super::storage::{CHUNK, contiguous, with_values};
use super::tape::apply1;
use crate::geometry::BBox;
use candle_core::{CpuStorage, CustomOp1, Layout, Result, Shape, Tensor};
use rayon::prelude::*;

/// Cross-entropy of every row of `logits` `[M, C]` with a class in `0..C`; 0, without a gradient, where the target
/// is `ignore`. Returns `[M]`.
///
/// # Errors
/// Logits that are not `[M, C]` f32, another number of targets, or a target outside `0..C`.
pub fn cross_entropy(logits: &Tensor, target: &[i64], ignore: i64) -> Result<Tensor> {
    let (rows, classes) = logits.dims2()?;
    if target.len() != rows {
        candle_core::bail!("cross_entropy: {} targets for logits of shape {:?}", target.len(), logits.dims());
    }
    let mut columns = Vec::with_capacity(rows);
    for &class in target {
        let column = usize::try_from(class).ok().filter(|&c| c < classes);
        if column.is_none() && class != ignore {
            candle_core::bail!(
                "cross_entropy: target {} is neither in 0..{} nor the ignored {}",
                class,
                classes,
                ignore
            );
        }
        columns.push(if class == ignore { None } else { column });
    }
    if logits.device().is_cpu() {
        return apply1(logits, CrossEntropy { columns });
    }
    let columns: Vec<i32> = columns.iter().map(|column| column.map_or(-1, |column| column as i32)).collect();
    cuda::losses::cross_entropy(logits, &columns)
}

/// [`cross_entropy`] on a CUDA device that knows the classes, i32 `[M]`, all of which have a column.
///
/// # Errors
/// Another number of classes than rows, or classes that are not i32 on that device.
pub fn cross_entropy_of(logits: &Tensor, target: &Tensor) -> Result<Tensor> {
    if logits.dims2()?.0 != target.elem_count() {
        candle_core::bail!("cross_entropy: {:?} classes for logits {:?}", target.dims(), logits.dims());
    }
    cuda::whole_integers(target)?;
    cuda::losses::cross_entropy_of(logits, target)
}

/// Binary cross-entropy of logits with targets in `[0, 1]`: `max(x, 0) − x·t + ln(1 + e^−|x|)`.
///
/// # Errors
/// Shapes that differ, or tensors that are not f32.
pub fn bce_with_logits(logits: &Tensor, target: &Tensor) -> Result<Tensor> {
    PairLoss::Bce.of(logits, target)
}

/// Focal loss of logits with targets 0 or 1 (targets between are interpolated as torchvision does):
/// `αₜ (1 − pₜ)^γ · BCE`; a negative `alpha` weighs both classes 1 (Lin et al., "Focal loss", 2017).
///
/// # Errors
/// Shapes that differ, or tensors that are not f32.
pub fn sigmoid_focal(logits: &Tensor, target: &Tensor, alpha: f32, gamma: f32) -> Result<Tensor> {
    PairLoss::Focal { alpha, gamma }.of(logits, target)
}

/// `d² / 2β` where |d| < β and `|d| − β/2` elsewhere, for d = prediction − target; β = 0 is the L1 distance.
///
/// # Errors
/// Shapes that differ, or tensors that are not f32.
pub fn smooth_l1(prediction: &Tensor, target: &Tensor, beta: f32) -> Result<Tensor> {
    PairLoss::SmoothL1 { beta }.of(prediction, target)
}

/// A loss between boxes that overlap by IoU.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IouLoss {
    /// −ln IoU, the IoU held at ε or more (UnitBox, FCOS).
    Iou,
    /// 1 − IoU.
    Linear,
    /// 1 − IoU + (|C| − |U|) / |C|, C being the smallest box around both.
    Giou,
    /// 1 − IoU + ρ² / c²: squared distance of the centres over the squared diagonal of C.
    Diou,
    /// DIoU + α v with v = 4/π² (atan(w/h) − atan(wₜ/hₜ))² and the constant α = v / (1 − IoU + v).
    Ciou,
}

/// The loss of every predicted box `[M, 4]` (corners `x0 y0 x1 y1`) with its target. Returns `[M]`.
///
/// `eps` is added to the denominators, as torchvision does (its value is 1e-7).
///
/// # Errors
/// Predictions that are not `[M, 4]` f32, or another number of targets.
pub fn box_iou_loss(prediction: &Tensor, target: &[BBox], kind: IouLoss, eps: f32) -> Result<Tensor> {
    if prediction.dims() != [target.len(), 4] {
        candle_core::bail!("box_iou_loss: {} targets for boxes of shape {:?}", target.len(), prediction.dims());
    }
    let eps = eps.max(1e-12);
    if prediction.device().is_cpu() {
        return apply1(prediction, BoxLoss { target: target.to_vec(), kind, eps: f64::from(eps) });
    }
    let targets: Vec<f32> = target.iter().flat_map(|b| [b.x0, b.y0, b.x1, b.y1]).collect();
    box_iou_loss_of(prediction, &Tensor::from_vec(targets, (target.len(), 4), prediction.device())?, kind, eps)
}

/// [`box_iou_loss`] on a CUDA device that has the targets `[M, 4]`.
///
/// # Errors
/// Shapes that differ, or tensors that are not f32 on one CUDA device.
pub fn box_iou_loss_of(prediction: &Tensor, target: &Tensor, kind: IouLoss, eps: f32) -> Result<Tensor> {
    if prediction.dims2()?.1 != 4 || prediction.dims() != target.dims() {
        candle_core::bail!("box_iou_loss: targets {:?} for boxes {:?}", target.dims(), prediction.dims());
    }
    let code = match kind {
        IouLoss::Iou => 0,
        IouLoss::Linear => 1,
        IouLoss::Giou => 2,
        IouLoss::Diou => 3,
        IouLoss::Ciou => 4,
    };
    cuda::losses::box_loss(prediction, target, code, eps.max(1e-12))
}

/// Σ wᵢ xᵢ over all elements as a scalar: summed in f64 in a fixed order. Elements of weight 0 are not looked at, so
/// an infinite loss that nobody selected does no harm.
///
/// # Errors
/// Another number of weights than elements, or a tensor that is not f32.
pub fn weighted_sum(x: &Tensor, weights: Vec<f32>) -> Result<Tensor> {
    if weights.len() != x.elem_count() {
        candle_core::bail!("weighted_sum: {} weights for a tensor of shape {:?}", weights.len(), x.dims());
    }
    sum_by(x, &Tensor::from_vec(weights, x.shape(), x.device())?)
}

/// [`weighted_sum`] with weights that are on the device already, in the order of the elements.
///
/// # Errors
/// Another number of weights than elements, or tensors that are not f32 on one device.
pub fn sum_by(x: &Tensor, weights: &Tensor) -> Result<Tensor> {
    let weights = weights.detach().reshape(x.shape())?;
    if x.device().is_cpu() {
        return apply1(x, WeightedSum { weights });
    }
    cuda::losses::weighted_sum(x, &weights)
}

struct CrossEntropy {
    columns: Vec<Option<usize>>,
}

/// Maximum of a row, and Σ e^(x − maximum).
fn log_sum_parts(row: &[f32]) -> (f32, f64) {
    let max = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    (max, row.iter().map(|&x| f64::from((x - max).exp())).sum())
}

impl CustomOp1 for CrossEntropy {
    fn name(&self) -> &'static str {
        "cross_entropy"
    }

    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let (rows, classes) = layout.shape().dims2()?;
        let x = contiguous(storage, layout, self.name())?;
        let mut loss = vec![0.0f32; rows];
        loss.par_iter_mut().zip(&self.columns).enumerate().with_min_len(64).for_each(|(i, (loss, &column))| {
            if let Some(column) = column {
                let row = &x[i * classes..(i + 1) * classes];
                let (max, sum) = log_sum_parts(row);
                *loss = (sum.ln() - f64::from(row[column] - max)) as f32;
            }
        });
        Ok((CpuStorage::F32(loss), Shape::from(rows)))
    }

    fn bwd(&self, arg: &Tensor, _res: &Tensor, grad_res: &Tensor) -> Result<Option<Tensor>> {
        let (_, classes) = arg.dims2()?;
        let gradient = with_values(arg, self.name(), |x| {
            with_values(grad_res, self.name(), |g| {
                let mut gx = vec![0.0f32; x.len()];
                if gx.is_empty() {
                    return Ok(gx);
                }
                let rows = x.par_chunks(classes).zip(g).zip(&self.columns);
                gx.par_chunks_mut(classes).zip(rows).with_min_len(64).for_each(|(gx, ((x, &g), &column))| {
                    // Rows that a loss did not select have a zero gradient and cost nothing.
                    let Some(column) = column.filter(|_| g != 0.0) else {
                        return;
                    };
                    let (max, sum) = log_sum_parts(x);
                    let scale = (f64::from(g) / sum) as f32;
                    for (gx, &x) in gx.iter_mut().zip(x) {
                        *gx = scale * (x - max).exp();
                    }
                    gx[column] -= g;
                });
                Ok(gx)
            })
        })?;
        Ok(Some(Tensor::from_vec(gradient, arg.shape(), arg.device())?))
    }
}

struct WeightedSum {
    weights: Tensor,
}

impl CustomOp1 for WeightedSum {
    fn name(&self) -> &'static str {
        "weighted_sum"
    }

    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let x = contiguous(storage, layout, self.name())?;
        let term = |(&x, &w): (&f32, &f32)| if w == 0.0 { 0.0 } else { f64::from(x) * f64::from(w) };
        let parts: Vec<f64> = with_values(&self.weights, self.name(), |weights| {
            let pairs = x.par_chunks(CHUNK).zip(weights.par_chunks(CHUNK));
            Ok(pairs.map(|(x, w)| x.iter().zip(w).map(term).sum::<f64>()).collect())
        })?;
        Ok((CpuStorage::F32(vec![parts.iter().sum::<f64>() as f32]), Shape::from(())))
    }

    fn bwd(&self, arg: &Tensor, _res: &Tensor, grad_res: &Tensor) -> Result<Option<Tensor>> {
        let scale = grad_res.to_scalar::<f32>()?;
        let gradient: Vec<f32> =
            with_values(&self.weights, self.name(), |weights| Ok(weights.iter().map(|w| w * scale).collect()))?;
        Ok(Some(Tensor::from_vec(gradient, arg.shape(), arg.device())?))
    }
}

struct BoxLoss {
    target: Vec<BBox>,
    kind: IouLoss,
    eps: f64,
}

impl BoxLoss {
    /// Loss and its four partial derivatives.
    fn of(&self, corners: &[f32], target: BBox) -> Dual {
        let variable = |i: usize| Dual::variable(f64::from(corners[i]), i);
        let (x0, y0, x1, y1) = (variable(0), variable(1), variable(2), variable(3));
        let [tx0, ty0, tx1, ty1] = [target.x0, target.y0, target.x1, target.y1].map(|v| Dual::constant(f64::from(v)));
        let (eps, one) = (Dual::constant(self.eps), Dual::constant(1.0));
        let (w, h, tw, th) = (x1 - x0, y1 - y0, tx1 - tx0, ty1 - ty0);

        let (shared_w, shared_h) = (x1.min(tx1) - x0.max(tx0), y1.min(ty1) - y0.max(ty0));
        let overlaps = shared_w.value > 0.0 && shared_h.value > 0.0;
        let intersection = if overlaps { shared_w * shared_h } else { Dual::constant(0.0) };
        let union = w * h + tw * th - intersection;
        // An inverted box can make the union negative: hold the denominator at ε.
        let iou = intersection / (union + eps).max(eps);
        let (around_w, around_h) = (x1.max(tx1) - x0.min(tx0), y1.max(ty1) - y0.min(ty0));

        match self.kind {
            // Clamped, not blended: below ε there is no gradient, as with mmdet's `clamp(min=eps)`.
            IouLoss::Iou if iou.value < self.eps => Dual::constant(-self.eps.ln()),
            IouLoss::Iou => Dual::constant(0.0) - iou.ln(),
            IouLoss::Linear => one - iou,
            IouLoss::Giou => {
                let around = around_w * around_h;
                one - iou + (around - union) / (around + eps).max(eps)
            }
            IouLoss::Diou | IouLoss::Ciou => {
                let half = Dual::constant(0.5);
                let (dx, dy) = ((x0 + x1 - tx0 - tx1) * half, (y0 + y1 - ty0 - ty1) * half);
                let diagonal = around_w * around_w + around_h * around_h + eps;
                let distance = one - iou + (dx * dx + dy * dy) / diagonal;
                if self.kind == IouLoss::Diou {
                    return distance;
                }
                let difference = tw.atan2(th) - w.atan2(h);
                let v = difference * difference * Dual::constant(4.0 / (std::f64::consts::PI * std::f64::consts::PI));
                let alpha = v.value / (1.0 - iou.value + v.value + self.eps);
                distance + v * Dual::constant(alpha)
            }
        }
    }
}

impl CustomOp1 for BoxLoss {
    fn name(&self) -> &'static str {
        "box_iou_loss"
    }

    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let boxes = contiguous(storage, layout, self.name())?;
        let pairs = boxes.chunks_exact(4).zip(&self.target);
        let loss: Vec<f32> = pairs.map(|(corners, &target)| self.of(corners, target).value as f32).collect();
        let shape = Shape::from(loss.len());
        Ok((CpuStorage::F32(loss), shape))
    }

    fn bwd(&self, arg: &Tensor, _res: &Tensor, grad_res: &Tensor) -> Result<Option<Tensor>> {
        let gradient = with_values(arg, self.name(), |boxes| {
            with_values(grad_res, self.name(), |g| {
                let mut gradient = Vec::with_capacity(boxes.len());
                for ((corners, &target), &g) in boxes.chunks_exact(4).zip(&self.target).zip(g) {
                    let partial = self.of(corners, target).partial;
                    gradient.extend(partial.map(|p| (p * f64::from(g)) as f32));
                }
                Ok(gradient)
            })
        })?;
        Ok(Some(Tensor::from_vec(gradient, arg.shape(), arg.device())?))
    }
}

/// A number with its partial derivatives by the four corners of a box (forward-mode differentiation).
#[derive(Clone, Copy, Debug)]
struct Dual {
    value: f64,
    partial: [f64; 4],
}

impl Dual {
    fn constant(value: f64) -> Self {
        Self { value, partial: [0.0; 4] }
    }

    fn variable(value: f64, index: usize) -> Self {
        let mut dual = Self::constant(value);
        dual.partial[index] = 1.0;
        dual
    }

    /// `value`, with the partials of both operands scaled and added.
    fn blend(self, other: Self, value: f64, own: f64, others: f64) -> Self {
        let mut partial = [0.0; 4];
        for (k, p) in partial.iter_mut().enumerate() {
            *p = own * self.partial[k] + others * other.partial[k];
        }
        Self { value, partial }
    }

    /// The larger; equals share the gradient, as in PyTorch.
    fn max(self, other: Self) -> Self {
        if self.value == other.value {
            self.blend(other, self.value, 0.5, 0.5)
        } else if self.value > other.value {
            self
        } else {
            other
        }
    }

    /// The smaller; equals share the gradient.
    fn min(self, other: Self) -> Self {
        if self.value == other.value {
            self.blend(other, self.value, 0.5, 0.5)
        } else if self.value < other.value {
            self
        } else {
            other
        }
    }

    fn ln(self) -> Self {
        self.blend(self, self.value.ln(), 1.0 / self.value, 0.0)
    }

    /// The angle of (other, self), which is atan(self / other) for a positive other; constant at the origin.
    fn atan2(self, other: Self) -> Self {
        let square = self.value * self.value + other.value * other.value;
        let scale = if square > 0.0 { 1.0 / square } else { 0.0 };
        self.blend(other, self.value.atan2(other.value), other.value * scale, -self.value * scale)
    }
}

impl std::ops::Add for Dual {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        self.blend(other, self.value + other.value, 1.0, 1.0)
    }
}

impl std::ops::Sub for Dual {
    type Output = Self;

    fn sub(self, other: Self) -> Self {
        self.blend(other, self.value - other.value, 1.0, -1.0)
    }
}

impl std::ops::Mul for Dual {
    type Output = Self;

    fn mul(self, other: Self) -> Self {
        self.blend(other, self.value * other.value, other.value, self.value)
    }
}

impl std::ops::Div for Dual {
    type Output = Self;

    fn div(self, other: Self) -> Self {
        let value = self.value / other.value;
        self.blend(other, value, 1.0 / other.value, -value / other.value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::Device;

    /// Two 2x2 boxes shifted by (1, 0): intersection 2, union 6, enclosing 3x2, centres 1 apart, diagonal² 13.
    #[test]
    fn box_losses_match_hand_computation() -> Result<()> {
        let boxes = Tensor::from_slice(&[1.0f32, 0.0, 3.0, 2.0], (1, 4), &Device::Cpu)?;
        let target = [BBox::new(0.0, 0.0, 2.0, 2.0)];
        for (kind, expected) in [
            (IouLoss::Iou, 3.0f32.ln()),
            (IouLoss::Linear, 2.0 / 3.0),
            (IouLoss::Giou, 2.0 / 3.0),
            (IouLoss::Diou, 2.0 / 3.0 + 1.0 / 13.0),
            (IouLoss::Ciou, 2.0 / 3.0 + 1.0 / 13.0),
        ] {
            let loss = box_iou_loss(&boxes, &target, kind, 1e-7)?.to_vec1::<f32>()?[0];
            assert!((loss - expected).abs() < 1e-5, "{kind:?}: {loss}, not {expected}");
        }
        Ok(())
    }

    #[test]
    fn targets_that_do_not_fit_are_errors() -> Result<()> {
        let logits = Tensor::zeros((2, 3), candle_core::DType::F32, &Device::Cpu)?;
        assert!(cross_entropy(&logits, &[0], -1).is_err());
        assert!(cross_entropy(&logits, &[0, 3], -1).is_err());
        assert!(cross_entropy(&logits, &[0, -2], -1).is_err());
        assert!(cross_entropy(&logits, &[0, -1], -1).is_ok());
        assert!(bce_with_logits(&logits, &logits.t()?).is_err());
        assert!(box_iou_loss(&logits, &[], IouLoss::Giou, 1e-7).is_err());
        assert!(weighted_sum(&logits, vec![1.0; 5]).is_err());
        Ok(())
    }
}
