//! The convolution functions: whether descriptors, pointers and workspace fit together, and the blend of what comes out.

use super::descriptors::{convolution, filter, is_relu, tensor};
use super::products::Geometry;
use super::tensor::{Kind, Tensor, outside};
use super::{Answer, NOT_SUPPORTED, Refusal, answer, bad, check_handle, unsupported};
use crate::memory;
use std::ffi::{c_int, c_void};

/// Which of its three tensors a convolution computes.
#[derive(Clone, Copy, PartialEq)]
pub enum Direction {
    Forward,
    Data,
    Filter,
}

/// A convolution whose descriptors fit together. x, the weight and y are also what their gradients are like.
pub struct Problem {
    pub direction: Direction,
    pub geometry: Geometry,
    pub x: Tensor,
    weight: Tensor,
    y: Tensor,
    /// cuDNN's number of the math type.
    pub math: c_int,
    /// Whether f32 factors are rounded to TF32.
    rounds: bool,
    /// Whether the channels of a pixel lie side by side.
    pub channels_last: bool,
}

impl Problem {
    /// From the descriptors of x, the weight, the convolution and y.
    pub fn new(direction: Direction, handle: *mut c_void, [x, weight, conv, y]: [*mut c_void; 4]) -> Answer<Self> {
        check_handle(handle)?;
        let (x, weight, y) = (tensor(x)?, filter(weight)?, tensor(y)?);
        let (conv, window) = convolution(conv)?;
        let misfit = |what: &str| bad(format!("{what}: x {x:?}, weight {weight:?}, y {y:?}, {window:?}, {conv:?}"));
        if x.kind != weight.kind || x.kind != y.kind {
            return misfit("types differ");
        }
        let [batch, channels, height, width] = x.sizes;
        let [outputs, inputs, kernel_height, kernel_width] = weight.sizes;
        let groups = conv.groups;
        if inputs * groups != channels || !outputs.is_multiple_of(groups) {
            return misfit("channels do not fit the groups");
        }
        let (input, kernel) = ([height, width], [kernel_height, kernel_width]);
        let mut output = [0; 2];
        for axis in 0..2 {
            let reach = (kernel[axis] - 1) * window.dilation[axis] + 1;
            let Some(room) = (input[axis] + 2 * window.padding[axis]).checked_sub(reach) else {
                return misfit("the kernel is larger than the padded image");
            };
            output[axis] = room / window.stride[axis] + 1;
        }
        if y.sizes != [batch, outputs, output[0], output[1]] {
            return misfit(&format!("y should be [{batch}, {outputs}, {}, {}]", output[0], output[1]));
        }
        let tensors = [x, weight, y];
        let channels_last =
            tensors.iter().any(|t| !t.has_packed_images()) && tensors.iter().all(Tensor::has_channels_last);
        if channels_last && x.kind == Kind::F32 {
            return unsupported("the channels of f32 come first");
        }
        if direction != Direction::Forward && !y.has_packed_images() && !channels_last {
            return unsupported(format!("the images of the gradient of y are not packed: {y:?}"));
        }
        let geometry = Geometry {
            batch,
            groups,
            inputs,
            outputs: outputs / groups,
            input,
            kernel,
            output,
            padding: window.padding,
            stride: window.stride,
            dilation: window.dilation,
        };
        let rounds = x.kind == Kind::F32 && conv.rounds();
        Ok(Self { direction, geometry, x, weight, y, math: conv.math, rounds, channels_last })
    }

    /// The elements of a factor as they are multiplied.
    fn factors(&self, name: &str, tensor: &Tensor, at: u64) -> Answer<Vec<f32>> {
        let mut values = tensor.read(name, at)?;
        if self.rounds {
            values.iter_mut().for_each(|value| *value = round_tf32(*value));
        }
        Ok(values)
    }

