"""Cases of ONNX's backend tests that do not pass, each with the reason.

A pattern matches whole names. The sweep fails if a case that is listed passes, so that the
lists stay true.
"""

from __future__ import annotations

import re
from functools import cache

_RANDOM = "the expected answer is what numpy's random numbers gave"
_NO_KERNEL = "TensorFlow has no kernel for this dtype"
_UNKNOWN_LENGTH = "the length of a sequence is known only when the model runs"
_NO_BUILTIN = "TFLite has no built-in op"
_INFINITE = "the converter makes finite numbers of infinite constants"
_OLD = "opset 6, whose ops broadcast by attributes"
_EMPTY = "LiteRT's Python interpreter gives no empty tensors back"
_ROUNDING = "every step rounds to 16 bits, which the reference does not"
_UNKNOWN_RANK = "the rank of the result depends on sizes that only a run tells"

_BOTH: dict[str, str] = {
    r"test_bernoulli.*": _RANDOM,
    r"test_training_dropout(_default|_mask|_default_mask)?": _RANDOM,
    r"test_cast(like)?_.*(FLOAT4E2M1|UINT2|INT2).*": _NO_KERNEL,
    r"test_cast_e8m0_.*": "TensorFlow has no such dtype",
    r"test_(de)?quantizelinear_(u?int2|float4e2m1)": _NO_KERNEL,
    r"test_attention_4d_(causal|padded_kv|causal_padded_kv|attn_mask_causal)_bf16(_expanded)?": (
        _ROUNDING
    ),
    r"test_attention_3d_causal_bf16(_expanded)?": _ROUNDING,
    r"test_affine_grid_2d(_align_corners)?_expanded": _UNKNOWN_RANK,
    r"test_affine_grid_3d_align_corners_expanded": _UNKNOWN_RANK,
    r"test_if_opt": "only a run tells whether the optional has an element",
    r"test_loop13_seq|test_loop16_seq_none|test_split_to_sequence_1": _UNKNOWN_LENGTH,
    r"test_resize_downsample_scales_(linear|cubic)_align_corners": (
        "onnx's reference takes the fractional size, ONNX Runtime and we the whole one"
    ),
    r"test_dft_inverse_opset19": "terms near zero, beyond 1e-7",
    r"test_gradient_of_.*": "training is not for an artifact that serves",
    r"test_operator_(add_.*|addconstant|basic|params|non_float_params|pow)": _OLD,
    r"test_PReLU_.*|test_GLU(_dim)?|test_PoissonNLLLLoss_no_reduce|test_Softsign": _OLD,
}

_SAVEDMODEL: dict[str, str] = {
    r"test_attention_4d_causal_fp16(_expanded)?": _ROUNDING,
    r"test_dft_inverse": "terms near zero, beyond 1e-7",
    r"test_image_decoder_decode_(jpeg2k|tiff|pnm)_rgb": "TensorFlow does not decode this format",
}

_TFLITE: dict[str, str] = {
    r"test_cast(like)?_.*(FLOAT8|INT4).*": _NO_BUILTIN,
    r"test_(de)?quantizelinear_(e4m3fn.*|e5m2|u?int4)": _NO_BUILTIN,
    r"test_attention_4d_causal_fp16_expanded": _ROUNDING,
    r"test_attention_4d_with_past_and_present_qk_matmul_bias_[34]d_mask_causal(_expanded)?": (
        _INFINITE
    ),
    r"test_attention_24_qk_matmul_output_mode3_softmax_precision_expanded": _INFINITE,
    r"test_bitcast_float64_to_int64": "LiteRT computes in float32, so the bits are not there",
    r"test_bitshift_right_u?int64": _NO_BUILTIN,
    r"test_(div|mod)_uint64": _NO_BUILTIN,
    r"test_pow_types_int(32|64)_float32": "needs float64",
    r"test_causal_conv_with_state_kernel_size_one(_expanded)?": _EMPTY,
    r"test_constantofshape_int_shape_zero": _EMPTY,
    r"test_reduce_sum_empty_set_non_reduced_axis_zero": _EMPTY,
    r"test_shape_start_greater_than_end|test_slice_start_out_of_bounds": _EMPTY,
    r"test_split_zero_size_splits_opset(13|18)|test_tri[lu]_zero": _EMPTY,
    r"test_compress_bfloat16": "the converter leaves a GATHER of bfloat16, which has no kernel",
    r"test_dft|test_dft_(axis|inverse|rfft|irfft)": "the axis is an input of the graph",
    r"test_training_dropout_zero_ratio(_mask)?": "training needs random numbers",
    r"test_image_decoder_.*": _NO_BUILTIN,
    r"test_regex_full_match_.*|test_string_(concat|split).*": _NO_BUILTIN,
    r"test_strnorm_model_monday_(case|in)sensintive_(lower|upper).*": _NO_BUILTIN,
    r"test_strnorm_model_monday_empty_output": _NO_BUILTIN,
    r"test_strnormalizer_.*(_lower|_upper|_empty_output|insensintive.*)": _NO_BUILTIN,
    r"test_sce_NCd1d2d3d4d5_.*": "a transpose of seven axes, of which LiteRT has six",
}


@cache
def _patterns(target: str) -> tuple[tuple[re.Pattern[str], str], ...]:
    own = _SAVEDMODEL if target == "savedmodel" else _TFLITE
    return tuple((re.compile(text), reason) for text, reason in {**_BOTH, **own}.items())


def reason(name: str, target: str) -> str:
    """Why a case is not expected to pass; empty if it is."""
    return next((why for pattern, why in _patterns(target) if pattern.fullmatch(name)), "")


def patterns(target: str) -> list[str]:
    """The patterns of a target."""
    return [pattern.pattern for pattern, _ in _patterns(target)]
