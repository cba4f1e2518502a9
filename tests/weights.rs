//! Weights files from outside: round trips, containers built by hand, and hostile bytes.

use boxwright::random::Random;
use boxwright::weights::{
    Checkpoint, DarknetWeights, Dtype, Expected, Format, Layout, TensorData, WeightsError, compare, from_bytes, open,
    write_safetensors,
};
use std::alloc::{GlobalAlloc, Layout as MemoryLayout, System};
use std::cell::Cell;
use std::collections::BTreeMap;
use std::io::{Cursor, Write};
use std::sync::Arc;

// Memory: every test thread counts what it holds, so that a reader's appetite can be asserted.

struct Counting;

thread_local! {
    static HELD: Cell<isize> = const { Cell::new(0) };
    static PEAK: Cell<isize> = const { Cell::new(0) };
}

fn count(bytes: isize) {
    // a thread that is ending has no counters any more; what it frees then is of no interest
    let _ = HELD.try_with(|held| {
        held.set(held.get() + bytes);
        let _ = PEAK.try_with(|peak| peak.set(peak.get().max(held.get())));
    });
}

// SAFETY: every request goes to the system allocator unchanged; the counters hold no memory of their own.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: MemoryLayout) -> *mut u8 {
        count(layout.size() as isize);
        // SAFETY: the caller's promise about `layout` is passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: MemoryLayout) {
        count(-(layout.size() as isize));
        // SAFETY: the pointer came from `alloc` above, that is from the system allocator, with this layout.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// What `work` gives, and the most bytes that it held on this thread at a time.
pub(crate) fn weighed<T>(work: impl FnOnce() -> T) -> (T, isize) {
    let before = HELD.get();
    PEAK.set(before);
    let result = work();
    (result, PEAK.get() - before)
}

/// Opens bytes and reads all they offer; whatever they are, this must end without a panic and within bounds.
pub(crate) fn exercise(bytes: &[u8]) -> Result<Checkpoint, WeightsError> {
    let shared: Arc<[u8]> = bytes.into();
    let (result, peak) = weighed(|| {
        let result = from_bytes(shared);
        if let Ok(checkpoint) = &result {
            for tensor in checkpoint.tensors() {
                let numbers = checkpoint.read_f32(tensor);
                assert!(numbers.is_ok_and(|numbers| numbers.len() == tensor.elements()), "{}", tensor.name);
            }
        }
        result
    });
    let bound = 16 * bytes.len() as isize + (1 << 20);
    assert!(peak <= bound, "{peak} bytes held for a file of {}", bytes.len());
    result
}

// Pickle streams, opcode by opcode (protocol 2, as torch writes).

fn text(value: &str) -> Vec<u8> {
    [b"X".as_slice(), &(value.len() as u32).to_le_bytes(), value.as_bytes()].concat()
}

fn int(value: usize) -> Vec<u8> {
    [b"J".as_slice(), &(value as i32).to_le_bytes()].concat()
}

fn global(module: &str, name: &str) -> Vec<u8> {
    format!("c{module}\n{name}\n").into_bytes()
}

fn tuple(items: &[Vec<u8>]) -> Vec<u8> {
    [b"(".as_slice(), &items.concat(), b"t"].concat()
}

fn call(function: Vec<u8>, arguments: &[Vec<u8>]) -> Vec<u8> {
    [function, tuple(arguments), b"R".to_vec()].concat()
}

fn ints(values: &[usize]) -> Vec<u8> {
    tuple(&values.iter().map(|value| int(*value)).collect::<Vec<_>>())
}

fn ordered_dict(entries: &[(&str, Vec<u8>)]) -> Vec<u8> {
    let mut stream = [global("collections", "OrderedDict"), b")R(".to_vec()].concat();
    for (key, value) in entries {
        stream.extend(text(key));
        stream.extend(value);
    }
    stream.push(b'u');
    stream
}

