"""Functions of transformers in equal forms that PyTorch can export with dynamic sizes.

Each replaces one method of one class, of instances, or one function of a module, and for the
time of an export alone. It computes the same numbers; the artifact is compared with the library's
own form.
"""

from __future__ import annotations

import contextlib
import functools
import math
import sys
import types
from collections.abc import Callable, Iterable, Iterator
from typing import Any
from unittest import mock

import torch

from modelpack.errors import ConversionError


def _axial_positions(layer: Any, position_ids: torch.Tensor) -> torch.Tensor:
    """Reformer's embeddings of positions [batch, length], looked up all at once.

    The library's form picks rows in a loop over the batch, from as many columns as the highest
    position needs.
    """
    shape = tuple(layer.axial_pos_shape)
    weights = [weight.expand(*shape, -1) for weight in layer.weights]
    table = torch.cat(weights, dim=-1).flatten(0, len(shape) - 1)
    return torch.nn.functional.embedding(position_ids, table)


def _windowed_attention(
    layer: Any,
    hidden_states: torch.Tensor,
    attention_mask: torch.Tensor,
    is_index_masked: torch.Tensor,
    is_index_global_attn: torch.Tensor,
    is_global_attn: object = None,
    output_attentions: bool = False,
) -> tuple[torch.Tensor, ...]:
    """Longformer's and LED's attention of each token to its window and global ones, by masks.

    The library's form cuts windows out of memory, and takes as many global tokens as there are,
    which is a value. This one scores every token with every other: as many scores as the square
    of the length.

    Args:
        layer: the attention, with its projections.
        hidden_states: float[batch, length, size].
        attention_mask: float[batch, length], 0 for tokens of windows.
        is_index_masked: bool[batch, length], padding.
        is_index_global_attn: bool[batch, length], tokens that see all and that all see.
        is_global_attn: whether there is any of them; not needed.
        output_attentions: not possible in this form.
    """
    if output_attentions:
        raise ConversionError("weights of attention to windows cannot be exported as outputs")
    places = torch.arange(hidden_states.shape[1])
    is_near = (places[:, None] - places).abs() <= layer.one_sided_attn_window_size
    is_seen = (is_near & (attention_mask == 0)[:, None]) | is_index_global_attn[:, None]
    own = layer.query, layer.key, layer.value
    by_window = _attend(layer, hidden_states, is_seen, own)
    by_window = by_window.masked_fill(is_index_masked[..., None], 0.0)
    every = layer.query_global, layer.key_global, layer.value_global
    by_all = _attend(layer, hidden_states, ~is_index_masked[:, None], every)
    return (torch.where(is_index_global_attn[..., None], by_all, by_window),)


def _attend(
    layer: Any, hidden_states: torch.Tensor, is_seen: torch.Tensor, projections: Iterable[Any]
) -> torch.Tensor:
    """Attention of several heads, of each row [batch, length, size] to the rows that it sees."""
    shape = (*hidden_states.shape[:2], layer.num_heads, layer.head_dim)
    query, key, value = (one(hidden_states).view(shape).transpose(1, 2) for one in projections)
    scores = (query / math.sqrt(layer.head_dim)) @ key.transpose(-1, -2)
    hidden = torch.finfo(scores.dtype).min
    weights = torch.softmax(scores.masked_fill(~is_seen[:, None], hidden), -1, torch.float32)
    return (weights.type_as(scores) @ value).transpose(1, 2).flatten(2)


def _without_padding(
    model: Any,
    input_ids: torch.Tensor,
    attention_mask: torch.Tensor,
    token_type_ids: torch.Tensor,
    position_ids: torch.Tensor,
    inputs_embeds: torch.Tensor,
    pad_token_id: int,
) -> tuple[Any, ...]:
    """What Longformer pads to whole windows, as it is: attention by masks needs no windows."""
    return 0, input_ids, attention_mask, token_type_ids, position_ids, inputs_embeds


def _encoded_without_padding(
    model: Any,
    input_ids: torch.Tensor,
    attention_mask: torch.Tensor,
    inputs_embeds: torch.Tensor,
    pad_token_id: int,
) -> tuple[Any, ...]:
    """What LED pads to whole windows, as it is; see `_without_padding`."""
    return 0, input_ids, attention_mask, inputs_embeds


def _turns(layer: Any, *args: Any, **kwargs: Any) -> torch.Tensor:
    """Cosines and sines [..., 2] of a rotary embedding, which makes complex numbers of them."""
    with mock.patch.object(torch, "polar", _polar):
        turns: torch.Tensor = type(layer).forward(layer, *args, **kwargs)
    return turns


def _polar(length: torch.Tensor, angle: torch.Tensor) -> torch.Tensor:
    """`torch.polar` with a real and an imaginary part for each number, in a dimension more."""
    return torch.stack([length * torch.cos(angle), length * torch.sin(angle)], -1)


