//! `boxwright bench`: times of networks, training steps, convolutions, operations and drawing, in the form of the peers'
//! script.
//!
//! Every network is measured in a process of its own, so that one's peak memory is not another's.

use super::{Answer, CliError, Outcome, threads, write_json};
use crate::app::training_time::training_beside_the_window;
use crate::app::{frame_time, window_time};
use crate::engine::bench::convolution::CONVOLUTIONS;
use crate::engine::bench::network::Subject;
use crate::engine::bench::operations::Operation;
use crate::engine::bench::{Measurement, peak_gflops, peak_mebibytes, thread_count};
use crate::engine::{DeviceChoice, Precision};
use clap::ValueEnum;
use serde_json::{Map, Value, json};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

/// candle sorts its graph by recursion: a deep network needs a deep stack.
const STACK: usize = 256 << 20;
/// Boxes that are visible, and those of a large array.
const VISIBLE: usize = 100_000;
const MANY: usize = 1_000_000;
/// Times that training goes on with the window hidden and then open, and for how long each.
const TURNS: usize = 6;
const TURN: Duration = Duration::from_secs(5);

#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// Architectures to time, from a picture's bytes to detections; yolov3-416 is yolov3 at --size 416
    #[arg(long, num_args = 1..)]
    model: Vec<String>,
    /// Side of a square input, pixels; each model's own when left out
    #[arg(long)]
    size: Option<usize>,
    /// Images that go through the network together, where it is timed alone and in training
    #[arg(long, default_value_t = 1)]
    batch: usize,
    /// Also time training steps, and the backward passes of --conv and --op
    #[arg(long)]
    train: bool,
    /// Also time with the probe on
    #[arg(long)]
    probe: bool,
    /// Time single convolutions of published networks
    #[arg(long)]
    conv: bool,
    /// Time suppression, pooling, resizing, normalisation and losses
    #[arg(long)]
    op: bool,
    /// Time a frame with 100,000 visible boxes, here and by egui's own painter, and the window with large inputs
    #[arg(long)]
    draw: bool,
    /// Where the networks run: cpu, cuda:N or auto; everything else is timed on the CPU
    #[arg(long, default_value = "cpu")]
    device: DeviceChoice,
    /// What the networks multiply in: f32, tf32, f16 or bf16
    #[arg(long, default_value = "f32")]
    precision: Precision,
    /// Threads that compute; 0 for one a core
    #[arg(long, default_value_t = 0)]
    threads: usize,
    /// Measured repetitions
    #[arg(long, default_value_t = 8)]
    repeat: usize,
    /// Write as JSON (- for stdout, and nothing else there)
    #[arg(long)]
    json: Option<PathBuf>,
    /// Time this of the one model and print it as JSON: what a process of its own is started with
    #[arg(long, value_enum, hide = true)]
    part: Option<Part>,
}

/// What one process measures of a network.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Part {
    Forward,
    Train,
    ProbedForward,
    ProbedTrain,
}

impl Part {
    fn name(self) -> &'static str {
        match self {
            Self::Forward => "forward",
            Self::Train => "train",
            Self::ProbedForward => "probed-forward",
            Self::ProbedTrain => "probed-train",
        }
    }

    /// Those that the options ask for.
    fn asked(arguments: &Arguments) -> Vec<Self> {
        let all = [
            (Self::Forward, true),
            (Self::Train, arguments.train),
            (Self::ProbedForward, arguments.probe),
            (Self::ProbedTrain, arguments.probe && arguments.train),
        ];
        all.into_iter().filter(|(_, asked)| *asked).map(|(part, _)| part).collect()
    }
}

pub fn run(arguments: &Arguments) -> Outcome {
    threads(arguments.threads)?;
    if arguments.batch == 0 {
        return Err(CliError("--batch 0: a batch has at least one image".into()));
    }
    if let Some(part) = arguments.part {
        return measured_here(arguments, part);
    }
    if arguments.model.is_empty() && !(arguments.conv || arguments.op || arguments.draw) {
        return Err(CliError("say what to time: --model NAME…, --conv, --op or --draw".into()));
    }
    // a name that does not exist, or a size that does not fit, is said before minutes have passed
    for name in &arguments.model {
        Subject::named(name, arguments.size)?;
    }
    let mut report = Report::new(arguments);
    if arguments.conv {
        convolutions(arguments, &mut report)?;
    }
    if arguments.op {
        for operation in Operation::ALL {
            report.add_all(&operation.measure(arguments.train, arguments.repeat)?);
        }
    }
    for model in &arguments.model {
        for part in Part::asked(arguments) {
            for (name, value) in in_a_process(arguments, model, part)? {
                report.add(name, value);
            }
        }
    }
    if arguments.draw {
        drawing(arguments, &mut report)?;
    }
    if let Some(file) = &arguments.json {
        write_json(file, &report.into_json())?;
    }
    Ok(Answer::Yes)
}

