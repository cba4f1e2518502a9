//! The window driven by roles and labels, without a display: the workbench as a person meets it.

use boxwright::app::workbench::Workbench;
use boxwright::cli::WindowArguments;
use boxwright::engine::model::Permit;
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
    assert!(says(&window, "Anchor "), "the anchor that moved the loss most is selected");
    // Its loss has the formula with its numbers, and every number can be looked at.
    assert!(says(&window, "CE = −ln p_t = −ln "));
    let is_listed = |window: &Window| window.harness.query_all_by_label("predicted").next().is_some();
    assert!(!is_listed(&window));
    press(&mut window, Role::DisclosureTriangle, "Numbers of classification");
    assert!(is_listed(&window));
    window.click(Role::Button, "Stop");
    window.until("the end of the run", |w| w.state.training.is_none());
}

#[test]
fn a_step_of_a_two_stage_network_shows_the_losses_of_a_chosen_roi() {
    use boxwright::app::action::Action;
    use boxwright::app::run_action::RunAction;
    use boxwright::detect::Arch;
    use boxwright::engine::command::ModelChoice;
    use boxwright::train::TrainConfig;
    let mut window = Window::open(&["shapes:train=4,val=4,test=4"]);
    window.until("detection", is_detected);
    let choice = ModelChoice::Named("faster-nano".into());
    raise(&mut window, Action::LoadModel { choice, weights: None, permit: Permit::default() });
    window.until("the network", |w| w.state.model.as_ref().is_some_and(|m| m.config.arch() == Arch::FasterNano));
    let draft = TrainConfig { batch: 2, ..TrainConfig::new(Arch::FasterNano) };
    raise(&mut window, Action::Run(RunAction::Draft(Box::new(draft))));
    raise(&mut window, Action::Step(1));
    window.until("a step", |w| w.state.last_step.is_some());
    assert!(!says(&window, "CE = −ln p_t"), "the first stage has binary cross-entropies only");
    press(&mut window, Role::DisclosureTriangle, "RoIs of stage 1 by loss");
    // Positives are sampled first.
    window.harness.get_by_label("RoI 0 of stage 1").click_accesskit();
    window.harness.run_steps(3);
    for text in ["RoI 0 at stage 1", "CE = −ln p_t = −ln ", "smooth L1 = "] {
        assert!(says(&window, text), "{text}");
    }
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
    window.workbench.borrow_mut().apply(&context, boxwright::app::action::Action::Evaluate { misses: false });
    window.until("the evaluation", |w| w.state.evaluation.is_some());
    let [ap, ap50, ..] =
        window.workbench.borrow().state.evaluation.as_ref().map(|e| e.result.stats).unwrap_or([-1.0; 12]);
    assert!(ap50 >= ap && ap50 > 0.5, "AP {ap}, AP50 {ap50}");
}

/// Raises an action as a panel would.
fn raise(window: &mut Window, action: boxwright::app::action::Action) {
    let context = window.harness.ctx.clone();
    window.workbench.borrow_mut().apply(&context, action);
    window.harness.run_steps(2);
}

/// Clicks by assistive technology, which also reaches what is scrolled out of sight.
fn press(window: &mut Window, role: Role, label: &str) {
    window.harness.get_all_by_role_and_label(role, label).last().expect("at least one").click_accesskit();
    window.harness.run_steps(3);
}

/// Frames until something with this label is on the screen.
fn until_labelled(window: &mut Window, label: &str) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while window.harness.query_all_by_label_contains(label).next().is_none() {
        assert!(Instant::now() < deadline, "{label:?} does not appear");
        std::thread::sleep(Duration::from_millis(15));
        window.harness.run_steps(1);
    }
}

#[test]
fn every_page_of_the_evaluation_opens_and_a_cell_of_the_matrix_leads_to_its_images() {
    use boxwright::app::action::Action;
    let mut window = Window::open(&["shapes:train=4,val=4,test=6"]);
    window.until("detection", is_detected);
    raise(&mut window, Action::Evaluate { misses: false });
    window.until("the evaluation", |w| w.state.evaluation.is_some());
    for page in ["Precision and recall", "By score", "Mistakes", "Worst images", "Confusion"] {
        press(&mut window, Role::Button, page);
        window.harness.check_accessibility();
    }
    let (label, title, image, count) = {
        let workbench = window.workbench.borrow();
        let evaluation = workbench.state.evaluation.as_ref().expect("evaluated");
        let right = evaluation.confusion.images.iter().filter(|((truth, found), _)| truth == found);
        let (&(class, _), images) = right.min_by_key(|((class, _), _)| *class).expect("something is right");
        let name = &evaluation.classes[class];
        let pairs: usize = images.iter().map(|(_, count)| count).sum();
        let data = workbench.state.data.as_ref().expect("open");
        let (index, times) = images[0];
        let title = format!("{name} found as {name}");
        (format!("{title}: {pairs}"), title, (index, format!("{}  {times}×", data.images[index].name)), images.len())
    };
    press(&mut window, Role::Button, &label);
    window.harness.get_all_by_label(&title).next().expect("the list's title");
    window.harness.get_all_by_label(&format!("{count} images")).next().expect("the list's length");
    press(&mut window, Role::Button, &image.1);
    window.until("the image of the cell", |w| w.state.shown.as_ref().is_some_and(|s| s.index == image.0));
    press(&mut window, Role::Button, "By score");
    press(&mut window, Role::Button, "Use it as the score threshold");
    let workbench = window.workbench.borrow();
    let best = workbench.state.evaluation.as_ref().map_or(-1.0, |e| e.details.best_score());
    let chosen = f64::from(workbench.settings.score);
    assert!((chosen - best).abs() < 1e-6, "{chosen} instead of {best}");
}

