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
from small_networks import Convolutions1d, Convolutions3d, Generator, Recurrent, Tagger, UNet
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
    for name, buffer in model.named_buffers():
        if name.endswith("codebook.embed"):  # learned by a running mean
            buffer.normal_()


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
        if hasattr(made, "set_experts_implementation"):
            made.set_experts_implementation("batched_mm")  # grouped, it is no op of PyTorch
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


# --- the table -----------------------------------------------------------------------------

# Wider than the default, so that attention depends on what it attends to.
_SPREAD = 0.1
_ENCODER = {
    "vocab_size": _VOCABULARY, "hidden_size": 64, "num_hidden_layers": 2,
    "num_attention_heads": 4, "intermediate_size": 128, "initializer_range": _SPREAD,
}  # fmt: skip
_VISION = {**_ENCODER, "image_size": 32, "patch_size": 8}
del _VISION["vocab_size"]
_WAVES = {
    "vocab_size": 20, "hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4,
    "intermediate_size": 128, "conv_dim": (32, 32, 32), "conv_kernel": (10, 3, 3),
    "conv_stride": (5, 2, 2), "num_feat_extract_layers": 3, "num_conv_pos_embeddings": 16,
    "num_conv_pos_embedding_groups": 4,
}  # fmt: skip

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
    "unet": Architecture("segmentation", UNet, _picture_of(64)),
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
        ("input_values",), **_WAVES,
    ),
    "lstm": Architecture("series", partial(Recurrent, nn.LSTM, False, num_layers=2), _SERIES),
    "lstm_bidirectional": Architecture(
        "series", partial(Recurrent, nn.LSTM, False, bidirectional=True), _SERIES
    ),
    "gru_classifier": Architecture("series", partial(Recurrent, nn.GRU, True), _SERIES),
    "transformer_encoder": Architecture("series", Tagger, _SERIES),
    "convolutions_1d": Architecture("series", Convolutions1d, _SERIES),
    "convolutions_3d": Architecture(
        "video", Convolutions3d, (Input("video", ("batch", 3, 8, 16, 16), _signal),)
    ),
    "dcgan": Architecture(
        "generator", Generator, (Input("noise", ("batch", 16), _signal),)
    ),
    "vgg11": _torchvision("CNN", "vgg11_bn"),
    "wide_resnet": _timm("CNN", "wide_resnet50_2"),
    "xception": _timm("CNN", "legacy_xception", 96),
    "seresnet": _timm("CNN", "seresnet18"),
    "skresnet": _timm("CNN", "skresnet18"),
    "resnest": _timm("CNN", "resnest14d"),
    "inception_resnet_v2": _timm("CNN", "inception_resnet_v2", 96),
    "dpn": _timm("CNN", "dpn48b"),
    "vovnet": _timm("CNN", "ese_vovnet19b_dw"),
    "regnet_x": _timm("CNN", "regnetx_002"),
    "tf_efficientnet_v2": _timm("CNN", "tf_efficientnetv2_b0"),
    "dinov2": _transformers(
        "vision transformer", "Dinov2ForImageClassification", "Dinov2Config", _picture_of(32),
        ("pixel_values",), **{**_VISION, "mlp_ratio": 2},
    ),
    "beit": _transformers(
        "vision transformer", "BeitForImageClassification", "BeitConfig", _picture_of(32),
        ("pixel_values",), **_VISION, use_relative_position_bias=True,
    ),
    "swin_v2": _timm("vision transformer", "swinv2_cr_tiny_ns_224", 64, img_size=64),
    "vitdet": _transformers(
        "vision transformer", "VitDetBackbone", "VitDetConfig", _picture_of(32),
        ("pixel_values",), lambda out: out.feature_maps[-1], hidden_size=64,
        num_hidden_layers=2, num_attention_heads=4, mlp_ratio=2, image_size=32,
        pretrain_image_size=32, patch_size=8, window_block_indices=[0], window_size=3,
        use_relative_position_embeddings=True,
    ),
    "dpt": _transformers(
        "depth", "DPTForDepthEstimation", "DPTConfig", _picture_of(32), ("pixel_values",),
        lambda out: out.predicted_depth, **{**_VISION, "num_hidden_layers": 4},
        backbone_out_indices=[0, 1, 2, 3],
        neck_hidden_sizes=[16, 16, 32, 32], fusion_hidden_size=16,
    ),
    "yolos": _transformers(
        "detection", "YolosForObjectDetection", "YolosConfig", _picture_of(32), ("pixel_values",),
        lambda out: (out.logits, out.pred_boxes),
        **{**_VISION, "image_size": [32, 32], "num_detection_tokens": 10},
    ),
    "detr": _transformers(
        "detection", "DetrForObjectDetection", "DetrConfig", _picture_of(64), ("pixel_values",),
        lambda out: (out.logits, out.pred_boxes), use_timm_backbone=False, backbone=None,
        use_pretrained_backbone=False, backbone_config={
            "model_type": "resnet", "embedding_size": 16, "hidden_sizes": [16, 32],
            "depths": [1, 1], "layer_type": "basic", "out_features": ["stage2"],
        }, d_model=32, encoder_layers=2, decoder_layers=2, encoder_attention_heads=4,
        decoder_attention_heads=4, encoder_ffn_dim=64, decoder_ffn_dim=64, num_queries=10,
        init_std=_SPREAD,
    ),
    "roberta": _transformers(
        "text", "RobertaForTokenClassification", "RobertaConfig", _TOKENS_AND_MASK,
        **_ENCODER,
    ),
    "electra": _transformers(
        "text", "ElectraForSequenceClassification", "ElectraConfig", _TOKENS_AND_MASK,
        embedding_size=32, **_ENCODER,
    ),
    "mpnet": _transformers(
        "text", "MPNetForSequenceClassification", "MPNetConfig", _TOKENS_AND_MASK, **_ENCODER
    ),
    "modernbert": _transformers(
        "text", "ModernBertForTokenClassification", "ModernBertConfig", _TOKENS_AND_MASK,
        global_attn_every_n_layers=2, local_attention=8, pad_token_id=0,
        **{**_ENCODER, "num_hidden_layers": 3},
    ),
    "qwen2": _transformers(
        "text", "Qwen2ForCausalLM", "Qwen2Config", _TOKENS_AND_MASK,
        num_key_value_heads=2, use_cache=False, **_ENCODER,
    ),
    "phi": _transformers(
        "text", "PhiForCausalLM", "PhiConfig", _TOKENS_AND_MASK, use_cache=False, **_ENCODER
    ),
    "bloom": _transformers(
        "text", "BloomForCausalLM", "BloomConfig", _TOKENS_AND_MASK, vocab_size=_VOCABULARY,
        hidden_size=64, n_layer=2, n_head=4, use_cache=False, initializer_range=_SPREAD,
    ),
    "mamba": _transformers(
        "text", "MambaForCausalLM", "MambaConfig", (_tokens(length=12),), vocab_size=_VOCABULARY,
        hidden_size=32, num_hidden_layers=2, state_size=8, use_cache=False,
        initializer_range=_SPREAD,
    ),
    "bart": _transformers(
        "text", "BartForConditionalGeneration", "BartConfig",
        (_tokens(), _tokens("target", "target_length")), ("input_ids", "decoder_input_ids"),
        vocab_size=_VOCABULARY, d_model=64, encoder_layers=2, decoder_layers=2,
        encoder_attention_heads=4, decoder_attention_heads=4, encoder_ffn_dim=128,
        decoder_ffn_dim=128, use_cache=False, init_std=_SPREAD,
    ),
    "siglip": _transformers(
        "text and image", "SiglipModel", "SiglipConfig", (_tokens(length=12), *_picture_of(32)),
        ("input_ids", "pixel_values"), lambda out: (out.text_embeds, out.image_embeds),
        text_config={**_ENCODER, "max_position_embeddings": 12}, vision_config=_VISION,
    ),
    "blip": _transformers(
        "text and image", "BlipForImageTextRetrieval", "BlipConfig",
        (_tokens(length=12), *_picture_of(32)), ("input_ids", "pixel_values"),
        lambda out: out.itm_score,
        text_config={**_ENCODER, "encoder_hidden_size": 64, "is_decoder": True},
        vision_config=_VISION, image_text_hidden_size=32,
    ),
    "vilt": _transformers(
        "text and image", "ViltForQuestionAnswering", "ViltConfig",
        (_tokens(length=12), *_picture_of(32)), ("input_ids", "pixel_values"),
        **_ENCODER, image_size=32, patch_size=8, num_labels=7, max_image_length=-1,
    ),
    "hubert": _transformers(
        "speech", "HubertForCTC", "HubertConfig", (Input("wave", ("batch", 1600), _signal),),
        ("input_values",), **_WAVES,
    ),
    "data2vec_audio": _transformers(
        "speech", "Data2VecAudioForCTC", "Data2VecAudioConfig",
        (Input("wave", ("batch", 1600), _signal),), ("input_values",),
        **{**_WAVES, "num_conv_pos_embeddings": 3, "conv_pos_kernel_size": 5},
    ),
    "ast": _transformers(
        "audio", "ASTForAudioClassification", "ASTConfig",
        (Input("spectrogram", ("batch", 48, 32), _signal),), ("input_values",),
        hidden_size=64, num_hidden_layers=2, num_attention_heads=4, intermediate_size=128,
        patch_size=8, frequency_stride=8, time_stride=8, max_length=48, num_mel_bins=32,
        initializer_range=_SPREAD, num_labels=5,
    ),
    "patchtst": _transformers(
        "series", "PatchTSTForClassification", "PatchTSTConfig",
        (Input("series", ("batch", 32, 3), _signal),), ("past_values",),
        lambda out: out.prediction_logits, num_input_channels=3, context_length=32,
        patch_length=8, patch_stride=8, d_model=32, num_attention_heads=4, num_hidden_layers=2,
        ffn_dim=64, num_targets=4, use_cls_token=True,
    ),
    "swin3d": Architecture(
        "video",
        lambda: importlib.import_module("torchvision.models.video.swin_transformer")
        .SwinTransformer3d(
            patch_size=[2, 4, 4], embed_dim=24, depths=[2, 2], num_heads=[2, 4],
            window_size=[4, 4, 4], num_classes=10,
        ),
        (Input("video", ("batch", 3, 8, 32, 32), _signal),),
    ),
    "focalnet": _timm("CNN", "focalnet_tiny_srf"),
    "gcvit": _timm("vision transformer", "gcvit_xxtiny", img_size=64),
    "xcit": _timm("vision transformer", "xcit_nano_12_p16_224"),
    "tnt": _timm("vision transformer", "tnt_s_patch16_224", img_size=64),
    "convit": _timm("vision transformer", "convit_tiny", img_size=64),
    "efficientformer_v2": _timm("vision transformer", "efficientformerv2_s0", 224),
    "deformable_detr": _transformers(
        "detection", "DeformableDetrForObjectDetection", "DeformableDetrConfig", _picture_of(64),
        ("pixel_values",), lambda out: (out.logits, out.pred_boxes), use_timm_backbone=False,
        backbone=None, use_pretrained_backbone=False, backbone_config={
            "model_type": "resnet", "embedding_size": 16, "hidden_sizes": [16, 32],
            "depths": [1, 1], "layer_type": "basic", "out_features": ["stage1", "stage2"],
        }, num_feature_levels=2, d_model=32, encoder_layers=1, decoder_layers=2,
        encoder_attention_heads=4, decoder_attention_heads=4, encoder_ffn_dim=64,
        decoder_ffn_dim=64, num_queries=10, init_std=_SPREAD, disable_custom_kernels=True,
    ),
    "rt_detr": _transformers(
        "detection", "RTDetrForObjectDetection", "RTDetrConfig", _picture_of(64),
        ("pixel_values",), lambda out: (out.logits, out.pred_boxes), backbone_config={
            "model_type": "rt_detr_resnet", "embedding_size": 16,
            "hidden_sizes": [16, 16, 32, 32], "depths": [1, 1, 1, 1], "layer_type": "basic",
            "out_features": ["stage2", "stage3", "stage4"],
        }, encoder_hidden_dim=32, encoder_in_channels=[16, 32, 32], feat_strides=[8, 16, 32],
        encoder_layers=1, encoder_ffn_dim=64, encoder_attention_heads=2, d_model=32,
        num_queries=10, decoder_in_channels=[32, 32, 32], decoder_ffn_dim=64, decoder_layers=2,
        decoder_attention_heads=2, anchor_image_size=None, num_labels=4, initializer_range=_SPREAD,
    ),
    "clipseg": _transformers(
        "segmentation", "CLIPSegForImageSegmentation", "CLIPSegConfig",
        (_tokens(length=12), *_picture_of(32)), ("input_ids", "pixel_values"),
        text_config={**_ENCODER, "eos_token_id": 2},
        vision_config={**_VISION, "num_hidden_layers": 3}, projection_dim=32,
        extract_layers=[0, 1, 2], reduce_dim=16, decoder_num_attention_heads=2,
        decoder_intermediate_size=32,
    ),
    "opt": _transformers(
        "text", "OPTForCausalLM", "OPTConfig", _TOKENS_AND_MASK, vocab_size=_VOCABULARY,
        hidden_size=64, num_hidden_layers=2, ffn_dim=128, num_attention_heads=4,
        max_position_embeddings=128, word_embed_proj_dim=64, use_cache=False, init_std=_SPREAD,
    ),
    "mixtral": _transformers(
        "text", "MixtralForCausalLM", "MixtralConfig", _TOKENS_AND_MASK, use_cache=False,
        num_key_value_heads=2, num_local_experts=4, num_experts_per_tok=2, **_ENCODER,
    ),
    "jamba": _transformers(
        "text", "JambaForCausalLM", "JambaConfig", (_tokens(length=8),), use_cache=False,
        use_mamba_kernels=False, num_key_value_heads=2, attn_layer_period=2, attn_layer_offset=1,
        expert_layer_period=2, expert_layer_offset=1, num_experts=2, num_experts_per_tok=1,
        mamba_d_state=8, mamba_d_conv=4, mamba_expand=2, mamba_dt_rank=8, **_ENCODER,
    ),
    "esm": _transformers(
        "text", "EsmForSequenceClassification", "EsmConfig", _TOKENS_AND_MASK, pad_token_id=1,
        position_embedding_type="rotary", mask_token_id=3, token_dropout=True, **_ENCODER,
    ),
    "falcon_alibi": _transformers(
        "text", "FalconForCausalLM", "FalconConfig", _TOKENS_AND_MASK, use_cache=False,
        alibi=True, **_ENCODER,
    ),
    "recurrent_gemma": _transformers(
        "text", "RecurrentGemmaForCausalLM", "RecurrentGemmaConfig", (_tokens(length=12),),
        use_cache=False, num_key_value_heads=2, head_dim=16, lru_width=64,
        attention_window_size=8, block_types=["recurrent", "attention"], **_ENCODER,
    ),
    "fnet": _transformers(
        "text", "FNetForSequenceClassification", "FNetConfig", (_tokens(),), **_ENCODER
    ),
    "funnel": _transformers(
        "text", "FunnelForSequenceClassification", "FunnelConfig",
        (_tokens(length=12), Input("mask", ("batch", 12), _mask)), vocab_size=_VOCABULARY,
        block_sizes=[1, 1], num_decoder_layers=1, d_model=64, n_head=4, d_head=16, d_inner=128,
        initializer_range=_SPREAD,
    ),
    "canine": _transformers(
        "text", "CanineForSequenceClassification", "CanineConfig",
        (_tokens(length=16), Input("mask", ("batch", 16), _mask)), downsampling_rate=4,
        local_transformer_stride=16, **_ENCODER,
    ),
    "longformer": _transformers(
        "text", "LongformerForSequenceClassification", "LongformerConfig", _TOKENS_AND_MASK,
        attention_window=4, **_ENCODER,
    ),
    "reformer": _transformers(
        "text", "ReformerForSequenceClassification", "ReformerConfig", (_tokens(length=16),),
        vocab_size=_VOCABULARY, hidden_size=64, num_attention_heads=4, attention_head_size=16,
        feed_forward_size=128, attn_layers=["local", "local"], local_attn_chunk_length=4,
        axial_pos_shape=[4, 4], axial_pos_embds_dim=[32, 32], is_decoder=False,
        initializer_range=_SPREAD,
    ),
    "wav2vec2_bert": _transformers(
        "speech", "Wav2Vec2BertForCTC", "Wav2Vec2BertConfig",
        (Input("features", ("batch", "length", 16), _signal),), ("input_features",),
        feature_projection_input_dim=16, conv_depthwise_kernel_size=5,
        position_embeddings_type="relative_key", left_max_position_embeddings=6,
        right_max_position_embeddings=3, **_ENCODER,
    ),
    "speech_to_text": _transformers(
        "speech", "Speech2TextForConditionalGeneration", "Speech2TextConfig",
        (Input("features", ("batch", 40, 16), _signal), _tokens()),
        ("input_features", "decoder_input_ids"), input_feat_per_channel=16, conv_channels=32,
        max_source_positions=64, max_target_positions=128, vocab_size=_VOCABULARY, d_model=64,
        encoder_layers=2, decoder_layers=2, encoder_attention_heads=4,
        decoder_attention_heads=4, encoder_ffn_dim=128, decoder_ffn_dim=128, use_cache=False,
        init_std=_SPREAD,
    ),
    "encodec": _transformers(
        "audio", "EncodecModel", "EncodecConfig", (Input("wave", ("batch", 1, 640), _signal),),
        ("input_values",), lambda out: out.audio_values, num_filters=4, hidden_size=16,
        codebook_size=32, codebook_dim=16, upsampling_ratios=[4, 2], num_lstm_layers=1,
        num_residual_layers=1,
    ),
    "clap_audio": _transformers(
        "audio", "ClapAudioModelWithProjection", "ClapAudioConfig",
        (Input("mel", ("batch", 1, 64, 16), _signal),), ("input_features",),
        lambda out: out.audio_embeds, window_size=4, num_mel_bins=16, spec_size=64, patch_size=2,
        patch_stride=[2, 2], num_classes=5, hidden_size=64, projection_dim=16, depths=[1, 1],
        num_attention_heads=[2, 2], patch_embeds_hidden_size=32,
    ),
}  # fmt: skip
