//! A convolution and its gradients as matrix products, whose right factors are looked up where the image has them.

use std::thread;

/// How many columns are summed together.
const LANES: usize = 16;

/// How many terms are laid out before they are summed, and are then summed apart from those before.
const TERMS: usize = 1024;

/// Values of one term in neighbouring columns.
type Lanes = [f32; LANES];

/// The sizes of a convolution of `[batch, groups · inputs, …]` to `[batch, groups · outputs, …]`; pairs are
/// (vertical, horizontal).
#[derive(Clone, Copy, Debug)]
pub struct Geometry {
    pub batch: usize,
    pub groups: usize,
    /// Channels of a group.
    pub inputs: usize,
    /// Channels of a group.
    pub outputs: usize,
    pub input: [usize; 2],
    pub kernel: [usize; 2],
    pub output: [usize; 2],
    pub padding: [usize; 2],
    pub stride: [usize; 2],
    pub dilation: [usize; 2],
}

/// For each tap of the kernel and each pixel of one plane the pixel of another that belongs to it, if any; rows are
/// filled up to whole [`LANES`].
struct Places {
    width: usize,
    places: Vec<Option<u32>>,
}

impl Places {
    fn new(taps: usize, pixels: usize) -> Self {
        let width = pixels.next_multiple_of(LANES);
        Self { width, places: vec![None; taps * width] }
    }

    fn of(&self, tap: usize) -> &[Option<u32>] {
        &self.places[tap * self.width..][..self.width]
    }
}

impl Geometry {
    pub fn taps(&self) -> usize {
        self.kernel[0] * self.kernel[1]
    }

    pub fn input_plane(&self) -> usize {
        self.input[0] * self.input[1]
    }

    pub fn output_plane(&self) -> usize {
        self.output[0] * self.output[1]
    }

    /// Calls `visit` with each tap, output pixel and input pixel that belong together.
    fn each_place(&self, mut visit: impl FnMut(usize, usize, usize)) {
        let at = |axis: usize, output: usize, tap: usize| {
            let place = output * self.stride[axis] + tap * self.dilation[axis];
            place.checked_sub(self.padding[axis]).filter(|&place| place < self.input[axis])
        };
        for tap in 0..self.taps() {
            for row in 0..self.output[0] {
                let Some(input_row) = at(0, row, tap / self.kernel[1]) else { continue };
                for column in 0..self.output[1] {
                    if let Some(input_column) = at(1, column, tap % self.kernel[1]) {
                        visit(tap, row * self.output[1] + column, input_row * self.input[1] + input_column);
                    }
                }
            }
        }
    }

    /// The input pixels of output pixels.
    fn sources(&self) -> Places {
        let mut places = Places::new(self.taps(), self.output_plane());
        let width = places.width;
        self.each_place(|tap, output, input| places.places[tap * width + output] = Some(input as u32));
        places
    }

    /// The output pixels of input pixels: at a tap there is one at most.
    fn targets(&self) -> Places {
        let mut places = Places::new(self.taps(), self.input_plane());
        let width = places.width;
        self.each_place(|tap, output, input| places.places[tap * width + input] = Some(output as u32));
        places
    }

    /// y of x and the weight.
    pub fn forward(&self, x: &[f32], weight: &[f32]) -> Vec<f32> {
        let (parts, taps) = (self.batch * self.groups, self.taps());
        let product = Product { parts, rows: self.outputs, terms: self.inputs * taps, columns: self.output_plane() };
        let sources = self.sources();
        product.run(weight, |part, term, column, panel| {
            look_up(&x[part * self.inputs * self.input_plane()..], self.input_plane(), &sources, [term, column], panel);
        })
    }

    /// The gradient of x from that of y and the weight.
    pub fn data_gradient(&self, dy: &[f32], weight: &[f32]) -> Vec<f32> {
        let (parts, taps) = (self.batch * self.groups, self.taps());
        let (inputs, outputs) = (self.inputs, self.outputs);
        let product = Product { parts, rows: inputs, terms: outputs * taps, columns: self.input_plane() };
        // [groups, inputs, outputs, taps] of [groups, outputs, inputs, taps].
        let mut turned = Vec::with_capacity(weight.len());
        for weight in weight.chunks_exact(outputs * inputs * taps) {
            for input in 0..inputs {
                turned.extend((0..outputs).flat_map(|output| &weight[(output * inputs + input) * taps..][..taps]));
            }
        }
        let targets = self.targets();
        product.run(&turned, |part, term, column, panel| {
            look_up(&dy[part * outputs * self.output_plane()..], self.output_plane(), &targets, [term, column], panel);
        })
    }

