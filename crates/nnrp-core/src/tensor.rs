//! A tensor: datatype, shape, and bytes that are borrowed from the caller or shared by count (spec §3).
use crate::error::{NnrpError, Reason, Result};
use bytes::Bytes;
use smallvec::SmallVec;

/// Dimensions; `-1` only in signatures. Up to four without an allocation.
pub type Shape = SmallVec<[i64; 4]>;

macro_rules! datatypes {
    ($($variant:ident $name:literal $bits:literal $dlpack:expr, $json:literal;)*) => {
        /// The type of an element; `spec/datatypes.toml` is the canonical copy and a test compares.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[repr(u8)]
        #[allow(missing_docs, reason = "spec/datatypes.toml says what each means")]
        pub enum Datatype { $($variant,)* }

        impl Datatype {
            /// Every datatype, in the order of the table.
            pub const ALL: &'static [Datatype] = &[$(Datatype::$variant,)*];

            /// The name on the wire, `FP32`.
            pub const fn name(self) -> &'static str {
                match self { $(Datatype::$variant => $name,)* }
            }

            /// Bits of one element; 0 for BYTES, whose elements vary.
            pub const fn bits(self) -> usize {
                match self { $(Datatype::$variant => $bits,)* }
            }

            /// DLPack's type code and bits, one lane.
            pub const fn dlpack(self) -> Option<(u8, u8)> {
                match self { $(Datatype::$variant => $dlpack,)* }
            }

            /// Whether JSON `data` may carry it.
            pub const fn json(self) -> bool {
                match self { $(Datatype::$variant => $json,)* }
            }

            /// The datatype of a name on the wire.
            pub fn from_name(name: &str) -> Option<Datatype> {
                match name { $($name => Some(Datatype::$variant),)* _ => None }
            }
        }
    };
}

datatypes! {
    Bool "BOOL" 8 Some((6, 8)), true;
    Uint8 "UINT8" 8 Some((1, 8)), true;
    Uint16 "UINT16" 16 Some((1, 16)), true;
    Uint32 "UINT32" 32 Some((1, 32)), true;
    Uint64 "UINT64" 64 Some((1, 64)), true;
    Int8 "INT8" 8 Some((0, 8)), true;
    Int16 "INT16" 16 Some((0, 16)), true;
    Int32 "INT32" 32 Some((0, 32)), true;
    Int64 "INT64" 64 Some((0, 64)), true;
    Fp16 "FP16" 16 Some((2, 16)), false;
    Fp32 "FP32" 32 Some((2, 32)), true;
    Fp64 "FP64" 64 Some((2, 64)), true;
    Bf16 "BF16" 16 Some((4, 16)), false;
    Bytes "BYTES" 0 None, true;
    Fp8E4m3 "FP8_E4M3" 8 Some((10, 8)), false;
    Fp8E5m2 "FP8_E5M2" 8 Some((12, 8)), false;
    Int4 "INT4" 4 Some((0, 4)), false;
    Uint4 "UINT4" 4 Some((1, 4)), false;
}

impl Datatype {
    /// The datatype of a name that a caller sent.
    ///
    /// # Errors
    /// `UNKNOWN_DATATYPE`, naming the input.
    pub fn parse(name: &str, input: &str) -> Result<Datatype> {
        Datatype::from_name(name).ok_or_else(|| {
            let (input, got) = (crate::error::excerpt(input), crate::error::excerpt(name));
            let known: Vec<&str> = Datatype::ALL.iter().map(|datatype| datatype.name()).collect();
            let error = NnrpError::new(Reason::UnknownDatatype, format!("input '{input}': unknown datatype '{got}'"));
            error.with("input", input).with("expected", known).with("got", got)
        })
    }

    /// The alignment in bytes that a runtime may rely on.
    pub const fn align(self) -> usize {
        match self.bits() {
            16 => 2,
            32 => 4,
            64 => 8,
            _ => 1,
        }
    }

    /// Bytes that `count` elements take; `None` for BYTES or on overflow.
    pub fn byte_size(self, count: usize) -> Option<usize> {
        match self.bits() {
            0 => None,
            4 => Some(count.div_ceil(2)),
            bits => count.checked_mul(bits / 8),
        }
    }
}

/// The number of elements of a shape; `None` when a dimension is negative or the product overflows, also that of the dimensions beside one of 0: runtimes and
/// arrays multiply them in any order.
pub fn element_count(shape: &[i64]) -> Option<usize> {
    let mut product = 1usize;
    let mut empty = false;
    for &dim in shape {
        empty |= dim == 0;
        product = product.checked_mul(usize::try_from(dim).ok()?.max(1))?;
    }
    (product <= isize::MAX as usize / 8).then_some(if empty { 0 } else { product })
}

