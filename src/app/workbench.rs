//! The window: drains the engine, draws the panels, applies what they asked for.

use super::action::{Action, Dialog};
use super::bridge::{self, Messages};
use super::dialogs::{Dialogs, is_weights_path};
use super::keys::{self, Binding};
use super::layout::{self, Panel};
use super::overlay::{Palette, help};
use super::panels::data::DataPanel;
use super::panels::evaluation;
use super::panels::image::{ImagePanel, Wish};
use super::panels::log::LogPanel;
use super::panels::losses::LossesPanel;
use super::panels::model::ModelPanel;
use super::panels::step::StepPanel;
use super::settings::Settings;
use super::state::State;
use super::theme;
use crate::cli::WindowArguments;
use crate::detect::{Arch, Config};
use crate::engine::command::ModelChoice;
use crate::engine::{Command, Engine, Event, Severity};
use crate::train::{RunConfig, TrainConfig};
use egui::{Context, Ui, ViewportCommand};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Time that one frame may spend on taking events in.
const DRAIN_BUDGET: Duration = Duration::from_millis(4);
/// A repaint after an event comes this late, so that a burst of events makes one frame.
const WAKE_DELAY: Duration = Duration::from_millis(10);
const UNDO_STEPS: usize = 100;

/// The program's window.
pub struct Workbench {
    engine: Engine,
    pub state: State,
    pub settings: Settings,
    tree: egui_tiles::Tree<Panel>,
    panels: Panels,
    bindings: Vec<Binding>,
    palette: Palette,
    help: bool,
    full_screen: bool,
    dialogs: Dialogs,
    /// Model settings to go back to, and to go forward to again.
    undo: Vec<Config>,
    redo: Vec<Config>,
    drawing: Messages,
    shown_seen: u64,
    stepped_seen: u64,
    times: Option<Times>,
    exit_at: Option<Instant>,
    saved: String,
    saved_at: Instant,
}

/// Scratch of the panels.
#[derive(Default)]
struct Panels {
    data: DataPanel,
    model: ModelPanel,
    image: ImagePanel,
    losses: LossesPanel,
    step: StepPanel,
    log: LogPanel,
}

/// What `--verbose` prints once each.
struct Times {
    start: Instant,
    frame: bool,
    detections: bool,
}

impl Workbench {
    /// # Errors
    /// Graphics that cannot draw, or no thread for the engine.
    pub fn new(
        creation: &eframe::CreationContext<'_>,
        arguments: &WindowArguments,
        start: Instant,
    ) -> Result<Self, String> {
        let drawing = match &creation.wgpu_render_state {
            Some(state) => bridge::install(state).map_err(|e| e.to_string())?,
            None => Messages::default(),
        };
        let mut workbench = Self::start(&creation.egui_ctx, arguments, Settings::load(), drawing)?;
        workbench.times = arguments.verbose.then_some(Times { start, frame: false, detections: false });
        Ok(workbench)
    }

    /// A workbench with default settings and nothing to draw pictures with, for tests that drive it by labels.
    ///
    /// # Errors
    /// No thread for the engine.
    pub fn for_tests(ctx: &Context, arguments: &WindowArguments) -> Result<Self, String> {
        Self::start(ctx, arguments, Settings::default(), Messages::default())
    }

    fn start(
        ctx: &Context,
        arguments: &WindowArguments,
        settings: Settings,
        drawing: Messages,
    ) -> Result<Self, String> {
        let wake = ctx.clone();
        let engine = Engine::start(arguments.device, Arc::new(move || wake.request_repaint_after(WAKE_DELAY)))
            .map_err(|e| format!("the engine's thread does not start: {e}"))?;
        let (bindings, wrong) = keys::bindings(&settings.keys);
        let mut workbench = Self {
            engine,
            state: State::default(),
            tree: settings.layout.clone().unwrap_or_else(layout::default_layout),
            settings,
            panels: Panels::default(),
            bindings,
            palette: Palette::default(),
            help: false,
            full_screen: false,
            dialogs: Dialogs::default(),
            undo: Vec::new(),
            redo: Vec::new(),
            drawing,
            shown_seen: 0,
            stepped_seen: 0,
            times: None,
            exit_at: arguments.exit_after.map(|s| Instant::now() + Duration::from_secs_f32(s.max(0.0))),
            saved: String::new(),
            saved_at: Instant::now(),
        };
        for message in wrong {
            workbench.state.note(Severity::Warning, "keys", message);
        }
        theme::apply(ctx, workbench.settings.dark, workbench.settings.scale);
        workbench.open_at_start(&arguments.paths);
        Ok(workbench)
    }