fn convolutions(arguments: &Arguments, report: &mut Report) -> Result<(), CliError> {
    for shape in CONVOLUTIONS {
        report.add_all(&[shape.forward(arguments.repeat)?]);
        if arguments.train {
            report.add_all(&shape.training(arguments.repeat)?);
        }
    }
    Ok(())
}

fn drawing(arguments: &Arguments, report: &mut Report) -> Result<(), CliError> {
    let ours = frame_time::renderer(VISIBLE, VISIBLE, arguments.repeat)?;
    let many = frame_time::renderer(VISIBLE, MANY, arguments.repeat)?;
    let mut egui = frame_time::egui_painter(VISIBLE, arguments.repeat);
    egui.numbers.push(("times_ours", egui.times.median / ours.times.median));
    report.add_all(&[ours, many, egui]);
    report.add_all(&window_time::large_inputs(window_time::Sizes::default(), arguments.repeat)?);
    report.add_all(&training_beside_the_window(TURNS, TURN)?);
    Ok(())
}

/// Measures in this process and prints nothing but JSON.
fn measured_here(arguments: &Arguments, part: Part) -> Outcome {
    let [name] = arguments.model.as_slice() else {
        return Err(CliError("--part needs exactly one --model".into()));
    };
    let subject = Subject::named(name, arguments.size)?.on(arguments.device);
    let (batch, repeat, precision) = (arguments.batch, arguments.repeat, arguments.precision);
    let before = peak_mebibytes();
    let work = move || -> Result<Vec<Measurement>, String> {
        precision.within(|| match part {
            Part::Forward => subject.forward(batch, repeat).map_err(|e| e.to_string()),
            Part::Train => subject.train(batch, repeat).map(|one| vec![one]).map_err(|e| e.to_string()),
            Part::ProbedForward => subject.probed(repeat).map_err(|e| e.to_string()),
            Part::ProbedTrain => subject.train_probed(batch, repeat).map_err(|e| e.to_string()),
        })
    };
    let thread = std::thread::Builder::new().name("boxwright-bench".into()).stack_size(STACK).spawn(work)?;
    let measured = thread.join().map_err(|_| CliError(format!("timing {name} ended by a panic")))?;
    let mut measurements = measured.map_err(|e| CliError(format!("{name} cannot be timed: {e}")))?;
    if let (Some(before), Some(peak), Some(first)) = (before, peak_mebibytes(), measurements.first_mut()) {
        first.numbers.extend([("peak_mib", peak), ("peak_mib_at_start", before)]);
    }
    let values: Vec<(String, Value)> = measurements.iter().map(|m| (m.name.clone(), m.to_json())).collect();
    println!("{}", json!(values));
    Ok(Answer::Yes)
}

/// Measures in a fresh process of this program.
fn in_a_process(arguments: &Arguments, model: &str, part: Part) -> Result<Vec<(String, Value)>, CliError> {
    let mut command = Command::new(std::env::current_exe()?);
    command.args(["bench", "--model", model, "--part", part.name(), "--device", &arguments.device.to_string()]);
    command.args(["--precision", arguments.precision.name()]);
    let numbers = [("--batch", arguments.batch), ("--repeat", arguments.repeat), ("--threads", thread_count())];
    for (option, number) in numbers.into_iter().chain(arguments.size.map(|size| ("--size", size))) {
        command.args([option, &number.to_string()]);
    }
    let output = command.stdin(Stdio::null()).stderr(Stdio::inherit()).output()?;
    if !output.status.success() {
        return Err(CliError(format!("the process that times {model} ended with {}", output.status)));
    }
    serde_json::from_slice(&output.stdout)
        .map_err(|e| CliError(format!("the process that times {model} did not answer in JSON ({e})")))
}

/// What was measured so far; each thing is printed as it comes, unless JSON goes to stdout.
struct Report {
    times: Map<String, Value>,
    peak: f64,
    quiet: bool,
}

impl Report {
    fn new(arguments: &Arguments) -> Self {
        let quiet = arguments.json.as_deref().is_some_and(|file| file.as_os_str() == "-");
        // The peak is the CPU's: elsewhere there is no share of it.
        let peak = if arguments.device == DeviceChoice::Cpu { peak_gflops(thread_count()) } else { f64::NAN };
        if !quiet && !peak.is_nan() {
            println!("{} threads, measured peak {peak:.0} GFLOP/s", thread_count());
        }
        Self { times: Map::new(), peak, quiet }
    }

