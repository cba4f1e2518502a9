//! Reading back, errors of the device, reloading shaders.

use super::*;

#[test]
fn reading_back_takes_the_row_padding_out_and_refuses_impossible_sizes() {
    let Some(fixture) = fixture() else { return };
    let gpu = &fixture.context.gpu;
    for (width, height) in [(1, 1), (3, 5), (64, 2), (65, 3)] {
        let pixels = render_to_rgba(gpu, width, height, [0.0, 1.0, 0.2, 1.0], |_| {}).unwrap();
        assert_eq!(pixels.len(), (4 * width * height) as usize);
        assert!(pixels.chunks_exact(4).all(|pixel| pixel == [0, 255, 51, 255]), "{width} × {height}");
    }
    for (width, height) in [(0, 4), (4, 0), (u32::MAX, 1)] {
        let result = render_to_rgba(gpu, width, height, [0.0; 4], |_| {});
        assert!(matches!(result, Err(RenderError::Size { .. })));
    }
    // What the device refuses inside the pass comes back as an error, and no handler panics.
    let result = render_to_rgba(gpu, 4, 4, [0.0; 4], |pass| pass.set_scissor_rect(0, 0, 5, 5));
    assert!(matches!(result, Err(RenderError::Device { .. })), "{result:?}");
    assert_eq!(fixture.context.errors.take(), Vec::<String>::new());
}

#[test]
fn a_broken_shader_is_reported_with_file_and_line_and_the_last_good_one_goes_on() {
    let Some(fixture) = fixture() else { return };
    let gpu = &fixture.context.gpu;
    let folder = tempfile::tempdir().unwrap();
    let library = ShaderLibrary::from_folder(folder.path().to_owned());
    let mut renderers = Renderers::with_library(gpu, PICTURE_FORMAT, library).unwrap();
    let text = ShaderLibrary::default().assemble("view.wgsl").unwrap().text;
    std::fs::write(folder.path().join("view.wgsl"), format!("{text}\nfn broken() -> f32 {{ return no_such_name; }}\n"))
        .unwrap();
    let broken_line = text.lines().count() as u32 + 2;
    match renderers.reload(gpu) {
        Err(RenderError::Shader { file, line, message }) => {
            assert_eq!((file.as_str(), line), ("view.wgsl", broken_line), "{message}");
            assert!(message.contains("no_such_name"), "{message}");
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(fixture.context.errors.take(), Vec::<String>::new());
    let target = Target::new(16, 16);
    let values = [0.5; 1];
    let look = HeatmapLook { bounds: [0.0, 0.0, 16.0, 16.0], opacity: 1.0, ..HeatmapLook::default() };
    let mut draw = HeatmapDraw::new(gpu);
    let input = HeatmapInput { version: 1, width: 1, height: 1, values: &values };
    draw.prepare(&renderers.heatmap, gpu, &input, &look, &one_to_one(&target), &target).unwrap();
    let picture = fixture.draw(&target, |pass| draw.paint(&renderers.heatmap, pass));
    picture.expect(8, 8, ColorMap::Viridis.rgb(0.5));
}

#[test]
fn a_target_that_encodes_colours_itself_is_refused() {
    let Some(fixture) = fixture() else { return };
    let result = Renderers::new(&fixture.context.gpu, wgpu::TextureFormat::Rgba8UnormSrgb);
    assert!(matches!(result, Err(RenderError::Format(_))));
}