#[test]
fn two_sides_are_compared_on_an_image_and_on_the_data_and_images_are_sorted() {
    use boxwright::app::{action::Action, layout::Panel};
    use boxwright::engine::compare::SlotSource;
    let mut window = Window::open(&["shapes:train=4,val=4,test=6"]);
    window.until("detection", is_detected);
    // What somebody who knows the truth would hand in, but for one image.
    let file = tempfile::Builder::new().suffix(".json").tempfile().unwrap();
    let (path, split) = {
        let workbench = window.workbench.borrow();
        let data = workbench.state.data.clone().expect("open");
        (data.path.clone(), data.split.clone())
    };
    let dataset = boxwright::data::open::open(&path, Some(&split)).unwrap();
    let results: Vec<serde_json::Value> = dataset.images[1..]
        .iter()
        .flat_map(|image| image.objects.iter().map(|object| (image.id, object)))
        .map(|(id, object)| {
            let category = dataset.category_ids[object.class as usize];
            serde_json::json!({"image_id": id, "category_id": category, "bbox": object.bbox.to_xywh(), "score": 0.9})
        })
        .collect();
    std::fs::write(file.path(), serde_json::to_vec(&results).unwrap()).unwrap();
    raise(&mut window, Action::SetSlot { slot: 0, source: SlotSource::Loaded });
    raise(&mut window, Action::SetSlot { slot: 1, source: SlotSource::Results(file.path().to_path_buf()) });
    raise(&mut window, Action::Focus(Panel::Compare));
    window.until("both sides of the image", |w| {
        w.state.compared.as_ref().is_some_and(|c| c.sides[0].is_some() && c.sides[1].is_some())
    });
    {
        let workbench = window.workbench.borrow();
        let compared = workbench.state.compared.as_ref().unwrap();
        let shown = workbench.state.shown.as_ref().unwrap();
        let own = |slot: usize| compared.sides[slot].as_ref().map_or(0, |side| side.detections.len());
        assert_eq!((own(0), own(1)), (shown.detections.len(), 0));
    }
    window.harness.get_all_by_label_contains("only A").next().expect("the list of differences");
    raise(&mut window, Action::CompareData);
    window.until("the comparison", |w| w.state.comparison.is_some());
    {
        let workbench = window.workbench.borrow();
        let comparison = workbench.state.comparison.as_ref().unwrap();
        assert_eq!(comparison.sides.len(), 2);
        let interval = comparison.intervals[0].interval;
        assert!(interval.low <= interval.difference && interval.difference <= interval.high, "{interval:?}");
        assert!(comparison.sides[1].stats[1] > 0.5, "{:?}", comparison.sides[1].stats);
    }
    press(&mut window, Role::Button, "Whole data set");
    press(&mut window, Role::Button, "Where A beats B");
    // Image 0 is the one where the file has nothing.
    let name = format!("{}  +", dataset.images[0].name);
    window.harness.get_all_by_label_contains(&name).next().expect("A wins the image that B left out");
    window.harness.check_accessibility();
}

#[test]
fn a_feature_map_is_chosen_and_laid_over_and_a_muted_level_takes_its_detections() {
    use boxwright::app::action::{Action, Layer};
    use boxwright::app::layout::Panel;
    let mut window = Window::open(&[]);
    window.until("detection", is_detected);
    raise(&mut window, Action::Focus(Panel::Features));
    until_labelled(&mut window, "Map features.0");
    press(&mut window, Role::Button, "Map features.0");
    press(&mut window, Role::Button, "Lay over the picture");
    assert!(window.workbench.borrow().settings.shows(Layer::HeatMap));
    window.harness.check_accessibility();
    let (level, count, all) = {
        let workbench = window.workbench.borrow();
        let shown = workbench.state.shown.as_ref().expect("shown");
        let trace = shown.trace.as_ref().expect("traced");
        let above = shown.detections.iter().filter(|d| d.score >= workbench.settings.score);
        let levels: Vec<usize> =
            above.filter_map(|d| d.anchor.and_then(|a| trace.anchors.level_of(a as usize))).collect();
        let level = *levels.first().expect("the sample has detections");
        (level, levels.iter().filter(|l| **l == level).count(), levels.len())
    };
    press(&mut window, Role::Button, "Levels");
    press(&mut window, Role::CheckBox, &format!("level {level} ({count})"));
    window.harness.get_all_by_label(&format!("{count} of {all} detections go")).next().expect("what goes");
    window.harness.check_accessibility();
}

/// Sets a slider by assistive technology.
fn slide(window: &mut Window, label: &str, value: f64) {
    window.harness.get_all_by_role_and_label(Role::Slider, label).last().expect("a slider").set_value_accesskit(value);
    window.harness.run_steps(3);
}

/// Whether something with this label is on the screen.
fn says(window: &Window, label: &str) -> bool {
    window.harness.query_all_by_label_contains(label).next().is_some()
}

/// The first object of the image on show that is no crowd.
fn first_object(window: &Window) -> usize {
    let workbench = window.workbench.borrow();
    let objects = workbench.state.shown.as_ref().map(|s| s.objects.clone()).unwrap_or_default();
    objects.iter().position(|o| !o.crowd).expect("an object")
}

#[test]
fn thresholds_and_ratios_of_the_anchors_move_and_come_back() {
    use boxwright::app::action::Action;
    use boxwright::app::layout::Panel;
    let mut window = Window::open(&["shapes:train=4,val=4,test=4"]);
    window.until("detection", is_detected);
    let anchors = {
        let workbench = window.workbench.borrow();
        let trace = workbench.state.shown.as_ref().and_then(|s| s.trace.clone()).expect("traced");
        trace.anchors.boxes.len()
    };
    raise(&mut window, Action::Focus(Panel::Anchors));
    assert!(says(&window, &format!("{anchors} anchors on 6 levels")));
    assert!(says(&window, "at the positive threshold of 0.50") && says(&window, "positive: "));
    slide(&mut window, "positive threshold", 0.95);
    assert!(says(&window, "at the positive threshold of 0.95"));
    press(&mut window, Role::Button, "Reset thresholds");
    assert!(says(&window, "at the positive threshold of 0.50"));
    press(&mut window, Role::CheckBox, "one ratio more");
    assert!(!says(&window, &format!("{anchors} anchors on 6 levels")) && says(&window, "anchors on 6 levels"));
    press(&mut window, Role::Button, "Reset sizes and ratios");
    assert!(says(&window, &format!("{anchors} anchors on 6 levels")));
    let object = first_object(&window);
    raise(&mut window, Action::SelectObject(Some(object)));
    assert!(says(&window, "IoU with the object at least"));
    window.harness.check_accessibility();
}

#[test]
fn suppression_is_replayed_by_keys_and_another_threshold_differs_from_the_model() {
    use boxwright::app::action::Action;
    use boxwright::app::layout::Panel;
    let mut window = Window::open(&["shapes:train=4,val=4,test=4"]);
    window.until("detection", is_detected);
    raise(&mut window, Action::Focus(Panel::Suppression));
    assert!(says(&window, "candidates before, ") && says(&window, "Same boxes as the model's"));
    slide(&mut window, "removals", 0.0);
    assert!(says(&window, "Nothing is removed yet"));
    window.harness.key_press(egui::Key::Period);
    window.harness.run_steps(2);
    assert!(says(&window, " went because of "));
    window.harness.key_press(egui::Key::Comma);
    window.harness.run_steps(2);
    assert!(says(&window, "Nothing is removed yet"));
    slide(&mut window, "NMS threshold", 1.0);
    assert!(says(&window, "Against the model: "));
    press(&mut window, Role::Button, "Reset to the model's");
    assert!(says(&window, "Same boxes as the model's"));
    window.harness.check_accessibility();
    assert!(window.workbench.borrow().state.training.is_none(), "the key steps the replay, not the training");
}

