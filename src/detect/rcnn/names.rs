//! Names under which other programs record what these networks compute.

/// This program's name of an output or a part of the loss that mmdet records as `reference`; other names are handed
/// back as they are. None for what is no output and no loss here (mmdet's accuracy).
pub fn native_name(reference: &str) -> Option<String> {
    let parts: Vec<&str> = reference.split('.').collect();
    Some(match parts.as_slice() {
        ["neck", "4"] => "fpn.pool".to_string(),
        ["neck", level] => format!("fpn.{level}"),
        ["rpn_head", "0", level] => format!("rpn_head.logits{level}"),
        ["rpn_head", "1", level] => format!("rpn_head.deltas{level}"),
        ["roi_head", "bbox_head", stage, "0"] => format!("box_predictor.{stage}.logits"),
        ["roi_head", "bbox_head", stage, "1"] => format!("box_predictor.{stage}.deltas"),
        ["loss_rpn_cls"] => "loss_objectness".to_string(),
        ["loss_rpn_bbox"] => "loss_rpn_box_reg".to_string(),
        [stage, "loss_cls"] => format!("{stage}.loss_classifier"),
        [stage, "loss_bbox"] => format!("{stage}.loss_box_reg"),
        [_, "acc"] => return None,
        _ => reference.to_string(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn recorded_names_become_native_ones() {
        for (reference, native) in [
            ("neck.0", "fpn.0"),
            ("neck.4", "fpn.pool"),
            ("rpn_head.1.3", "rpn_head.deltas3"),
            ("roi_head.bbox_head.2.0", "box_predictor.2.logits"),
            ("loss_rpn_cls", "loss_objectness"),
            ("s1.loss_bbox", "s1.loss_box_reg"),
            ("loss_mask", "loss_mask"),
            ("fpn.pool", "fpn.pool"),
        ] {
            assert_eq!(native_name(reference).as_deref(), Some(native));
        }
        assert_eq!(native_name("s0.acc"), None);
    }
}
