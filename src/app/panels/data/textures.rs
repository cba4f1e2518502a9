//! Thumbnails on the graphics device: as many as lists show, the longest unseen given back first.

use crate::engine::event::DataSummary;
use crate::engine::thumbnails::Thumbnail;
use egui::{ColorImage, Context, TextureHandle, TextureOptions};
use std::collections::HashMap;
use std::sync::Arc;

/// Textures that are kept at once: more than a grid over a whole large screen shows, or it would send them every frame.
const MOST: usize = 1024;

/// Textures of one data set's thumbnails.
#[derive(Default)]
pub(super) struct Textures {
    /// Which data set: the address of its summary.
    of: usize,
    kept: HashMap<usize, (TextureHandle, u64)>,
    clock: u64,
}

/// What there is to draw for an image.
pub(super) enum Picture {
    Texture(TextureHandle),
    /// It cannot be read.
    Broken(Arc<str>),
    /// On its way.
    Coming,
}

impl Textures {
    /// The picture of image `index`, asked for where there is none yet.
    pub(super) fn get(&mut self, ctx: &Context, data: &Arc<DataSummary>, index: usize) -> Picture {
        let of = Arc::as_ptr(data) as usize;
        if self.of != of {
            *self = Self { of, ..Self::default() };
        }
        self.clock += 1;
        if let Some((texture, used)) = self.kept.get_mut(&index) {
            *used = self.clock;
            return Picture::Texture(texture.clone());
        }
        let picture = match data.thumbnails.get(index) {
            Some(Thumbnail::Made(picture)) => picture,
            Some(Thumbnail::Failed(reason)) => return Picture::Broken(reason),
            None => return Picture::Coming,
        };
        let size = [picture.width as usize, picture.height as usize];
        if size.contains(&0) || picture.rgb.len() != 3 * size[0] * size[1] {
            return Picture::Broken("it has no pixels".into());
        }
        let image = ColorImage::from_rgb(size, &picture.rgb);
        let texture = ctx.load_texture(format!("thumbnail {index}"), image, TextureOptions::LINEAR);
        self.kept.insert(index, (texture.clone(), self.clock));
        if self.kept.len() > MOST
            && let Some(oldest) = self.kept.iter().min_by_key(|(_, (_, used))| *used).map(|(at, _)| *at)
        {
            self.kept.remove(&oldest);
        }
        Picture::Texture(texture)
    }
}