#[test]
fn proposals_are_offered_where_there_are_any_and_scrubbed_by_keys() {
    use boxwright::app::action::Action;
    use boxwright::app::layout::Panel;
    use boxwright::engine::command::ModelChoice;
    let mut window = Window::open(&["shapes:train=4,val=4,test=4"]);
    window.until("detection", is_detected);
    raise(&mut window, Action::Focus(Panel::Proposals));
    assert!(window.workbench.borrow().state.log.iter().any(|l| l.message.contains("nothing for the Proposals panel")));
    let choice = ModelChoice::Named("cascade-nano".into());
    let permit = Permit { partial: true, ..Permit::default() };
    raise(&mut window, Action::LoadModel { choice, weights: None, permit });
    window.until("proposals", |w| {
        let trace = w.state.shown.as_ref().and_then(|s| s.trace.as_ref());
        trace.is_some_and(|t| t.stages().len() == 4)
    });
    raise(&mut window, Action::Focus(Panel::Proposals));
    assert!(says(&window, "Boxes of RPN"));
    press(&mut window, Role::Button, "Next stage");
    assert!(says(&window, "Boxes of stage 1"));
    window.harness.key_press(egui::Key::Comma);
    window.harness.run_steps(2);
    assert!(says(&window, "Boxes of RPN"));
    slide(&mut window, "stage", 2.5);
    assert!(says(&window, "From stage 1 to stage 2") && says(&window, "Spread of the regression"));
    window.harness.check_accessibility();
}

#[test]
fn missed_objects_are_listed_with_their_causes() {
    use boxwright::app::action::Action;
    let mut window = Window::open(&["shapes:train=4,val=4,test=4"]);
    window.until("detection", is_detected);
    // Nothing has a score of 1: every object that was found is below the threshold now.
    raise(&mut window, Action::Score(1.0));
    window.harness.get_all_by_label_contains("objects missed").next().expect("a menu").click_accesskit();
    window.harness.run_steps(3);
    assert!(says(&window, " × below the threshold"));
    window.harness.check_accessibility();
    let object = first_object(&window);
    let label = format!(", object {object}: ");
    window.harness.get_all_by_label_contains(&label).next().expect("the first object").click_accesskit();
    window.harness.run_steps(3);
    assert_eq!(window.workbench.borrow().state.object, Some(object));
}

#[test]
fn keys_take_boxes_and_masks_away_and_show_one_outcome_after_the_other() {
    use boxwright::app::action::{Action, Layer};
    use boxwright::app::layout::Panel;
    use boxwright::app::outcome::Coloring;
    let mut window = Window::open(&["shapes:train=4,val=4,test=4"]);
    window.until("detection", is_detected);
    let folder = tempfile::tempdir().unwrap();
    let mut written = 0;
    let mut export = |window: &mut Window, format: &str| {
        written += 1;
        let path = folder.path().join(format!("{written}.{format}"));
        raise(window, Action::Export { panel: Panel::Image, path: path.clone() });
        window.until("the file", |_| path.is_file());
        std::fs::read_to_string(path).unwrap()
    };
    let press_key = |window: &mut Window, key: egui::Key| {
        window.harness.key_press(key);
        window.harness.run_steps(2);
    };
    assert!(export(&mut window, "svg").contains("<rect "));
    press_key(&mut window, egui::Key::B);
    press_key(&mut window, egui::Key::M);
    let shows = |window: &Window, layer: Layer| window.workbench.borrow().settings.shows(layer);
    assert!(!shows(&window, Layer::Boxes) && !shows(&window, Layer::Masks) && shows(&window, Layer::Labels));
    assert!(!export(&mut window, "svg").contains("<rect "));
    press_key(&mut window, egui::Key::B);
    press_key(&mut window, egui::Key::M);
    assert!(shows(&window, Layer::Boxes) && shows(&window, Layer::Masks));
    // Every detection, also those that find nothing.
    raise(&mut window, Action::Score(0.0));
    for (only, marks) in [
        ("only true positives are shown", &["TP"][..]),
        ("only false positives are shown", &["FP", "D"][..]),
        ("only false negatives are shown", &["FN"][..]),
    ] {
        press_key(&mut window, egui::Key::T);
        assert!(says(&window, only), "{only}");
        let csv = export(&mut window, "csv");
        let outcome = |line: &str| line.rsplit(',').next().map(str::to_owned).unwrap_or_default();
        assert!(csv.lines().skip(1).all(|line| marks.contains(&outcome(line).as_str())), "{only}: {csv}");
    }
    // The missed objects follow the score at once.
    raise(&mut window, Action::Score(1.0));
    let objects = {
        let workbench = window.workbench.borrow();
        workbench.state.shown.as_ref().map_or(0, |s| s.objects.iter().filter(|o| !o.crowd).count())
    };
    assert!(says(&window, &format!("FN {objects}")) && says(&window, "at IoU 0.5 and score 1.00"));
    assert_eq!(export(&mut window, "csv").lines().count(), objects + 1);
    press_key(&mut window, egui::Key::T);
    assert!(!says(&window, "are shown") && !says(&window, &format!("FN {objects}")));
    raise(&mut window, Action::Color(Coloring::Error));
    assert!(says(&window, &format!("FN {objects}")));
    window.harness.check_accessibility();
    raise(&mut window, Action::NextOutcomes);
    assert!(says(&window, "only true positives are shown"));
    // The first one may take the notifications of the exports away.
    raise(&mut window, Action::Clear);
    raise(&mut window, Action::Clear);
    assert!(!says(&window, "are shown"));
}

#[test]
fn images_are_filtered_listed_as_a_grid_checked_measured_and_augmented() {
    use boxwright::app::action::Action;
    let mut window = Window::open(&["shapes:train=12,val=4,test=4"]);
    window.until("detection", is_detected);
    assert!(says(&window, "12 listed"));
    window.harness.get_by_role_and_label(Role::TextInput, "Find").focus();
    window.harness.run_steps(2);
    window.harness.get_by_role_and_label(Role::TextInput, "Find").type_text("00001");
    window.harness.run_steps(2);
    // 000001, 000010 and 000011
    assert!(says(&window, "3 listed"));
    press(&mut window, Role::Button, "Grid");
    window.harness.check_accessibility();
    press(&mut window, Role::Button, "shapes-train-000011");
    window.until("the image of the cell", |w| w.state.shown.as_ref().is_some_and(|s| s.index == 11));
    press(&mut window, Role::CheckBox, "groups");
    let with_groups = |w: &Window| {
        let workbench = w.workbench.borrow();
        let data = workbench.state.data.clone().expect("open");
        data.images.iter().filter(|image| image.name.contains("00001") && image.crowds > 0).count()
    };
    assert!(says(&window, &format!("{} listed", with_groups(&window))));
    press(&mut window, Role::Button, "All");
    assert!(says(&window, "12 listed"));
    press(&mut window, Role::Button, "Health");
    press(&mut window, Role::Button, "Check every pixel");
    window.until("the check", |w| w.state.checked.is_some() && w.state.progress.is_none());
    let count = window.workbench.borrow().state.checked.as_ref().map_or(0, |found| found.len());
    assert!(says(&window, if count == 0 { "Nothing found." } else { " findings" }));
    press(&mut window, Role::Button, "Statistics");
    window.until("the numbers", |w| w.state.statistics.is_some());
    assert!(says(&window, "Where objects lie") && says(&window, "Objects by side"));
    press(&mut window, Role::Button, "Augmentation");
    window.until("the augmented image", |w| w.state.augmented.as_ref().is_some_and(|a| a.index == 11));
    press(&mut window, Role::Button, "Another");
    window.until("another look", |w| w.state.augmented.as_ref().is_some_and(|a| a.epoch == 1));
    assert!(says(&window, "objects before, "));
    raise(&mut window, Action::Show(0));
    window.until("the look of another image", |w| w.state.augmented.as_ref().is_some_and(|a| a.index == 0));
}

