//! The window: drains the engine, draws the panels, applies what they asked for.

mod collecting;
mod comfort;
mod exporting;
mod menus;
mod panes;
mod status;
mod training;
mod undo;

use super::action::{Action, Dialog, Layer};
use super::bridge::{self, Messages};
use super::dialogs::{Dialogs, holds_results, is_weights_path};
use super::key_sheet::KeySheet;
use super::keys::{self, Binding};
use super::layout::{self, Panel};
use super::layout_menu::LayoutMenu;
use super::outcome::OutcomeFilter;
use super::overlay::Palette;
use super::panels::compare::ComparePanel;
use super::panels::data::DataPanel;
use super::panels::evaluation::EvaluationPanel;
use super::panels::features::FeaturesPanel;
use super::panels::image::{ImagePanel, Wish};
use super::panels::log::LogPanel;
use super::panels::losses::LossesPanel;
use super::panels::model::ModelPanel;
use super::panels::pipeline::PipelinePanels;
use super::panels::runs::RunsPanel;
use super::panels::step::StepPanel;
use super::run_action::RunAction;
use super::settings::Settings;
use super::state::{ENGINE, State};
use super::theme;
use super::toasts::Toasts;
use super::unsaved::Unsaved;
use super::window_action::WindowAction;
use super::writer::Writer;
use crate::cli::WindowArguments;
use crate::data::open::is_built_in;
use crate::detect::Arch;
use crate::engine::command::{InitialWeights, ModelChoice};
use crate::engine::history::History;
use crate::engine::model::Permit;
use crate::engine::video::is_video_path;
use crate::engine::{Command, Engine, Event, Severity};
use egui::{Context, Ui, ViewportCommand};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};
use undo::Edit;

/// Time that one frame may spend on taking events in.
const DRAIN_BUDGET: Duration = Duration::from_millis(4);
/// A repaint after an event comes this late, so that a burst of events makes one frame.
const WAKE_DELAY: Duration = Duration::from_millis(10);