/// A reference to a storage; `last` is what follows the count: nothing in zip archives, a view or None before.
fn storage(class: &str, key: &str, count: usize, last: &[Vec<u8>]) -> Vec<u8> {
    let head = [text("storage"), global("torch", class), text(key), text("cpu"), int(count)];
    [tuple(&[head.as_slice(), last].concat()), b"Q".to_vec()].concat()
}

fn tensor(storage: Vec<u8>, offset: usize, shape: &[usize], strides: &[usize]) -> Vec<u8> {
    let hooks = ordered_dict(&[]);
    let arguments = [storage, int(offset), ints(shape), ints(strides), b"\x89".to_vec(), hooks];
    call(global("torch._utils", "_rebuild_tensor_v2"), &arguments)
}

fn pickle(body: &[u8]) -> Vec<u8> {
    [b"\x80\x02".as_slice(), body, b"."].concat()
}

fn floats(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|value| value.to_le_bytes()).collect()
}

/// A stored zip archive as torch writes it: sizes and checksum stand behind the data and in the directory only.
fn zip_archive(entries: &[(&str, &[u8])]) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut directory = Vec::new();
    for (name, data) in entries {
        let header = bytes.len() as u32;
        let size = (data.len() as u32).to_le_bytes();
        let name_length = (name.len() as u16).to_le_bytes();
        // an extra field of 6 bytes, as the padding that aligns the data would be
        bytes.extend_from_slice(b"PK\x03\x04\0\0\x08\x08\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0");
        bytes.extend_from_slice(&name_length);
        bytes.extend_from_slice(&6u16.to_le_bytes());
        bytes.extend_from_slice(name.as_bytes());
        bytes.extend_from_slice(b"FB\x02\0ZZ");
        bytes.extend_from_slice(data);
        bytes.extend_from_slice(b"PK\x07\x08\0\0\0\0");
        bytes.extend_from_slice(&[size, size].concat());
        directory.extend_from_slice(b"PK\x01\x02\0\0\0\0\x08\x08\0\0\0\0\0\0\0\0\0\0");
        directory.extend_from_slice(&[size, size].concat());
        directory.extend_from_slice(&name_length);
        directory.extend_from_slice(&[0; 12]);
        directory.extend_from_slice(&header.to_le_bytes());
        directory.extend_from_slice(name.as_bytes());
    }
    let start = bytes.len() as u32;
    let count = (entries.len() as u16).to_le_bytes();
    bytes.extend_from_slice(&directory);
    bytes.extend_from_slice(b"PK\x05\x06\0\0\0\0");
    bytes.extend_from_slice(&[count, count].concat());
    bytes.extend_from_slice(&(directory.len() as u32).to_le_bytes());
    bytes.extend_from_slice(&start.to_le_bytes());
    bytes.extend_from_slice(&[0; 2]);
    bytes
}

/// `{'epoch': 3, 'state_dict': {…}}` of six floats in storage 0, seen whole, transposed and in part; halves in 1;
/// counters in 2; truths in 3.
fn state_dict(last: &[Vec<u8>]) -> Vec<u8> {
    let six = |offset: usize, shape: &[usize], strides: &[usize]| {
        tensor(storage("FloatStorage", "0", 6, last), offset, shape, strides)
    };
    let weights = ordered_dict(&[
        ("module.a.weight", six(0, &[2, 3], &[3, 1])),
        ("module.a.turned", six(0, &[3, 2], &[1, 3])),
        ("module.a.tail", six(4, &[2], &[1])),
        ("module.a.scalar", six(5, &[], &[])),
        ("module.b.half", tensor(storage("HalfStorage", "1", 2, last), 0, &[2], &[1])),
        ("module.b.num_batches_tracked", tensor(storage("LongStorage", "2", 1, last), 0, &[], &[])),
        ("module.b.mask", tensor(storage("BoolStorage", "3", 3, last), 0, &[3], &[1])),
    ]);
    let entries = [text("epoch"), int(3), text("state_dict"), weights].concat();
    pickle(&[b"}(".as_slice(), &entries, b"u"].concat())
}

