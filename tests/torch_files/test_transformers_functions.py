"""Functions of transformers' modules that are replaced while a model of theirs is traced."""

from __future__ import annotations

import sys
import types

import pytest
import torch

from modelpack.adapters.torch_transformers_forms import transformers_forms

TURNING = """
import torch


def apply_rotary_emb(xq, xk, freqs_cis):
    xq_ = torch.view_as_complex(xq.float().reshape(*xq.shape[:-1], -1, 2))
    xk_ = torch.view_as_complex(xk.float().reshape(*xk.shape[:-1], -1, 2))
    freqs_cis = freqs_cis.unsqueeze(HEADS)
    xq_out = torch.view_as_real(xq_ * freqs_cis).flatten(3).type_as(xq)
    xk_out = torch.view_as_real(xk_ * freqs_cis).flatten(3).type_as(xk)
    return xq_out, xk_out


class Rotary(torch.nn.Module):
    def forward(self, x, position_ids):
        freqs = position_ids[..., None].float() * torch.tensor([1.0, 0.1, 0.01])
        return torch.polar(torch.ones_like(freqs), freqs) * 1.5


class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.rotary = Rotary()

    def forward(self, query, key):
        turns = self.rotary(query, torch.arange(query.shape[3 - HEADS])[None])
        return torch.cat(apply_rotary_emb(query, key, turns), HEADS)
"""

PADDING = """
import torch


def make_padding_mask(input_ids, padding_idx=1):
    padding_mask = input_ids.eq(padding_idx)
    if not padding_mask.any():
        padding_mask = None
    return padding_mask


class Net(torch.nn.Module):
    def forward(self, tokens):
        mask = make_padding_mask(tokens, 2)
        return tokens if mask is None else tokens.masked_fill(mask, -1)
"""


def network(
    source: str, name: str, rotary: str, monkeypatch: pytest.MonkeyPatch
) -> torch.nn.Module:
    """The net of a source that stands for one of the library's modules."""
    module = types.ModuleType(name)
    monkeypatch.setitem(sys.modules, name, module)
    exec(source, vars(module))
    if rotary:
        module.Rotary.__qualname__ = rotary
    net: torch.nn.Module = module.Net()
    return net.eval()


@pytest.mark.parametrize(
    ("model", "rotary", "heads"),
    [("deepseek_v2", "DeepseekV2RotaryEmbedding", 1), ("llama4", "Llama4TextRotaryEmbedding", 2)],
)
def test_rotary_embeddings_are_the_same_without_complex_numbers(
    monkeypatch: pytest.MonkeyPatch, model: str, rotary: str, heads: int
) -> None:
    name = f"transformers.models.{model}.modeling_{model}"
    net = network(TURNING.replace("HEADS", str(heads)), name, rotary, monkeypatch)
    torch.manual_seed(0)
    feed = tuple(torch.randn(2, count, 5, 6).transpose(1, heads) for count in (4, 1))
    own = net(*feed)

    with transformers_forms(net):
        program = torch.export.export(net, feed)
        torch.testing.assert_close(net(*feed), own, rtol=1e-6, atol=1e-6)

    nodes = [node.meta["val"] for node in program.graph.nodes if "val" in node.meta]
    assert not any(torch.is_tensor(value) and value.is_complex() for value in nodes)
    assert torch.equal(net(*feed), own)


def test_a_mask_of_padding_does_not_depend_on_there_being_any(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    net = network(PADDING, "transformers.models.fsmt.modeling_fsmt", "", monkeypatch)
    feed = (torch.tensor([[3, 4], [2, 5]]),)

    with transformers_forms(net):
        program = torch.export.export(net, feed)

    for tokens in (feed[0], torch.tensor([[3, 4], [6, 5]])):
        assert torch.equal(program.module()(tokens), net(tokens))


class NllbMoeExperts(torch.nn.ModuleDict):
    """Each expert for the tokens that ask it, as transformers looks them up."""

    __module__ = "transformers.models.nllb_moe.modeling_nllb_moe"

    def __init__(self) -> None:
        super().__init__({f"expert_{index}": torch.nn.Linear(4, 4) for index in range(3)})
        self.num_experts, self.moe_token_dropout = 3, 0.2
        self.token_dropout = torch.nn.Dropout(0.2)

    def forward(
        self, hidden_states: torch.Tensor, router_mask: torch.Tensor, router_probs: torch.Tensor
    ) -> torch.Tensor:
        made = torch.zeros_like(hidden_states)
        masks = torch.nn.functional.one_hot(router_mask, num_classes=3).permute(2, 1, 0)
        for index in torch.greater(masks.sum(dim=(-1, -2)), 0).nonzero():
            at, token = torch.where(masks[index].squeeze(0))
            answer = self[f"expert_{index[0]}"](hidden_states[token])
            made.index_add_(0, token, answer * router_probs[token, at, None] * 0.8)
        return made


def test_experts_are_the_same_for_all_tokens_at_once() -> None:
    torch.manual_seed(0)
    layer = NllbMoeExperts().eval()
    feed = torch.randn(6, 4), torch.randint(0, 3, (6, 3)), torch.rand(6, 3)

    with torch.no_grad():
        want = layer(*feed)
        with transformers_forms(layer):
            program = torch.export.export(layer, feed)

    torch.testing.assert_close(program.module()(*feed), want, rtol=1e-5, atol=1e-6)