#[test]
fn a_folder_is_played_by_the_space_key_to_its_end_and_nothing_is_trained() {
    use boxwright::app::action::Action;
    use boxwright::engine::playback::{PlaySettings, PlaySource};
    let folder = tempfile::tempdir().unwrap();
    for shade in 0..40u8 {
        let picture = boxwright::imaging::Picture::new(48, 32, [6 * shade, 90, 200]);
        boxwright::imaging::save_png(&picture, &folder.path().join(format!("{shade:02}.png"))).unwrap();
    }
    let mut window = Window::open(&[folder.path().to_str().unwrap()]);
    window.until("detection", is_detected);
    assert!(says(&window, "40 listed"));
    window.harness.key_press(egui::Key::Space);
    window.until("playing", |w| w.state.playing.is_some());
    assert!(says(&window, "playing images"));
    window.harness.key_press(egui::Key::Space);
    window.until("a hold", |w| w.state.playing.as_ref().is_some_and(|p| p.paused));
    let held = window.workbench.borrow().state.shown.as_ref().map(|s| s.index);
    // Ten frames of a second go by slowly enough to be held; the rest need not.
    let settings = PlaySettings { source: PlaySource::Images, fps: 60.0, looped: false, every_frame: false };
    raise(&mut window, Action::Play(settings));
    window.until("the end, looked into", |w| {
        let last = w.state.shown.as_ref().is_some_and(|s| s.index == 39 && s.trace.is_some());
        w.state.playing.is_none() && last
    });
    let workbench = window.workbench.borrow();
    assert!(held.is_some_and(|index| index < 39) && workbench.state.training.is_none());
}

#[test]
fn a_video_without_its_decoder_is_answered_by_a_sentence() {
    use boxwright::app::action::Action;
    use boxwright::engine::playback::{PlaySettings, PlaySource};
    let mut window = Window::open(&[]);
    window.until("detection", is_detected);
    // The name of a video that is not there fails the same way with and without ffmpeg.
    let source = PlaySource::File("/no/such/video.mp4".into());
    let settings = PlaySettings { source, fps: 5.0, looped: false, every_frame: false };
    raise(&mut window, Action::Play(settings));
    window.until("the answer", |w| w.state.log.iter().any(|l| l.message.contains("there is no such video")));
    assert!(window.workbench.borrow().state.playing.is_none());
}

#[test]
fn views_are_exported_from_their_panels_and_the_log_opens_what_was_written() {
    use boxwright::app::action::Action;
    use boxwright::app::layout::Panel;
    let mut window = Window::open(&["shapes:train=6,val=4,test=4"]);
    window.until("detection", is_detected);
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str| folder.path().join(name);
    let there = |window: &mut Window, name: &str| {
        let path = file(name);
        window.until(name, |_| path.is_file());
    };
    raise(&mut window, Action::Export { panel: Panel::Data, path: file("images.csv") });
    there(&mut window, "images.csv");
    assert_eq!(std::fs::read_to_string(file("images.csv")).unwrap().lines().count(), 7);
    raise(&mut window, Action::Export { panel: Panel::Image, path: file("image.svg") });
    there(&mut window, "image.svg");
    assert!(std::fs::read_to_string(file("image.svg")).unwrap().contains("<image "));
    raise(&mut window, Action::Export { panel: Panel::Evaluation, path: file("scores.csv") });
    assert!(window.workbench.borrow().state.log.iter().any(|l| l.message.contains("shows nothing yet")));
    raise(&mut window, Action::SaveResults(file("early.json")));
    window.until("the refusal", |w| w.state.log.iter().any(|l| l.message.contains("nothing has been evaluated")));
    raise(&mut window, Action::Evaluate { misses: false });
    window.until("the evaluation", |w| w.state.evaluation.is_some());
    raise(&mut window, Action::Export { panel: Panel::Evaluation, path: file("scores.csv") });
    there(&mut window, "scores.csv");
    assert!(std::fs::read_to_string(file("scores.csv")).unwrap().contains("all classes,"));
    raise(&mut window, Action::SaveResults(file("results.json")));
    let written = file("results.json");
    window.until("the results", |_| written.is_file());
    press(&mut window, Role::Button, "Export Evaluation");
    assert!(says(&window, "Evaluation as SVG…") && says(&window, "COCO results…"));
    window.harness.check_accessibility();
    window.harness.key_press(egui::Key::Escape);
    window.harness.run_steps(2);
    raise(&mut window, Action::Focus(Panel::Log));
    let line = format!("written: {}", file("scores.csv").display());
    window.harness.get_all_by_label(&line).for_each(|node| node.click_accesskit());
    window.harness.run_steps(3);
    assert!(says(&window, "Open file") && says(&window, "Open its folder"));
    press(&mut window, Role::Button, "Close line");
    assert!(!says(&window, "Open file"));
}

/// The loss of the last iteration, bit for bit.
fn last_loss(window: &Window) -> Option<u32> {
    window.workbench.borrow().state.last_step.as_ref().map(|report| report.loss.to_bits())
}

#[test]
fn phases_one_by_one_equal_a_whole_step_and_the_way_back_leads_to_the_same_loss() {
    let mut window = Window::open(&["shapes:train=16,val=4,test=4"]);
    window.until("detection", is_detected);
    window.click(Role::Button, "Step");
    window.until("an iteration", |w| w.state.last_step.is_some() && !w.state.stepping.remembered.is_empty());
    let whole = last_loss(&window);
    press(&mut window, Role::Button, "Back one iteration");
    window.until("the way back", |w| w.state.last_step.is_none() && w.state.curves.len == 0);
    for next in ["forward", "assign", "sample", "loss", "backward", "update"] {
        press(&mut window, Role::Button, "Next phase");
        window.until(next, |w| {
            let known = w.state.stepped.as_ref().and_then(|s| s.next);
            w.state.stepping.next.is_some_and(|phase| phase.name() == next) && known == w.state.stepping.next
        });
        assert!(says(&window, &format!("before: {next}")));
    }
    press(&mut window, Role::Button, "Next phase");
    window.until("the update", |w| w.state.last_step.is_some());
    assert_eq!(last_loss(&window), whole);
    window.until("rest", |w| w.state.training.as_ref().is_some_and(|t| !t.running && t.iteration == 1));
    press(&mut window, Role::DisclosureTriangle, "Layers");
    window.harness.key_press(egui::Key::Comma);
    window.until("the way back by its key", |w| w.state.last_step.is_none());
    window.harness.key_press(egui::Key::Period);
    window.until("a step by its key", |w| w.state.last_step.is_some());
    assert_eq!(last_loss(&window), whole);
}

