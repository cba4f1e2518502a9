//! Batch, group and L2 normalisation; statistics stay on the device.

use super::{Arg, Operand, add_up, apply2, apply3, doubles, floats, lanes, launch, make, with_operands};
use crate::ops::norm::L2Eps;
use candle_core::backend::BackendStorage;
use candle_core::{CudaStorage, Result, Tensor};

/// Batch, channels and the rest of a tensor, and how statistics are shared among its elements.
#[derive(Clone, Copy)]
struct Plan {
    n: usize,
    channels: usize,
    inner: usize,
    /// Elements in a row that share statistics; 0 where a channel does.
    block: usize,
    /// Whether the statistics are of the input itself, so that its gradient passes through them.
    of_input: bool,
}

impl Plan {
    fn planes(&self) -> usize {
        self.n * self.channels
    }

    fn elements(&self) -> usize {
        self.planes() * self.inner
    }

    /// Numbers of means, and of deviations.
    fn sets(&self) -> usize {
        self.elements().checked_div(self.block).unwrap_or(self.channels)
    }

    /// What the kernels that normalise take.
    fn sizes(&self) -> [usize; 4] {
        [self.sets(), self.channels, self.inner, self.block]
    }
}

/// [`crate::ops::norm::batch_norm`] for shapes that it has checked.
pub(in crate::ops) fn batch_norm(
    x: &Tensor,
    [gamma, beta, mean, var]: [&Tensor; 4],
    (n, channels, inner): (usize, usize, usize),
    eps: f32,
) -> Result<Tensor> {
    let statistics = make([&mean.detach(), &var.detach()], (2, channels), |device, [mean, var], statistics| {
        launch(
            device,
            "running_statistics",
            channels,
            &mut [Arg::In(mean), Arg::In(var), Arg::Float(eps), Arg::Out(statistics)],
        )
    })?;
    normalise([x, gamma, beta], statistics, Plan { n, channels, inner, block: 0, of_input: false })
}

/// [`crate::ops::norm::batch_norm_train`] for shapes that it has checked.
pub(in crate::ops) fn batch_norm_train(
    x: &Tensor,
    [gamma, beta]: [&Tensor; 2],
    (n, channels, inner): (usize, usize, usize),
    eps: f32,
) -> Result<(Tensor, Tensor, Tensor)> {
    let statistics = statistics(x, n, channels, inner, eps)?;
    let (mean, unbiased) = (statistics.get(0)?, statistics.get(2)?);
    let y = normalise([x, gamma, beta], statistics, Plan { n, channels, inner, block: 0, of_input: true })?;
    Ok((y, mean, unbiased))
}

/// [`crate::ops::norm::factor_and_shift`] for shapes that it has checked.
pub(in crate::ops) fn factor_and_shift(vectors: [&Tensor; 4], eps: f32) -> Result<(Tensor, Tensor)> {
    let channels = vectors[0].elem_count();
    let both = make(vectors, (2, channels), |device, [gamma, beta, mean, var], both| {
        launch(
            device,
            "factor_and_shift",
            channels,
            &mut [Arg::In(gamma), Arg::In(beta), Arg::In(mean), Arg::In(var), Arg::Float(eps), Arg::Out(both)],
        )
    })?;
    Ok((both.get(0)?, both.get(1)?))
}

/// [`crate::ops::norm::group_norm`] for shapes that it has checked.
pub(in crate::ops) fn group_norm(
    [x, gamma, beta]: [&Tensor; 3],
    (n, channels, inner): (usize, usize, usize),
    groups: usize,
    eps: f32,
) -> Result<Tensor> {
    let block = channels / groups * inner;
    let statistics = statistics(x, 1, n * groups, block, eps)?;
    // A block of nothing belongs to an empty tensor, for which no kernel runs.
    normalise([x, gamma, beta], statistics, Plan { n, channels, inner, block: block.max(1), of_input: true })
}

