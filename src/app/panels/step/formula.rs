//! What an anchor's loss says of the probability that the network gave its class.

use crate::detect::Config;

/// How the classification of an anchor becomes its loss.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Formula {
    /// −ln p_t of a softmax over the classes and background.
    CrossEntropy,
    /// −α_t (1 − p_t)^γ ln p_t, summed over the classes (Lin et al., "Focal Loss", ICCV 2017, eq. 5).
    Focal { alpha: f32, gamma: f32 },
}

impl Formula {
    /// The formula of the loss part called `part`; none for boxes, and where the classes are judged otherwise.
    pub fn of(config: &Config, part: &str) -> Option<Self> {
        if !["class", "conf", "cls"].iter().any(|word| part.contains(word)) {
            return None;
        }
        match config {
            Config::Ssd(_) | Config::Refinedet(_) | Config::M2det(_) => Some(Self::CrossEntropy),
            Config::Retinanet(c) => Some(Self::Focal { alpha: c.focal_alpha, gamma: c.focal_gamma }),
            Config::Fcos(c) => Some(Self::Focal { alpha: c.focal_alpha, gamma: c.focal_gamma }),
            Config::Yolov3(_) | Config::Darknet(_) | Config::Rcnn(_) => None,
        }
    }

    /// For people: the formula with the numbers of an anchor whose loss is `loss`.
    pub fn filled(self, loss: f32, positive: bool) -> String {
        let p = self.probability(loss, positive);
        match self {
            Self::CrossEntropy => format!("CE = −ln p_t = −ln {p:.4} = {loss:.4}"),
            Self::Focal { alpha, gamma } => {
                let weight = self.weight(loss, positive);
                let alpha = if positive { alpha } else { 1.0 - alpha };
                format!(
                    "FL = −α_t (1 − p_t)^γ ln p_t = {loss:.4}: as one class at p_t = {p:.4} would give, with a focal \
                     weight of {alpha:.2} · {:.4}^{gamma:.1} = {weight:.5}",
                    1.0 - p
                )
            }
        }
    }

    /// What multiplies the cross-entropy: 1, or the focal weight.
    pub fn weight(self, loss: f32, positive: bool) -> f32 {
        match self {
            Self::CrossEntropy => 1.0,
            Self::Focal { alpha, gamma } => {
                let alpha = if positive { alpha } else { 1.0 - alpha };
                alpha * (1.0 - self.probability(loss, positive)).powf(gamma)
            }
        }
    }

    /// The probability of what is right that one class would have at this loss.
    pub fn probability(self, loss: f32, positive: bool) -> f32 {
        let Self::Focal { alpha, gamma } = self else {
            return (-loss).exp();
        };
        let (alpha, gamma) = (f64::from(if positive { alpha } else { 1.0 - alpha }), f64::from(gamma));
        let focal = |p: f64| -alpha * (1.0 - p).powf(gamma) * p.ln();
        // It falls all the way from p = 0 to p = 1.
        let (mut low, mut high) = (1e-12f64, 1.0f64);
        for _ in 0..60 {
            let middle = 0.5 * (low + high);
            if focal(middle) > f64::from(loss) { low = middle } else { high = middle }
        }
        (0.5 * (low + high)) as f32
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::detect::Arch;

    #[test]
    fn the_probability_gives_the_loss_again() {
        for p in [0.01f32, 0.3, 0.5, 0.9, 0.999] {
            assert!((Formula::CrossEntropy.probability(-p.ln(), true) - p).abs() < 1e-5);
            for (positive, alpha) in [(true, 0.25), (false, 0.75)] {
                let formula = Formula::Focal { alpha: 0.25, gamma: 2.0 };
                let loss = -alpha * (1.0 - p).powi(2) * p.ln();
                assert!((formula.probability(loss, positive) - p).abs() < 1e-3, "{p} {positive}");
                assert!((formula.weight(loss, positive) - alpha * (1.0 - p).powi(2)).abs() < 1e-3);
            }
        }
    }

    #[test]
    fn each_family_has_its_own_and_boxes_have_none() {
        let config = |arch| Config::new(arch, &["a".to_string()]);
        assert_eq!(Formula::of(&config(Arch::SsdNano), "classification"), Some(Formula::CrossEntropy));
        assert_eq!(Formula::of(&config(Arch::SsdNano), "bbox_regression"), None);
        let focal = Formula::of(&config(Arch::RetinanetNano), "classification");
        assert_eq!(focal, Some(Formula::Focal { alpha: 0.25, gamma: 2.0 }));
        assert_eq!(Formula::of(&config(Arch::FasterNano), "loss_classifier"), None);
        assert!(Formula::CrossEntropy.filled(std::f32::consts::LN_2, true).contains("0.5000"));
    }
}
