"""mmcore：多模态学习的数学，写成代码 / mmcore: the mathematics of multimodal learning, as code.

名字在第一次用到时才载入，所以 `import mmcore` 只载入 torch。

A name is loaded when it is first used, so that `import mmcore` loads torch and nothing heavier.
"""

import importlib

import torch  # noqa: F401  (the one thing that importing mmcore promises to load)

__version__ = "0.1.0"

_HOME = {  # name: the module it lives in
    "VisualEncoder": "encoders",
    "TextEncoder": "encoders",
    "product_of_experts": "fusion",
    "CausalDecoder": "decoder",
    "generation_loss": "decoder",
    "beam_search": "decoder",
    "cross_modal_fusion": "vision_language",
    "multitask_loss": "vision_language",
    "CrossModalFusion": "vision_language",
    "VisualLanguageModel": "vision_language",
    "VLMTrainer": "vision_language",
    "contrastive_loss": "alignment",
    "feature_alignment_loss": "alignment",
    "semantic_similarity": "alignment",
    "semantic_alignment_loss": "alignment",
    "sigmoid_loss": "alignment",
    "modality_gap": "alignment",
    "CrossModalAlignment": "alignment",
    "AlignmentLoss": "alignment",
    "cosine_similarity": "alignment",
    "ranks": "ranking",
    "retrieval_scores": "ranking",
    "weighted_sum": "fusion",
    "EarlyFusion": "fusion",
    "late_fusion": "fusion",
    "LateFusion": "fusion",
    "attention_fusion_weights": "fusion",
    "AttentionFusion": "fusion",
    "gated_fusion_weights": "fusion",
    "GatedFusion": "fusion",
    "adaptive_fusion_weights": "fusion",
    "MultimodalFusion": "fusion",
    "cell_attention_weights": "attention",
    "cell_gates": "attention",
    "CellAttention": "attention",
    "mean_over_time": "recurrence",
    "recurrent_states": "recurrence",
    "temporal_attention_weights": "attention",
    "Recurrence": "recurrence",
    "TemporalAttention": "attention",
    "CrossModalAligner": "alignment",
    "MultimodalFusionTrainer": "fusion",
}

__all__ = list(_HOME)


def __getattr__(name: str) -> object:
    if name not in _HOME:
        raise AttributeError(f"mmcore 没有 {name!r} / mmcore has no {name!r}")
    value = getattr(importlib.import_module(f"mmcore.{_HOME[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
