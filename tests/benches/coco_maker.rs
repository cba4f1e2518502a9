//! Makes COCO files of the sizes of val2017 and train2017 from a seed, written as a stream.

use boxwright::random::Random;
use std::fs::{self, File};
use std::io::{BufWriter, Result, Write};
use std::path::{Path, PathBuf};

const SEED: u64 = 2017;
const CLASSES: usize = 80;
/// Images and objects like val2017's, and detections of a detector that always gives 98.
const VAL_IMAGES: usize = 5_000;
const VAL_OBJECTS: usize = 36_000;
const DETECTIONS_PER_IMAGE: usize = 98;
/// Images and objects like train2017's.
const TRAIN_IMAGES: usize = 118_000;
const TRAIN_OBJECTS: usize = 860_000;
/// Corners of a polygon, such that the file has about 450 MB.
const CORNERS: std::ops::Range<usize> = 8..36;
/// One object in so many is a group.
const CROWDS: usize = 100;

/// Ground truth and results.
pub struct Val {
    pub truth: PathBuf,
    pub results: PathBuf,
}

/// A box in hundredths of a pixel, so that it is written exactly: left, top, width, height.
type Hundredths = [u32; 4];

struct Object {
    image: usize,
    class: usize,
    bbox: Hundredths,
}

/// 5,000 images with 36,000 objects of 80 classes, and 490,000 detections.
pub fn val(folder: &Path) -> Result<Val> {
    let truth = folder.join("instances_val.json");
    let results = folder.join("results_val.json");
    if truth.is_file() && results.is_file() {
        return Ok(Val { truth, results });
    }
    let mut random = Random::new(SEED);
    let mut objects: Vec<Object> = Vec::with_capacity(VAL_OBJECTS);
    written(&truth, |out| {
        images(out, VAL_IMAGES)?;
        write!(out, "\"annotations\": [")?;
        for index in 0..VAL_OBJECTS {
            let image = random.below(VAL_IMAGES);
            let object = Object { image, class: class(&mut random), bbox: bbox(&mut random, size_of(image)) };
            let crowd = usize::from(index % CROWDS == CROWDS - 1);
            // a region fills about two thirds of its box
            let area = f64::from(object.bbox[2]) * f64::from(object.bbox[3]) / 15_000.0;
            separator(out, index)?;
            write!(out, "{{\"id\": {}, \"image_id\": {}, ", index + 1, image_id(image))?;
            write!(out, "\"category_id\": {}, \"iscrowd\": {crowd}, ", category_id(object.class))?;
            write!(out, "\"area\": {area:.4}, \"bbox\": ")?;
            numbers(out, &object.bbox)?;
            write!(out, "}}")?;
            objects.push(object);
        }
        writeln!(out, "],")?;
        categories(out)
    })?;
    let mut by_image: Vec<Vec<&Object>> = (0..VAL_IMAGES).map(|_| Vec::new()).collect();
    for object in &objects {
        by_image[object.image].push(object);
    }
    written(&results, |out| {
        write!(out, "[")?;
        for (image, own) in by_image.iter().enumerate() {
            for rank in 0..DETECTIONS_PER_IMAGE {
                // most objects are found, some twice; the rest is found where nothing is
                let (class, bbox, score) = match own.get(rank / 2) {
                    Some(object) if random.chance(0.75) => {
                        let class = if random.chance(0.9) { object.class } else { class(&mut random) };
                        (class, shifted(&mut random, object.bbox), random.range(0.2, 1.0))
                    }
                    _ => (class(&mut random), bbox(&mut random, size_of(image)), 0.6 * random.unit() * random.unit()),
                };
                separator(out, image * DETECTIONS_PER_IMAGE + rank)?;
                write!(out, "{{\"image_id\": {}, \"category_id\": {}, ", image_id(image), category_id(class))?;
                write!(out, "\"bbox\": ")?;
                numbers(out, &bbox)?;
                // four decimals, so that scores tie now and then
                write!(out, ", \"score\": {score:.4}}}")?;
            }
        }
        writeln!(out, "]")
    })?;
    Ok(Val { truth, results })
}