    /// The sample, or what the command line names: the picture comes before the model.
    fn open_at_start(&mut self, paths: &[PathBuf]) {
        let (weights, data): (Vec<&PathBuf>, Vec<&PathBuf>) = paths.iter().partition(|p| is_weights_path(p));
        match data.first() {
            Some(path) => self.open_path(path),
            None => self.open_data("shapes", Some("test".into())),
        }
        match weights.first() {
            Some(path) => self.open_path(path),
            None => self.send(Command::LoadModel {
                choice: ModelChoice::Named(Arch::SsdNano.name().into()),
                weights: None,
                allow_partial: false,
            }),
        }
    }

    fn send(&mut self, command: Command) {
        if !self.engine.send(command) {
            self.state.note(Severity::Warning, "engine", "too much is waiting already; try again in a moment");
        }
    }

    fn open_data(&mut self, path: &str, split: Option<String>) {
        self.send(Command::OpenData { path: path.to_string(), split });
        self.send(Command::Show { index: 0 });
    }

    fn open_path(&mut self, path: &Path) {
        if is_weights_path(path) {
            let weights = Some(path.to_path_buf());
            self.send(Command::LoadModel { choice: ModelChoice::FromWeights, weights, allow_partial: false });
        } else {
            self.open_data(&path.to_string_lossy(), None);
        }
        self.settings.remember(std::path::absolute(path).unwrap_or_else(|_| path.to_path_buf()));
    }

    /// Takes in what the engine has to say, within the time budget.
    pub fn drain(&mut self, ctx: &Context) {
        let start = Instant::now();
        while let Some(event) = self.engine.poll() {
            self.react(&event);
            self.state.fold(event);
            if start.elapsed() > DRAIN_BUDGET {
                ctx.request_repaint();
                break;
            }
        }
        if let Some(shown) = self.engine.slots.shown.newer(&mut self.shown_seen) {
            if shown.detected
                && let Some(times) = self.times.as_mut().filter(|t| !t.detections)
            {
                times.detections = true;
                eprintln!("first detections after {:.2} s", times.start.elapsed().as_secs_f64());
            }
            self.state.wanted = shown.index;
            self.state.shown = Some(shown);
            self.state.shown_version += 1;
        }
        if let Some(stepped) = self.engine.slots.stepped.newer(&mut self.stepped_seen) {
            self.state.stepped = Some(stepped);
            self.state.stepped_version += 1;
            self.panels.step.select_image(0);
        }
        for message in self.drawing.take() {
            self.state.note(Severity::Error, "drawing", message);
        }
    }

    /// What an event sets going, beyond what the state remembers of it.
    fn react(&mut self, event: &Event) {
        if let Event::Log { severity: Severity::Error, .. } = event {
            layout::focus(&mut self.tree, Panel::Log);
        }
        if let Event::Evaluated(_) = event {
            layout::focus(&mut self.tree, Panel::Evaluation);
        }
        if let Event::Stepped(_) = event
            && self.state.curves.len == 0
        {
            layout::focus(&mut self.tree, Panel::Losses);
        }
    }