#[test]
fn a_point_of_the_curve_opens_its_batch_or_says_that_it_is_gone() {
    use boxwright::app::action::Action;
    use boxwright::app::run_action::RunAction;
    let mut window = Window::open(&["shapes:train=8,val=4,test=4"]);
    window.until("detection", is_detected);
    raise(&mut window, Action::Step(1));
    window.until("an iteration", |w| w.state.stepping.remembered.len() == 1);
    raise(&mut window, Action::Run(RunAction::OpenBatch(1)));
    assert!(says(&window, "Iteration 1 learnt from"));
    raise(&mut window, Action::Run(RunAction::OpenBatch(77)));
    assert!(window.workbench.borrow().state.log.iter().any(|l| l.message.contains("iteration 77 is not in")));
    window.harness.check_accessibility();
}

#[test]
fn a_run_is_listed_scrubbed_and_laid_over_and_settings_are_undone() {
    use boxwright::app::action::Action;
    use boxwright::app::layout::Panel;
    use boxwright::app::run_action::RunAction;
    use boxwright::train::TrainConfig;
    let root = tempfile::tempdir().unwrap();
    let mut window = Window::open(&["shapes:train=8,val=4,test=4"]);
    window.until("detection", is_detected);
    raise(&mut window, Action::Run(RunAction::Root(root.path().to_path_buf())));
    window.until("an empty list", |w| w.state.runs.list.as_ref().is_some_and(|runs| runs.is_empty()));
    let first = TrainConfig::new(boxwright::detect::Arch::SsdNano);
    let wanted = TrainConfig { batch: 2, checkpoint_every: 1, keep_checkpoints: 2, ..first };
    raise(&mut window, Action::Run(RunAction::Draft(Box::new(TrainConfig { batch: 7, ..wanted.clone() }))));
    raise(&mut window, Action::Run(RunAction::Draft(Box::new(wanted))));
    raise(&mut window, Action::Undo);
    raise(&mut window, Action::Redo);
    let label = format!("write the run to {}", root.path().join("…").display());
    press(&mut window, Role::CheckBox, &label);
    raise(&mut window, Action::Step(2));
    window.until("two iterations", |w| w.state.training.as_ref().is_some_and(|t| t.iteration == 2 && !t.running));
    assert_eq!(window.workbench.borrow().state.training.as_ref().map(|t| t.config.train.batch), Some(2));
    window.until("the open run's iterations in the list", |w| {
        w.state.runs.list.as_ref().is_some_and(|runs| runs.len() == 1 && runs[0].iteration == 2)
    });
    raise(&mut window, Action::StopTraining);
    window.until("the run in the list", |w| {
        w.state.training.is_none()
            && w.state.runs.list.as_ref().is_some_and(|runs| runs.len() == 1 && runs[0].iteration == 2)
    });
    let name = window.workbench.borrow().state.runs.list.as_ref().map(|runs| runs[0].name.clone()).expect("listed");
    raise(&mut window, Action::Focus(Panel::Runs));
    press(&mut window, Role::Button, &name);
    window.until("its checkpoints", |w| w.state.runs.details.as_ref().is_some_and(|d| d.checkpoints.len() == 2));
    press(&mut window, Role::Button, "Scrub the image over 2 checkpoints");
    window.until("the checkpoints' boxes", |w| w.state.scrubbed.is_some());
    assert!(says(&window, "after 2 iterations: "));
    slide(&mut window, "checkpoint", 0.0);
    assert!(says(&window, "after 1 iterations: "));
    press(&mut window, Role::CheckBox, "its curves in Losses");
    window.until("its curves", |w| w.state.runs.overlays.first().is_some_and(|(_, curves)| curves.len == 2));
    press(&mut window, Role::Button, "Resume");
    window.until("the run again", |w| w.state.training.as_ref().is_some_and(|t| t.iteration == 2));
    window.until("its own curves", |w| w.state.curves.len == 2);
}

#[test]
fn a_key_is_changed_in_the_sheet_and_one_in_use_is_named() {
    let mut window = Window::open(&[]);
    window.until("detection", is_detected);
    window.harness.key_press(egui::Key::Questionmark);
    window.harness.run_steps(2);
    press(&mut window, Role::Button, "Change the key of Fit image");
    assert!(says(&window, "Press the new key of “Fit image”"));
    window.harness.key_press(egui::Key::J);
    window.harness.run_steps(3);
    assert_eq!(window.workbench.borrow().settings.keys.get("Fit image").map(String::as_str), Some("J"));
    press(&mut window, Role::Button, "Change the key of Zoom to selection");
    window.harness.key_press_modifiers(egui::Modifiers::COMMAND, egui::Key::O);
    window.harness.run_steps(3);
    assert!(says(&window, "Ctrl+O is the key of “Open image…”"));
    press(&mut window, Role::Button, "Take it from “Open image…”");
    {
        let workbench = window.workbench.borrow();
        let keys = &workbench.settings.keys;
        assert_eq!((keys["Zoom to selection"].as_str(), keys["Open image…"].as_str()), ("Ctrl+O", ""));
    }
    press(&mut window, Role::Button, "Reset the key of Fit image");
    assert!(!window.workbench.borrow().settings.keys.contains_key("Fit image"));
    window.harness.check_accessibility();
    window.harness.key_press(egui::Key::Escape);
    window.harness.run_steps(3);
    assert!(!says(&window, "Find an action") && !says(&window, "Change the key of"));
}

#[test]
fn the_look_changes_and_a_layout_is_kept_and_brought_back() {
    use boxwright::app::action::Action;
    use boxwright::app::layout::Panel;
    use boxwright::app::theme::Look;
    use boxwright::app::window_action::WindowAction;
    let folder = tempfile::tempdir().unwrap();
    let mut window = Window::open(&[]);
    window.until("detection", is_detected);
    window.click(Role::Button, "View");
    until_labelled(&mut window, "High contrast");
    press(&mut window, Role::RadioButton, "High contrast");
    assert_eq!(window.workbench.borrow().settings.look, Look::HighContrast);
    window.harness.key_press(egui::Key::Escape);
    window.harness.run_steps(3);
    raise(&mut window, Action::Focus(Panel::Runs));
    assert!(says(&window, "Read again"), "the Runs panel is in front");
    raise(&mut window, Action::Window(WindowAction::ExportLayout(folder.path().join("layout.json"))));
    raise(&mut window, Action::Window(WindowAction::SaveLayout("mine".into())));
    raise(&mut window, Action::ResetLayout);
    assert!(!says(&window, "Read again"));
    window.click(Role::Button, "Layout");
    until_labelled(&mut window, "Use layout mine");
    press(&mut window, Role::Button, "Use layout mine");
    assert!(says(&window, "Read again"));
    raise(&mut window, Action::ResetLayout);
    assert!(!says(&window, "Read again"));
    raise(&mut window, Action::Window(WindowAction::ImportLayout(folder.path().join("layout.json"))));
    assert!(says(&window, "Read again"));
    window.harness.check_accessibility();
}

