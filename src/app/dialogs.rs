//! File dialogs: they run on a thread of their own and answer with an action, so the window never waits.

use super::action::{Action, Dialog};
use crossbeam_channel::{Receiver, Sender, bounded};
use std::path::PathBuf;

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
        Dialog::Weights => opened(
            files
                .set_title("Load weights")
                .add_filter("Weights", &["safetensors", "pth", "pt", "th", "tar", "pkl", "weights"])
                .pick_file(),
        ),
        Dialog::SaveWeights => {
            files.set_title("Save weights").set_file_name("weights.safetensors").save_file().map(Action::SaveWeights)
        }
        Dialog::ExportView => {
            files.set_title("Export the view").set_file_name("view.png").save_file().map(Action::ExportView)
        }
    }
}

/// Whether a dropped or named file holds weights rather than images.
pub fn is_weights_path(path: &std::path::Path) -> bool {
    const KINDS: [&str; 7] = ["safetensors", "pth", "pt", "th", "tar", "pkl", "weights"];
    let extension = path.extension().map(|e| e.to_string_lossy().to_ascii_lowercase());
    extension.is_some_and(|e| KINDS.contains(&e.as_str()))
}