/// Mean, 1 / √(biased variance + eps) and unbiased variance of `count` channels of `inner` elements in each of `n`
/// images: `[3, count]`.
fn statistics(x: &Tensor, n: usize, count: usize, inner: usize, eps: f32) -> Result<Tensor> {
    let lanes = lanes(n * count, inner);
    make([&x.detach()], (3, count), |device, [x], statistics| {
        let threads = n * count * lanes;
        let mut parts = doubles(device, 2 * threads)?;
        launch(device, "plane_moments", threads, &mut [Arg::In(x), Arg::Ints(&[inner, lanes]), Arg::Out(&mut parts)])?;
        launch(
            device,
            "batch_statistics",
            count,
            &mut [Arg::All(&parts), Arg::Ints(&[n, lanes, n * inner]), Arg::Float(eps), Arg::Out(statistics)],
        )
    })
}

/// `(x − mean) · inverse · gamma + beta` with the statistics `[2 or 3, sets]` that `plan` shares out.
fn normalise(tensors: [&Tensor; 3], statistics: Tensor, plan: Plan) -> Result<Tensor> {
    let norm = Norm { statistics, plan, slope: 1.0 };
    let kept = norm.clone();
    apply3(
        tensors,
        "normalise",
        move |[x, gamma, beta]| Ok((norm.run([x, gamma, beta])?, x.1.shape().clone())),
        move |[x, gamma, beta], _, g| {
            let (gx, vectors) = kept.gradients([x, g, gamma, beta])?;
            Ok([Some(gx), Some(vectors.get(1)?), Some(vectors.get(0)?)])
        },
    )
}

/// A normalisation and an activation in one.
#[derive(Clone)]
pub(in crate::ops) struct Norm {
    statistics: Tensor,
    plan: Plan,
    /// The activation's derivative below zero.
    slope: f32,
}

impl Norm {
    /// By the statistics of `x` itself, a batch of shape `(n, channels, inner)`.
    pub fn of_batch(x: &Tensor, (n, channels, inner): (usize, usize, usize), eps: f32, slope: f32) -> Result<Self> {
        let plan = Plan { n, channels, inner, block: 0, of_input: true };
        Ok(Self { statistics: statistics(x, n, channels, inner, eps)?, plan, slope })
    }

    /// The batch mean and the unbiased variance.
    pub fn mean_and_variance(&self) -> Result<(Tensor, Tensor)> {
        Ok((self.statistics.get(0)?, self.statistics.get(2)?))
    }

