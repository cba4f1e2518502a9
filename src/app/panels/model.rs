//! Model panel: architecture, device, weights and their load report, preprocessing, and the limits of detection.

use crate::app::action::{Action, Dialog};
use crate::app::dialogs::is_weights_path;
use crate::app::state::State;
use crate::detect::class_order::ClassOrder;
use crate::detect::{Arch, Config};
use crate::engine::command::ModelChoice;
use crate::engine::compare::{SLOT_NAMES, SlotSource};
use crate::engine::devices::DeviceInfo;
use crate::engine::event::{ModelSummary, OrderAsked};
use crate::engine::model::Permit;
use crate::weights::LoadReport;
use egui::{Button, CollapsingHeader, Grid, Label, RichText, ScrollArea, Slider, SliderClamping, Ui};
use std::path::{Path, PathBuf};

/// Names of a list of the load report that are shown.
const NAMED: usize = 200;

/// Scratch of the panel.
#[derive(Debug, Default)]
pub struct ModelPanel {
    /// Settings being dragged, sent when let go.
    edited: Option<Config>,
    /// A network without embedded weights gets random ones.
    random: bool,
    /// Where the class logits of files have their background; their names tell where nothing is said.
    background: Option<ClassOrder>,
    /// Weights whose classes are kept beside data of so many others.
    kept: Option<(String, usize)>,
}

impl ModelPanel {
    /// Where the class logits of the next file have their background, where somebody says it.
    pub fn background(&self) -> Option<ClassOrder> {
        self.background
    }

    pub fn ui(&mut self, ui: &mut Ui, state: &State, actions: &mut Vec<Action>) {
        let current = state.model.as_ref().map(|m| m.config.arch());
        ui.horizontal_wrapped(|ui| {
            egui::ComboBox::from_id_salt("architecture")
                .selected_text(current.map_or("choose a model", Arch::name))
                .show_ui(ui, |ui| {
                    for arch in Arch::ALL {
                        let note = match (arch.embedded_weights(), self.random) {
                            (Some(_), _) => "",
                            (None, true) => " (random weights)",
                            (None, false) => " (needs weights…)",
                        };
                        if ui.selectable_label(current == Some(arch), format!("{arch}{note}")).clicked() {
                            actions.push(self.load(arch));
                        }
                    }
                })
                .response
                .on_hover_text(
                    "The network; embedded weights are loaded where there are any, else a file is asked for",
                );
            ui.checkbox(&mut self.random, "random weights")
                .on_hover_text("For a network without embedded weights: look at it, or train it, from nothing");
            let load = ui.button("Load weights…");
            if load.on_hover_text("A checkpoint in any of the layouts that the network reads").clicked() {
                actions.push(Action::OpenDialog(Dialog::Weights));
            }
            let order = egui::ComboBox::from_id_salt("background")
                .selected_text(format!("background: {}", place(self.background)))
                .show_ui(ui, |ui| self.places(ui));
            order.response.on_hover_text(
                "Where the class logits of a file have their background; the names in the file tell as a rule",
            );
            let save = ui.add_enabled(state.model.is_some(), Button::new("Save…"));
            let save = save.on_hover_text("The weights as safetensors, with the settings of the network");
            if save.on_disabled_hover_text("No model is loaded").clicked() {
                actions.push(Action::OpenDialog(Dialog::SaveWeights));
            }
        });
        devices(ui, state, actions);
        if let Some(asked) = &state.order_asked {
            self.order(ui, asked, actions);
        }
        let Some(model) = &state.model else {
            ui.label("No model is loaded.");
            return;
        };
        resets(ui, model, actions);
        if let Some(data) = &state.data {
            self.head(ui, model, &data.classes, actions);
        }
        ScrollArea::vertical().auto_shrink(false).show(ui, |ui| {
            if let Some(report) = state.training.as_ref().and_then(|training| training.start.as_ref()) {
                start(ui, report);
            }
            facts(ui, model, actions);
            if let Some(report) = &model.report {
                troubles(ui, report, false);
            }
            ui.separator();
            self.limits(ui, &model.config, actions);
        });
    }

    /// Loads `arch`, or asks for the file of its weights.
    fn load(&self, arch: Arch) -> Action {
        if arch.embedded_weights().is_none() && !self.random {
            return Action::OpenDialog(Dialog::WeightsOf(arch));
        }
        Action::LoadModel {
            choice: ModelChoice::Named(arch.name().into()),
            weights: None,
            permit: Permit { partial: arch.embedded_weights().is_none(), ..Permit::default() },
        }
    }

