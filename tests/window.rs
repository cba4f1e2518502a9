//! The window driven by roles and labels, without a display: the workbench as a person meets it.

use boxwright::app::workbench::Workbench;
use boxwright::cli::WindowArguments;
use egui::accesskit::Role;
use egui_kittest::{Harness, kittest::Queryable};
use std::cell::RefCell;
use std::path::PathBuf;
use std::rc::Rc;
use std::time::{Duration, Instant};

/// A workbench in a harness; settings are the defaults and nothing is written to disk.
struct Window {
    workbench: Rc<RefCell<Workbench>>,
    harness: Harness<'static>,
}

impl Window {
    fn open(paths: &[&str]) -> Self {
        let arguments = WindowArguments {
            paths: paths.iter().map(PathBuf::from).collect(),
            device: boxwright::engine::DeviceChoice::Cpu,
            threads: 0,
            verbose: false,
            exit_after: None,
        };
        let slot: Rc<RefCell<Option<Rc<RefCell<Workbench>>>>> = Rc::default();
        let inner = slot.clone();
        let mut harness = Harness::builder().with_size([1440.0, 900.0]).build_ui(move |ui| {
            let workbench = inner
                .borrow_mut()
                .get_or_insert_with(|| Rc::new(RefCell::new(Workbench::for_tests(ui.ctx(), &arguments).unwrap())))
                .clone();
            let mut workbench = workbench.borrow_mut();
            workbench.drain(ui.ctx());
            workbench.draw(ui);
        });
        harness.run_steps(2);
        let workbench = slot.borrow().clone().expect("the first frame makes it");
        Self { workbench, harness }
    }

    /// Frames until `done`, at most for two minutes.
    fn until(&mut self, what: &str, done: impl Fn(&Workbench) -> bool) {
        let deadline = Instant::now() + Duration::from_secs(120);
        while !done(&self.workbench.borrow()) {
            let log: Vec<String> = self.workbench.borrow().state.log.iter().map(|l| l.message.clone()).collect();
            assert!(Instant::now() < deadline, "{what} did not happen: {log:?}");
            std::thread::sleep(Duration::from_millis(15));
            self.harness.run_steps(1);
        }
        self.harness.run_steps(2);
        // Every control on the screen has a name that a screen reader can say.
        self.harness.check_accessibility();
    }

    fn click(&mut self, role: Role, label: &str) {
        // A tab may carry the same name as a button in its panel; the button comes later.
        self.harness.get_all_by_role_and_label(role, label).last().expect("at least one").click();
        self.harness.run_steps(2);
    }
}

fn is_detected(workbench: &Workbench) -> bool {
    workbench.state.shown.as_ref().is_some_and(|s| s.detected)
}

#[test]
fn it_opens_on_the_sample_with_boxes_on_it_and_keys_turn_pages() {
    let mut window = Window::open(&[]);
    window.until("detection of the sample", is_detected);
    let found = window.workbench.borrow().state.shown.as_ref().map_or(0, |s| s.detections.len());
    assert!(found > 0, "the embedded weights find nothing in the sample");
    window.harness.key_press(egui::Key::ArrowRight);
    window.until("the next image", |w| w.state.shown.as_ref().is_some_and(|s| s.index == 1));
    window.harness.key_press(egui::Key::A);
    window.until("the image before", |w| w.state.shown.as_ref().is_some_and(|s| s.index == 0));
    window.harness.key_press(egui::Key::CloseBracket);
    window.harness.run_steps(2);
    assert!((window.workbench.borrow().settings.score - 0.45).abs() < 1e-6);
}

#[test]
fn a_step_adds_a_point_to_every_curve_and_shows_its_batch() {
    let mut window = Window::open(&["shapes:train=16,val=4,test=4"]);
    window.until("detection", is_detected);
    window.click(Role::Button, "Step");
    window.until("an iteration", |w| w.state.curves.len == 1 && w.state.stepped.is_some());
    {
        let workbench = window.workbench.borrow();
        for curve in ["loss", "classification", "bbox_regression", "learning rate", "gradient norm"] {
            assert!(workbench.state.curves.series.contains_key(curve), "{curve}");
        }
    }
    window.harness.get_by_label_contains("Batch of iteration 1");
    window.harness.get_by_label_contains("positive, ");
    window.click(Role::Button, "Stop");
    window.until("the end of the run", |w| w.state.training.is_none());
}

#[test]
fn what_goes_wrong_is_said_and_the_window_goes_on() {
    let mut window = Window::open(&[]);
    window.until("detection", is_detected);
    let broken = tempfile::Builder::new().suffix(".safetensors").tempfile().unwrap();
    std::fs::write(broken.path(), b"not a safetensors file").unwrap();
    let context = window.harness.ctx.clone();
    let action = boxwright::app::action::Action::OpenPath(broken.path().to_path_buf());
    window.workbench.borrow_mut().apply(&context, action);
    window.until("the error", |w| w.state.unseen_errors > 0);
    let empty = tempfile::tempdir().unwrap();
    let action = boxwright::app::action::Action::OpenPath(empty.path().to_path_buf());
    window.workbench.borrow_mut().apply(&context, action);
    window.until("the second error", |w| w.state.unseen_errors > 1);
    assert!(is_detected(&window.workbench.borrow()), "the picture stays");
}

#[test]
fn the_palette_and_the_sheet_of_keys_open_and_act() {
    let mut window = Window::open(&[]);
    window.harness.key_press_modifiers(egui::Modifiers::COMMAND, egui::Key::P);
    window.harness.run_steps(2);
    window.harness.get_by_label_contains("Reset layout");
    window.harness.key_press(egui::Key::Escape);
    window.harness.run_steps(3);
    window.harness.key_press(egui::Key::Questionmark);
    window.harness.run_steps(2);
    window.harness.get_by_label_contains("Score threshold −0.05");
}

#[test]
fn evaluation_fills_the_table() {
    let mut window = Window::open(&["shapes:train=4,val=4,test=6"]);
    window.until("detection", is_detected);
    let context = window.harness.ctx.clone();
    window.workbench.borrow_mut().apply(&context, boxwright::app::action::Action::Evaluate);
    window.until("the evaluation", |w| w.state.evaluation.is_some());
    let [ap, ap50, ..] =
        window.workbench.borrow().state.evaluation.as_ref().map(|e| e.result.stats).unwrap_or([-1.0; 12]);
    assert!(ap50 >= ap && ap50 > 0.5, "AP {ap}, AP50 {ap50}");
}
