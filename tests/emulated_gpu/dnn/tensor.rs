//! Tensors as their descriptors say them, and their numbers in memory.

use super::{Answer, BAD_PARAM, EXECUTION_FAILED, Refusal, bad, unsupported};
use crate::half::{bf16_to_f32, f16_to_f32, f32_to_bf16, f32_to_f16};
use crate::memory;
use std::ffi::c_int;
use std::ops::Range;

/// What a tensor is made of.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Kind {
    F32,
    F16,
    Bf16,
}

impl Kind {
    pub fn new(code: c_int) -> Answer<Self> {
        match code {
            0 => Ok(Self::F32),
            2 => Ok(Self::F16),
            9 => Ok(Self::Bf16),
            1 | 3..=8 => unsupported(format!("data type {code} is not emulated")),
            _ => bad(format!("data type {code}")),
        }
    }

    fn bytes(self) -> usize {
        if self == Self::F32 { 4 } else { 2 }
    }
}

trait Element: Copy {
    fn get(self) -> f32;
    fn of(value: f32) -> Self;
}

impl Element for f32 {
    fn get(self) -> f32 {
        self
    }

    fn of(value: f32) -> Self {
        value
    }
}

#[derive(Clone, Copy)]
#[repr(transparent)]
struct F16(u16);

impl Element for F16 {
    fn get(self) -> f32 {
        f16_to_f32(self.0)
    }

    fn of(value: f32) -> Self {
        Self(f32_to_f16(value))
    }
}

#[derive(Clone, Copy)]
#[repr(transparent)]
struct Bf16(u16);

impl Element for Bf16 {
    fn get(self) -> f32 {
        bf16_to_f32(self.0)
    }

    fn of(value: f32) -> Self {
        Self(f32_to_bf16(value))
    }
}

/// A tensor `[N, C, H, W]`, or a filter `[O, C/groups, kh, kw]`.
#[derive(Clone, Copy, Debug)]
pub struct Tensor {
    pub kind: Kind,
    pub sizes: [usize; 4],
    /// In elements.
    pub strides: [usize; 4],
}

/// The strides of row-major order.
fn packed([_, c, h, w]: [usize; 4]) -> [usize; 4] {
    [c * h * w, h * w, w, 1]
}

impl Tensor {
    /// Of these sizes; in row-major order where there are no strides.
    pub fn new(kind: Kind, sizes: [c_int; 4], strides: Option<[c_int; 4]>) -> Answer<Self> {
        if sizes.iter().any(|&size| size <= 0) {
            return bad(format!("sizes {sizes:?} must be at least 1"));
        }
        let sizes = sizes.map(|size| size as usize);
        let strides = match strides {
            None => packed(sizes),
            Some(strides) if strides.iter().any(|&stride| stride < 0) => {
                return unsupported(format!("strides {strides:?} below zero"));
            }
            Some(strides) => strides.map(|stride| stride as usize),
        };
        if (0..4).any(|axis| strides[axis] == 0 && sizes[axis] > 1) {
            return bad(format!("strides {strides:?} of sizes {sizes:?}"));
        }
        let tensor = Self { kind, sizes, strides };
        if tensor.extent() > c_int::MAX as usize {
            return unsupported(format!(
                "sizes {sizes:?} with strides {strides:?} reach further than 2^31 - 1 elements"
            ));
        }
        Ok(tensor)
    }

    fn lies_as(&self, strides: [usize; 4]) -> bool {
        (1..4).all(|axis| self.sizes[axis] == 1 || self.strides[axis] == strides[axis])
    }

    /// Whether the channels of a pixel lie side by side, and pixels one after another.
    pub fn has_channels_last(&self) -> bool {
        let [_, c, h, w] = self.sizes;
        self.lies_as([c * h * w, 1, c * w, c])
    }

    /// Whether the planes of an image lie one after another.
    pub fn has_packed_images(&self) -> bool {
        self.lies_as(packed(self.sizes))
    }

    /// Elements from the first to the last.
    fn extent(&self) -> usize {
        1 + self.sizes.iter().zip(self.strides).map(|(size, stride)| (size - 1) * stride).sum::<usize>()
    }

    /// The addresses of a tensor that starts at `at`.
    pub fn range(&self, at: u64) -> Range<u64> {
        at..at.saturating_add((self.extent() * self.kind.bytes()) as u64)
    }

    /// Calls `visit` with the place of each element in memory, in row-major order.
    fn each(&self, mut visit: impl FnMut(usize)) {
        let ([batch, channels, height, width], [n, c, h, w]) = (self.sizes, self.strides);
        for image in 0..batch {
            for channel in 0..channels {
                for row in 0..height {
                    let start = image * n + channel * c + row * h;
                    for column in 0..width {
                        visit(start + column * w);
                    }
                }
            }
        }
    }

    fn read_as<T: Element>(&self, at: u64) -> Option<Vec<f32>> {
        let elements = memory::view::<T>(at, self.extent())?;
        let mut values = Vec::with_capacity(self.sizes.iter().product());
        self.each(|place| values.push(elements[place].get()));
        Some(values)
    }

    fn write_as<T: Element>(&self, at: u64, [alpha, beta]: [f32; 2], values: &[f32]) -> Option<()> {
        let elements = memory::view_mut::<T>(at, self.extent())?;
        let mut values = values.iter();
        self.each(|place| {
            // Without a share of it the old value is not looked at, even where it is no number.
            let old = if beta == 0.0 { 0.0 } else { beta * elements[place].get() };
            elements[place] = T::of(alpha * values.next().copied().unwrap_or(f32::NAN) + old);
        });
        Some(())
    }

    /// The elements from `at` on, in row-major order.
    pub fn read(&self, name: &str, at: u64) -> Answer<Vec<f32>> {
        let read = match self.kind {
            Kind::F32 => self.read_as::<f32>(at),
            Kind::F16 => self.read_as::<F16>(at),
            Kind::Bf16 => self.read_as::<Bf16>(at),
        };
        read.ok_or_else(|| outside(name, at))
    }

    /// Writes alpha · `values` + beta · what is there, from `at` on.
    pub fn write(&self, name: &str, at: u64, blend: [f32; 2], values: &[f32]) -> Answer<()> {
        let written = match self.kind {
            Kind::F32 => self.write_as::<f32>(at, blend, values),
            Kind::F16 => self.write_as::<F16>(at, blend, values),
            Kind::Bf16 => self.write_as::<Bf16>(at, blend, values),
        };
        written.ok_or_else(|| outside(name, at))
    }
}

pub fn outside(name: &str, at: u64) -> Refusal {
    if at == 0 {
        return Refusal(BAD_PARAM, format!("{name} is null"));
    }
    Refusal(EXECUTION_FAILED, format!("{name} lies outside of any allocation"))
}
