//! Which algorithms cuDNN has, what each is documented to support, and the workspace that each asks for.
//!
//! All compute the same here. The order in which a query names them, and the sizes, are like the library's, not its own.

use super::conv::{Direction, Problem};
use super::tensor::Kind;
use super::{Answer, NOT_SUPPORTED, Refusal, SUCCESS, answer, bad};
use std::ffi::{c_int, c_void};

/// How an algorithm works, as far as that decides what it supports and needs.
#[derive(Clone, Copy, PartialEq)]
enum Method {
    /// In the documentation, and in no library.
    Missing,
    /// Takes every shape, and no workspace.
    Implicit,
    /// With a table of places.
    Precomputed,
    /// With the pixels of every tap copied out.
    Explicit,
    Fft,
    FftTiles,
    Winograd,
    WinogradNonFused,
}

use Method::{Explicit, Fft, FftTiles, Implicit, Missing, Precomputed, Winograd, WinogradNonFused};

impl Direction {
    /// The methods under their numbers.
    fn methods(self) -> &'static [Method] {
        match self {
            Self::Forward => &[Implicit, Precomputed, Explicit, Missing, Fft, FftTiles, Winograd, WinogradNonFused],
            Self::Data => &[Implicit, Precomputed, Fft, FftTiles, Winograd, WinogradNonFused],
            Self::Filter => &[Implicit, Precomputed, Fft, Implicit, Missing, WinogradNonFused, FftTiles],
        }
    }

    /// The numbers in the order of a query's answer.
    fn order(self) -> &'static [usize] {
        match self {
            Self::Forward => &[7, 1, 0, 6, 2, 5, 4, 3],
            Self::Data => &[5, 1, 0, 4, 3, 2],
            Self::Filter => &[5, 1, 3, 0, 6, 2, 4],
        }
    }
}

impl Problem {
    fn method(&self, algorithm: c_int) -> Answer<Method> {
        match usize::try_from(algorithm).ok().and_then(|number| self.direction.methods().get(number)) {
            Some(method) => Ok(*method),
            None => bad(format!("algorithm {algorithm}")),
        }
    }

    /// Whether the documentation of cuDNN says that an algorithm takes this shape and type.
    fn supports(&self, algorithm: c_int) -> Answer<bool> {
        let geometry = &self.geometry;
        let undilated = geometry.dilation == [1, 1];
        let slides = undilated && geometry.stride == [1, 1];
        let kernel = geometry.kernel;
        let covered = (0..2).all(|axis| kernel[axis] > geometry.padding[axis]);
        let padded = |axis: usize| geometry.input[axis] + 2 * geometry.padding[axis];
        let kind = self.x.kind;
        if self.channels_last && self.method(algorithm)? != Precomputed {
            return Ok(false);
        }
        Ok(match self.method(algorithm)? {
            Missing => false,
            Implicit => algorithm != 3 || undilated,
            Precomputed => undilated || self.direction != Direction::Forward,
            Explicit => undilated,
            Fft => slides && covered && padded(0) <= 256 && padded(1) <= 256 && kind != Kind::Bf16,
            FftTiles => slides && covered && kernel[0] <= 32 && kernel[1] <= 32 && kind != Kind::Bf16,
            Winograd => slides && kernel == [3, 3] && kind != Kind::Bf16,
            WinogradNonFused => slides && (kernel == [3, 3] || kernel == [5, 5]),
        })
    }

    /// The bytes that an algorithm works in; refused, without a word, where it does not support the problem.
    pub fn workspace(&self, algorithm: c_int) -> Answer<usize> {
        if !self.supports(algorithm)? {
            return Err(Refusal(NOT_SUPPORTED, String::new()));
        }
        let geometry = &self.geometry;
        // Values of all that is transformed, in tiles of so many output pixels.
        let transformed = |tile: [usize; 2]| {
            let tiles = geometry.output[0].div_ceil(tile[0]) * geometry.output[1].div_ceil(tile[1]);
            let values = (tile[0] + geometry.kernel[0] - 1) * (tile[1] + geometry.kernel[1] - 1);
            let images = geometry.batch * geometry.groups * (geometry.inputs + geometry.outputs) * tiles;
            values * (images + geometry.groups * geometry.inputs * geometry.outputs)
        };
        let table = geometry.taps() * geometry.output_plane();
        Ok(match self.method(algorithm)? {
            Missing | Implicit => 0,
            Precomputed => 4 * table,
            Explicit => 4 * table * geometry.batch * geometry.groups * geometry.inputs,
            Fft => 8 * transformed(geometry.output),
            FftTiles => 8 * transformed(geometry.kernel.map(|side| 33 - side)),
            Winograd => 4 * transformed([2, 2]),
            WinogradNonFused => 4 * transformed([4, 4]),
        })
    }
}