    /// The places that a background can have.
    fn places(&mut self, ui: &mut Ui) {
        for order in std::iter::once(None).chain(ClassOrder::ALL.map(Some)) {
            ui.selectable_value(&mut self.background, order, place(order));
        }
    }

    /// Asks where the background is of the file that did not load for want of it.
    fn order(&mut self, ui: &mut Ui, asked: &OrderAsked, actions: &mut Vec<Action>) {
        ui.add(Label::new(RichText::new(&asked.reason).color(ui.visuals().error_fg_color)).wrap());
        ui.horizontal_wrapped(|ui| {
            ui.label("Background");
            self.places(ui);
            let again = ui.add_enabled(self.background != asked.permit.class_order, Button::new("Load again"));
            let again = again.on_hover_text("The same file, with its background there");
            if again.on_disabled_hover_text("Choose another place first").clicked() {
                let permit = Permit { class_order: self.background, ..asked.permit };
                let (choice, weights) = (asked.choice.clone(), asked.weights.clone());
                actions.push(Action::LoadModel { choice, weights, permit });
            }
        });
    }

    /// Asks what becomes of a head of another number of classes than the open data has.
    fn head(&mut self, ui: &mut Ui, model: &ModelSummary, classes: &[String], actions: &mut Vec<Action>) {
        let (own, wanted) = (model.config.classes().len(), classes.len());
        let question = (model.weights.clone(), wanted);
        if own == wanted || wanted == 0 || self.kept.as_ref() == Some(&question) {
            return;
        }
        let Some((_, weights)) = source(model) else { return };
        ui.add(Label::new(format!("The head of these weights has {own} classes, the open data {wanted}.")).wrap());
        ui.horizontal_wrapped(|ui| {
            let keep = ui.button("Keep the file's classes");
            if keep.on_hover_text("Detections are of the classes that the weights were trained for").clicked() {
                self.kept = Some(question);
            }
            let other = model.config.with_classes(classes);
            let text = format!("New head for the {wanted} classes of the open data");
            let fresh = ui.add_enabled(other.is_some(), Button::new(text));
            let fresh = fresh.on_hover_text("What depends on the classes begins at random and has to be trained");
            let fresh = fresh.on_disabled_hover_text("The head of a darknet network is in its cfg");
            if let (true, Some(config)) = (fresh.clicked(), other) {
                actions.push(Action::LoadModel {
                    choice: ModelChoice::Configured(Box::new(config)),
                    weights,
                    permit: Permit { reinitialise_head: true, ..Permit::default() },
                });
            }
        });
    }

    /// The limits between head and result: they need no other weights.
    fn limits(&mut self, ui: &mut Ui, config: &Config, actions: &mut Vec<Action>) {
        let edited = self.edited.get_or_insert_with(|| config.clone());
        let mut done = false;
        {
            let limits = edited.limits_mut();
            let mut slider = |ui: &mut Ui, slider: Slider<'_>, help: &str| {
                // A limit outside of the range stays: moving one slider must not change another limit.
                let response = ui.add(slider.clamping(SliderClamping::Edits)).on_hover_text(help);
                done |= response.drag_stopped() || (response.changed() && !response.dragged());
            };
            let help = "NMS: the lower-scored of two boxes of one class goes when their IoU is above this";
            slider(ui, Slider::new(limits.nms_threshold, 0.0..=1.0).text("NMS IoU"), help);
            let help = "Candidates at or below this score never reach suppression";
            slider(ui, Slider::new(limits.score_threshold, 0.001..=0.5).logarithmic(true).text("score floor"), help);
            let help = "Candidates of a class (SSD) or level that enter suppression, best first";
            slider(ui, Slider::new(limits.top_k, 1..=1000).text("top-k"), help);
            let help = "Most detections of an image; 0, as M2Det is published, for all";
            slider(ui, Slider::new(limits.max_detections, 1..=1000).text("detections"), help);
        }
        if done && *edited != *config {
            actions.push(Action::Configure(Box::new(edited.clone())));
        }
        if done || !ui.ctx().egui_is_using_pointer() {
            self.edited = None;
        }
    }
}

/// The devices there are, and a choice among them.
fn devices(ui: &mut Ui, state: &State, actions: &mut Vec<Action>) {
    let Some((found, current)) = &state.devices else { return };
    let in_use = |device: &DeviceInfo| device.choice.to_string() == *current;
    ui.horizontal_wrapped(|ui| {
        ui.label("Device");
        let chosen = egui::ComboBox::from_id_salt("device").selected_text(current.as_str()).show_ui(ui, |ui| {
            for device in &found.list {
                if ui.selectable_label(in_use(device), device.to_string()).clicked() && !in_use(device) {
                    actions.push(Action::UseDevice(device.choice));
                }
            }
            if let Some(remark) = &found.remark {
                ui.add(Label::new(RichText::new(remark).weak()).wrap());
            }
        });
        chosen.response.on_hover_text("Where networks run; the loaded model moves along, a training run does not");
        if let Some(device) = found.list.iter().find(|device| in_use(device)) {
            ui.weak(device.to_string());
        }
    });
}

