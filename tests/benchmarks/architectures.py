"""Architectures for the coverage runs: timm, transformers (tiny configurations) and this repository's samples.

All weights are random. Sizes are small, so that every model takes seconds; the layers are those of the full network.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

BATCH = 2
FAINT = 0.4
"""Layers that make signals smaller than this (standard deviation times the root of the inputs) get it set to 1."""
HINT = (
    "pip install --no-deps timm torchvision transformers tokenizers safetensors huggingface_hub && "
    "pip install pyyaml httpx regex tqdm pillow"
)


@dataclass(frozen=True)
class Architecture:
    """One model. ``inputs``: the sizes of each without the batch, or (sizes, vocabulary) for tokens."""

    source: str
    name: str
    inputs: tuple[Any, ...]
    options: dict[str, Any] = field(default_factory=dict)

    def build(self, seed: int = 0) -> nn.Module:
        """The module in evaluation mode. Raises ImportError where its library is absent."""
        torch.manual_seed(seed)
        module = {"timm": _timm, "transformers": _transformers, "sample": _sample}[self.source](self)
        stir(module)
        if any(isinstance(m, _BatchNorm) for m in module.modules()):
            calibrate(module, self.example(batch=8))
        return module.eval()

    def example(self, batch: int = BATCH, seed: int = 1) -> tuple[Tensor, ...]:
        """Inputs: normal numbers, or tokens below the vocabulary's size."""
        generator = torch.Generator().manual_seed(seed)
        return tuple(
            torch.randint(x[1], (batch, *x[0]), generator=generator)
            if isinstance(x[0], tuple)
            else torch.randn(batch, *x, generator=generator)
            for x in self.inputs
        )


def stir(module: nn.Module) -> None:
    """Noise on what a fresh network leaves at zero or one, and larger weights where signals would fade away.

    Without it the work of some layers would be invisible in the output.
    """
    for name, tensor in (*module.named_parameters(), *module.named_buffers()):
        if tensor.is_floating_point() and tensor.numel() > 1 and bool((tensor == tensor.flatten()[0]).all()):
            noise = 0.2 * torch.randn_like(tensor)
            with torch.no_grad():
                tensor.add_(noise.abs() if name.endswith("running_var") else noise)
    for layer in module.modules():
        if isinstance(layer, nn.Linear | nn.modules.conv._ConvNd):
            weight = layer.weight
            gain = float(weight.std() * weight[0].numel() ** 0.5) if weight.numel() > 1 else 1.0
            if 0 < gain < FAINT:
                with torch.no_grad():
                    weight.div_(gain)


