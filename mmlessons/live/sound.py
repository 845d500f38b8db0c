"""能听的声音 / Sounds that can be played."""

from html import escape

from mmcore.checks import require

from .output import Drawn, Text, bilingual, data_uri, plain


def player(wav: bytes, label: Text) -> str:
    """一段 WAV 的播放器 / The player of a WAV."""
    require(isinstance(wav, bytes) and wav[:4] == b"RIFF" and wav[8:12] == b"WAVE",
            f"声音需要是 WAV 文件的字节，收到 {type(wav).__name__}",
            f"a sound must be the bytes of a WAV file, got {type(wav).__name__}", TypeError)
    name = escape(plain(label))
    return f'<audio controls preload="metadata" aria-label="{name}" src="{data_uri(wav, "audio/wav")}"></audio>'


def audio(wav: bytes, label: Text) -> Drawn:
    """一段能播放的声音和它的名字 / A sound that can be played, with its name.

    `wav` 是整个 WAV 文件；它随笔记本保存，所以请用短的、采样率低的。

    `wav` is a whole WAV file; it is saved with the notebook, so keep it short and its sampling rate low.
    """
    html = f'<div class="mm mm-sound"><span>{bilingual(label)}</span>{player(wav, label)}</div>'
    return Drawn(html, plain(label))