/// Back to how the model was published or loaded, and copies of it to compare with.
fn resets(ui: &mut Ui, model: &ModelSummary, actions: &mut Vec<Action>) {
    ui.horizontal_wrapped(|ui| {
        let fresh = with_first_limits(&model.config);
        let limits = ui.add_enabled(fresh != model.config, Button::new("Reset limits"));
        if limits.on_hover_text("The thresholds of the published network; can be undone").clicked() {
            actions.push(Action::Configure(Box::new(fresh)));
        }
        let source = source(model);
        let reload = ui.add_enabled(source.is_some(), Button::new("Reload weights"));
        let reload = reload.on_hover_text("As they were when they were loaded");
        if reload.on_disabled_hover_text("These weights are in no file: save them first").clicked()
            && let Some((choice, weights)) = source
        {
            actions.push(Action::LoadModel { choice, weights, permit: Permit::default() });
        }
        let menu = ui.menu_button("Copy to a slot", |ui| {
            for (slot, name) in SLOT_NAMES.iter().enumerate() {
                if ui.button(format!("Slot {name}")).clicked() {
                    actions.push(Action::SetSlot { slot, source: SlotSource::Loaded });
                }
            }
        });
        menu.response.on_hover_text("For the Compare panel: the model as it is now");
    });
}

/// The settings with the limits that the published network has.
fn with_first_limits(config: &Config) -> Config {
    let mut first = Config::new(config.arch(), config.classes());
    let mut reset = config.clone();
    {
        let (from, to) = (first.limits_mut(), reset.limits_mut());
        *to.score_threshold = *from.score_threshold;
        *to.top_k = *from.top_k;
        *to.nms_threshold = *from.nms_threshold;
        *to.max_detections = *from.max_detections;
    }
    reset
}

/// Where the weights can be loaded from again; nowhere for those that were trained and not saved, or drawn at random.
fn source(model: &ModelSummary) -> Option<(ModelChoice, Option<PathBuf>)> {
    let path = Path::new(&model.weights);
    if model.weights == "embedded" {
        Some((ModelChoice::Named(model.config.arch().name().into()), None))
    } else {
        is_weights_path(path).then(|| (ModelChoice::FromWeights, Some(path.to_path_buf())))
    }
}

fn facts(ui: &mut Ui, model: &ModelSummary, actions: &mut Vec<Action>) {
    let (height, input_width) = model.config.input();
    // With an end to the columns their text is broken into lines.
    let width = ui.available_width();
    Grid::new("model facts").num_columns(2).max_col_width(width).show(ui, |ui| {
        let row = |ui: &mut Ui, name: &str, value: String, help: &str| {
            ui.weak(name).on_hover_text(help);
            ui.label(value);
            ui.end_row();
        };
        row(ui, "Weights", model.weights.clone(), "Where they come from");
        row(ui, "Input", format!("{input_width}×{height}"), "Width and height of what the network sees, pixels");
        row(ui, "Classes", model.config.classes().len().to_string(), "Without background");
        row(ui, "Parameters", format!("{:.3} M", model.parameters as f64 / 1e6), "Weights and biases that are learnt");
        ui.weak("Operations").on_hover_text("Of one forward pass, a multiply–add counting two");
        if model.flops > 0.0 {
            ui.label(format!("{:.2} GFLOPs", model.flops / 1e9));
        } else if ui.button("Count").on_hover_text("Runs the network once").clicked() {
            actions.push(Action::CountFlops);
        }
        ui.end_row();
        row(ui, "Preprocessing", model.config.preprocess().describe(), "From a picture to the network's input");
        row(ui, "Reads", model.layouts.join(", "), "Layouts of checkpoints whose names this network knows");
        if let Some(report) = &model.report {
            let text = format!("{} tensors, {:.1} %", report.loaded.len(), report.coverage * 100.0);
            row(ui, "Loaded", text, "Of the network's tensors, and of its parameters");
        }
    });
}

/// What a background's place is called.
fn place(order: Option<ClassOrder>) -> String {
    order.map_or_else(|| "as found".to_string(), |order| order.to_string())
}

