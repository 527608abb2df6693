"""Network architectures of PyTorch, with weights that make their outputs depend on their inputs.

Weights are random. What libraries initialise with zeros (residual scales, biases, position
embeddings) is filled, and the statistics of batch normalisations are measured on inputs:
otherwise whole branches would be multiplied by zero and a wrong lowering of them would pass.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import nn

_TORCHVISION_OPS = (
    "nms", "qnms", "roi_align", "_roi_align_backward", "ps_roi_align", "_ps_roi_align_backward",
    "roi_pool", "_roi_pool_backward", "ps_roi_pool", "_ps_roi_pool_backward", "qroi_align",
    "deform_conv2d", "_deform_conv2d_backward", "box_iou_rotated",
)  # fmt: skip


def _declare_torchvision_ops() -> torch.library.Library:
    """Declare the ops of torchvision's CUDA extension, which a CPU build of PyTorch cannot load."""
    library = torch.library.Library("torchvision", "DEF")
    for op in _TORCHVISION_OPS:
        library.define(f"{op}(Tensor a) -> Tensor")
    return library


_library = _declare_torchvision_ops()


@dataclass(frozen=True)
class Input:
    """An input: its name, sizes (text for dynamic ones) and what makes a batch of it."""

    name: str
    dims: tuple[int | str, ...]
    make: Callable[[tuple[int, ...]], torch.Tensor]


@dataclass(frozen=True)
class Architecture:
    """How a network is built, and what it takes."""

    kind: str
    build: Callable[[], nn.Module]
    inputs: tuple[Input, ...]


def create(name: str) -> nn.Module:
    """Build a network of the table in evaluation mode, the same one every time."""
    torch.manual_seed(0)
    architecture = TABLE[name]
    model = architecture.build().eval()
    _fill_constants(model)
    _measure_statistics(model, architecture)
    return model.requires_grad_(False)


def feed(name: str, sizes: Mapping[str, int], seed: int) -> tuple[torch.Tensor, ...]:
    """Make inputs of a network for given dynamic sizes."""
    torch.manual_seed(seed)
    return tuple(
        item.make(tuple(size if isinstance(size, int) else sizes[size] for size in item.dims))
        for item in TABLE[name].inputs
    )


def _fill_constants(model: nn.Module) -> None:
    for parameter in model.parameters():
        values = parameter.data
        if not values.is_floating_point() or values.numel() == 0:
            continue
        if values.min() == values.max() and values.reshape(-1)[0].abs() < 0.5:
            fan_in = values[0].numel() if values.ndim > 1 else 25
            values.normal_(0.0, max(fan_in, 1) ** -0.5)