fn storages() -> [Vec<u8>; 4] {
    let six = floats(&[0.0, 1.0, 2.0, 3.0, 4.0, 5.0]);
    // 1 and −2 as half floats
    [six, vec![0x00, 0x3c, 0x00, 0xc0], 300i64.to_le_bytes().to_vec(), vec![1, 0, 1]]
}

fn torch_zip() -> Vec<u8> {
    let (object, [zero, one, two, three]) = (state_dict(&[]), storages());
    zip_archive(&[
        ("archive/data.pkl", &object),
        ("archive/byteorder", b"little"),
        ("archive/data/0", &zero),
        ("archive/data/1", &one),
        ("archive/data/2", &two),
        ("archive/data/3", &three),
        ("archive/version", b"3\n"),
    ])
}

fn torch_legacy() -> Vec<u8> {
    let mut bytes = b"\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19.\x80\x02M\xe9\x03.".to_vec();
    bytes.extend(pickle(b"}"));
    bytes.extend(state_dict(&[b"N".to_vec()]));
    // the list of keys is in its own order
    let order = [3usize, 0, 2, 1];
    let keys: Vec<u8> = order.iter().flat_map(|key| text(&key.to_string())).collect();
    bytes.extend(pickle(&[b"](".as_slice(), &keys, b"e"].concat()));
    let all = storages();
    for key in order {
        let width = [4, 2, 8, 1][key];
        let data = &all[key];
        bytes.extend((data.len() as u64 / width).to_le_bytes());
        bytes.extend(data);
    }
    bytes
}

/// An array of 2 × 2 floats; `bytes` holds them as a byte string of whichever protocol.
fn numpy_array(bytes: Vec<u8>) -> Vec<u8> {
    let dtype = [
        call(global("numpy", "dtype"), &[text("f4"), b"\x89".to_vec(), b"\x88".to_vec()]),
        tuple(&[int(3), text("<"), b"NNN".to_vec(), int(0), int(0), int(0)]),
        b"b".to_vec(),
    ]
    .concat();
    [
        call(
            global("numpy.core.multiarray", "_reconstruct"),
            &[global("numpy", "ndarray"), ints(&[0]), b"U\x01b".to_vec()],
        ),
        tuple(&[int(1), ints(&[2, 2]), dtype, b"\x89".to_vec(), bytes]),
        b"b".to_vec(),
    ]
    .concat()
}

/// `{'model': {'w': array of 2 × 2 floats}, '__author__': 'me'}` as detectron2 files are.
fn numpy_pickle() -> Vec<u8> {
    let array = numpy_array([b"C\x10".to_vec(), floats(&[1.0, 2.0, 3.0, 4.0])].concat());
    let entries = [text("model"), ordered_dict(&[("w", array)]), text("__author__"), text("me")].concat();
    let body = [b"}(".as_slice(), &entries, b"u"].concat();
    [b"\x80\x03".as_slice(), &body, b"."].concat()
}

fn safetensors() -> Vec<u8> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.safetensors");
    let tensors = [
        ("a".to_owned(), vec![2, 2], TensorData::F32(vec![1.0, 2.0, 3.0, 4.0])),
        ("b".to_owned(), vec![3], TensorData::U8(vec![1, 2, 3])),
    ];
    write_safetensors(&path, &tensors, &BTreeMap::from([("k".to_owned(), "v".to_owned())])).unwrap();
    std::fs::read(&path).unwrap()
}

fn darknet() -> Vec<u8> {
    [b"\0\0\0\0\x02\0\0\0\x05\0\0\0".as_slice(), &7u64.to_le_bytes(), &floats(&[1.0, -2.0, 3.5])].concat()
}