def _turned(
    query: torch.Tensor, key: torch.Tensor, turns: torch.Tensor, *, heads: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Pairs of a query and of a key, turned as the products of complex numbers are.

    Args:
        query: float[batch, ...].
        key: the same.
        turns: what `_turns` returns.
        heads: the dimension of both that has the heads.
    """
    cosine, sine = turns.unsqueeze(heads).unbind(-1)

    def turned(states: torch.Tensor) -> torch.Tensor:
        real, imaginary = states.float().unflatten(-1, (-1, 2)).unbind(-1)
        pairs = real * cosine - imaginary * sine, real * sine + imaginary * cosine
        return torch.stack(pairs, -1).flatten(-2).type_as(states)

    return turned(query), turned(key)


def _padding_mask(input_ids: torch.Tensor, padding_idx: int = 1) -> torch.Tensor:
    """FSMT's mask of padding, also where there is none: it hides nothing then."""
    return input_ids.eq(padding_idx)


def _with_classifier(layer: Any) -> None:
    """Cast NLLB-MoE's router, which cannot be while a graph is made: its first call has done so."""
    if layer.classifier.weight.dtype != layer.dtype:
        type(layer)._cast_classifier(layer)


def _weighed_experts(
    layer: Any, hidden_states: torch.Tensor, router_mask: torch.Tensor, router_probs: torch.Tensor
) -> torch.Tensor:
    """NLLB-MoE's experts, each for all tokens, weighed by 0 where it is not asked.

    The library's form looks up which experts are asked, and for which tokens. To it, the values
    of the mask are what says the expert.
    """
    made = torch.zeros_like(hidden_states)
    for index in range(layer.num_experts):
        weight = (router_probs * (router_mask == index)).sum(-1, keepdim=True)
        answer = layer[f"expert_{index}"](hidden_states)
        scaled = answer * weight * (1 - layer.moe_token_dropout)
        made = made + scaled.to(made.dtype)
    return made


# Class, method and form; the class by its name, for the library need not be there.
_FORMS: dict[str, dict[str, Callable[..., Any]]] = {
    "transformers.models.reformer.modeling_reformer.AxialPositionEmbeddings": {
        "forward": _axial_positions
    },
    "transformers.models.longformer.modeling_longformer.LongformerSelfAttention": {
        "forward": _windowed_attention
    },
    "transformers.models.longformer.modeling_longformer.LongformerModel": {
        "_pad_to_window_size": _without_padding
    },
    "transformers.models.led.modeling_led.LEDEncoderSelfAttention": {
        "forward": _windowed_attention
    },
    "transformers.models.led.modeling_led.LEDEncoder": {
        "_pad_to_window_size": _encoded_without_padding
    },
    "transformers.models.deepseek_v2.modeling_deepseek_v2.DeepseekV2RotaryEmbedding": {
        "forward": _turns
    },
    "transformers.models.llama4.modeling_llama4.Llama4TextRotaryEmbedding": {"forward": _turns},
    "transformers.models.nllb_moe.modeling_nllb_moe.NllbMoeTop2Router": {
        "_cast_classifier": _with_classifier
    },
    "transformers.models.nllb_moe.modeling_nllb_moe.NllbMoeExperts": {"forward": _weighed_experts},
}

# Module, function and form.
_FUNCTIONS: dict[str, dict[str, Callable[..., Any]]] = {
    "transformers.models.deepseek_v2.modeling_deepseek_v2": {
        "apply_rotary_emb": functools.partial(_turned, heads=1)
    },
    "transformers.models.llama4.modeling_llama4": {
        "apply_rotary_emb": functools.partial(_turned, heads=2)
    },
    "transformers.models.fsmt.modeling_fsmt": {"make_padding_mask": _padding_mask},
}


@contextlib.contextmanager
def transformers_forms(model: torch.nn.Module) -> Iterator[None]:
    """Put the forms in the places of the methods of a model's parts, for a while.

    Functions of the modules that define the parts are replaced for whatever uses them then.
    """
    placed: list[tuple[torch.nn.Module, str]] = []
    with contextlib.ExitStack() as stack:
        for name in {type(part).__module__ for part in model.modules()} & set(_FUNCTIONS):
            module = sys.modules.get(name)
            for function, form in _FUNCTIONS[name].items():
                if hasattr(module, function):
                    stack.enter_context(mock.patch.object(module, function, form))
        try:
            for part in model.modules():
                name = f"{type(part).__module__}.{type(part).__qualname__}"
                for method, form in _FORMS.get(name, {}).items():
                    vars(part)[method] = types.MethodType(form, part)
                    placed.append((part, method))
            yield
        finally:
            for part, method in placed:
                del vars(part)[method]
