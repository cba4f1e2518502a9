//! `boxwright render`: any view as a PNG, SVG or CSV, without a window.

mod asked;
mod cascade;
mod pass;
mod scored;

use super::{Answer, CliError, Outcome};
use crate::app::export::{self, Figure, records};
use crate::app::outcome::{Coloring, OutcomeFilter};
use crate::engine::curves::Curves;
use crate::engine::runs::Runs;
use clap::ValueEnum;
use std::path::{Path, PathBuf};

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum View {
    /// The picture with its boxes
    Image,
    /// Loss and its parts of a run folder, by iteration
    Losses,
    /// Histogram of candidate scores before suppression
    Scores,
    /// Histogram of every anchor's best IoU with an object
    AnchorIou,
    /// Anchors over the picture, by what they should learn
    Anchors,
    /// Feature maps side by side
    Features,
    /// Detections by the level of the pyramid that they come from
    Levels,
    /// Candidates before suppression and detections after
    Suppression,
    /// Best boxes after every stage (detectors with proposals)
    Proposals,
    /// Scores of every class on a data set (CSV)
    Numbers,
    /// Precision by recall on a data set
    Pr,
    /// Precision, recall and F1 by score on a data set
    ByScore,
    /// Confusion matrix on a data set
    Confusion,
    /// Kinds of mistakes on a data set, and what each costs
    Errors,
    /// Why objects of a data set are missed at --score, by cause and class
    Misses,
    /// What is found, wrong and missed in each image of a data set at --score, worst first (CSV)
    Worst,
    /// Two to four models on one image, and where they disagree
    Compare,
    /// Scores of two to four models on a data set, and how sure their difference is
    CompareData,
    /// Images of a data set with their sizes and objects
    Images,
    /// What is wrong with a data set
    Health,
    /// An image before and after augmentation, as --epoch of training sees it
    Augmentation,
    /// Load report of a model, key by key
    Model,
    /// Who enters the loss of a first training step
    Step,
    /// Loss by learning rate of a short test before training
    RangeTest,
    /// What happened to the run in a run folder
    Log,
    /// Runs in a folder of runs
    Runs,
    /// Sizes, shapes and number of objects in a data set
    Statistics,
    /// Overlap of every stage's boxes with the objects of a data set, and what each head adds (two-stage detectors)
    CascadeIou,
}

/// How the channels of a feature map become one picture.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Reduce {
    Mean,
    Max,
    /// The three principal components as red, green and blue
    Pca,
}

