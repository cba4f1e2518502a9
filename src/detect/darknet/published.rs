//! The published networks as cfg texts: YOLOv3, YOLOv3-SPP and YOLOv3-tiny for any number of classes.
//!
//! Redmon & Farhadi, "YOLOv3: An Incremental Improvement" (2018); layers and their order are those of `yolov3.cfg`,
//! `yolov3-spp.cfg` and `yolov3-tiny.cfg`, so their weights files load.

use std::fmt::Write as _;

/// Priors of YOLOv3 and YOLOv3-SPP, width and height in pixels of a 416×416 input.
const ANCHORS: &str = "10,13, 16,30, 33,23, 30,61, 62,45, 59,119, 116,90, 156,198, 373,326";
/// Those of YOLOv3-tiny.
const TINY_ANCHORS: &str = "10,14, 23,27, 37,58, 81,82, 135,169, 344,319";

/// A cfg under construction; sections are separated by an empty line.
struct Text(String);

impl Text {
    fn new(side: usize) -> Self {
        Self(format!("[net]\nwidth={side}\nheight={side}\nchannels=3\n"))
    }

    fn section(&mut self, lines: &str) {
        // writing to a String cannot fail
        let _ = write!(self.0, "\n{lines}");
    }

    /// With batch normalisation and the leaky rectifier.
    fn convolution(&mut self, filters: usize, size: usize, stride: usize) {
        self.section(&format!(
            "[convolutional]\nbatch_normalize=1\nfilters={filters}\nsize={size}\nstride={stride}\npad=1\n\
             activation=leaky\n"
        ));
    }

    /// 1×1 to half the filters, 3×3 to all, added to what came in.
    fn residual(&mut self, filters: usize) {
        self.convolution(filters / 2, 1, 1);
        self.convolution(filters, 3, 1);
        self.section("[shortcut]\nfrom=-3\nactivation=linear\n");
    }

    /// 1×1 to `filters` and 3×3 to twice as many, `pairs` times.
    fn pairs(&mut self, filters: usize, pairs: usize) {
        for _ in 0..pairs {
            self.convolution(filters, 1, 1);
            self.convolution(2 * filters, 3, 1);
        }
    }

    fn max_pool(&mut self, size: usize, stride: usize) {
        self.section(&format!("[maxpool]\nsize={size}\nstride={stride}\n"));
    }

    fn route(&mut self, layers: &str) {
        self.section(&format!("[route]\nlayers={layers}\n"));
    }

    /// The last convolution of a level and its detection layer.
    fn detection(&mut self, mask: &str, anchors: &str, count: usize, classes: usize) {
        let filters = 3 * (classes + 5);
        self.section(&format!("[convolutional]\nsize=1\nstride=1\npad=1\nfilters={filters}\nactivation=linear\n"));
        self.section(&format!(
            "[yolo]\nmask={mask}\nanchors={anchors}\nclasses={classes}\nnum={count}\nignore_thresh=.7\n\
             truth_thresh=1\n"
        ));
    }

    /// From the level before to one of twice the size: back to its last 1×1, reduced, enlarged, beside layer `beside`.
    fn enlarged(&mut self, filters: usize, beside: usize) {
        self.route("-4");
        self.convolution(filters, 1, 1);
        self.section("[upsample]\nstride=2\n");
        self.route(&format!("-1,{beside}"));
    }
}

/// YOLOv3 on Darknet-53; with `spp` three pools of 5, 9 and 13 pixels join the coarsest map.
pub(super) fn yolov3(classes: usize, side: usize, spp: bool) -> String {
    let mut text = Text::new(side);
    text.convolution(32, 3, 1);
    for (filters, blocks) in [(64, 1), (128, 2), (256, 8), (512, 8), (1024, 4)] {
        text.convolution(filters, 3, 2);
        for _ in 0..blocks {
            text.residual(filters);
        }
    }
    text.pairs(512, 1);
    text.convolution(512, 1, 1);
    if spp {
        text.max_pool(5, 1);
        text.route("-2");
        text.max_pool(9, 1);
        text.route("-4");
        text.max_pool(13, 1);
        text.route("-1,-3,-5,-6");
        text.convolution(512, 1, 1);
    }
    text.convolution(1024, 3, 1);
    text.pairs(512, 1);
    text.detection("6,7,8", ANCHORS, 9, classes);
    text.enlarged(256, 61);
    text.pairs(256, 3);
    text.detection("3,4,5", ANCHORS, 9, classes);
    text.enlarged(128, 36);
    text.pairs(128, 3);
    text.detection("0,1,2", ANCHORS, 9, classes);
    text.0
}

/// YOLOv3-tiny.
pub(super) fn tiny(classes: usize, side: usize) -> String {
    let mut text = Text::new(side);
    for filters in [16, 32, 64, 128, 256, 512] {
        text.convolution(filters, 3, 1);
        // the last pool keeps the size
        text.max_pool(2, if filters == 512 { 1 } else { 2 });
    }
    text.convolution(1024, 3, 1);
    text.pairs(256, 1);
    text.detection("3,4,5", TINY_ANCHORS, 6, classes);
    text.enlarged(128, 8);
    text.convolution(256, 3, 1);
    text.detection("0,1,2", TINY_ANCHORS, 6, classes);
    text.0
}

#[cfg(test)]
mod tests {
    use super::super::cfg::parse;
    use super::super::layers::{Layer, Plan, plan};
    use super::*;

    fn planned(text: &str, side: usize) -> Plan {
        plan(&parse(text).unwrap(), (side, side)).unwrap()
    }

    #[test]
    fn floats_and_layers_are_those_of_the_published_files() {
        // (size of the weights file − 20) / 4
        for (text, side, floats, sections) in [
            (yolov3(80, 416, false), 416, (248_007_048 - 20) / 4, 107),
            (yolov3(20, 416, false), 416, (246_714_648 - 20) / 4, 107),
            (yolov3(80, 608, true), 608, (252_209_544 - 20) / 4, 114),
            (tiny(80, 416), 416, (35_434_956 - 20) / 4, 24),
        ] {
            let plan = planned(&text, side);
            assert_eq!((plan.floats, plan.layers.len()), (floats, sections));
        }
    }

    #[test]
    fn detection_layers_stand_where_the_papers_cfg_has_them() {
        let positions = |plan: &Plan| -> Vec<(usize, usize)> {
            let layers = plan.layers.iter().enumerate();
            layers.filter(|(_, p)| matches!(p.layer, Layer::Yolo(_))).map(|(i, p)| (i, p.output.height)).collect()
        };
        assert_eq!(positions(&planned(&yolov3(80, 416, false), 416)), [(82, 13), (94, 26), (106, 52)]);
        assert_eq!(positions(&planned(&yolov3(80, 608, true), 608)), [(89, 19), (101, 38), (113, 76)]);
        assert_eq!(positions(&planned(&tiny(80, 416), 416)), [(16, 13), (23, 26)]);
        // the three pools and what they pooled side by side
        assert_eq!(planned(&yolov3(80, 608, true), 608).layers[83].output.channels, 2048);
    }
}
