//! Where a head's logits have their background. A checkpoint's code base tells ([`super::conventions`]); a person may
//! know better.

use super::Config;
use super::fcos::FcosConfig;
use super::rcnn::{Background, RcnnConfig};
use super::retinanet::{ClassLayout, RetinanetConfig};
use std::fmt;
use std::str::FromStr;

/// The order of a head's logits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClassOrder {
    BackgroundFirst,
    BackgroundLast,
    NoBackground,
}

impl ClassOrder {
    pub const ALL: [Self; 3] = [Self::BackgroundFirst, Self::BackgroundLast, Self::NoBackground];
}

impl fmt::Display for ClassOrder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::BackgroundFirst => "first",
            Self::BackgroundLast => "last",
            Self::NoBackground => "none",
        })
    }
}

impl FromStr for ClassOrder {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let found = Self::ALL.into_iter().find(|order| order.to_string() == text);
        found.ok_or_else(|| "the background is first, last or none".to_string())
    }
}

/// The settings for weights of this order; nothing where such a head cannot have it.
pub fn ordered(config: Config, order: ClassOrder) -> Option<Config> {
    let class_layout = match order {
        ClassOrder::BackgroundFirst => Some(ClassLayout::UnusedFirst),
        ClassOrder::BackgroundLast => None,
        ClassOrder::NoBackground => Some(ClassLayout::Contiguous),
    };
    Some(match config {
        Config::Retinanet(own) => Config::Retinanet(RetinanetConfig { class_layout: class_layout?, ..own }),
        Config::Fcos(own) => Config::Fcos(FcosConfig { class_layout: class_layout?, ..own }),
        Config::Rcnn(own) => {
            let background = match order {
                ClassOrder::BackgroundFirst => Background::First,
                ClassOrder::BackgroundLast => Background::Last,
                ClassOrder::NoBackground => return None,
            };
            Config::Rcnn(RcnnConfig { background, ..own })
        }
        // their logits are turned when they are loaded, so that background is first
        Config::Ssd(_) | Config::Refinedet(_) | Config::M2det(_) => {
            (order != ClassOrder::NoBackground).then_some(config)?
        }
        Config::Yolov3(_) | Config::Darknet(_) => (order == ClassOrder::NoBackground).then_some(config)?,
    })
}

/// Where the class logits of SSD, RefineDet and M2Det are: what the parameters' names start with, and the logits of an
/// anchor, background among them.
pub fn softmax_logits(config: &Config) -> Option<(&'static str, usize)> {
    match config {
        Config::Ssd(ssd) => Some(("head.classification_head.module_list.", ssd.logits())),
        Config::Refinedet(refinedet) => Some(("odm_conf.", refinedet.logits())),
        Config::M2det(m2det) => Some(("conf.", m2det.logits())),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::detect::Arch;

    #[test]
    fn each_head_takes_the_orders_that_it_can_have() {
        let classes = ["a".to_string(), "b".to_string()];
        let (first, last, none) = (ClassOrder::BackgroundFirst, ClassOrder::BackgroundLast, ClassOrder::NoBackground);
        for (arch, possible) in [
            (Arch::Ssd300, [true, true, false]),
            (Arch::M2det320, [true, true, false]),
            (Arch::RetinanetR50, [true, false, true]),
            (Arch::FcosR50, [true, false, true]),
            (Arch::CascadeR50, [true, true, false]),
            (Arch::Yolov3, [false, false, true]),
        ] {
            let config = Config::new(arch, &classes);
            assert_eq!([first, last, none].map(|order| ordered(config.clone(), order).is_some()), possible, "{arch}");
        }
        let Some(Config::Retinanet(changed)) = ordered(Config::new(Arch::RetinanetR50, &classes), none) else {
            panic!("another family")
        };
        assert_eq!(changed.class_layout, ClassLayout::Contiguous);
    }

    #[test]
    fn orders_are_written_as_they_are_read() {
        for order in ClassOrder::ALL {
            assert_eq!(order.to_string().parse::<ClassOrder>(), Ok(order));
        }
        assert!("middle".parse::<ClassOrder>().unwrap_err().contains("first, last or none"));
    }
}