/// The archive again with every entry deflated.
fn deflated() -> Vec<u8> {
    let (object, [zero, one, two, three]) = (state_dict(&[]), storages());
    let mut writer = zip::ZipWriter::new(Cursor::new(Vec::new()));
    let options = zip::write::SimpleFileOptions::default().compression_method(zip::CompressionMethod::Deflated);
    let entries = [("data.pkl", object), ("data/0", zero), ("data/1", one), ("data/2", two), ("data/3", three)];
    for (name, data) in entries {
        writer.start_file(format!("archive/{name}"), options).unwrap();
        writer.write_all(&data).unwrap();
    }
    writer.finish().unwrap().into_inner()
}

fn numbers(checkpoint: &Checkpoint, name: &str) -> Vec<f32> {
    let tensor = checkpoint.get(name).unwrap_or_else(|| panic!("no tensor {name}"));
    checkpoint.read_f32(tensor).unwrap()
}

/// What [`state_dict`] describes.
fn assert_state_dict(checkpoint: &Checkpoint) {
    let names: Vec<&str> = checkpoint.tensors().iter().map(|tensor| tensor.name.as_str()).collect();
    assert_eq!(names, ["a.weight", "a.turned", "a.tail", "a.scalar", "b.half", "b.num_batches_tracked", "b.mask"]);
    assert_eq!(numbers(checkpoint, "a.weight"), [0.0, 1.0, 2.0, 3.0, 4.0, 5.0]);
    assert_eq!(numbers(checkpoint, "a.turned"), [0.0, 3.0, 1.0, 4.0, 2.0, 5.0]);
    assert_eq!(numbers(checkpoint, "a.tail"), [4.0, 5.0]);
    assert_eq!(numbers(checkpoint, "a.scalar"), [5.0]);
    assert_eq!(numbers(checkpoint, "b.half"), [1.0, -2.0]);
    assert_eq!(numbers(checkpoint, "b.num_batches_tracked"), [300.0]);
    assert_eq!(numbers(checkpoint, "b.mask"), [1.0, 0.0, 1.0]);
    assert_eq!(checkpoint.get("b.half").unwrap().dtype, Dtype::F16);
    assert_eq!(checkpoint.metadata().get("epoch").map(String::as_str), Some("3"));
    assert_eq!(checkpoint.metadata().get("container").map(String::as_str), Some("state_dict"));
}

#[test]
fn what_is_written_is_read_back() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("weights.safetensors");
    let wide = [0.1f32, -1.0e-30, f32::MAX, f32::NEG_INFINITY, -0.0];
    let halves: Vec<half::f16> = [0.1f32, -2.5, 65504.0].iter().map(|value| half::f16::from_f32(*value)).collect();
    let tensors = [
        ("net.weight".to_owned(), vec![5, 1], TensorData::F32(wide.to_vec())),
        ("net.half".to_owned(), vec![3], TensorData::F16(halves.clone())),
        ("random.state".to_owned(), vec![4], TensorData::U64(vec![0, 1, u64::MAX, 1 << 63])),
        ("note".to_owned(), vec![0], TensorData::U8(Vec::new())),
    ];
    let metadata = BTreeMap::from([("step".to_owned(), "12".to_owned()), ("ünï".to_owned(), "\"\\\n".to_owned())]);
    write_safetensors(&path, &tensors, &metadata).unwrap();

    let checkpoint = open(&path).unwrap();
    assert_eq!(checkpoint.format(), Format::Safetensors);
    assert_eq!(checkpoint.metadata(), &metadata);
    assert_eq!(checkpoint.tensors().len(), 4);
    let bits = |values: &[f32]| values.iter().map(|value| value.to_bits()).collect::<Vec<u32>>();
    assert_eq!(bits(&numbers(&checkpoint, "net.weight")), bits(&wide));
    let expected: Vec<f32> = halves.iter().map(|value| value.to_f32()).collect();
    assert_eq!(numbers(&checkpoint, "net.half"), expected);
    assert_eq!(checkpoint.get("net.half").unwrap().dtype, Dtype::F16);
    let state = checkpoint.get("random.state").unwrap();
    assert_eq!(checkpoint.read_u64(state).unwrap(), [0, 1, u64::MAX, 1 << 63]);
    assert!(numbers(&checkpoint, "note").is_empty());
    // the same content from memory has the same digest
    assert_eq!(from_bytes(std::fs::read(&path).unwrap()).unwrap().digest(), checkpoint.digest());
}

