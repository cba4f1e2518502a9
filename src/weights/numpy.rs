//! Tensors out of pickled numpy arrays.
//!
//! Format: `ndarray.__reduce__` and `dtype.__reduce__` of numpy; modules are `numpy.core` before numpy 2 and
//! `numpy._core` since.

use super::error::WeightsError;
use super::pickle::{Id, Value};
use super::rebuild::{RawTensor, Rebuilder, malformed, sizes};
use super::tensor::{Dtype, column_major};

/// An element type with its byte order.
struct ArrayType {
    dtype: Dtype,
    big_endian: bool,
}

impl Rebuilder<'_> {
    /// `_reconstruct(ndarray, (0,), b'b')` and the state `(version, shape, dtype, is_fortran, bytes)` set on it.
    pub(super) fn array(&mut self, state: Option<Id>) -> Result<Option<RawTensor>, WeightsError> {
        let pickle = self.pickle;
        let Some([.., shape, dtype, fortran, bytes]) = state.and_then(|state| pickle.items(state)) else {
            return malformed("a numpy array without its state".to_owned());
        };
        let Some(element) = self.array_type(*dtype)? else {
            return Ok(None);
        };
        let shape = sizes(pickle, *shape)?;
        let strides = (pickle.int(*fortran) == Some(1)).then(|| column_major(&shape));
        self.over(*bytes, element, shape, strides).map(Some)
    }

    /// `scalar(dtype, bytes)`.
    pub(super) fn scalar(&mut self, arguments: &[Id]) -> Result<Option<RawTensor>, WeightsError> {
        let [dtype, bytes, ..] = arguments else {
            return malformed("a numpy scalar without its bytes".to_owned());
        };
        match self.array_type(*dtype)? {
            Some(element) => self.over(*bytes, element, Vec::new(), None).map(Some),
            None => Ok(None),
        }
    }

    /// `_frombuffer(bytes, dtype, shape, order)`, what protocol 5 writes.
    pub(super) fn array_from_buffer(&mut self, arguments: &[Id]) -> Result<Option<RawTensor>, WeightsError> {
        let pickle = self.pickle;
        let [bytes, dtype, shape, order, ..] = arguments else {
            return malformed("a numpy array without its buffer".to_owned());
        };
        let Some(element) = self.array_type(*dtype)? else {
            return Ok(None);
        };
        let shape = sizes(pickle, *shape)?;
        let strides = (pickle.text(*order) == Some("F")).then(|| column_major(&shape));
        self.over(*bytes, element, shape, strides).map(Some)
    }

    fn over(
        &mut self,
        bytes: Id,
        element: ArrayType,
        shape: Vec<usize>,
        strides: Option<Vec<usize>>,
    ) -> Result<RawTensor, WeightsError> {
        let Some(mut region) = self.bytes_region(bytes) else {
            return malformed("a numpy array without its bytes".to_owned());
        };
        region.big_endian = element.big_endian;
        Ok(RawTensor { dtype: element.dtype, shape, strides, offset: 0, region })
    }

    /// `numpy.dtype('f4', False, True)` with the state `(version, byte order, …)`. Nothing for element types that are
    /// no numbers: objects, texts, records, times.
    fn array_type(&self, id: Id) -> Result<Option<ArrayType>, WeightsError> {
        let pickle = self.pickle;
        let Value::Object(object) = pickle.value(id) else {
            return malformed("a numpy array without its element type".to_owned());
        };
        let code = match (pickle.class(object.class), pickle.items(object.arguments)) {
            (Some(("numpy", "dtype")), Some([code, ..])) => pickle.text(*code),
            _ => None,
        };
        let Some(code) = code else {
            return malformed("a numpy array without its element type".to_owned());
        };
        let order = object.state.and_then(|state| pickle.items(state)).and_then(|state| state.get(1));
        let order = order.and_then(|order| pickle.text(*order)).unwrap_or_default();
        let kind = code.trim_start_matches(['<', '>', '|', '=']);
        let dtype = match kind {
            "f8" => Dtype::F64,
            "f4" => Dtype::F32,
            "f2" => Dtype::F16,
            "i8" => Dtype::I64,
            "u8" => Dtype::U64,
            "i4" => Dtype::I32,
            "u4" => Dtype::U32,
            "i2" => Dtype::I16,
            "u2" => Dtype::U16,
            "i1" => Dtype::I8,
            "u1" => Dtype::U8,
            "b1" => Dtype::Bool,
            _ if kind.starts_with(['O', 'U', 'S', 'V', 'M', 'm']) => return Ok(None),
            _ => return malformed(format!("numpy element type `{code}` is not supported")),
        };
        Ok(Some(ArrayType { dtype, big_endian: order == ">" || code.starts_with('>') }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::weights::pickle::Pickle;
    use std::collections::HashMap;

    fn numbers(stream: &[u8]) -> (Vec<usize>, Vec<f32>) {
        let pickle = Pickle::parse(stream, 0).unwrap();
        let mut rebuilder = Rebuilder::new(&pickle, HashMap::new(), Vec::new(), true);
        let stored = rebuilder.tensor(pickle.root()).unwrap().unwrap().named("t").unwrap();
        let buffer = rebuilder.buffers.first().map(Vec::as_slice);
        let packed = stored.packed(buffer.unwrap_or(stream)).unwrap().to_vec();
        (stored.shape.clone(), stored.dtype.decode(&packed))
    }

    // np.arange(6, dtype='f4').reshape(2, 3) in protocol 3, written by hand after `ndarray.__reduce__`
    const ARRAY: &[u8] = b"\x80\x03cnumpy.core.multiarray\n_reconstruct\nq\x00cnumpy\nndarray\nq\x01K\x00\x85q\x02C\x01bq\
        \x03\x87q\x04Rq\x05(K\x01K\x02K\x03\x86q\x06cnumpy\ndtype\nq\x07X\x02\x00\x00\x00f4q\x08\x89\x88\x87q\x09Rq\x0a(K\
        \x03X\x01\x00\x00\x00<q\x0bNNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tq\x0cb\x89C\x18\x00\x00\x00\x00\x00\x00\x80?\
        \x00\x00\x00@\x00\x00@@\x00\x00\x80@\x00\x00\xa0@q\x0dtq\x0eb.";

    fn replaced(from: &[u8], to: &[u8]) -> Vec<u8> {
        let at = ARRAY.windows(from.len()).position(|window| window == from).unwrap();
        [&ARRAY[..at], to, &ARRAY[at + from.len()..]].concat()
    }

    #[test]
    fn an_array_is_read_in_place() {
        assert_eq!(numbers(ARRAY), (vec![2, 3], vec![0.0, 1.0, 2.0, 3.0, 4.0, 5.0]));
        // numpy 2 moved the module
        let moved = replaced(b"numpy.core.", b"numpy._core.");
        assert_eq!(numbers(&moved).0, [2, 3]);
    }

    #[test]
    fn fortran_order_is_turned() {
        // is_fortran = True: the same bytes are columns
        let columns = replaced(b"b\x89C\x18", b"b\x88C\x18");
        assert_eq!(numbers(&columns), (vec![2, 3], vec![0.0, 2.0, 4.0, 1.0, 3.0, 5.0]));
    }

    #[test]
    fn big_endian_and_latin_1_arrays_are_decoded() {
        // 1 to 6 as >i2: 12 bytes as text through _codecs.encode, as protocols below 3 write them
        let text = b"c_codecs\nencode\nX\x0c\x00\x00\x00\x00\x01\x00\x02\x00\x03\x00\x04\x00\x05\x00\x06\
            X\x06\x00\x00\x00latin1\x86R";
        let start = ARRAY.windows(2).position(|window| window == b"C\x18").unwrap();
        let mut stream = [&ARRAY[..start], text.as_slice(), b"tb.".as_slice()].concat();
        for (from, to) in [(b"f4".as_slice(), b"i2".as_slice()), (b"<q\x0b".as_slice(), b">q\x0b".as_slice())] {
            let at = stream.windows(from.len()).position(|window| window == from).unwrap();
            stream[at..at + from.len()].copy_from_slice(to);
        }
        assert_eq!(numbers(&stream), (vec![2, 3], vec![1.0, 2.0, 3.0, 4.0, 5.0, 6.0]));
    }

    #[test]
    fn arrays_of_objects_are_no_tensors_and_complex_ones_are_refused() {
        for (code, is_error) in [(b"O8", false), (b"c8", true)] {
            let stream = replaced(b"f4", code);
            let pickle = Pickle::parse(&stream, 0).unwrap();
            let mut rebuilder = Rebuilder::new(&pickle, HashMap::new(), Vec::new(), true);
            assert_eq!(
                rebuilder.tensor(pickle.root()).map(|tensor| tensor.is_some()).ok(),
                (!is_error).then_some(false)
            );
        }
    }
}
