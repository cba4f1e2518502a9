//! `boxwright data`: health, statistics and conversion of data sets.

mod check;
mod convert;
mod stats;

use super::{CliError, Outcome};
use crate::detect::{Arch, Config, config};
use clap::Subcommand;

#[derive(Debug, clap::Args)]
pub struct Arguments {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Health report; exit 1 when there are errors
    Check(check::Arguments),
    /// Classes, sizes, shapes, places and counts; anchors by k-means
    Stats(stats::Arguments),
    /// Write a data set in another format
    Convert(convert::Arguments),
}

pub fn run(arguments: &Arguments) -> Outcome {
    match &arguments.action {
        Action::Check(arguments) => check::run(arguments),
        Action::Stats(arguments) => stats::run(arguments),
        Action::Convert(arguments) => convert::run(arguments),
    }
}

/// The published settings of the architecture called `name` with some of them changed. How many classes there are
/// decides neither its input nor its anchors.
fn model_config(name: &str, settings: &[String]) -> Result<Config, CliError> {
    let base = Config::new(name.parse::<Arch>()?, &["object".to_owned()]);
    settings.iter().try_fold(base, |base, setting| {
        let Some((key, value)) = setting.split_once('=') else {
            return Err(CliError(format!("--set {setting}: write it as key=value")));
        };
        Ok(config::set(&base, key.trim(), value.trim())?)
    })
}
