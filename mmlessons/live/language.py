"""语言切换与样式 / The language switch and the look.

一段 HTML：三个单选按钮，加上只用 CSS 的隐藏规则，所以不需要内核，也不需要扩展；保存的文件和导出的 HTML 里同样有效。
样式和脚本在 `assets/page.css` 和 `assets/page.js`。

One piece of HTML: three radio buttons and hiding rules in CSS alone, so that neither a kernel nor an extension is
needed; it works in a saved file and in an HTML export. Style and script are `assets/page.css` and `assets/page.js`.
"""

from pathlib import Path

from IPython.display import HTML, display

from .fonts import use_chinese

ASSETS = Path(__file__).with_name("assets")
CHOICES = {"zh": "中文", "en": "English", "both": "双语 Both"}

# JupyterLab takes arrow keys for itself unless the focused element says that they are not for it
SWITCH = '<form class="mm-switch" onsubmit="return false"><fieldset>' \
         '<legend class="mm-unseen">语言 Language</legend>{}</fieldset></form>'
CHOICE = '<label><input type="radio" name="mm-language" class="mm-choose-{0}" value="{0}"{1}' \
         ' data-lm-suppress-shortcuts="true"><span>{2}</span></label>'


def page() -> None:
    """在每个笔记本的开头调用 / To be called at the head of every notebook.

    显示语言切换，带上样式，并让图能显示中文。可以重复运行。

    Shows the language switch, brings the style, and lets figures show Chinese. May be run again.
    """
    use_chinese()
    radios = "".join(CHOICE.format(value, " checked" if value == "both" else "", name)
                     for value, name in CHOICES.items())
    css, js = ((ASSETS / name).read_text(encoding="utf-8") for name in ("page.css", "page.js"))
    display(HTML(f"<style>\n{css}</style>\n{SWITCH.format(radios)}\n<script>\n{js}</script>"))
