"""能听的声音 / Sounds that can be played."""

from html import escape

from mmcore.checks import require

from .output import Text, data_uri, plain


def player(wav: bytes, label: Text) -> str:
    """一段 WAV 的播放器 / The player of a WAV."""
    require(isinstance(wav, bytes) and wav[:4] == b"RIFF" and wav[8:12] == b"WAVE",
            f"声音需要是 WAV 文件的字节，收到 {type(wav).__name__}",
            f"a sound must be the bytes of a WAV file, got {type(wav).__name__}", TypeError)
    name = escape(plain(label))
    return f'<audio controls preload="metadata" aria-label="{name}" src="{data_uri(wav, "audio/wav")}"></audio>'