    /// Checks that the output, which comes last, lies over nothing else, and that the algorithm has the workspace that
    /// it asks for; its content is lost.
    fn check_memory(&self, algorithm: c_int, workspace: Memory, tensors: &[(&str, Tensor, u64)]) -> Answer<()> {
        let needed = self.workspace(algorithm).map_err(|Refusal(status, why)| match status {
            NOT_SUPPORTED => Refusal(status, format!("algorithm {algorithm} does not support {:?}", self.geometry)),
            _ => Refusal(status, why),
        })?;
        let Memory { at, bytes } = workspace;
        if bytes < needed {
            return bad(format!("a workspace of {bytes} bytes where algorithm {algorithm} needs {needed}"));
        }
        if needed > 0 && at == 0 {
            return bad("the workspace is null");
        }
        if at != 0 && bytes > 0 && memory::area(at, bytes).is_none() {
            return Err(outside("the workspace", at));
        }
        let meets = |a: &std::ops::Range<u64>, b: &std::ops::Range<u64>| a.start < b.end && b.start < a.end;
        let working = at..at + if at == 0 { 0 } else { bytes as u64 };
        let mut written = None;
        for (name, tensor, at) in tensors.iter().rev() {
            let range = tensor.range(*at);
            if meets(&range, &working) {
                return bad(format!("the workspace lies over {name}"));
            }
            match &written {
                None => written = Some((name, range)),
                Some((output, written)) if meets(&range, written) => {
                    return bad(format!("{output} lies over {name}"));
                }
                Some(_) => {}
            }
        }
        if needed > 0 {
            let Some(working) = memory::view_mut::<u8>(at, needed) else { return Err(outside("the workspace", at)) };
            working.fill(0xff);
        }
        Ok(())
    }
}

/// The nearest f32 with 10 bits of mantissa, of two as near the one farther from zero.
fn round_tf32(value: f32) -> f32 {
    if value.is_finite() { f32::from_bits((value.to_bits() + 0x1000) & !0x1fff) } else { value }
}

/// A stretch of memory that a caller names.
#[derive(Clone, Copy)]
struct Memory {
    at: u64,
    bytes: usize,
}