    /// What becomes of x with gamma and beta.
    pub fn run(&self, [x, gamma, beta]: [Operand<'_>; 3]) -> Result<CudaStorage> {
        with_operands([&self.statistics], |device, [statistics]| {
            let mut y = floats(device, self.plan.elements())?;
            let sizes = self.plan.sizes();
            launch(
                device,
                "normalise",
                self.plan.elements(),
                &mut [
                    Arg::In(x),
                    Arg::In(statistics),
                    Arg::In(gamma),
                    Arg::In(beta),
                    Arg::Ints(&sizes),
                    Arg::Float(self.slope),
                    Arg::Out(&mut y),
                ],
            )?;
            Ok(y)
        })
    }

    /// The gradient of x, and those of beta and gamma, `[2, channels]`.
    pub fn gradients(&self, [x, g, gamma, beta]: [&Tensor; 4]) -> Result<(Tensor, Tensor)> {
        let Self { statistics, plan, slope } = self;
        let Plan { n, channels, inner, block, of_input } = *plan;
        let (lanes, sizes, sets) = (lanes(plan.planes(), inner), plan.sizes(), plan.sets());
        let threads = plan.planes() * lanes;
        let parts = with_operands([x, g, statistics, gamma, beta], |device, [x, g, statistics, gamma, beta]| {
            let mut parts = doubles(device, 2 * threads)?;
            launch(
                device,
                "plane_gradient_sums",
                threads,
                &mut [
                    Arg::In(x),
                    Arg::In(g),
                    Arg::In(statistics),
                    Arg::In(gamma),
                    Arg::In(beta),
                    Arg::Ints(&sizes),
                    Arg::Ints(&[lanes]),
                    Arg::Float(*slope),
                    Arg::Out(&mut parts),
                ],
            )?;
            Ok(parts)
        })?;
        let vectors = make([g], (2, channels), |device, _, sums| {
            launch(
                device,
                "norm_vector_gradients",
                channels,
                &mut [Arg::All(&parts), Arg::Ints(&[n, lanes]), Arg::Out(sums)],
            )
        })?;
        let levels =
            add_up([gamma, statistics, &vectors], (2, sets), |device, [gamma, statistics, vectors], levels| {
                if !of_input {
                    return Ok(());
                }
                if block == 0 {
                    let total = [n * inner];
                    return launch(
                        device,
                        "batch_levels",
                        sets,
                        &mut [
                            Arg::In(vectors),
                            Arg::In(gamma),
                            Arg::In(statistics),
                            Arg::Ints(&total),
                            Arg::Out(levels),
                        ],
                    );
                }
                let members = block / inner.max(1);
                launch(
                    device,
                    "group_levels",
                    sets,
                    &mut [
                        Arg::All(&parts),
                        Arg::In(gamma),
                        Arg::In(statistics),
                        Arg::Ints(&[channels / members.max(1), members, block, lanes]),
                        Arg::Out(levels),
                    ],
                )
            })?;
        let operands = [x, g, statistics, gamma, beta, &levels];
        let gx = make(operands, x.shape(), |device, [x, g, statistics, gamma, beta, levels], gx| {
            launch(
                device,
                "normalise_gradient",
                plan.elements(),
                &mut [
                    Arg::In(x),
                    Arg::In(g),
                    Arg::In(statistics),
                    Arg::In(gamma),
                    Arg::In(beta),
                    Arg::In(levels),
                    Arg::Ints(&sizes),
                    Arg::Float(*slope),
                    Arg::Out(gx),
                ],
            )
        })?;
        Ok((gx, vectors))
    }
}

/// [`crate::ops::norm::l2_norm`] for shapes that it has checked.
pub(in crate::ops) fn l2_norm(
    x: &Tensor,
    gamma: &Tensor,
    (n, channels, inner): (usize, usize, usize),
    eps: L2Eps,
) -> Result<Tensor> {
    let (floor, eps) = match eps {
        L2Eps::Add(eps) => (0, eps),
        L2Eps::Max(eps) => (1, eps),
    };
    let (pixels, sizes) = (n * inner, [channels, inner, floor]);
    apply2(
        [x, gamma],
        "l2_norm",
        move |[x, gamma]| {
            let device = x.0.device();
            let mut y = floats(device, pixels * channels)?;
            launch(
                device,
                "l2_norm",
                pixels,
                &mut [Arg::In(x), Arg::In(gamma), Arg::Ints(&sizes), Arg::Float(eps), Arg::Out(&mut y)],
            )?;
            Ok((y, x.1.shape().clone()))
        },
        move |[x, gamma], _, g| {
            let mut inverses = with_operands([x], |device, _| floats(device, pixels))?;
            let gx = make([x, g, gamma], x.shape(), |device, [x, g, gamma], gx| {
                launch(
                    device,
                    "l2_norm_gradient",
                    pixels,
                    &mut [
                        Arg::In(x),
                        Arg::In(g),
                        Arg::In(gamma),
                        Arg::Ints(&sizes),
                        Arg::Float(eps),
                        Arg::Out(gx),
                        Arg::Out(&mut inverses),
                    ],
                )
            })?;
            let g_gamma = make([x, g], channels, |device, [x, g], sums| {
                let lanes = lanes(channels, pixels);
                let mut parts = doubles(device, channels * lanes)?;
                launch(
                    device,
                    "l2_gamma_sums",
                    channels * lanes,
                    &mut [
                        Arg::In(x),
                        Arg::In(g),
                        Arg::All(&inverses),
                        Arg::Ints(&[channels, inner, pixels, lanes]),
                        Arg::Out(&mut parts),
                    ],
                )?;
                launch(device, "sum_lanes", channels, &mut [Arg::All(&parts), Arg::Ints(&[lanes]), Arg::Out(sums)])
            })?;
            Ok([Some(gx), Some(g_gamma)])
        },
    )
}
