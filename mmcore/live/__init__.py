"""活的笔记本：边训练边拖动滑块 / Live notebooks: move a slider while the model trains.

这一层不认识模型和数据，只由笔记本载入。`live.page()` 放在每个笔记本的第一个代码格。

This layer knows nothing of models or data and is imported by notebooks alone. `live.page()` goes into the first
code cell of every notebook.
"""

from .cards import Card, gallery, note, rows, search_box, table
from .controls import slider
from .curve import COLOURS, Curves, Plot
from .explore import bars, explore
from .kernel import is_live
from .language import page
from .panel import Training

__all__ = ["COLOURS", "Card", "Curves", "Plot", "Training", "bars", "explore", "gallery", "is_live", "note", "page",
           "rows", "search_box", "slider", "table"]
