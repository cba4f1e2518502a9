//! The way between devices: gradients are summed on the first, its weights are given out. GPUs do it through NCCL where
//! that is built in; plain copies do it between any devices, and with the same result.

use crate::train::optimizer::Gradients;
use candle_core::{DType, Device, Result, Tensor, bail};
use nccl::Ring;
use std::iter::repeat;

#[cfg(feature = "nccl")]
mod nccl;

#[cfg(not(feature = "nccl"))]
mod nccl {
    //! What stands in for NCCL in a build without it.

    use candle_core::{Device, Result, Tensor};

    /// There is none.
    pub enum Ring {}

    impl Ring {
        pub fn between(_: &[Device]) -> Result<Option<Self>> {
            Ok(None)
        }

        pub fn sum(&self, _: &[Vec<Tensor>]) -> Result<Vec<Tensor>> {
            match *self {}
        }

        pub fn broadcast(&self, _: &[Tensor]) -> Result<Vec<Vec<Tensor>>> {
            match *self {}
        }
    }
}

/// The devices of a run and what connects them. Each orders its own work alone: whatever is exchanged is waited for,
/// before and after.
pub(super) struct Exchange {
    devices: Vec<Device>,
    /// Copies where there is none.
    ring: Option<Ring>,
}

impl Exchange {
    /// NCCL where it is built in and each device is a GPU of its own, else copies.
    ///
    /// # Errors
    /// GPUs that NCCL cannot connect.
    pub fn between(devices: &[Device]) -> Result<Self> {
        Ok(Self { devices: devices.to_vec(), ring: Ring::between(devices)? })
    }

    pub fn devices(&self) -> &[Device] {
        &self.devices
    }

    /// The mean over the first devices, on the first of all: one entry of `all` each. A parameter that has a gradient on
    /// some of them counts as 0 on the others.
    ///
    /// # Errors
    /// Gradients of different networks, or a device without room.
    pub fn mean(&self, all: &[&Gradients]) -> Result<Gradients> {
        let count = all.iter().map(|gradients| gradients.slots.len()).max().unwrap_or(0);
        let of = |gradients: &Gradients, slot: usize| gradients.slots.get(slot).cloned().flatten();
        let mut used = Vec::new();
        let mut rows = Vec::new();
        for slot in 0..count {
            let row: Vec<Option<Tensor>> = all.iter().map(|&gradients| of(gradients, slot)).collect();
            let Some(shape) = row.iter().flatten().next().map(|gradient| gradient.shape().clone()) else { continue };
            // Every GPU takes part in a sum.
            let row = row.into_iter().chain(repeat(None));
            let filled = row.zip(&self.devices).map(|(gradient, device)| match gradient {
                Some(gradient) => gradient.contiguous(),
                None => Tensor::zeros(&shape, DType::F32, device),
            });
            rows.push(filled.collect::<Result<Vec<Tensor>>>()?);
            used.push(slot);
        }
        self.wait()?;
        let sums = match &self.ring {
            Some(ring) => ring.sum(&rows)?,
            None => rows.iter().map(|row| self.copied_sum(row)).collect::<Result<_>>()?,
        };
        let mut slots = vec![None; count];
        for (slot, sum) in used.into_iter().zip(sums) {
            slots[slot] = Some(sum.affine(1.0 / all.len() as f64, 0.0)?);
        }
        self.wait()?;
        Ok(Gradients { slots })
    }

    /// The sum of one tensor a device, in their order.
    fn copied_sum(&self, row: &[Tensor]) -> Result<Tensor> {
        let (Some(own), Some((first, others))) = (self.devices.first(), row.split_first()) else {
            bail!("a sum over no devices");
        };
        others.iter().try_fold(first.clone(), |sum, other| sum + other.to_device(own)?)
    }

    /// Copies of `tensors`, which the first device has, for each of the others.
    ///
    /// # Errors
    /// A device without room.
    pub fn spread(&self, tensors: &[Tensor]) -> Result<Vec<Vec<Tensor>>> {
        self.wait()?;
        let copies = match &self.ring {
            Some(ring) => ring.broadcast(tensors)?,
            None => self.devices.iter().skip(1).map(|device| copied(tensors, device)).collect::<Result<_>>()?,
        };
        self.wait()?;
        Ok(copies)
    }

    /// Waits for all that was asked of the devices.
    fn wait(&self) -> Result<()> {
        self.devices.iter().try_for_each(Device::synchronize)
    }
}

fn copied(tensors: &[Tensor], device: &Device) -> Result<Vec<Tensor>> {
    tensors.iter().map(|tensor| tensor.to_device(device)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tensor(values: &[f32]) -> Result<Tensor> {
        Tensor::from_slice(values, values.len(), &Device::Cpu)
    }

    #[test]
    fn the_mean_counts_a_missing_gradient_as_zero_and_leaves_out_what_none_has() -> Result<()> {
        let exchange = Exchange::between(&[Device::Cpu, Device::Cpu, Device::Cpu])?;
        let gradients = |slots: Vec<Option<Tensor>>| Gradients { slots };
        let all = [
            gradients(vec![Some(tensor(&[1.0, 2.0])?), None, None]),
            gradients(vec![Some(tensor(&[2.0, 4.0])?), None, Some(tensor(&[6.0])?)]),
            gradients(vec![Some(tensor(&[6.0, 0.0])?), None, None]),
        ];
        let mean = exchange.mean(&all.each_ref())?;
        let values = |slot: usize| mean.slots[slot].as_ref().map(|t| t.to_vec1::<f32>()).transpose();
        assert_eq!(mean.slots.len(), 3);
        // A third is not a binary fraction: 9 · ⅓ is rounded.
        let close = |found: Option<Vec<f32>>, expected: &[f32]| {
            let found = found.unwrap_or_default();
            found.len() == expected.len() && found.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-6)
        };
        assert!(close(values(0)?, &[3.0, 2.0]) && values(1)?.is_none() && close(values(2)?, &[2.0]));
        let [first, second, _] = all.each_ref();
        let of_two = exchange.mean(&[first, second])?;
        assert_eq!(of_two.slots[0].as_ref().map(|t| t.to_vec1::<f32>()).transpose()?, Some(vec![1.5, 3.0]));
        let copies = exchange.spread(&[tensor(&[5.0])?])?;
        assert_eq!(copies.len(), 2);
        assert_eq!(copies[1][0].to_vec1::<f32>()?, [5.0]);
        Ok(())
    }
}