    /// Does what was asked for.
    pub fn apply(&mut self, ctx: &Context, action: Action) {
        match action {
            Action::OpenPath(path) => self.open_path(&path),
            Action::OpenData { path, split } => self.open_data(&path, split),
            Action::OpenDialog(dialog) => self.open_dialog(ctx, dialog),
            Action::Show(index) => self.show(index),
            Action::Next => self.show(self.state.wanted.saturating_add(1)),
            Action::Previous => self.show(self.state.wanted.saturating_sub(1)),
            Action::LoadModel { choice, weights, allow_partial } => {
                self.send(Command::LoadModel { choice, weights, allow_partial });
            }
            Action::Configure(config) => {
                if let Some(model) = &self.state.model {
                    self.undo.push(model.config.clone());
                    self.undo.truncate(UNDO_STEPS);
                    self.redo.clear();
                }
                self.send(Command::Configure(config));
            }
            Action::Undo => self.travel(true),
            Action::Redo => self.travel(false),
            Action::StartTraining { from_current } => _ = self.start_training(from_current),
            Action::Step(iterations) => {
                if self.state.training.is_some() || self.start_training(true) {
                    self.send(Command::Step { iterations });
                }
            }
            Action::TrainOrPause => {
                let running = self.state.is_training();
                if running {
                    self.send(Command::Pause);
                } else if self.state.training.is_some() || self.start_training(true) {
                    self.send(Command::Train);
                }
            }
            Action::StopTraining => self.send(Command::StopTraining),
            Action::SaveWeights(path) => self.send(Command::Save { path }),
            Action::Evaluate => self.send(Command::Evaluate),
            Action::Cancel => self.send(Command::Cancel),
            Action::Score(score) => self.settings.score = score.clamp(0.0, 1.0),
            Action::ScoreBy(by) => self.settings.score = (self.settings.score + by).clamp(0.0, 1.0),
            Action::Toggle(layer) => self.settings.toggle(layer),
            Action::Isolate(class) => self.panels.image.isolated = class,
            Action::Select(selected) => self.panels.image.selected = selected,
            Action::StepImage(image) => self.panels.step.select_image(image),
            Action::Fit => self.panels.image.wish(Wish::Fit),
            Action::ActualSize => self.panels.image.wish(Wish::Actual),
            Action::ZoomSelection => self.panels.image.wish(Wish::Selection),
            Action::ZoomBy(factor) => self.panels.image.wish(Wish::Zoom(factor)),
            Action::Focus(panel) => layout::focus(&mut self.tree, panel),
            Action::ResetLayout => self.tree = layout::default_layout(),
            Action::ToggleTheme => {
                self.settings.dark = !self.settings.dark;
                theme::apply(ctx, self.settings.dark, self.settings.scale);
            }
            Action::UiScale(scale) => {
                self.settings.scale = scale.clamp(0.5, 3.0);
                theme::apply(ctx, self.settings.dark, self.settings.scale);
            }
            Action::ToggleHelp => self.help = !self.help,
            Action::TogglePalette => self.palette.toggle(),
            Action::FullScreen => {
                self.full_screen = !self.full_screen;
                ctx.send_viewport_cmd(ViewportCommand::Fullscreen(self.full_screen));
            }
            Action::ClearLog => self.state.log.clear(),
            Action::ExportView(path) => self.export(path),
            Action::Clear => {
                self.panels.image.selected = None;
                self.panels.image.isolated = None;
            }
        }
    }

    fn show(&mut self, index: usize) {
        let Some(last) = self.state.images().checked_sub(1) else { return };
        self.state.wanted = index.min(last);
        self.send(Command::Show { index: self.state.wanted });
    }

    fn travel(&mut self, back: bool) {
        let Some(model) = &self.state.model else { return };
        let current = model.config.clone();
        let (from, to) = if back { (&mut self.undo, &mut self.redo) } else { (&mut self.redo, &mut self.undo) };
        // A model loaded since then has other settings; going back into those of another one would break it.
        let Some(config) = from.pop().filter(|c| c.arch() == current.arch() && c.classes() == current.classes()) else {
            self.state.note(Severity::Info, "undo", "there is nothing to undo or redo");
            return;
        };
        to.push(current);
        self.send(Command::Configure(Box::new(config)));
    }

    /// Prepares a run on the open data; false when there is none to train on.
    fn start_training(&mut self, from_current: bool) -> bool {
        let Some(data) = self.state.data.clone() else {
            self.state.note(Severity::Error, "training", "open a data set to train on first");
            return false;
        };
        let loaded = self.state.model.as_ref().map(|m| m.config.clone());
        let arch = loaded.as_ref().map_or(Arch::SsdNano, Config::arch);
        let fits = loaded.as_ref().is_some_and(|c| c.classes() == data.classes);
        let model = match loaded {
            Some(config) if fits => config,
            _ => Config::new(arch, &data.classes),
        };
        let train = match &self.panels.step.draft {
            Some((of, draft)) if *of == arch => draft.clone(),
            _ => TrainConfig::new(arch),
        };
        let config = RunConfig { data: data.path.clone(), split: Some(data.split.clone()), train, model };
        let folder = self.panels.step.folder(arch);
        self.send(Command::StartTraining { config: Box::new(config), folder, from_current: from_current && fits });
        true
    }