/// What a shape should have been that has no number of elements.
#[cold]
pub fn expected_shape(shape: &[i64]) -> &'static str {
    if shape.iter().any(|&dim| dim < 0) { "dimensions from 0" } else { "fewer than 2^60 elements, also beside a dimension of 0" }
}

/// The bytes of a tensor, row-major and little-endian, or BYTES elements as 4-byte length and content.
#[derive(Clone, Debug)]
pub enum Data<'a> {
    /// The caller's, for the length of the call.
    Borrowed(&'a [u8]),
    /// Shared by count; may own foreign memory.
    Shared(Bytes),
}

impl Data<'_> {
    /// The bytes.
    #[inline]
    pub fn as_slice(&self) -> &[u8] {
        match self {
            Data::Borrowed(bytes) => bytes,
            Data::Shared(bytes) => bytes,
        }
    }
}

/// A datatype, a shape, and the bytes.
#[derive(Clone, Debug)]
pub struct Tensor<'a> {
    /// Element type.
    pub datatype: Datatype,
    /// Dimensions, none negative once validated.
    pub shape: Shape,
    /// The elements.
    pub data: Data<'a>,
}

impl<'a> Tensor<'a> {
    /// A tensor over bytes that the caller keeps.
    pub fn borrowed(datatype: Datatype, shape: &[i64], bytes: &'a [u8]) -> Self {
        Tensor { datatype, shape: Shape::from_slice(shape), data: Data::Borrowed(bytes) }
    }

    /// A tensor over shared bytes.
    pub fn shared(datatype: Datatype, shape: &[i64], bytes: Bytes) -> Tensor<'static> {
        Tensor { datatype, shape: Shape::from_slice(shape), data: Data::Shared(bytes) }
    }

    /// A tensor that owns typed values; no copy.
    pub fn from_values<T: bytemuck::NoUninit + Send + 'static>(datatype: Datatype, shape: &[i64], values: Vec<T>) -> Tensor<'static> {
        Tensor::shared(datatype, shape, values_to_bytes(values))
    }

    /// The bytes.
    #[inline]
    pub fn bytes(&self) -> &[u8] {
        self.data.as_slice()
    }

    /// The same tensor with bytes of its own; copies only what is borrowed.
    pub fn into_owned(self) -> Tensor<'static> {
        let data = match self.data {
            Data::Borrowed(bytes) => Data::Shared(AlignedBuf::copy_of(bytes).into_bytes()),
            Data::Shared(bytes) => Data::Shared(bytes),
        };
        Tensor { datatype: self.datatype, shape: self.shape, data }
    }
}

/// The bytes of typed values, aligned as they were; no copy.
pub fn values_to_bytes<T: bytemuck::NoUninit + Send + 'static>(values: Vec<T>) -> Bytes {
    struct Values<T>(Vec<T>);
    impl<T: bytemuck::NoUninit> AsRef<[u8]> for Values<T> {
        fn as_ref(&self) -> &[u8] {
            bytemuck::cast_slice(&self.0)
        }
    }
    if values.is_empty() { Bytes::new() } else { Bytes::from_owner(Values(values)) }
}

/// The elements of a BYTES tensor, in order.
///
/// # Errors
/// `None` as the last item when a length runs past the end.
pub fn bytes_elements(data: &[u8]) -> impl Iterator<Item = Option<&[u8]>> {
    let mut rest = Some(data);
    std::iter::from_fn(move || {
        let bytes = rest?;
        if bytes.is_empty() {
            return None;
        }
        let element = bytes.split_first_chunk::<4>().and_then(|(length, tail)| tail.split_at_checked(u32::from_le_bytes(*length) as usize));
        rest = element.map(|(_, tail)| tail);
        Some(element.map(|(content, _)| content))
    })
}

/// Appends one BYTES element.
pub fn push_bytes_element(out: &mut Vec<u8>, element: &[u8]) {
    out.extend_from_slice(&u32::try_from(element.len()).unwrap_or(u32::MAX).to_le_bytes());
    out.extend_from_slice(element);
}

/// The alignment that the strictest runtime wants.
const LINE: usize = 64;

/// A buffer whose first byte is 64-byte aligned, as the strictest runtime wants it.
///
/// It lies within a plain allocation: made, filled with 64 bytes and freed it takes 11 ns, and 50 where the system aligns it (glibc 2.36).
#[derive(Default)]
pub struct AlignedBuf {
    memory: Vec<u8>,
    start: usize,
}

impl AlignedBuf {
    /// A buffer of `byte_size` zeros.
    pub fn zeroed(byte_size: usize) -> Self {
        let mut memory = vec![0; byte_size + LINE - 1];
        let start = before_line(&memory);
        memory.truncate(start + byte_size);
        AlignedBuf { memory, start }
    }

