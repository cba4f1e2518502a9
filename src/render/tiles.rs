//! How a picture larger than a texture may be is cut into tiles.
//!
//! Every texture holds one texel more on each inner side than its tile paints, so that bilinear blending at a seam
//! reads what the neighbour reads and the seam does not show.

/// One piece of one axis, in picture pixels: it paints `start..end` from a texture that holds `texels_start..texels_end`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Span {
    pub start: u32,
    pub end: u32,
    pub texels_start: u32,
    pub texels_end: u32,
}

/// One tile: its columns and rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct TileArea {
    pub columns: Span,
    pub rows: Span,
}

/// Cuts `width × height` pixels into tiles whose textures have at most `side` (3 or more) texels on a side.
pub(super) fn split(width: u32, height: u32, side: u32) -> Vec<TileArea> {
    let columns = spans(width, side);
    let mut tiles = Vec::new();
    for rows in spans(height, side) {
        tiles.extend(columns.iter().map(|&columns| TileArea { columns, rows }));
    }
    tiles
}

fn spans(length: u32, side: u32) -> Vec<Span> {
    if length <= side {
        return vec![Span { start: 0, end: length, texels_start: 0, texels_end: length }];
    }
    let step = side.saturating_sub(2).max(1);
    let mut spans = Vec::new();
    let mut start = 0;
    while start < length {
        let end = start.saturating_add(step).min(length);
        spans.push(Span {
            start,
            end,
            texels_start: start.saturating_sub(1),
            texels_end: end.saturating_add(1).min(length),
        });
        start = end;
    }
    spans
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_picture_within_the_limit_is_one_tile() {
        let whole = |length| Span { start: 0, end: length, texels_start: 0, texels_end: length };
        assert_eq!(split(8, 5, 8), [TileArea { columns: whole(8), rows: whole(5) }]);
    }

    #[test]
    fn tiles_cover_every_pixel_once_and_fit_the_limit() {
        for (width, height, side) in [(9, 1, 8), (20, 13, 8), (17, 33, 3), (100, 7, 10), (16, 16, 9)] {
            let mut painted = vec![0u32; (width * height) as usize];
            for TileArea { columns, rows } in split(width, height, side) {
                for span in [columns, rows] {
                    assert!(span.texels_end - span.texels_start <= side, "{width} × {height} in {side}: {span:?}");
                    assert!(span.texels_start <= span.start && span.end <= span.texels_end);
                }
                // Inner seams have a border on both sides.
                assert!(columns.start == 0 || columns.texels_start + 1 == columns.start);
                assert!(columns.end == width || columns.texels_end == columns.end + 1);
                for y in rows.start..rows.end {
                    for x in columns.start..columns.end {
                        painted[(y * width + x) as usize] += 1;
                    }
                }
            }
            assert!(painted.iter().all(|&count| count == 1), "{width} × {height} in {side}");
        }
    }
}