def _measure_statistics(model: nn.Module, architecture: Architecture) -> None:
    norms = [m for m in model.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    if not norms:
        return
    for norm in norms:
        # Without shifts the gradient grows exponentially with depth, and so do rounding errors.
        norm.bias.data.normal_(1.0, 0.5)
        norm.reset_running_stats()
        norm.momentum = None
        norm.train()
    sizes = {"batch": 8, "length": 12}
    with torch.no_grad():
        for _ in range(3):
            shapes = [
                tuple(d if isinstance(d, int) else sizes[d] for d in item.dims)
                for item in architecture.inputs
            ]
            batch = zip(architecture.inputs, shapes, strict=True)
            model(*(item.make(shape) for item, shape in batch))
    model.eval()


# --- inputs --------------------------------------------------------------------------------


def _picture(shape: tuple[int, ...]) -> torch.Tensor:
    """Blobs with noise, each of its own contrast: means over noise alone would be all alike."""
    blobs = nn.functional.interpolate(torch.randn(*shape[:2], 4, 4), shape[2:], mode="bilinear")
    contrast = torch.rand(shape[0], 1, 1, 1) + 0.5
    return contrast * (blobs + 0.3 * torch.randn(shape))


def _signal(shape: tuple[int, ...]) -> torch.Tensor:
    return torch.randn(shape) * (torch.rand(shape[0], *(1 for _ in shape[1:])) + 0.5)


def _mask(shape: tuple[int, ...]) -> torch.Tensor:
    lengths = torch.randint(shape[1] // 2 + 1, shape[1] + 1, (shape[0], 1))
    return (torch.arange(shape[1]) < lengths).long()


_VOCABULARY = 1000


def _tokens(name: str = "ids", length: int | str = "length") -> Input:
    return Input(name, ("batch", length), partial(torch.randint, 2, _VOCABULARY))


def _picture_of(size: int) -> tuple[Input, ...]:
    return (Input("image", ("batch", 3, size, size), _picture),)


_TOKENS_AND_MASK = (_tokens(), Input("mask", ("batch", "length"), _mask))
_SERIES = (Input("series", ("batch", "length", 12), _signal),)


# --- builders ------------------------------------------------------------------------------


def _torchvision(kind: str, name: str, size: int = 64, **options: Any) -> Architecture:
    def build() -> nn.Module:
        models = importlib.import_module("torchvision.models")
        return models.get_model(name, weights=None, **options)

    return Architecture(kind, build, _picture_of(size))


def _segmentation(name: str) -> Architecture:
    def build() -> nn.Module:
        models = importlib.import_module("torchvision.models")
        model = models.get_model(name, weights=None, weights_backbone=None, num_classes=5)
        return _Of(model, lambda out: out["out"])

    return Architecture("segmentation", build, _picture_of(64))


def _timm(kind: str, name: str, size: int = 64, **options: Any) -> Architecture:
    def build() -> nn.Module:
        return importlib.import_module("timm").create_model(name, pretrained=False, **options)

    return Architecture(kind, build, _picture_of(size))


def _transformers(
    kind: str,
    model: str,
    config: str,
    inputs: tuple[Input, ...],
    names: tuple[str, ...] = ("input_ids", "attention_mask"),
    pick: Callable[[Any], Any] = lambda out: out.logits,
    **sizes: Any,
) -> Architecture:
    def build() -> nn.Module:
        library = importlib.import_module("transformers")
        settings = getattr(library, config)(**sizes)
        made = getattr(library, model)(settings)
        return _Of(made, pick, names[: len(inputs)])

    return Architecture(kind, build, inputs)


class _Of(nn.Module):
    """A model that is called with named arguments, and of whose result a part is wanted."""

    def __init__(
        self, model: nn.Module, pick: Callable[[Any], Any], names: tuple[str, ...] = ()
    ) -> None:
        super().__init__()
        self.model = model
        self.pick = pick
        self.names = names

    def forward(self, *tensors: torch.Tensor) -> Any:
        if not self.names:
            return self.pick(self.model(*tensors))
        return self.pick(self.model(**dict(zip(self.names, tensors, strict=True))))


class _UNet(nn.Module):
    """Two levels down and up again, with transposed convolutions and skip connections."""

    def __init__(self) -> None:
        super().__init__()
        self.down = nn.ModuleList([self._block(3, 16), self._block(16, 32), self._block(32, 64)])
        self.up = nn.ModuleList(
            [nn.ConvTranspose2d(64, 32, 2, stride=2), nn.ConvTranspose2d(32, 16, 3, 2, 1, 1)]
        )
        self.merge = nn.ModuleList([self._block(64, 32), self._block(32, 16)])
        self.head = nn.Conv2d(16, 4, 1)

    @staticmethod
    def _block(channels: int, wanted: int) -> nn.Module:
        return nn.Sequential(
            nn.Conv2d(channels, wanted, 3, padding=1), nn.BatchNorm2d(wanted), nn.ReLU()
        )

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        high = self.down[0](image)
        middle = self.down[1](nn.functional.max_pool2d(high, 2))
        low = self.down[2](nn.functional.max_pool2d(middle, 2))
        middle = self.merge[0](torch.cat([self.up[0](low), middle], 1))
        high = self.merge[1](torch.cat([self.up[1](middle), high], 1))
        return self.head(high)


class _Recurrent(nn.Module):
    """A recurrent layer and a linear one on its states."""

    def __init__(self, layer: type[nn.Module], last: bool, **options: Any) -> None:
        super().__init__()
        self.layer = layer(12, 24, batch_first=True, **options)
        self.head = nn.Linear(48 if options.get("bidirectional") else 24, 5)
        self.last = last

    def forward(self, series: torch.Tensor) -> torch.Tensor:
        states, _ = self.layer(series)
        return self.head(states[:, -1] if self.last else states)


class _Tagger(nn.Module):
    """A transformer encoder over a series."""

    def __init__(self) -> None:
        super().__init__()
        layer = nn.TransformerEncoderLayer(32, 4, 64, batch_first=True, norm_first=True)
        self.into = nn.Linear(12, 32)
        self.encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.head = nn.Linear(32, 5)

    def forward(self, series: torch.Tensor) -> torch.Tensor:
        return self.head(self.encoder(self.into(series)))


class _Convolutions1d(nn.Module):
    """Dilated convolutions over time with residuals, as in a temporal convolutional network."""

    def __init__(self) -> None:
        super().__init__()
        self.into = nn.Conv1d(12, 32, 1)
        self.layers = nn.ModuleList(
            nn.Conv1d(32, 32, 3, padding=2**i, dilation=2**i, groups=1 + i % 2) for i in range(4)
        )
        self.norms = nn.ModuleList(nn.GroupNorm(4, 32) for _ in range(4))
        self.head = nn.Linear(32, 5)

    def forward(self, series: torch.Tensor) -> torch.Tensor:
        x = self.into(series.transpose(1, 2))
        for layer, norm in zip(self.layers, self.norms, strict=True):
            x = x + nn.functional.gelu(norm(layer(x)))
        return self.head(x.mean(2))


class _Convolutions3d(nn.Module):
    """Convolutions over video."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv3d(3, 8, 3, padding=1), nn.BatchNorm3d(8), nn.ReLU(), nn.MaxPool3d(2),
            nn.Conv3d(8, 16, 3, padding=1), nn.BatchNorm3d(16), nn.ReLU(),
            nn.AdaptiveAvgPool3d(1), nn.Flatten(), nn.Linear(16, 5),
        )  # fmt: skip

    def forward(self, video: torch.Tensor) -> torch.Tensor:
        return self.layers(video)


class _Generator(nn.Module):
    """The generator of a DCGAN."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.ConvTranspose2d(16, 32, 4), nn.BatchNorm2d(32), nn.ReLU(),
            nn.ConvTranspose2d(32, 16, 4, 2, 1), nn.InstanceNorm2d(16), nn.LeakyReLU(0.2),
            nn.Upsample(scale_factor=2, mode="bilinear"), nn.Conv2d(16, 12, 3, padding=1),
            nn.PixelShuffle(2), nn.Tanh(),
        )  # fmt: skip

    def forward(self, noise: torch.Tensor) -> torch.Tensor:
        return self.layers(noise[:, :, None, None])


# --- the table -----------------------------------------------------------------------------

# Wider than the default, so that attention depends on what it attends to.
_SPREAD = 0.1
_ENCODER = {
    "vocab_size": _VOCABULARY, "hidden_size": 64, "num_hidden_layers": 2,
    "num_attention_heads": 4, "intermediate_size": 128, "initializer_range": _SPREAD,
}  # fmt: skip
_VISION = {**_ENCODER, "image_size": 32, "patch_size": 8}
del _VISION["vocab_size"]

TABLE: dict[str, Architecture] = {
    "resnet18": _torchvision("CNN", "resnet18"),
    "resnet50": _torchvision("CNN", "resnet50", 224),
    "resnext": _timm("CNN", "resnext26ts"),
    "mobilenet_v2": _torchvision("CNN", "mobilenet_v2"),
    "mobilenet_v3": _torchvision("CNN", "mobilenet_v3_small", 224),
    "efficientnet_b0": _torchvision("CNN", "efficientnet_b0", 224),
    "convnext": _torchvision("CNN", "convnext_tiny"),
    "densenet121": _torchvision("CNN", "densenet121"),
    "shufflenet_v2": _torchvision("CNN", "shufflenet_v2_x0_5"),
    "squeezenet": _torchvision("CNN", "squeezenet1_1"),
    "googlenet": _torchvision("CNN", "googlenet", aux_logits=False, init_weights=False),
    "inception_v3": _torchvision("CNN", "inception_v3", 96, aux_logits=False, init_weights=False),
    "regnet_y": _torchvision("CNN", "regnet_y_400mf"),
    "mnasnet": _torchvision("CNN", "mnasnet0_5"),
    "alexnet": _torchvision("CNN", "alexnet"),
    "repvgg": _timm("CNN", "repvgg_a0"),
    "ghostnet": _timm("CNN", "ghostnet_100"),
    "hrnet": _timm("CNN", "hrnet_w18_small"),
    "res2net": _timm("CNN", "res2net50_14w_8s"),
    "nfnet": _timm("CNN", "dm_nfnet_f0", depths=(1, 1, 1, 1)),
    "mobilenet_v4": _timm("CNN", "mobilenetv4_conv_small"),
    "deeplab_v3": _segmentation("deeplabv3_mobilenet_v3_large"),
    "lraspp": _segmentation("lraspp_mobilenet_v3_large"),
    "unet": Architecture("segmentation", _UNet, _picture_of(64)),
    "vit_tiny": _timm("vision transformer", "vit_tiny_patch16_224", 224),
    "swin": _torchvision("vision transformer", "swin_t"),
    "maxvit": _timm("vision transformer", "maxvit_rmlp_pico_rw_256", 64, img_size=64),
    "coatnet": _timm("vision transformer", "coatnet_pico_rw_224", 64, img_size=64),
    "mixer": _timm("vision transformer", "mixer_s32_224", 64, img_size=64),
    "edgenext": _timm("vision transformer", "edgenext_xx_small"),
    "poolformer": _timm("vision transformer", "poolformer_s12"),
    "mobilevit": _timm("vision transformer", "mobilevit_xxs", 64),
    "levit": _timm("vision transformer", "levit_128s", 64, img_size=64),
    "pvt_v2": _timm("vision transformer", "pvt_v2_b0", 64),
    "vit_hf": _transformers(
        "vision transformer", "ViTForImageClassification", "ViTConfig", _picture_of(32),
        ("pixel_values",), **_VISION,
    ),
    "segformer": _transformers(
        "segmentation", "SegformerForSemanticSegmentation", "SegformerConfig", _picture_of(64),
        ("pixel_values",), depths=[1, 1, 1, 1], hidden_sizes=[16, 32, 48, 64],
        decoder_hidden_size=32, num_labels=4,
    ),
    "bert_small": _transformers(
        "text", "BertForSequenceClassification", "BertConfig", _TOKENS_AND_MASK,
        vocab_size=_VOCABULARY, hidden_size=512, num_hidden_layers=4, num_attention_heads=8,
        intermediate_size=2048,
    ),
    "distilbert": _transformers(
        "text", "DistilBertForSequenceClassification", "DistilBertConfig", _TOKENS_AND_MASK,
        vocab_size=_VOCABULARY, dim=64, n_layers=2, n_heads=4, hidden_dim=128,
        initializer_range=_SPREAD,
    ),
    "albert": _transformers(
        "text", "AlbertForTokenClassification", "AlbertConfig", _TOKENS_AND_MASK,
        embedding_size=32, **_ENCODER,
    ),
    "deberta": _transformers(
        "text", "DebertaV2ForSequenceClassification", "DebertaV2Config", _TOKENS_AND_MASK,
        relative_attention=True, pos_att_type=["p2c", "c2p"], **_ENCODER,
    ),
    "gpt2": _transformers(
        "text", "GPT2LMHeadModel", "GPT2Config", (_tokens(),),
        vocab_size=_VOCABULARY, n_embd=64, n_layer=2, n_head=4, use_cache=False,
    ),
    "llama": _transformers(
        "text", "LlamaForCausalLM", "LlamaConfig", _TOKENS_AND_MASK,
        num_key_value_heads=2, use_cache=False, **_ENCODER,
    ),
    "gemma2": _transformers(
        "text", "Gemma2ForCausalLM", "Gemma2Config", (_tokens(),),
        num_key_value_heads=2, head_dim=16, use_cache=False, sliding_window=8, **_ENCODER,
    ),
    "t5": _transformers(
        "text", "T5ForConditionalGeneration", "T5Config",
        (_tokens(), _tokens("target", "target_length")), ("input_ids", "decoder_input_ids"),
        vocab_size=_VOCABULARY, d_model=64, d_kv=16, d_ff=128, num_layers=2, num_heads=4,
        use_cache=False,
    ),
    "clip": _transformers(
        "text and image", "CLIPModel", "CLIPConfig", (_tokens(length=12), *_picture_of(32)),
        ("input_ids", "pixel_values"), lambda out: (out.text_embeds, out.image_embeds),
        text_config={**_ENCODER, "eos_token_id": 2}, vision_config=_VISION, projection_dim=32,
    ),
    "whisper": _transformers(
        "speech", "WhisperForConditionalGeneration", "WhisperConfig",
        (Input("mel", ("batch", 80, 60), _signal), _tokens()),
        ("input_features", "decoder_input_ids"),
        vocab_size=_VOCABULARY, d_model=64, encoder_layers=2, decoder_layers=2,
        encoder_attention_heads=4, decoder_attention_heads=4, encoder_ffn_dim=128,
        decoder_ffn_dim=128, max_source_positions=30, use_cache=False, pad_token_id=0,
        bos_token_id=1, eos_token_id=2, decoder_start_token_id=1, init_std=_SPREAD,
    ),
    "wav2vec2": _transformers(
        "speech", "Wav2Vec2ForCTC", "Wav2Vec2Config", (Input("wave", ("batch", 1600), _signal),),
        ("input_values",), vocab_size=20, hidden_size=64, num_hidden_layers=2,
        num_attention_heads=4, intermediate_size=128, conv_dim=(32, 32, 32),
        conv_kernel=(10, 3, 3), conv_stride=(5, 2, 2), num_feat_extract_layers=3,
        num_conv_pos_embeddings=16, num_conv_pos_embedding_groups=4,
    ),
    "lstm": Architecture("series", partial(_Recurrent, nn.LSTM, False, num_layers=2), _SERIES),
    "lstm_bidirectional": Architecture(
        "series", partial(_Recurrent, nn.LSTM, False, bidirectional=True), _SERIES
    ),
    "gru_classifier": Architecture("series", partial(_Recurrent, nn.GRU, True), _SERIES),
    "transformer_encoder": Architecture("series", _Tagger, _SERIES),
    "convolutions_1d": Architecture("series", _Convolutions1d, _SERIES),
    "convolutions_3d": Architecture(
        "video", _Convolutions3d, (Input("video", ("batch", 3, 8, 16, 16), _signal),)
    ),
    "dcgan": Architecture(
        "generator", _Generator, (Input("noise", ("batch", 16), _signal),)
    ),
}  # fmt: skip