/// The program's window.
pub struct Workbench {
    engine: Engine,
    history: History,
    writer: Writer,
    pub state: State,
    pub settings: Settings,
    tree: egui_tiles::Tree<Panel>,
    panels: Panels,
    bindings: Vec<Binding>,
    palette: Palette,
    unsaved: Unsaved,
    sheet: KeySheet,
    layouts: LayoutMenu,
    toasts: Toasts,
    full_screen: bool,
    dialogs: Dialogs,
    /// What to go back to, and to go forward to again.
    undo: Vec<Edit>,
    redo: Vec<Edit>,
    /// The layout before the drag of a tile or border that is under way.
    moving: Option<egui_tiles::Tree<Panel>>,
    drawing: Messages,
    /// The image that was asked for and is not on show yet.
    asked_for: Option<usize>,
    shown_seen: u64,
    stepped_seen: u64,
    compared_seen: u64,
    scrubbed_seen: u64,
    augmented_seen: u64,
    times: Option<Times>,
    exit_at: Option<Instant>,
    saved: String,
    saved_at: Instant,
    /// When the run at hand was put into the list of runs last.
    noted_at: Instant,
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
    evaluation: EvaluationPanel,
    compare: ComparePanel,
    features: FeaturesPanel,
    pipeline: PipelinePanels,
    runs: RunsPanel,
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
            Some(state) => bridge::install(state, &creation.egui_ctx).map_err(|e| e.to_string())?,
            None => Messages::default(),
        };
        super::motion::follow_system(&creation.egui_ctx);
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
        theme::install_fonts(ctx);
        let wake = ctx.clone();
        let wake: crate::engine::Wake = Arc::new(move || wake.request_repaint_after(WAKE_DELAY));
        let engine = Engine::start(arguments.device, wake.clone())
            .map_err(|e| format!("the engine's thread does not start: {e}"))?;
        let writer = Writer::start(wake.clone()).map_err(|e| format!("no thread writes files: {e}"))?;
        let history = History::start(wake).map_err(|e| format!("no thread reads the runs: {e}"))?;
        let (bindings, wrong) = keys::bindings(&settings.keys);
        let mut workbench = Self {
            engine,
            history,
            state: State::default(),
            tree: settings.layout.clone().unwrap_or_else(layout::default_layout),
            settings,
            panels: Panels::default(),
            bindings,
            palette: Palette::default(),
            unsaved: Unsaved::default(),
            sheet: KeySheet::default(),
            layouts: LayoutMenu::default(),
            toasts: Toasts::default(),
            full_screen: false,
            dialogs: Dialogs::default(),
            undo: Vec::new(),
            redo: Vec::new(),
            moving: None,
            writer,
            drawing,
            asked_for: None,
            shown_seen: 0,
            stepped_seen: 0,
            compared_seen: 0,
            scrubbed_seen: 0,
            augmented_seen: 0,
            times: None,
            exit_at: arguments.exit_after.map(|s| Instant::now() + Duration::from_secs_f32(s.max(0.0))),
            saved: String::new(),
            saved_at: Instant::now(),
            noted_at: Instant::now(),
        };
        for message in wrong {
            workbench.state.note(Severity::Warning, "keys", message);
        }
        theme::apply(ctx, workbench.settings.look, workbench.settings.scale);
        workbench.open_at_start(&arguments.paths);
        workbench.send(Command::ListDevices);
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
                permit: Permit::default(),
            }),
        }
    }

    fn send(&mut self, command: Command) {
        if !self.engine.send(command) {
            self.state.refuse(ENGINE, "too much is waiting already; try again in a moment");
        }
    }

    /// Loads a model. Where nothing is said of the class order of a file, it is as the Model panel has it.
    fn load_model(&mut self, choice: ModelChoice, weights: Option<PathBuf>, permit: Permit) {
        let chosen = self.panels.model.background().filter(|_| weights.is_some());
        let permit = Permit { class_order: permit.class_order.or(chosen), ..permit };
        self.send(Command::LoadModel { choice, weights, permit });
    }

    fn open_data(&mut self, path: &str, split: Option<String>) {
        self.send(Command::OpenData { path: path.to_string(), split });
        self.send(Command::Show { index: 0 });
    }

    fn open_path(&mut self, path: &Path) {
        if is_video_path(path) {
            self.play_file(path.to_path_buf());
        } else if is_weights_path(path) {
            let weights = Some(path.to_path_buf());
            self.load_model(ModelChoice::FromWeights, weights, Permit::default());
        } else if holds_results(path) {
            self.send(Command::EvaluateResults { path: path.to_path_buf() });
        } else {
            self.open_data(&path.to_string_lossy(), None);
        }
        let place = if is_built_in(&path.to_string_lossy()) { None } else { std::path::absolute(path).ok() };
        self.settings.remember(place.unwrap_or_else(|| path.to_path_buf()));
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
            // An image that was asked for earlier does not take back what was asked for since.
            let plays = self.state.playing.as_ref().is_some_and(|playing| !playing.paused);
            if !shown.is_live() && (plays || self.asked_for.is_none_or(|index| index == shown.index)) {
                self.asked_for = None;
                self.state.wanted = shown.index;
            }
            let before = self.state.shown.as_ref();
            if before.is_none_or(|s| s.detections != shown.detections) {
                self.panels.image.selected = None;
            }
            if before.is_none_or(|s| s.index != shown.index) {
                self.state.object = None;
            }
            self.state.shown = Some(shown);
            self.state.shown_version += 1;
        }
        if let Some(stepped) = self.engine.slots.stepped.newer(&mut self.stepped_seen) {
            self.take_stepped(stepped);
        }
        self.take_answers();
        self.take_written();
        if let Some(augmented) = self.engine.slots.augmented.newer(&mut self.augmented_seen) {
            self.state.augmented = Some(augmented);
            self.state.augmented_version += 1;
        }
        if let Some(compared) = self.engine.slots.compared.newer(&mut self.compared_seen) {
            self.state.compared = Some(compared);
            self.state.compared_version += 1;
        }
        for message in self.drawing.take() {
            // What fails in one frame fails in the next one too.
            if self.state.log.back().is_none_or(|last| last.message != message) {
                self.state.note(Severity::Error, "drawing", message);
            }
        }
    }

    /// What an event sets going, beyond what the state remembers of it.
    fn react(&mut self, event: &Event) {
        self.follow_run(event);
        // The number of a class is that of another one in other data, or another model.
        match event {
            Event::DataOpened(data) => {
                self.asked_for = None;
                if self.state.data.as_ref().is_none_or(|before| before.classes != data.classes) {
                    self.panels.image.isolated = None;
                }
            }
            Event::ModelLoaded(model) => {
                let before = self.state.model.as_ref();
                if before.is_none_or(|before| before.config.classes() != model.config.classes()) {
                    self.panels.image.isolated = None;
                }
            }
            _ => {}
        }
        if let Event::Evaluated(_) = event {
            layout::focus(&mut self.tree, Panel::Evaluation);
        }
        if let Event::Saved { path } = event {
            self.toasts.tell("Saved", &format!("written: {}", path.display()));
        }
        if let Event::DataCompared(_) = event {
            layout::focus(&mut self.tree, Panel::Compare);
        }
        if let Event::Stepped(_) = event
            && self.state.curves.len == 0
        {
            layout::focus(&mut self.tree, Panel::Losses);
        }
    }

    /// Does what was asked for.
    pub fn apply(&mut self, ctx: &Context, action: Action) {
        if self.unsaved.holds(&action, &self.state) {
            return;
        }
        match action {
            Action::OpenPath(path) => self.open_path(&path),
            Action::OpenData { path, split } => self.open_data(&path, split),
            Action::OpenDialog(dialog) => self.open_dialog(ctx, dialog),
            Action::Show(index) => self.show(index),
            Action::Next => self.show(self.state.wanted.saturating_add(1)),
            Action::Previous => self.show(self.state.wanted.saturating_sub(1)),
            Action::LoadModel { choice, weights, permit } => self.load_model(choice, weights, permit),
            Action::Configure(config) => {
                if let Some(model) = &self.state.model {
                    self.remember(Edit::Model(Box::new(model.config.clone())));
                }
                self.send(Command::Configure(config));
            }
            Action::Undo => self.travel(true),
            Action::Redo => self.travel(false),
            Action::StartTraining(start) => _ = self.start_training(start),
            Action::Step(iterations) => {
                if self.state.training.is_some() || self.start_training(InitialWeights::Loaded) {
                    self.send(Command::Step { iterations });
                }
            }
            Action::TrainOrPause => {
                let running = self.state.is_training();
                if running {
                    self.send(Command::Pause);
                } else if self.state.training.is_some() || self.start_training(InitialWeights::Loaded) {
                    self.send(Command::Train);
                }
            }
            Action::StopTraining => self.send(Command::StopTraining),
            Action::Run(action) => self.apply_run(action),
            Action::Window(action) => self.apply_window(ctx, action),
            Action::UseDevice(device) => self.send(Command::UseDevice(device)),
            Action::CountFlops => self.send(Command::CountFlops),
            Action::SaveWeights(path) => self.send(Command::Save { path }),
            Action::Evaluate { misses } => {
                // Keys and menus evaluate as the panel is set.
                let misses = (misses || self.panels.evaluation.explains).then_some(self.settings.score);
                self.send(Command::Evaluate { misses });
            }
            Action::EvaluateResults(path) => self.send(Command::EvaluateResults { path }),
            Action::CountConfusion(score) => self.send(Command::Confusion { score }),
            Action::SetSlot { slot, source } => self.send(Command::SetSlot { slot, source }),
            Action::ClearSlot(slot) => self.send(Command::ClearSlot { slot }),
            Action::CompareImage(index) if index < self.state.images() => self.send(Command::CompareImage { index }),
            Action::CompareImage(_) => {
                self.state.note(Severity::Info, "comparison", "frames of a video are not compared; show an image");
            }
            Action::CheckData { .. } | Action::MeasureData | Action::Augment { .. } => self.collect(action),
            Action::Play(_) | Action::PlayOrPause | Action::StopPlaying => self.collect(action),
            Action::Export { .. } | Action::ExportView(_) | Action::SaveResults(_) | Action::Reveal(_) => {
                self.send_out(action);
            }
            Action::CompareData => self.send(Command::CompareData),
            Action::Overlay(map, reduction) => {
                self.panels.image.lay_over(map, reduction);
                if !self.settings.shows(Layer::HeatMap) {
                    self.settings.toggle(Layer::HeatMap);
                }
                layout::focus(&mut self.tree, Panel::Image);
            }
            Action::Cancel => self.send(Command::Cancel),
            Action::Score(score) => self.settings.score = score.clamp(0.0, 1.0),
            Action::ScoreBy(by) => self.settings.score = (self.settings.score + by).clamp(0.0, 1.0),
            Action::Toggle(layer) => self.settings.toggle(layer),
            Action::Color(coloring) => self.settings.coloring = coloring,
            Action::Outcomes(outcomes) => self.panels.image.outcomes = outcomes,
            Action::NextOutcomes => self.panels.image.outcomes = self.panels.image.outcomes.next(),
            Action::Isolate(class) => self.isolate(class),
            Action::Select(selected) => self.panels.image.selected = selected,
            Action::StepImage(image) => self.panels.step.select_image(image),
            Action::SelectObject(object) => self.state.object = object,
            Action::Replay(by) => {
                if !self.panels.pipeline.replay(by) && by < 0 {
                    self.apply_run(RunAction::Back);
                }
            }
            Action::Fit => self.wish(Wish::Fit),
            Action::ActualSize => self.wish(Wish::Actual),
            Action::ZoomSelection => self.wish(Wish::Selection),
            Action::ZoomBy(factor) => self.wish(Wish::Zoom(factor)),
            Action::Focus(panel) if layout::is_hidden(&self.tree, panel) => {
                let text = format!("this detector has nothing for the {} panel", panel.name());
                self.state.note(Severity::Info, "layout", text);
            }
            Action::Focus(panel) => {
                self.panels.pipeline.attention = Some(panel);
                layout::focus(&mut self.tree, panel);
            }
            Action::ResetLayout => self.lay_out(layout::default_layout()),
            Action::ToggleTheme => self.apply_window(ctx, WindowAction::Look(self.settings.look.next())),
            Action::UiScale(scale) => {
                self.settings.scale = scale.clamp(0.5, 3.0);
                theme::apply(ctx, self.settings.look, self.settings.scale);
            }
            Action::ToggleHelp => self.sheet.toggle(),
            Action::TogglePalette => self.palette.toggle(),
            Action::FullScreen => {
                self.full_screen = !self.full_screen;
                ctx.send_viewport_cmd(ViewportCommand::Fullscreen(self.full_screen));
            }
            Action::ClearLog => self.state.log.clear(),
            Action::Clear if self.toasts.dismiss() => {}
            Action::Clear => {
                self.panels.image.selected = None;
                self.panels.image.isolated = None;
                self.panels.image.outcomes = OutcomeFilter::All;
                self.state.object = None;
            }
        }
    }

    /// Moves the picture of the panel that was used last, or else that of the Image panel.
    fn wish(&mut self, wish: Wish) {
        let Panels { pipeline, image, compare, features, .. } = &mut self.panels;
        let own = match pipeline.attention {
            Some(Panel::Compare) => compare.picture(),
            Some(Panel::Features) => features.picture(),
            _ => None,
        };
        match own {
            Some(canvas) => canvas.wish(wish),
            None => pipeline.canvas(image).wish(wish),
        }
    }

    fn show(&mut self, index: usize) {
        let Some(last) = self.state.images().checked_sub(1) else { return };
        self.state.wanted = index.min(last);
        self.asked_for = Some(self.state.wanted);
        self.send(Command::Show { index: self.state.wanted });
    }

    /// Shows the boxes of one class alone, where there is such a class.
    fn isolate(&mut self, class: Option<u32>) {
        let classes = self.state.shown.as_ref().map_or(0, |s| s.object_classes.len().max(s.detection_classes.len()));
        match class {
            Some(class) if class as usize >= classes => {
                let text = format!("there is no class {}; the image has {classes} to choose from", class + 1);
                self.state.note(Severity::Info, "image", text);
            }
            class => self.panels.image.isolated = class,
        }
    }

    fn open_dialog(&mut self, ctx: &Context, dialog: Dialog) {
        let wake = ctx.clone();
        if let Err(error) = self.dialogs.open(dialog, move || wake.request_repaint()) {
            self.state.note(Severity::Error, "dialog", format!("it does not open: {error}"));
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
        if !self.palette.open && !self.sheet.is_open() && !self.unsaved.is_asking() {
            actions = keys::pressed(&ctx, &self.bindings);
            let has_steps = self.panels.pipeline.has_steps();
            for action in &mut actions {
                match action {
                    Action::Step(1) if has_steps => *action = Action::Replay(1),
                    // The same key runs what there is to run: training, or else the pictures.
                    Action::TrainOrPause if self.state.training.is_none() => *action = Action::PlayOrPause,
                    _ => {}
                }
            }
        } else if !self.unsaved.is_asking()
            && ctx.input_mut(|i| i.consume_key(egui::Modifiers::NONE, egui::Key::Escape))
        {
            if self.palette.open {
                self.palette.open = false;
            } else {
                self.sheet.escape();
            }
        }
        while let Some(action) = self.dialogs.answer() {
            actions.push(action);
        }
        let dropped: Vec<PathBuf> = ctx.input(|i| i.raw.dropped_files.iter().map(|f| f.path().to_path_buf()).collect());
        actions.extend(dropped.into_iter().map(Action::OpenPath));
        egui::Panel::top("menu").show(ui, |ui| self.menu(ui, &mut actions));
        egui::Panel::bottom("status").show(ui, |ui| self.status(ui, &mut actions));
        PipelinePanels::offer(&mut self.tree, &self.state);
        // Keys would go to a panel that was taken away, and do nothing.
        if self.panels.pipeline.attention.is_some_and(|panel| layout::is_hidden(&self.tree, panel)) {
            self.panels.pipeline.attention = None;
        }
        egui::CentralPanel::default().frame(egui::Frame::NONE).show(ui, |ui| self.panes(ui, &mut actions));
        if let Some(action) = self.palette.show(&ctx, &self.bindings) {
            actions.push(action);
        }
        self.unsaved.show(&ctx, &mut actions);
        self.comfort(&ctx, &mut actions);
        for action in actions {
            self.apply(&ctx, action);
        }
    }
}

impl eframe::App for Workbench {
    fn logic(&mut self, ctx: &Context, _frame: &mut eframe::Frame) {
        self.unsaved.guard_closing(ctx, &self.state);
        self.drain(ctx);
        if let Some(at) = self.exit_at {
            if Instant::now() >= at {
                self.unsaved.close(ctx);
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