#[test]
fn an_error_is_notified_and_leads_to_the_log() {
    use boxwright::app::action::Action;
    let mut window = Window::open(&[]);
    window.until("detection", is_detected);
    raise(&mut window, Action::OpenPath("no/such/place".into()));
    window.until("the notification", |w| w.state.unseen_errors > 0);
    until_labelled(&mut window, "Dismiss notification 1");
    press(&mut window, Role::Button, "Show log");
    assert!(!says(&window, "Dismiss notification 1"));
    window.harness.check_accessibility();
}

#[test]
fn trained_weights_that_were_not_saved_are_asked_about_before_they_are_lost() {
    use boxwright::app::action::Action;
    use boxwright::engine::command::ModelChoice;
    let mut window = Window::open(&["shapes:train=8,val=4,test=4"]);
    window.until("detection", is_detected);
    raise(&mut window, Action::Step(1));
    window.until("a step", |w| w.state.training.as_ref().is_some_and(|t| t.iteration == 1 && !t.running));
    raise(&mut window, Action::StopTraining);
    window.until("the end", |w| w.state.training.is_none());
    let name = |w: &Workbench| w.state.model.as_ref().map(|m| m.config.arch().name());
    let load = || {
        let choice = ModelChoice::Named("fcos-nano".into());
        Action::LoadModel { choice, weights: None, permit: Permit::default() }
    };
    raise(&mut window, load());
    window.harness.get_by_label("The trained weights are not saved");
    press(&mut window, Role::Button, "Stay");
    assert_eq!(name(&window.workbench.borrow()), Some("ssd-nano"));
    raise(&mut window, load());
    window.harness.key_press(egui::Key::Escape);
    window.harness.run_steps(3);
    assert!(!says(&window, "The trained weights are not saved"));
    raise(&mut window, load());
    press(&mut window, Role::Button, "Go on without them");
    window.until("the other model", |w| name(w) == Some("fcos-nano"));
    // Weights that come from a file, or with the program, are nobody's loss.
    raise(
        &mut window,
        Action::LoadModel { choice: ModelChoice::Named("ssd-nano".into()), weights: None, permit: Permit::default() },
    );
    window.until("the first model", |w| name(w) == Some("ssd-nano"));
}

#[test]
fn a_run_on_the_sample_learns_from_its_training_split_unless_another_is_chosen() {
    use boxwright::app::action::Action;
    let mut window = Window::open(&[]);
    window.until("detection", is_detected);
    assert_eq!(window.workbench.borrow().state.data.as_ref().map(|d| d.split.clone()).as_deref(), Some("test"));
    raise(&mut window, Action::Step(1));
    window.until("a step", |w| w.state.last_step.is_some());
    let split = |w: &Window| w.workbench.borrow().state.training.as_ref().and_then(|t| t.config.split.clone());
    assert_eq!(split(&window).as_deref(), Some("train"));
    let names = window.workbench.borrow().state.stepped.as_ref().map(|s| s.report.images.clone()).expect("a batch");
    assert!(!names.is_empty() && names.iter().all(|name| name.contains("train")), "{names:?}");
    window.harness.check_accessibility();
}

#[test]
fn missed_objects_are_summed_by_cause_over_the_data_and_a_number_leads_to_its_images() {
    use boxwright::app::action::Action;
    use boxwright::eval::misses::Misses;
    let mut window = Window::open(&["shapes:train=4,val=4,test=6"]);
    window.until("detection", is_detected);
    // Nothing has a score of 1: every object is missed.
    raise(&mut window, Action::Score(1.0));
    raise(&mut window, Action::Focus(boxwright::app::layout::Panel::Evaluation));
    press(&mut window, Role::Button, "Evaluate");
    window.until("the evaluation", |w| w.state.evaluation.is_some() && w.state.progress.is_none());
    press(&mut window, Role::Button, "Misses");
    assert!(says(&window, "Causes were not asked for"));
    press(&mut window, Role::CheckBox, "Causes of misses");
    press(&mut window, Role::Button, "Evaluate");
    window.until("the causes", |w| {
        w.state.evaluation.as_ref().is_some_and(|e| e.misses.is_some()) && w.state.progress.is_none()
    });
    let (cell, image, cause) = {
        let workbench = window.workbench.borrow();
        let evaluation = workbench.state.evaluation.as_ref().expect("evaluated");
        let misses = evaluation.misses.as_ref().expect("asked for");
        let missed: usize = evaluation.details.tallies.iter().map(|tally| tally.at(1.0).missed).sum();
        let sum: usize = misses.kinds().into_iter().map(|kind| misses.count(None, Some(kind))).sum();
        assert_eq!((sum, misses.count(None, None), misses.objects()), (missed, missed, missed));
        let kind = *misses.kinds().last().expect("something is missed");
        let (class, count) = misses.classes(Some(kind))[0];
        let (index, times) = misses.images(Some(class), Some(kind))[0];
        let name = &workbench.state.data.as_ref().expect("open").images[index].name;
        let cell = format!("{}, {}: {count}", evaluation.classes[class], Misses::name(kind));
        (cell, (index, format!("{name}  {times}×")), Misses::name(kind))
    };
    assert_eq!(cause, "below the threshold");
    window.harness.check_accessibility();
    press(&mut window, Role::Button, &cell);
    press(&mut window, Role::Button, &image.1);
    window.until("the image of the number", |w| w.state.shown.as_ref().is_some_and(|s| s.index == image.0));
    press(&mut window, Role::Button, cause);
    assert!(says(&window, "all classes, below the threshold"));
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("misses.csv");
    raise(&mut window, Action::Export { panel: boxwright::app::layout::Panel::Evaluation, path: path.clone() });
    window.until("the file", |_| path.is_file());
    assert!(std::fs::read_to_string(path).unwrap().contains("below the threshold,"));
    // Keys and menus evaluate as the panel is set.
    let before = window.workbench.borrow().state.evaluation_version;
    raise(&mut window, Action::Evaluate { misses: false });
    window.until("another evaluation", |w| w.state.evaluation_version > before && w.state.progress.is_none());
    assert!(window.workbench.borrow().state.evaluation.as_ref().is_some_and(|e| e.misses.is_some()));
}

/// The right edges of what is labelled so, in points.
fn right_edges(window: &Window, label: &str) -> Vec<f32> {
    window.harness.query_all_by_label_contains(label).map(|node| node.rect().max.x).collect()
}

#[test]
fn long_lines_keep_to_their_panels() {
    use boxwright::app::action::Action;
    let mut window = Window::open(&["shapes:train=8,val=4,test=4"]);
    window.until("detection", is_detected);
    let preprocessing = {
        let workbench = window.workbench.borrow();
        workbench.state.model.as_ref().expect("loaded").config.preprocess().describe()
    };
    let edges = right_edges(&window, &preprocessing);
    // The Model panel has the first 22 % of the window.
    assert!(!edges.is_empty() && edges.iter().all(|edge| *edge < 0.225 * 1440.0), "{preprocessing}: {edges:?}");
    raise(&mut window, Action::Step(1));
    window.until("a step", |w| w.state.stepped.is_some());
    for text in [" maps: ", " positives and ", "mean ‖Δw‖", "white: objects"] {
        let edges = right_edges(&window, text);
        assert!(!edges.is_empty() && edges.iter().all(|edge| *edge <= 1440.0), "{text}: {edges:?}");
    }
}

