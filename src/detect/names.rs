//! Class names that published checkpoints imply by their number of classes (COCO 80 and 91-way, VOC 20).

/// COCO's 80 classes in contiguous order with their category ids.
pub const COCO: [(u32, &str); 80] = [
    (1, "person"),
    (2, "bicycle"),
    (3, "car"),
    (4, "motorcycle"),
    (5, "airplane"),
    (6, "bus"),
    (7, "train"),
    (8, "truck"),
    (9, "boat"),
    (10, "traffic light"),
    (11, "fire hydrant"),
    (13, "stop sign"),
    (14, "parking meter"),
    (15, "bench"),
    (16, "bird"),
    (17, "cat"),
    (18, "dog"),
    (19, "horse"),
    (20, "sheep"),
    (21, "cow"),
    (22, "elephant"),
    (23, "bear"),
    (24, "zebra"),
    (25, "giraffe"),
    (27, "backpack"),
    (28, "umbrella"),
    (31, "handbag"),
    (32, "tie"),
    (33, "suitcase"),
    (34, "frisbee"),
    (35, "skis"),
    (36, "snowboard"),
    (37, "sports ball"),
    (38, "kite"),
    (39, "baseball bat"),
    (40, "baseball glove"),
    (41, "skateboard"),
    (42, "surfboard"),
    (43, "tennis racket"),
    (44, "bottle"),
    (46, "wine glass"),
    (47, "cup"),
    (48, "fork"),
    (49, "knife"),
    (50, "spoon"),
    (51, "bowl"),
    (52, "banana"),
    (53, "apple"),
    (54, "sandwich"),
    (55, "orange"),
    (56, "broccoli"),
    (57, "carrot"),
    (58, "hot dog"),
    (59, "pizza"),
    (60, "donut"),
    (61, "cake"),
    (62, "chair"),
    (63, "couch"),
    (64, "potted plant"),
    (65, "bed"),
    (67, "dining table"),
    (70, "toilet"),
    (72, "tv"),
    (73, "laptop"),
    (74, "mouse"),
    (75, "remote"),
    (76, "keyboard"),
    (77, "cell phone"),
    (78, "microwave"),
    (79, "oven"),
    (80, "toaster"),
    (81, "sink"),
    (82, "refrigerator"),
    (84, "book"),
    (85, "clock"),
    (86, "vase"),
    (87, "scissors"),
    (88, "teddy bear"),
    (89, "hair drier"),
    (90, "toothbrush"),
];

/// Pascal VOC's 20 classes, alphabetical.
pub const VOC: [&str; 20] = [
    "aeroplane",
    "bicycle",
    "bird",
    "boat",
    "bottle",
    "bus",
    "car",
    "cat",
    "chair",
    "cow",
    "diningtable",
    "dog",
    "horse",
    "motorbike",
    "person",
    "pottedplant",
    "sheep",
    "sofa",
    "train",
    "tvmonitor",
];

/// Names for a head of `count` foreground classes: VOC for 20, COCO for 80, COCO by category id for 90 (torchvision,
/// where ten ids are unused), numbered otherwise.
pub fn names_for(count: usize) -> Vec<String> {
    match count {
        20 => VOC.iter().map(|n| (*n).to_string()).collect(),
        80 => COCO.iter().map(|(_, n)| (*n).to_string()).collect(),
        90 => (1..=90u32)
            .map(|id| match COCO.iter().find(|(known, _)| *known == id) {
                Some((_, name)) => (*name).to_string(),
                None => format!("unused {id}"),
            })
            .collect(),
        _ => (0..count).map(|k| format!("class {k}")).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_follow_ids_and_gaps() {
        assert_eq!(names_for(90)[0], "person");
        assert_eq!(names_for(90)[11], "unused 12");
        assert_eq!(names_for(90)[89], "toothbrush");
        assert_eq!(names_for(80)[79], "toothbrush");
        assert_eq!(names_for(20)[14], "person");
        assert_eq!(names_for(3), ["class 0", "class 1", "class 2"]);
    }
}