#[test]
fn torch_archives_and_legacy_streams_hold_the_same_tensors() {
    for (bytes, format) in
        [(torch_zip(), Format::TorchZip), (deflated(), Format::TorchZip), (torch_legacy(), Format::TorchLegacy)]
    {
        let checkpoint = exercise(&bytes).unwrap();
        assert_eq!(checkpoint.format(), format);
        assert_state_dict(&checkpoint);
    }
}

#[test]
fn big_endian_archives_are_turned() {
    let object = pickle(&ordered_dict(&[("w", tensor(storage("FloatStorage", "0", 2, &[]), 0, &[2], &[1]))]));
    let data: Vec<u8> = [1.5f32, -2.0].iter().flat_map(|value| value.to_be_bytes()).collect();
    let bytes = zip_archive(&[("m/data.pkl", &object), ("m/byteorder", b"big"), ("m/data/0", &data)]);
    assert_eq!(numbers(&exercise(&bytes).unwrap(), "w"), [1.5, -2.0]);
}

#[test]
fn numpy_pickles_and_darknet_files_open() {
    let checkpoint = exercise(&numpy_pickle()).unwrap();
    assert_eq!(checkpoint.format(), Format::Pickle);
    assert_eq!(numbers(&checkpoint, "w"), [1.0, 2.0, 3.0, 4.0]);
    assert_eq!(checkpoint.get("w").unwrap().shape, [2, 2]);
    assert_eq!(checkpoint.metadata().get("__author__").map(String::as_str), Some("me"));

    let checkpoint = exercise(&darknet()).unwrap();
    assert_eq!(checkpoint.format(), Format::Darknet);
    assert_eq!(numbers(&checkpoint, "darknet"), [1.0, -2.0, 3.5]);
    let weights = DarknetWeights::from_checkpoint(&checkpoint).unwrap();
    assert_eq!((weights.header.revision, weights.header.seen, weights.floats.len()), (5, 7, 3));
}

#[test]
fn a_python_2_pickle_of_caffe2s_blobs_is_a_backbone_under_both_of_its_names() {
    let array = |first: f32| {
        let bytes = [b"T".to_vec(), 16u32.to_le_bytes().to_vec(), floats(&[first, 2.0, 3.0, 4.0])].concat();
        numpy_array(bytes)
    };
    let blobs = ordered_dict(&[
        ("conv1_w", array(1.0)),
        ("res2_0_branch2a_w", array(2.0)),
        ("res5_2_branch2c_bn_s", array(3.0)),
        ("res5_0_branch2a_w", array(4.0)),
        ("fc1000_w", array(5.0)),
    ]);
    let bytes = pickle(&[b"}(".as_slice(), &text("blobs"), &blobs, b"u"].concat());
    let mut checkpoint = exercise(&bytes).unwrap();
    assert_eq!((checkpoint.format(), checkpoint.tensors().len()), (Format::Pickle, 5));
    assert_eq!(checkpoint.translate(), Some(Layout::MsraResnet));
    assert_eq!(numbers(&checkpoint, "backbone.body.conv1.weight"), [1.0, 2.0, 3.0, 4.0]);
    assert_eq!(numbers(&checkpoint, "base.layer4.2.bn3.weight")[0], 3.0);
    assert!(checkpoint.get("fc1000_w").is_some() && checkpoint.get("conv1_w").is_none());
    // a network of either family finds its layers, and only the classifier is left over
    let expected = |name: &str| Expected { name: name.to_owned(), shape: vec![2, 2] };
    let report = compare(&[expected("base.conv1.weight"), expected("base.layer1.0.conv1.weight")], &checkpoint);
    assert_eq!((report.loaded.len(), report.unexpected.len()), (2, 3));
}

