//! The graphics device: opened without a window, or borrowed from one, with errors recorded instead of a panic.

use super::error::RenderError;
use std::pin::pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Poll, Waker};
use std::time::Duration;

/// A device and its queue. Both are reference-counted handles, so a clone is cheap and means the same device.
#[derive(Clone, Debug)]
pub struct Gpu {
    pub device: wgpu::Device,
    pub queue: wgpu::Queue,
}

/// A device that was opened without a window.
#[derive(Debug)]
pub struct Context {
    pub adapter: wgpu::AdapterInfo,
    pub gpu: Gpu,
    /// Errors that nobody asked for with an error scope.
    pub errors: ErrorLog,
}

impl Context {
    /// Opens any adapter: the one the system prefers, else a software one.
    /// `WGPU_BACKEND` and wgpu's other environment variables are honoured.
    ///
    /// # Errors
    /// [`RenderError::NoAdapter`] and [`RenderError::NoDevice`].
    pub fn headless() -> Result<Self, RenderError> {
        let descriptor = wgpu::InstanceDescriptor::new_without_display_handle_from_env();
        let instance = wgpu::Instance::new(descriptor);
        let request = |software: bool| {
            wait_for(instance.request_adapter(&wgpu::RequestAdapterOptions {
                power_preference: wgpu::PowerPreference::HighPerformance,
                force_fallback_adapter: software,
                ..Default::default()
            }))
        };
        let adapter =
            request(false).or_else(|_| request(true)).map_err(|error| RenderError::NoAdapter(error.to_string()))?;
        let info = adapter.get_info();
        let (device, queue) = wait_for(adapter.request_device(&wgpu::DeviceDescriptor {
            label: Some("boxwright headless"),
            required_limits: adapter.limits(),
            ..Default::default()
        }))
        .map_err(|error| RenderError::NoDevice { adapter: info.name.clone(), message: error.to_string() })?;
        let errors = ErrorLog::default();
        errors.install(&device);
        Ok(Self { adapter: info, gpu: Gpu { device, queue }, errors })
    }
}

/// Device errors outside any error scope, oldest first. Install it on every device: wgpu's own handler panics.
#[derive(Clone, Debug, Default)]
pub struct ErrorLog {
    messages: Arc<Mutex<Vec<String>>>,
}

impl ErrorLog {
    /// A faulty draw repeats its error every frame; beyond this many unread ones the rest are only logged.
    const KEPT: usize = 64;

    /// Makes `device` report here.
    pub fn install(&self, device: &wgpu::Device) {
        let log = self.clone();
        device.on_uncaptured_error(Arc::new(move |error: wgpu::Error| log.record(error.to_string())));
    }

    /// Adds one message.
    pub fn record(&self, message: String) {
        tracing::error!("graphics device: {message}");
        let mut messages = self.messages.lock().unwrap_or_else(PoisonError::into_inner);
        if messages.len() < Self::KEPT {
            messages.push(message);
        }
    }

    /// Takes what was recorded since the last call.
    pub fn take(&self) -> Vec<String> {
        std::mem::take(&mut *self.messages.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Runs a future of wgpu to its end. On desktop systems they are ready at the first look; the pause is for others.
pub(super) fn wait_for<F: Future>(future: F) -> F::Output {
    let mut future = pin!(future);
    let mut context = std::task::Context::from_waker(Waker::noop());
    loop {
        match future.as_mut().poll(&mut context) {
            Poll::Ready(value) => return value,
            Poll::Pending => std::thread::sleep(Duration::from_millis(1)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_log_hands_out_each_message_once_and_is_bounded() {
        let log = ErrorLog::default();
        let other = log.clone();
        other.record("first".to_owned());
        other.record("second".to_owned());
        assert_eq!(log.take(), ["first", "second"]);
        assert!(log.take().is_empty());
        for index in 0..1000 {
            log.record(index.to_string());
        }
        assert_eq!(log.take().len(), ErrorLog::KEPT);
    }

    #[test]
    fn waiting_returns_what_a_late_future_yields() {
        let mut looks = 0;
        let value = wait_for(std::future::poll_fn(|_| {
            looks += 1;
            if looks < 3 { Poll::Pending } else { Poll::Ready(7) }
        }));
        assert_eq!((value, looks), (7, 3));
    }
}
