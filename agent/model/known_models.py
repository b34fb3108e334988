"""The models that ``model/list`` offers.

Providers do not agree on a way to ask them, and a daemon must answer offline. So: the configured model
comes first, then the few names we know of that provider. Any other name still works when a client sends it.
"""

from __future__ import annotations

from protocol.daemon_methods import Model, ReasoningEffortOption

_EFFORTS = {
    "low": "Answers soonest, with little reasoning",
    "medium": "The balance for most work",
    "high": "More reasoning for hard problems",
}

_KNOWN: dict[str, dict[str, str]] = {
    "openai": {
        "gpt-5.1-codex": "Coding model of the GPT-5.1 family",
        "gpt-5.1-codex-mini": "Smaller and cheaper coding model of the GPT-5.1 family",
        "gpt-5.1": "General model of the GPT-5.1 family",
    },
    "offline": {"offline": "Built into spoold: follows simple rules, needs no network, knows nothing"},
}


def models_of(provider: str, chosen: str) -> list[Model]:
    """The models of ``provider``, ``chosen`` first and marked as the default."""
    known = _KNOWN.get(provider, {})
    names = [chosen, *(name for name in known if name != chosen)]
    return [
        _model(name, known.get(name, f"Configured model of {provider}"), name == chosen) for name in names
    ]


def _model(name: str, description: str, is_default: bool) -> Model:
    efforts = [
        ReasoningEffortOption(reasoning_effort=effort, description=text) for effort, text in _EFFORTS.items()
    ]
    return Model(
        id=name,
        model=name,
        display_name=name,
        description=description,
        supported_reasoning_efforts=efforts,
        default_reasoning_effort="medium",
        is_default=is_default,
    )
