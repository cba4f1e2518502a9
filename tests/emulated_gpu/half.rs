//! The 16-bit number types, as their bits, to and from f32: to the nearest, of two as near the even one.

/// Moves `bits` right by `by`, from 1 to 31, rounding to the nearest, of two as near to the even one.
fn shift_rounded(bits: u32, by: u32) -> u32 {
    let (kept, lost, half) = (bits >> by, bits & ((1 << by) - 1), 1 << (by - 1));
    kept + u32::from(lost > half || lost == half && kept & 1 == 1)
}

pub fn f16_to_f32(bits: u16) -> f32 {
    let (sign, exponent, mantissa) = (u32::from(bits >> 15) << 31, u32::from(bits >> 10) & 31, u32::from(bits) & 0x3ff);
    let magnitude = match exponent {
        // Subnormal: the mantissa counts steps of 2^-24.
        0 => (mantissa as f32 * f32::from_bits(103 << 23)).to_bits(),
        31 => 0xff << 23 | mantissa << 13,
        _ => (exponent + 112) << 23 | mantissa << 13,
    };
    f32::from_bits(sign | magnitude)
}

pub fn f32_to_f16(value: f32) -> u16 {
    let (sign, magnitude) = ((value.to_bits() >> 16) as u16 & 0x8000, value.to_bits() & 0x7fff_ffff);
    let exponent = magnitude >> 23;
    sign | match exponent {
        255 if magnitude > 0xff << 23 => 0x7e00 | (magnitude >> 13) as u16 & 0x3ff,
        // Rounding may carry into the exponent: 65520 and above become infinite.
        113.. => shift_rounded(magnitude - (112 << 23), 13).min(0x7c00) as u16,
        // Subnormal: steps of 2^-24; below half a step nothing is left.
        102.. => shift_rounded(magnitude & 0x7f_ffff | 0x80_0000, 126 - exponent) as u16,
        _ => 0,
    }
}

pub fn bf16_to_f32(bits: u16) -> f32 {
    f32::from_bits(u32::from(bits) << 16)
}

pub fn f32_to_bf16(value: f32) -> u16 {
    if value.is_nan() { (value.to_bits() >> 16) as u16 | 0x40 } else { shift_rounded(value.to_bits(), 16) as u16 }
}
