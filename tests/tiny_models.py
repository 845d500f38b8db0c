"""随机的小模型，连同 processor / Tiny random models with their processors: CLIP, Chinese-CLIP, SigLIP, open_clip."""

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from torch import nn
from transformers import (
    ChineseCLIPConfig,
    ChineseCLIPImageProcessor,
    ChineseCLIPModel,
    ChineseCLIPProcessor,
    CLIPConfig,
    CLIPImageProcessor,
    CLIPModel,
    CLIPProcessor,
    CLIPTokenizer,
    PreTrainedTokenizerFast,
    SiglipConfig,
    SiglipImageProcessor,
    SiglipModel,
    SiglipProcessor,
)

from mmcore import tokens

SIZE = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
TEXTS = ["a red tree", "a", "红 树"]
WORDS = ["a", "red", "tree", "红", "树"]


def square(side: int) -> dict[str, Any]:
    return {"size": {"shortest_edge": side}, "crop_size": {"height": side, "width": side}}


def clip(side: int = 32) -> tuple[nn.Module, Any]:
    """A CLIP: byte pairs, causal text, cropped pictures."""
    letters = [*map(chr, range(33, 127)), *map(chr, range(161, 173)), *map(chr, range(174, 324))]  # a byte each
    table = ["<|startoftext|>", *letters, *(f"{x}</w>" for x in letters), "tr", "ee</w>", "<|endoftext|>"]
    tokenizer = CLIPTokenizer({word: i for i, word in enumerate(dict.fromkeys(table))},
                              [("t", "r"), ("e", "e</w>")], model_max_length=24)
    torch.manual_seed(0)
    model = CLIPModel(CLIPConfig(
        text_config=SIZE | {"vocab_size": len(tokenizer), "max_position_embeddings": 24, "bos_token_id": 0,
                "eos_token_id": len(tokenizer) - 1},
        vision_config=SIZE | {"image_size": side, "patch_size": 8}, projection_dim=12))
    return loud(model), CLIPProcessor(CLIPImageProcessor(**square(side)), tokenizer)


def chinese_clip(side: int = 32) -> tuple[nn.Module, Any]:
    """A Chinese-CLIP: a BERT reads, and padding is hidden by its mask."""
    from transformers import BertTokenizerFast

    table = [tokens.PAD, tokens.UNK, tokens.CLS, tokens.SEP, "[MASK]", *WORDS]
    tokenizer = BertTokenizerFast({word: i for i, word in enumerate(table)}, model_max_length=24)
    torch.manual_seed(0)
    model = ChineseCLIPModel(ChineseCLIPConfig(
        text_config=SIZE | {"vocab_size": len(table), "max_position_embeddings": 24},
        vision_config=SIZE | {"image_size": side, "patch_size": 8}, projection_dim=12))
    return loud(model), ChineseCLIPProcessor(ChineseCLIPImageProcessor(**square(side)), tokenizer)


def siglip(side: int = 32) -> tuple[nn.Module, Any]:
    """A SigLIP: pictures squeezed to a square, texts padded to 16 tokens, of which the last is looked at."""
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(["</s>", "<unk>", *WORDS])}, "<unk>"))
    tokenizer.normalizer, tokenizer.pre_tokenizer = normalizers.Lowercase(), pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing("$A </s>", special_tokens=[("</s>", 0)])
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="</s>", pad_token="</s>", unk_token="<unk>",
                                   model_max_length=16, model_input_names=["input_ids"])
    torch.manual_seed(0)
    model = SiglipModel(SiglipConfig(text_config=SIZE | {"vocab_size": 7, "max_position_embeddings": 16,
                                                         "bos_token_id": 1, "eos_token_id": 0},
                                     vision_config=SIZE | {"image_size": side, "patch_size": 8}))
    return loud(model), SiglipProcessor(SiglipImageProcessor(size={"height": side, "width": side}), fast)


KINDS = {"clip": clip, "chinese_clip": chinese_clip, "siglip": siglip}


def open_clip(path: Path, side: int = 32) -> str:
    """A folder of open_clip's, saved as it saves one; skips where it is not installed."""
    import open_clip as theirs

    config = {"embed_dim": 12, "vision_cfg": {"image_size": side, "layers": 1, "width": 64, "patch_size": 8},
              "text_cfg": {"context_length": 16, "vocab_size": 49408, "width": 64, "heads": 1, "layers": 1}}
    torch.manual_seed(0)
    path.mkdir(parents=True, exist_ok=True)
    save_file(loud(theirs.CLIP(**config)).state_dict(), path / "open_clip_model.safetensors")
    (path / "open_clip_config.json").write_text(json.dumps({"model_cfg": config, "preprocess_cfg": {
        "mean": [0.5, 0.4, 0.3], "std": [0.2, 0.25, 0.3], "interpolation": "bicubic", "resize_mode": "shortest"}}))
    return str(path)


def loud(model: nn.Module) -> nn.Module:
    """In eval mode, with weights so large that another picture or text is seen in the features."""
    for x in model.parameters():
        nn.init.normal_(x, std=0.3)
    return model.eval()