    /// The gradient of the weight from x and the gradient of y.
    pub fn filter_gradient(&self, x: &[f32], dy: &[f32]) -> Vec<f32> {
        let (pixels, plane, taps) = (self.output_plane(), self.input_plane(), self.taps());
        let columns = self.inputs * taps;
        let product = Product { parts: self.groups, rows: self.outputs, terms: self.batch * pixels, columns };
        // [groups · outputs, batch, pixels] of [batch, groups · outputs, pixels].
        let channels = self.groups * self.outputs;
        let mut turned = Vec::with_capacity(dy.len());
        for channel in 0..channels {
            turned.extend((0..self.batch).flat_map(|image| &dy[(image * channels + channel) * pixels..][..pixels]));
        }
        let sources = self.sources();
        product.run(&turned, |group, first, column, panel| {
            for (term, values) in (first..).zip(panel) {
                let (image, pixel) = (term / pixels, term % pixels);
                let start = (image * self.groups + group) * self.inputs * plane;
                for (column, value) in (column..columns).zip(values) {
                    let place = sources.of(column % taps)[pixel];
                    *value = place.map_or(0.0, |place| x[start + column / taps * plane + place as usize]);
                }
            }
        })
    }
}

/// The values of terms (channel, tap) from `term` on in columns from `column` on: those of a channel's plane at the
/// tap's places, and zero where it has none.
fn look_up(planes: &[f32], plane: usize, places: &Places, [term, column]: [usize; 2], panel: &mut [Lanes]) {
    let taps = places.places.len() / places.width;
    for (term, values) in (term..).zip(panel) {
        let channel = &planes[term / taps * plane..][..plane];
        let places = &places.of(term % taps)[column..column + LANES];
        for (value, place) in values.iter_mut().zip(places) {
            *value = place.map_or(0.0, |place| channel[place as usize]);
        }
    }
}

/// Products of matrices `[rows, terms]` and `[terms, columns]`.
struct Product {
    parts: usize,
    rows: usize,
    terms: usize,
    columns: usize,
}

impl Product {
    /// `[parts, rows, columns]` of `left` `[groups, rows, terms]`, whose groups the parts take in turn, and what `lay`
    /// writes for a part, from a term on and from a column on.
    fn run(&self, left: &[f32], lay: impl Fn(usize, usize, usize, &mut [Lanes]) + Sync) -> Vec<f32> {
        let &Self { parts, rows, terms, columns } = self;
        let strips = columns.div_ceil(LANES);
        let mut sums: Vec<Lanes> = vec![[0.0; LANES]; parts * strips * rows];
        let workers = thread::available_parallelism().map_or(1, |count| count.get());
        let share = (parts * strips).div_ceil(workers);
        let work = |first: usize, sums: &mut [Lanes]| {
            let mut panel = vec![[0.0; LANES]; TERMS.min(terms)];
            for (strip, sums) in (first..).zip(sums.chunks_exact_mut(rows)) {
                let part = strip / strips;
                let left = &left[part * rows * terms % left.len()..][..rows * terms];
                for term in (0..terms).step_by(TERMS) {
                    let panel = &mut panel[..TERMS.min(terms - term)];
                    lay(part, term, strip % strips * LANES, panel);
                    let row_of = |row: usize| &left[row * terms + term..][..panel.len()];
                    let mut fours = sums.chunks_exact_mut(4);
                    let mut row = 0;
                    for four in &mut fours {
                        add_products([0, 1, 2, 3].map(|next| row_of(row + next)), panel, four);
                        row += 4;
                    }
                    for sum in fours.into_remainder().chunks_mut(1) {
                        add_products([row_of(row)], panel, sum);
                        row += 1;
                    }
                }
            }
        };
        thread::scope(|scope| {
            for (worker, sums) in sums.chunks_mut((share * rows).max(1)).enumerate() {
                scope.spawn(move || work(worker * share, sums));
            }
        });
        let mut result = Vec::with_capacity(parts * rows * columns);
        for part in sums.chunks_exact(strips * rows) {
            for row in 0..rows {
                let strips = part[row..].iter().step_by(rows);
                result.extend(strips.flatten().take(columns));
            }
        }
        result
    }
}

/// Adds to each row's sums the products of its factors with the panel.
fn add_products<const ROWS: usize>(rows: [&[f32]; ROWS], panel: &[Lanes], sums: &mut [Lanes]) {
    #[cfg(target_arch = "x86_64")]
    if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
        // SAFETY: the processor has both.
        return unsafe { add_products_fused(rows, panel, sums) };
    }
    add_products_with(rows, panel, sums, |a, b, sum| a * b + sum);
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
fn add_products_fused<const ROWS: usize>(rows: [&[f32]; ROWS], panel: &[Lanes], sums: &mut [Lanes]) {
    add_products_with(rows, panel, sums, f32::mul_add);
}

#[inline(always)]
fn add_products_with<const ROWS: usize>(
    rows: [&[f32]; ROWS],
    panel: &[Lanes],
    sums: &mut [Lanes],
    multiply_add: impl Fn(f32, f32, f32) -> f32,
) {
    let rows = rows.map(|row| &row[..panel.len()]);
    let mut own = [[0.0; LANES]; ROWS];
    for (term, values) in panel.iter().enumerate() {
        for row in 0..ROWS {
            for lane in 0..LANES {
                own[row][lane] = multiply_add(rows[row][term], values[lane], own[row][lane]);
            }
        }
    }
    for (sum, own) in sums.iter_mut().zip(own) {
        for lane in 0..LANES {
            sum[lane] += own[lane];
        }
    }
}