    fn open_dialog(&mut self, ctx: &Context, dialog: Dialog) {
        let wake = ctx.clone();
        if let Err(error) = self.dialogs.open(dialog, move || wake.request_repaint()) {
            self.state.note(Severity::Error, "dialog", format!("it does not open: {error}"));
        }
    }

    /// Draws the image view into a file, at the picture's own size.
    fn export(&mut self, path: PathBuf) {
        let Some(shown) = self.state.shown.clone() else {
            self.state.note(Severity::Error, "export", "no image is on show");
            return;
        };
        let scene = self.panels.image.current(&shown, self.state.shown_version, &self.settings);
        match super::export::scene_to_png(&scene, &path) {
            Ok(()) => self.state.note(Severity::Info, "export", format!("written: {}", path.display())),
            Err(error) => self.state.note(Severity::Error, "export", error),
        }
    }

    fn save_settings(&mut self, at_exit: bool) {
        if !at_exit && self.saved_at.elapsed() < Duration::from_secs(5) {
            return;
        }
        self.saved_at = Instant::now();
        self.settings.layout = Some(self.tree.clone());
        let text = serde_json::to_string(&self.settings).unwrap_or_default();
        if text != self.saved {
            if let Err(error) = self.settings.save() {
                self.state.note(Severity::Warning, "settings", error);
            }
            self.saved = text;
        }
    }

    /// Draws everything and applies what was asked for.
    pub fn draw(&mut self, ui: &mut Ui) {
        let ctx = ui.ctx().clone();
        let mut actions = Vec::new();
        if !self.palette.open && !self.help {
            actions = keys::pressed(&ctx, &self.bindings);
        } else if ctx.input_mut(|i| i.consume_key(egui::Modifiers::NONE, egui::Key::Escape)) {
            self.palette.open = false;
            self.help = false;
        }
        while let Some(action) = self.dialogs.answer() {
            actions.push(action);
        }
        let dropped: Vec<PathBuf> = ctx.input(|i| i.raw.dropped_files.iter().map(|f| f.path().to_path_buf()).collect());
        actions.extend(dropped.into_iter().map(Action::OpenPath));
        egui::Panel::top("menu").show(ui, |ui| self.menu(ui, &mut actions));
        egui::Panel::bottom("status").show(ui, |ui| self.status(ui, &mut actions));
        egui::CentralPanel::default().frame(egui::Frame::NONE).show(ui, |ui| {
            let mut behavior = PanelBehavior {
                state: &self.state,
                settings: &self.settings,
                panels: &mut self.panels,
                actions: &mut actions,
            };
            self.tree.ui(&mut behavior, ui);
        });
        if let Some(action) = self.palette.show(&ctx, &self.bindings) {
            actions.push(action);
        }
        if self.help && help(&ctx, &self.bindings) {
            self.help = false;
        }
        for action in actions {
            self.apply(&ctx, action);
        }
    }

    fn menu(&mut self, ui: &mut Ui, actions: &mut Vec<Action>) {
        ui.horizontal(|ui| {
            for (menu, names) in MENUS {
                ui.menu_button(*menu, |ui| {
                    for name in *names {
                        let Some(binding) = self.bindings.iter().find(|b| b.name == *name) else { continue };
                        let keys = binding.keys.first().map(|k| ui.ctx().format_shortcut(k)).unwrap_or_default();
                        if ui.add(egui::Button::new(*name).shortcut_text(keys)).clicked() {
                            actions.push(binding.action.clone());
                        }
                    }
                    if *menu == "View" {
                        let mut scale = self.settings.scale;
                        let slider = egui::Slider::new(&mut scale, 0.5..=3.0).step_by(0.25).text("UI scale");
                        if ui.add(slider).drag_stopped() {
                            actions.push(Action::UiScale(scale));
                        }
                    }
                });
            }
        });
    }

