//! Floor 4: training. Running a schedule, stepping by phases, going back and replaying use the same [`step`].

pub mod blackbox;
pub mod checkpoint;
pub mod config;
pub mod error;
pub mod events;
pub mod exact;
pub mod fork;
pub mod groups;
pub mod incident;
pub mod journal;
pub mod layers;
mod loading;
pub mod manifest;
pub mod metrics;
pub mod optimizer;
pub mod presets;
pub mod range_test;
pub mod recorder;
pub mod replay;
pub mod run;
pub mod schedule;
pub mod step;
pub mod tfrecord;
pub mod validation;

pub use config::TrainConfig;
pub use error::TrainError;
pub use exact::Exact;
pub use incident::Incident;
pub use layers::LayerReport;
pub use loading::loader_settings;
pub use presets::Preset;
pub use range_test::{RangeSettings, RangeTest};
pub use replay::Replay;
pub use run::{Run, RunConfig};
pub use step::{Phase, StepReport};
pub use validation::Validation;