/// The caller's two factors.
unsafe fn blend(alpha: *const f32, beta: *const f32) -> Answer<[f32; 2]> {
    if alpha.is_null() || beta.is_null() {
        return bad("a scaling factor is null");
    }
    // SAFETY: with sums in f32 the factors are f32 in main memory.
    Ok(unsafe { [alpha.read_unaligned(), beta.read_unaligned()] })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cudnnConvolutionForward(
    handle: *mut c_void,
    alpha: *const f32,
    x_descriptor: *mut c_void,
    x: u64,
    weight_descriptor: *mut c_void,
    weight: u64,
    conv: *mut c_void,
    algorithm: c_int,
    workspace: u64,
    bytes: usize,
    beta: *const f32,
    y_descriptor: *mut c_void,
    y: u64,
) -> i32 {
    answer("cudnnConvolutionForward", || {
        let descriptors = [x_descriptor, weight_descriptor, conv, y_descriptor];
        let problem = Problem::new(Direction::Forward, handle, descriptors)?;
        // SAFETY: the caller's factors.
        let blend = unsafe { blend(alpha, beta)? };
        let tensors = [("x", problem.x, x), ("the weight", problem.weight, weight), ("y", problem.y, y)];
        problem.check_memory(algorithm, Memory { at: workspace, bytes }, &tensors)?;
        let x = problem.factors("x", &problem.x, x)?;
        let weight = problem.factors("the weight", &problem.weight, weight)?;
        problem.y.write("y", y, blend, &problem.geometry.forward(&x, &weight))
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cudnnConvolutionBackwardData(
    handle: *mut c_void,
    alpha: *const f32,
    weight_descriptor: *mut c_void,
    weight: u64,
    dy_descriptor: *mut c_void,
    dy: u64,
    conv: *mut c_void,
    algorithm: c_int,
    workspace: u64,
    bytes: usize,
    beta: *const f32,
    dx_descriptor: *mut c_void,
    dx: u64,
) -> i32 {
    answer("cudnnConvolutionBackwardData", || {
        let descriptors = [dx_descriptor, weight_descriptor, conv, dy_descriptor];
        let problem = Problem::new(Direction::Data, handle, descriptors)?;
        // SAFETY: the caller's factors.
        let blend = unsafe { blend(alpha, beta)? };
        let tensors = [("dy", problem.y, dy), ("the weight", problem.weight, weight), ("dx", problem.x, dx)];
        problem.check_memory(algorithm, Memory { at: workspace, bytes }, &tensors)?;
        let dy = problem.factors("dy", &problem.y, dy)?;
        let weight = problem.factors("the weight", &problem.weight, weight)?;
        problem.x.write("dx", dx, blend, &problem.geometry.data_gradient(&dy, &weight))
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cudnnConvolutionBackwardFilter(
    handle: *mut c_void,
    alpha: *const f32,
    x_descriptor: *mut c_void,
    x: u64,
    dy_descriptor: *mut c_void,
    dy: u64,
    conv: *mut c_void,
    algorithm: c_int,
    workspace: u64,
    bytes: usize,
    beta: *const f32,
    dw_descriptor: *mut c_void,
    dw: u64,
) -> i32 {
    answer("cudnnConvolutionBackwardFilter", || {
        let descriptors = [x_descriptor, dw_descriptor, conv, dy_descriptor];
        let problem = Problem::new(Direction::Filter, handle, descriptors)?;
        // SAFETY: the caller's factors.
        let blend = unsafe { blend(alpha, beta)? };
        let tensors = [("x", problem.x, x), ("dy", problem.y, dy), ("dw", problem.weight, dw)];
        problem.check_memory(algorithm, Memory { at: workspace, bytes }, &tensors)?;
        let x = problem.factors("x", &problem.x, x)?;
        let dy = problem.factors("dy", &problem.y, dy)?;
        problem.weight.write("dw", dw, blend, &problem.geometry.filter_gradient(&x, &dy))
    })
}

/// y = activation(alpha1 · convolution + alpha2 · z + bias); z may be y itself.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cudnnConvolutionBiasActivationForward(
    handle: *mut c_void,
    alpha1: *const f32,
    x_descriptor: *mut c_void,
    x: u64,
    weight_descriptor: *mut c_void,
    weight: u64,
    conv: *mut c_void,
    algorithm: c_int,
    workspace: u64,
    bytes: usize,
    alpha2: *const f32,
    z_descriptor: *mut c_void,
    z: u64,
    bias_descriptor: *mut c_void,
    bias: u64,
    activation: *mut c_void,
    y_descriptor: *mut c_void,
    y: u64,
) -> i32 {
    answer("cudnnConvolutionBiasActivationForward", || {
        let descriptors = [x_descriptor, weight_descriptor, conv, y_descriptor];
        let problem = Problem::new(Direction::Forward, handle, descriptors)?;
        let (of_z, of_bias, relu) = (tensor(z_descriptor)?, tensor(bias_descriptor)?, is_relu(activation)?);
        let channels = problem.y.sizes[1];
        if of_bias.sizes != [1, channels, 1, 1] || of_bias.strides[1] != 1 || of_bias.kind != problem.y.kind {
            return bad(format!("bias {of_bias:?} for y {:?}", problem.y));
        }
        if of_z.sizes != problem.y.sizes || of_z.kind != problem.y.kind {
            return bad(format!("z {of_z:?} for y {:?}", problem.y));
        }
        if !relu && algorithm != 1 {
            return unsupported("without an activation only algorithm 1 (implicit, precomputed) works");
        }
        // SAFETY: the caller's factors.
        let [alpha1, alpha2] = unsafe { blend(alpha1, alpha2)? };
        let mut tensors = vec![("x", problem.x, x), ("the weight", problem.weight, weight), ("bias", of_bias, bias)];
        if z != y || of_z.strides != problem.y.strides {
            tensors.push(("z", of_z, z));
        }
        tensors.push(("y", problem.y, y));
        problem.check_memory(algorithm, Memory { at: workspace, bytes }, &tensors)?;
        let x = problem.factors("x", &problem.x, x)?;
        let weight = problem.factors("the weight", &problem.weight, weight)?;
        let (z, bias) = (of_z.read("z", z)?, of_bias.read("bias", bias)?);
        let mut values = problem.geometry.forward(&x, &weight);
        for (index, (value, z)) in values.iter_mut().zip(z).enumerate() {
            let z = if alpha2 == 0.0 { 0.0 } else { alpha2 * z };
            *value = alpha1 * *value + z + bias[index / problem.geometry.output_plane() % channels];
            if relu {
                *value = value.max(0.0);
            }
        }
        problem.y.write("y", y, [1.0, 0.0], &values)
    })
}