    fn status(&mut self, ui: &mut Ui, actions: &mut Vec<Action>) {
        ui.horizontal(|ui| {
            if let Some(model) = &self.state.model {
                ui.label(format!("{} on {}", model.config.arch(), model.device));
                ui.separator();
            }
            if let Some(data) = &self.state.data {
                ui.label(format!(
                    "{} {}, image {} of {}",
                    data.name,
                    data.split,
                    self.state.wanted + 1,
                    data.images.len()
                ));
                ui.separator();
            }
            if let Some(training) = &self.state.training {
                let how = if training.running { "training" } else { "paused" };
                ui.label(format!("{how} at iteration {}", training.iteration));
                ui.separator();
            }
            if let Some(progress) = &self.state.progress {
                ui.label(format!("{} {}/{}", progress.task, progress.done, progress.total));
                if ui.small_button("Cancel").clicked() {
                    actions.push(Action::Cancel);
                }
                ui.separator();
            }
            if let Some(line) = self.state.log.iter().rev().find(|l| l.severity >= Severity::Warning) {
                let color = if line.severity == Severity::Error { theme::ERROR } else { theme::WARNING };
                let text = egui::RichText::new(&line.message).color(color);
                if ui.add(egui::Label::new(text).truncate().sense(egui::Sense::click())).clicked() {
                    actions.push(Action::Focus(Panel::Log));
                }
            } else {
                ui.weak("? for keys, Ctrl+P for everything");
            }
        });
    }
}

/// The menus, by the names of their bindings.
const MENUS: &[(&str, &[&str])] = &[
    (
        "File",
        &[
            "Open image…",
            "Open folder or data set…",
            "Open COCO annotations…",
            "Open the Shapes sample",
            "Load weights…",
            "Save weights…",
            "Export view as PNG…",
        ],
    ),
    ("Edit", &["Undo", "Redo", "Close or clear"]),
    (
        "View",
        &[
            "Fit image",
            "Zoom 100 %",
            "Zoom to selection",
            "Zoom in",
            "Zoom out",
            "Ground truth on or off",
            "Predictions on or off",
            "Labels on or off",
            "Positive anchors on or off",
            "Heat map on or off",
            "Light or dark",
            "Reset layout",
            "Full screen",
        ],
    ),
    (
        "Train",
        &[
            "Start training on the open data",
            "Train or pause",
            "Step one iteration",
            "Step ten iterations",
            "Stop training",
            "Evaluate on the open data",
            "Cancel",
        ],
    ),
    ("Help", &["Keys", "Palette"]),
];

struct PanelBehavior<'a> {
    state: &'a State,
    settings: &'a Settings,
    panels: &'a mut Panels,
    actions: &'a mut Vec<Action>,
}

impl egui_tiles::Behavior<Panel> for PanelBehavior<'_> {
    fn pane_ui(&mut self, ui: &mut Ui, _id: egui_tiles::TileId, panel: &mut Panel) -> egui_tiles::UiResponse {
        egui::Frame::NONE.inner_margin(6.0).show(ui, |ui| {
            let (panels, state, actions) = (&mut *self.panels, self.state, &mut *self.actions);
            match panel {
                Panel::Data => panels.data.ui(ui, state, &self.settings.recent, actions),
                Panel::Model => panels.model.ui(ui, state, actions),
                Panel::Image => panels.image.ui(ui, state, self.settings, actions),
                Panel::Losses => panels.losses.ui(ui, state, actions),
                Panel::Step => panels.step.ui(ui, state, actions),
                Panel::Evaluation => evaluation::ui(ui, state, actions),
                Panel::Log => panels.log.ui(ui, state, actions),
            }
        });
        egui_tiles::UiResponse::None
    }

    fn tab_title_for_pane(&mut self, panel: &Panel) -> egui::WidgetText {
        panel.name().into()
    }

    fn simplification_options(&self) -> egui_tiles::SimplificationOptions {
        egui_tiles::SimplificationOptions { all_panes_must_have_tabs: true, ..Default::default() }
    }
}

impl eframe::App for Workbench {
    fn logic(&mut self, ctx: &Context, _frame: &mut eframe::Frame) {
        self.drain(ctx);
        if let Some(at) = self.exit_at {
            if Instant::now() >= at {
                ctx.send_viewport_cmd(ViewportCommand::Close);
            } else {
                ctx.request_repaint_after(at - Instant::now());
            }
        }
    }

    fn ui(&mut self, ui: &mut Ui, _frame: &mut eframe::Frame) {
        self.draw(ui);
        self.save_settings(false);
        if let Some(times) = self.times.as_mut().filter(|t| !t.frame) {
            times.frame = true;
            eprintln!("first frame after {:.2} s", times.start.elapsed().as_secs_f64());
        }
    }

    fn on_exit(&mut self) {
        self.save_settings(true);
    }
}