#[derive(Debug, clap::Args)]
pub struct Arguments {
    #[arg(long, value_enum)]
    view: View,
    /// File to write; its ending (.png, .svg, .csv) says how
    #[arg(long)]
    out: PathBuf,
    /// Image, data set or (for losses and log) run folder, or (for runs) folder of runs
    #[arg(long, default_value = "shapes")]
    data: String,
    /// Split of the data set
    #[arg(long)]
    split: Option<String>,
    /// Which image of the data set
    #[arg(long, default_value_t = 0)]
    index: usize,
    /// Epoch that augmentation draws its chances from
    #[arg(long, default_value_t = 0)]
    epoch: u64,
    /// Architecture; may be left out when the weights say it
    #[arg(long)]
    model: Option<String>,
    /// Weights file; the embedded ones when left out
    #[arg(long)]
    weights: Option<PathBuf>,
    /// What compare sets against the model: weights, or COCO results (.json); up to three times
    #[arg(long)]
    against: Vec<PathBuf>,
    /// Architectures of the weights in --against, in their order; further ones are sides with their embedded weights
    #[arg(long)]
    against_model: Vec<String>,
    /// Lowest score that is drawn
    #[arg(long, default_value_t = 0.4)]
    score: f32,
    /// Also draw ground truth
    #[arg(long)]
    truth: bool,
    /// Also write class and score at the boxes
    #[arg(long)]
    labels: bool,
    /// What the colours of detections in image tell
    #[arg(long, value_enum, default_value_t = Coloring::Class)]
    color: Coloring,
    /// What image shows, by verdicts at IoU 0.5 and --score
    #[arg(long, value_enum, default_value_t = OutcomeFilter::All)]
    only: OutcomeFilter,
    /// Also draw positive anchors and mined negatives
    #[arg(long)]
    anchors: bool,
    /// Feature map to lay over the picture (conv4, features.0, …)
    #[arg(long)]
    heat: Option<String>,
    /// Feature maps for features; all when left out
    #[arg(long = "map")]
    maps: Vec<String>,
    /// How features and --heat make one picture of a map's channels
    #[arg(long, value_enum, default_value_t = Reduce::Mean)]
    reduce: Reduce,
    /// Boxes that proposals draws, best first
    #[arg(long, default_value_t = 100)]
    best: usize,
    /// Images that cascade-iou looks at
    #[arg(long, default_value_t = 100)]
    limit: usize,
    /// Proposals for cascade-iou instead of the model's own: a JSON list of image_id, bbox and maybe score
    #[arg(long)]
    proposals: Option<PathBuf>,
    /// Write cascade-iou's numbers as JSON instead of a table (- for stdout)
    #[arg(long)]
    json: Option<PathBuf>,
    /// Numbers, pr and by-score of masks instead of boxes
    #[arg(long)]
    masks: bool,
    /// Draw although weights are missing or random
    #[arg(long)]
    allow_partial: bool,
    /// Width and height of a plot
    #[arg(long, num_args = 2, default_values_t = [960, 540])]
    size: Vec<u32>,
}

pub fn run(arguments: &Arguments) -> Outcome {
    // An ending that cannot be written is no reason to run a network first.
    export::Format::of(&arguments.out)?;
    match arguments.view {
        View::Losses => losses(arguments)?,
        View::Statistics => scored::statistics(arguments)?,
        View::CascadeIou => cascade::draw(arguments)?,
        View::Compare | View::CompareData => scored::compare(arguments)?,
        View::Log => log(arguments)?,
        View::Images | View::Health | View::Augmentation | View::Model | View::Step | View::RangeTest => {
            asked::draw(arguments)?;
        }
        View::Runs => runs(arguments)?,
        View::Numbers | View::Pr | View::ByScore | View::Confusion | View::Errors | View::Misses | View::Worst => {
            scored::evaluation(arguments)?;
        }
        View::Image
        | View::Scores
        | View::AnchorIou
        | View::Anchors
        | View::Features
        | View::Levels
        | View::Suppression
        | View::Proposals => pass::draw(arguments)?,
    }
    if arguments.json.as_deref() != Some(Path::new("-")) {
        println!("{}", arguments.out.display());
    }
    Ok(Answer::Yes)
}

fn write(arguments: &Arguments, figure: &Figure) -> Result<(), CliError> {
    let side = |at: usize| arguments.size.get(at).copied().unwrap_or(540).clamp(64, 8192);
    Ok(export::write(figure, &arguments.out, (side(0), side(1)))?)
}

fn losses(arguments: &Arguments) -> Result<(), CliError> {
    let curves = Curves::read(Path::new(&arguments.data))?;
    if curves.len == 0 {
        return Err(CliError(format!("no iteration is recorded yet: {}", arguments.data)));
    }
    write(arguments, &records::losses_of(&curves))
}

fn log(arguments: &Arguments) -> Result<(), CliError> {
    let path = Path::new(&arguments.data).join("log.txt");
    let text = std::fs::read_to_string(&path)
        .map_err(|e| format!("no log ({e}); name the folder of a run with --data: {}", path.display()))?;
    write(arguments, &records::run_log(&text))
}

fn runs(arguments: &Arguments) -> Result<(), CliError> {
    let root = Path::new(&arguments.data);
    if !root.is_dir() {
        return Err(CliError(format!("there is no folder of runs; name it with --data: {}", root.display())));
    }
    let mut runs = Runs::open(root)?;
    runs.scan()?;
    write(arguments, &records::runs(&runs.list()?))
}