    fn add_all(&mut self, measurements: &[Measurement]) {
        for measurement in measurements {
            self.add(measurement.name.clone(), measurement.to_json());
        }
    }

    fn add(&mut self, name: String, mut value: Value) {
        if let Some(gflops) = value["gflops"].as_f64() {
            value["of_peak"] = json!(gflops / self.peak);
        }
        if !self.quiet {
            print!("{}", lines(&name, &value));
        }
        self.times.insert(name, value);
    }

    fn into_json(self) -> Value {
        json!({
            "boxwright": env!("CARGO_PKG_VERSION"),
            "threads": thread_count(),
            "peak_gflops": self.peak,
            "times": self.times,
        })
    }
}

/// One measurement for people: a line, then one for each stage.
fn lines(name: &str, value: &Value) -> String {
    let number = |key: &str| value[key].as_f64();
    let time = |key: &str| number(key).unwrap_or(f64::NAN);
    let mut text = format!("{name:<48} {:>9.2} ms ({:.2}–{:.2})", time("median_ms"), time("min_ms"), time("max_ms"));
    if let (Some(gflops), Some(share)) = (number("gflops"), number("of_peak")) {
        text += &format!("  {gflops:.0} GFLOP/s, {:.0} % of peak", 100.0 * share);
    }
    if let Some(peak) = number("peak_mib") {
        text += &format!("  peak {peak:.0} MiB");
    }
    if let Some(factor) = number("times_bare") {
        text += &format!("  {factor:.3} × the bare step");
    }
    if let Some(factor) = number("times_without_probe") {
        text += &format!("  {factor:.2} × without the probe");
    }
    if let Some(factor) = number("times_ours") {
        text += &format!("  {factor:.0} × ours");
    }
    if let Some(factor) = number("times_hidden") {
        text += &format!("  {factor:.3} × with the window hidden");
    }
    if let Some(uploads) = number("uploads_while_panning") {
        text += &format!("  {uploads:.0} uploads while panning");
    }
    text.push('\n');
    for pair in value["stages_ms"].as_array().into_iter().flatten() {
        if let (Some(stage), Some(milliseconds)) = (pair[0].as_str(), pair[1].as_f64()) {
            text += &format!("  {stage:<46} {milliseconds:>9.2} ms\n");
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        bench: Arguments,
    }

    fn parsed(words: &[&str]) -> Arguments {
        Line::try_parse_from([&["bench"][..], words].concat()).unwrap().bench
    }

    #[test]
    fn each_kind_of_measurement_has_a_process_and_its_name_is_understood() {
        assert_eq!(Part::asked(&parsed(&["--model", "ssd300"])), [Part::Forward]);
        let all = Part::asked(&parsed(&["--model", "ssd300", "--train", "--probe"]));
        assert_eq!(all.len(), 4);
        for part in all {
            assert_eq!(parsed(&["--part", part.name()]).part, Some(part));
        }
    }

    #[test]
    fn what_cannot_be_timed_is_said_at_once() {
        let cases: [(&[&str], &str); 5] = [
            (&["--train"], "--conv"),
            (&["--model", "ssd-huge"], "ssd-huge"),
            (&["--model", "ssd300", "--size", "512"], "300×300"),
            // the first two can be timed
            (&["--model", "refinedet320", "yolov3-416", "yolov3-400"], "multiples of 32"),
            (&["--model", "ssd300", "--batch", "0"], "--batch 0"),
        ];
        for (words, part) in cases {
            let CliError(message) = run(&parsed(words)).unwrap_err();
            assert!(message.contains(part), "{message}");
        }
    }

    #[test]
    fn a_line_tells_time_rate_memory_and_stages() {
        let value = json!({
            "median_ms": 12.0, "min_ms": 11.0, "max_ms": 13.0, "gflops": 400.0, "of_peak": 0.8, "peak_mib": 512.0,
            "times_bare": 1.004, "times_without_probe": 2.5,
            "stages_ms": [["backbone", 8.0], ["head", 4.0]],
        });
        let text = lines("x@300 forward", &value);
        let mut found = text.lines();
        let first = found.next().unwrap();
        assert!(first.contains("12.00 ms") && first.contains("80 % of peak") && first.contains("512 MiB"), "{first}");
        assert!(first.contains("1.004 × the bare step") && first.contains("2.50 × without the probe"), "{first}");
        assert!(found.next().is_some_and(|line| line.contains("backbone") && line.contains("8.00 ms")));
        assert_eq!(found.count(), 1);
    }
}
