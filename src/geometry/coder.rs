//! The box code (dx, dy, dw, dh): a target relative to its anchor's centre and size.

use super::BBox;
use serde::{Deserialize, Serialize};

/// ln(1000 / 16): the largest side that torchvision and detectron2 decode is 62.5 times the anchor's.
const MAX_LOG: f32 = 4.135_166_6;

/// Box code with deviations `std` (the "variances" of SSD; torchvision calls 1 / std the weights).
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct BoxCoder {
    /// Deviations of dx, dy, dw, dh.
    pub std: [f32; 4],
    /// Upper limit of dw and dh before the exponential; there is no lower one.
    pub max_log: Option<f32>,
}

impl BoxCoder {
    /// SSD's variances and the RoI heads' weights 10, 10, 5, 5, with torchvision's clamp.
    pub const SSD: Self = Self { std: [0.1, 0.1, 0.2, 0.2], max_log: Some(MAX_LOG) };
    /// RetinaNet and RPN: deviations 1, with torchvision's clamp.
    pub const RETINA: Self = Self { std: [1.0; 4], max_log: Some(MAX_LOG) };

    /// Code of `target` relative to `anchor`. Both need positive sides: a flat target has dw or dh −∞.
    pub fn encode(&self, anchor: BBox, target: BBox) -> [f32; 4] {
        let [ax, ay, aw, ah] = anchor.to_cxcywh();
        let [tx, ty, tw, th] = target.to_cxcywh();
        [
            (tx - ax) / aw / self.std[0],
            (ty - ay) / ah / self.std[1],
            (tw / aw).ln() / self.std[2],
            (th / ah).ln() / self.std[3],
        ]
    }

    /// The box that `deltas` mean for `anchor`; a NaN stays a NaN.
    pub fn decode(&self, anchor: BBox, deltas: [f32; 4]) -> BBox {
        let [ax, ay, aw, ah] = anchor.to_cxcywh();
        let cx = deltas[0] * self.std[0] * aw + ax;
        let cy = deltas[1] * self.std[1] * ah + ay;
        let w = self.limited(deltas[2] * self.std[2]).exp() * aw;
        let h = self.limited(deltas[3] * self.std[3]).exp() * ah;
        BBox::from_cxcywh(cx, cy, w, h)
    }

    /// Written with `>` because `f32::min` would turn a NaN into the limit.
    fn limited(&self, log: f32) -> f32 {
        match self.max_log {
            Some(limit) if log > limit => limit,
            _ => log,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_of_a_hand_computed_pair() {
        let anchor = BBox::new(0.0, 0.0, 10.0, 20.0);
        // centre (8, 12), size 20 × 10: dx = 3 / 10, dy = 2 / 20, dw = ln 2, dh = −ln 2
        let target = BBox::new(-2.0, 7.0, 18.0, 17.0);
        let ln2 = std::f32::consts::LN_2;
        let expected = [0.3, 0.1, ln2, -ln2];
        for (coder, std) in [(BoxCoder::RETINA, [1.0; 4]), (BoxCoder::SSD, [0.1, 0.1, 0.2, 0.2])] {
            let code = coder.encode(anchor, target);
            for k in 0..4 {
                assert!((code[k] - expected[k] / std[k]).abs() < 1e-5, "{code:?}");
            }
            let back = coder.decode(anchor, code);
            for (a, b) in [(back.x0, -2.0), (back.y0, 7.0), (back.x1, 18.0), (back.y1, 17.0)] {
                assert!((a - b).abs() < 1e-4, "{back:?}");
            }
        }
    }

    #[test]
    fn zero_deltas_mean_the_anchor() {
        let anchor = BBox::new(3.0, -4.0, 11.0, 40.0);
        assert_eq!(BoxCoder::SSD.decode(anchor, [0.0; 4]), anchor);
        assert_eq!(BoxCoder::SSD.encode(anchor, anchor), [0.0; 4]);
    }

    #[test]
    fn sides_are_limited_above_only_and_nan_shows() {
        let anchor = BBox::from_cxcywh(0.0, 0.0, 16.0, 16.0);
        let wide = BoxCoder::RETINA.decode(anchor, [0.0, 0.0, 100.0, -3.0]);
        assert!((wide.width() - 1000.0).abs() < 1e-2);
        assert!((wide.height() - 16.0 * (-3.0_f32).exp()).abs() < 1e-5);
        let free = BoxCoder { max_log: None, ..BoxCoder::RETINA }.decode(anchor, [0.0, 0.0, 5.0, 0.0]);
        assert!((free.width() / (16.0 * 5.0_f32.exp()) - 1.0).abs() < 1e-5);
        assert!(BoxCoder::SSD.decode(anchor, [0.0, 0.0, f32::NAN, 0.0]).width().is_nan());
    }
}
