"""What a user sends into a turn."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field

from protocol.base import Wire

MAX_INPUT_CHARS = 1 << 20
"""Characters over all text parts of one input; one more is refused (-32602)."""


class TextInput(Wire):
    """Text. ``text_elements`` keeps its snake_case name on the wire."""

    type: Literal["text"] = "text"
    text: str
    text_elements: list[dict[str, Any]] = Field(default_factory=list, alias="text_elements")


class ImageInput(Wire):
    """An image by address (http(s) or data URL) or by an uploaded file's id."""

    model_config = ConfigDict(extra="allow")
    type: Literal["image"] = "image"
    url: str | None = None


class LocalImageInput(Wire):
    """An image file on the daemon's machine."""

    model_config = ConfigDict(extra="allow")
    type: Literal["localImage"] = "localImage"
    path: str


class AudioInput(Wire):
    """Sound by address or by an uploaded file's id."""

    model_config = ConfigDict(extra="allow")
    type: Literal["audio"] = "audio"
    url: str | None = None


class LocalAudioInput(Wire):
    """A sound file on the daemon's machine."""

    model_config = ConfigDict(extra="allow")
    type: Literal["localAudio"] = "localAudio"
    path: str


class SkillInput(Wire):
    """A skill the user named."""

    model_config = ConfigDict(extra="allow")
    type: Literal["skill"] = "skill"
    name: str
    path: str


class MentionInput(Wire):
    """A file or a tool the user mentioned."""

    model_config = ConfigDict(extra="allow")
    type: Literal["mention"] = "mention"
    name: str
    path: str


UserInput = Annotated[
    TextInput | ImageInput | LocalImageInput | AudioInput | LocalAudioInput | SkillInput | MentionInput,
    Field(discriminator="type"),
]


def text_length(parts: list[UserInput]) -> int:
    """Characters over all text parts."""
    return sum(len(part.text) for part in parts if isinstance(part, TextInput))


def joined_text(parts: list[UserInput]) -> str:
    """The text parts as one string: what a thread's preview shows."""
    return "\n".join(part.text for part in parts if isinstance(part, TextInput))
