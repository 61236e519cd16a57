//! Tensors in another order of axes, and stored numbers as the real ones that they mean; each makes one copy.
use crate::error::{NnrpError, Reason, Result};
use crate::overrides::Quantization;
use crate::tensor::{AlignedBuf, Data, Datatype, Shape, Tensor, values_to_bytes};
use smallvec::SmallVec;

/// For each axis of the answer, which one of the source it is.
pub(crate) type Axes = SmallVec<[usize; 8]>;

/// The datatypes that may stand for real numbers.
pub(crate) const QUANTIZED: [Datatype; 4] = [Datatype::Int8, Datatype::Uint8, Datatype::Int16, Datatype::Uint16];

/// The smallest and the largest number that each of these stores.
pub(crate) fn bounds(stored: Datatype) -> (i64, i64) {
    match stored {
        Datatype::Int8 => (i8::MIN.into(), i8::MAX.into()),
        Datatype::Uint8 => (u8::MIN.into(), u8::MAX.into()),
        Datatype::Int16 => (i16::MIN.into(), i16::MAX.into()),
        _ => (u16::MIN.into(), u16::MAX.into()),
    }
}

/// The same elements with their axes in another order. Its rank is that of `axes`, and its elements are whole bytes.
pub(crate) fn transpose(tensor: &Tensor<'_>, axes: &Axes) -> Tensor<'static> {
    let shape: Shape = axes.iter().map(|axis| tensor.shape[*axis]).collect();
    let sizes: SmallVec<[usize; 8]> = tensor.shape.iter().map(|size| usize::try_from(*size).unwrap_or(0)).collect();
    let stride = |axis: usize| sizes[axis + 1..].iter().product::<usize>();
    let steps: SmallVec<[(usize, usize); 8]> = axes.iter().map(|axis| (sizes[*axis], stride(*axis))).collect();
    let mut copy = AlignedBuf::zeroed(tensor.bytes().len());
    match tensor.datatype.bits() {
        8 => gather::<1>(tensor.bytes(), copy.as_mut_slice(), &steps),
        16 => gather::<2>(tensor.bytes(), copy.as_mut_slice(), &steps),
        32 => gather::<4>(tensor.bytes(), copy.as_mut_slice(), &steps),
        _ => gather::<8>(tensor.bytes(), copy.as_mut_slice(), &steps),
    }
    Tensor { datatype: tensor.datatype, shape, data: Data::Shared(copy.into_bytes()) }
}

fn gather<const N: usize>(source: &[u8], target: &mut [u8], steps: &[(usize, usize)]) {
    if !target.is_empty() {
        walk(source.as_chunks::<N>().0, &mut target.as_chunks_mut::<N>().0.iter_mut(), steps, 0);
    }
}

fn walk<const N: usize>(source: &[[u8; N]], target: &mut std::slice::IterMut<'_, [u8; N]>, steps: &[(usize, usize)], at: usize) {
    match steps {
        [] => target.by_ref().zip(source.get(at)).take(1).for_each(|(to, from)| *to = *from),
        [(size, stride)] => target.by_ref().take(*size).zip(source[at..].iter().step_by(*stride)).for_each(|(to, from)| *to = *from),
        [(size, stride), rest @ ..] => (0..*size).for_each(|index| walk(source, target, rest, at + index * stride)),
    }
}

/// Real numbers as a model stores them: the nearest, halves to even, and the ends of its range for what lies beyond.
///
/// # Errors
/// `VALUE_OUT_OF_RANGE` for NaN, naming its index.
pub(crate) fn quantize(tensor: &Tensor<'_>, to: Datatype, meaning: &Quantization) -> Result<Tensor<'static>> {
    let reals = tensor.bytes().as_chunks::<4>().0;
    if let Some(index) = reals.iter().position(|bytes| f32::from_le_bytes(*bytes).is_nan()) {
        return Err(NnrpError::new(Reason::ValueOutOfRange, format!("element {index}: expected a number, got NaN")).with("index", index));
    }
    macro_rules! stored {
        ($type:ty) => {{
            let (mut stored, bounds) = (Vec::<$type>::with_capacity(reals.len()), (f32::from(<$type>::MIN), f32::from(<$type>::MAX)));
            each(reals, &tensor.shape, meaning, |run, scale, zero| {
                stored.extend(run.iter().map(|real| ((f32::from_le_bytes(*real) / scale).round_ties_even() + zero).clamp(bounds.0, bounds.1) as $type));
            });
            values_to_bytes(stored)
        }};
    }
    let bytes = match to {
        Datatype::Int8 => stored!(i8),
        Datatype::Uint8 => stored!(u8),
        Datatype::Int16 => stored!(i16),
        _ => stored!(u16),
    };
    Ok(Tensor { datatype: to, shape: tensor.shape.clone(), data: Data::Shared(bytes) })
}

/// Stored numbers as the real ones that they mean.
pub(crate) fn dequantize(tensor: &Tensor<'_>, meaning: &Quantization) -> Tensor<'static> {
    macro_rules! meant {
        ($type:ty) => {{
            let (stored, _) = tensor.bytes().as_chunks::<{ size_of::<$type>() }>();
            let mut reals = Vec::<f32>::with_capacity(stored.len());
            each(stored, &tensor.shape, meaning, |run, scale, zero| {
                reals.extend(run.iter().map(|stored| scale * (f32::from(<$type>::from_le_bytes(*stored)) - zero)));
            });
            values_to_bytes(reals)
        }};
    }
    let bytes = match tensor.datatype {
        Datatype::Int8 => meant!(i8),
        Datatype::Uint8 => meant!(u8),
        Datatype::Int16 => meant!(i16),
        _ => meant!(u16),
    };
    Tensor { datatype: Datatype::Fp32, shape: tensor.shape.clone(), data: Data::Shared(bytes) }
}

/// Gives the elements in runs that share a scale, with it and its zero point.
fn each<T>(elements: &[T], shape: &[i64], meaning: &Quantization, mut run: impl FnMut(&[T], f32, f32)) {
    if let ([scale], [zero]) = (&*meaning.scales, &*meaning.zero_points) {
        return run(elements, *scale, *zero as f32);
    }
    let inner: i64 = shape[(meaning.axis + 1).min(shape.len())..].iter().product();
    let pairs = meaning.scales.iter().zip(&meaning.zero_points).cycle();
    for (run_of_one, (scale, zero)) in elements.chunks(usize::try_from(inner).unwrap_or(1).max(1)).zip(pairs) {
        run(run_of_one, *scale, *zero as f32);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn floats(shape: &[i64], values: &[f32]) -> Tensor<'static> {
        Tensor::from_values(Datatype::Fp32, shape, values.to_vec())
    }

    fn reals(tensor: &Tensor<'_>) -> Vec<f32> {
        tensor.bytes().as_chunks::<4>().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect()
    }

    #[test]
    fn axes_change_places() {
        let pixels = Tensor::from_values(Datatype::Uint16, &[1, 2, 2, 3], (0u16..12).collect());
        let planes = transpose(&pixels, &Axes::from_slice(&[0, 3, 1, 2]));
        assert_eq!(
            (planes.shape.as_slice(), bytemuck::cast_slice::<u8, u16>(planes.bytes())),
            (&[1, 3, 2, 2][..], &[0, 3, 6, 9, 1, 4, 7, 10, 2, 5, 8, 11][..])
        );
        assert_eq!(transpose(&planes, &Axes::from_slice(&[0, 2, 3, 1])).bytes(), pixels.bytes());
    }

    #[test]
    fn what_has_no_elements_or_no_axes_changes_places_too() {
        let none = transpose(&floats(&[2, 0], &[]), &Axes::from_slice(&[1, 0]));
        assert_eq!((none.shape.as_slice(), none.bytes().len()), (&[0, 2][..], 0));
        assert_eq!(reals(&transpose(&floats(&[], &[7.0]), &Axes::new())), [7.0]);
    }

    #[test]
    fn reals_are_stored_as_the_nearest_and_never_beyond_the_ends() {
        let meaning = Quantization { scales: vec![0.5], zero_points: vec![10], axis: 0 };
        let stored = quantize(&floats(&[7], &[0.0, 0.25, 0.75, -0.26, 1e9, -1e9, f32::INFINITY]), Datatype::Int8, &meaning).unwrap();
        assert_eq!(bytemuck::cast_slice::<u8, i8>(stored.bytes()), [10, 10, 12, 9, 127, -128, 127]);
        assert_eq!(reals(&dequantize(&stored, &meaning))[2..4], [1.0, -0.5]);
        let refused = quantize(&floats(&[2], &[0.0, f32::NAN]), Datatype::Uint8, &meaning).unwrap_err();
        assert!(refused.is(Reason::ValueOutOfRange) && refused.details()["index"] == 1, "{refused}");
    }

    #[test]
    fn several_scales_are_along_their_axis() {
        let meaning = Quantization { scales: vec![1.0, 10.0], zero_points: vec![0, 1], axis: 1 };
        let stored = Tensor::from_values(Datatype::Uint8, &[2, 2, 2], vec![1u8, 2, 1, 2, 3, 4, 3, 4]);
        assert_eq!(reals(&dequantize(&stored, &meaning)), [1.0, 2.0, 0.0, 10.0, 3.0, 4.0, 20.0, 30.0]);
        assert_eq!(quantize(&dequantize(&stored, &meaning), Datatype::Uint8, &meaning).unwrap().bytes(), stored.bytes());
    }

    proptest! {
        #[test]
        fn there_and_back_is_the_same(sizes in proptest::collection::vec(0i64..5, 1..5), seed in 0usize..120) {
            let count = sizes.iter().product::<i64>() as usize;
            let tensor = Tensor::from_values(Datatype::Int64, &sizes, (0..count as i64).collect());
            let mut left: Vec<usize> = (0..sizes.len()).collect();
            let axes: Axes = (0..sizes.len()).map(|_| left.remove(seed % left.len())).collect();
            let back: Axes = (0..sizes.len()).map(|axis| axes.iter().position(|from| *from == axis).unwrap()).collect();
            let again = transpose(&transpose(&tensor, &axes), &back);
            prop_assert_eq!(again.shape.as_slice(), tensor.shape.as_slice());
            prop_assert_eq!(again.bytes(), tensor.bytes());
        }
    }
}
