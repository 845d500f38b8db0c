"""语言切换与样式 / The language switch and the look.

一段 HTML：三个单选按钮，加上只用 CSS 的隐藏规则，所以不需要内核，也不需要扩展；保存的文件和导出的 HTML 里同样有效。
样式和脚本在 `assets/page.css` 和 `assets/page.js`。

One piece of HTML: three radio buttons and hiding rules in CSS alone, so that neither a kernel nor an extension is
needed; it works in a saved file and in an HTML export. Style and script are `assets/page.css` and `assets/page.js`.
"""

from pathlib import Path

from IPython.display import HTML, display

from .fonts import use_chinese
from .output import bilingual

ASSETS = Path(__file__).with_name("assets")
CHOICES = {"zh": "中文", "en": "English", "both": "双语 Both"}

# JupyterLab takes arrow keys for itself unless the focused element says that they are not for it
# where styles and scripts are taken out the switch stays hidden, and these words are seen in its place
NOT_RUN = ("这个文件在这里还没有运行过，所以两种语言都在，控件是静止的画面。选菜单 Run → Run All Cells，语言切换就出现"
           "在这里，画面也动起来。若刚才运行过，还没保存就重新载入了，训练仍在进行：在新的一格里运行 live.show()，"
           "面板就回来。",
           "This file has not been run here yet, so both languages are shown and the controls are still pictures. "
           "Choose Run → Run All Cells in the menu: the language switch appears here, and the pictures move. If you "
           "ran it and loaded the page again before it was saved, the training goes on: run live.show() in a new cell "
           "to bring its panel back.")
SWITCH = '<form class="mm-switch" style="display: none" onsubmit="return false"><fieldset>' \
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
    before = f'<div class="mm-before">{bilingual(NOT_RUN, "div")}</div>'
    display(HTML(f"<style>\n{css}</style>\n{before}\n{SWITCH.format(radios)}\n<script>\n{js}</script>"))
