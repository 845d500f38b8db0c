"""mmcore：多模态学习的数学，写成代码 / mmcore: the mathematics of multimodal learning, as code.

A name is loaded when it is first used, so that `import mmcore` loads torch and nothing heavier.

名字在第一次用到时才载入，所以 `import mmcore` 只载入 torch。

>>> import mmcore
>>> mmcore.weighted_sum.__module__
'mmcore.fusion'
"""

import importlib

import torch  # noqa: F401  (the one thing that importing mmcore promises to load)

__version__ = "0.1.0"

_NAMES = {  # module: what it gives
    "ranking": "ranks retrieval_scores",
    "alignment": "contrastive_loss feature_alignment_loss semantic_similarity semantic_alignment_loss sigmoid_loss "
                 "modality_gap cosine_similarity CrossModalAlignment AlignmentLoss CrossModalAligner",
    "reporting": "recall_at prompt_ensemble calibration_error yes_no_scores",
    "word_order": "winoground_scores exchanged_loss exchange",
    "projector": "word_prefix project nearest_word masked_attention attention_mask Resampler",
    "flow": "flow_path flow_matching_loss guided_velocity euler_steps frechet_distance variety nearest_distance",
    "shares": "share_loss gradient_error numbers_sent",
    "fusion": "weighted_sum EarlyFusion late_fusion LateFusion attention_fusion_weights AttentionFusion "
              "gated_fusion_weights GatedFusion adaptive_fusion_weights MultimodalFusion product_of_experts "
              "MultimodalFusionTrainer",
    "attention": "cell_attention_weights cell_gates CellAttention temporal_attention_weights TemporalAttention",
    "recurrence": "mean_over_time recurrent_states Recurrence",
    "encoders": "VisualEncoder TextEncoder",
    "pretrained": "from_clip",
    "decoder": "generation_loss beam_search CausalDecoder",
    "vision_language": "cross_modal_fusion multitask_loss CrossModalFusion VisualLanguageModel VLMTrainer",
}
_HOME = {name: module for module, names in _NAMES.items() for name in names.split()}
__all__ = list(_HOME)


def __getattr__(name: str) -> object:
    if name not in _HOME:
        raise AttributeError(f"mmcore 没有 {name!r} / mmcore has no {name!r}")
    value = getattr(importlib.import_module(f"mmcore.{_HOME[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