/// What of the run's network its first weights did not fill.
fn start(ui: &mut Ui, report: &LoadReport) {
    let fresh = report.missing.len() + report.mismatched.len();
    if fresh > 0 {
        let text = format!("The run started with {fresh} fresh tensors, at random:");
        ui.add(Label::new(RichText::new(text).color(ui.visuals().error_fg_color)).wrap());
        ui.push_id("start", |ui| troubles(ui, report, true));
        ui.separator();
    }
}

/// What of the file and of the network did not come together.
fn troubles(ui: &mut Ui, report: &LoadReport, open: bool) {
    let shape = |shape: &[usize]| shape.iter().map(usize::to_string).collect::<Vec<_>>().join("×");
    let missing = report.missing.iter().map(|entry| format!("{}  {}", entry.name, shape(&entry.shape)));
    let unexpected = report.unexpected.iter().map(|(name, found)| format!("{name}  {}", shape(found)));
    let mismatched = report
        .mismatched
        .iter()
        .map(|(name, wanted, found)| format!("{name}  {} in the network, {} in the file", shape(wanted), shape(found)));
    let lists: [(&str, Vec<String>); 4] = [
        ("missing in the file", missing.collect()),
        ("unexpected in the file", unexpected.collect()),
        ("of another shape", mismatched.collect()),
        ("left as built, as asked", report.reinitialised.clone()),
    ];
    for (kind, names) in lists.into_iter().filter(|(_, names)| !names.is_empty()) {
        let title = RichText::new(format!("{} {kind}", names.len())).color(ui.visuals().error_fg_color);
        CollapsingHeader::new(title).default_open(open).show(ui, |ui| {
            for name in names.iter().take(NAMED) {
                ui.monospace(name);
            }
            if names.len() > NAMED {
                ui.weak(format!("{} more; `boxwright weights` lists them all", names.len() - NAMED));
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::devices::Devices;
    use crate::engine::{DeviceChoice, Event};
    use egui::accesskit::Role;
    use egui_kittest::Harness;
    use egui_kittest::kittest::Queryable;
    use std::cell::RefCell;
    use std::rc::Rc;
    use std::sync::Arc;

    fn summary(weights: &str) -> ModelSummary {
        ModelSummary {
            config: Config::new(Arch::SsdNano, &["a".to_string()]),
            weights: weights.into(),
            report: None,
            parameters: 1,
            device: "cpu".into(),
            layouts: Vec::new(),
            flops: 0.0,
        }
    }

    #[test]
    fn only_what_can_be_read_again_is_reloaded() {
        assert_eq!(source(&summary("embedded")), Some((ModelChoice::Named("ssd-nano".into()), None)));
        let file = PathBuf::from("runs/a/weights/best.safetensors");
        assert_eq!(source(&summary("runs/a/weights/best.safetensors")), Some((ModelChoice::FromWeights, Some(file))));
        assert_eq!(source(&summary("trained 7 iterations, not saved")), None);
        assert_eq!(source(&summary("random")), None);
    }

    #[test]
    fn limits_go_back_to_the_published_ones_and_nothing_else_changes() {
        let published = Config::new(Arch::RetinanetNano, &["a".to_string(), "b".to_string()]);
        let mut changed = published.clone();
        *changed.limits_mut().nms_threshold = 0.123;
        *changed.limits_mut().top_k = 3;
        assert_ne!(changed, published);
        assert_eq!(with_first_limits(&changed), published);
    }

    #[test]
    fn a_network_without_weights_asks_for_a_file_unless_random_ones_will_do() {
        let mut panel = ModelPanel::default();
        assert_eq!(panel.load(Arch::Ssd300), Action::OpenDialog(Dialog::WeightsOf(Arch::Ssd300)));
        panel.random = true;
        assert!(matches!(panel.load(Arch::Ssd300), Action::LoadModel { permit: Permit { partial: true, .. }, .. }));
        assert!(matches!(panel.load(Arch::SsdNano), Action::LoadModel { permit: Permit { partial: false, .. }, .. }));
    }

    /// A harness over a panel, with what it raises.
    fn drawn(
        mut draw: impl FnMut(&mut Ui, &mut Vec<Action>) + 'static,
    ) -> (Harness<'static>, Rc<RefCell<Vec<Action>>>) {
        let raised: Rc<RefCell<Vec<Action>>> = Rc::default();
        let inner = raised.clone();
        let mut harness = Harness::new_ui(move |ui| draw(ui, &mut inner.borrow_mut()));
        harness.run_steps(2);
        (harness, raised)
    }

    #[test]
    fn a_file_whose_order_is_unknown_loads_again_with_the_one_that_is_chosen() {
        let (choice, weights) = (ModelChoice::Named("fcos-nano".into()), Some(PathBuf::from("a.pth")));
        let (permit, reason) = (Permit::default(), "no name tells the order".to_string());
        let mut state = State::default();
        state.fold(Event::OrderAsked(OrderAsked { choice: choice.clone(), weights: weights.clone(), permit, reason }));
        let mut panel = ModelPanel::default();
        let (mut harness, raised) = drawn(move |ui, actions| panel.ui(ui, &state, actions));
        assert!(harness.query_by_label("no name tells the order").is_some());
        harness.get_by_role_and_label(Role::Button, "Load again").click();
        harness.run_steps(3);
        assert!(raised.borrow().is_empty(), "nothing is chosen yet");
        harness.get_by_label("none").click();
        harness.run_steps(3);
        harness.get_by_role_and_label(Role::Button, "Load again").click();
        harness.run_steps(3);
        let permit = Permit { class_order: Some(ClassOrder::NoBackground), ..permit };
        assert_eq!(*raised.borrow(), [Action::LoadModel { choice, weights, permit }]);
    }

    #[test]
    fn a_head_of_another_number_of_classes_is_kept_or_made_anew_as_a_person_says() {
        let classes = ["a".to_string(), "b".to_string()];
        let file = PathBuf::from("a.safetensors");
        let fresh = "New head for the 2 classes of the open data";
        let (mut panel, model, data) = (ModelPanel::default(), summary("a.safetensors"), classes.clone());
        let (mut harness, raised) = drawn(move |ui, actions| panel.head(ui, &model, &data, actions));
        assert!(harness.query_by_label("The head of these weights has 1 classes, the open data 2.").is_some());
        harness.get_by_role_and_label(Role::Button, fresh).click();
        harness.run_steps(3);
        let permit = Permit { reinitialise_head: true, ..Permit::default() };
        let choice = ModelChoice::Configured(Box::new(Config::new(Arch::SsdNano, &classes)));
        assert_eq!(*raised.borrow(), [Action::LoadModel { choice, weights: Some(file), permit }]);
        harness.get_by_role_and_label(Role::Button, "Keep the file's classes").click();
        harness.run_steps(3);
        assert!(harness.query_by_label(fresh).is_none() && raised.borrow().len() == 1);
    }

    #[test]
    fn what_a_run_had_to_begin_at_random_is_listed() {
        let permit = Permit { reinitialise_head: true, ..Permit::default() };
        let config = Config::new(Arch::SsdNano, &["a".to_string(), "b".to_string()]);
        let choice = ModelChoice::Configured(Box::new(config));
        let cpu = DeviceChoice::Cpu.open().unwrap();
        let model = crate::engine::model::load_permitting(&choice, None, permit, &cpu).unwrap();
        let report = model.report.unwrap();
        let (count, name) = (report.mismatched.len(), report.reinitialised[0].clone());
        let (harness, _) = drawn(move |ui, _| start(ui, &report));
        assert!(harness.query_by_label(&format!("The run started with {count} fresh tensors, at random:")).is_some());
        assert!(harness.query_by_label(&name).is_some(), "{name}");
    }

    #[test]
    fn devices_are_offered_with_their_memory_and_what_is_missing() {
        let device = |choice, name: &str| {
            let memory = Some(16 << 30);
            DeviceInfo { choice, name: name.into(), memory, free: Some(12 << 30), driver: None }
        };
        let list = vec![device(DeviceChoice::Cpu, "processor"), device(DeviceChoice::Cuda(0), "NVIDIA T4")];
        let found = Arc::new(Devices { list, remark: Some("free memory is unknown".into()) });
        let mut state = State::default();
        state.fold(Event::Devices { found, current: "cpu".into() });
        let raised: Rc<RefCell<Vec<Action>>> = Rc::default();
        let inner = raised.clone();
        let mut harness = Harness::new_ui(move |ui| devices(ui, &state, &mut inner.borrow_mut()));
        harness.run_steps(2);
        assert!(harness.query_by_label("cpu: processor, 12.0 of 16.0 GiB free").is_some());
        harness.get_by_role(Role::ComboBox).click();
        harness.run_steps(3);
        assert!(harness.query_by_label("free memory is unknown").is_some());
        harness.get_by_label("cuda:0: NVIDIA T4, 12.0 of 16.0 GiB free").click();
        harness.run_steps(3);
        assert_eq!(*raised.borrow(), [Action::UseDevice(DeviceChoice::Cuda(0))]);
    }
}