#[test]
fn a_warning_leaves_the_status_bar_when_something_succeeds() {
    use boxwright::app::action::Action;
    use boxwright::app::window_action::WindowAction;
    let mut window = Window::open(&[]);
    window.until("detection", is_detected);
    raise(&mut window, Action::OpenPath("no/such/place".into()));
    window.until("the error", |w| w.state.unseen_errors > 0);
    assert!(!says(&window, "? for keys"));
    raise(&mut window, Action::Window(WindowAction::SaveLayout("mine".into())));
    assert!(says(&window, "? for keys") && says(&window, "Dismiss notification 1"));
}

#[test]
fn an_export_is_told_when_it_is_done_and_a_failed_one_with_its_path_and_lists_are_drawn() {
    use boxwright::app::action::Action;
    use boxwright::app::layout::Panel;
    let mut window = Window::open(&["shapes:train=4,val=4,test=4"]);
    window.until("detection", is_detected);
    let folder = tempfile::tempdir().unwrap();
    for (panel, name) in [(Panel::Log, "log.svg"), (Panel::Model, "model.png")] {
        let path = folder.path().join(name);
        raise(&mut window, Action::Export { panel, path: path.clone() });
        until_labelled(&mut window, &format!("written: {}", path.display()));
        assert!(path.is_file());
    }
    assert!(std::fs::read_to_string(folder.path().join("log.svg")).unwrap().contains(">severity</text>"));
    let nowhere = folder.path().join("none").join("log.csv");
    raise(&mut window, Action::Export { panel: Panel::Log, path: nowhere.clone() });
    window.until("the failure", |w| w.state.unseen_errors > 0);
    until_labelled(&mut window, "export failed");
    let said = nowhere.display().to_string();
    assert!(window.workbench.borrow().state.log.iter().any(|l| l.source == "export" && l.message.contains(&said)));
    window.harness.check_accessibility();
}

#[test]
fn layouts_and_keys_come_back_by_undo() {
    use boxwright::app::action::Action;
    use boxwright::app::layout::Panel;
    use boxwright::app::window_action::WindowAction;
    let mut window = Window::open(&[]);
    window.until("detection", is_detected);
    for _ in 0..25 {
        raise(&mut window, Action::Focus(Panel::Runs));
        raise(&mut window, Action::ResetLayout);
        assert!(!says(&window, "Read again"));
    }
    for _ in 0..24 {
        raise(&mut window, Action::Undo);
        assert!(says(&window, "Read again"), "the Runs panel was in front before the layout was reset");
    }
    window.harness.key_press_modifiers(egui::Modifiers::COMMAND, egui::Key::Z);
    window.harness.run_steps(2);
    assert!(says(&window, "Read again"));
    // Bringing a panel to the front is no edit of its own: only the last reset leads to the default again.
    for _ in 0..25 {
        assert!(says(&window, "Read again"));
        raise(&mut window, Action::Redo);
    }
    assert!(!says(&window, "Read again"));
    window.click(Role::Button, "Layout");
    until_labelled(&mut window, "Undo: layout");
    press(&mut window, Role::Button, "Undo: layout");
    assert!(says(&window, "Read again"));
    window.harness.key_press(egui::Key::Escape);
    window.harness.run_steps(3);
    let kept = |window: &Window| window.workbench.borrow().settings.layouts.contains_key("mine");
    raise(&mut window, Action::Window(WindowAction::SaveLayout("mine".into())));
    raise(&mut window, Action::Window(WindowAction::ForgetLayout("mine".into())));
    assert!(!kept(&window));
    raise(&mut window, Action::Undo);
    assert!(kept(&window));
    window.harness.key_press(egui::Key::Questionmark);
    window.harness.run_steps(2);
    press(&mut window, Role::Button, "Change the key of Fit image");
    window.harness.key_press(egui::Key::J);
    window.harness.run_steps(3);
    press(&mut window, Role::Button, "All as they were");
    assert!(window.workbench.borrow().settings.keys.is_empty());
    raise(&mut window, Action::Undo);
    assert_eq!(window.workbench.borrow().settings.keys.get("Fit image").map(String::as_str), Some("J"));
}

#[test]
fn settings_of_another_networks_run_are_not_put_back() {
    use boxwright::app::action::Action;
    use boxwright::app::run_action::RunAction;
    use boxwright::engine::command::ModelChoice;
    use boxwright::train::TrainConfig;
    let mut window = Window::open(&["shapes:train=4,val=4,test=4"]);
    window.until("detection", is_detected);
    let first = TrainConfig::new(boxwright::detect::Arch::SsdNano);
    let edited = TrainConfig { batch: first.batch + 1, ..first };
    raise(&mut window, Action::Run(RunAction::Draft(Box::new(edited))));
    let choice = ModelChoice::Named("fcos-nano".into());
    raise(&mut window, Action::LoadModel { choice, weights: None, permit: Permit::default() });
    window
        .until("the other network", |w| w.state.model.as_ref().is_some_and(|m| m.config.arch().name() == "fcos-nano"));
    raise(&mut window, Action::Undo);
    let said = |text: &str| window.workbench.borrow().state.log.iter().any(|line| line.message.contains(text));
    assert!(said("another network is loaded since that edit") && !said("settings of the next run: as before"));
}

#[test]
fn a_dragged_border_is_one_edit() {
    use boxwright::app::action::Action;
    let mut window = Window::open(&[]);
    window.until("detection", is_detected);
    // The button at the right end of the tabs of the Data panel: the border is beside it.
    let edge = |window: &Window| window.harness.get_by_role_and_label(Role::Button, "Export Data").rect().max.x;
    let before = edge(&window);
    let from = egui::pos2(before + 0.5, 300.0);
    window.harness.hover_at(from);
    window.harness.run_steps(2);
    window.harness.drag_at(from);
    window.harness.run_steps(2);
    for step in 1..=4 {
        window.harness.hover_at(from + egui::vec2(20.0 * step as f32, 0.0));
        window.harness.run_steps(1);
    }
    window.harness.drop_at(from + egui::vec2(80.0, 0.0));
    window.harness.run_steps(3);
    assert!(edge(&window) > before + 40.0, "{} after {before}", edge(&window));
    raise(&mut window, Action::Undo);
    assert!((edge(&window) - before).abs() < 1.0, "{} instead of {before}", edge(&window));
}

#[test]
fn files_held_over_the_window_say_what_becomes_of_them_and_recent_ones_are_in_the_menu() {
    let mut window = Window::open(&["shapes:train=4,val=4,test=4"]);
    window.until("detection", is_detected);
    let held = egui::HoveredFile { path: Some("somewhere/weights.pth".into()), ..Default::default() };
    window.harness.input_mut().hovered_files.push(held);
    window.harness.run_steps(2);
    assert!(says(&window, "Let go to load the weights weights.pth"));
    window.harness.input_mut().hovered_files.clear();
    window.harness.run_steps(2);
    assert!(!says(&window, "Let go to"));
    window.click(Role::Button, "File");
    until_labelled(&mut window, "Open recent");
    window.harness.check_accessibility();
}