    /// An aligned copy; `None` when there is no memory for it.
    pub fn try_copy_of(bytes: &[u8]) -> Option<Self> {
        let mut memory = Vec::new();
        memory.try_reserve_exact(bytes.len().checked_add(LINE - 1)?).ok()?;
        Some(Self::filled(memory, bytes))
    }

    /// An aligned copy.
    pub fn copy_of(bytes: &[u8]) -> Self {
        Self::filled(Vec::with_capacity(bytes.len() + LINE - 1), bytes)
    }

    /// A copy in memory that is empty and has room for it wherever a line begins.
    fn filled(mut memory: Vec<u8>, bytes: &[u8]) -> Self {
        let start = before_line(&memory);
        memory.resize(start, 0);
        memory.extend_from_slice(bytes);
        AlignedBuf { memory, start }
    }

    /// The bytes, to fill.
    pub fn as_mut_slice(&mut self) -> &mut [u8] {
        &mut self.memory[self.start..]
    }

    /// Bytes that share this buffer.
    pub fn into_bytes(self) -> Bytes {
        Bytes::from_owner(self)
    }
}

impl AsRef<[u8]> for AlignedBuf {
    fn as_ref(&self) -> &[u8] {
        &self.memory[self.start..]
    }
}

/// How many bytes of an allocation lie before the first line that begins in it.
fn before_line(memory: &[u8]) -> usize {
    memory.as_ptr().addr().wrapping_neg() % LINE
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn datatypes_agree_with_the_table() {
        let table: toml::Table = include_str!("../../../spec/datatypes.toml").parse().unwrap();
        assert_eq!(table.len(), Datatype::ALL.len());
        for datatype in Datatype::ALL {
            let row = &table[datatype.name()];
            assert_eq!(row["bits"].as_integer(), Some(datatype.bits() as i64), "{}", datatype.name());
            assert_eq!(row["json"].as_bool(), Some(datatype.json()), "{}", datatype.name());
            let dlpack = row.get("dlpack").map(|pair| {
                let pair = pair.as_array().unwrap();
                (pair[0].as_integer().unwrap() as u8, pair[1].as_integer().unwrap() as u8)
            });
            assert_eq!(dlpack, datatype.dlpack(), "{}", datatype.name());
        }
    }

    #[test]
    fn a_product_that_overflows_is_no_count() {
        assert_eq!(element_count(&[1 << 40, 1 << 40]), None);
        assert_eq!(element_count(&[i64::MAX]), None);
        assert_eq!(element_count(&[-1]), None);
        for shape in [[0, 1 << 62, 1 << 62], [1 << 62, 0, 1 << 62], [1 << 62, 1 << 62, 0], [1, i64::MAX, 0], [0, -1, 1]] {
            assert_eq!(element_count(&shape), None, "{shape:?}");
        }
        assert_eq!(element_count(&[1 << 30, 0, 1 << 29]), Some(0));
        assert_eq!(element_count(&[]), Some(1));
    }

    #[test]
    fn elements_of_bytes_stop_at_a_length_that_runs_past_the_end() {
        let mut data = Vec::new();
        push_bytes_element(&mut data, b"ab");
        push_bytes_element(&mut data, b"");
        assert_eq!(bytes_elements(&data).collect::<Vec<_>>(), [Some(&b"ab"[..]), Some(&b""[..])]);
        data.extend_from_slice(&[9, 0, 0, 0, b'x']);
        assert_eq!(bytes_elements(&data).last(), Some(None));
    }

    #[test]
    fn a_buffer_is_aligned_and_as_long_as_it_was_asked_to_be() {
        for byte_size in [0, 1, 63, 64, 65, 4096, 1 << 20] {
            let bytes = vec![7; byte_size];
            let kept: Vec<_> = (0..8).map(|_| AlignedBuf::copy_of(&bytes)).collect();
            let mut zeroed = AlignedBuf::zeroed(byte_size);
            for copy in kept.iter().chain([&AlignedBuf::try_copy_of(&bytes).unwrap()]) {
                assert_eq!((copy.as_ref(), copy.as_ref().as_ptr().addr() % 64), (&*bytes, 0));
            }
            assert!(zeroed.as_mut_slice().iter().all(|byte| *byte == 0));
            assert_eq!((zeroed.as_ref().len(), zeroed.as_ref().as_ptr().addr() % 64), (byte_size, 0));
        }
        assert_eq!(AlignedBuf::default().as_ref(), b"");
        assert!(AlignedBuf::try_copy_of(&[]).is_some());
    }
}