/// 118,000 images with 860,000 objects and their polygons, about 450 MB.
pub fn train(folder: &Path) -> Result<PathBuf> {
    let path = folder.join("instances_train.json");
    if path.is_file() {
        return Ok(path);
    }
    let mut random = Random::keyed(SEED, &[1]);
    let mut corners: Vec<u32> = Vec::new();
    written(&path, |out| {
        images(out, TRAIN_IMAGES)?;
        write!(out, "\"annotations\": [")?;
        for index in 0..TRAIN_OBJECTS {
            let image = random.below(TRAIN_IMAGES);
            let bbox = bbox(&mut random, size_of(image));
            corners.clear();
            for _ in 0..CORNERS.start + random.below(CORNERS.len()) {
                corners.push(bbox[0] + random.below(bbox[2] as usize + 1) as u32);
                corners.push(bbox[1] + random.below(bbox[3] as usize + 1) as u32);
            }
            separator(out, index)?;
            write!(out, "{{\"segmentation\": [")?;
            numbers(out, &corners)?;
            write!(out, "],\"area\": {:.4},", f64::from(bbox[2]) * f64::from(bbox[3]) / 15_000.0)?;
            write!(out, "\"iscrowd\": 0,\"image_id\": {},\"bbox\": ", image_id(image))?;
            numbers(out, &bbox)?;
            write!(out, ",\"category_id\": {},\"id\": {}}}", category_id(class(&mut random)), index + 1)?;
        }
        writeln!(out, "],")?;
        categories(out)
    })?;
    Ok(path)
}

/// Writes a file under another name first, so that a half-made one is never taken for whole.
fn written(path: &Path, content: impl FnOnce(&mut BufWriter<File>) -> Result<()>) -> Result<()> {
    let unfinished = path.with_extension("part");
    let mut out = BufWriter::with_capacity(1 << 20, File::create(&unfinished)?);
    content(&mut out)?;
    out.into_inner().map_err(|error| error.into_error())?;
    fs::rename(&unfinished, path)
}

fn images(out: &mut impl Write, count: usize) -> Result<()> {
    write!(out, "{{\"info\": {{\"description\": \"made from a seed\", \"year\": 2017}},\n\"images\": [")?;
    for index in 0..count {
        let (width, height) = size_of(index);
        let id = image_id(index);
        separator(out, index)?;
        write!(out, "{{\"license\": 3,\"file_name\": \"{id:012}.jpg\",")?;
        write!(out, "\"coco_url\": \"http://images.invalid/train2017/{id:012}.jpg\",")?;
        write!(out, "\"height\": {height},\"width\": {width},\"date_captured\": \"2013-11-14 17:02:52\",")?;
        write!(out, "\"flickr_url\": \"http://photos.invalid/{id}_8d96d2c4b1_z.jpg\",\"id\": {id}}}")?;
    }
    writeln!(out, "],")
}

fn categories(out: &mut impl Write) -> Result<()> {
    write!(out, "\"categories\": [")?;
    for class in 0..CLASSES {
        separator(out, class)?;
        let id = category_id(class);
        write!(out, "{{\"supercategory\": \"things\",\"id\": {id},\"name\": \"thing {id}\"}}")?;
    }
    writeln!(out, "]}}")
}

fn separator(out: &mut impl Write, index: usize) -> Result<()> {
    if index > 0 { write!(out, ", ") } else { Ok(()) }
}

/// A list of numbers with two decimals.
fn numbers(out: &mut impl Write, hundredths: &[u32]) -> Result<()> {
    write!(out, "[")?;
    for (index, value) in hundredths.iter().enumerate() {
        separator(out, index)?;
        write!(out, "{}.{:02}", value / 100, value % 100)?;
    }
    write!(out, "]")
}

/// Width and height of an image, pixels.
fn size_of(image: usize) -> (u32, u32) {
    [(640, 480), (640, 427), (480, 640), (500, 375), (612, 612)][image % 5]
}

/// Ids have gaps, and do not rise with the index.
fn image_id(index: usize) -> u64 {
    // 7 919 is prime and the modulus is none of its multiples: no id comes twice
    (index as u64 * 7_919) % 590_027 + 9
}

/// COCO's ids leave ten numbers out.
fn category_id(class: usize) -> usize {
    class + 1 + class / 8
}

/// Classes are as uneven as COCO's.
fn class(random: &mut Random) -> usize {
    let u = random.unit();
    ((u * u * u * CLASSES as f32) as usize).min(CLASSES - 1)
}

/// A box inside an image: sides from 4 to 400 pixels, evenly by their logarithm.
fn bbox(random: &mut Random, (width, height): (u32, u32)) -> Hundredths {
    let mut side = |longest: u32| {
        let pixels = random.range(4f32.ln(), 400f32.ln()).exp();
        ((pixels * 100.0) as u32).min(longest * 100)
    };
    let (w, h) = (side(width), side(height));
    let x = random.below((width * 100 - w) as usize + 1) as u32;
    let y = random.below((height * 100 - h) as usize + 1) as u32;
    [x, y, w, h]
}

/// A detector's idea of a box: moved and scaled by a few hundredths of its sides.
fn shifted(random: &mut Random, [x, y, w, h]: Hundredths) -> Hundredths {
    let mut near = |value: u32, side: u32| (value as f32 + side as f32 * 0.06 * random.normal()).max(1.0) as u32;
    [near(x, w), near(y, h), near(w, w), near(h, h)]
}
