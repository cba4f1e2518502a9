//! Rows that mmdetection's detectors share: ResNet, feature pyramid, and the two towers of a dense head.
//!
//! Source: mmdet 2.x and 3.x `ResNet`, `FPN`, `RetinaHead`, `FCOSHead`.

use super::{Group, Row};

/// A ResNet without its classifier; the names below `backbone.` are torchvision's.
pub(super) const BODY: Group = Group { prefix: "backbone.", rows: &[("*", "backbone.body.*")] };

const LATERAL: Row = ("lateral_convs.{i}.conv.*", "backbone.fpn.inner_blocks.{i}.0.*");
const SMOOTH: Row = ("fpn_convs.{i}.conv.*", "backbone.fpn.layer_blocks.{i}.0.*");

/// P2 to P5 of the two-stage detectors.
pub(super) const NECK: Group = Group { prefix: "neck.", rows: &[LATERAL, SMOOTH] };

/// P3 to P5, and P6 and P7 as the fourth and fifth of its convolutions.
pub(super) const NECK_P6_P7: Group = Group {
    prefix: "neck.",
    rows: &[
        LATERAL,
        ("fpn_convs.3.conv.*", "backbone.fpn.extra_blocks.p6.*"),
        ("fpn_convs.4.conv.*", "backbone.fpn.extra_blocks.p7.*"),
        SMOOTH,
    ],
};