#[test]
fn every_page_of_the_data_panel_is_exported() {
    use boxwright::app::action::Action;
    use boxwright::app::layout::Panel;
    let mut window = Window::open(&["shapes:train=6,val=4,test=4"]);
    window.until("detection", is_detected);
    let folder = tempfile::tempdir().unwrap();
    for (page, first) in [
        ("Health", "severity,rule,file"),
        ("Statistics", "class,category_id,objects"),
        ("Augmentation", "step,parameter,amount"),
    ] {
        press(&mut window, Role::Button, page);
        window.until(page, |w| page == "Health" || w.state.statistics.is_some());
        window.until(page, |w| page != "Augmentation" || w.state.augmented.is_some());
        let path = folder.path().join(format!("{page}.csv"));
        raise(&mut window, Action::Export { panel: Panel::Data, path: path.clone() });
        window.until("the file", |_| path.is_file());
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(text.starts_with(first), "{page}: {text}");
    }
}

#[test]
fn every_control_of_every_panel_has_a_name_and_painted_areas_say_what_they_show() {
    use boxwright::app::action::Action;
    use boxwright::app::layout::Panel;
    let mut window = Window::open(&["shapes:train=8,val=4,test=4"]);
    window.until("detection", is_detected);
    raise(&mut window, Action::Step(1));
    window.until("a step", |w| w.state.stepped.is_some() && w.state.curves.len == 1);
    for panel in Panel::ALL {
        raise(&mut window, Action::Focus(panel));
        window.harness.check_accessibility();
    }
    for (panel, name) in [
        (Panel::Image, "Picture shapes-train-"),
        (Panel::Losses, "Curves by iteration"),
        (Panel::Step, "The training image"),
        (Panel::Anchors, "Best possible recall by IoU"),
    ] {
        raise(&mut window, Action::Focus(panel));
        assert!(says(&window, name), "{name}");
    }
}

#[test]
fn long_tables_are_made_by_whoever_writes_them_and_a_list_gives_way_to_the_picture() {
    use boxwright::app::action::Action;
    use boxwright::app::layout::Panel;
    let mut window = Window::open(&["shapes:train=8,val=4,test=4"]);
    window.until("detection", is_detected);
    raise(&mut window, Action::Step(1));
    window.until("a step", |w| w.state.curves.len == 1);
    let folder = tempfile::tempdir().unwrap();
    let written = |window: &mut Window, action: &dyn Fn(PathBuf) -> Action, name: &str| {
        let path = folder.path().join(name);
        raise(window, action(path.clone()));
        window.until(name, |_| path.is_file());
        std::fs::read_to_string(path).unwrap()
    };
    let of = |panel: Panel| move |path: PathBuf| Action::Export { panel, path };
    let losses = written(&mut window, &of(Panel::Losses), "losses.csv");
    assert!(losses.lines().any(|line| line.starts_with("loss,1,")), "{losses}");
    let anchors = written(&mut window, &of(Panel::Anchors), "anchors.csv");
    let count = {
        let workbench = window.workbench.borrow();
        let trace = workbench.state.shown.as_ref().and_then(|shown| shown.trace.clone()).expect("traced");
        trace.anchors.boxes.len()
    };
    assert_eq!(anchors.lines().count(), count + 1);
    raise(&mut window, Action::Focus(Panel::Log));
    assert!(written(&mut window, &Action::ExportView, "view.svg").contains("<image "));
    assert!(written(&mut window, &Action::ExportView, "view.csv").starts_with("severity,source,message"));
}

#[test]
fn the_scores_of_masks_take_the_place_of_those_of_boxes() {
    use boxwright::app::action::Action;
    use boxwright::app::layout::Panel;
    use boxwright::detect::Arch;
    use boxwright::engine::command::ModelChoice;
    let mut window = Window::open(&["shapes:train=4,val=4,test=4"]);
    window.until("detection", is_detected);
    raise(&mut window, Action::Focus(Panel::Evaluation));
    raise(&mut window, Action::Evaluate { misses: false });
    window.until("the evaluation", |w| w.state.evaluation.is_some() && w.state.progress.is_none());
    assert!(!says(&window, "By masks"), "ssd-nano finds no masks");
    let choice = ModelChoice::Named("mask-nano".into());
    raise(&mut window, Action::LoadModel { choice, weights: None, permit: Permit::default() });
    window.until("the network", |w| w.state.model.as_ref().is_some_and(|m| m.config.arch() == Arch::MaskNano));
    let before = window.workbench.borrow().state.evaluation_version;
    raise(&mut window, Action::Evaluate { misses: false });
    window.until("another evaluation", |w| w.state.evaluation_version > before && w.state.progress.is_none());
    assert!(says(&window, "VOC07 mAP"));
    press(&mut window, Role::Button, "By masks");
    assert!(!says(&window, "VOC07 mAP"), "VOC scores boxes only");
    let ap = {
        let workbench = window.workbench.borrow();
        let evaluation = workbench.state.evaluation.as_ref().expect("evaluated");
        let masks = evaluation.masks.as_ref().expect("objects and detections have masks");
        assert_ne!(masks.result.stats, evaluation.result.stats);
        format!("all classes {}", boxwright::app::state::percent(masks.curves[0].pooled.ap.unwrap_or(-1.0)))
    };
    press(&mut window, Role::Button, "Precision and recall");
    assert!(says(&window, &ap), "{ap}");
}

#[test]
fn four_sides_are_compared_in_the_colours_of_the_image_panel() {
    use boxwright::app::action::Action;
    use boxwright::app::layout::Panel;
    use boxwright::app::outcome::Coloring;
    use boxwright::engine::command::ModelChoice;
    use boxwright::engine::compare::SlotSource;
    let mut window = Window::open(&["shapes:train=4,val=4,test=6"]);
    window.until("detection", is_detected);
    let named = |name: &str| SlotSource::Model { choice: ModelChoice::Named(name.into()), weights: None };
    let sources = [SlotSource::Loaded, named("fcos-nano"), named("ssd-nano"), SlotSource::Loaded];
    for (slot, source) in sources.into_iter().enumerate() {
        raise(&mut window, Action::SetSlot { slot, source });
    }
    raise(&mut window, Action::Focus(Panel::Compare));
    window.until("four sides", |w| {
        w.state.compared.as_ref().is_some_and(|compared| compared.sides.iter().all(Option::is_some))
    });
    assert!(says(&window, "with the boxes of side D") && says(&window, "against"));
    assert!(says(&window, "= both") && says(&window, "- only on the other side"));
    press(&mut window, Role::ComboBox, "What the colours of detections tell");
    until_labelled(&mut window, "colour: error");
    press(&mut window, Role::Button, "colour: error");
    assert_eq!(window.workbench.borrow().settings.coloring, Coloring::Error);
    assert!(!says(&window, "= both"), "the legend is that of the errors");
    window.harness.check_accessibility();
}