#[test]
fn a_pickle_that_asks_for_a_command_runs_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let marker = folder.path().join("marker");
    let command = text(&format!("touch '{}'", marker.display()));
    let attack = call(global("os", "system"), &[command]);
    let alone = from_bytes(pickle(&attack));
    assert!(alone.is_err());
    // beside real weights it is an object that means nothing; as a storage's or tensor's part it is an error
    let weight = tensor(storage("FloatStorage", "0", 2, &[]), 0, &[2], &[1]);
    let object = pickle(&ordered_dict(&[("w", weight), ("x", attack.clone())]));
    let data = floats(&[1.0, 2.0]);
    let checkpoint = exercise(&zip_archive(&[("m/data.pkl", &object), ("m/data/0", &data)])).unwrap();
    assert_eq!(checkpoint.tensors().len(), 1);
    let object = pickle(&ordered_dict(&[("w", tensor(attack, 0, &[2], &[1]))]));
    assert!(exercise(&zip_archive(&[("m/data.pkl", &object), ("m/data/0", &data)])).is_err());
    assert!(!marker.exists());
}

#[test]
fn a_shape_far_beyond_the_file_is_refused_before_anything_is_reserved() {
    let huge = i32::MAX as usize;
    for (shape, strides) in [
        (vec![huge, huge, huge], vec![0, 0, 0]),
        (vec![huge], vec![0]),
        (vec![huge, huge], vec![1, 1]),
        (vec![2], vec![huge]),
    ] {
        let weight = tensor(storage("FloatStorage", "0", 2, &[]), 0, &shape, &strides);
        let object = pickle(&ordered_dict(&[("w", weight)]));
        let bytes = zip_archive(&[("m/data.pkl", &object), ("m/data/0", &floats(&[1.0, 2.0]))]);
        let text = exercise(&bytes).unwrap_err().to_string();
        assert!(text.contains("`w`"), "{text}");
    }
}

#[test]
fn a_bomb_of_zeros_is_not_inflated() {
    let mut writer = zip::ZipWriter::new(Cursor::new(Vec::new()));
    let options = zip::write::SimpleFileOptions::default().compression_method(zip::CompressionMethod::Deflated);
    let weight = tensor(storage("ByteStorage", "0", 16 << 20, &[]), 0, &[16 << 20], &[1]);
    writer.start_file("m/data.pkl", options).unwrap();
    writer.write_all(&pickle(&ordered_dict(&[("w", weight)]))).unwrap();
    writer.start_file("m/data/0", options).unwrap();
    writer.write_all(&vec![0; 16 << 20]).unwrap();
    let bytes = writer.finish().unwrap().into_inner();
    let text = exercise(&bytes).unwrap_err().to_string();
    assert!(text.contains("are allowed"), "{text}");
}

/// A small file of every kind that is read.
pub(crate) fn samples() -> [Vec<u8>; 6] {
    [torch_zip(), deflated(), torch_legacy(), numpy_pickle(), safetensors(), darknet()]
}

#[test]
fn files_cut_anywhere_are_read_or_refused() {
    for bytes in samples() {
        assert!(exercise(&bytes).is_ok());
        for length in 0..bytes.len() {
            let _ = exercise(&bytes[..length]);
        }
    }
    // these three know their length
    for bytes in [torch_zip(), torch_legacy(), safetensors()] {
        for length in 0..bytes.len() {
            assert!(exercise(&bytes[..length]).is_err(), "{length} of {} bytes", bytes.len());
        }
    }
}

#[test]
fn a_short_file_says_by_how_much() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("short.safetensors");
    let bytes = safetensors();
    std::fs::write(&path, &bytes[..bytes.len() - 5]).unwrap();
    let error = open(&path).unwrap_err();
    match error.problem() {
        WeightsError::Truncated { expected, actual, .. } => {
            assert_eq!((*expected, *actual), (bytes.len() as u64, bytes.len() as u64 - 5));
        }
        other => panic!("{other}"),
    }
    assert!(error.to_string().ends_with("short.safetensors"), "{error}");
    // too short to be recognised by content, the extension still tells what it was to be
    std::fs::write(&path, [1, 2, 3]).unwrap();
    assert!(matches!(open(&path).unwrap_err().problem(), WeightsError::Truncated { expected: 8, actual: 3, .. }));
}

