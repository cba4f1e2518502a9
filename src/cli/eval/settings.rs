//! What the command line may change of the COCO protocol: thresholds, size ranges, limits, categories.

use super::super::CliError;
use crate::eval::coco::{CocoSettings, IouType};

/// Most values of one kind: the precision array has an entry for every combination of them.
const MOST: usize = 100;

/// Average recall is read at these numbers of proposals.
const PROPOSAL_LIMITS: [usize; 4] = [10, 100, 300, 1000];

#[derive(Debug, Default, clap::Args)]
pub struct Choices {
    /// IoU thresholds instead of .50 to .95
    #[arg(long, value_delimiter = ',', value_name = "IOU,…")]
    iou_thresholds: Vec<f64>,
    /// Size ranges in pixels instead of all, small, medium and large
    #[arg(long, value_delimiter = ',', value_name = "NAME:LOW:HIGH,…", value_parser = area)]
    areas: Vec<(String, f64, f64)>,
    /// Detections kept per image and class, instead of 1, 10 and 100
    #[arg(long, value_delimiter = ',', value_name = "N,…")]
    max_detections: Vec<usize>,
    /// Let a detection find an object of any class, with one result for all
    #[arg(long)]
    class_agnostic: bool,
    /// Print the recall of the best 10, 100, 300 and 1000 detections of an image whatever their class, by size
    #[arg(long)]
    pub proposals: bool,
}

/// `name:low:high`.
fn area(text: &str) -> Result<(String, f64, f64), String> {
    let fields: Vec<&str> = text.split(':').collect();
    let number = |text: &str| text.parse::<f64>().ok().filter(|v| !v.is_nan() && *v >= 0.0);
    match fields[..] {
        [name, low, high] if !name.is_empty() => match (number(low), number(high)) {
            (Some(low), Some(high)) if low <= high => Ok((name.to_owned(), low, high)),
            _ => Err("LOW and HIGH are areas in pixels, the lower one first, say tiny:0:256".to_owned()),
        },
        _ => Err("a size range is NAME:LOW:HIGH, say tiny:0:256".to_owned()),
    }
}

impl Choices {
    /// Whether anything differs from the protocol.
    pub fn are_made(&self) -> bool {
        !self.iou_thresholds.is_empty()
            || !self.areas.is_empty()
            || !self.max_detections.is_empty()
            || self.class_agnostic
            || self.proposals
    }

    /// Values that cannot be scored with.
    pub fn check(&self) -> Result<(), CliError> {
        if let Some(wrong) = self.iou_thresholds.iter().find(|t| !(0.0..=1.0).contains(*t)) {
            return Err(CliError(format!("--iou-thresholds: {wrong} is no IoU: they lie from 0 to 1")));
        }
        if self.max_detections.contains(&0) {
            return Err(CliError("--max-detections: at least 1 detection must be kept".into()));
        }
        let counts = [self.iou_thresholds.len(), self.areas.len(), self.max_detections.len()];
        if counts.iter().any(|&count| count > MOST) {
            return Err(CliError(format!("at most {MOST} thresholds, size ranges and limits can be given")));
        }
        Ok(())
    }

    /// COCO's settings with these choices. The whole range `all` is added where size ranges leave it out, for AP is
    /// read there.
    pub fn settings(&self, iou_type: IouType) -> CocoSettings {
        let mut settings = CocoSettings { iou_type, use_categories: !self.class_agnostic, ..CocoSettings::default() };
        if !self.iou_thresholds.is_empty() {
            settings.thresholds.clone_from(&self.iou_thresholds);
            settings.thresholds.sort_by(f64::total_cmp);
            settings.thresholds.dedup();
        }
        if !self.areas.is_empty() {
            settings.areas.retain(|(name, ..)| name == "all" && self.areas.iter().all(|(own, ..)| own != "all"));
            settings.areas.extend(self.areas.iter().cloned());
        }
        if !self.max_detections.is_empty() {
            settings.max_detections.clone_from(&self.max_detections);
            settings.max_detections.sort_unstable();
            settings.max_detections.dedup();
        }
        settings
    }

    /// Settings for recall among proposals, thresholds and size ranges as chosen.
    pub fn proposal_settings(&self, iou_type: IouType) -> CocoSettings {
        CocoSettings { use_categories: false, max_detections: PROPOSAL_LIMITS.to_vec(), ..self.settings(iou_type) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn size_ranges_have_a_name_and_two_ends() {
        assert_eq!(area("tiny:0:256"), Ok(("tiny".to_owned(), 0.0, 256.0)));
        assert_eq!(area("all:0:1e10").map(|a| a.2), Ok(1e10));
        for text in ["", "tiny", "tiny:0", ":0:1", "a:1:0", "a:x:1", "a:-1:1", "a:0:NaN", "a:0:1:2"] {
            assert!(area(text).is_err(), "{text}");
        }
    }

    #[test]
    fn choices_replace_what_they_name() {
        let plain = Choices::default();
        assert_eq!(plain.settings(IouType::Bbox), CocoSettings::default());
        assert!(!plain.are_made() && plain.check().is_ok());
        let choices = Choices {
            iou_thresholds: vec![0.75, 0.3, 0.75],
            areas: vec![("tiny".to_owned(), 0.0, 9.0)],
            max_detections: vec![50, 5],
            class_agnostic: true,
            proposals: false,
        };
        let settings = choices.settings(IouType::Segm);
        assert_eq!((settings.thresholds, settings.max_detections), (vec![0.3, 0.75], vec![5, 50]));
        let names: Vec<&str> = settings.areas.iter().map(|a| a.0.as_str()).collect();
        assert_eq!((names, settings.use_categories), (vec!["all", "tiny"], false));
        let wrong = Choices { iou_thresholds: vec![50.0], ..Choices::default() };
        assert!(wrong.check().unwrap_err().0.contains("50 is no IoU"));
        assert!(Choices { max_detections: vec![0], ..Choices::default() }.check().is_err());
    }
}