def calibrate(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
    """Running statistics of every batch normalisation from one batch, so that signals reach the output."""
    layers = {m: m.momentum for m in module.modules() if isinstance(m, _BatchNorm)}
    for layer in layers:
        layer.momentum = 1.0
    with torch.no_grad():
        module.train()(*inputs)
    for layer, momentum in layers.items():
        layer.momentum = momentum


def library(name: str) -> Any:
    """timm or transformers. Exits with what to install."""
    try:
        if importlib.util.find_spec("torchvision"):
            _torchvision()
        return importlib.import_module(name)
    except ImportError as error:
        sys.exit(f"{error}: this benchmark needs timm and transformers: {HINT}")


def _torchvision() -> None:
    """Both import torchvision, whose binary may belong to another build of torch: declare what it then misses."""
    try:
        importlib.import_module("torchvision")
    except RuntimeError:
        for name in [n for n in sys.modules if n.split(".")[0] == "torchvision"]:
            del sys.modules[name]
        for name in ("nms", "qnms"):
            torch.library.define(f"torchvision::{name}", "(Tensor a, Tensor b, float c) -> Tensor")
        importlib.import_module("torchvision")


def _timm(a: Architecture) -> nn.Module:
    return library("timm").create_model(a.name, pretrained=False, **a.options)


def _transformers(a: Architecture) -> nn.Module:
    return HF[a.name](library("transformers"))


def _sample(a: Architecture) -> nn.Module:
    from sample_models import build

    return build(a.name)


def _images(size: int) -> tuple[tuple[int, int, int], ...]:
    return ((3, size, size),)


# -- timm ------------------------------------------------------------------------------------------------

_SMALL_ATTENTION = {"embed_dim": 64, "depth": 3, "num_heads": 4}
_TIMM: list[tuple[str, int, dict[str, Any]]] = [
    # convolutional
    ("resnet18", 64, {}),
    ("resnet50", 64, {}),
    ("resnext50_32x4d", 64, {}),
    ("seresnet18", 64, {}),
    ("resnetv2_50", 64, {}),
    ("resnest14d", 64, {}),
    ("res2net50_26w_4s", 64, {}),
    ("skresnet18", 64, {}),
    ("densenet121", 64, {}),
    ("dpn48b", 64, {}),
    ("dla46_c", 64, {}),
    ("hrnet_w18_small", 64, {}),
    ("vgg11_bn", 64, {}),
    ("inception_v3", 96, {}),
    ("inception_v4", 96, {}),
    ("xception41", 64, {}),
    ("mobilenetv2_050", 64, {}),
    ("mobilenetv3_small_100", 64, {}),
    ("mobilenetv4_conv_small", 64, {}),
    ("efficientnet_b0", 64, {}),
    ("efficientnetv2_rw_t", 64, {}),
    ("mixnet_s", 64, {}),
    ("ghostnet_100", 64, {}),
    ("ghostnetv2_100", 64, {}),
    ("regnetx_002", 64, {}),
    ("regnety_002", 64, {}),
    ("rexnet_100", 64, {}),
    ("selecsls42", 64, {}),
    ("cspresnet50", 64, {}),
    ("darknet53", 64, {}),
    ("ese_vovnet19b_slim", 64, {}),
    ("tresnet_m", 64, {}),
    ("nf_resnet26", 64, {}),
    ("eca_nfnet_l0", 64, {}),
    ("repvgg_a0", 64, {}),
    ("mobileone_s0", 64, {}),
    ("botnet26t_256", 64, {"img_size": 64}),
    ("halonet26t", 256, {}),
    ("lambda_resnet26t", 64, {"img_size": 64}),
    ("hgnetv2_b0", 64, {}),
    ("convnext_atto", 64, {}),
    ("convnextv2_atto", 64, {}),
    ("fasternet_t0", 64, {}),
    ("starnet_s1", 64, {}),
    ("inception_next_atto", 64, {}),
    ("mambaout_femto", 64, {}),
    ("rdnet_tiny", 64, {}),
    ("convmixer_768_32", 64, {}),
    # attention, and both
    ("vit_tiny_patch16_224", 64, {"img_size": 64}),
    ("deit_tiny_distilled_patch16_224", 64, {"img_size": 64}),
    ("vit_relpos_small_patch16_224", 64, {"img_size": 64, "depth": 4}),
    ("beit_base_patch16_224", 64, {"img_size": 64, **_SMALL_ATTENTION}),
    ("eva02_tiny_patch14_224", 56, {"img_size": 56, "depth": 4}),
    ("cait_xxs24_224", 64, {"img_size": 64, "depth": 4}),
    ("coat_lite_tiny", 64, {"img_size": 64}),
    ("convit_tiny", 64, {"img_size": 64, "depth": 4, "local_up_to_layer": 3}),
    ("crossvit_tiny_240", 240, {}),
    ("davit_tiny", 64, {"depths": (1, 1, 2, 1), "embed_dims": (32, 64, 96, 128), "num_heads": (2, 4, 6, 8)}),
    ("edgenext_xx_small", 64, {}),
    ("efficientformer_l1", 224, {}),
    ("efficientformerv2_s0", 224, {}),
    ("efficientvit_b0", 64, {}),
    ("efficientvit_m0", 224, {}),
    ("fastvit_t8", 64, {}),
    ("focalnet_tiny_srf", 64, {}),
    ("gcvit_xxtiny", 224, {}),
    ("levit_128s", 224, {}),
    ("coatnet_nano_rw_224", 64, {"img_size": 64}),
    ("maxvit_nano_rw_256", 64, {"img_size": 64}),
    ("poolformer_s12", 64, {}),
    ("caformer_s18", 64, {}),
    ("mixer_s32_224", 224, {}),
    ("gmlp_ti16_224", 64, {"img_size": 64}),
    ("mobilevit_xxs", 64, {}),
    ("mobilevitv2_050", 64, {}),
    ("mvitv2_tiny", 64, {"img_size": 64}),
    ("pit_ti_224", 224, {}),
    ("pvt_v2_b0", 64, {}),
    ("repvit_m0_9", 64, {}),
    ("sequencer2d_s", 64, {"img_size": 64, "layers": (1, 1, 1, 1), "embed_dims": (32, 64, 64, 64)}),
    ("shvit_s1", 128, {}),
    ("swiftformer_xs", 64, {}),
    ("swin_tiny_patch4_window7_224", 56, {"img_size": 56, "depths": (2, 2), "num_heads": (3, 6)}),
    ("swinv2_tiny_window8_256", 64, {"img_size": 64, "depths": (2, 2), "num_heads": (3, 6)}),
    ("tiny_vit_5m_224", 224, {}),
    ("twins_svt_small", 64, {"img_size": 64, "depths": (2, 2, 2, 2)}),
    ("visformer_tiny", 64, {"img_size": 64}),
    ("volo_d1_224", 64, {"img_size": 64}),
    ("xcit_nano_12_p16_224", 64, {"img_size": 64, "depth": 4}),
]

# -- transformers ------------------------------------------------------------------------------------------

_VISION = {
    "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64,
    "image_size": 32, "patch_size": 8,
}  # fmt: skip
_TEXT = {
    "vocab_size": 50, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64,
    "max_position_embeddings": 32,
}  # fmt: skip
_DECODER = {**_TEXT, "num_key_value_heads": 2, "use_cache": False, "pad_token_id": 0, "bos_token_id": 1,
            "eos_token_id": 2}  # fmt: skip
_DETR = {
    "d_model": 32, "encoder_layers": 1, "decoder_layers": 1, "encoder_attention_heads": 4, "num_queries": 6,
    "decoder_attention_heads": 4, "encoder_ffn_dim": 48, "decoder_ffn_dim": 48, "num_labels": 5,
}  # fmt: skip
_RESNET = {"embedding_size": 16, "hidden_sizes": [16, 24, 32, 48], "depths": [1, 1, 1, 1]}
_FOUR = {"depths": [1, 1, 1, 1], "num_labels": 5}


def _detr(t: Any, config: str, model: str, **more: Any) -> nn.Module:
    backbone = t.ResNetConfig(**_RESNET, layer_type="basic", out_features=["stage4"])
    given = {"use_timm_backbone": False, "backbone_config": backbone, "use_pretrained_backbone": False}
    return getattr(t, model)(getattr(t, config)(**_DETR, **given, **more))


HF: dict[str, Callable[[Any], nn.Module]] = {
    "ViT": lambda t: t.ViTForImageClassification(t.ViTConfig(**_VISION, num_labels=5)),
    "DeiT": lambda t: t.DeiTForImageClassification(t.DeiTConfig(**_VISION, num_labels=5)),
    "BEiT": lambda t: t.BeitForImageClassification(t.BeitConfig(**_VISION, num_labels=5)),
    "DINOv2": lambda t: t.Dinov2ForImageClassification(
        t.Dinov2Config(**{k: v for k, v in _VISION.items() if k != "intermediate_size"}, num_labels=5)
    ),
    "CLIP vision": lambda t: t.CLIPVisionModel(t.CLIPVisionConfig(**_VISION)),
    "SigLIP vision": lambda t: t.SiglipVisionModel(t.SiglipVisionConfig(**_VISION)),
    "YOLOS": lambda t: t.YolosForObjectDetection(
        t.YolosConfig(**{**_VISION, "image_size": [32, 32]}, num_detection_tokens=5, num_labels=5)
    ),
    "Swin": lambda t: t.SwinForImageClassification(
        t.SwinConfig(image_size=32, patch_size=2, embed_dim=16, depths=[2, 2], num_heads=[2, 4], window_size=4)
    ),
    "Swin V2": lambda t: t.Swinv2ForImageClassification(
        t.Swinv2Config(image_size=32, patch_size=2, embed_dim=16, depths=[2, 2], num_heads=[2, 4], window_size=4)
    ),
    "SegFormer": lambda t: t.SegformerForSemanticSegmentation(
        t.SegformerConfig(
            hidden_sizes=[16, 16, 32, 32], num_attention_heads=[1, 1, 2, 2], decoder_hidden_size=32, **_FOUR
        )
    ),
    "PVT": lambda t: t.PvtForImageClassification(
        t.PvtConfig(
            image_size=64, hidden_sizes=[16, 16, 32, 32], num_attention_heads=[1, 2, 2, 4], **_FOUR
        )
    ),
    "DETR": lambda t: _detr(t, "DetrConfig", "DetrForObjectDetection"),
    "Conditional DETR": lambda t: _detr(t, "ConditionalDetrConfig", "ConditionalDetrForObjectDetection"),
    "ConvNeXt": lambda t: t.ConvNextForImageClassification(
        t.ConvNextConfig(hidden_sizes=[8, 16, 16, 32], **_FOUR)
    ),
    "ResNet": lambda t: t.ResNetForImageClassification(t.ResNetConfig(**_RESNET)),
    "RegNet": lambda t: t.RegNetForImageClassification(
        t.RegNetConfig(embedding_size=16, hidden_sizes=[16, 24, 32, 48], groups_width=8, depths=[1, 1, 1, 1])
    ),
    "MobileNetV1": lambda t: t.MobileNetV1ForImageClassification(t.MobileNetV1Config(depth_multiplier=0.25)),
    "MobileViT": lambda t: t.MobileViTForImageClassification(
        t.MobileViTConfig(
            image_size=64, hidden_sizes=[32, 40, 48], neck_hidden_sizes=[8, 16, 24, 32, 40, 48, 64], num_labels=5
        )
    ),
    "PoolFormer": lambda t: t.PoolFormerForImageClassification(
        t.PoolFormerConfig(hidden_sizes=[8, 16, 16, 32], **_FOUR)
    ),
    "LeViT": lambda t: t.LevitForImageClassification(
        t.LevitConfig(image_size=64, hidden_sizes=[32, 48, 64], num_attention_heads=[2, 3, 4], depths=[1, 1, 1])
    ),
    "DPT": lambda t: t.DPTForDepthEstimation(
        t.DPTConfig(
            **{**_VISION, "num_hidden_layers": 4}, backbone_out_indices=[0, 1, 2, 3], is_hybrid=False,
            neck_hidden_sizes=[8, 16, 24, 32], fusion_hidden_size=16,
        )
    ),
    "BERT": lambda t: t.BertForSequenceClassification(t.BertConfig(**_TEXT)),
    "RoBERTa": lambda t: t.RobertaForSequenceClassification(t.RobertaConfig(**_TEXT)),
    "DistilBERT": lambda t: t.DistilBertForSequenceClassification(
        t.DistilBertConfig(vocab_size=50, dim=32, n_layers=2, n_heads=4, hidden_dim=64)
    ),
    "ALBERT": lambda t: t.AlbertForSequenceClassification(t.AlbertConfig(**_TEXT, embedding_size=16)),
    "GPT-2": lambda t: t.GPT2LMHeadModel(
        t.GPT2Config(vocab_size=50, n_embd=32, n_layer=2, n_head=4, n_positions=32, use_cache=False)
    ),
    "OPT": lambda t: t.OPTForCausalLM(
        t.OPTConfig(
            vocab_size=50, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, ffn_dim=64, use_cache=False,
            max_position_embeddings=32, word_embed_proj_dim=32,
        )
    ),
    "GPT-NeoX": lambda t: t.GPTNeoXForCausalLM(t.GPTNeoXConfig(**_TEXT, use_cache=False)),
    "Llama": lambda t: t.LlamaForCausalLM(t.LlamaConfig(**_DECODER)),
    "Mistral": lambda t: t.MistralForCausalLM(t.MistralConfig(**_DECODER)),
    "Qwen2": lambda t: t.Qwen2ForCausalLM(t.Qwen2Config(**_DECODER)),
    "Phi": lambda t: t.PhiForCausalLM(t.PhiConfig(**_DECODER)),
    "T5 encoder": lambda t: t.T5EncoderModel(
        t.T5Config(vocab_size=50, d_model=32, d_kv=8, d_ff=64, num_layers=2, num_heads=4, use_cache=False)
    ),
    "Wav2Vec2": lambda t: t.Wav2Vec2ForSequenceClassification(
        t.Wav2Vec2Config(
            vocab_size=20, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=64,
            conv_dim=(16, 16, 16), conv_stride=(5, 2, 2), conv_kernel=(10, 3, 3), num_feat_extract_layers=3,
            num_conv_pos_embeddings=16, num_conv_pos_embedding_groups=4, classifier_proj_size=16,
        )
    ),
}  # fmt: skip
_TOKENS = {
    "BERT", "RoBERTa", "DistilBERT", "ALBERT", "GPT-2", "OPT", "GPT-NeoX", "Llama", "Mistral", "Qwen2", "Phi",
    "T5 encoder",
}  # fmt: skip
_SMALL_IMAGES = {
    "ViT", "DeiT", "BEiT", "DINOv2", "CLIP vision", "SigLIP vision", "YOLOS", "Swin", "Swin V2", "DPT",
}  # fmt: skip


def _hf(name: str) -> Architecture:
    if name in _TOKENS:
        inputs: tuple[Any, ...] = (((9,), 50),)
    elif name == "Wav2Vec2":
        inputs = ((800,),)
    else:
        inputs = _images(32 if name in _SMALL_IMAGES else 64)
    return Architecture("transformers", name, inputs)


def all_architectures() -> list[Architecture]:
    """Every one of them: samples first, then timm, then transformers."""
    from sample_models import SAMPLES

    return [
        *(Architecture("sample", n, (s.input_shape(),)) for n, s in SAMPLES.items()),
        *(Architecture("timm", n, _images(size), options) for n, size, options in _TIMM),
        *(_hf(n) for n in HF),
    ]