/// What a query says of an algorithm; the same in all three directions.
#[repr(C)]
pub struct Performance {
    algorithm: c_int,
    status: c_int,
    milliseconds: f32,
    workspace: usize,
    deterministic: c_int,
    math: c_int,
    reserved: [c_int; 3],
}

impl Problem {
    /// All algorithms: those that support the problem first, in the order of their supposed speed.
    fn performances(&self) -> Answer<Vec<Performance>> {
        let mut performances = Vec::new();
        for (rank, &number) in self.direction.order().iter().enumerate() {
            let algorithm = number as c_int;
            let supported = self.supports(algorithm)?;
            // The method without a table sums the gradients atomically.
            let deterministic = self.direction == Direction::Forward || self.method(algorithm)? != Implicit;
            performances.push(Performance {
                algorithm,
                status: if supported { SUCCESS } else { NOT_SUPPORTED },
                milliseconds: if supported { 1.0 + rank as f32 } else { -1.0 },
                workspace: if supported { self.workspace(algorithm)? } else { 0 },
                deterministic: deterministic.into(),
                math: self.math,
                reserved: [0; 3],
            });
        }
        performances.sort_by_key(|performance| performance.status);
        Ok(performances)
    }
}

/// Writes as many algorithms as are asked for to the caller's places.
unsafe fn query(problem: &Problem, asked: c_int, count: *mut c_int, places: *mut Performance) -> Answer<()> {
    let performances = problem.performances()?;
    if asked < 1 || count.is_null() || places.is_null() {
        return bad(format!("{asked} algorithms asked for, or no place for them"));
    }
    let mut written = 0;
    for performance in performances.into_iter().take(asked as usize) {
        // SAFETY: the caller has room for as many as it asks for.
        unsafe { places.add(written as usize).write(performance) };
        written += 1;
    }
    // SAFETY: the caller's place for the number.
    unsafe { count.write(written) };
    Ok(())
}

/// A direction's two questions, with the places at which x, the weight, the convolution and y come among the
/// descriptors.
macro_rules! questions {
    ($($direction:ident $query:ident $size:ident $places:expr;)*) => {$(
        #[unsafe(no_mangle)]
        pub unsafe extern "C" fn $query(
            handle: *mut c_void,
            a: *mut c_void,
            b: *mut c_void,
            c: *mut c_void,
            d: *mut c_void,
            asked: c_int,
            count: *mut c_int,
            performances: *mut Performance,
        ) -> i32 {
            answer(stringify!($query), || {
                let descriptors = $places.map(|place: usize| [a, b, c, d][place]);
                let problem = Problem::new(Direction::$direction, handle, descriptors)?;
                // SAFETY: the caller's places.
                unsafe { query(&problem, asked, count, performances) }
            })
        }

        #[unsafe(no_mangle)]
        pub unsafe extern "C" fn $size(
            handle: *mut c_void,
            a: *mut c_void,
            b: *mut c_void,
            c: *mut c_void,
            d: *mut c_void,
            algorithm: c_int,
            size: *mut usize,
        ) -> i32 {
            answer(stringify!($size), || {
                let descriptors = $places.map(|place: usize| [a, b, c, d][place]);
                let bytes = Problem::new(Direction::$direction, handle, descriptors)?.workspace(algorithm)?;
                if size.is_null() {
                    return bad("no place for the size");
                }
                // SAFETY: the caller's place for the size.
                unsafe { size.write(bytes) };
                Ok(())
            })
        }
    )*};
}

questions! {
    Forward cudnnGetConvolutionForwardAlgorithm_v7 cudnnGetConvolutionForwardWorkspaceSize [0, 1, 2, 3];
    Data cudnnGetConvolutionBackwardDataAlgorithm_v7 cudnnGetConvolutionBackwardDataWorkspaceSize [3, 0, 2, 1];
    Filter cudnnGetConvolutionBackwardFilterAlgorithm_v7 cudnnGetConvolutionBackwardFilterWorkspaceSize [0, 3, 2, 1];
}
