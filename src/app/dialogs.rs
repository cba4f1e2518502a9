//! File dialogs: they run on a thread of their own and answer with an action, so the window never waits.

use super::action::{Action, Dialog};
use super::run_action::RunAction;
use super::window_action::WindowAction;
use crate::engine::command::{InitialWeights, ModelChoice};
use crate::engine::compare::SlotSource;
use crate::engine::model::Permit;
use crate::engine::video::EXTENSIONS;
use crossbeam_channel::{Receiver, Sender, bounded};
use std::io::Read;
use std::path::PathBuf;

/// Extensions of weights files.
const WEIGHTS: [&str; 7] = ["safetensors", "pth", "pt", "th", "tar", "pkl", "weights"];

/// Open dialogs and their answers.
#[derive(Debug)]
pub struct Dialogs {
    sender: Sender<Action>,
    answers: Receiver<Action>,
}

impl Default for Dialogs {
    fn default() -> Self {
        let (sender, answers) = bounded(16);
        Self { sender, answers }
    }
}

impl Dialogs {
    /// Shows a dialog; `wake` is called when it has been answered.
    ///
    /// # Errors
    /// When the operating system gives no thread.
    pub fn open(&self, dialog: Dialog, wake: impl Fn() + Send + 'static) -> std::io::Result<()> {
        let sender = self.sender.clone();
        std::thread::Builder::new().name("boxwright-dialog".into()).spawn(move || {
            if let Some(action) = ask(dialog) {
                // A full channel means that sixteen answers wait: one more slip is not worth blocking for.
                _ = sender.try_send(action);
            }
            wake();
        })?;
        Ok(())
    }

    /// The next answer.
    pub fn answer(&self) -> Option<Action> {
        self.answers.try_recv().ok()
    }
}

fn ask(dialog: Dialog) -> Option<Action> {
    let files = rfd::FileDialog::new();
    let opened = |path: Option<PathBuf>| path.map(Action::OpenPath);
    match dialog {
        Dialog::Results => {
            files.set_title("Score COCO results").add_filter("JSON", &["json"]).pick_file().map(Action::EvaluateResults)
        }
        Dialog::SlotResults(slot) => {
            let path = files.set_title("Compare COCO results").add_filter("JSON", &["json"]).pick_file()?;
            Some(Action::SetSlot { slot, source: SlotSource::Results(path) })
        }
        Dialog::SlotWeights(slot) => {
            let path = files.set_title("Compare weights").add_filter("Weights", &WEIGHTS).pick_file()?;
            let source = SlotSource::Model { choice: ModelChoice::FromWeights, weights: Some(path) };
            Some(Action::SetSlot { slot, source })
        }
        Dialog::Start => {
            let path = files.set_title("Start a run from weights").add_filter("Weights", &WEIGHTS).pick_file()?;
            Some(Action::StartTraining(InitialWeights::File(path)))
        }
        Dialog::Video => opened(files.set_title("Play a video").add_filter("Videos", &EXTENSIONS).pick_file()),
        Dialog::Export(panel, format) => {
            let (name, ending) = (panel.name().to_lowercase(), format.ending());
            let files = files.set_title(format!("Export {}", panel.name())).add_filter(format.name(), &[ending]);
            let path = files.set_file_name(format!("{name}.{ending}")).save_file()?;
            // The format was chosen before: a name without an ending gets it.
            let path = if path.extension().is_none() { path.with_extension(ending) } else { path };
            Some(Action::Export { panel, path })
        }
        Dialog::SaveResults => {
            let files = files.set_title("Save COCO results").add_filter("JSON", &["json"]);
            files.set_file_name("results.json").save_file().map(Action::SaveResults)
        }
        Dialog::WeightsOf(arch) => {
            let files = files.set_title(format!("Weights for {arch}")).add_filter("Weights", &WEIGHTS);
            let (choice, weights) = (ModelChoice::Named(arch.name().into()), Some(files.pick_file()?));
            Some(Action::LoadModel { choice, weights, permit: Permit::default() })
        }
        Dialog::Runs => {
            let folder = files.set_title("The folder of runs").pick_folder();
            folder.map(|folder| Action::Run(RunAction::Root(folder)))
        }
        Dialog::ExportLayout => {
            let path = files.set_title("Export the layout").set_file_name("layout.json").save_file()?;
            Some(Action::Window(WindowAction::ExportLayout(path)))
        }
        Dialog::ImportLayout => {
            let path = files.set_title("Import a layout").add_filter("JSON", &["json"]).pick_file()?;
            Some(Action::Window(WindowAction::ImportLayout(path)))
        }
        Dialog::Image => opened(
            files
                .set_title("Open an image")
                .add_filter("Images", &["jpg", "jpeg", "png", "bmp", "gif", "tif", "tiff", "webp", "pnm", "ppm", "tga"])
                .pick_file(),
        ),
        Dialog::Folder => opened(files.set_title("Open a folder of images or a data set").pick_folder()),
        Dialog::Annotations => {
            opened(files.set_title("Open COCO annotations").add_filter("JSON", &["json"]).pick_file())
        }
        Dialog::Weights => opened(files.set_title("Load weights").add_filter("Weights", &WEIGHTS).pick_file()),
        Dialog::SaveWeights => {
            files.set_title("Save weights").set_file_name("weights.safetensors").save_file().map(Action::SaveWeights)
        }
        Dialog::ExportView => {
            files.set_title("Export the view").set_file_name("view.png").save_file().map(Action::ExportView)
        }
    }
}

/// Whether a JSON file is a list, as COCO results are, rather than annotations. Looks at its beginning alone.
pub fn holds_results(path: &std::path::Path) -> bool {
    if !path.extension().is_some_and(|e| e.eq_ignore_ascii_case("json")) {
        return false;
    }
    let mut beginning = [0; 64];
    // A file that cannot be read is opened as data, which says why it cannot be.
    let length = std::fs::File::open(path).and_then(|mut file| file.read(&mut beginning)).unwrap_or(0);
    beginning.iter().take(length).find(|byte| !byte.is_ascii_whitespace()) == Some(&b'[')
}

/// Whether a dropped or named file holds weights rather than images.
pub fn is_weights_path(path: &std::path::Path) -> bool {
    let extension = path.extension().map(|e| e.to_string_lossy().to_ascii_lowercase());
    extension.is_some_and(|e| WEIGHTS.contains(&e.as_str()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_is_results_and_an_object_is_annotations() {
        let folder = tempfile::tempdir().unwrap();
        let holds = |name: &str, text: &str| {
            let path = folder.path().join(name);
            std::fs::write(&path, text).unwrap();
            holds_results(&path)
        };
        assert!(holds("a.json", "\n  [{\"image_id\": 1}]") && holds("b.JSON", "[]"));
        assert!(!holds("c.json", "{\"images\": []}") && !holds("d.json", "") && !holds("e.txt", "[]"));
        assert!(!holds_results(&folder.path().join("none.json")));
    }
}