#[test]
fn flipped_bits_are_survived() {
    let samples = samples();
    for case in 0..3000u64 {
        let mut random = Random::keyed(11, &[case]);
        let mut bytes = samples[random.below(samples.len())].clone();
        for _ in 0..1 + random.below(6) {
            let at = random.below(bytes.len());
            if random.chance(0.5) {
                bytes[at] ^= 1u8 << random.below(8);
            } else {
                bytes[at] = random.next_u64() as u8;
            }
        }
        let _ = exercise(&bytes);
    }
}

#[test]
fn a_foreign_layout_is_renamed_and_reported() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("ssd.safetensors");
    let tensor = |name: &str, shape: Vec<usize>| {
        let count: usize = shape.iter().product();
        (name.to_owned(), shape, TensorData::F32(vec![0.5; count]))
    };
    let tensors = [
        tensor("vgg.0.weight", vec![2, 3]),
        tensor("vgg.33.bias", vec![4]),
        tensor("L2Norm.weight", vec![5]),
        tensor("extras.1.weight", vec![2]),
        tensor("loc.0.weight", vec![3]),
        tensor("conf.0.weight", vec![6]),
    ];
    write_safetensors(&path, &tensors, &BTreeMap::new()).unwrap();
    let mut checkpoint = open(&path).unwrap();
    assert_eq!(checkpoint.layout(), None);
    assert_eq!(checkpoint.translate(), Some(Layout::AmdegrootSsd));
    assert_eq!(checkpoint.layout(), Some(Layout::AmdegrootSsd));
    let expected: Vec<Expected> = [
        ("backbone.features.0.weight", vec![2, 3]),
        ("backbone.extra.0.7.3.bias", vec![4]),
        ("backbone.scale_weight", vec![5]),
        ("backbone.extra.1.2.weight", vec![2]),
        ("head.regression_head.module_list.0.weight", vec![3]),
        ("head.classification_head.module_list.0.weight", vec![9]),
    ]
    .into_iter()
    .map(|(name, shape)| Expected { name: name.to_owned(), shape })
    .collect();
    let report = compare(&expected, &checkpoint);
    assert_eq!(report.loaded.len(), 5);
    assert_eq!(report.mismatched.len(), 1);
    assert!(report.missing.is_empty() && report.unexpected.is_empty());
    assert_eq!(report.backbone_coverage("backbone."), 1.0);
    // 6 + 4 + 5 + 2 + 3 of those and the head's 9
    assert!((report.coverage - 20.0 / 29.0).abs() < 1e-12);
}

#[test]
fn a_detector_takes_the_body_of_another_and_nothing_of_a_stranger() {
    use boxwright::detect::{Arch, Config, build};
    use boxwright::engine::model::{ModelError, initialise};
    let classes = vec!["thing".to_owned()];
    let detector = build(&Config::new(Arch::FcosNano, &classes), &candle_core::Device::Cpu, 0).unwrap();
    let head = detector.params().values().unwrap()["head.classification_head.cls_logits.weight"].1.clone();
    let report = initialise(&*detector, "assets/retinanet-nano.safetensors".as_ref()).unwrap();
    assert!(report.loaded.iter().any(|name| name.starts_with("backbone.body.")));
    let left = report.missing.iter().map(|e| &e.name).chain(report.mismatched.iter().map(|m| &m.0));
    assert!(left.collect::<Vec<_>>().iter().all(|name| name.starts_with("head.")));
    let after = detector.params().values().unwrap();
    assert_eq!(after["head.classification_head.cls_logits.weight"].1, head);
    let stranger = initialise(&*detector, "assets/yolov3-nano.safetensors".as_ref());
    assert!(matches!(stranger, Err(ModelError::NothingFits { arch: Arch::FcosNano, .. })));
}
