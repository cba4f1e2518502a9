//! Floor 4: training. Running a schedule and stepping through one iteration use the same [`step::step`].

pub mod checkpoint;
pub mod config;
pub mod metrics;
pub mod optimizer;
pub mod run;
pub mod schedule;
pub mod step;

pub use config::TrainConfig;
pub use run::{Run, RunConfig, TrainError};
pub use step::StepReport;
